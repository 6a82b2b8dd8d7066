//! Containers: everything that answers with a document or nothing.

use std::collections::HashMap;
use std::sync::Arc;

use docker_api::container::{Change, CommitResponse, Config, CreateResponse, PruneReport, TopResponse, UpdateResponse};
use engine::Engine;
use engine::model::{
    ChangeKind, CommitPause, CommitRequest, ContainerName, ContainerQuery, ContainerView, EngineError, ErrorKind,
    RemoveOptions, Signal, StopOptions,
};
use http::StatusCode;
use jiff::Timestamp;

use super::{done, terminal_size};
use crate::error::{ApiError, ApiResult};
use crate::map::create::{self, CreateContext};
use crate::map::{filter, inspect as map_inspect, resources, summary};
use crate::reply::{self, Reply};
use crate::request::{Request, parse_create};

/// Reading a longer document takes memory that is worth giving back.
const LARGE_DOCUMENT: usize = 256 << 10;

pub(crate) async fn list(engine: &Engine, request: &Request) -> ApiResult<Reply> {
    let limit = request.number("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let mut filters = filter::containers(&request.filters()?)?;
    // Parameters of the oldest clients.
    let legacy = |key: &str| request.query.find(key).filter(|name| !name.is_empty()).map(str::to_owned);
    filters.before = filters.before.or_else(|| legacy("before"));
    filters.since = filters.since.or_else(|| legacy("since"));
    filters.label.extend(request.scope_label());
    let query = ContainerQuery { all: request.query.flag("all"), limit, filters };
    let views = engine.containers(&query)?;
    let mut names = ImageNames { engine, known: HashMap::new() };
    let now = Timestamp::now();
    let mut list = reply::List::of(views.len());
    for view in views {
        let sizes = match request.query.flag("size") {
            true => Some(engine.container_sizes(view.id.as_ref()).await?),
            false => None,
        };
        list.add(&summary::summary(&view, names.of(&view), sizes, now).for_version(request.version));
    }
    Ok(list.reply())
}

/// The name of a container's image: as it was given, unless it now means another image.
struct ImageNames<'a> {
    engine: &'a Engine,
    known: HashMap<String, Option<oci::Digest>>,
}

impl ImageNames<'_> {
    fn of(&mut self, view: &Arc<ContainerView>) -> String {
        let given = &view.spec.image;
        let engine = self.engine;
        let means = self.known.entry(given.clone()).or_insert_with(|| engine.image_id(given).ok());
        match means {
            Some(id) if *id == view.image_id => given.clone(),
            _ => view.image_id.to_string(),
        }
    }
}

pub(crate) async fn create(engine: &Engine, request: Request) -> ApiResult<Reply> {
    let name = request.query.get("name").to_owned();
    let platform = request.query.get("platform").to_owned();
    let (version, scope) = (request.version, request.scope.clone());
    let document = request.json_bytes().await?;
    if document.len() > LARGE_DOCUMENT {
        engine.tidy_soon();
    }
    let body = parse_create(&document)?;
    drop(document);
    // Asked for only where it matters: it is not free, and creating is on the way of every run.
    let cgroup_v1 = version.before(41) && engine.system_info().cgroup_version == "1";
    let context = CreateContext { name: &name, platform: &platform, version, cgroup_v1, log: engine.default_log() };
    let (mut wanted, more_warnings) = create::parse(body, context)?;
    if let Some(scope) = scope {
        scope.confine_container(engine, &mut wanted.spec)?;
    }
    let created = engine.create_container(wanted).await.map_err(refuse_create)?;
    let warnings = created.warnings.into_iter().chain(more_warnings).collect();
    Ok(reply::created(&CreateResponse { id: created.id.to_string(), warnings }))
}

pub(crate) async fn commit(engine: &Engine, request: Request) -> ApiResult<Reply> {
    let (query, version) = (&request.query, request.version);
    let text = |key: &str| query.get(key).to_owned();
    let container = match &request.scope {
        Some(scope) => scope.check_container(engine, query.get("container"))?,
        None => text("container"),
    };
    let commit = CommitRequest {
        container,
        repository: text("repo"),
        tag: text("tag"),
        author: text("author"),
        comment: text("comment"),
        changes: query.all("changes").map(str::to_owned).collect(),
        pause: if query.flag_or("pause", true) { CommitPause::Frozen } else { CommitPause::Running },
        config: None,
    };
    let config: Option<Config> = request.document().await?;
    let config = config.map(|config| create::from_config(config, version)).transpose()?;
    let id = engine.commit_container(CommitRequest { config, ..commit }).await?;
    Ok(reply::created(&CommitResponse { id: id.to_string() }))
}

/// Clients take every 404 here for an image that is missing, or is of another platform, and begin to pull it, so only that is one.
fn refuse_create(error: EngineError) -> ApiError {
    let refusal = ApiError::from(error);
    let wants_pull = ["No such image", "image with reference"].iter().any(|begin| refusal.message.starts_with(begin));
    match refusal.status {
        StatusCode::NOT_FOUND if !wants_pull => ApiError { status: StatusCode::BAD_REQUEST, ..refusal },
        _ => refusal,
    }
}

pub(crate) async fn inspect(engine: &Engine, name: &str, request: &Request) -> ApiResult<Reply> {
    let view = engine.container(name)?;
    let sizes = match request.query.flag("size") {
        true => Some(engine.container_sizes(name).await?),
        false => None,
    };
    let mut shown = map_inspect::inspect(&view, sizes);
    engine.tidy_after_ports(view.networks.ports.len());
    shown.state.log = engine.container_log_forwarding(&view.id).map(map_inspect::log_state);
    Ok(reply::document(&shown.for_version(request.version)))
}

