//! A network with troubles between the engine and a real registry: what passes is waited out, what lies is refused.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::{Engine, EngineOptions, Host};

use crate::picture::{noise, tar_of};
use crate::registry_server::{RegistryServer, Settings};

const ADDRESS: &str = "127.0.0.1:5001";
/// Bytes of a body before its trouble begins: fewer than a configuration has.
const GOOD: usize = 200;

/// What happens to one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The body ends early, and the connection with it.
    Cut,
    /// Nothing follows for as long as anybody waits.
    Stall,
    /// One byte is another.
    Corrupt,
    /// It trickles.
    Slow,
    /// The registry is not even asked: a status, and whether it says when to come again.
    Status(u16, bool),
    /// It claims to be longer than it is.
    WrongLength,
    /// No length, and no end.
    Endless,
    /// Its digest, as the registry tells it, is another.
    WrongDigest,
    /// The client's own body is cut off on its way.
    CutUpload,
}

/// What is to go wrong: with the first of the requests that it is for, or with each.
#[derive(Debug, Clone, Copy)]
struct Plan {
    fault: Fault,
    /// The method, and a part of the path.
    of: (&'static str, &'static str),
    /// How often.
    times: u32,
}

/// A proxy before a registry; each connection carries one exchange.
struct Proxy {
    plan: Arc<Mutex<Option<Plan>>>,
    done: Arc<Mutex<u32>>,
}

impl Proxy {
    fn start(registry: &RegistryServer) -> Self {
        let proxy = Self { plan: Arc::default(), done: Arc::default() };
        let listener = TcpListener::bind(ADDRESS).unwrap();
        let (plan, done, upstream) = (Arc::clone(&proxy.plan), Arc::clone(&proxy.done), registry.address.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (plan, done, upstream) = (Arc::clone(&plan), Arc::clone(&done), upstream.clone());
                // Either side may leave when it likes.
                std::thread::spawn(move || exchange(&client.unwrap(), &upstream, &plan, &done).unwrap_or_default());
            }
        });
        proxy
    }

    fn set(&self, fault: Fault, of: (&'static str, &'static str), times: u32) {
        *self.plan.lock().unwrap() = Some(Plan { fault, of, times });
        *self.done.lock().unwrap() = 0;
    }

    /// How often it went wrong since the last call of `set`.
    fn done(&self) -> u32 {
        *self.done.lock().unwrap()
    }
}

fn next_fault(head: &str, plan: &Mutex<Option<Plan>>, done: &Mutex<u32>) -> Option<Fault> {
    let mut plan = plan.lock().unwrap();
    let due = plan.as_mut()?;
    let (method, target) = head.split_once(' ')?;
    let target = target.split(' ').next()?;
    if due.times == 0 || method != due.of.0 || !target.contains(due.of.1) {
        return None;
    }
    due.times -= 1;
    *done.lock().unwrap() += 1;
    Some(due.fault)
}

/// The head of a message, its last empty line included.
fn read_head(reader: &mut impl BufRead) -> std::io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

/// The head without a field, and with another in its place.
fn replaced(head: &str, name: &str, line: &str) -> String {
    let kept: String = head
        .trim_end()
        .split("\r\n")
        .filter(|line| !line.to_ascii_lowercase().starts_with(&format!("{name}:")))
        .map(|line| format!("{line}\r\n"))
        .collect();
    format!("{kept}{line}{}\r\n", if line.is_empty() { "" } else { "\r\n" })
}

