//! What goes to registries and comes from them.

use base64::Engine as _;
use docker_api::image::{DistributionInspect, SearchResult};
use docker_api::{AuthConfig, AuthResponse, REGISTRY_AUTH_HEADER, REGISTRY_CONFIG_HEADER};
use engine::model::{FlowReports, PullRequest, PushRequest, SearchRequest};
use engine::{Credentials, Engine, Logins, ProgressStream};
use http::StatusCode;

use super::images::write_step;
use crate::body::ReplyBody;
use crate::error::{ApiError, ApiResult};
use crate::gone::Peer;
use crate::map::image as map_image;
use crate::reply::{self, Reply};
use crate::request::Request;

const SEARCH_LIMIT: u32 = 25;
const SEARCH_LIMIT_MAX: u32 = 100;

/// `POST /images/create?fromImage=…`
pub(crate) async fn pull(engine: &Engine, request: Request) -> ApiResult<Reply> {
    let wanted = PullRequest {
        image: request.query.get("fromImage").trim().to_owned(),
        tag: request.query.get("tag").trim().to_owned(),
        platform: request.query.find("platform").filter(|_| request.version.at_least(32)).map(str::to_owned),
        credentials: credentials_of(&request),
        flows: if request.query.flag("flow") { FlowReports::Told } else { FlowReports::Untold },
    };
    answer(engine.pull_image(wanted)?, request.peer).await
}

/// `POST /images/{name}/push`
pub(crate) async fn push(engine: &Engine, name: &str, request: Request) -> ApiResult<Reply> {
    let wanted = PushRequest {
        image: name.to_owned(),
        tag: request.query.get("tag").to_owned(),
        platform: platform_of_push(&request)?,
        credentials: credentials_of(&request),
    };
    answer(engine.push_image(wanted)?, request.peer).await
}

/// Since 1.46 a JSON document.
fn platform_of_push(request: &Request) -> ApiResult<Option<String>> {
    let text = request.query.get("platform");
    if text.is_empty() || request.version.before(46) {
        return Ok(None);
    }
    super::images::platform_of(text).map(Some)
}

/// The first step decides between a status and a line in the answer.
async fn answer(mut steps: ProgressStream, peer: Peer) -> ApiResult<Reply> {
    let first = tokio::select! {
        first = steps.recv() => first,
        () = peer.clone().gone() => return Err(ApiError::bad_request("the client is gone")),
    };
    let first = match first {
        Some(Err(error)) => return Err(error.into()),
        first => first,
    };
    let (writer, body) = ReplyBody::watched(peer);
    tokio::spawn(async move {
        let mut next = first;
        while let Some(step) = next {
            if write_step(&writer, step, false).await.is_break() {
                return;
            }
            next = tokio::select! {
                next = steps.recv() => next,
                // With the receiver goes the work.
                () = writer.closed() => return,
            };
        }
    });
    Ok(reply::stream("application/json", body))
}

/// `POST /auth`
pub(crate) async fn login(engine: &Engine, request: Request) -> ApiResult<Reply> {
    let auth: AuthConfig = request.document().await?;
    let server = auth.serveraddress.clone();
    let identity_token = engine.login(&server, credentials(auth)).await?;
    Ok(reply::document(&AuthResponse {
        identity_token: identity_token.unwrap_or_default(),
        status: "Login Succeeded".to_owned(),
    }))
}

/// `GET /distribution/{name}/json`
pub(crate) async fn distribution(engine: &Engine, name: &str, request: &Request) -> ApiResult<Reply> {
    let found = engine.distribution(name, credentials_of(request)).await?;
    Ok(reply::document(&DistributionInspect { descriptor: found.descriptor, platforms: found.platforms }))
}

