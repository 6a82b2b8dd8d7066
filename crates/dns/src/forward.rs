//! Asking the servers outside.
//!
//! A datagram may be lost, and a server may be dead: all servers are asked at once, and asked again after a moment that follows from
//! how fast they usually are. The first useful answer is taken; what is no use (a failure, or "no such name" of a server that is not the
//! first) is kept in case nothing better comes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{sleep_until, timeout};

use crate::cache::Cache;
use crate::message::{self, Query};

/// Questions that are on their way at a time; more are refused, and their clients ask again.
const QUESTIONS: usize = 4096;
/// How long a question is asked before it is given up: what resolvers of C libraries wait.
const PATIENCE: Duration = Duration::from_secs(5);
/// The wait before a question is asked again: twice what servers took lately, within these.
const SHORTEST_WAIT_MS: u64 = 20;
const LONGEST_WAIT_MS: u64 = 250;
/// After so many times the wait grows.
const EAGER_ATTEMPTS: u32 = 9;
/// How long a first server may take to contradict another's "no such name".
const COURTESY: Duration = Duration::from_millis(100);
const DATAGRAM_BYTES: usize = 4096;
const STREAM_PATIENCE: Duration = Duration::from_secs(4);

/// How a question came, and so how it is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Datagram,
    Stream,
}

/// Asks servers outside, from the daemon's own network, and remembers what they said.
#[derive(Debug)]
pub struct Forwarder {
    cache: Cache,
    questions: Semaphore,
    /// What servers took lately, in microseconds, smoothed.
    round_trip_us: AtomicU64,
}

impl Default for Forwarder {
    fn default() -> Self {
        Self { cache: Cache::default(), questions: Semaphore::new(QUESTIONS), round_trip_us: AtomicU64::new(0) }
    }
}

impl Forwarder {
    /// The answer of one of the servers, under the client's id; none when nobody answered in time.
    pub(crate) async fn ask(&self, query: &Query<'_>, servers: &[SocketAddr], way: Way) -> Option<Vec<u8>> {
        let key = key(query, servers, way);
        if let Some(known) = self.cache.get(&key, query.id(), Instant::now()) {
            return Some(known);
        }
        let _permit = self.questions.try_acquire().ok()?;
        let mut answer = match way {
            Way::Datagram => self.by_datagram(query, servers).await?,
            Way::Stream => by_stream(query, servers).await?,
        };
        self.cache.put(key, &answer, Instant::now());
        answer[..2].copy_from_slice(&query.id());
        Some(answer)
    }

    async fn by_datagram(&self, query: &Query<'_>, servers: &[SocketAddr]) -> Option<Vec<u8>> {
        let mut question = query.bytes.to_vec();
        // Neither id nor port can be guessed by who does not see the question.
        let id = random_id();
        question[..2].copy_from_slice(&id);
        let sockets = Sockets::open(servers).await.ok()?;
        let started = tokio::time::Instant::now();
        let (mut attempt, mut next) = (0, started);
        let mut second_best: Option<Vec<u8>> = None;
        let mut answered = vec![false; servers.len()];
        loop {
            let now = tokio::time::Instant::now();
            let first_is_silent = !answered.first().copied().unwrap_or(true);
            let patience = if second_best.is_some() && first_is_silent { COURTESY } else { PATIENCE };
            if now >= started + patience || answered.iter().all(|answered| *answered) {
                return second_best;
            }
            if now >= next {
                sockets.send(&question, servers, &answered).await;
                attempt += 1;
                next = now + self.wait(attempt);
            }
            let received = tokio::select! {
                received = sockets.receive() => received,
                () = sleep_until(next.min(started + patience)) => continue,
            };
            let Some((answer, from)) = received else { continue };
            let Some(server) = servers.iter().position(|server| *server == from) else { continue };
            if !message::answers(&answer, id, query) {
                continue;
            }
            self.learn(started.elapsed(), attempt);
            answered[server] = true;
            match message::code(&answer) {
                message::NO_ERROR => return Some(answer),
                message::NO_SUCH_NAME if server == 0 => return Some(answer),
                message::NO_SUCH_NAME => second_best = Some(answer),
                _ => drop(second_best.get_or_insert(answer)),
            }
        }
    }

