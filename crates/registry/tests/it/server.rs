//! A server of HTTP whose answers a test writes, faults included.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use registry::{Client, Credentials, Endpoint, Options, Patience, Retry, Session};

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// `GET /v2/`
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

/// What the server does after the body, or instead of its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The next request.
    Proper,
    /// The connection closes.
    Cut,
    /// Nothing happens any more.
    Stall,
    /// Zeros, for as long as anybody reads.
    Endless,
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    length: Option<u64>,
    ending: Ending,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let length = Some(body.len() as u64);
        Self { status, headers: Vec::new(), body, length, ending: Ending::Proper }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// States another length than the body has.
    pub(crate) fn length(mut self, length: Option<u64>) -> Self {
        self.length = length;
        self
    }

    pub(crate) fn ending(mut self, ending: Ending) -> Self {
        self.ending = ending;
        self
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// A running server; its threads end with the test's process.
pub(crate) struct Server {
    pub(crate) address: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(crate) fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (handler, log): (Arc<Handler>, _) = (Arc::new(handler), Arc::clone(&seen));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (handler, log) = (Arc::clone(&handler), Arc::clone(&log));
                std::thread::spawn(move || serve(&stream.unwrap(), &*handler, &log));
            }
        });
        Self { address, seen }
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// The lines of all requests so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Request::line).collect()
    }

    pub(crate) async fn session(&self, credentials: Credentials) -> Result<Arc<Session>, registry::Error> {
        let client = client();
        client.open(&self.endpoint(&client), credentials).await
    }

    pub(crate) fn endpoint(&self, client: &Client) -> Endpoint {
        client.places().registry(&self.address).unwrap()
    }

    pub(crate) async fn repository(&self) -> registry::Repository {
        self.session(Credentials::Anonymous).await.unwrap().repository("test/image")
    }
}

/// A client without patience.
pub(crate) fn client() -> Client {
    let pause = Duration::from_millis(1);
    let retry = Retry { attempts: 4, first_pause: pause, longest_pause: Duration::from_secs(5) };
    let patience = Patience { answer: Duration::from_secs(60), piece: Duration::from_millis(300) };
    Client::new(Options { retry, patience, user_agent: "test".to_owned(), ..Options::default() })
}

fn serve(stream: &TcpStream, handler: &Handler, log: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        // Every client asks this first; no test has to answer it unless it wants to.
        let reply = handler(&request);
        log.lock().unwrap().push(request.clone());
        if write_reply(stream, &request, &reply).is_none() {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut request = Request { method, target, ..Request::default() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        request.headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    if let Some(length) = request.header("content-length").map(|length| length.parse().unwrap()) {
        request.body = vec![0; length];
        reader.read_exact(&mut request.body).ok()?;
    } else if request.header("transfer-encoding").is_some() {
        read_chunks(reader, &mut request.body);
    }
    Some(request)
}

/// Reads chunks to the last, or as far as they come.
fn read_chunks(reader: &mut BufReader<&TcpStream>, body: &mut Vec<u8>) -> Option<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let length = usize::from_str_radix(line.trim(), 16).ok()?;
        let mut chunk = vec![0; length + 2];
        reader.read_exact(&mut chunk).ok()?;
        if length == 0 {
            return Some(());
        }
        body.extend_from_slice(&chunk[..length]);
    }
}

/// Nothing where the connection is at its end.
fn write_reply(mut stream: &TcpStream, request: &Request, reply: &Reply) -> Option<()> {
    let mut head = format!("HTTP/1.1 {} Because\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    match reply.length {
        Some(length) => head += &format!("Content-Length: {length}\r\n\r\n"),
        None => head += "Connection: close\r\n\r\n",
    }
    stream.write_all(head.as_bytes()).ok()?;
    if request.method != "HEAD" {
        stream.write_all(&reply.body).ok()?;
    }
    match reply.ending {
        Ending::Proper if reply.length.is_some() => Some(()),
        Ending::Proper | Ending::Cut => {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            None
        }
        Ending::Stall => {
            // Until the other side gives up.
            let _ = stream.read(&mut [0]);
            None
        }
        Ending::Endless => {
            while stream.write_all(&[0; 1 << 16]).is_ok() {}
            None
        }
    }
}
