//! `GET /containers/json`.

use docker_api::container::{Port as WirePort, Summary, SummaryHostConfig, SummaryNetworkSettings};
use engine::model::{ContainerSizes, ContainerView, NetworkMode, Port};
use jiff::Timestamp;

use super::{endpoint, inspect, status};

/// One container of a list; `image` is the name to show.
pub(crate) fn summary(view: &ContainerView, image: String, sizes: Option<ContainerSizes>, now: Timestamp) -> Summary {
    let bytes = |size: u64| i64::try_from(size).unwrap_or(i64::MAX);
    let networks = view.networks.endpoints.iter().map(|(name, view)| (name.clone(), Box::new(endpoint::show(view))));
    Summary {
        id: view.id.to_string(),
        names: vec![format!("/{}", view.name)],
        image,
        image_id: view.image_id.to_string(),
        image_manifest_descriptor: None,
        command: command(&view.path, &view.args),
        created: view.created.as_second(),
        ports: ports(view),
        size_rw: sizes.map_or(0, |sizes| bytes(sizes.rw_bytes)),
        size_root_fs: sizes.map_or(0, |sizes| bytes(sizes.rootfs_bytes)),
        labels: Some(view.spec.labels.clone()),
        state: view.state.status.as_str().to_owned(),
        status: status::status(&view.state, now),
        host_config: SummaryHostConfig {
            network_mode: view.spec.network.to_string(),
            annotations: view.spec.annotations.clone(),
        },
        network_settings: Some(SummaryNetworkSettings { networks: networks.collect() }),
        mounts: view.mounts.iter().map(inspect::mount_point).collect(),
    }
}

/// The command in one string; words with spaces are quoted.
fn command(path: &str, args: &[String]) -> String {
    let quoted = |word: &String| if word.contains(' ') { format!("'{word}'") } else { word.clone() };
    std::iter::once(path.to_owned()).chain(args.iter().map(quoted)).collect::<Vec<_>>().join(" ")
}

fn ports(view: &ContainerView) -> Vec<WirePort> {
    let has_own_ports = matches!(view.spec.network, NetworkMode::Bridge | NetworkMode::Named(_));
    if !view.state.is_running() || !has_own_ports {
        return Vec::new();
    }
    let show = |port: Port| WirePort {
        private_port: port.number,
        r#type: port.protocol.as_str().to_owned(),
        ..WirePort::default()
    };
    let published = &view.networks.ports;
    let exposed = view.spec.exposed_ports.iter().filter(|port| published.of(*port).next().is_none()).map(show);
    let published = published.iter().map(|(port, place)| WirePort {
        ip: place.address.to_string(),
        public_port: place.number,
        ..show(port)
    });
    exposed.chain(published).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_with_spaces_are_quoted() {
        assert_eq!(command("sh", &["-c".into(), "echo hi".into()]), "sh -c 'echo hi'");
        assert_eq!(command("sh", &[]), "sh");
    }
}
