//! Which request a method and a path mean.
//!
//! Every path exists with and without `/v1.NN`. Names may contain slashes (`/images/a/b:c/json`), so they reach from the prefix to the
//! last word that makes a route.

use crate::query::percent_decode;
use crate::{ApiVersion, VersionError};

/// A request of Docker's API.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the endpoint of its name; the fields are the parts of its path")]
pub enum Route {
    Ping,
    Options,
    Version,
    Info,
    /// Of Conex alone: `GET /metrics`, in the text format of Prometheus.
    Metrics,
    Events,
    DiskUsage,
    Auth,
    Session,
    Grpc,
    Build,
    BuildPrune,
    BuildCancel,
    /// Of Conex alone: `GET /build/result`, a part of what a build has made.
    BuildResult,
    Commit,
    ContainerList,
    ContainerCreate,
    ContainerPrune,
    ContainerInspect(String),
    ContainerTop(String),
    /// Of Conex alone: `GET /containers/{id}/why`.
    ContainerWhy(String),
    ContainerLogs(String),
    ContainerChanges(String),
    ContainerExport(String),
    ContainerStats(String),
    ContainerResize(String),
    ContainerStart(String),
    ContainerStop(String),
    ContainerRestart(String),
    ContainerKill(String),
    ContainerUpdate(String),
    ContainerRename(String),
    ContainerPause(String),
    ContainerUnpause(String),
    ContainerAttach(String),
    ContainerAttachWebsocket(String),
    ContainerWait(String),
    ContainerRemove(String),
    ArchiveStat(String),
    ArchiveGet(String),
    ArchivePut(String),
    CheckpointList(String),
    CheckpointCreate(String),
    CheckpointRemove(String, String),
    ExecCreate(String),
    ExecStart(String),
    ExecResize(String),
    ExecInspect(String),
    ImageList,
    ImageCreate,
    ImageLoad,
    ImagePrune,
    /// Of Conex alone: `GET /conex/ports`, who reaches which published port.
    PortsExplain,
    /// Of Conex alone: `POST /images/verify`.
    ImageVerify,
    ImageSearch,
    /// Of Conex alone: `POST /conex/images/missing`, which layers are not here.
    LayersMissing,
    /// Of Conex alone: `POST /conex/images/save`, without layers that the receiver has.
    ImageSend,
    /// Of Conex alone: `POST /conex/images/load`, where layers may be left out that are here.
    ImageReceive,
    ImageSave,
    ImageSaveOne(String),
    ImageInspect(String),
    ImageHistory(String),
    ImagePush(String),
    ImageTag(String),
    /// Of Conex alone: `POST /images/{name}/pin`.
    ImagePin(String),
    /// Of Conex alone: `POST /images/{name}/unpin`.
    ImageUnpin(String),
    ImageRemove(String),
    Distribution(String),
    NetworkList,
    NetworkCreate,
    NetworkPrune,
    NetworkInspect(String),
    NetworkRemove(String),
    NetworkConnect(String),
    NetworkDisconnect(String),
    VolumeList,
    VolumeCreate,
    VolumePrune,
    VolumeInspect(String),
    VolumeUpdate(String),
    VolumeRemove(String),
    PluginList,
    /// Any other request below `/plugins`.
    Plugin(PluginRequest),
    /// Everything that is about a swarm.
    Swarm(SwarmRequest),
}

/// What is asked about plugins, beyond which there are; with the name of one where it names one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the endpoint of its name")]
pub enum PluginRequest {
    Privileges,
    Pull,
    Create,
    Enable(String),
    Set(String),
    Upgrade(String),
    /// Those of which Docker looks at nothing but the name.
    Other(String),
}

