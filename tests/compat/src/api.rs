//! One request to the API, without any client's ideas of it.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// What an engine answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Head and body, as they came.
    pub(crate) text: String,
}

impl Answer {
    /// Whether it came to its end, and says that what was asked for was done.
    pub(crate) fn is_good(&self) -> bool {
        // A stream of lines that ends without its last has broken off.
        let is_whole = !self.text.contains("chunked") || self.text.ends_with("0\r\n\r\n");
        self.text.starts_with("HTTP/1.1 2") && !self.text.contains("\"error\"") && is_whole
    }
}

/// Sends a request line such as `POST /images/load` with a body of a kind; nothing where there is no answer at all.
pub(crate) fn ask(socket: &Path, line: &str, kind: &str, body: &[u8]) -> Option<Answer> {
    let mut stream = UnixStream::connect(socket).ok()?;
    let length = body.len();
    let head = format!(
        "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    // An engine may refuse what it has not read to its end.
    let sent = stream.write_all(body);
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    if answer.is_empty() && (sent.is_err() || read.is_err()) {
        return None;
    }
    Some(Answer { text: String::from_utf8_lossy(&answer).into_owned() })
}
