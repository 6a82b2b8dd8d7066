//! Documents, refusals, versions and connections.

use api_client::{Client, Error, Host, RemoveOptions};
use docker_api::ApiVersion;
use docker_api::container::CreateRequest;

use crate::server::{Answer, Server};

const CREATED: &str = "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 26\r\n\r\n{\"Id\":\"x\",\"Warnings\":null}";
const DONE: &str = "HTTP/1.1 204 No Content\r\n\r\n";
const MISSING: &str = "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 36\r\n\r\n{\"message\":\"No such container: abc\"}";
const TOO_NEW: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 88\r\n\r\n{\"message\":\"client version 1.51 is too new. Maximum supported API version is 1.41  ...\"}";
const PONG: &str = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nServer: Docker/20.10 (linux)\r\nContent-Length: 0\r\n\r\n";

#[test]
fn a_document_goes_out_in_one_piece_and_connections_are_used_again() {
    let server = Server::start(vec![Answer::Keep(CREATED), Answer::Keep(DONE), Answer::Close(MISSING)]);
    let client = server.client();
    let request = CreateRequest::default();
    let created = client.container_create("a b", "", &request).unwrap();
    assert_eq!((created.id.as_str(), created.warnings.len()), ("x", 0));
    let seen = server.next();
    assert_eq!(seen.line, "POST /v1.51/containers/create?name=a%20b HTTP/1.1");
    assert!(seen.headers.contains(&"Content-Type: application/json".to_owned()), "{:?}", seen.headers);
    assert_eq!(CreateRequest::parse(&seen.body).unwrap(), request);
    client.container_start("x").unwrap();
    let error = client.container_remove("abc", RemoveOptions { force: true, ..RemoveOptions::default() }).unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(error.to_string(), "No such container: abc");
    assert_eq!(server.next().line, "POST /v1.51/containers/x/start HTTP/1.1");
    assert_eq!(server.next().line, "DELETE /v1.51/containers/abc?force=1 HTTP/1.1");
}

#[test]
fn an_older_server_is_asked_again_in_its_own_version() {
    let server = Server::start(vec![Answer::Keep(TOO_NEW), Answer::Keep(PONG), Answer::Keep(DONE)]);
    let client = server.client();
    client.container_start("x").unwrap();
    assert_eq!(client.version(), ApiVersion::new(1, 41));
    let lines: Vec<String> = (0..3).map(|_| server.next().line).collect();
    assert_eq!(
        lines,
        ["POST /v1.51/containers/x/start HTTP/1.1", "HEAD /_ping HTTP/1.1", "POST /v1.41/containers/x/start HTTP/1.1"]
    );
}

#[test]
fn a_fixed_version_is_kept() {
    let server = Server::start(vec![Answer::Close(DONE)]);
    server.client().with_version(ApiVersion::new(1, 30)).container_pause("x").unwrap();
    assert_eq!(server.next().line, "POST /v1.30/containers/x/pause HTTP/1.1");
}

#[test]
fn a_connection_that_was_closed_while_idle_is_replaced() {
    let server = Server::start(vec![Answer::Close(DONE), Answer::Close(DONE)]);
    let client = server.client();
    client.container_pause("x").unwrap();
    client.container_pause("x").unwrap();
    assert_eq!((server.next().line, server.next().line).0, "POST /v1.51/containers/x/pause HTTP/1.1");
}

#[test]
fn answers_in_chunks_are_put_together() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n[{\"Id\":\"a\r\nA;x=y\r\n\"},null]  \r\n0\r\nTrailer: x\r\n\r\n";
    let server = Server::start(vec![Answer::Keep(chunked), Answer::Keep(DONE)]);
    let client = server.client();
    let list = client.container_list(&Default::default()).unwrap();
    assert_eq!((list.len(), list[0].id.as_str()), (2, "a"));
    client.container_pause("x").unwrap();
}

#[test]
fn a_host_where_nobody_listens_says_so() {
    let client = Client::new(Host::parse("unix:///nonexistent/x.sock").unwrap());
    let error = client.ping().unwrap_err();
    assert!(error.is_connect());
    assert_eq!(error.to_string(), "cannot connect to unix:///nonexistent/x.sock");
}

#[test]
fn what_is_not_http_is_an_error() {
    let server = Server::start(vec![Answer::Close("SSH-2.0-x\r\n\r\n")]);
    assert!(matches!(server.client().ping(), Err(Error::Malformed(_))));
}