fn exchange(
    mut client: &TcpStream,
    upstream: &str,
    plan: &Mutex<Option<Plan>>,
    done: &Mutex<u32>,
) -> std::io::Result<()> {
    let mut from_client = BufReader::new(client);
    let head = read_head(&mut from_client)?;
    let fault = next_fault(&head, plan, done);
    if let Some(Fault::Status(status, says_when)) = fault {
        let when = if says_when { "Retry-After: 1\r\n" } else { "" };
        let reply = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n{when}Content-Length: 0\r\n\r\n");
        client.write_all(reply.as_bytes())?;
        client.shutdown(Shutdown::Write)?;
        return std::io::copy(&mut from_client, &mut std::io::sink()).map(drop);
    }
    let server = TcpStream::connect(upstream)?;
    (&server).write_all(replaced(&head, "connection", "Connection: close").as_bytes())?;
    let mut to_server = server.try_clone()?;
    let mut body = BufReader::new(client.try_clone()?);
    let begun = from_client.buffer().to_vec();
    let cut_upload = fault == Some(Fault::CutUpload);
    let sender = client.try_clone()?;
    std::thread::spawn(move || {
        let _ = to_server.write_all(&begun);
        if cut_upload {
            let _ = std::io::copy(&mut body.take(GOOD as u64), &mut to_server);
            let _ = (to_server.shutdown(Shutdown::Both), sender.shutdown(Shutdown::Both));
        } else {
            let _ = std::io::copy(&mut body, &mut to_server);
        }
    });
    let mut from_server = BufReader::new(&server);
    let head = read_head(&mut from_server)?;
    let head = match fault {
        Some(Fault::WrongLength) => {
            let field = head.split("\r\n").find_map(|line| line.strip_prefix("Content-Length: "));
            let length: u64 = field.and_then(|length| length.parse().ok()).unwrap_or(0);
            replaced(&head, "content-length", &format!("Content-Length: {}", length + 10))
        }
        Some(Fault::Endless) => replaced(&head, "content-length", ""),
        Some(Fault::WrongDigest) => {
            replaced(&head, "docker-content-digest", &format!("Docker-Content-Digest: sha256:{}", "0".repeat(64)))
        }
        _ => head,
    };
    client.write_all(head.as_bytes())?;
    let mut body = from_server;
    match fault {
        Some(Fault::Cut) => std::io::copy(&mut body.take(GOOD as u64), &mut client)?,
        Some(Fault::Stall) => {
            std::io::copy(&mut (&mut body).take(GOOD as u64), &mut client)?;
            client.read(&mut [0])? as u64
        }
        Some(Fault::Corrupt) => {
            let mut bytes = Vec::new();
            body.read_to_end(&mut bytes)?;
            let last = bytes.len() - 1;
            bytes[last.min(GOOD)] ^= 1;
            std::io::copy(&mut bytes.as_slice(), &mut client)?
        }
        Some(Fault::Slow) => loop {
            let mut piece = [0; 4096];
            let count = body.read(&mut piece)?;
            if count == 0 {
                break 0;
            }
            client.write_all(&piece[..count])?;
            std::thread::sleep(Duration::from_millis(5));
        },
        Some(Fault::Endless) => std::io::copy(&mut body.chain(std::io::repeat(0)), &mut client)?,
        _ => std::io::copy(&mut body, &mut client)?,
    };
    client.shutdown(Shutdown::Both)
}

/// An engine, a registry that has `x:1` of it, a proxy before that, and the image's id.
fn pushed() -> (Engine, RegistryServer, Proxy, String) {
    let host = Host::new();
    let registry = RegistryServer::start(&host, Settings::default());
    let proxy = Proxy::start(&registry);
    let engine = Engine::start_in(host, EngineOptions::default());
    let tar = tar_of(&[("payload", &noise(1, 300_000))]);
    let id = engine.docker(["import", "-", &registry.name("x:1")]).input(tar).ok();
    engine.docker(["push", &registry.name("x:1")]).ok();
    engine.docker(["rmi", &registry.name("x:1")]).ok();
    (engine, registry, proxy, id)
}

const BLOB: (&str, &str) = ("GET", "/blobs/");
const MANIFEST: (&str, &str) = ("GET", "/manifests/");

