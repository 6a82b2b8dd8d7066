//! One container's name server.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::directory::{Directory, Found};
use crate::forward::{Forwarder, Way, framed};
use crate::message::{self, A, AAAA, Data, Query, QueryError};

/// Questions of one container that are on their way outside at a time, and connections that it holds.
const QUESTIONS: usize = 1024;
const CONNECTIONS: usize = 64;
/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(10);
const DATAGRAM_BYTES: usize = 4096;
const STREAM_BYTES: usize = 65535;

/// Sockets that were opened in a container's namespace, at one port.
#[derive(Debug)]
pub struct Sockets {
    /// For datagrams.
    pub datagrams: std::net::UdpSocket,
    /// For connections.
    pub connections: std::net::TcpListener,
}

/// Whose questions are answered, and who is asked what is not known here.
#[derive(Debug, Clone)]
pub struct Client {
    /// The container's id in the directory.
    pub id: String,
    /// The servers that it would have had without us.
    pub servers: Vec<SocketAddr>,
}

/// A server at work; dropping it ends it.
#[derive(Debug)]
pub struct Serving {
    tasks: [AbortHandle; 2],
    port: u16,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Serving {
    /// Answers what comes to the sockets from now on. For threads of the async runtime, blocking ones included.
    pub fn start(
        sockets: Sockets,
        client: Client,
        directory: Arc<Directory>,
        forwarder: Arc<Forwarder>,
    ) -> io::Result<Self> {
        let port = sockets.datagrams.local_addr()?.port();
        sockets.datagrams.set_nonblocking(true)?;
        sockets.connections.set_nonblocking(true)?;
        let datagrams = Arc::new(UdpSocket::from_std(sockets.datagrams)?);
        let connections = TcpListener::from_std(sockets.connections)?;
        let server = Arc::new(Server { client, directory, forwarder, questions: Arc::new(Semaphore::new(QUESTIONS)) });
        let datagrams = tokio::spawn(serve_datagrams(Arc::clone(&server), datagrams)).abort_handle();
        let connections = tokio::spawn(serve_connections(server, connections)).abort_handle();
        Ok(Self { tasks: [datagrams, connections], port })
    }

    /// The port of its sockets.
    pub fn port(&self) -> u16 {
        self.port
    }
}

#[derive(Debug)]
struct Server {
    client: Client,
    directory: Arc<Directory>,
    forwarder: Arc<Forwarder>,
    questions: Arc<Semaphore>,
}

/// What is known at once.
enum Known {
    Answer(Vec<u8>),
    /// Somebody outside has to be asked.
    Outside,
}

impl Server {
    fn at_once(&self, query: &Query<'_>, limit: usize) -> Known {
        if !query.is_plain() {
            return self.outside(query);
        }
        let found = match query.pointer() {
            Some(address) => self.directory.by_address(&self.client.id, address),
            None => self.directory.by_name(&self.client.id, &query.name),
        };
        match found {
            Found::Unknown => self.outside(query),
            Found::Name(name) => Known::Answer(message::answer(query, &[Data::Name(name)], limit)),
            // A name that is known has no other records, and nobody outside is asked for them.
            Found::Addresses(addresses) => {
                let fits = |address: &std::net::IpAddr| {
                    (query.kind == A && address.is_ipv4()) || (query.kind == AAAA && address.is_ipv6())
                };
                let data: Vec<Data> = addresses.into_iter().filter(fits).map(Data::Address).collect();
                Known::Answer(message::answer(query, &data, limit))
            }
        }
    }

    fn outside(&self, query: &Query<'_>) -> Known {
        if self.client.servers.is_empty() || self.directory.is_cut_off(&self.client.id) {
            return Known::Answer(message::refusal(query, message::SERVER_FAILURE));
        }
        Known::Outside
    }

