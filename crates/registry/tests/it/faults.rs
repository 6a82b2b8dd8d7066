//! Connections that break, servers that lie.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use oci::Digest;
use registry::{BlobStream, Error, Name, Split};
use tokio::sync::Semaphore;

use crate::server::{Ending, Reply, Request, Server};

fn content() -> Vec<u8> {
    (0..300_000_u32).flat_map(u32::to_le_bytes).collect()
}

/// The part that a request asks for, as a server that knows ranges gives it.
fn part(request: &Request, content: &[u8]) -> Reply {
    let range = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let Some((start, last)) = range else { return Reply::new(200, content) };
    let (start, last) = (start.parse().unwrap(), last.parse().unwrap_or(content.len() - 1));
    let value = format!("bytes {start}-{last}/{}", content.len());
    Reply::new(206, &content[start..=last]).header("Content-Range", &value)
}

async fn read(stream: &mut BlobStream) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = stream.piece().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

async fn fetch(server: &Server) -> Result<(Vec<u8>, u32), Error> {
    let content = content();
    let mut stream = server.repository().await.blob(&Digest::of(&content), content.len() as u64).await?;
    let bytes = read(&mut stream).await?;
    Ok((bytes, stream.resumed()))
}

/// Answers the first request for the blob with `first`, later ones properly.
fn faulty_once(first: impl Fn(&[u8]) -> Reply + Send + Sync + 'static) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |request| match request.target.contains("/blobs/") {
        false => Reply::new(200, "{}"),
        true if count.fetch_add(1, Ordering::SeqCst) == 0 => first(&content()),
        true => part(request, &content()),
    })
}

fn begun(content: &[u8]) -> Reply {
    Reply::new(200, &content[..500_000]).length(Some(content.len() as u64))
}

#[tokio::test]
async fn a_blob_that_breaks_off_goes_on_where_it_broke() {
    for ending in [Ending::Cut, Ending::Stall] {
        let server = faulty_once(move |content| begun(content).ending(ending));
        let (bytes, resumed) = fetch(&server).await.unwrap();
        assert!(bytes == content() && resumed == 1, "{ending:?}");
        let ranges: Vec<_> =
            server.seen().iter().filter_map(|request| request.header("range").map(str::to_owned)).collect();
        assert_eq!(ranges, ["bytes=500000-"], "{ending:?}");
    }
}

#[tokio::test]
async fn a_server_without_ranges_is_read_from_the_beginning() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |request| match request.target.contains("/blobs/") {
        false => Reply::new(200, "{}"),
        true if count.fetch_add(1, Ordering::SeqCst) == 0 => begun(&content()).ending(Ending::Cut),
        true => Reply::new(200, content()),
    });
    assert!(fetch(&server).await.unwrap() == (content(), 1));
}

fn split(permits: usize) -> Split {
    Split { part_bytes: 100_000, at_once: 4, permits: Arc::new(Semaphore::new(permits)) }
}

/// Reads one piece, then the rest in parts.
async fn fetch_in_parts(server: &Server, split: Split) -> Result<Vec<u8>, Error> {
    let content = content();
    let mut stream = server.repository().await.blob(&Digest::of(&content), content.len() as u64).await?;
    let mut bytes = stream.piece().await?.unwrap().to_vec();
    stream.split(split);
    bytes.extend(read(&mut stream).await?);
    assert_eq!(stream.left(), 0);
    Ok(bytes)
}

#[tokio::test]
async fn parts_come_side_by_side_and_in_order() {
    let server = Server::start(|request| match request.target.contains("/blobs/") {
        false => Reply::new(200, "{}"),
        true => part(request, &content()),
    });
    // More than there are at one time, and so few that they take turns.
    for permits in [8, 1] {
        let wanted = split(permits);
        let permits_left = Arc::clone(&wanted.permits);
        assert!(fetch_in_parts(&server, wanted).await.unwrap() == content());
        assert_eq!(permits_left.available_permits(), permits);
    }
    let ranges = server.seen().iter().filter(|request| request.header("range").is_some()).count();
    assert!(ranges >= 2 * 11, "{ranges}");
}

#[tokio::test]
async fn where_there_are_no_parts_the_rest_comes_in_one() {
    let whole = Server::start(|request| match request.target.contains("/blobs/") {
        false => Reply::new(200, "{}"),
        true => Reply::new(200, content()),
    });
    assert!(fetch_in_parts(&whole, split(8)).await.unwrap() == content());
    // One that is refused in the middle.
    let moody = Server::start(|request| match (request.target.contains("/blobs/"), request.header("range")) {
        (false, _) => Reply::new(200, "{}"),
        (true, Some(range)) if range.contains("99999") => Reply::new(403, ""),
        (true, _) => part(request, &content()),
    });
    assert!(fetch_in_parts(&moody, split(8)).await.unwrap() == content());
}

