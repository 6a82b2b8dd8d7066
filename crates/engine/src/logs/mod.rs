//! Reading a container's log: Docker's json-file, its rotated and compressed predecessors, and what is still to come.
//!
//! ```text
//! <container dir>/<id>-json.log        the live file; the monitor appends to it
//!                 <id>-json.log.1.gz   the newest of the rotated ones (or .1 when they are not compressed)
//! ```
//!
//! The past is read on a blocking thread, the future by an async task that inotify wakes. Readers never ask the monitor.

mod follow;
mod forward;
mod line;
mod past;
mod tag;

use std::path::PathBuf;

use tokio::sync::{mpsc, watch};

use crate::containers::{ContainerRecord, Progress, log_path};
use crate::engine::{Engine, blocking};
use crate::model::{EngineError, LogEntry, LogForwarding, LogQuery};

pub(crate) use forward::Forwarders;
pub(crate) use line::attributes;
pub(crate) use tag::check_tag;

/// Lines that may wait for a client; a slow one slows its own reader only.
const QUEUE_LENGTH: usize = 256;

/// A container's log lines.
#[derive(Debug)]
pub struct LogStream {
    /// Whether the container has a terminal: then its lines are sent raw.
    pub tty: bool,
    /// The lines; ends with the log, or with the container when following.
    pub entries: mpsc::Receiver<Result<LogEntry, EngineError>>,
}

/// Where lines go; false ends the reading.
type Sink = mpsc::Sender<Result<LogEntry, EngineError>>;

impl Engine {
    /// Its log.
    pub async fn container_logs(&self, reference: &str, query: LogQuery) -> Result<LogStream, EngineError> {
        let handle = self.inner.index.find(reference)?;
        let record = handle.record();
        if !query.stdout && !query.stderr {
            return Err(EngineError::invalid("Bad parameters: you must choose at least one stream"));
        }
        if !record.spec.log.is_readable() {
            return Err(EngineError::not_implemented("configured logging driver does not support reading"));
        }
        let path = log_path(&record, &self.inner.container_dir(&record.id));
        let (sink, entries) = mpsc::channel(QUEUE_LENGTH);
        let progress = handle.watch();
        tokio::spawn(read(path, query, progress, sink));
        Ok(LogStream { tty: record.spec.tty, entries })
    }

    /// How its lines fare on their way to a sink; none where its driver has none.
    pub fn container_log_forwarding(&self, id: &oci::ContainerId) -> Option<LogForwarding> {
        self.inner.forwarders.state(id)
    }

    /// What the log holds now, for `attach` with `logs`.
    pub(crate) async fn log_so_far(
        &self,
        record: &ContainerRecord,
        query: LogQuery,
    ) -> mpsc::Receiver<Result<LogEntry, EngineError>> {
        let path = log_path(record, &self.inner.container_dir(&record.id));
        let (sink, entries) = mpsc::channel(QUEUE_LENGTH);
        tokio::spawn(async move {
            read_past(path, query, sink).await;
        });
        entries
    }
}

async fn read(path: PathBuf, query: LogQuery, progress: watch::Receiver<Progress>, sink: Sink) {
    // Watching begins before reading, so that no change between the two is missed.
    let follow = query.follow && progress.borrow().running;
    let watcher = if follow { follow::Watcher::new(&path) } else { Ok(None) };
    let at = read_past(path.clone(), query.clone(), sink.clone()).await;
    match (watcher, at) {
        (Ok(Some(watcher)), Some(at)) => follow::follow(watcher, at, &query, progress, &sink).await,
        (Err(error), _) => drop(sink.send(Err(EngineError::system("cannot watch the log", error))).await),
        _ => {}
    }
}

/// Reads what is there; returns where it stopped, or none when there is nothing more to do.
async fn read_past(path: PathBuf, query: LogQuery, sink: Sink) -> Option<follow::Position> {
    let errors = sink.clone();
    let result = blocking(move || {
        past::read(&path, &query, &sink).map_err(|error| EngineError::system("cannot read the log", error))
    })
    .await;
    match result {
        Ok(position) => position,
        Err(error) => {
            let _ = errors.send(Err(error)).await;
            None
        }
    }
}

/// `<path>.<suffix>`
fn suffixed(path: &std::path::Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}
