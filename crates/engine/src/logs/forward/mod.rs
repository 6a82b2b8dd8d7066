//! Log lines on their way to syslog, the journal, Graylog or Fluentd.
//!
//! The monitor writes every line to the local log first, whatever the driver, and knows nothing of sinks. A task here reads that log
//! behind it and sends; how far it came is remembered beside the log ([`spool`]), so a new engine goes on where the old one stopped.
//! A sink that is dead or slow keeps nobody waiting but this task; lines that rotation takes away meanwhile are counted. Lines arrive at
//! least once: what was sent and not acknowledged when a connection broke is sent again.

mod fluentd;
mod gelf;
mod journald;
mod record;
mod spool;
mod syslog;
mod transport;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use oci::ContainerId;
use tokio::sync::watch;

use super::follow::Watcher;
use super::tag;
use crate::containers::{ContainerRecord, Progress, log_path};
use crate::model::{EngineError, LogForwarding, LogSink};
use record::{Origin, Record};
use spool::Spool;
use transport::Transport;

/// The pause after a failure; it doubles up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How long the lines of a removed container may still be sent. Docker's time for closing a driver.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How often the log is looked at where the kernel has no watch to give.
const POLL: Duration = Duration::from_secs(1);

/// The forwarders of all containers.
#[derive(Debug, Default)]
pub(crate) struct Forwarders {
    known: Mutex<HashMap<ContainerId, Known>>,
}

/// What is known of a container's lines.
#[derive(Debug, Default)]
struct Known {
    told: Arc<Mutex<LogForwarding>>,
    /// Whether they are being sent; lines are lost without that as well.
    is_sent: bool,
}

impl Forwarders {
    /// Begins to send a container's lines, unless that is being done. Opens the log before it returns: a container may be gone soon.
    pub(crate) fn start(
        &self,
        record: &ContainerRecord,
        folder: &Path,
        progress: watch::Receiver<Progress>,
        closing: watch::Receiver<bool>,
    ) -> Result<(), EngineError> {
        let Some(sink) = record.spec.log.sink()? else { return Ok(()) };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(&record.id).is_some_and(|known| known.is_sent) {
            return Ok(());
        }
        let path = log_path(record, folder);
        let spool = Spool::open(&path, record.spec.log.max_files()?)
            .map_err(|error| EngineError::system("cannot open the log to send it", error))?;
        let entry = known.entry(record.id.clone()).or_default();
        entry.is_sent = true;
        let told = Arc::clone(&entry.told);
        let watcher = Watcher::new(&path).ok().flatten();
        let sender = Sender { sink, origin: origin(record)?, transport: None, zone: TimeZone::system() };
        let name = record.name.to_string();
        tokio::spawn(Forwarder { name, spool, watcher, sender, progress, closing, told, failing: None }.run());
        Ok(())
    }