    async fn ask(&self, query: &Query<'_>, way: Way) -> Vec<u8> {
        let answer = self.forwarder.ask(query, &self.client.servers, way).await;
        answer.unwrap_or_else(|| message::refusal(query, message::SERVER_FAILURE))
    }
}

async fn serve_datagrams(server: Arc<Server>, socket: Arc<UdpSocket>) {
    loop {
        let Ok(()) = socket.readable().await else { return };
        let mut buffer = [0; DATAGRAM_BYTES];
        let Ok((length, from)) = socket.try_recv_from(&mut buffer) else { continue };
        let bytes = &buffer[..length];
        let answer = match Query::parse(bytes) {
            Ok(query) => match server.at_once(&query, query.datagram_bytes()) {
                Known::Answer(answer) => Some(answer),
                Known::Outside => {
                    ask_behind(&server, &socket, bytes.to_vec(), from);
                    None
                }
            },
            Err(QueryError::Refused { id, code }) => Some(message::bare_refusal(id, code)),
            Err(QueryError::NoQuery) => None,
        };
        if let Some(answer) = answer {
            // A full queue loses it as a cable would, and the client asks again.
            let _ = socket.try_send_to(&answer, from);
        }
    }
}

/// Asks outside while others are answered.
fn ask_behind(server: &Arc<Server>, socket: &Arc<UdpSocket>, bytes: Vec<u8>, from: SocketAddr) {
    let Ok(permit) = Arc::clone(&server.questions).try_acquire_owned() else { return };
    let (server, socket) = (Arc::clone(server), Arc::clone(socket));
    tokio::spawn(async move {
        let _permit = permit;
        let Ok(query) = Query::parse(&bytes) else { return };
        let mut answer = server.ask(&query, Way::Datagram).await;
        if answer.len() > query.datagram_bytes() {
            answer = message::cut(&query);
        }
        let _ = socket.send_to(&answer, from).await;
    });
}

async fn serve_connections(server: Arc<Server>, listener: TcpListener) {
    /// Out of descriptors, most likely: they come back when connections end.
    const PAUSE: Duration = Duration::from_millis(100);
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let server = Arc::clone(&server);
                tokio::spawn(async move {
                    let _permit = permit;
                    let _ = serve_connection(&server, stream).await;
                });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn serve_connection(server: &Server, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let length = timeout(SILENCE, stream.read_u16()).await??;
        let mut bytes = vec![0; length.into()];
        timeout(SILENCE, stream.read_exact(&mut bytes)).await??;
        let answer = match Query::parse(&bytes) {
            Ok(query) => match server.at_once(&query, STREAM_BYTES) {
                Known::Answer(answer) => answer,
                Known::Outside => server.ask(&query, Way::Stream).await,
            },
            Err(QueryError::Refused { id, code }) => message::bare_refusal(id, code),
            Err(QueryError::NoQuery) => return Ok(()),
        };
        timeout(SILENCE, stream.write_all(&framed(&answer))).await??;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::directory::Membership;
    use crate::message::tests::{addresses, query};
    use crate::message::{NO_ERROR, SERVER_FAILURE, code};

    fn membership(internal: bool, last: u8, names: &[&str]) -> Membership {
        Membership {
            network: "n".into(),
            network_name: "front".into(),
            internal,
            addresses: vec![Ipv4Addr::new(10, 0, 0, last).into()],
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            links: Vec::new(),
        }
    }

    struct Rig {
        _serving: Serving,
        address: SocketAddr,
        outside: UdpSocket,
    }

    /// A server for container 1, and the server outside that it asks.
    async fn rig(memberships: Vec<(&str, Membership)>) -> Rig {
        let directory = Arc::new(Directory::default());
        for (client, membership) in memberships {
            directory.put(client, vec![membership]);
        }
        let outside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let datagrams = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let connections = std::net::TcpListener::bind(datagrams.local_addr().unwrap()).unwrap();
        let sockets = Sockets { datagrams, connections };
        let address = sockets.datagrams.local_addr().unwrap();
        let client = Client { id: "1".into(), servers: vec![outside.local_addr().unwrap()] };
        let serving = Serving::start(sockets, client, directory, Arc::default()).unwrap();
        Rig { _serving: serving, address, outside }
    }

    impl Rig {
        async fn ask(&self, question: &[u8]) -> Vec<u8> {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            socket.send_to(question, self.address).await.unwrap();
            let mut bytes = vec![0; 4096];
            let length = timeout(Duration::from_secs(20), socket.recv(&mut bytes)).await.unwrap().unwrap();
            bytes.truncate(length);
            bytes
        }
    }

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn names_of_the_network_are_answered_by_datagram_and_stream() {
        run(async {
            let rig =
                rig(vec![("1", membership(false, 1, &["web"])), ("2", membership(false, 2, &["db", "data"]))]).await;
            let question = query(7, "DATA.front", A, true);
            assert_eq!(addresses(&rig.ask(&question).await), [Ipv4Addr::new(10, 0, 0, 2)]);
            let nothing = rig.ask(&query(7, "db", AAAA, false)).await;
            assert_eq!((code(&nothing), addresses(&nothing)), (NO_ERROR, Vec::new()));
            let mut stream = TcpStream::connect(rig.address).await.unwrap();
            for _ in 0..2 {
                stream.write_all(&framed(&question)).await.unwrap();
                let length = stream.read_u16().await.unwrap();
                let mut answer = vec![0; length.into()];
                stream.read_exact(&mut answer).await.unwrap();
                assert_eq!(addresses(&answer), [Ipv4Addr::new(10, 0, 0, 2)]);
            }
        });
    }

    #[test]
    fn everything_else_is_asked_outside() {
        run(async {
            let rig = rig(vec![("1", membership(false, 1, &["web"]))]).await;
            let answering = async {
                let mut bytes = [0; 512];
                let (length, from) = rig.outside.recv_from(&mut bytes).await.unwrap();
                let asked = Query::parse(&bytes[..length]).unwrap();
                let data = [Data::Address(Ipv4Addr::new(192, 0, 2, 1).into())];
                rig.outside.send_to(&message::answer(&asked, &data, 512), from).await.unwrap();
            };
            let question = query(7, "example.org", A, false);
            let (answer, ()) = tokio::join!(rig.ask(&question), answering);
            assert_eq!(addresses(&answer), [Ipv4Addr::new(192, 0, 2, 1)]);
        });
    }

    #[test]
    fn an_internal_network_tells_nobody_outside() {
        run(async {
            let rig = rig(vec![("1", membership(true, 1, &["web"])), ("2", membership(true, 2, &["db"]))]).await;
            assert_eq!(code(&rig.ask(&query(7, "secret.example.org", A, false)).await), SERVER_FAILURE);
            assert_eq!(addresses(&rig.ask(&query(7, "db", A, false)).await), [Ipv4Addr::new(10, 0, 0, 2)]);
            let mut bytes = [0; 512];
            assert!(rig.outside.try_recv_from(&mut bytes).is_err(), "nothing came");
        });
    }

    #[test]
    fn nonsense_is_refused_and_the_next_question_answered() {
        run(async {
            let rig = rig(vec![("1", membership(false, 1, &["web"]))]).await;
            let mut several = query(7, "web", A, false);
            several[5] = 2;
            assert_eq!(code(&rig.ask(&several).await), message::FORMAT_ERROR);
            assert_eq!(addresses(&rig.ask(&query(7, "web", A, false)).await), [Ipv4Addr::new(10, 0, 0, 1)]);
        });
    }
}
