//! `POST /build`, the classic one, and its cache.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use docker_api::Query;
use docker_api::container::HostConfig;
use docker_api::progress::{ErrorDetail, Message};
use engine::Engine;
use engine::model::{BuildEvent, BuildRequest, ContainerSpec, EngineError, NetworkMode};
use http::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::body::{ReplyBody, Writer};
use crate::error::{ApiError, ApiResult};
use crate::map::resources;
use crate::reply::{self, Reply};
use crate::request::Request;

/// So long are the ids that are shown.
const SHORT_ID: usize = 12;
/// Standard error of commands is red, as in Docker.
const RED: &str = "\u{1b}[91m";
const PLAIN: &str = "\u{1b}[0m";

/// What the client wants to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verbosity {
    Everything,
    /// The image's id alone.
    Quiet,
}

pub(crate) async fn build(engine: &Engine, request: Request) -> ApiResult<Reply> {
    let wanted = parse(&request.query)?;
    let verbosity = if request.query.flag("q") { Verbosity::Quiet } else { Verbosity::Everything };
    let first_lines = notes(&request.query);
    let peer = request.peer.clone();
    let mut events = engine.build_image(request.into_upload(), wanted)?;
    // The first event decides between a status and a line in the answer.
    let first = match events.recv().await {
        Some(Err(error)) => return Err(error.into()),
        Some(event) => event,
        None => return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the build ended without a result")),
    };
    let (writer, body) = ReplyBody::watched(peer);
    tokio::spawn(async move {
        for line in first_lines {
            let _ = writer.send(Message::stream(line).to_line()).await;
        }
        let mut next = Some(first);
        while let Some(event) = next {
            if write_event(&writer, event, verbosity).await.is_break() {
                return;
            }
            next = tokio::select! {
                event = events.recv() => event,
                () = writer.closed() => return,
            };
        }
    });
    Ok(reply::stream("application/json", body))
}

/// What was asked for and makes no difference here.
fn notes(query: &Query) -> Vec<String> {
    let from: Vec<String> = json_of(query, "cachefrom").ok().flatten().unwrap_or_default();
    if from.is_empty() {
        return Vec::new();
    }
    vec![format!("[Warning] cache-from is not used: {} (the cache of this engine is)\n", from.join(", "))]
}

fn json_of<T: DeserializeOwned>(query: &Query, key: &str) -> ApiResult<Option<T>> {
    match query.get(key) {
        "" => Ok(None),
        text => {
            serde_json::from_str(text).map_err(|error| ApiError::bad_request(format!("error reading {key}: {error}")))
        }
    }
}

fn parse(query: &Query) -> ApiResult<BuildRequest> {
    refuse(query)?;
    let arguments: BTreeMap<String, Option<String>> = json_of(query, "buildargs")?.unwrap_or_default();
    let text = |key: &str| Some(query.get(key)).filter(|text| !text.is_empty()).map(str::to_owned);
    Ok(BuildRequest {
        dockerfile: query.get("dockerfile").to_owned(),
        tags: query.all("t").filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
        target: text("target"),
        // An argument without value is taken from the client's environment, by the client.
        arguments: arguments.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        labels: json_of(query, "labels")?.unwrap_or_default(),
        no_cache: query.flag("nocache"),
        platform: text("platform"),
        id: text("buildid"),
        template: template(query)?,
    })
}

fn refuse(query: &Query) -> ApiResult<()> {
    let refuse = |what: &str| Err(ApiError::not_implemented(format!("{what} is not supported by this builder")));
    if query.get("version") == "2" || !query.get("session").is_empty() {
        return refuse("building with BuildKit");
    }
    if query.flag("squash") {
        return refuse("squash");
    }
    if !query.get("remote").is_empty() {
        return refuse("a remote build context");
    }
    if !query.get("outputs").is_empty() {
        return refuse("an output other than an image");
    }
    if query.flag("pull") {
        return refuse("pulling base images");
    }
    if !matches!(query.get("isolation"), "" | "default") {
        return Err(ApiError::bad_request(format!("unsupported isolation: {:?}", query.get("isolation"))));
    }
    if query.all("securityopt").any(|option| !option.is_empty()) {
        return Err(ApiError::bad_request(
            "The daemon on this platform does not support setting security options on build",
        ));
    }
    Ok(())
}

