//! What Conex does not have: answered as Docker would where Docker would refuse, and else by name.

use docker_api::Route;
use engine::Engine;
use http::StatusCode;

use crate::error::ApiError;
use crate::reply::{self, Reply};
use crate::request::Request;

/// Docker's words outside a swarm.
const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";

/// `GET /plugins`: none.
pub(crate) fn no_plugins() -> Reply {
    reply::document::<[(); 0]>(&[])
}

/// Why a request is refused.
pub(crate) fn refusal(engine: &Engine, route: &Route, request: &Request) -> ApiError {
    let missing = |what: &str| ApiError::not_implemented(format!("{what} is not built yet"));
    match route {
        Route::SwarmLeave => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "This node is not part of a swarm"),
        // Looked at first, and with this status: so it is in Docker.
        Route::SwarmLogs if !request.query.flag("stdout") && !request.query.flag("stderr") => {
            let message = "Bad parameters: you must choose at least one stream";
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
        }
        Route::Swarm | Route::SwarmLogs => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, NO_SWARM),
        Route::SwarmInit => ApiError::not_implemented("swarm mode is not supported"),
        Route::Plugin(Some(name)) => ApiError::new(StatusCode::NOT_FOUND, format!("plugin {name:?} not found")),
        Route::Plugin(None) => ApiError::not_implemented("plugins are not supported"),
        Route::VolumeUpdate(_) => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, NO_SWARM),
        Route::CheckpointList(name) | Route::CheckpointCreate(name) | Route::CheckpointRemove(name, _) => {
            match engine.container(name) {
                Err(error) => error.into(),
                Ok(_) => missing("checkpoint and restore"),
            }
        }
        other => missing(&format!("{other:?}")),
    }
}
