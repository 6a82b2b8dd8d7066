//! Which rights there are, and which of them a request needs; pure.

use std::fmt;

use docker_api::{PluginRequest, Route};

/// A verb on an area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Right {
    area: Area,
    verb: Verb,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Area {
    Containers,
    Images,
    Networks,
    Volumes,
    System,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    /// To look.
    Read,
    /// To make, change and remove.
    Write,
    /// To run programs in containers, and to speak to those that run.
    Exec,
}

const AREAS: [(&str, Area, &[Verb]); 5] = [
    ("containers", Area::Containers, &[Verb::Read, Verb::Write, Verb::Exec]),
    ("images", Area::Images, &[Verb::Read, Verb::Write]),
    ("networks", Area::Networks, &[Verb::Read, Verb::Write]),
    ("volumes", Area::Volumes, &[Verb::Read, Verb::Write]),
    ("system", Area::System, &[Verb::Read]),
];

impl Verb {
    fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Exec => "exec",
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let area = AREAS.iter().find(|(_, area, _)| *area == self.area).map_or("", |(name, _, _)| name);
        write!(f, "{area}:{}", self.verb.as_str())
    }
}

impl Right {
    /// Reads `containers:read`, `containers:*`.
    pub(super) fn parse(text: &str) -> Option<Vec<Right>> {
        let (area, verb) = text.split_once(':')?;
        let (_, area, verbs) = AREAS.iter().find(|(name, _, _)| *name == area)?;
        let wanted = verbs.iter().filter(|known| verb == "*" || known.as_str() == verb);
        let rights: Vec<Right> = wanted.map(|verb| Right { area: *area, verb: *verb }).collect();
        if rights.is_empty() { None } else { Some(rights) }
    }
}

