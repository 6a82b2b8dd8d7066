//! Probes that the engine does by itself, in the container's network and without a process: a TCP connection, or an HTTP request.
//!
//! An image or a container asks for one in the place of a command (`["TCP", "5432"]`, `["HTTP", "http://:8080/health"]`), or, where only
//! commands can be said, by a label: `conex.health.tcp=5432`, `conex.health.http=http://:8080/health`.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock, mpsc};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::model::{ContainerSpec, EngineError};

/// The labels that stand for a test.
const TCP_LABEL: &str = "conex.health.tcp";
const HTTP_LABEL: &str = "conex.health.http";
/// How much of an answer is read, and kept for who looks.
const ANSWER: usize = 4096;

/// A probe without a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Probe {
    /// Something accepts connections there.
    Tcp(SocketAddr),
    /// `GET` is answered with a status from 200 to 399.
    Http {
        address: SocketAddr,
        /// As the request's `Host` says it.
        host: String,
        path: String,
    },
}

impl Probe {
    /// The probe of a test's words; none if they name none.
    pub(super) fn of_test(test: &[String]) -> Result<Option<Self>, EngineError> {
        let wrong = |kind: &str| EngineError::invalid(format!("the health check {kind} takes one address"));
        match test.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["TCP", address] => Ok(Some(Self::Tcp(socket_address(address)?))),
            ["HTTP", url] => http(url).map(Some),
            ["TCP" | "HTTP", ..] => Err(wrong(&test[0])),
            _ => Ok(None),
        }
    }

    /// The probe that a container wants, by its test or, without one, by a label.
    pub(super) fn of(spec: &ContainerSpec) -> Result<Option<Self>, EngineError> {
        let test = spec.healthcheck.as_ref().map(|check| check.test.as_slice()).unwrap_or_default();
        if test.iter().any(|word| !word.is_empty()) {
            return Self::of_test(test);
        }
        Self::of_labels(&spec.labels)
    }

    fn of_labels(labels: &BTreeMap<String, String>) -> Result<Option<Self>, EngineError> {
        match (labels.get(TCP_LABEL), labels.get(HTTP_LABEL)) {
            (Some(_), Some(_)) => Err(EngineError::invalid(format!("{TCP_LABEL} and {HTTP_LABEL} are one too many"))),
            (Some(address), None) => socket_address(address).map(|address| Some(Self::Tcp(address))),
            (None, Some(url)) => http(url).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// Probes in a network namespace: Docker's exit code, and what is to be read in the log.
    pub(super) async fn run(&self, namespace: Arc<OwnedFd>) -> (i32, String) {
        match self.attempt(namespace).await {
            Ok(result) => result,
            Err(error) => (1, format!("{self}: {error}")),
        }
    }

    async fn attempt(&self, namespace: Arc<OwnedFd>) -> io::Result<(i32, String)> {
        let (Self::Tcp(address) | Self::Http { address, .. }) = self;
        let reached = reach(namespace, *address).await?;
        let Self::Http { host, path, .. } = self else {
            if let Reached::Soon(socket) = reached {
                connected(socket).await?;
            }
            return Ok((0, format!("{self}: connected")));
        };
        let mut stream = match reached {
            Reached::Already(socket) => stream_of(socket)?,
            Reached::Soon(socket) => connected(socket).await?,
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Conex-Health\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        while answer.len() < ANSWER && stream.read_buf(&mut answer).await? > 0 {
            if answer.windows(4).any(|end| end == b"\r\n\r\n") {
                break;
            }
        }
        Ok(judge(&answer))
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "TCP {address}"),
            Self::Http { host, path, .. } => write!(f, "HTTP http://{host}{path}"),
        }
    }
}

/// What an answer says.
fn judge(answer: &[u8]) -> (i32, String) {
    let text = String::from_utf8_lossy(&answer[..answer.len().min(ANSWER)]);
    let line = text.lines().next().unwrap_or_default();
    let mut words = line.split_ascii_whitespace();
    let status = words.next().filter(|version| version.starts_with("HTTP/1.")).and(words.next());
    match status.and_then(|status| status.parse::<u16>().ok()) {
        Some(200..=399) => (0, line.to_owned()),
        Some(_) => (1, line.to_owned()),
        None => (1, format!("no answer of HTTP: {line:?}")),
    }
}

/// `http://[HOST][:PORT][/PATH]`, the host an address or `localhost`, which it is without one too.
fn http(url: &str) -> Result<Probe, EngineError> {
    let wrong = |why: &str| EngineError::invalid(format!("invalid health check address \"{url}\": {why}"));
    let rest = url.strip_prefix("http://").ok_or_else(|| wrong("it must begin with http://"))?;
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    if path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(wrong("the path has a space or a control character in it"));
    }
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = if has_port { socket_address(authority)? } else { socket_address(&format!("{authority}:80"))? };
    let host = if authority.starts_with(':') || authority.is_empty() {
        format!("localhost{authority}")
    } else {
        authority.to_owned()
    };
    Ok(Probe::Http { address, host, path: path.to_owned() })
}

/// `PORT` or `[HOST]:PORT`. Names are not looked up: what is probed is the container itself.
fn socket_address(text: &str) -> Result<SocketAddr, EngineError> {
    let wrong = || EngineError::invalid(format!("invalid health check address \"{text}\": PORT, or ADDRESS:PORT"));
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
    let host = match host.trim_start_matches('[').trim_end_matches(']') {
        "" | "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        address => address.parse().map_err(|_| wrong())?,
    };
    Ok(SocketAddr::new(host, port))
}

