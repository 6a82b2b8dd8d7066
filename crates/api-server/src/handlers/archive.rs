//! Copying in and out of containers.

use docker_api::PATH_STAT_HEADER;
use docker_api::container::{PathStat, go_file_mode};
use engine::Engine;
use engine::model::{self, CopyIn};
use http::{HeaderName, HeaderValue, StatusCode};

use super::streams::tar_body;
use crate::error::{ApiError, ApiResult};
use crate::map::time::shown;
use crate::reply::{self, Reply};
use crate::request::Request;

pub(crate) async fn stat(engine: &Engine, name: &str, request: &Request) -> ApiResult<Reply> {
    let stat = engine.container_path(name, path(request)?).await?;
    Ok(with_stat(reply::empty(StatusCode::OK), &stat))
}

pub(crate) async fn get(engine: &Engine, name: &str, request: &Request) -> ApiResult<Reply> {
    let (stat, tar) = engine.copy_from_container(name, path(request)?).await?;
    Ok(with_stat(reply::stream("application/x-tar", tar_body(tar)), &stat))
}

pub(crate) async fn put(engine: &Engine, name: &str, request: Request) -> ApiResult<Reply> {
    let copy = CopyIn {
        path: path(&request)?.to_owned(),
        keep_kinds: request.query.flag("noOverwriteDirNonDir"),
        copy_owner: request.query.flag("copyUIDGID"),
    };
    engine.copy_into_container(name, copy, request.into_upload()).await?;
    Ok(reply::empty(StatusCode::OK))
}

fn path(request: &Request) -> ApiResult<&str> {
    match request.query.get("path") {
        "" => Err(ApiError::bad_request("bad parameter: path cannot be empty")),
        path => Ok(path),
    }
}

fn with_stat(mut reply: Reply, stat: &model::PathStat) -> Reply {
    let wire = PathStat {
        name: stat.name.clone(),
        size: i64::try_from(stat.size_bytes).unwrap_or(i64::MAX),
        mode: go_file_mode(stat.mode),
        mtime: shown(Some(stat.mtime)),
        link_target: stat.link_target.clone(),
    };
    let value = HeaderValue::from_str(&wire.to_header()).expect("base64 is ASCII");
    let name = HeaderName::from_bytes(PATH_STAT_HEADER.as_bytes()).expect("the name is ASCII");
    reply.headers_mut().insert(name, value);
    reply
}
