//! Images.

use docker_api::image::{DeleteItem, HistoryItem, Layers, Pins, PruneReport, SendRequest, Summary};
use docker_api::progress::Message;
use engine::model::{EngineError, ImageProgress, ImportRequest, InspectQuery, PruneFilters};
use engine::{AbsentLayers, Engine, Pinning, StorageBudget};
use http::StatusCode;

use super::streams::tar_body;
use crate::body::{ReplyBody, Writer};
use crate::error::{ApiError, ApiResult};
use crate::map::filter;
use crate::map::image as map_image;
use crate::reply::{self, Reply};
use crate::request::Request;

pub(crate) fn list(engine: &Engine, request: &Request) -> ApiResult<Reply> {
    let mut filters = request.filters()?;
    let legacy = request.query.get("filter");
    if request.version.before(41) && !legacy.is_empty() {
        filters.add("reference", legacy);
    }
    let mut query = filter::images(&filters)?;
    query.all = request.query.flag("all");
    query.shared_size = request.version.at_least(42) && request.query.flag("shared-size");
    query.manifests = request.version.at_least(47) && request.query.flag("manifests");
    let list: Vec<Summary> =
        engine.images(&query)?.iter().map(|image| map_image::summary(image).for_version(request.version)).collect();
    Ok(reply::document(&list))
}

pub(crate) fn inspect(engine: &Engine, name: &str, request: &Request) -> ApiResult<Reply> {
    let query = InspectQuery {
        platform: if request.version.at_least(49) { platform_document(request)? } else { None },
        manifests: request.version.at_least(48) && request.query.flag("manifests"),
    };
    if query.platform.is_some() && query.manifests {
        return Err(ApiError::bad_request("conflicting options: manifests and platform options cannot both be set"));
    }
    let view = engine.image(name, &query)?;
    Ok(reply::document(&map_image::inspect(&view).for_version(request.version)))
}

pub(crate) async fn pin(engine: &Engine, name: &str, pinning: Pinning) -> ApiResult<Reply> {
    Ok(reply::document(&Pins { pins: engine.pin_image(name, pinning).await? }))
}

pub(crate) fn history(engine: &Engine, name: &str, request: &Request) -> ApiResult<Reply> {
    let platform = if request.version.at_least(48) { platform_document(request)? } else { None };
    let steps: Vec<HistoryItem> =
        engine.image_history(name, platform.as_deref())?.iter().map(map_image::history).collect();
    Ok(reply::document(&steps))
}

pub(crate) async fn tag(engine: &Engine, name: &str, request: &Request) -> ApiResult<Reply> {
    let (repository, tag) = (request.query.get("repo"), request.query.get("tag"));
    if repository.is_empty() {
        return Err(ApiError::bad_request("repository name must have at least one component"));
    }
    engine.tag_image(name, repository, tag).await?;
    Ok(reply::empty(StatusCode::CREATED))
}

pub(crate) async fn remove(engine: &Engine, name: &str, request: &Request) -> ApiResult<Reply> {
    if name.trim().is_empty() {
        return Err(ApiError::bad_request("image name cannot be blank"));
    }
    if request.version.at_least(50) {
        // An image is here for one platform, so that its removal is the image's.
        let platforms = request.query.all("platforms").map(platform_of).collect::<ApiResult<Vec<_>>>()?;
        engine.check_image_platforms(name, &platforms)?;
    }
    let removed = engine.remove_image(name, request.query.flag("force"), !request.query.flag("noprune")).await?;
    let list: Vec<DeleteItem> = removed.iter().map(map_image::removal).collect();
    Ok(reply::document(&list))
}

pub(crate) async fn prune(engine: &Engine, request: &Request) -> ApiResult<Reply> {
    let filters = filter::prune(&request.filters()?, filter::Prune::Images)?;
    let is_dry = request.query.flag("dry-run");
    let report = match request.query.find("budget") {
        Some(_) if filters != PruneFilters::default() => {
            return Err(ApiError::bad_request("a budget chooses by last use alone: it cannot be given with filters"));
        }
        Some(text) => {
            let budget = Some(text).filter(|text| !text.is_empty()).map(str::parse::<StorageBudget>).transpose()?;
            if is_dry { engine.plan_budget(budget).await? } else { engine.prune_to_budget(budget).await? }
        }
        None if is_dry => engine.plan_prune_images(&filters),
        None => engine.prune_images(filters).await?,
    };
    let removed: Vec<DeleteItem> = report.removed.iter().map(map_image::removal).collect();
    Ok(reply::document(&PruneReport {
        images_deleted: Some(removed).filter(|list| !list.is_empty()),
        space_reclaimed: report.reclaimed_bytes,
        caches_deleted: report.cached.iter().map(oci::Digest::hex).collect(),
    }))
}

pub(crate) async fn save(engine: &Engine, names: Vec<String>, request: &Request) -> ApiResult<Reply> {
    if names.is_empty() {
        return Err(ApiError::bad_request("no images were named"));
    }
    let tar = engine.save_images(names, &platforms(request)?).await?;
    Ok(reply::stream("application/x-tar", tar_body(tar)))
}

/// Which of these layers are not here.
pub(crate) async fn missing_layers(engine: &Engine, request: Request) -> ApiResult<Reply> {
    let Layers { layers } = request.document().await?;
    Ok(reply::document(&Layers { layers: engine.missing_layers(layers) }))
}

