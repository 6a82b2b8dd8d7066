//! Events: what happened to what.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What kind of object.
    pub kind: EventKind,
    /// Docker's action text: `start`, `exec_create: sh`, `health_status: healthy`.
    pub action: String,
    /// The object's id (a volume's and an image's may be its name).
    pub actor: String,
    /// Labels, name, image, and what the action adds.
    pub attributes: BTreeMap<String, String>,
    /// When.
    pub time: Timestamp,
}

/// The kinds of objects that events are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// `container`
    Container,
    /// `image`
    Image,
    /// `volume`
    Volume,
    /// `network`
    Network,
    /// `daemon`
    Daemon,
    /// `builder`
    Builder,
}

impl EventKind {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Volume => "volume",
            Self::Network => "network",
            Self::Daemon => "daemon",
            Self::Builder => "builder",
        }
    }
}