    /// How sending goes, and what was lost; none for containers whose lines stay here and are all there.
    pub(crate) fn state(&self, id: &ContainerId) -> Option<LogForwarding> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(id).map(|known| known.told.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// A monitor says how many lines it could not write since the container started.
    pub(crate) fn lost_before_writing(&self, id: &ContainerId, lines: u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.entry(id.clone()).or_default();
        known.told.lock().unwrap_or_else(PoisonError::into_inner).unwritten = lines;
    }

    /// Forgets a container that is gone; its last words may still be on their way.
    pub(crate) fn forget(&self, id: &ContainerId) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

fn origin(record: &ContainerRecord) -> Result<Origin, EngineError> {
    let template = record.spec.log.options.get("tag").filter(|tag| !tag.is_empty());
    Ok(Origin {
        id: record.id.to_string(),
        name: record.name.to_string(),
        image_id: record.image_id.to_string(),
        image_name: record.spec.image.clone(),
        command: record.command.join(" "),
        created: Some(record.created),
        hostname: tag::hostname(),
        tag: tag::render(template.map_or(tag::DEFAULT_TAG, String::as_str), record)?,
        extra: record.spec.log.chosen(&record.spec.labels, &record.spec.env)?,
    })
}

/// Sends one container's lines.
struct Forwarder {
    name: String,
    spool: Spool,
    watcher: Option<Watcher>,
    sender: Sender,
    progress: watch::Receiver<Progress>,
    closing: watch::Receiver<bool>,
    told: Arc<Mutex<LogForwarding>>,
    /// While it fails: how long to wait next.
    failing: Option<Duration>,
}

/// Why waiting ended.
#[derive(Debug, PartialEq, Eq)]
enum Woken {
    /// There may be something to do.
    Look,
    /// The engine closes.
    Closing,
}

impl Forwarder {
    async fn run(mut self) {
        self.tell();
        loop {
            // Looked at before reading: the monitor has written everything before its end is known.
            let is_gone = self.is_gone();
            match self.spool.next() {
                Ok(batch) if batch.records.is_empty() => {
                    if is_gone || self.idle().await == Woken::Closing {
                        return;
                    }
                }
                Ok(batch) => {
                    if !self.deliver(&batch).await {
                        return;
                    }
                }
                Err(error) => {
                    self.failed("cannot read the log", &error);
                    if is_gone || self.pause().await == Woken::Closing {
                        return;
                    }
                }
            }
        }
    }

    /// Sends a batch however long it takes; false when sending is over.
    async fn deliver(&mut self, batch: &spool::Batch) -> bool {
        let mut deadline = None;
        loop {
            match self.sender.send(&batch.records).await {
                Ok(refused) => {
                    self.spool.commit(batch, refused);
                    self.failing = None;
                    self.tell();
                    return true;
                }
                Err(error) => self.failed("cannot send to the sink", &error),
            }
            if self.is_gone() && Instant::now() > *deadline.get_or_insert_with(|| Instant::now() + LAST_WORDS) {
                self.give_up();
                return false;
            }
            if self.pause().await == Woken::Closing {
                return false;
            }
            match self.spool.give_up_doomed() {
                Ok(false) => {}
                Ok(true) => {
                    tracing::warn!("container {}: log lines were rotated away before the sink took them", self.name);
                    self.tell();
                    return true;
                }
                Err(error) => self.failed("cannot read the log", &error),
            }
        }
    }

    fn give_up(&mut self) {
        let before = self.spool.state().dropped;
        let _counted_as_far_as_it_goes = self.spool.give_up();
        let lost = self.spool.state().dropped - before;
        tracing::warn!("container {} is gone, and {lost} of its log lines were never sent", self.name);
        self.tell();
    }

    fn is_gone(&self) -> bool {
        self.progress.has_changed().is_err() || self.progress.borrow().removed
    }

    /// Waits for something to send.
    async fn idle(&mut self) -> Woken {
        let changed = async {
            match &self.watcher {
                Some(watcher) => drop(watcher.changed().await),
                None => tokio::time::sleep(POLL).await,
            }
        };
        tokio::select! {
            () = changed => Woken::Look,
            _ = self.progress.changed() => Woken::Look,
            _ = self.closing.wait_for(|closing| *closing) => Woken::Closing,
        }
    }

    /// Waits before the next try.
    async fn pause(&mut self) -> Woken {
        let pause = self.failing.unwrap_or(FIRST_PAUSE);
        self.failing = Some((pause * 2).min(LONGEST_PAUSE));
        tokio::select! {
            () = tokio::time::sleep(pause) => Woken::Look,
            _ = self.closing.wait_for(|closing| *closing) => Woken::Closing,
        }
    }

    /// Told when it begins, not again while it lasts.
    fn failed(&self, what: &str, error: &io::Error) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.error.is_none() {
            tracing::warn!("container {}: log: {what}: {error}", self.name);
        }
        told.error = Some(format!("{what}: {error}"));
    }

    fn tell(&self) {
        let state = self.spool.state();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let unwritten = told.unwritten;
        *told = LogForwarding { sent: state.sent, dropped: state.dropped, unwritten, gaps: state.gaps, error: None };
    }
}

/// A sink, and the way to it while there is one.
struct Sender {
    sink: LogSink,
    origin: Origin,
    transport: Option<Transport>,
    zone: TimeZone,
}

impl Sender {
    /// Sends records in order; how many of them the sink can never take.
    async fn send(&mut self, records: &[Record]) -> io::Result<u64> {
        let sent = self.try_send(records).await;
        if sent.is_err() {
            self.transport = None;
        }
        sent
    }

