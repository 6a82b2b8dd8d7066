//! Volumes as readers see them.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::VolumeName;

/// One volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeView {
    /// Its name.
    pub name: VolumeName,
    /// `local`
    pub driver: String,
    /// Its folder on the host.
    pub mountpoint: String,
    /// When it was made.
    pub created: Timestamp,
    /// Labels as given; none stays none.
    pub labels: Option<BTreeMap<String, String>>,
    /// Options as given; none stays none.
    pub options: Option<BTreeMap<String, String>>,
    /// Whether the engine made it for a container.
    pub anonymous: bool,
}

/// A request to create a volume.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeRequest {
    /// The name; 64 hex digits are invented when none.
    pub name: Option<VolumeName>,
    /// The driver; `local` when empty.
    pub driver: String,
    /// Labels as given.
    pub labels: Option<BTreeMap<String, String>>,
    /// Options as given: `type`, `device`, `o` of the local driver, or `size`, `clone`, `snapshot`.
    pub options: Option<BTreeMap<String, String>>,
}

/// A volume and its use of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeUsage {
    /// The volume.
    pub volume: VolumeView,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// Containers that name it.
    pub reference_count: usize,
}
