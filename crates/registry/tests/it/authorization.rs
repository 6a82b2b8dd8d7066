//! Who asks, and who is told.

use std::sync::atomic::{AtomicUsize, Ordering};

use oci::Digest;
use registry::{Credentials, Name};

use crate::server::{Reply, Server, client};

const BASIC: &str = "Basic dXNlcjpzZWNyZXQ=";

fn password() -> Credentials {
    Credentials::Password { username: "user".to_owned(), password: "secret".to_owned() }
}

#[tokio::test]
async fn basic_is_used_from_the_first_request_after_the_challenge() {
    let server = Server::start(|request| match request.header("authorization") {
        Some(BASIC) => Reply::new(200, "{}"),
        _ => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"r\""),
    });
    let repository = server.session(password()).await.unwrap().repository("a");
    repository.manifest(Name::Tag("x")).await.unwrap();
    assert_eq!(server.lines(), ["GET /v2/", "GET /v2/a/manifests/x"]);
    server.session(password()).await.unwrap().login().await.unwrap();

    let nobody = server.session(Credentials::Anonymous).await.unwrap().repository("a");
    let error = nobody.manifest(Name::Tag("x")).await.unwrap_err();
    assert!(error.is_unauthorized());
    let expected = format!("Get \"http://{}/v2/a/manifests/x\": no basic auth credentials", server.address);
    assert_eq!(error.to_string(), expected);

    let wrong = Credentials::Password { username: "user".to_owned(), password: "wrong".to_owned() };
    let error = server.session(wrong).await.unwrap().login().await.unwrap_err();
    assert!(error.is_unauthorized());
    let expected = format!("login attempt to http://{}/v2/ failed with status: 401 Unauthorized", server.address);
    assert_eq!(error.to_string(), expected);
}

/// A registry and its server of tokens in one: tokens are `<scope>!<number>`.
fn with_tokens() -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |request| {
        if request.target.starts_with("/token") {
            let query = String::from_utf8(request.body.clone()).unwrap() + &request.target;
            let allowed = request.header("authorization") == Some(BASIC) || query.contains("refresh_token=kept");
            if !allowed {
                return Reply::new(401, r#"{"details":"incorrect username or password"}"#);
            }
            let number = count.fetch_add(1, Ordering::SeqCst);
            return Reply::new(200, format!(r#"{{"access_token":"t{number}","refresh_token":"kept"}}"#));
        }
        match request.header("authorization") {
            // The first token ends early.
            Some(token) if token.starts_with("Bearer t") && token != "Bearer t0" => Reply::new(200, "{}"),
            _ => {
                let host = request.header("host").unwrap();
                let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\",scope=\"x\"");
                Reply::new(401, "").header("WWW-Authenticate", &challenge)
            }
        }
    })
}

#[tokio::test]
async fn tokens_are_fetched_kept_and_renewed() {
    let server = with_tokens();
    let repository = server.session(password()).await.unwrap().repository("a/b");
    repository.manifest(Name::Tag("x")).await.unwrap();
    repository.manifest(Name::Tag("y")).await.unwrap();
    let token = "GET /token?account=user&service=s&scope=repository:a/b:pull";
    let (x, y) = ("GET /v2/a/b/manifests/x", "GET /v2/a/b/manifests/y");
    assert_eq!(server.lines(), ["GET /v2/", token, x, token, x, y]);
}

#[tokio::test]
async fn a_login_gives_a_token_that_stands_for_the_password() {
    let server = with_tokens();
    let login = server.session(password()).await.unwrap().login().await;
    assert_eq!(login.unwrap().identity_token.as_deref(), Some("kept"));
    let repository = server.session(Credentials::IdentityToken("kept".to_owned())).await.unwrap().repository("a");
    repository.manifest(Name::Tag("x")).await.unwrap();
    assert!(server.lines().contains(&"POST /token".to_owned()));
    let wrong = Credentials::Password { username: "user".to_owned(), password: "wrong".to_owned() };
    let error = server.session(wrong).await.unwrap().login().await.unwrap_err();
    assert!(error.is_unauthorized() && error.to_string().contains("incorrect username or password"), "{error}");
}

#[tokio::test]
async fn a_registry_token_is_sent_as_it_is() {
    let server = with_tokens();
    let repository = server.session(Credentials::RegistryToken("t7".to_owned())).await.unwrap().repository("a");
    repository.manifest(Name::Tag("x")).await.unwrap();
    assert!(server.lines().iter().all(|line| !line.contains("/token")));
}

#[tokio::test]
async fn secrets_do_not_follow_redirections() {
    let elsewhere = Server::start(|_| Reply::new(200, "blob"));
    let target = format!("http://{}/store/blob?signature=1", elsewhere.address);
    let server = Server::start(move |request| match (request.header("authorization"), request.target.as_str()) {
        (None, _) => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"r\""),
        (_, "/v2/a/blobs/moved") => Reply::new(200, "blob"),
        _ => Reply::new(307, "").header("Location", &target),
    });
    let repository = server.session(password()).await.unwrap().repository("a");
    assert_eq!(repository.small_blob(&Digest::of(b"blob"), 4, 10).await.unwrap(), b"blob");
    let seen = elsewhere.seen();
    assert_eq!((seen.len(), seen[0].header("authorization")), (1, None));
}

#[tokio::test]
async fn redirections_have_an_end() {
    let server = Server::start(|request| match request.target.as_str() {
        "/v2/" => Reply::new(200, ""),
        target => Reply::new(302, "").header("Location", target),
    });
    let error = server.repository().await.manifest(Name::Tag("x")).await.unwrap_err();
    assert!(error.to_string().contains("302"), "{error}");
    assert!(server.seen().len() < 10);
}

#[tokio::test]
async fn mirrors_are_not_told_the_registrys_secrets() {
    let server = Server::start(|_| Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"r\""));
    let mirror = registry::Mirror::parse(&format!("example.org=http://m:own@{}/cache", server.address)).unwrap();
    let places = registry::Places { mirrors: vec![mirror], ..registry::Places::default() };
    let reference = oci::Reference::parse("example.org/a").unwrap();
    let endpoints = places.to_pull(&reference).unwrap();
    let session = client().open(&endpoints[0], password()).await.unwrap();
    assert!(session.repository("a").manifest(Name::Tag("x")).await.is_err());
    let told: Vec<_> =
        server.seen().iter().filter_map(|request| request.header("authorization").map(str::to_owned)).collect();
    // m:own
    assert_eq!(told, ["Basic bTpvd24="]);
    assert_eq!(server.lines(), ["GET /cache/v2/", "GET /cache/v2/a/manifests/x"]);
}

#[tokio::test]
async fn unknown_ways_are_named() {
    let server = Server::start(|_| Reply::new(401, "").header("WWW-Authenticate", "Negotiate"));
    let error = server.session(password()).await.unwrap_err();
    assert!(error.to_string().ends_with("unsupported authentication: negotiate"), "{error}");
}