/// Images as a tar without layers that the receiver has.
pub(crate) async fn send(engine: &Engine, request: Request) -> ApiResult<Reply> {
    let SendRequest { names, without } = request.document().await?;
    if names.is_empty() {
        return Err(ApiError::bad_request("no images were named"));
    }
    let tar = engine.save_images_without(names, &[], without.into_iter().collect()).await?;
    Ok(reply::stream("application/x-tar", tar_body(tar)))
}

/// Reads images from the body. The answer begins at once; what goes wrong is told in it, as in Docker.
pub(crate) fn load(engine: &Engine, request: Request, absent: AbsentLayers) -> ApiResult<Reply> {
    let quiet = request.query.flag_or("quiet", true);
    let platform = platform(&request)?;
    let mut steps = engine.load_images(request.into_upload(), platform, absent);
    let (writer, body) = ReplyBody::busy();
    tokio::spawn(async move {
        while let Some(step) = steps.recv().await {
            if write_step(&writer, step, quiet).await.is_break() {
                return;
            }
        }
    });
    Ok(reply::stream("application/json", body))
}

/// The `platform` of a load, since 1.48: one, because an image is here for one platform.
fn platform(request: &Request) -> ApiResult<Option<String>> {
    let mut platforms = platforms(request)?;
    match platforms.len() {
        0 | 1 => Ok(platforms.pop()),
        _ => Err(ApiError::bad_request("multiple platform parameters not supported")),
    }
}

/// Every `platform` of a load or save, since 1.48.
fn platforms(request: &Request) -> ApiResult<Vec<String>> {
    if request.version.before(48) {
        return Ok(Vec::new());
    }
    request.query.all("platform").filter(|text| !text.is_empty()).map(platform_of).collect()
}

/// The `platform` of an inspection or a history, which is a JSON document.
fn platform_document(request: &Request) -> ApiResult<Option<String>> {
    request.query.find("platform").filter(|text| !text.is_empty()).map(platform_of).transpose()
}

/// A platform as the docker CLI sends it since 1.48, a JSON document, or as people write it.
pub(super) fn platform_of(text: &str) -> ApiResult<String> {
    if !text.trim_start().starts_with('{') {
        return Ok(text.to_owned());
    }
    let platform: oci::image::Platform = serde_json::from_str(text)
        .map_err(|error| ApiError::bad_request(format!("failed to parse platform: {error}")))?;
    let parts = [platform.os, platform.architecture, platform.variant];
    Ok(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/"))
}

pub(super) async fn write_step(
    writer: &Writer,
    step: Result<ImageProgress, EngineError>,
    quiet: bool,
) -> std::ops::ControlFlow<()> {
    let message = match step {
        Ok(step) => map_image::progress(step, quiet),
        Err(error) => {
            let _ = writer.send(Message::failure(error.message()).to_line()).await;
            return std::ops::ControlFlow::Break(());
        }
    };
    match message {
        None => std::ops::ControlFlow::Continue(()),
        Some(message) => match writer.send(message.to_line()).await {
            Ok(()) => std::ops::ControlFlow::Continue(()),
            Err(_) => std::ops::ControlFlow::Break(()),
        },
    }
}

/// Pull or import.
pub(crate) async fn create(engine: &Engine, request: Request) -> ApiResult<Reply> {
    if let Some(scope) = &request.scope {
        scope.admit_image_source(request.query.get("fromSrc"))?;
    }
    if !request.query.get("fromImage").is_empty() {
        return super::registries::pull(engine, request).await;
    }
    match request.query.get("fromSrc") {
        "" => Err(ApiError::bad_request("either fromImage or fromSrc must be given")),
        _ => import(engine, request).await,
    }
}

async fn import(engine: &Engine, request: Request) -> ApiResult<Reply> {
    let query = request.query.clone();
    let source = query.get("fromSrc");
    let reference = match (query.get("repo"), query.get("tag")) {
        ("", _) => None,
        (repository, "") => Some(repository.to_owned()),
        (repository, tag) => Some(format!("{repository}:{tag}")),
    };
    let message = match query.get("message") {
        "" => format!("Imported from {source}"),
        text => text.to_owned(),
    };
    let wanted = ImportRequest {
        reference,
        message,
        changes: query.all("changes").map(str::to_owned).collect(),
        platform: query
            .find("platform")
            .filter(|text| !text.is_empty() && request.version.at_least(32))
            .map(str::to_owned),
    };
    let input = match source {
        "-" => request.into_upload(),
        address => engine.fetch_file(address).await?,
    };
    let mut steps = engine.import_image(input, wanted)?;
    // The first step decides between a status and a line in the answer.
    let first = match steps.recv().await {
        Some(Err(error)) => return Err(error.into()),
        Some(Ok(step)) => step,
        None => return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the import ended without a result")),
    };
    let (writer, body) = ReplyBody::busy();
    tokio::spawn(async move {
        let mut next = Some(Ok(first));
        while let Some(step) = next {
            if write_step(&writer, step, false).await.is_break() {
                return;
            }
            next = steps.recv().await;
        }
    });
    Ok(reply::stream("application/json", body))
}
