//! `POST /build`, the classic one, and its cache.

mod printer;
mod steps;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use base64::Engine as _;
use docker_api::AuthConfig;
use docker_api::Query;
use docker_api::container::HostConfig;
use docker_api::progress::Message;
use engine::model::attest::Attests;
use engine::model::build::{DockerfileText, Event, NamedContext, Reuse, Wanted};
use engine::model::build_cache::{CacheOption, CachePlace, CacheSource, CacheTarget, OpenFolder};
use engine::model::{
    BuildEvent, BuildFolder, BuildPruneRequest, BuildRequest, BuildSource, ContainerSpec, EngineError, NetworkMode,
    Secrets,
};
use engine::{BuildOutput, Credentials, Engine, TreeOptions};
use http::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use self::printer::{Printer, Verbosity};
use self::steps::Steps;
use super::streams::tar_body;
use crate::body::{ReplyBody, Writer};
use crate::error::{ApiError, ApiResult};
use crate::map::resources;
use crate::reply::{self, Reply};
use crate::request::{Request, why_no_json};

/// Who asks at which registry.
const REGISTRY_CONFIG_HEADER: &str = "X-Registry-Config";
/// Secrets of a build.
const SECRETS_HEADER: &str = "X-Conex-Build-Secrets";

pub(crate) async fn build(engine: &Engine, request: Request) -> ApiResult<Reply> {
    let mut wanted = parse(&request.query)?;
    if request.scope.is_some() {
        confine(&request.query)?;
    }
    wanted.credentials = registry_config(&request);
    wanted.secrets = secrets(&request)?;
    let mut teller = Teller::new(&request.query);
    let peer = request.peer.clone();
    let query = &request.query;
    let source = match (query.get("remote"), query.get("folder")) {
        ("", "") => None,
        (url, "") => Some(BuildSource::Remote { url: url.to_owned(), client: None }),
        (_, path) => Some(BuildSource::Folder(folder(query, path)?)),
    };
    let source = match source {
        Some(source) => source,
        None => BuildSource::Tar(request.into_upload()),
    };
    let mut events = engine.build_image(source, wanted)?;
    // The first event after the Dockerfile was read decides between a status and a line in the answer.
    let mut first = Vec::new();
    loop {
        match events.recv().await {
            Some(Err(error)) => return Err(error.into()),
            Some(event) => {
                let is_reading = matches!(&event, Ok(BuildEvent::Happens(Event::Begin(_, what))) if what.stage.is_none())
                    || matches!(&event, Ok(BuildEvent::Happens(Event::End(..))));
                first.push(event);
                if !is_reading {
                    break;
                }
            }
            None => return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the build ended without a result")),
        }
    }
    let (writer, body) = ReplyBody::watched(peer);
    tokio::spawn(async move {
        for event in first {
            if write_event(&writer, event, &mut teller).await.is_break() {
                return;
            }
        }
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = writer.closed() => return,
            };
            let Some(event) = event else { return };
            if write_event(&writer, event, &mut teller).await.is_break() {
                return;
            }
        }
    });
    Ok(reply::stream("application/json", body))
}

/// What a build on a socket with fewer rights may not have: this machine's folders, sockets and network.
fn confine(query: &Query) -> ApiResult<()> {
    let reaches_out = ["folder", "contexts", "ssh", "cacheimports"].into_iter().find(|key| !query.get(key).is_empty());
    let what = reaches_out.or((query.get("networkmode") == "host").then_some("networkmode=host"));
    match what {
        Some(what) => {
            Err(ApiError::new(StatusCode::FORBIDDEN, format!("a build with {what} is not allowed on this socket")))
        }
        None => Ok(()),
    }
}

/// A folder that the client says it shares with the engine.
fn folder(query: &Query, path: &str) -> ApiResult<BuildFolder> {
    let number = |key: &str| {
        query.get(key).parse().map_err(|_| ApiError::bad_request(format!("{key} must be a number beside folder")))
    };
    let text = query.get("dockerfiletext");
    Ok(BuildFolder {
        path: path.into(),
        device: number("folderdevice")?,
        inode: number("folderinode")?,
        dockerfile: (!text.is_empty()).then(|| DockerfileText {
            text: text.to_owned(),
            ignore: Some(query.get("ignoretext").to_owned()).filter(|text| !text.is_empty()),
        }),
    })
}

