//! Volumes.

use docker_api::volume::{UsageData, Volume};
use engine::model::{VolumeUsage, VolumeView};

use jiff::Timestamp;

/// A volume.
pub(crate) fn show(view: &VolumeView) -> Volume {
    Volume {
        created_at: whole_seconds(view.created),
        driver: view.driver.clone(),
        labels: view.labels.clone(),
        mountpoint: view.mountpoint.clone(),
        name: view.name.to_string(),
        options: view.options.clone(),
        scope: "local".to_owned(),
        ..Volume::default()
    }
}

/// Volumes alone are dated without fractions of a second.
fn whole_seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

/// A volume with what it holds.
pub(crate) fn usage(usage: &VolumeUsage) -> Volume {
    let data = UsageData {
        ref_count: i64::try_from(usage.reference_count).unwrap_or(i64::MAX),
        size: i64::try_from(usage.size_bytes).unwrap_or(i64::MAX),
    };
    Volume { usage_data: Some(data), ..show(&usage.volume) }
}
