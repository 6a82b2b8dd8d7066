//! One file for each kind of object. A handler reads its parameters, calls the engine, and writes the answer.

pub(crate) mod archive;
pub(crate) mod build;
pub(crate) mod buildkit;
pub(crate) mod containers;
pub(crate) mod execs;
pub(crate) mod images;
pub(crate) mod networks;
pub(crate) mod registries;
pub(crate) mod streams;
pub(crate) mod system;
pub(crate) mod unsupported;
pub(crate) mod verify;
pub(crate) mod volumes;
pub(crate) mod websocket;
pub(crate) mod why;

use engine::model::TerminalSize;
use http::StatusCode;

use crate::error::{ApiError, ApiResult};
use crate::reply::{self, Reply};
use crate::request::Request;

/// `204 No Content`.
fn done() -> Reply {
    reply::empty(StatusCode::NO_CONTENT)
}

/// `h` and `w` of a resize.
fn terminal_size(request: &Request) -> ApiResult<TerminalSize> {
    let side = |key: &str, word: &str| {
        let text = request.query.get(key);
        text.parse::<u16>().map_err(|_| {
            ApiError::bad_request(format!(
                "invalid resize {word} {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
            ))
        })
    };
    Ok(TerminalSize { height: side("h", "height")?, width: side("w", "width")? })
}
