//! Volumes.

use docker_api::volume::{CreateRequest, ListResponse, PruneReport};
use engine::Engine;
use engine::model::{VolumeName, VolumeRequest};

use super::done;
use crate::error::{ApiError, ApiResult};
use crate::map::filter;
use crate::map::volume::show;
use crate::reply::{self, Reply};
use crate::request::Request;

pub(crate) fn list(engine: &Engine, request: &Request) -> ApiResult<Reply> {
    let mut query = filter::volumes(&request.filters()?)?;
    query.label.extend(request.scope_label());
    let volumes = engine.volumes(&query)?.iter().map(|view| show(view)).collect();
    Ok(reply::document(&ListResponse { volumes, warnings: None }))
}

pub(crate) async fn create(engine: &Engine, request: Request) -> ApiResult<Reply> {
    let scope = request.scope.clone();
    let body: CreateRequest = request.document().await?;
    if body.cluster_volume_spec.is_some() {
        return Err(ApiError::not_implemented("ClusterVolumeSpec: cluster volumes are not supported"));
    }
    let name = match body.name.as_str() {
        "" => None,
        name => Some(VolumeName::parse(name)?),
    };
    let mut wanted = VolumeRequest { name, driver: body.driver, labels: body.labels, options: body.driver_opts };
    if let Some(scope) = scope {
        scope.confine_volume(engine, &mut wanted)?;
    }
    Ok(reply::created(&show(&*engine.create_volume(wanted).await?)))
}

pub(crate) fn inspect(engine: &Engine, name: &str) -> ApiResult<Reply> {
    Ok(reply::document(&show(&*engine.volume(name)?)))
}

pub(crate) async fn remove(engine: &Engine, name: &str, request: &Request) -> ApiResult<Reply> {
    engine.remove_volume(name, request.query.flag("force")).await?;
    Ok(done())
}

pub(crate) async fn prune(engine: &Engine, request: &Request) -> ApiResult<Reply> {
    let mut filters = filter::prune(&request.filters()?, filter::Prune::Volumes)?;
    // Named volumes were pruned as well until 1.42.
    filters.all |= request.version.before(42);
    filters.label.extend(request.scope_label());
    let report = engine.prune_volumes(filters).await?;
    Ok(reply::document(&PruneReport {
        volumes_deleted: Some(report.deleted).filter(|list| !list.is_empty()),
        space_reclaimed: report.reclaimed_bytes,
    }))
}