/// Who asks at which registry. As in Docker a header that cannot be read is none.
fn registry_config(request: &Request) -> BTreeMap<String, Credentials> {
    let given = AuthConfig::all_from_header(request.header(REGISTRY_CONFIG_HEADER).unwrap_or_default());
    let given = given.unwrap_or_default();
    given.into_iter().map(|(host, auth)| (host, super::registries::credentials(auth))).collect()
}

/// Secrets, in a header of ours because addresses are logged: JSON of names and contents in base64, in base64.
fn secrets(request: &Request) -> ApiResult<Secrets> {
    let Some(text) = request.header(SECRETS_HEADER) else { return Ok(Secrets::default()) };
    let wrong = || ApiError::bad_request(format!("invalid {SECRETS_HEADER}"));
    let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| wrong());
    let given: BTreeMap<String, String> = serde_json::from_slice(&decode(text)?).map_err(|_| wrong())?;
    let secrets = given.into_iter().map(|(id, text)| Ok((id, decode(&text)?))).collect::<ApiResult<_>>()?;
    Ok(Secrets(secrets))
}

/// Caches that a request names: images, as Docker's classic builder knows them, and whatever else our own client says.
struct Caches {
    like: Option<Vec<String>>,
    from: Vec<CacheSource>,
    to: Vec<CacheTarget>,
    inline: bool,
}

fn caches(query: &Query) -> ApiResult<Caches> {
    let list = |key: &str| Ok::<Vec<String>, ApiError>(json_of(query, key)?.unwrap_or_default());
    let is_image = |text: &String| !text.contains('=');
    let (like, others): (Vec<String>, Vec<String>) = list("cachefrom")?.into_iter().partition(is_image);
    let not_served = |name: &str| EngineError::invalid(format!("folder {name} is not served by the client"));
    let no_folder = |name: &str| Err(not_served(name));
    let source = |text: &String, open: OpenFolder<'_>| Ok::<_, ApiError>(CacheOption::parse(text)?.source(open)?);
    let mut from = others.iter().map(|text| source(text, &no_folder)).collect::<ApiResult<Vec<_>>>()?;
    for text in list("cacheimports")? {
        from.push(source(&text, &engine::shared_folder)?);
    }
    let target = |text: &String| match CacheOption::parse(text)?.target()? {
        CacheTarget { place: CachePlace::Folder(name), .. } => Err(not_served(&name).into()),
        target => Ok::<_, ApiError>(target),
    };
    let to = list("cacheexports")?.iter().map(target).collect::<ApiResult<Vec<_>>>()?;
    let inline = to.iter().any(|target| matches!(target.place, CachePlace::Inline));
    Ok(Caches { like: Some(like).filter(|like| !like.is_empty()), from, to, inline })
}

fn json_of<T: DeserializeOwned>(query: &Query, key: &str) -> ApiResult<Option<T>> {
    match query.get(key) {
        "" => Ok(None),
        text => {
            let name = match key {
                "buildargs" => "build args",
                "cachefrom" => "cache-from",
                "ulimits" => "ulimit settings",
                other => other,
            };
            serde_json::from_str(text).map_err(|error| {
                let why = why_no_json(text.as_bytes(), &error);
                ApiError::bad_request(format!("error reading {name}: {why}"))
            })
        }
    }
}

fn parse(query: &Query) -> ApiResult<BuildRequest> {
    refuse(query)?;
    let arguments: BTreeMap<String, Option<String>> = json_of(query, "buildargs")?.unwrap_or_default();
    let caches = caches(query)?;
    let text = |key: &str| Some(query.get(key)).filter(|text| !text.is_empty()).map(str::to_owned);
    Ok(BuildRequest {
        dockerfile: query.get("dockerfile").to_owned(),
        tags: query.all("t").filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
        target: text("target"),
        // An argument without value is taken from the client's environment, by the client.
        arguments: arguments.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        labels: json_of(query, "labels")?.unwrap_or_default(),
        reuse: if query.flag("nocache") { Reuse::Nothing } else { Reuse::All },
        pull: query.flag("pull"),
        keep_containers: matches!(query.get("rm"), "0" | "false" | "False") && !query.flag("forcerm"),
        contexts: named_contexts(query)?,
        host_network: matches!(query.get("networkmode"), "host"),
        agents: json_of::<BTreeMap<String, String>>(query, "ssh")?
            .unwrap_or_default()
            .into_iter()
            .map(|(id, path)| (id, path.into()))
            .collect(),
        platform: text("platform"),
        id: text("buildid"),
        wanted: match query.get("result") {
            "" => Wanted::Image,
            "kept" => Wanted::Kept,
            "both" => Wanted::Both,
            other => return Err(ApiError::bad_request(format!("invalid result {other:?}: kept or both"))),
        },
        attests: attests(query)?,
        options: options(query),
        cache_from: caches.from,
        cache_to: caches.to,
        like: caches.like,
        inline_cache: caches.inline,
        template: template(query)?,
        ..BuildRequest::default()
    })
}

