//! Requests and answers.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, Mutex, PoisonError};

use docker_api::{ApiVersion, ErrorResponse, json};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::body::Body;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::hijack::{Hijacked, Socket};
use crate::host::Host;
use crate::http::Head;

/// The largest document that is read whole.
const MAX_DOCUMENT: u64 = 256 << 20;
/// The longest error message that is read.
const MAX_REFUSAL: u64 = 1 << 20;
/// How much of an upload is sent at a time.
const UPLOAD_CHUNK: usize = 256 * 1024;

/// A daemon, through connections that are made when they are needed.
#[derive(Debug)]
pub struct Client {
    host: Host,
    user_agent: String,
    version: Mutex<Agreement>,
    pool: Arc<Pool>,
}

/// What is known about the version to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Agreement {
    /// The newest that we know; asking costs a round trip, so it is only done when the server refuses it.
    Assumed(ApiVersion),
    /// The server speaks it, or the user insists on it.
    Settled(ApiVersion),
}

impl Agreement {
    fn version(self) -> ApiVersion {
        match self {
            Self::Assumed(version) | Self::Settled(version) => version,
        }
    }
}

/// Idle connections.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Vec<Connection>>);

impl Pool {
    pub(crate) fn give_back(&self, connection: Connection) {
        if connection.unread().is_empty() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }

    fn take(&self) -> Option<Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

/// A request in the making.
#[derive(Debug, Clone)]
pub(crate) struct Request<'a> {
    method: &'static str,
    /// Behind the version, with the query.
    target: String,
    headers: Vec<(&'a str, String)>,
    body: Option<Vec<u8>>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(method: &'static str, target: impl Into<String>) -> Self {
        Self { method, target: target.into(), headers: Vec::new(), body: None }
    }

    pub(crate) fn get(target: impl Into<String>) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn post(target: impl Into<String>) -> Self {
        Self::new("POST", target)
    }

    pub(crate) fn delete(target: impl Into<String>) -> Self {
        Self::new("DELETE", target)
    }

    pub(crate) fn json<T: Serialize>(mut self, document: &T) -> Result<Self> {
        self.headers.push(("Content-Type", "application/json".to_owned()));
        self.body = Some(serde_json::to_vec(document)?);
        Ok(self)
    }

    pub(crate) fn header(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A body that is read from somewhere and sent as it comes.
pub struct Upload {
    /// Where the bytes come from.
    pub source: Box<dyn Read + Send>,
    /// How many there are, where that is known.
    pub length: Option<u64>,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("length", &self.length).finish_non_exhaustive()
    }
}

/// An answer that is no refusal.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) body: Body,
}

impl Client {
    /// A client of a daemon. Nothing is connected yet.
    pub fn new(host: Host) -> Self {
        Self {
            host,
            user_agent: concat!("Conex-Client/", env!("CARGO_PKG_VERSION"), " (linux)").to_owned(),
            version: Mutex::new(Agreement::Assumed(ApiVersion::NEWEST)),
            pool: Arc::default(),
        }
    }

    /// The same client with a fixed version, as `DOCKER_API_VERSION` asks for.
    #[must_use]
    pub fn with_version(self, version: ApiVersion) -> Self {
        Self { version: Mutex::new(Agreement::Settled(version)), ..self }
    }

    /// Where the daemon is.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The version that is spoken, as far as is known; [`Client::ping`] settles it.
    pub fn version(&self) -> ApiVersion {
        self.agreement().version()
    }

    fn agreement(&self) -> Agreement {
        *self.version.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Speaks the older of what both sides know, unless a version is fixed.
    pub(crate) fn agree_on(&self, theirs: ApiVersion) {
        let mut agreement = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        if let Agreement::Assumed(ours) = *agreement {
            *agreement = Agreement::Settled(ours.min(theirs));
        }
    }

    /// Sends and reads a document.
    pub(crate) fn document<T: DeserializeOwned>(&self, request: Request<'_>) -> Result<T> {
        let answer = self.send(request)?;
        let bytes = answer.body.read_all(MAX_DOCUMENT).map_err(Error::io("reading the answer"))?;
        Ok(json::from_slice(&bytes)?)
    }

    /// Sends and waits for success.
    pub(crate) fn command(&self, request: Request<'_>) -> Result<()> {
        let answer = self.send(request)?;
        // Read to the end, so that the connection can be used again.
        answer.body.read_all(MAX_REFUSAL).map_err(Error::io("reading the answer"))?;
        Ok(())
    }

    /// Sends, and returns the answer with its body still to be read.
    pub(crate) fn send(&self, request: Request<'_>) -> Result<Answer> {
        let outcome = self.exchange(&request);
        match (&outcome, self.agreement()) {
            (Err(Error::Refused { status: 400, message }), Agreement::Assumed(_)) if message.contains("is too new") => {
                self.ping()?;
                self.exchange(&request)
            }
            _ => outcome,
        }
    }

    fn exchange(&self, request: &Request<'_>) -> Result<Answer> {
        let message = self.encode(request, BodyLength::Known);
        let (connection, head) = self.transmit(&message)?;
        self.check(request.method, connection, head)
    }

    /// Sends and takes the whole connection over.
    pub(crate) fn hijack(&self, request: Request<'_>) -> Result<Hijacked> {
        let request = request.header("Connection", "Upgrade").header("Upgrade", "tcp");
        let message = self.encode(&request, BodyLength::Known);
        let (connection, head) = self.transmit(&message)?;
        if head.status != 101 && head.status != 200 {
            return Err(refusal(self.check(request.method, connection, head)));
        }
        let content_type = head.header("content-type").unwrap_or_default().to_owned();
        let (socket, early) = connection.into_parts();
        Ok(Hijacked::new(socket, early, content_type))
    }

    /// Sends a body as it is read, from another thread, because the answer may begin before the body ends.
    pub(crate) fn upload(&self, request: Request<'_>, upload: Upload) -> Result<Answer> {
        if matches!(self.agreement(), Agreement::Assumed(_)) {
            // What is read once cannot be sent again with another version.
            self.ping()?;
        }
        let length = upload.length.map_or(BodyLength::Chunked, BodyLength::Streamed);
        let mut connection = self.connect()?;
        connection.write_all(&self.encode(&request, length)).map_err(Error::io("sending the request"))?;
        let socket = connection.socket.try_clone().map_err(Error::io("sending the request"))?;
        let failure = Arc::new(Mutex::new(None));
        let told = Arc::clone(&failure);
        std::thread::spawn(move || {
            if let Err(error) = feed(&socket, upload) {
                *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                // The server must not take half a body for a whole one.
                let _ = socket.shutdown(Shutdown::Both);
            }
        });
        let head = connection.read_head().map_err(|error| {
            match failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
                Some(source) => Error::Io { doing: "sending the body", source },
                None => error,
            }
        })?;
        let framing = head.framing(request.method)?;
        let body = Body::new(connection, framing, None);
        answer_or_refusal(head, body)
    }

