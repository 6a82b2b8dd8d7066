//! Who asked for what, and what came of it: one line of JSON a request.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::Method;
use serde::Serialize;

use crate::gone::{Peer, PeerIdentity};
use crate::reply::Reply;

/// A file that only grows. Whoever rotates it copies and truncates: it is written by appending.
#[derive(Debug)]
pub struct AuditLog(Mutex<File>);

/// One request.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    time: String,
    socket: &'a str,
    peer: PeerIdentity,
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    query: &'a str,
    status: u16,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    milliseconds: u128,
}

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
}

/// A message that travels with a refusal, for the log.
#[derive(Debug, Clone)]
pub(crate) struct Refusal(pub(crate) String);

impl AuditLog {
    /// Opens the file, or makes it for root alone.
    pub fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(|file| Self(Mutex::new(file)))
    }

    /// Writes down a request that was answered.
    pub(crate) fn write(&self, socket: &str, peer: &Peer, asked: &Asked, reply: &Reply, took: Duration) {
        let entry = Entry {
            time: jiff::Timestamp::now().to_string(),
            socket,
            peer: peer.identity(),
            method: asked.method.as_str(),
            path: &asked.path,
            query: &asked.query,
            status: reply.status().as_u16(),
            message: reply.extensions().get::<Refusal>().map(|refusal| refusal.0.as_str()),
            milliseconds: took.as_millis(),
        };
        let mut line = serde_json::to_vec(&entry).unwrap_or_default();
        line.push(b'\n');
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(&line) {
            tracing::error!("cannot write the audit log: {error}");
        }
    }
}