#[tokio::test]
async fn a_blob_goes_from_one_repository_to_another_piece_by_piece() {
    let source = Server::start(|request| match request.target.contains("/blobs/") {
        false => Reply::new(200, "{}"),
        true => part(request, &content()),
    });
    let target = Server::start(|request| match request.method.as_str() {
        "POST" | "PATCH" => Reply::new(202, "").header("Location", "/v2/test/image/blobs/uploads/1"),
        "PUT" => Reply::new(201, ""),
        _ => Reply::new(200, "{}"),
    });
    let upload = target.repository().await.start_upload().await.unwrap();
    let content = content();
    let digest = Digest::of(&content);
    source.repository().await.send_blob(&digest, content.len() as u64, upload).await.unwrap();
    let seen = target.seen();
    let sent: Vec<u8> = seen.iter().filter(|request| request.method == "PATCH").flat_map(|r| r.body.clone()).collect();
    assert!(sent == content);
    assert!(seen.last().unwrap().target.contains(&digest.hex()), "{:?}", target.lines());
}

#[tokio::test]
async fn trouble_is_waited_out_and_failure_is_final() {
    let answers = Mutex::new(vec![
        Reply::new(500, ""),
        Reply::new(429, "").header("Retry-After", "0"),
        Reply::new(503, "").ending(Ending::Cut),
    ]);
    let server = Server::start(move |request| match request.target.contains("/blobs/") {
        false => Reply::new(200, "{}"),
        true => answers.lock().unwrap().pop().unwrap_or_else(|| part(request, &content())),
    });
    assert!(fetch(&server).await.unwrap().0 == content());
    assert_eq!(server.seen().len(), 5);

    let server = Server::start(|request| Reply::new(if request.target == "/v2/" { 200 } else { 502 }, ""));
    let error = fetch(&server).await.unwrap_err();
    assert!(error.to_string().ends_with("received unexpected HTTP status: 502 Bad Gateway"), "{error}");
    assert_eq!(server.seen().len(), 5);

    // A server that wants to be left alone for an hour is.
    let server = Server::start(|request| match request.target.as_str() {
        "/v2/" => Reply::new(200, ""),
        _ => Reply::new(429, r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#)
            .header("Retry-After", "3600"),
    });
    assert_eq!(fetch(&server).await.unwrap_err().to_string(), "toomanyrequests: slow down");
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn lengths_are_believed_from_the_manifest_alone() {
    let longer = faulty_once(|content| Reply::new(200, [content, b"more"].concat()));
    assert!(matches!(fetch(&longer).await, Err(Error::Malformed { .. })));
    let endless = faulty_once(|content| Reply::new(200, content).length(None).ending(Ending::Endless));
    assert!(matches!(fetch(&endless).await, Err(Error::TooLarge { .. })));
    let shorter = faulty_once(|content| Reply::new(200, &content[1..]));
    assert!(matches!(fetch(&shorter).await, Err(Error::Malformed { .. })));
    // Without a length a body that is too short is one that broke off.
    let cut = faulty_once(|content| Reply::new(200, &content[..1000]).length(None));
    assert!(fetch(&cut).await.unwrap() == (content(), 1));
}

#[tokio::test]
async fn a_part_from_elsewhere_is_refused() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |request| match request.target.contains("/blobs/") {
        false => Reply::new(200, "{}"),
        true if count.fetch_add(1, Ordering::SeqCst) == 0 => begun(&content()).ending(Ending::Cut),
        true => Reply::new(206, &content()[600_000..]).header("Content-Range", "bytes 600000-1199999/1200000"),
    });
    assert!(matches!(fetch(&server).await, Err(Error::Malformed { .. })));
}

#[tokio::test]
async fn small_blobs_and_manifests_are_checked() {
    let server = Server::start(|request| match request.target.as_str() {
        "/v2/" => Reply::new(200, ""),
        target if target.contains("/manifests/endless") => Reply::new(200, "{").length(None).ending(Ending::Endless),
        target if target.contains("/manifests/tag") => {
            Reply::new(200, "{}").header("Docker-Content-Digest", &Digest::of(b"other").to_string())
        }
        _ => Reply::new(200, "{}"),
    });
    let repository = server.repository().await;
    let wrong = Digest::of(b"wrong");
    assert!(matches!(repository.small_blob(&wrong, 2, 100).await, Err(Error::Digest { .. })));
    assert!(matches!(repository.small_blob(&wrong, 101, 100).await, Err(Error::TooLarge { .. })));
    assert!(matches!(repository.manifest(Name::Digest(&wrong)).await, Err(Error::Digest { .. })));
    assert!(matches!(repository.manifest(Name::Tag("tag")).await, Err(Error::Digest { .. })));
    assert!(matches!(repository.manifest(Name::Tag("endless")).await, Err(Error::TooLarge { .. })));
    assert_eq!(repository.manifest(Name::Digest(&Digest::of(b"{}"))).await.unwrap().bytes, b"{}");
}

#[tokio::test]
async fn nobody_there_is_said_at_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = crate::server::client();
    let endpoint = client.places().registry(&address.to_string()).unwrap();
    let error = client.open(&endpoint, registry::Credentials::Anonymous).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("Get \"http://{address}/v2/\": dial tcp {address}: connect: connection refused")
    );
}