/// `GET /images/search`
pub(crate) async fn search(engine: &Engine, request: &Request) -> ApiResult<Reply> {
    let limit = match request.query.get("limit") {
        "" | "0" => SEARCH_LIMIT,
        text => text.parse().map_err(|_| {
            let words = "invalid limit specified: strconv.Atoi: parsing";
            ApiError::bad_request(format!("{words} {text:?}: invalid syntax"))
        })?,
    };
    if limit > SEARCH_LIMIT_MAX {
        return Err(ApiError::bad_request(format!("limit {limit} is outside the range of [1, {SEARCH_LIMIT_MAX}]")));
    }
    let filters = request.filters()?;
    filters.accept(&["is-automated", "is-official", "stars"])?;
    let stars = filters
        .get("stars")
        .iter()
        .map(|text| text.parse().map_err(|_| ApiError::bad_request(format!("invalid filter 'stars=[{text}]'"))));
    let wanted = SearchRequest {
        term: request.query.get("term").to_owned(),
        limit,
        is_official: filters.flag("is-official")?,
        is_automated: filters.flag("is-automated")?,
        stars: stars.collect::<ApiResult<Vec<i64>>>()?.into_iter().max().unwrap_or_default(),
        credentials: credentials_of(request),
    };
    if wanted.term.is_empty() {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "search term must not be empty"));
    }
    let found: Vec<SearchResult> = engine.search_images(wanted).await?.into_iter().map(map_image::found).collect();
    Ok(reply::document(&found))
}

/// Who asks. As in Docker a header that cannot be read is none.
fn credentials_of(request: &Request) -> Credentials {
    let header = request.header(REGISTRY_AUTH_HEADER).unwrap_or_default();
    AuthConfig::from_header(header).map(credentials).unwrap_or_default()
}

/// Who asks at which registry. What is said of no registry in particular is for none: it must not go to a stranger.
pub(super) fn logins_of(request: &Request) -> Logins {
    let header = |name: &str| request.header(name).unwrap_or_default();
    let mut all = AuthConfig::all_from_header(header(REGISTRY_CONFIG_HEADER)).unwrap_or_default();
    if let Ok(auth) = AuthConfig::from_header(header(REGISTRY_AUTH_HEADER))
        && !auth.serveraddress.is_empty()
    {
        all.insert(auth.serveraddress.clone(), auth);
    }
    let mut logins = Logins::default();
    for (server, auth) in all {
        let host = server.split_once("://").map_or(server.as_str(), |(_, rest)| rest).split('/').next();
        let domain = match host.unwrap_or_default() {
            "" | "index.docker.io" | "registry-1.docker.io" => "docker.io",
            host => host,
        };
        logins.insert(domain.to_owned(), credentials(auth));
    }
    logins
}

pub(super) fn credentials(auth: AuthConfig) -> Credentials {
    let AuthConfig { username, password, auth, identitytoken, registrytoken, .. } = auth;
    if !registrytoken.is_empty() {
        return Credentials::RegistryToken(registrytoken);
    }
    if !identitytoken.is_empty() {
        return Credentials::IdentityToken(identitytoken);
    }
    if !username.is_empty() {
        return Credentials::Password { username, password };
    }
    let decoded =
        base64::engine::general_purpose::STANDARD.decode(auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match decoded.as_deref().and_then(|pair| pair.split_once(':')) {
        Some((username, password)) => Credentials::Password {
            username: username.to_owned(),
            password: password.trim_end_matches('\0').to_owned(),
        },
        None => Credentials::Anonymous,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_credentials_is_understood() {
        let password = |username: &str, password: &str| Credentials::Password {
            username: username.to_owned(),
            password: password.to_owned(),
        };
        let auth = AuthConfig::default;
        for (given, expected) in [
            (auth(), Credentials::Anonymous),
            (AuthConfig { username: "u".into(), password: "p".into(), ..auth() }, password("u", "p")),
            (AuthConfig { auth: "dTpwOnc=".into(), ..auth() }, password("u", "p:w")),
            (AuthConfig { auth: "%".into(), ..auth() }, Credentials::Anonymous),
            (
                AuthConfig { identitytoken: "t".into(), username: "u".into(), ..auth() },
                Credentials::IdentityToken("t".into()),
            ),
            (AuthConfig { registrytoken: "t".into(), ..auth() }, Credentials::RegistryToken("t".into())),
        ] {
            assert!(credentials(given.clone()) == expected, "{given:?}");
        }
    }
}