    async fn try_send(&mut self, records: &[Record]) -> io::Result<u64> {
        if self.transport.as_ref().is_some_and(|open| open.check().is_err()) {
            self.transport = None;
        }
        let transport = match &mut self.transport {
            Some(transport) => transport,
            none => none.insert(connect(&self.sink).await?),
        };
        let (mut refused, mut stream) = (0, Vec::new());
        for record in records {
            match encode(&self.sink, record, &self.origin, &self.zone, transport.is_datagram()) {
                Message::TooLarge => refused += 1,
                Message::Stream(bytes) => stream.extend_from_slice(&bytes),
                Message::Acknowledged(bytes, chunk) => {
                    transport.send(&bytes).await?;
                    transport.wait_for(chunk.as_bytes()).await?;
                }
                Message::Datagrams(datagrams) => {
                    for datagram in datagrams {
                        match transport.send(&datagram).await {
                            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) => {
                                refused += 1;
                                break;
                            }
                            sent => sent?,
                        }
                    }
                }
            }
        }
        if !stream.is_empty() {
            transport.send(&stream).await?;
        }
        Ok(refused)
    }
}

async fn connect(sink: &LogSink) -> io::Result<Transport> {
    match sink {
        LogSink::Journald => Transport::connect(&crate::model::Endpoint::UnixDatagram(journald::SOCKET.into())).await,
        LogSink::Syslog(syslog) => match &syslog.endpoint {
            Some(endpoint) => Transport::connect(endpoint).await,
            None => Transport::local_syslog().await,
        },
        LogSink::Gelf(gelf) => Transport::connect(&gelf.endpoint).await,
        LogSink::Fluentd(fluentd) => Transport::connect(&fluentd.endpoint).await,
    }
}

/// A record as its sink wants it.
enum Message {
    /// A part of a stream of such.
    Stream(Vec<u8>),
    /// The next one waits until this one's chunk is acknowledged.
    Acknowledged(Vec<u8>, String),
    Datagrams(Vec<Vec<u8>>),
    TooLarge,
}

fn encode(sink: &LogSink, record: &Record, origin: &Origin, zone: &TimeZone, by_datagram: bool) -> Message {
    match sink {
        LogSink::Journald => Message::Datagrams(vec![journald::entry(record, origin)]),
        LogSink::Syslog(syslog) => {
            let message = syslog::message(record, origin, syslog, zone, std::process::id());
            let is_rfc5424 =
                matches!(syslog.format, crate::model::SyslogFormat::Rfc5424 | crate::model::SyslogFormat::Rfc5424Micro);
            match (by_datagram, &syslog.endpoint) {
                (true, _) => Message::Datagrams(vec![message]),
                (false, Some(crate::model::Endpoint::Tls(..))) if is_rfc5424 => {
                    Message::Stream(syslog::framed(&message))
                }
                (false, _) => Message::Stream(message),
            }
        }
        LogSink::Gelf(gelf) => {
            let mut message = gelf::message(record, origin);
            if by_datagram {
                return match gelf::datagrams(&message, gelf, crate::random_bytes()) {
                    Some(datagrams) => Message::Datagrams(datagrams),
                    None => Message::TooLarge,
                };
            }
            message.push(0);
            Message::Stream(message)
        }
        LogSink::Fluentd(fluentd) if fluentd.request_ack => {
            let chunk = crate::random_name::<16>();
            Message::Acknowledged(fluentd::message(record, origin, fluentd, Some(&chunk)), chunk)
        }
        LogSink::Fluentd(fluentd) => Message::Stream(fluentd::message(record, origin, fluentd, None)),
    }
}