    fn connect(&self) -> Result<Connection> {
        self.host.connect().map(Connection::new)
    }

    /// Writes a message and reads the head of its answer. A connection that the server closed while it was idle is replaced.
    fn transmit(&self, message: &[u8]) -> Result<(Connection, Head)> {
        if let Some(mut connection) = self.pool.take()
            && connection.write_all(message).is_ok()
            && matches!(connection.fill(), Ok(1..))
        {
            let head = connection.read_head()?;
            return Ok((connection, head));
        }
        let mut connection = self.connect()?;
        connection.write_all(message).map_err(Error::io("sending the request"))?;
        let head = connection.read_head()?;
        Ok((connection, head))
    }

    fn check(&self, method: &str, connection: Connection, head: Head) -> Result<Answer> {
        let framing = head.framing(method)?;
        let pool = head.keeps_alive().then(|| Arc::clone(&self.pool));
        answer_or_refusal(head, Body::new(connection, framing, pool))
    }

    /// Head and body in one piece, so that they go out in one write.
    fn encode(&self, request: &Request<'_>, length: BodyLength) -> Vec<u8> {
        let version = self.version();
        // A ping has to be answered by every server.
        let prefix = if request.target == "/_ping" { String::new() } else { format!("/v{version}") };
        let mut head = format!(
            "{} {prefix}{} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {}\r\n",
            request.method,
            request.target,
            self.host.header(),
            self.user_agent,
        );
        for (name, value) in &request.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match length {
            BodyLength::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
            BodyLength::Streamed(length) => head.push_str(&format!("Content-Length: {length}\r\n")),
            BodyLength::Known if request.method == "POST" || request.body.is_some() => {
                let length = request.body.as_ref().map_or(0, Vec::len);
                head.push_str(&format!("Content-Length: {length}\r\n"));
            }
            BodyLength::Known => {}
        }
        head.push_str("\r\n");
        let mut message = head.into_bytes();
        message.extend_from_slice(request.body.as_deref().unwrap_or_default());
        message
    }
}

/// What the head says about the body.
#[derive(Debug, Clone, Copy)]
enum BodyLength {
    /// It is in the request.
    Known,
    /// It follows, and is so long.
    Streamed(u64),
    /// It follows in chunks.
    Chunked,
}

fn answer_or_refusal(head: Head, body: Body) -> Result<Answer> {
    if head.status < 400 {
        return Ok(Answer { head, body });
    }
    let bytes = body.read_all(MAX_REFUSAL).map_err(Error::io("reading the answer"))?;
    let message = match json::from_slice::<ErrorResponse>(&bytes) {
        Ok(document) if !document.message.is_empty() => document.message,
        _ => String::from_utf8_lossy(&bytes).trim().to_owned(),
    };
    let message = if message.is_empty() { format!("the server answered with status {}", head.status) } else { message };
    Err(Error::Refused { status: head.status, message })
}

/// The error of an answer that should have been a hijack.
fn refusal(outcome: Result<Answer>) -> Error {
    match outcome {
        Err(error) => error,
        Ok(_) => Error::Malformed("the server did not hand the connection over"),
    }
}

/// Copies an upload to the socket.
fn feed(mut socket: &Socket, mut upload: Upload) -> io::Result<()> {
    let mut buffer = vec![0; UPLOAD_CHUNK];
    loop {
        let len = match upload.source.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        match (upload.length, len) {
            (Some(_), 0) => return Ok(()),
            (None, 0) => return socket.write_all(b"0\r\n\r\n"),
            (Some(_), _) => socket.write_all(&buffer[..len])?,
            (None, _) => {
                socket.write_all(format!("{len:x}\r\n").as_bytes())?;
                socket.write_all(&buffer[..len])?;
                socket.write_all(b"\r\n")?;
            }
        }
    }
}