/// What is attested: `TYPE=OPTIONS`.
fn attests(query: &Query) -> ApiResult<Attests> {
    let mut attests = Attests::default();
    for text in query.all("attest").filter(|text| !text.is_empty()) {
        let (kind, options) = text.split_once('=').unwrap_or((text, ""));
        attests.add(kind, options)?;
    }
    Ok(attests)
}

/// The request as BuildKit's frontend would have been asked, for those who read how the image was made.
fn options(query: &Query) -> BTreeMap<String, String> {
    let mut options = BTreeMap::new();
    let map = |key: &str| json_of::<BTreeMap<String, Option<String>>>(query, key).ok().flatten().unwrap_or_default();
    for (key, prefix) in [("buildargs", "build-arg:"), ("labels", "label:")] {
        for (name, value) in map(key) {
            options.insert(format!("{prefix}{name}"), value.unwrap_or_default());
        }
    }
    for (key, name) in [("target", "target"), ("dockerfile", "filename")] {
        if !query.get(key).is_empty() {
            options.insert(name.to_owned(), query.get(key).to_owned());
        }
    }
    options
}

/// `--build-context`: `NAME=docker-image://…`, an address, or a folder of this machine.
fn named_contexts(query: &Query) -> ApiResult<BTreeMap<String, NamedContext>> {
    let given: BTreeMap<String, String> = json_of(query, "contexts")?.unwrap_or_default();
    let context = |(name, value): (String, String)| {
        let context = match value.strip_prefix("docker-image://") {
            Some(image) => NamedContext::Image(image.to_owned()),
            None if value.contains("://") || value.starts_with("git@") => NamedContext::Remote(value),
            None if value.starts_with('/') => NamedContext::Client(value),
            None => {
                return Err(ApiError::bad_request(format!(
                    "invalid context {name}={value}: a folder must be absolute"
                )));
            }
        };
        Ok((name, context))
    };
    given.into_iter().map(context).collect()
}

