//! Copying in and out of containers.

use engine::Engine;

use crate::error::{ApiError, ApiResult};
use crate::reply::Reply;

/// Not built yet; a container that does not exist is still said not to exist.
pub(crate) fn refuse(engine: &Engine, name: &str) -> ApiResult<Reply> {
    engine.container(name)?;
    Err(ApiError::not_implemented("copying files between containers and the host (docker cp) is not built yet"))
}