/// How the build's commands run.
fn template(query: &Query) -> ApiResult<ContainerSpec> {
    let number = |key: &str| match query.get(key) {
        "" => Ok(0),
        text => text
            .parse::<i64>()
            .map_err(|_| ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))),
    };
    let limits = HostConfig {
        memory: number("memory")?,
        memory_swap: number("memswap")?,
        cpu_shares: number("cpushares")?,
        cpu_period: number("cpuperiod")?,
        cpu_quota: number("cpuquota")?,
        cpuset_cpus: query.get("cpusetcpus").to_owned(),
        cpuset_mems: query.get("cpusetmems").to_owned(),
        cgroup_parent: query.get("cgroupparent").to_owned(),
        ulimits: json_of(query, "ulimits")?,
        ..HostConfig::default()
    };
    Ok(ContainerSpec {
        resources: resources::parse(&limits)?,
        network: NetworkMode::parse(query.get("networkmode"))?,
        extra_hosts: query.all("extrahosts").filter(|host| !host.is_empty()).map(str::to_owned).collect(),
        shm_size_bytes: u64::try_from(number("shmsize")?)
            .map_err(|_| ApiError::bad_request("SHM size can not be less than 0"))?,
        ..ContainerSpec::default()
    })
}

async fn write_event(writer: &Writer, event: Result<BuildEvent, EngineError>, verbosity: Verbosity) -> ControlFlow<()> {
    let (messages, ends) = match event {
        Ok(event) => lines(event, verbosity),
        Err(error) => (vec![Message::failure(error.message())], ControlFlow::Break(())),
    };
    for message in messages {
        if writer.send(message.to_line()).await.is_err() {
            return ControlFlow::Break(());
        }
    }
    ends
}

/// The lines that Docker's classic builder would write.
fn lines(event: BuildEvent, verbosity: Verbosity) -> (Vec<Message>, ControlFlow<()>) {
    let goes_on = ControlFlow::Continue(());
    match event {
        BuildEvent::Built { image, tags } => (built(image, &tags, verbosity), ControlFlow::Break(())),
        BuildEvent::Failed { code, message } => {
            let detail = ErrorDetail { code: i64::from(code), message: message.clone() };
            let failure = Message { error: message, error_detail: Some(detail), ..Message::default() };
            (vec![failure], ControlFlow::Break(()))
        }
        _ if verbosity == Verbosity::Quiet => (Vec::new(), goes_on),
        BuildEvent::Step { number, total, text } => {
            (vec![Message::stream(format!("Step {number}/{total} : {text}")), Message::stream("\n")], goes_on)
        }
        BuildEvent::Cached => (vec![Message::stream(" ---> Using cache\n")], goes_on),
        BuildEvent::Running(id) => (vec![Message::stream(format!(" ---> Running in {id}\n"))], goes_on),
        BuildEvent::Removed(id) => {
            (vec![Message::stream(format!(" ---> Removed intermediate container {id}\n"))], goes_on)
        }
        BuildEvent::State(digest) => (vec![Message::stream(format!(" ---> {}\n", &digest.hex()[..SHORT_ID]))], goes_on),
        BuildEvent::Stdout(bytes) => (vec![Message::stream(String::from_utf8_lossy(&bytes))], goes_on),
        BuildEvent::Stderr(bytes) => {
            (vec![Message::stream(format!("{RED}{}{PLAIN}", String::from_utf8_lossy(&bytes)))], goes_on)
        }
        BuildEvent::Warning(text) => (vec![Message::stream(text)], goes_on),
    }
}

fn built(image: oci::Digest, tags: &[String], verbosity: Verbosity) -> Vec<Message> {
    if verbosity == Verbosity::Quiet {
        return vec![Message::stream(format!("{image}\n"))];
    }
    let aux = Message { aux: Some(json!({ "ID": image.to_string() })), ..Message::default() };
    let success = Message::stream(format!("Successfully built {}\n", &image.hex()[..SHORT_ID]));
    let tagged = tags.iter().map(|tag| Message::stream(format!("Successfully tagged {tag}\n")));
    [aux, success].into_iter().chain(tagged).collect()
}

