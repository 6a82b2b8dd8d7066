//! A server of HTTP whose answers a test writes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

/// A request as it came.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) authorization: String,
    pub(crate) body: String,
}

/// An answer.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A status, a content type, and a whole body.
    Whole(u16, &'static str, Vec<u8>),
    /// These bytes and then zeros, for as long as anybody reads.
    Endless(&'static str, Vec<u8>),
    /// These bytes of a body of this length, and then nothing for as long as anybody waits.
    Stalled(Vec<u8>, usize),
}

impl Reply {
    pub(crate) fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Reply::Whole(status, "application/json", body.into())
    }
}

/// Serves at an address of this thread's network namespace until the test's process ends.
pub(crate) fn serve(address: &str, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
    let listener = TcpListener::bind(address).unwrap();
    let handler = Arc::new(handler);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let handler = Arc::clone(&handler);
            std::thread::spawn(move || {
                let stream = stream.unwrap();
                if let Some(request) = read(&stream) {
                    // Who does not read the answer to its end has its reasons.
                    let _ = answer(&stream, &request, &handler(&request));
                }
            });
        }
    });
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut request = Request { method, target, ..Request::default() };
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => value.clone_into(&mut request.authorization),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    request.body = String::from_utf8(body).ok()?;
    Some(request)
}

fn answer(mut stream: &TcpStream, request: &Request, reply: &Reply) -> std::io::Result<()> {
    match reply {
        Reply::Whole(status, kind, body) => {
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
            );
            stream.write_all(head.as_bytes())?;
            if request.method == "HEAD" { Ok(()) } else { stream.write_all(body) }
        }
        Reply::Stalled(body, length) => {
            let head = format!("HTTP/1.1 200 X\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes())?;
            stream.write_all(body)?;
            stream.read(&mut [0]).map(drop)
        }
        Reply::Endless(kind, body) => {
            let head = format!("HTTP/1.1 200 X\r\nConnection: close\r\nContent-Type: {kind}\r\n\r\n");
            stream.write_all(head.as_bytes())?;
            if request.method == "HEAD" {
                return Ok(());
            }
            stream.write_all(body)?;
            loop {
                stream.write_all(&[0; 1 << 16])?;
            }
        }
    }
}