/// What is asked about a swarm, by what is looked at before it turns out that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwarmRequest {
    /// Nothing is.
    Plain,
    /// A list, and its filters.
    List,
    /// One service, and whether defaults are filled in.
    Service,
    /// Something to create, or a key: a document.
    Document,
    /// A change: a document, and a version. Of a `node`, `service`, `secret`, `config` or of the `swarm` itself.
    Update(&'static str),
    /// The logs of a service or of a task, and which streams.
    Logs,
    /// Beginning or joining one.
    Init,
    /// Leaving one.
    Leave,
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No such path, or not with this method.
    #[error("page not found")]
    NotFound,
    /// The path is right, its version is not.
    #[error(transparent)]
    Version(#[from] VersionError),
}

/// Finds the request; the version is [`ApiVersion::NEWEST`] where the path has none.
///
/// `path` is the raw one, without the query.
pub fn route(method: &str, path: &str) -> Result<(Route, ApiVersion), RouteError> {
    if method == "OPTIONS" {
        return Ok((Route::Options, ApiVersion::NEWEST));
    }
    let path = percent_decode(path);
    let (version, path) = split_version(&path);
    let route = find(method, path).ok_or(RouteError::NotFound)?;
    let version = match version {
        Some(text) => text.parse::<ApiVersion>()?.supported()?,
        None => ApiVersion::NEWEST,
    };
    Ok((route, version))
}

/// Takes `/v1.45` off the front.
fn split_version(path: &str) -> (Option<&str>, &str) {
    let Some(rest) = path.strip_prefix("/v") else {
        return (None, path);
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (version, rest) = rest.split_at(end);
    let is_version = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_version { (Some(version), rest) } else { (None, path) }
}

fn find(method: &str, path: &str) -> Option<Route> {
    let (area, rest) = match path.strip_prefix('/')?.split_once('/') {
        Some((area, rest)) => (area, rest),
        None => return find_single(method, path.strip_prefix('/')?),
    };
    match area {
        "containers" => find_container(method, rest),
        "exec" => find_exec(method, rest),
        "images" => find_image(method, rest),
        "networks" => find_network(method, rest),
        "volumes" => find_volume(method, rest),
        "distribution" => match (method, named(rest, "/json")) {
            ("GET", Some(name)) => Some(Route::Distribution(name)),
            _ => None,
        },
        "build" => match (method, rest) {
            ("POST", "prune") => Some(Route::BuildPrune),
            ("POST", "cancel") => Some(Route::BuildCancel),
            ("GET", "result") => Some(Route::BuildResult),
            _ => None,
        },
        "system" => (method == "GET" && rest == "df").then_some(Route::DiskUsage),
        "conex" => match (method, rest) {
            ("GET", "ports") => Some(Route::PortsExplain),
            ("POST", "images/missing") => Some(Route::LayersMissing),
            ("POST", "images/save") => Some(Route::ImageSend),
            ("POST", "images/load") => Some(Route::ImageReceive),
            _ => None,
        },
        "plugins" => find_plugin(method, rest),
        "swarm" => find_swarm(method, rest),
        "nodes" | "services" | "tasks" | "secrets" | "configs" => find_cluster_object(method, area, rest),
        _ => None,
    }
}

fn find_single(method: &str, word: &str) -> Option<Route> {
    let route = match (method, word) {
        ("GET" | "HEAD", "_ping") => Route::Ping,
        ("GET", "version") => Route::Version,
        ("GET", "info") => Route::Info,
        ("GET", "metrics") => Route::Metrics,
        ("GET", "events") => Route::Events,
        ("POST", "auth") => Route::Auth,
        ("POST", "session") => Route::Session,
        ("POST", "grpc") => Route::Grpc,
        ("POST", "build") => Route::Build,
        ("POST", "commit") => Route::Commit,
        ("GET", "networks") => Route::NetworkList,
        ("GET", "volumes") => Route::VolumeList,
        ("GET", "plugins") => Route::PluginList,
        ("GET", "swarm") => Route::Swarm(SwarmRequest::Plain),
        ("GET", "nodes" | "services" | "tasks" | "secrets" | "configs") => Route::Swarm(SwarmRequest::List),
        _ => return None,
    };
    Some(route)
}

/// A route that is known by what stands behind the name.
type Action = (&'static str, fn(String) -> Route);

fn find_container(method: &str, rest: &str) -> Option<Route> {
    let route = match (method, rest) {
        ("GET", "json") => Route::ContainerList,
        ("POST", "create") => Route::ContainerCreate,
        ("POST", "prune") => Route::ContainerPrune,
        ("GET", _) => return find_container_get(rest),
        ("POST", _) => return find_container_post(rest),
        ("HEAD", _) => Route::ArchiveStat(named(rest, "/archive")?),
        ("PUT", _) => Route::ArchivePut(named(rest, "/archive")?),
        ("DELETE", _) => match split_checkpoint(rest) {
            Some((name, checkpoint)) => Route::CheckpointRemove(name, checkpoint),
            None => Route::ContainerRemove(named(rest, "")?),
        },
        _ => return None,
    };
    Some(route)
}

fn find_container_get(rest: &str) -> Option<Route> {
    const ACTIONS: &[Action] = &[
        ("/attach/ws", Route::ContainerAttachWebsocket),
        ("/json", Route::ContainerInspect),
        ("/top", Route::ContainerTop),
        ("/why", Route::ContainerWhy),
        ("/logs", Route::ContainerLogs),
        ("/changes", Route::ContainerChanges),
        ("/export", Route::ContainerExport),
        ("/stats", Route::ContainerStats),
        ("/archive", Route::ArchiveGet),
        ("/checkpoints", Route::CheckpointList),
    ];
    find_action(rest, ACTIONS)
}

fn find_container_post(rest: &str) -> Option<Route> {
    const ACTIONS: &[Action] = &[
        ("/start", Route::ContainerStart),
        ("/stop", Route::ContainerStop),
        ("/restart", Route::ContainerRestart),
        ("/kill", Route::ContainerKill),
        ("/pause", Route::ContainerPause),
        ("/unpause", Route::ContainerUnpause),
        ("/wait", Route::ContainerWait),
        ("/attach", Route::ContainerAttach),
        ("/resize", Route::ContainerResize),
        ("/rename", Route::ContainerRename),
        ("/update", Route::ContainerUpdate),
        ("/exec", Route::ExecCreate),
        ("/checkpoints", Route::CheckpointCreate),
    ];
    find_action(rest, ACTIONS)
}

fn find_exec(method: &str, rest: &str) -> Option<Route> {
    match method {
        "GET" => Some(Route::ExecInspect(named(rest, "/json")?)),
        "POST" => find_action(rest, &[("/start", Route::ExecStart), ("/resize", Route::ExecResize)]),
        _ => None,
    }
}

fn find_image(method: &str, rest: &str) -> Option<Route> {
    let route = match (method, rest) {
        ("GET", "json") => Route::ImageList,
        ("GET", "get") => Route::ImageSave,
        ("GET", "search") => Route::ImageSearch,
        ("GET", _) => {
            const ACTIONS: &[Action] =
                &[("/get", Route::ImageSaveOne), ("/json", Route::ImageInspect), ("/history", Route::ImageHistory)];
            return find_action(rest, ACTIONS);
        }
        ("POST", "create") => Route::ImageCreate,
        ("POST", "load") => Route::ImageLoad,
        ("POST", "prune") => Route::ImagePrune,
        ("POST", "verify") => Route::ImageVerify,
        ("POST", _) => {
            const ACTIONS: &[Action] = &[
                ("/push", Route::ImagePush),
                ("/tag", Route::ImageTag),
                ("/pin", Route::ImagePin),
                ("/unpin", Route::ImageUnpin),
            ];
            return find_action(rest, ACTIONS);
        }
        ("DELETE", _) => Route::ImageRemove(rest.to_owned()),
        _ => return None,
    };
    Some(route)
}

fn find_network(method: &str, rest: &str) -> Option<Route> {
    let route = match (method, rest) {
        ("GET", "") => Route::NetworkList,
        ("GET", _) => Route::NetworkInspect(named(rest, "")?),
        ("POST", "create") => Route::NetworkCreate,
        ("POST", "prune") => Route::NetworkPrune,
        ("POST", _) => {
            let actions: &[Action] = &[("/connect", Route::NetworkConnect), ("/disconnect", Route::NetworkDisconnect)];
            return find_action(rest, actions);
        }
        ("DELETE", _) => Route::NetworkRemove(named(rest, "")?),
        _ => return None,
    };
    Some(route)
}

fn find_volume(method: &str, rest: &str) -> Option<Route> {
    let route = match (method, rest) {
        ("POST", "create") => Route::VolumeCreate,
        ("POST", "prune") => Route::VolumePrune,
        ("GET", _) => Route::VolumeInspect(named(rest, "")?),
        ("PUT", _) => Route::VolumeUpdate(named(rest, "")?),
        ("DELETE", _) => Route::VolumeRemove(named(rest, "")?),
        _ => return None,
    };
    Some(route)
}

fn find_plugin(method: &str, rest: &str) -> Option<Route> {
    type Make = fn(String) -> PluginRequest;
    let ends = |actions: &[(&str, Make)]| {
        actions.iter().find_map(|(action, make)| named(rest, action).map(|name| Route::Plugin(make(name))))
    };
    match (method, rest) {
        ("GET", "privileges") => Some(Route::Plugin(PluginRequest::Privileges)),
        ("POST", "pull") => Some(Route::Plugin(PluginRequest::Pull)),
        ("POST", "create") => Some(Route::Plugin(PluginRequest::Create)),
        ("GET", _) => ends(&[("/json", PluginRequest::Other)]),
        ("POST", _) => ends(&[
            ("/enable", PluginRequest::Enable),
            ("/set", PluginRequest::Set),
            ("/upgrade", PluginRequest::Upgrade),
            ("/disable", PluginRequest::Other),
            ("/push", PluginRequest::Other),
        ]),
        ("DELETE", _) => ends(&[("", PluginRequest::Other)]),
        _ => None,
    }
}

fn find_swarm(method: &str, rest: &str) -> Option<Route> {
    let asked = match (method, rest) {
        ("POST", "init" | "join") => SwarmRequest::Init,
        ("GET", "unlockkey") => SwarmRequest::Plain,
        ("POST", "unlock") => SwarmRequest::Document,
        ("POST", "update") => SwarmRequest::Update("swarm"),
        ("POST", "leave") => SwarmRequest::Leave,
        _ => return None,
    };
    Some(Route::Swarm(asked))
}

fn find_cluster_object(method: &str, area: &str, rest: &str) -> Option<Route> {
    let name = rest.split('/').next().filter(|name| !name.is_empty())?;
    let action = &rest[name.len()..];
    let asked = match (method, action, area) {
        ("POST", "", "services" | "secrets" | "configs") if rest == "create" => SwarmRequest::Document,
        ("GET", "", "services") => SwarmRequest::Service,
        ("GET", "", _) | ("DELETE", "", "nodes" | "services" | "secrets" | "configs") => SwarmRequest::Plain,
        ("POST", "/update", "nodes") => SwarmRequest::Update("node"),
        ("POST", "/update", "services") => SwarmRequest::Update("service"),
        ("POST", "/update", "secrets") => SwarmRequest::Update("secret"),
        ("POST", "/update", "configs") => SwarmRequest::Update("config"),
        ("GET", "/logs", "services" | "tasks") => SwarmRequest::Logs,
        _ => return None,
    };
    Some(Route::Swarm(asked))
}

fn find_action(rest: &str, actions: &[Action]) -> Option<Route> {
    actions.iter().find_map(|(suffix, make)| named(rest, suffix).map(make))
}

/// The name before a suffix; a name of nothing is none.
fn named(rest: &str, suffix: &str) -> Option<String> {
    rest.strip_suffix(suffix).filter(|name| !name.is_empty()).map(str::to_owned)
}

fn split_checkpoint(rest: &str) -> Option<(String, String)> {
    let (name, checkpoint) = rest.split_once("/checkpoints/")?;
    (!name.is_empty() && !checkpoint.is_empty()).then(|| (name.to_owned(), checkpoint.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(method: &str, path: &str) -> Route {
        route(method, path).unwrap().0
    }

    #[test]
    fn names_reach_from_the_prefix_to_the_last_word() {
        assert_eq!(at("GET", "/images/a/b:c/json"), Route::ImageInspect("a/b:c".into()));
        assert_eq!(at("GET", "/v1.45/images/json/json"), Route::ImageInspect("json".into()));
        assert_eq!(
            at("GET", "/images/reg:5000/x@sha256:ab/history"),
            Route::ImageHistory("reg:5000/x@sha256:ab".into())
        );
        assert_eq!(at("DELETE", "/images/a%2Fb:c"), Route::ImageRemove("a/b:c".into()));
        assert_eq!(at("GET", "/images/get"), Route::ImageSave);
        assert_eq!(at("GET", "/images/get/get"), Route::ImageSaveOne("get".into()));
        assert_eq!(at("POST", "/images/a/b:c/pin"), Route::ImagePin("a/b:c".into()));
        assert_eq!(at("POST", "/v1.51/conex/images/missing"), Route::LayersMissing);
        assert_eq!(at("POST", "/images/pin/unpin"), Route::ImageUnpin("pin".into()));
        assert_eq!(at("GET", "/containers/x/attach/ws"), Route::ContainerAttachWebsocket("x".into()));
        assert_eq!(at("DELETE", "/containers/x/checkpoints/c"), Route::CheckpointRemove("x".into(), "c".into()));
        assert_eq!(at("POST", "/containers/create/start"), Route::ContainerStart("create".into()));
    }

    #[test]
    fn every_path_exists_with_and_without_a_version() {
        assert_eq!(route("GET", "/v1.30/info"), Ok((Route::Info, ApiVersion::new(1, 30))));
        assert_eq!(route("GET", "/info"), Ok((Route::Info, ApiVersion::NEWEST)));
        assert_eq!(at("HEAD", "/v1.51/_ping"), Route::Ping);
        assert_eq!(at("GET", "/volumes"), Route::VolumeList);
        assert_eq!(at("GET", "/networks/"), Route::NetworkList);
    }

    #[test]
    fn a_wrong_method_is_not_found_before_the_version_counts() {
        for (method, path) in [
            ("POST", "/info"),
            ("GET", "/containers/create"),
            ("GET", "/"),
            ("GET", ""),
            ("GET", "/x"),
            ("PATCH", "/containers/x"),
            ("GET", "/v9.99/nothing"),
            ("GET", "/vx/info"),
            ("GET", "/v1.45"),
            ("DELETE", "/containers/"),
            ("GET", "/containers//json"),
        ] {
            assert_eq!(route(method, path), Err(RouteError::NotFound), "{method} {path}");
        }
        assert!(matches!(route("GET", "/v9.99/info"), Err(RouteError::Version(VersionError::TooNew(_)))));
        assert!(matches!(route("GET", "/v1.10/info"), Err(RouteError::Version(VersionError::TooOld(_)))));
    }

    #[test]
    fn what_only_a_swarm_has_is_known() {
        for (method, path, asked) in [
            ("GET", "/swarm", SwarmRequest::Plain),
            ("GET", "/nodes", SwarmRequest::List),
            ("GET", "/services/x", SwarmRequest::Service),
            ("POST", "/services/create", SwarmRequest::Document),
            ("POST", "/secrets/x/update", SwarmRequest::Update("secret")),
            ("DELETE", "/secrets/x", SwarmRequest::Plain),
            ("POST", "/swarm/leave", SwarmRequest::Leave),
            ("GET", "/tasks/x/logs", SwarmRequest::Logs),
        ] {
            assert_eq!(at(method, path), Route::Swarm(asked), "{method} {path}");
        }
        assert_eq!(at("GET", "/plugins/x/y:z/json"), Route::Plugin(PluginRequest::Other("x/y:z".into())));
        assert_eq!(at("POST", "/plugins/x/y:z/set"), Route::Plugin(PluginRequest::Set("x/y:z".into())));
        assert_eq!(route("DELETE", "/plugins"), Err(RouteError::NotFound));
        assert_eq!(route("POST", "/tasks/create"), Err(RouteError::NotFound));
    }
}
