//! Manifests, tags, referrers.

use oci::Digest;
use oci::image::media_type;
use registry::{Document, Name};

use crate::server::{Reply, Server};

#[tokio::test]
async fn tags_come_in_pages() {
    let server = Server::start(|request| match request.target.as_str() {
        "/v2/test/image/tags/list?n=1000" => Reply::new(200, r#"{"tags":["a","b"]}"#)
            .header("Link", "</v2/test/image/tags/list?last=b&n=1000>; rel=\"next\""),
        "/v2/test/image/tags/list?last=b&n=1000" => Reply::new(200, r#"{"tags":["c"]}"#),
        _ => Reply::new(200, "{}"),
    });
    assert_eq!(server.repository().await.tags().await.unwrap(), ["a", "b", "c"]);
    // One connection serves them all, after the one that tried TLS.
    assert_eq!(server.lines().len(), 3);
}

#[tokio::test]
async fn a_head_says_what_a_tag_names() {
    let digest = Digest::of(b"{}");
    let server = Server::start(move |request| match request.target.as_str() {
        "/v2/" => Reply::new(200, ""),
        "/v2/test/image/manifests/there" => Reply::new(200, "{}")
            .header("Docker-Content-Digest", &digest.to_string())
            .header("Content-Type", media_type::OCI_INDEX),
        "/v2/test/image/manifests/vague" => Reply::new(200, "{}"),
        _ => Reply::new(404, ""),
    });
    let repository = server.repository().await;
    let known = repository.head_manifest(Name::Tag("there")).await.unwrap().unwrap();
    assert_eq!((known.digest, known.media_type.as_str(), known.size_bytes), (digest, media_type::OCI_INDEX, 2));
    assert_eq!(repository.head_manifest(Name::Tag("vague")).await.unwrap(), None);
    assert_eq!(repository.head_manifest(Name::Tag("absent")).await.unwrap(), None);
    let accepted: Vec<String> =
        server.seen()[1].headers.iter().filter(|(name, _)| name == "accept").map(|(_, value)| value.clone()).collect();
    assert!(accepted.contains(&media_type::DOCKER_MANIFEST_LIST.to_owned()), "{accepted:?}");
}

#[tokio::test]
async fn a_manifest_is_what_it_is_called() {
    let document = r#"{"schemaVersion":2,"manifests":[]}"#;
    let server = Server::start(move |request| match request.target.as_str() {
        "/v2/" => Reply::new(200, ""),
        "/v2/test/image/manifests/absent" => {
            Reply::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#)
        }
        _ => Reply::new(200, document).header("Content-Type", "application/vnd.oci.image.index.v1+json; charset=utf-8"),
    });
    let repository = server.repository().await;
    let fetched = repository.manifest(Name::Tag("x")).await.unwrap();
    assert_eq!(fetched.digest, Digest::of(document.as_bytes()));
    assert!(matches!(fetched.document(), Ok(Document::Index(_))));
    let error = repository.manifest(Name::Tag("absent")).await.unwrap_err();
    assert!(error.is_not_found() && error.refusal().unwrap().has("manifest_unknown"));
}

#[tokio::test]
async fn referrers_are_listed_or_kept_under_a_tag() {
    let subject = Digest::of(b"subject");
    let list = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"a","digest":"{subject}","size":1,"artifactType":"sig"}}]}}"#
    );
    let by_tag = format!("/v2/test/image/manifests/sha256-{}", subject.hex());
    for path in [format!("/v2/test/image/referrers/{subject}"), by_tag] {
        let list = list.clone();
        let server = Server::start(move |request| match request.target.as_str() {
            "/v2/" => Reply::new(200, ""),
            target if target == path => Reply::new(200, list.clone()),
            _ => Reply::new(404, ""),
        });
        let found = server.repository().await.referrers(&subject).await.unwrap();
        assert_eq!(found[0].artifact_type.as_deref(), Some("sig"));
    }
    let server = Server::start(|request| Reply::new(if request.target == "/v2/" { 200 } else { 404 }, ""));
    assert!(server.repository().await.referrers(&subject).await.unwrap().is_empty());
}