fn refuse(query: &Query) -> ApiResult<()> {
    let refuse = |what: &str| Err(ApiError::not_implemented(format!("{what} is not supported by this builder")));
    if query.get("version") == "2" || !query.get("session").is_empty() {
        return refuse("building with BuildKit");
    }
    if query.flag("squash") {
        return refuse("squash");
    }
    if !query.get("outputs").is_empty() {
        return refuse("an output other than an image");
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

/// How a build is told.
enum Teller {
    /// As Docker's classic builder does.
    Printer(Printer),
    /// Step by step, as it happens.
    Steps(Steps),
}

impl Teller {
    fn new(query: &Query) -> Teller {
        match (query.flag("q"), query.flag("steps")) {
            (true, _) => Teller::Printer(Printer::new(Verbosity::Quiet)),
            (false, true) => Teller::Steps(Steps::default()),
            (false, false) => Teller::Printer(Printer::new(Verbosity::Everything)),
        }
    }

    /// The lines to write now, and whether they are the last.
    fn lines(&mut self, event: BuildEvent) -> (Vec<Message>, ControlFlow<()>) {
        match (self, event) {
            (Teller::Steps(steps), BuildEvent::Happens(event)) => {
                (steps.tell(event).into_iter().collect(), ControlFlow::Continue(()))
            }
            (Teller::Steps(_), last) => Printer::new(Verbosity::Everything).lines(last),
            (Teller::Printer(printer), event) => printer.lines(event),
        }
    }

    /// What still waits when the build is over.
    fn rest(&mut self) -> Vec<Message> {
        match self {
            Teller::Printer(printer) => printer.rest(),
            Teller::Steps(_) => Vec::new(),
        }
    }
}

async fn write_event(writer: &Writer, event: Result<BuildEvent, EngineError>, teller: &mut Teller) -> ControlFlow<()> {
    let (messages, ends) = match event {
        Ok(event) => teller.lines(event),
        Err(error) => {
            let mut messages = teller.rest();
            messages.push(Message::failure(error.message()));
            (messages, ControlFlow::Break(()))
        }
    };
    for message in messages {
        if writer.send(message.to_line()).await.is_err() {
            return ControlFlow::Break(());
        }
    }
    ends
}

/// A part of what a build has made, as a tar.
pub(crate) async fn result(engine: &Engine, request: &Request) -> ApiResult<Reply> {
    let query = &request.query;
    let output = match query.get("type") {
        "files" => {
            let platform_split = match query.get("platformsplit") {
                "" => None,
                _ => Some(query.flag("platformsplit")),
            };
            let attestation_prefix = query.get("attestationprefix").to_owned();
            BuildOutput::Files(TreeOptions { attestation_prefix, platform_split })
        }
        "oci" => BuildOutput::Oci,
        "docker" => BuildOutput::Docker,
        "cache" => BuildOutput::Cache(CacheOption::parse(query.get("cache"))?.target()?),
        other => return Err(ApiError::bad_request(format!("invalid type {other:?}: files, oci, docker or cache"))),
    };
    let names = query.all("t").map(str::to_owned).collect();
    let tar = engine.build_output(query.get("id"), output, names).await?;
    Ok(reply::stream("application/x-tar", tar_body(tar)))
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
    let report = engine.prune_build_cache(prune_request(request)?).await?;
    let removed: Vec<String> = report.removed.iter().map(|view| view.id.hex()).collect();
    Ok(reply::document(&PruneReport {
        caches_deleted: Some(removed).filter(|list| !list.is_empty()),
        space_reclaimed: report.reclaimed_bytes,
    }))
}

fn prune_request(request: &Request) -> ApiResult<BuildPruneRequest> {
    let query = &request.query;
    let mut wanted = BuildPruneRequest { all: query.flag("all"), ..BuildPruneRequest::default() };
    // The newest clients reserve space, older ones keep storage: both mean what stays.
    for key in ["keep-storage", "reserved-space", "max-used-space"] {
        let bytes = request.number(key).map_err(|error| {
            error.wrapped(&format!("{key} is in bytes and expects an integer, got {}", query.get(key)))
        })?;
        if let Some(bytes) = bytes.filter(|bytes| *bytes > 0) {
            let bytes = u64::try_from(bytes).unwrap_or_default();
            wanted.keep_bytes = Some(wanted.keep_bytes.map_or(bytes, |kept| kept.min(bytes)));
        }
    }
    if request.number("min-free-space")?.is_some_and(|bytes| bytes > 0) {
        return Err(ApiError::not_implemented("min-free-space is not supported by this builder"));
    }
    for (key, values) in request.filters()?.iter() {
        let value = values.first().map(String::as_str).unwrap_or_default();
        match key {
            "until" | "unused-for" => {
                let seconds = dockerfile_duration(value)?;
                wanted.unused_for_s = Some(seconds);
            }
            "type" => wanted.kind = Some(value.to_owned()),
            "id" => wanted.ids = values.to_vec(),
            other => {
                return Err(ApiError::bad_request(format!("failed to prune build cache: invalid filter '{other}'")));
            }
        }
    }
    Ok(wanted)
}

/// `24h`, as Go writes durations.
fn dockerfile_duration(text: &str) -> ApiResult<i64> {
    let wrong = || ApiError::bad_request(format!("invalid duration {text:?}"));
    let (mut seconds, mut number) = (0.0, String::new());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter.is_ascii_digit() || letter == '.' {
            number.push(letter);
            continue;
        }
        let unit = match (letter, letters.peek()) {
            ('h', _) => 3600.0,
            ('m', Some('s')) => {
                letters.next();
                0.001
            }
            ('m', _) => 60.0,
            ('s', _) => 1.0,
            _ => return Err(wrong()),
        };
        seconds += number.parse::<f64>().map_err(|_| wrong())? * unit;
        number.clear();
    }
    if number.is_empty() && !text.is_empty() { Ok(seconds as i64) } else { Err(wrong()) }
}

/// The cache as `system df` shows it.
pub(crate) fn cache(engine: &Engine) -> Vec<serde_json::Value> {
    let item = |entry: engine::model::BuildCacheView| {
        json!({
            "ID": entry.id.hex(),
            "Type": entry.kind.name(),
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
        assert_eq!((request.template.network, request.reuse), (NetworkMode::None, Reuse::Nothing));
        for outside in ["folder=/etc", "contexts=%7B%7D", "ssh=%7B%7D", "networkmode=host"] {
            assert!(confine(&Query::parse(outside)).is_err(), "{outside}");
        }
        assert!(confine(&Query::parse("t=a&networkmode=none")).is_ok());
        for wrong in ["version=2", "squash=1", "buildargs=%5B", "memory=x", "securityopt=a", "shmsize=-1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
