//! Blobs that are sent.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use oci::Digest;
use registry::{Mount, Pieces, Source};

use crate::server::{Ending, Reply, Server};

struct Content(Vec<u8>);

impl Source for Content {
    fn open(&self, offset: u64) -> Pieces {
        let (sender, pieces) = tokio::sync::mpsc::channel(1);
        let bytes = self.0[offset as usize..].to_vec();
        tokio::spawn(async move {
            for piece in bytes.chunks(10_000) {
                if sender.send(Ok(Bytes::copy_from_slice(piece))).await.is_err() {
                    return;
                }
            }
        });
        pieces
    }
}

fn content() -> Content {
    Content((0..50_000_u32).map(|number| (number / 7) as u8).collect())
}

async fn send(server: &Server) -> Result<(), registry::Error> {
    let mut upload = server.repository().await.start_upload().await?;
    upload.send(&content()).await?;
    upload.commit(&Digest::of(&content().0)).await
}

#[tokio::test]
async fn a_blob_goes_in_one_stream() {
    let server = Server::start(|request| match request.method.as_str() {
        "POST" => Reply::new(202, "").header("Location", "/v2/test/image/blobs/uploads/1?state=a"),
        "PATCH" => Reply::new(202, "").header("Location", "/v2/test/image/blobs/uploads/1?state=b"),
        "PUT" => Reply::new(201, ""),
        _ => Reply::new(200, "{}"),
    });
    send(&server).await.unwrap();
    let digest = Digest::of(&content().0);
    let put = format!("PUT /v2/test/image/blobs/uploads/1?state=b&digest={digest}");
    let lines = server.lines();
    assert_eq!(
        lines[1..],
        ["POST /v2/test/image/blobs/uploads/", "PATCH /v2/test/image/blobs/uploads/1?state=a", &put]
    );
    assert!(server.seen()[2].body == content().0);
}

#[tokio::test]
async fn an_upload_that_breaks_off_goes_on_where_it_broke() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |request| match request.method.as_str() {
        "POST" => Reply::new(202, "").header("Location", "/up/1"),
        "PATCH" if count.fetch_add(1, Ordering::SeqCst) == 0 => Reply::new(500, "").ending(Ending::Cut),
        "PATCH" => Reply::new(202, "").header("Location", "/up/1"),
        "GET" if request.target == "/up/1" => {
            Reply::new(204, "").header("Location", "/up/1").header("Range", "0-29999")
        }
        "PUT" => Reply::new(201, ""),
        _ => Reply::new(200, "{}"),
    });
    send(&server).await.unwrap();
    let again = server.seen().into_iter().filter(|request| request.method == "PATCH").nth(1).unwrap();
    assert_eq!(again.header("content-range"), Some("30000-"));
    assert!(again.body == content().0[30_000..]);
}

#[tokio::test]
async fn an_upload_that_is_forgotten_begins_again() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |request| match request.method.as_str() {
        "POST" => Reply::new(202, "").header("Location", "/up/1"),
        "PATCH" if count.fetch_add(1, Ordering::SeqCst) == 0 => Reply::new(503, ""),
        "PATCH" => Reply::new(202, "").header("Location", "/up/1"),
        "GET" if request.target == "/up/1" => Reply::new(404, ""),
        "PUT" => Reply::new(201, ""),
        _ => Reply::new(200, "{}"),
    });
    send(&server).await.unwrap();
    assert!(server.seen().into_iter().filter(|request| request.method == "PATCH").nth(1).unwrap().body == content().0);
}

#[tokio::test]
async fn a_refusal_ends_an_upload() {
    let server = Server::start(|request| match request.method.as_str() {
        "POST" => {
            Reply::new(403, r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#)
        }
        _ => Reply::new(200, "{}"),
    });
    let error = send(&server).await.unwrap_err();
    assert_eq!(error.to_string(), "denied: requested access to the resource is denied");
}

#[tokio::test]
async fn blobs_are_taken_from_other_repositories() {
    let server = Server::start(|request| match request.target.as_str() {
        target if target.contains("from=known") => Reply::new(201, ""),
        target if target.contains("from=") => Reply::new(202, "").header("Location", "/up/2"),
        _ => Reply::new(200, "{}"),
    });
    let (repository, digest) = (server.repository().await, Digest::of(b"x"));
    assert!(matches!(repository.mount(&digest, "known").await.unwrap(), Mount::Mounted));
    assert!(matches!(repository.mount(&digest, "other").await.unwrap(), Mount::Refused(_)));
}

#[tokio::test]
async fn small_blobs_and_manifests_go_whole() {
    let server = Server::start(|request| match request.method.as_str() {
        "POST" => Reply::new(202, "").header("Location", "/up/1"),
        "PUT" if request.target.contains("/manifests/wrong") => {
            Reply::new(201, "").header("Docker-Content-Digest", &Digest::of(b"other").to_string())
        }
        "PUT" => Reply::new(201, ""),
        _ => Reply::new(404, ""),
    });
    let repository = server.repository().await;
    assert_eq!(repository.put_blob(Bytes::from_static(b"{}")).await.unwrap(), Digest::of(b"{}"));
    assert!(!repository.has_blob(&Digest::of(b"{}")).await.unwrap());
    repository.put_manifest(registry::Name::Tag("x"), "application/x", b"{}").await.unwrap();
    let last = server.seen().pop().unwrap();
    assert_eq!((last.header("content-type"), last.body.as_slice()), (Some("application/x"), b"{}".as_slice()));
    assert!(repository.put_manifest(registry::Name::Tag("wrong"), "application/x", b"{}").await.is_err());
}