/// What a request needs.
pub(super) enum Need {
    Nothing,
    Rights(&'static [Right]),
    /// Nobody may, and what it is.
    Refused(&'static str),
}

const fn right(area: Area, verb: Verb) -> Right {
    Right { area, verb }
}

const LOOK: Right = right(Area::Containers, Verb::Read);
const CHANGE: Right = right(Area::Containers, Verb::Write);
const EXEC: Right = right(Area::Containers, Verb::Exec);
const IMAGES_LOOK: Right = right(Area::Images, Verb::Read);
const IMAGES_CHANGE: Right = right(Area::Images, Verb::Write);
const NETWORKS_LOOK: Right = right(Area::Networks, Verb::Read);
const NETWORKS_CHANGE: Right = right(Area::Networks, Verb::Write);
const VOLUMES_LOOK: Right = right(Area::Volumes, Verb::Read);
const VOLUMES_CHANGE: Right = right(Area::Volumes, Verb::Write);
const SYSTEM_LOOK: Right = right(Area::System, Verb::Read);

/// What a request needs; every one is named, so that a new one is thought about.
pub(super) fn need(route: &Route) -> Need {
    match route {
        Route::Ping | Route::Options | Route::Version => Need::Nothing,
        Route::Plugin(PluginRequest::Pull | PluginRequest::Create | PluginRequest::Privileges) | Route::PluginList => {
            Need::Refused("the use of plugins")
        }
        // No plugin is ever there, and to say so tells nothing.
        Route::Plugin(_) => Need::Nothing,
        Route::Info | Route::Events | Route::DiskUsage | Route::Metrics | Route::PortsExplain => {
            Need::Rights(&[SYSTEM_LOOK])
        }
        Route::ContainerList
        | Route::ContainerInspect(_)
        | Route::ContainerTop(_)
        | Route::ContainerWhy(_)
        | Route::ContainerLogs(_)
        | Route::ContainerChanges(_)
        | Route::ContainerStats(_)
        | Route::ContainerWait(_)
        | Route::ArchiveStat(_)
        | Route::ExecInspect(_) => Need::Rights(&[LOOK]),
        Route::ContainerCreate
        | Route::ContainerPrune
        | Route::ContainerStart(_)
        | Route::ContainerStop(_)
        | Route::ContainerRestart(_)
        | Route::ContainerKill(_)
        | Route::ContainerUpdate(_)
        | Route::ContainerRename(_)
        | Route::ContainerPause(_)
        | Route::ContainerUnpause(_)
        | Route::ContainerResize(_)
        | Route::ContainerRemove(_) => Need::Rights(&[CHANGE]),
        Route::ContainerExport(_) | Route::ArchiveGet(_) => Need::Rights(&[LOOK, EXEC]),
        Route::ContainerAttach(_)
        | Route::ContainerAttachWebsocket(_)
        | Route::ArchivePut(_)
        | Route::ExecCreate(_)
        | Route::ExecStart(_)
        | Route::ExecResize(_) => Need::Rights(&[EXEC]),
        Route::Commit => Need::Rights(&[LOOK, IMAGES_CHANGE]),
        Route::ImageList
        | Route::ImageInspect(_)
        | Route::ImageHistory(_)
        | Route::ImageSave
        | Route::ImageSaveOne(_)
        | Route::ImageSend
        | Route::LayersMissing
        | Route::ImageSearch
        | Route::ImageVerify
        | Route::Distribution(_) => Need::Rights(&[IMAGES_LOOK]),
        Route::ImageCreate
        | Route::ImageLoad
        | Route::ImageReceive
        | Route::ImagePrune
        | Route::ImagePush(_)
        | Route::ImageTag(_)
        | Route::ImagePin(_)
        | Route::ImageUnpin(_)
        | Route::ImageRemove(_)
        | Route::Build
        | Route::BuildPrune
        | Route::BuildCancel
        | Route::BuildResult
        | Route::Auth => Need::Rights(&[IMAGES_CHANGE]),
        Route::NetworkList | Route::NetworkInspect(_) => Need::Rights(&[NETWORKS_LOOK]),
        Route::NetworkCreate | Route::NetworkPrune | Route::NetworkRemove(_) => Need::Rights(&[NETWORKS_CHANGE]),
        Route::NetworkConnect(_) | Route::NetworkDisconnect(_) => Need::Rights(&[NETWORKS_CHANGE, CHANGE]),
        Route::VolumeList | Route::VolumeInspect(_) => Need::Rights(&[VOLUMES_LOOK]),
        Route::VolumeCreate | Route::VolumePrune | Route::VolumeUpdate(_) | Route::VolumeRemove(_) => {
            Need::Rights(&[VOLUMES_CHANGE])
        }
        Route::Session | Route::Grpc => Need::Refused("BuildKit"),
        Route::CheckpointList(_) | Route::CheckpointCreate(_) | Route::CheckpointRemove(..) => {
            Need::Refused("checkpoint and restore")
        }
        Route::Swarm(_) => Need::Refused("swarm mode"),
    }
}

/// The container that a request names.
pub(super) fn container_of(route: &mut Route) -> Option<&mut String> {
    match route {
        Route::ContainerInspect(name)
        | Route::ContainerTop(name)
        | Route::ContainerWhy(name)
        | Route::ContainerLogs(name)
        | Route::ContainerChanges(name)
        | Route::ContainerExport(name)
        | Route::ContainerStats(name)
        | Route::ContainerResize(name)
        | Route::ContainerStart(name)
        | Route::ContainerStop(name)
        | Route::ContainerRestart(name)
        | Route::ContainerKill(name)
        | Route::ContainerUpdate(name)
        | Route::ContainerRename(name)
        | Route::ContainerPause(name)
        | Route::ContainerUnpause(name)
        | Route::ContainerAttach(name)
        | Route::ContainerAttachWebsocket(name)
        | Route::ContainerWait(name)
        | Route::ContainerRemove(name)
        | Route::ArchiveStat(name)
        | Route::ArchiveGet(name)
        | Route::ArchivePut(name)
        | Route::ExecCreate(name) => Some(name),
        _ => None,
    }
}

/// The network that a request names and changes, or looks at.
pub(super) fn network_of(route: &mut Route) -> Option<&mut String> {
    match route {
        Route::NetworkInspect(name)
        | Route::NetworkRemove(name)
        | Route::NetworkConnect(name)
        | Route::NetworkDisconnect(name) => Some(name),
        _ => None,
    }
}

/// The volume that a request names.
pub(super) fn volume_of(route: &Route) -> Option<&str> {
    match route {
        Route::VolumeInspect(name) | Route::VolumeUpdate(name) | Route::VolumeRemove(name) => Some(name),
        _ => None,
    }
}

/// The exec that a request names.
pub(super) fn exec_of(route: &Route) -> Option<&str> {
    match route {
        Route::ExecStart(id) | Route::ExecResize(id) | Route::ExecInspect(id) => Some(id),
        _ => None,
    }
}

/// Requests that name no single thing: their handlers see to the label. Images have no owner: with a label they can be looked at and
/// pulled, nothing else.
pub(super) fn is_confined_by_its_handler(route: &Route) -> bool {
    matches!(
        route,
        Route::Info
            | Route::Events
            | Route::ContainerList
            | Route::ContainerCreate
            | Route::ContainerPrune
            | Route::NetworkList
            | Route::NetworkCreate
            | Route::NetworkPrune
            | Route::VolumeList
            | Route::VolumeCreate
            | Route::VolumePrune
            | Route::ImageList
            | Route::ImageInspect(_)
            | Route::ImageHistory(_)
            | Route::ImageSearch
            | Route::ImageCreate
            | Route::Distribution(_)
            | Route::Auth
    )
}
