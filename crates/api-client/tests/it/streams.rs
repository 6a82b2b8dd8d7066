//! Hijacks, uploads, lines and waits.

use std::io::{self, Read, Write as _};

use api_client::{AttachOptions, EventsOptions, LogsOptions, Upload, WaitCondition};

use crate::server::{Answer, Server};

const PONG: &str = "HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nContent-Length: 0\r\n\r\n";

#[test]
fn a_hijacked_connection_is_raw_in_both_directions() {
    let head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly ";
    let server = Server::start(vec![Answer::Echo(head)]);
    let options = AttachOptions { stream: true, stdout: true, ..AttachOptions::default() };
    let mut stream = server.client().container_attach("x", &options).unwrap();
    assert_eq!(stream.is_multiplexed(), Some(true));
    stream.write_all(b"input").unwrap();
    stream.close_write().unwrap();
    let mut output = String::new();
    stream.read_to_string(&mut output).unwrap();
    assert_eq!(output, "early input");
    let seen = server.next();
    assert_eq!(seen.line, "POST /v1.51/containers/x/attach?stream=1&stdout=1 HTTP/1.1");
    assert!(seen.headers.contains(&"Upgrade: tcp".to_owned()));
}

#[test]
fn a_refused_hijack_is_a_refusal() {
    let refusal = "HTTP/1.1 409 Conflict\r\nContent-Length: 25\r\n\r\n{\"message\":\"is paused\"}\r\n";
    let server = Server::start(vec![Answer::Close(refusal)]);
    let error = server.client().container_attach("x", &AttachOptions::default()).unwrap_err();
    assert_eq!((error.status(), error.to_string().as_str()), (Some(409), "is paused"));
}

#[test]
fn an_upload_is_sent_as_it_is_read() {
    let lines = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"stream\":\"Loaded image: a:b\\n\"}\r\n\r\n{\"errorDetail\":{\"message\":\"boom\"},\"error\":\"boom\"}\r\n";
    let server = Server::start(vec![Answer::Close(PONG), Answer::Close(lines)]);
    let bytes = vec![7; 1_000_000];
    let tar = Upload { source: Box::new(io::Cursor::new(bytes.clone())), length: None };
    let messages: Vec<_> = server.client().image_load(tar, false, "").unwrap().map(Result::unwrap).collect();
    assert_eq!((messages[0].stream.as_str(), messages[1].error.as_str()), ("Loaded image: a:b\n", "boom"));
    server.next();
    let seen = server.next();
    assert_eq!(seen.line, "POST /v1.51/images/load?quiet=0 HTTP/1.1");
    assert_eq!(seen.body, bytes);
}

#[test]
fn an_upload_that_cannot_be_read_is_not_taken_for_whole() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }
    let server = Server::start(vec![Answer::Close(PONG), Answer::Close(PONG)]);
    let tar = Upload { source: Box::new(Broken), length: Some(10) };
    let error = server.client().image_load(tar, true, "").unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "the disk is gone");
}

#[test]
fn events_come_one_by_one() {
    let body = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n{\"Action\":\"start\"}\n{\r\n11\r\n\"Action\":\"stop\"}\n\r\n0\r\n\r\n";
    let server = Server::start(vec![Answer::Keep(body)]);
    let actions: Vec<String> =
        server.client().events(&EventsOptions::default()).unwrap().map(|event| event.unwrap().action).collect();
    assert_eq!(actions, ["start", "stop"]);
}

#[test]
fn a_wait_has_begun_when_its_head_is_there() {
    let body = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11\r\n{\"StatusCode\":7}\n\r\n0\r\n\r\n";
    let server = Server::start(vec![Answer::Keep(body)]);
    let wait = server.client().container_wait("x", WaitCondition::NextExit).unwrap();
    assert_eq!(wait.finish().unwrap().status_code, 7);
    assert_eq!(server.next().line, "POST /v1.51/containers/x/wait?condition=next-exit HTTP/1.1");
}

#[test]
fn a_log_that_breaks_off_is_an_error_and_one_that_ends_is_not() {
    let whole = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let broken = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi";
    let server = Server::start(vec![Answer::Keep(whole), Answer::Close(broken)]);
    let client = server.client();
    let read = || {
        let mut text = String::new();
        client.container_logs("x", &LogsOptions::default()).unwrap().read_to_string(&mut text).map(|_| text)
    };
    assert_eq!(read().unwrap(), "hi");
    assert_eq!(read().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}