pub(crate) fn cancel(engine: &Engine, request: &Request) -> ApiResult<Reply> {
    match request.query.get("id") {
        "" => Err(ApiError::bad_request("build ID not provided")),
        id => {
            engine.cancel_build(id)?;
            Ok(reply::empty(StatusCode::OK))
        }
    }
}

/// What pruning answers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PruneReport {
    caches_deleted: Option<Vec<String>>,
    space_reclaimed: u64,
}

pub(crate) async fn prune(engine: &Engine, request: &Request) -> ApiResult<Reply> {
    let filters = request.filters()?;
    let limits = ["keep-storage", "reserved-space", "max-used-space", "min-free-space"];
    let limited = limits.iter().find(|key| !matches!(request.query.get(key), "" | "0"));
    if let Some(key) = limited {
        return Err(ApiError::not_implemented(format!("{key} is not supported by this builder")));
    }
    if !filters.is_empty() {
        return Err(ApiError::not_implemented("filters for the build cache are not supported by this builder"));
    }
    let report = engine.prune_build_cache(request.query.flag("all")).await?;
    let removed: Vec<String> = report.removed.iter().map(oci::Digest::hex).collect();
    Ok(reply::document(&PruneReport {
        caches_deleted: Some(removed).filter(|list| !list.is_empty()),
        space_reclaimed: report.reclaimed_bytes,
    }))
}

/// The cache as `system df` shows it.
pub(crate) fn cache(engine: &Engine) -> Vec<serde_json::Value> {
    let item = |entry: engine::model::BuildCacheView| {
        json!({
            "ID": entry.id.hex(),
            "Type": if entry.is_command { "exec.cachemount" } else { "regular" },
            "Description": entry.description,
            "InUse": false,
            "Shared": entry.in_use,
            "Size": entry.size_bytes,
            "CreatedAt": entry.created.to_string(),
            "LastUsedAt": entry.last_used.to_string(),
            "UsageCount": entry.uses,
        })
    };
    engine.build_cache().into_iter().map(item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(event: BuildEvent, verbosity: Verbosity) -> String {
        let lines = lines(event, verbosity).0;
        lines.iter().map(|line| String::from_utf8(line.to_line()).unwrap()).collect()
    }

    #[test]
    fn the_stream_is_dockers() {
        let step = BuildEvent::Step { number: 1, total: 2, text: "FROM x".into() };
        assert_eq!(
            text(step.clone(), Verbosity::Everything),
            "{\"stream\":\"Step 1/2 : FROM x\"}\r\n{\"stream\":\"\\n\"}\r\n"
        );
        assert_eq!(text(step, Verbosity::Quiet), "");
        let image = oci::Digest::of(b"");
        let built = BuildEvent::Built { image, tags: vec!["a:1".into()] };
        let expected = "{\"aux\":{\"ID\":\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"}}\r\n\
                        {\"stream\":\"Successfully built e3b0c44298fc\\n\"}\r\n{\"stream\":\"Successfully tagged a:1\\n\"}\r\n";
        assert_eq!(text(built, Verbosity::Everything), expected);
        let failed = BuildEvent::Failed { code: 3, message: "The command".into() };
        assert_eq!(
            text(failed, Verbosity::Quiet),
            "{\"errorDetail\":{\"code\":3,\"message\":\"The command\"},\"error\":\"The command\"}\r\n"
        );
    }

    #[test]
    fn parameters_are_read_or_refused_by_name() {
        let parse = |text: &str| parse(&Query::parse(text));
        let request = parse(
            "t=a&t=b:1&dockerfile=x&buildargs=%7B%22A%22%3A%221%22%2C%22B%22%3Anull%7D&labels=%7B%22l%22%3A%22v%22%7D&target=s\
             &nocache=1&networkmode=none&memory=64&shmsize=1024&extrahosts=h:1.2.3.4&rm=1&forcerm=0",
        )
        .unwrap();
        assert_eq!(request.tags, ["a", "b:1"]);
        assert_eq!(request.arguments, BTreeMap::from([("A".to_owned(), "1".to_owned())]));
        assert_eq!((request.template.resources.memory_bytes, request.template.shm_size_bytes), (64, 1024));
        assert_eq!((request.template.network, request.no_cache), (NetworkMode::None, true));
        for wrong in ["version=2", "squash=1", "remote=x", "buildargs=%5B", "memory=x", "securityopt=a", "shmsize=-1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
