//! What Conex does not have: answered as Docker would where Docker would refuse, down to what Docker looks at first, and else by name.

use docker_api::{PluginRequest, Route, SwarmRequest};
use engine::Engine;
use http::StatusCode;
use serde_json::Value;

use crate::error::{ApiError, ApiResult};
use crate::reply::{self, Reply};
use crate::request::Request;

/// Docker's words outside a swarm.
const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";

/// Flags of a change to a swarm.
const ROTATIONS: [&str; 3] = ["rotateWorkerToken", "rotateManagerToken", "rotateManagerUnlockKey"];

fn unavailable(message: &str) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
}

/// Mistakes of a client for which Docker has no status.
fn unclassified(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
}

/// `GET /plugins`: none.
pub(crate) fn no_plugins(request: &Request) -> ApiResult<Reply> {
    let filters = request.filters()?;
    filters.accept(&["enabled", "capability"])?;
    filters.flag("enabled")?;
    Ok(reply::document::<[(); 0]>(&[]))
}

/// Why something with plugins is refused.
pub(crate) async fn plugin(asked: PluginRequest, request: Request) -> ApiError {
    refuse_plugin(asked, request).await.unwrap_or_else(|refusal| refusal)
}

async fn refuse_plugin(asked: PluginRequest, request: Request) -> ApiResult<ApiError> {
    let remote = request.query.get("remote").to_owned();
    let name = match asked {
        PluginRequest::Privileges => return reference(&remote).map(|()| no_plugins_at_all()),
        PluginRequest::Pull => {
            let named = request.query.get("name").to_owned();
            request.document::<Vec<Value>>().await?;
            reference(&remote)?;
            if !named.is_empty() {
                reference(&named)?;
            }
            return Ok(no_plugins_at_all());
        }
        PluginRequest::Create => {
            let name = request.query.get("name");
            let wrong = |error: ApiError| unclassified(format!("failed to parse reference {name}: {}", error.message));
            return reference(name).map(|()| no_plugins_at_all()).map_err(wrong);
        }
        PluginRequest::Enable(name) => {
            let timeout = request.query.get("timeout");
            let wrong = |_| unclassified(format!("strconv.Atoi: parsing {timeout:?}: invalid syntax"));
            timeout.parse::<i64>().map_err(wrong)?;
            name
        }
        PluginRequest::Set(name) => {
            request.document::<Vec<String>>().await?;
            name
        }
        PluginRequest::Upgrade(name) => {
            request.document::<Vec<Value>>().await?;
            reference(&remote)?;
            // Docker fills its name in before it looks for it.
            oci::Reference::parse(&name).map_or(name, |name| name.with_default_tag().familiar())
        }
        PluginRequest::Other(name) => name,
    };
    Ok(ApiError::new(StatusCode::NOT_FOUND, format!("plugin {name:?} not found")))
}

fn no_plugins_at_all() -> ApiError {
    ApiError::not_implemented("plugins are not supported")
}

fn reference(text: &str) -> ApiResult<()> {
    oci::Reference::parse(text).map(drop).map_err(|error| unclassified(error.to_string()))
}

/// Why something with a swarm is refused.
pub(crate) async fn swarm(asked: SwarmRequest, request: Request) -> ApiError {
    refuse_swarm(asked, request).await.unwrap_or_else(|refusal| refusal)
}

async fn refuse_swarm(asked: SwarmRequest, request: Request) -> ApiResult<ApiError> {
    match asked {
        SwarmRequest::Plain => {}
        SwarmRequest::List => drop(request.filters()?),
        SwarmRequest::Service => is_go_bool(request.query.get("insertDefaults")).map_err(|why| {
            ApiError::bad_request(format!(
                "invalid value for insertDefaults: {}: {why}",
                request.query.get("insertDefaults")
            ))
        })?,
        SwarmRequest::Document => drop(request.document::<Value>().await?),
        SwarmRequest::Update(what) => update(what, request).await?,
        // With this status: so it is in Docker.
        SwarmRequest::Logs if !request.query.flag("stdout") && !request.query.flag("stderr") => {
            return Err(unclassified("Bad parameters: you must choose at least one stream"));
        }
        SwarmRequest::Logs => {}
        SwarmRequest::Init => {
            let document = request.document::<Value>().await?;
            let is_empty = document["ListenAddr"].as_str().is_none_or(str::is_empty);
            return Ok(match is_empty {
                true => ApiError::bad_request("invalid ListenAddr \"\": invalid empty address"),
                false => ApiError::not_implemented("swarm mode is not supported"),
            });
        }
        SwarmRequest::Leave => return Ok(unavailable("This node is not part of a swarm")),
    }
    Ok(unavailable(NO_SWARM))
}

/// What Docker checks of a change before it looks for a manager.
async fn update(what: &str, request: Request) -> ApiResult<()> {
    let query = request.query.clone();
    request.document::<Value>().await?;
    let version = query.get("version");
    if version.parse::<u64>().is_err() {
        let message = match what {
            "secret" | "config" => format!("invalid {what} version"),
            _ => format!("invalid {what} version '{version}': strconv.ParseUint: parsing {version:?}: invalid syntax"),
        };
        return Err(ApiError::bad_request(message));
    }
    for flag in ROTATIONS.iter().filter(|_| what == "swarm") {
        let value = query.get(flag);
        is_go_bool(value).map_err(|_| ApiError::bad_request(format!("invalid value for {flag}: {value}")))?;
    }
    Ok(())
}

/// Whether Go reads this as a truth, or nothing is said; else why not.
fn is_go_bool(text: &str) -> Result<(), String> {
    const WORDS: [&str; 13] = ["", "1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False"];
    match WORDS.contains(&text) {
        true => Ok(()),
        false => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

/// Why any other request is refused.
pub(crate) fn refusal(engine: &Engine, route: &Route) -> ApiError {
    let missing = |what: &str| ApiError::not_implemented(format!("{what} is not built yet"));
    match route {
        Route::VolumeUpdate(_) => unavailable("volume update only valid for cluster volumes, but swarm is unavailable"),
        Route::CheckpointList(name) | Route::CheckpointCreate(name) | Route::CheckpointRemove(name, _) => {
            match engine.container(name) {
                Err(error) => error.into(),
                Ok(_) => missing("checkpoint and restore"),
            }
        }
        other => missing(&format!("{other:?}")),
    }
}