#[test]
fn a_pull_outlasts_what_passes() {
    let (engine, registry, proxy, id) = pushed();
    let name = format!("{ADDRESS}/x:1");
    for (fault, of, times) in [
        (Fault::Status(429, true), MANIFEST, 2),
        (Fault::Status(429, false), BLOB, 2),
        (Fault::Status(503, false), MANIFEST, 1),
        (Fault::Status(500, false), BLOB, 2),
        (Fault::Cut, BLOB, 3),
        (Fault::Slow, BLOB, 9),
        // The last: the engine's patience has its time.
        (Fault::Stall, BLOB, 1),
    ] {
        proxy.set(fault, of, times);
        engine.docker(["pull", &name]).ok();
        assert!(proxy.done() > 0, "{fault:?} never happened");
        assert_eq!(engine.docker(["images", "-q", "--no-trunc", &name]).ok(), id, "{fault:?}");
        engine.docker(["rmi", &name]).ok();
        engine.docker(["image", "prune", "-af"]).ok();
    }
    drop(registry);
    engine.finish();
}

#[test]
fn a_pull_refuses_what_stays_or_lies() {
    let (engine, registry, proxy, id) = pushed();
    let name = format!("{ADDRESS}/x:1");
    for (fault, of, expected) in [
        (Fault::Status(404, false), BLOB, "unknown blob"),
        (Fault::Status(403, false), BLOB, "403 Forbidden"),
        (Fault::Corrupt, BLOB, "expected digest"),
        (Fault::Corrupt, MANIFEST, ""),
        (Fault::WrongLength, BLOB, "were announced"),
        (Fault::Endless, BLOB, "larger than"),
        (Fault::Endless, MANIFEST, "larger than"),
        (Fault::WrongDigest, ("HEAD", "/manifests/"), ""),
    ] {
        proxy.set(fault, of, u32::MAX);
        let refusal = engine.docker(["pull", &name]).run();
        assert!(proxy.done() > 0, "{fault:?} of {of:?} never happened");
        let text = refusal.error_text();
        assert!(refusal.code == 1 && text.contains(expected), "{fault:?} of {of:?}: {text}");
        assert_eq!(engine.docker(["images", "-aq"]).ok(), "", "{fault:?}");
    }
    proxy.set(Fault::Cut, BLOB, 0);
    engine.docker(["pull", &name]).ok();
    assert_eq!(engine.docker(["images", "-q", "--no-trunc", &name]).ok(), id);
    drop(registry);
    engine.finish();
}

#[test]
fn a_push_outlasts_what_passes() {
    let (engine, registry, proxy, _) = pushed();
    let name = format!("{ADDRESS}/y:1");
    for (number, (fault, of, times)) in [
        (Fault::Status(429, true), ("POST", "/uploads/"), 2),
        (Fault::Status(503, false), ("PUT", "/manifests/"), 2),
        (Fault::Status(500, false), ("HEAD", "/blobs/"), 1),
        (Fault::CutUpload, ("PATCH", "/uploads/"), 2),
        (Fault::Status(502, false), ("PATCH", "/uploads/"), 1),
        (Fault::Status(502, false), ("PUT", "/uploads/"), 1),
    ]
    .into_iter()
    .enumerate()
    {
        let tar = tar_of(&[("payload", &noise(10 + number as u64, 300_000))]);
        let id = engine.docker(["import", "-", &name]).input(tar).ok();
        proxy.set(fault, of, times);
        engine.docker(["push", &name]).ok();
        assert!(proxy.done() > 0, "{fault:?} of {of:?} never happened");
        engine.docker(["rmi", &name]).ok();
        engine.docker(["pull", &registry.name("y:1")]).ok();
        assert_eq!(engine.docker(["images", "-q", "--no-trunc", &registry.name("y:1")]).ok(), id, "{fault:?}");
        engine.docker(["rmi", &registry.name("y:1")]).ok();
    }
    let tar = tar_of(&[("payload", &noise(99, 300_000))]);
    engine.docker(["import", "-", &name]).input(tar).ok();
    proxy.set(Fault::Status(403, false), ("POST", "/uploads/"), u32::MAX);
    let refusal = engine.docker(["push", &name]).fails(1);
    assert!(refusal.contains("403 Forbidden"), "{refusal}");
    drop(registry);
    engine.finish();
}
