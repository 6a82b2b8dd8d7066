//! `POST /grpc` and `POST /session`: connections that become BuildKit's.

use buildkit::{BuildKit, SessionHead};

use super::streams::hijack;
use crate::error::{ApiError, ApiResult};
use crate::hijack::Begin;
use crate::reply::Reply;
use crate::request::Request;

const HEAD: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
const SESSION_ID: &str = "X-Docker-Expose-Session-Uuid";
const SHARED_KEY: &str = "X-Docker-Expose-Session-Sharedkey";
const METHOD: &str = "X-Docker-Expose-Session-Grpc-Method";

/// Clients call the engine.
pub(crate) async fn grpc(buildkit: &BuildKit, request: Request) -> ApiResult<Reply> {
    check_protocol(&request)?;
    let request = request.without_body().await?;
    let buildkit = buildkit.clone();
    Ok(hijack(&request, HEAD.to_owned(), Begin::AtOnce, move |target| Box::pin(buildkit.serve(target))))
}

/// The engine calls the client.
pub(crate) async fn session(buildkit: &BuildKit, request: Request) -> ApiResult<Reply> {
    check_protocol(&request)?;
    let text = |name: &str| request.header(name).unwrap_or_default().to_owned();
    let head = SessionHead {
        id: text(SESSION_ID),
        shared_key: text(SHARED_KEY),
        methods: request.headers(METHOD).map(str::to_owned).collect(),
    };
    if head.id.is_empty() {
        return Err(ApiError::bad_request(format!("{SESSION_ID} is missing")));
    }
    let request = request.without_body().await?;
    let buildkit = buildkit.clone();
    Ok(hijack(&request, HEAD.to_owned(), Begin::AtOnce, move |target| {
        Box::pin(async move { buildkit.open_session(head, target) })
    }))
}

fn check_protocol(request: &Request) -> ApiResult<()> {
    match request.header("Upgrade") {
        Some(protocol) if protocol.eq_ignore_ascii_case("h2c") => Ok(()),
        Some(other) => Err(ApiError::bad_request(format!("protocol {other} not supported"))),
        None => Err(ApiError::bad_request("no upgrade proto in request")),
    }
}