/// A request to the thread that goes from namespace to namespace.
struct Wanted {
    namespace: Arc<OwnedFd>,
    address: SocketAddr,
    answer: oneshot::Sender<io::Result<Reached>>,
}

/// A connection at its beginning.
enum Reached {
    /// Somebody has accepted it: within a container that is known at once.
    Already(OwnedFd),
    /// It is not known yet.
    Soon(OwnedFd),
}

/// A connection into a network namespace. Joining one changes a whole thread, so one thread begins all of them. It waits for nothing, and
/// for what is known at once nobody else has to wait either: connecting to a container itself is four system calls.
async fn reach(namespace: Arc<OwnedFd>, address: SocketAddr) -> io::Result<Reached> {
    static MAKER: OnceLock<mpsc::Sender<Wanted>> = OnceLock::new();
    let maker = MAKER.get_or_init(|| {
        let (sender, wanted) = mpsc::channel();
        // Without the thread every request finds its channel closed.
        let _ = std::thread::Builder::new().name("probe-sockets".to_owned()).spawn(move || begin_all(&wanted));
        sender
    });
    let (answer, made) = oneshot::channel();
    let gone = |_| io::Error::other("sockets for health checks cannot be made");
    maker.send(Wanted { namespace, address, answer }).map_err(|_| io::Error::other("no thread for health checks"))?;
    made.await.map_err(gone)?
}

fn begin_all(wanted: &mpsc::Receiver<Wanted>) {
    for Wanted { namespace, address, answer } in wanted {
        let _ = answer.send(begin(&namespace, &address).map_err(io::Error::from));
    }
}

fn begin(namespace: &OwnedFd, address: &SocketAddr) -> Result<Reached, Errno> {
    linux::namespace::join(namespace.as_fd(), linux::namespace::NETWORK)?;
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    match connect(&socket, address) {
        Ok(()) => Ok(Reached::Already(socket)),
        // Over loopback both sides are done when the call returns, and asking once more tells.
        Err(Errno::INPROGRESS) => match connect(&socket, address) {
            Ok(()) | Err(Errno::ISCONN) => Ok(Reached::Already(socket)),
            Err(Errno::ALREADY | Errno::INPROGRESS) => Ok(Reached::Soon(socket)),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    }
}

fn stream_of(socket: OwnedFd) -> io::Result<TcpStream> {
    TcpStream::from_std(std::net::TcpStream::from(socket))
}

/// Waits for what was begun.
async fn connected(socket: OwnedFd) -> io::Result<TcpStream> {
    let stream = stream_of(socket)?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::{Probe, judge};
    use crate::model::{ContainerSpec, Healthcheck};

    fn of(test: &[&str]) -> Result<Option<Probe>, String> {
        let test: Vec<String> = test.iter().map(|word| (*word).to_owned()).collect();
        Probe::of_test(&test).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn addresses_are_read_and_wrong_ones_refused() {
        for (test, shown) in [
            (["TCP", "5432"], "TCP 127.0.0.1:5432"),
            (["TCP", "[::1]:80"], "TCP [::1]:80"),
            (["HTTP", "http://:8080/health?x=1"], "HTTP http://localhost:8080/health?x=1"),
            (["HTTP", "http://127.0.0.1"], "HTTP http://127.0.0.1/"),
        ] {
            assert_eq!(of(&test).unwrap().unwrap().to_string(), shown);
        }
        for test in [
            &["TCP", "0"][..],
            &["TCP", "example.com:80"],
            &["TCP"],
            &["HTTP", "https://localhost/"],
            &["HTTP", "http://localhost/a b"],
            &["HTTP", "http://localhost/\r\nX: y"],
            &["HTTP", "http://:8080/", "more"],
        ] {
            assert!(of(test).is_err(), "{test:?}");
        }
        assert_eq!(of(&["CMD", "true"]), Ok(None));
    }

    #[test]
    fn a_label_counts_where_there_is_no_test() {
        let mut spec =
            ContainerSpec { labels: [("conex.health.tcp".into(), "80".into())].into(), ..ContainerSpec::default() };
        assert!(matches!(Probe::of(&spec), Ok(Some(Probe::Tcp(_)))));
        spec.healthcheck = Some(Healthcheck { test: vec!["CMD".into(), "true".into()], ..Healthcheck::default() });
        assert!(matches!(Probe::of(&spec), Ok(None)));
    }

    #[test]
    fn answers_are_judged_by_their_status() {
        assert_eq!(judge(b"HTTP/1.1 204 No Content\r\n\r\n"), (0, "HTTP/1.1 204 No Content".into()));
        assert_eq!(judge(b"HTTP/1.0 503 Service Unavailable\r\n").0, 1);
        for nonsense in [&b""[..], b"SSH-2.0", b"HTTP/1.1", b"HTTP/1.1 abc", &[0xff; 9000]] {
            assert_eq!(judge(nonsense).0, 1);
        }
    }

    #[tokio::test]
    async fn a_listener_in_this_namespace_is_found() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nwell").await.unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        // Joining it takes the right to; without that there is nothing to be seen here.
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let namespace = Arc::new(std::fs::File::open("/proc/self/ns/net").unwrap().into());
        let probe = of(&["HTTP", &format!("http://{address}/health")]).unwrap().unwrap();
        assert_eq!(probe.run(namespace).await, (0, "HTTP/1.1 200 OK".to_owned()));
        assert!(server.await.unwrap().starts_with("GET /health HTTP/1.1\r\nHost: 127.0.0.1:"));
    }
}