    fn wait(&self, attempt: u32) -> Duration {
        let usual_ms = self.round_trip_us.load(Ordering::Relaxed) * 2 / 1000;
        let wait_ms = usual_ms.clamp(SHORTEST_WAIT_MS, LONGEST_WAIT_MS);
        let grown = 1_u64 << attempt.saturating_sub(EAGER_ATTEMPTS).min(4);
        Duration::from_millis(wait_ms * grown)
    }

    /// Takes note of how long an answer took, if it is known to which question it came.
    fn learn(&self, took: Duration, attempt: u32) {
        if attempt > 1 {
            return;
        }
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).min(LONGEST_WAIT_MS * 1000);
        let before = self.round_trip_us.load(Ordering::Relaxed);
        let smoothed = if before == 0 { took } else { (before * 7 + took) / 8 };
        self.round_trip_us.store(smoothed, Ordering::Relaxed);
    }
}

/// One answer is good for all who ask the same of the same servers.
fn key(query: &Query<'_>, servers: &[SocketAddr], way: Way) -> Vec<u8> {
    let mut key = query.key();
    key.push(way as u8);
    for server in servers {
        key.extend_from_slice(server.to_string().as_bytes());
        key.push(0);
    }
    key
}

fn random_id() -> [u8; 2] {
    let mut id = [0; 2];
    // It blocks only before the machine has any randomness, and then the time will do.
    if rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::NONBLOCK) != Ok(2) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        id = (now.subsec_nanos() as u16).to_ne_bytes();
    }
    id
}

/// A socket of each family that a question needs.
struct Sockets {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
}

impl Sockets {
    async fn open(servers: &[SocketAddr]) -> io::Result<Self> {
        let open = async |any: IpAddr| UdpSocket::bind((any, 0)).await;
        let v4 = if servers.iter().any(SocketAddr::is_ipv4) {
            Some(open(Ipv4Addr::UNSPECIFIED.into()).await?)
        } else {
            None
        };
        // A host without IPv6 has servers that cannot be asked, and others that can.
        let v6 =
            if servers.iter().any(SocketAddr::is_ipv6) { open(Ipv6Addr::UNSPECIFIED.into()).await.ok() } else { None };
        Ok(Self { v4, v6 })
    }

    async fn send(&self, question: &[u8], servers: &[SocketAddr], answered: &[bool]) {
        for (server, _) in servers.iter().zip(answered).filter(|(_, answered)| !**answered) {
            let socket = if server.is_ipv4() { &self.v4 } else { &self.v6 };
            if let Some(socket) = socket {
                // What cannot be sent now may be sent the next time.
                let _ = socket.send_to(question, server).await;
            }
        }
    }

    async fn receive(&self) -> Option<(Vec<u8>, SocketAddr)> {
        let mut buffer = vec![0; DATAGRAM_BYTES];
        let mut other = vec![0; if self.v6.is_some() { DATAGRAM_BYTES } else { 0 }];
        let (length, from, from_v6) = tokio::select! {
            received = receive_from(self.v4.as_ref(), &mut buffer) => (received?.0, received?.1, false),
            received = receive_from(self.v6.as_ref(), &mut other) => (received?.0, received?.1, true),
        };
        let mut bytes = if from_v6 { other } else { buffer };
        bytes.truncate(length);
        Some((bytes, from))
    }
}

/// Waits for ever where there is no socket. An error is somebody's refusal of an earlier datagram.
async fn receive_from(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    match socket {
        Some(socket) => socket.recv_from(buffer).await.ok(),
        None => std::future::pending().await,
    }
}

/// One server after the other: a stream loses nothing.
async fn by_stream(query: &Query<'_>, servers: &[SocketAddr]) -> Option<Vec<u8>> {
    for server in servers {
        if let Ok(Ok(answer)) = timeout(STREAM_PATIENCE, ask_stream(query.bytes, *server)).await
            && message::answers(&answer, query.id(), query)
        {
            return Some(answer);
        }
    }
    None
}