pub(crate) async fn top(engine: &Engine, name: &str, request: &Request) -> ApiResult<Reply> {
    let table = engine.container_top(name, request.query.get("ps_args")).await?;
    Ok(reply::document(&TopResponse { processes: table.processes, titles: table.titles }))
}

pub(crate) async fn changes(engine: &Engine, name: &str) -> ApiResult<Reply> {
    let kind = |kind| match kind {
        ChangeKind::Modified => 0,
        ChangeKind::Added => 1,
        ChangeKind::Deleted => 2,
    };
    let changes = engine.container_changes(name).await?;
    let list: Vec<Change> =
        changes.into_iter().map(|change| Change { kind: kind(change.kind), path: change.path }).collect();
    // No changes are `null`, which clients test for.
    Ok(reply::document(&Some(list).filter(|list| !list.is_empty())))
}

pub(crate) async fn start(engine: &Engine, name: &str, request: Request) -> ApiResult<Reply> {
    request.refuse_start_body()?;
    if !request.query.get("checkpoint").is_empty() {
        return Err(ApiError::not_implemented("starting from a checkpoint is not built yet"));
    }
    engine.start_container(name).await?;
    Ok(done())
}

pub(crate) async fn stop(engine: &Engine, name: &str, request: &Request) -> ApiResult<Reply> {
    engine.stop_container(name, stop_options(request)?).await?;
    Ok(done())
}

pub(crate) async fn restart(engine: &Engine, name: &str, request: &Request) -> ApiResult<Reply> {
    engine.restart_container(name, stop_options(request)?).await?;
    Ok(done())
}

fn stop_options(request: &Request) -> ApiResult<StopOptions> {
    let signal = match request.query.get("signal") {
        text if !text.is_empty() && request.version.at_least(42) => Some(Signal::parse(text)?),
        _ => None,
    };
    Ok(StopOptions { timeout_seconds: request.number("t")?, signal })
}

pub(crate) async fn kill(engine: &Engine, name: &str, request: &Request) -> ApiResult<Reply> {
    let failed = |error: EngineError| ApiError::from(error).wrapped(&format!("cannot kill container: {name}"));
    let signal = match request.query.get("signal") {
        "" => None,
        text => Some(Signal::parse(text).map_err(failed)?),
    };
    engine.kill_container(name, signal).await.map_err(failed)?;
    Ok(done())
}

pub(crate) async fn update(engine: &Engine, name: &str, request: Request) -> ApiResult<Reply> {
    let version = request.version;
    let update = resources::parse_update(request.document().await?, version)?;
    let warnings = engine.update_container(name, update).await?;
    Ok(reply::document(&UpdateResponse { warnings: Some(warnings).filter(|warnings| !warnings.is_empty()) }))
}

pub(crate) async fn rename(engine: &Engine, name: &str, request: &Request) -> ApiResult<Reply> {
    let new_name = request.query.get("name");
    if new_name.is_empty() {
        return Err(ApiError::bad_request("Neither old nor new names may be empty"));
    }
    // An unknown container is reported before a bad name.
    engine.container(name)?;
    let failed = |error: EngineError| ApiError::from(error).wrapped("Error when allocating new name");
    let new_name = ContainerName::parse(new_name).map_err(failed)?;
    engine.rename_container(name, new_name).await.map_err(|error| match error.message() {
        taken if taken.starts_with("Conflict.") => failed(error),
        _ => error.into(),
    })?;
    Ok(done())
}

pub(crate) async fn pause(engine: &Engine, name: &str) -> ApiResult<Reply> {
    engine.pause_container(name).await?;
    Ok(done())
}

pub(crate) async fn unpause(engine: &Engine, name: &str) -> ApiResult<Reply> {
    engine.unpause_container(name).await?;
    Ok(done())
}

pub(crate) async fn remove(engine: &Engine, name: &str, request: &Request) -> ApiResult<Reply> {
    let options = RemoveOptions {
        volumes: request.query.flag("v"),
        force: request.query.flag("force"),
        link: request.query.flag("link"),
    };
    engine.remove_container(name, options).await?;
    Ok(done())
}

pub(crate) async fn resize(engine: &Engine, name: &str, request: &Request) -> ApiResult<Reply> {
    engine.resize_container(name, terminal_size(request)?).await?;
    Ok(reply::empty(StatusCode::OK))
}

pub(crate) async fn prune(engine: &Engine, request: &Request) -> ApiResult<Reply> {
    let mut filters = filter::prune(&request.filters()?, filter::Prune::Containers)?;
    filters.label.extend(request.scope_label());
    let report = engine.prune_containers(filters).await?;
    Ok(reply::document(&PruneReport {
        containers_deleted: Some(report.deleted).filter(|list| !list.is_empty()),
        space_reclaimed: report.reclaimed_bytes,
    }))
}

/// Whether an error says that something is not there.
pub(crate) fn is_not_found(error: &EngineError) -> bool {
    error.kind() == ErrorKind::NotFound
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_image_makes_clients_pull() {
        let status = |message: &str| refuse_create(EngineError::not_found(message)).status;
        assert_eq!(status("No such image: x:latest"), StatusCode::NOT_FOUND);
        assert_eq!(status("network x not found"), StatusCode::BAD_REQUEST);
    }
}
