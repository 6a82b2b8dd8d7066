//! Documents as Docker writes them pass through our types without losing or moving a byte.

use docker_api::{container, event, exec, image, json, network, progress, stats, system, volume};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::samples;

fn unchanged<T: Serialize + DeserializeOwned>(document: &str) {
    let value: T = json::from_slice(document.as_bytes()).unwrap();
    assert_eq!(serde_json::to_string(&value).unwrap(), document);
}

#[test]
fn containers() {
    unchanged::<container::Inspect>(samples::CONTAINER_INSPECT);
    unchanged::<container::Summary>(samples::CONTAINER_SUMMARY);
    unchanged::<exec::Inspect>(samples::EXEC);
    unchanged::<stats::Stats>(samples::STATS);
}

#[test]
fn images_volumes_and_networks() {
    unchanged::<image::Summary>(samples::IMAGE_SUMMARY);
    unchanged::<image::Inspect>(samples::IMAGE_INSPECT);
    unchanged::<image::HistoryItem>(samples::HISTORY);
    unchanged::<volume::Volume>(samples::VOLUME);
    unchanged::<network::Network>(samples::NETWORK);
}

#[test]
fn the_system() {
    unchanged::<event::Event>(samples::EVENT);
    unchanged::<system::Version>(samples::VERSION);
    unchanged::<system::Info>(samples::INFO);
    unchanged::<progress::Message>(samples::PROGRESS);
}