async fn ask_stream(question: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&framed(question)).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// A message as a stream carries it: its length first.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    // Messages come from datagrams and streams and are never longer than 65,535 bytes.
    let mut bytes = (message.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    bytes
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::message::tests::{addresses, query};
    use crate::message::{A, Data, answer, refusal};

    /// A server that answers what `reply` makes of a question, and counts what comes.
    async fn server(
        reply: impl Fn(usize, &Query<'_>) -> Option<Vec<u8>> + Send + 'static,
    ) -> (SocketAddr, Arc<AtomicUsize>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        tokio::spawn(async move {
            let mut bytes = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut bytes).await {
                let number = counted.fetch_add(1, Ordering::SeqCst);
                if let Some(answer) = reply(number, &Query::parse(&bytes[..length]).unwrap()) {
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        (address, count)
    }

    fn here(query: &Query<'_>) -> Vec<u8> {
        answer(query, &[Data::Address(Ipv4Addr::LOCALHOST.into())], 512)
    }

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn a_question_is_asked_until_somebody_answers_and_then_remembered() {
        run(async {
            // The first two are lost.
            let (lossy, count) = server(|number, query| (number > 1).then(|| here(query))).await;
            let (dead, _) = server(|_, _| None).await;
            let forwarder = Forwarder::default();
            let bytes = query(7, "a.example", A, false);
            let asked = Query::parse(&bytes).unwrap();
            let answer = forwarder.ask(&asked, &[dead, lossy], Way::Datagram).await.unwrap();
            assert_eq!((addresses(&answer), &answer[..2]), (vec![Ipv4Addr::LOCALHOST], &[0, 7][..]));
            let seen = count.load(Ordering::SeqCst);
            forwarder.ask(&asked, &[dead, lossy], Way::Datagram).await.unwrap();
            assert_eq!(count.load(Ordering::SeqCst), seen);
        });
    }

    /// Three in ten datagrams never arrive, by a sequence that is always the same.
    fn is_lost(state: &AtomicU64) -> bool {
        let next = state.load(Ordering::Relaxed).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.store(next, Ordering::Relaxed);
        (next >> 33) % 10 < 3
    }

    #[test]
    #[allow(clippy::print_stdout, reason = "the figures are for SPECIFICATION.md")]
    fn lost_datagrams_keep_nobody_waiting() {
        const QUESTIONS: usize = 1000;
        run(async {
            let state = AtomicU64::new(1);
            let (lossy, count) = server(move |_, query| (!is_lost(&state)).then(|| here(query))).await;
            let forwarder = Forwarder::default();
            let mut took = Vec::new();
            for number in 0..QUESTIONS {
                let bytes = query(7, &format!("n{number}.example"), A, false);
                let began = Instant::now();
                let answer = forwarder.ask(&Query::parse(&bytes).unwrap(), &[lossy], Way::Datagram).await;
                took.push(began.elapsed());
                assert!(answer.is_some(), "question {number}");
            }
            took.sort();
            let lost = 1.0 - QUESTIONS as f64 / count.load(Ordering::SeqCst) as f64;
            let (median, p99) = (took[QUESTIONS / 2], took[QUESTIONS * 99 / 100]);
            println!("with {:.0} % of datagrams lost: median {median:?}, p99 {p99:?}", lost * 100.0);
        });
    }

    #[test]
    fn a_failure_is_taken_only_when_nobody_knows_better() {
        run(async {
            let (failing, _) = server(|_, query| Some(refusal(query, message::SERVER_FAILURE))).await;
            let (ignorant, _) = server(|_, query| Some(refusal(query, message::NO_SUCH_NAME))).await;
            let (knowing, _) = server(|number, query| (number > 0).then(|| here(query))).await;
            let forwarder = Forwarder::default();
            let bytes = query(7, "a.example", A, false);
            let asked = Query::parse(&bytes).unwrap();
            for servers in [[failing, knowing], [knowing, ignorant], [knowing, failing]] {
                let answer = forwarder.ask(&asked, &servers, Way::Datagram).await.unwrap();
                assert_eq!(message::code(&answer), message::NO_ERROR, "{servers:?}");
            }
            let answer = forwarder.ask(&asked, &[failing, ignorant], Way::Datagram).await.unwrap();
            assert_eq!(message::code(&answer), message::NO_SUCH_NAME);
            let answer = forwarder.ask(&asked, &[failing], Way::Datagram).await.unwrap();
            assert_eq!(message::code(&answer), message::SERVER_FAILURE);
        });
    }

    #[test]
    fn what_was_not_asked_is_no_answer() {
        run(async {
            let (forger, _) = server(|number, query| {
                let mut forged = here(query);
                if number == 0 {
                    forged[0] ^= 1;
                }
                Some(forged)
            })
            .await;
            let forwarder = Forwarder::default();
            let bytes = query(7, "a.example", A, false);
            let answer = forwarder.ask(&Query::parse(&bytes).unwrap(), &[forger], Way::Datagram).await.unwrap();
            assert_eq!(addresses(&answer), [Ipv4Addr::LOCALHOST]);
        });
    }
}
