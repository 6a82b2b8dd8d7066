//! The engine and its host.

use docker_api::system::{DiskUsage, DiskUsageSummaries};
use docker_api::{ApiVersion, json};
use engine::Engine;
use engine::model::{ContainerFilters, ContainerQuery, EventKind, EventQuery, Status};
use jiff::Timestamp;

use crate::body::ReplyBody;
use crate::error::{ApiError, ApiResult};
use crate::map::time::limit;
use crate::map::{event as map_event, filter, image, summary, system, volume};
use crate::reply::{self, Reply};
use crate::request::Request;

pub(crate) fn version(engine: &Engine) -> Reply {
    reply::document(&system::version(&engine.system_info()))
}

pub(crate) fn info(engine: &Engine, request: &Request) -> ApiResult<Reply> {
    let mut info = engine.system_info();
    if let Some(label) = request.scope_label() {
        // Only what this client's lists show is counted.
        let filters = ContainerFilters { label: vec![label], ..ContainerFilters::default() };
        let own = engine.containers(&ContainerQuery { all: true, filters, ..ContainerQuery::default() })?;
        let count = |is_so: fn(Status) -> bool| own.iter().filter(|view| is_so(view.state.status)).count();
        info.running = count(|status| matches!(status, Status::Running | Status::Restarting));
        info.paused = count(|status| status == Status::Paused);
        info.stopped = own.len() - info.running - info.paused;
    }
    Ok(reply::document(&system::info(&info, Timestamp::now()).for_version(request.version)))
}

pub(crate) fn events(engine: &Engine, request: Request) -> ApiResult<Reply> {
    let (since_text, until_text) = (request.query.get("since"), request.query.get("until"));
    let (since, until) = (limit(since_text)?, limit(until_text)?);
    if let (Some(since), Some(until)) = (since, until)
        && until < since
    {
        return Err(ApiError::bad_request(format!(
            "`since` time ({since_text}) cannot be after `until` time ({until_text})"
        )));
    }
    let mut filters = filter::events(&request.filters()?);
    filters.label.extend(request.scope_label());
    let mut events = engine.events(EventQuery { since, until, filters })?;
    let version = request.version;
    let (writer, body) = ReplyBody::watched(request.peer);
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = writer.closed() => return,
            };
            let Some(event) = event else { return };
            if version.before(46) && event.kind == EventKind::Image && event.action == "create" {
                continue;
            }
            if writer.send(json::to_line(&map_event::show(&event))).await.is_err() {
                return;
            }
        }
    });
    Ok(reply::stream("application/json", body))
}

/// Which parts of the disk were asked about.
struct Wanted {
    containers: bool,
    images: bool,
    volumes: bool,
    build_cache: bool,
}

impl Wanted {
    fn parse(request: &Request) -> ApiResult<Self> {
        let all = Self { containers: true, images: true, volumes: true, build_cache: true };
        let mut types = request.query.all("type").peekable();
        if request.version.before(42) || types.peek().is_none() {
            return Ok(all);
        }
        let mut wanted = Self { containers: false, images: false, volumes: false, build_cache: false };
        for word in types {
            match word {
                "container" => wanted.containers = true,
                "image" => wanted.images = true,
                "volume" => wanted.volumes = true,
                "build-cache" => wanted.build_cache = true,
                _ => return Err(ApiError::bad_request(format!("unknown object type: {word}"))),
            }
        }
        Ok(wanted)
    }
}

/// In which form the disk's use is told. Since 1.52 there are sums; lists come along unless a client that knows the sums asks for
/// their items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Lists,
    ListsAndSums,
    SumsWithItems,
}

impl Form {
    fn of(request: &Request) -> Self {
        match (request.version.at_least(52), request.query.flag("verbose")) {
            (false, _) => Self::Lists,
            (true, false) => Self::ListsAndSums,
            (true, true) => Self::SumsWithItems,
        }
    }
}

pub(crate) async fn disk_usage(engine: &Engine, request: &Request) -> ApiResult<Reply> {
    let wanted = Wanted::parse(request)?;
    let usage = engine.disk_usage().await?;
    let now = Timestamp::now();
    let images = || usage.images.iter().map(|summary| df_image(summary, request.version)).collect();
    let containers = || {
        let show = |(view, sizes): &(std::sync::Arc<engine::model::ContainerView>, engine::model::ContainerSizes)| {
            summary::summary(view, view.spec.image.clone(), Some(*sizes), now).for_version(request.version)
        };
        usage.containers.iter().map(show).collect()
    };
    let layers_size = i64::try_from(usage.layers_bytes).unwrap_or(i64::MAX);
    let mut lists = DiskUsage {
        layers_size: if wanted.images { layers_size } else { 0 },
        images: wanted.images.then(images),
        containers: wanted.containers.then(containers),
        volumes: wanted.volumes.then(|| usage.volumes.iter().map(volume::usage).collect()),
        build_cache: wanted.build_cache.then(|| super::build::cache(engine)),
        builder_size: 0,
        summaries: DiskUsageSummaries::default(),
    };
    let reclaimable = i64::try_from(usage.reclaimable_layers_bytes).unwrap_or(i64::MAX);
    let budget = usage.budget.as_ref().filter(|_| wanted.images).map(system::storage_budget);
    let form = Form::of(request);
    if form != Form::Lists {
        lists.summaries = lists.sums(reclaimable);
    }
    lists.summaries.storage_budget = budget;
    match form {
        Form::SumsWithItems => {
            let items = system::with_items(lists);
            Ok(reply::document(&items))
        }
        _ => Ok(reply::document(&lists)),
    }
}

/// Unlike lists, this one always counts containers.
fn df_image(summary: &engine::model::ImageSummary, version: ApiVersion) -> docker_api::image::Summary {
    let mut shown = image::summary(summary);
    let containers = shown.containers;
    shown = shown.for_version(version);
    shown.containers = containers;
    shown
}
