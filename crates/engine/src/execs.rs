//! Execs: processes added to running containers.
//!
//! An exec is known from its creation until five minutes after its end. The monitor runs it and keeps its exit on disk; here is what
//! inspect shows, and who may start it.

use std::collections::HashMap;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use monitor_protocol::{
    Attach, AttachId, Exec, ExecId, FailureKind, FdIndex, Framing, Identity, KillScope, Request, Response, RunningExec,
    StdinMode, Stdio, Streams, Target, WindowSize,
};
use oci::ContainerId;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;

use crate::containers::{Handle, limited, monitor_error};
use crate::engine::Engine;
use crate::model::{AttachTarget, EngineError, ExecSpec, ExecState, ExecView, StreamFraming, TerminalSize};
use crate::monitors::MonitorError;
use crate::store::Change;

/// How long an exec that has ended can be inspected, as with Docker.
const KEPT: Duration = Duration::from_secs(300);
/// Execs that are known at once; a client that creates without starting stops here.
const MAX_EXECS: usize = 10_000;
/// How long a monitor may take to start one.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How much of a probe's output is kept.
const PROBE_OUTPUT: usize = 4096;
/// The exit code of an exec whose end nobody saw.
const UNSEEN_EXIT_CODE: i32 = 137;
const RECORD_VERSION: u32 = 1;

/// All execs.
#[derive(Debug, Default)]
pub(crate) struct Execs {
    known: RwLock<HashMap<String, Arc<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    view: ArcSwap<ExecView>,
    claimed: AtomicBool,
    /// The exit code and when it was heard of.
    ended: watch::Sender<Option<(i32, Instant)>>,
}

/// What the database keeps of an exec.
#[derive(Debug, Serialize, Deserialize)]
struct ExecRecord {
    version: u32,
    id: String,
    container: ContainerId,
    spec: ExecSpec,
}

/// An exec that is to be started: answer the client, then [`PendingExec::start`].
#[derive(Debug)]
pub struct PendingExec {
    framing: StreamFraming,
    engine: Engine,
    handle: Arc<Handle>,
    entry: Arc<Entry>,
    size: Option<TerminalSize>,
}

impl PendingExec {
    /// Starts it connected to the client. Returns when it runs or has failed; a failure has been written into the stream, as Docker
    /// does. The streams go on by themselves.
    pub async fn start(self, target: AttachTarget) -> Result<(), EngineError> {
        let spec = Arc::clone(&self.entry.view.load().spec);
        let complaint =
            target.socket.try_clone().map_err(|error| EngineError::system("cannot keep the client's socket", error))?;
        let attach = Attach {
            id: AttachId(u64::from_le_bytes(crate::random_bytes())),
            target: Target::Container,
            socket: FdIndex(0),
            streams: Streams { stdin: spec.attach_stdin, stdout: spec.attach_stdout, stderr: spec.attach_stderr },
            framing: match self.framing {
                StreamFraming::Raw => Framing::Raw,
                StreamFraming::Multiplexed => Framing::Multiplexed,
            },
            detach_keys: if spec.tty {
                spec.detach_keys.clone().unwrap_or_default().into_protocol()
            } else {
                monitor_protocol::DetachKeys::NONE
            },
            early_input: target.early_input.to_vec(),
        };
        let result =
            self.engine.run_exec(&self.handle, &self.entry, vec![attach], vec![target.socket], self.size).await;
        if let Err(error) = &result {
            complain(complaint, self.framing, error.message());
        }
        result
    }
}

/// Writes why an exec did not start where its output would have been. A client that does not read it does not matter.
fn complain(socket: OwnedFd, framing: StreamFraming, message: &str) {
    let mut socket = UnixStream::from(socket);
    let text = format!("{message}\r\n");
    let mut bytes = Vec::with_capacity(text.len() + 8);
    if framing == StreamFraming::Multiplexed {
        bytes.extend_from_slice(&[1, 0, 0, 0]);
        bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    }
    bytes.extend_from_slice(text.as_bytes());
    let _ = socket.set_nonblocking(true);
    let _ = socket.write_all(&bytes);
}

impl Execs {
    fn find(&self, id: &str) -> Result<Arc<Entry>, EngineError> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(id).cloned().ok_or_else(|| EngineError::no_such_exec(id))
    }

    fn insert(&self, view: ExecView) -> Result<Arc<Entry>, EngineError> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_EXECS {
            return Err(EngineError::unavailable(format!("too many execs: {MAX_EXECS}")));
        }
        let id = view.id.clone();
        let claimed = AtomicBool::new(view.state != ExecState::Created);
        let entry = Arc::new(Entry { view: ArcSwap::from_pointee(view), claimed, ended: watch::Sender::new(None) });
        known.insert(id, Arc::clone(&entry));
        Ok(entry)
    }

    /// Ids of a container's running execs.
    pub(crate) fn running_of(&self, container: &ContainerId) -> Vec<String> {
        let entries = self.of(container);
        let running = entries
            .iter()
            .map(|entry| entry.view.load_full())
            .filter(|view| matches!(view.state, ExecState::Running { .. }));
        running.map(|view| view.id.clone()).collect()
    }

    fn of(&self, container: &ContainerId) -> Vec<Arc<Entry>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.values().filter(|entry| entry.view.load().container == *container).cloned().collect()
    }

    /// Removes what ended long ago, and says what that was.
    fn sweep(&self) -> Vec<String> {
        let old = |entry: &Entry| entry.ended.borrow().is_some_and(|(_, at)| at.elapsed() > KEPT);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<String> = known.iter().filter(|(_, entry)| old(entry)).map(|(id, _)| id.clone()).collect();
        for id in &gone {
            known.remove(id);
        }
        gone
    }
}

impl Entry {
    fn set(&self, state: ExecState) {
        let view = ExecView { state, ..ExecView::clone(&self.view.load()) };
        self.view.store(Arc::new(view));
    }

    /// The start's answer; an end that was heard of before stays.
    fn started(&self, pid: i32) {
        if self.ended.borrow().is_none() {
            self.set(ExecState::Running { pid });
        }
    }

    fn end(&self, code: i32) {
        let pid = match self.view.load().state {
            ExecState::Running { pid } | ExecState::Exited { pid, .. } => pid,
            ExecState::Created => 0,
        };
        self.set(ExecState::Exited { code, pid });
        self.ended.send_replace(Some((code, Instant::now())));
    }
}

impl Engine {
    /// Prepares a process; returns its id.
    pub async fn create_exec(&self, container: &str, spec: ExecSpec) -> Result<String, EngineError> {
        let handle = self.inner.index.find(container)?;
        handle.running_unpaused(container)?;
        if spec.command.is_empty() {
            return Err(EngineError::invalid("No exec command specified"));
        }
        if !spec.working_dir.is_empty() && !spec.working_dir.starts_with('/') {
            return Err(EngineError::invalid(format!(
                "the working directory '{}' is invalid, it needs to be an absolute path",
                spec.working_dir
            )));
        }
        let id = oci::ContainerId::from_random(crate::random_bytes()).to_string();
        self.add_exec(&handle, id.clone(), spec)?;
        Ok(id)
    }

    fn add_exec(&self, handle: &Handle, id: String, spec: ExecSpec) -> Result<Arc<Entry>, EngineError> {
        for gone in self.inner.execs.sweep() {
            self.inner.store.write_behind(Change::RemoveExec { id: gone });
        }
        let record =
            ExecRecord { version: RECORD_VERSION, id: id.clone(), container: handle.id.clone(), spec: spec.clone() };
        let text = serde_json::to_string(&record)
            .map_err(|error| EngineError::system("cannot write the exec's record", error))?;
        self.inner.store.write_behind(Change::PutExec {
            id: id.clone(),
            container: handle.id.to_string(),
            record: text,
        });
        let command = spec.command.join(" ");
        let entry = self.inner.execs.insert(new_view(id.clone(), handle.id.clone(), spec))?;
        self.tell_container(&handle.record(), &format!("exec_create: {command}"), &[("execID", &id)]);
        Ok(entry)
    }

    /// An exec by id.
    pub fn exec(&self, id: &str) -> Result<Arc<ExecView>, EngineError> {
        self.inner.execs.find(id).map(|entry| entry.view.load_full())
    }

    /// Checks what must be an HTTP status before the client is answered.
    pub async fn prepare_exec(
        &self,
        id: &str,
        framing: StreamFraming,
        console_size: Option<TerminalSize>,
    ) -> Result<PendingExec, EngineError> {
        let (entry, handle) = self.startable(id)?;
        Ok(PendingExec { framing, engine: self.clone(), handle, entry, size: console_size })
    }

    /// Starts an exec without a client.
    pub async fn start_exec_detached(&self, id: &str, console_size: Option<TerminalSize>) -> Result<(), EngineError> {
        let (entry, handle) = self.startable(id)?;
        self.run_exec(&handle, &entry, Vec::new(), Vec::new(), console_size).await
    }

    fn startable(&self, id: &str) -> Result<(Arc<Entry>, Arc<Handle>), EngineError> {
        let entry = self.inner.execs.find(id)?;
        let handle =
            self.inner.index.find(entry.view.load().container.as_str()).map_err(|_| EngineError::no_such_exec(id))?;
        handle.running_unpaused(handle.id.as_str())?;
        Ok((entry, handle))
    }

    async fn run_exec(
        &self,
        handle: &Handle,
        entry: &Entry,
        attaches: Vec<Attach>,
        fds: Vec<OwnedFd>,
        size: Option<TerminalSize>,
    ) -> Result<(), EngineError> {
        let view = entry.view.load_full();
        if entry.claimed.swap(true, Ordering::AcqRel) {
            return Err(EngineError::conflict(format!("Error: Exec command {} has already run", view.id)));
        }
        let live = handle.running_unpaused(handle.id.as_str())?;
        let record = handle.record();
        let mut container = std::borrow::Cow::Borrowed(&record.spec);
        let linked = crate::containers::links::environment(&self.inner, &record, &handle.view());
        if !linked.is_empty() {
            container.to_mut().env.splice(..0, linked);
        }
        let mut process = crate::spec::exec_process(&container, &record.hostname, &self.inner.host.spec, &view.spec);
        let size = size.or(view.spec.console_size).filter(|size| size.height > 0 && size.width > 0);
        process.console_size =
            size.map(|size| oci::runtime::ConsoleSize { height: size.height.into(), width: size.width.into() });
        let exec = Exec {
            id: ExecId(view.id.clone()),
            process: Box::new(process),
            identity: Identity::Lookup { groups: record.spec.group_add.clone() },
            stdio: stdio(&view.spec, size),
            attaches,
        };
        self.tell_container(&record, &format!("exec_start: {}", view.spec.command.join(" ")), &[("execID", &view.id)]);
        let request = live.connection.request(Request::Exec(Box::new(exec)), fds);
        match tokio::time::timeout(START_LIMIT, request).await {
            Ok(Ok(Response::ExecStarted { pid, .. })) => {
                entry.started(pid);
                Ok(())
            }
            Ok(Ok(_)) => Err(self.exec_failed(
                entry,
                126,
                EngineError::unavailable("the container's monitor gave a wrong answer"),
            )),
            Ok(Err(error)) => Err(self.exec_failed(entry, failure_code(&error), exec_error(error))),
            Err(_) => Err(self.exec_failed(entry, 126, EngineError::unavailable("the exec did not start in time"))),
        }
    }

    fn exec_failed(&self, entry: &Entry, code: i32, error: EngineError) -> EngineError {
        entry.end(code);
        error
    }

    /// Resizes an exec's terminal.
    pub async fn resize_exec(&self, id: &str, size: TerminalSize) -> Result<(), EngineError> {
        let (entry, handle) = self.startable(id)?;
        if !matches!(entry.view.load().state, ExecState::Running { .. }) {
            return Err(EngineError::conflict(format!("exec process {id} is not running")));
        }
        if !entry.view.load().spec.tty {
            return Ok(());
        }
        let live = handle.running()?;
        let size = WindowSize { height: size.height, width: size.width };
        let request = Request::Resize { target: Target::Exec(ExecId(id.to_owned())), size };
        limited(live.connection.request(request, Vec::new())).await.map(|_| ())
    }

    /// The monitor says that an exec has ended.
    pub(crate) fn exec_exited(&self, handle: &Handle, id: &str, code: i32) {
        let Ok(entry) = self.inner.execs.find(id) else { return };
        entry.end(code);
        self.tell_container(&handle.record(), "exec_die", &[("execID", id), ("exitCode", &code.to_string())]);
    }

    /// The container has ended, and with it all of its execs.
    pub(crate) fn end_execs_of(&self, container: &ContainerId) {
        for entry in self.inner.execs.of(container) {
            if matches!(entry.view.load().state, ExecState::Running { .. }) {
                entry.end(UNSEEN_EXIT_CODE);
            }
        }
    }

    /// Makes the execs of the database known. What became of them is told by [`Engine::take_over_execs`].
    pub(crate) fn restore_execs(&self, records: &[String]) {
        for text in records {
            match serde_json::from_str::<ExecRecord>(text) {
                Ok(record) if record.version == RECORD_VERSION => {
                    let _ = self.inner.execs.insert(new_view(record.id, record.container, record.spec));
                }
                _ => tracing::warn!("an exec's record cannot be read and is forgotten"),
            }
        }
    }

    /// After a restart: those that the monitor names run, those with a record on disk have ended, the others were never started.
    pub(crate) fn take_over_execs(&self, handle: &Handle, running: &[RunningExec]) {
        let folder = self.inner.container_dir(&handle.id);
        for entry in self.inner.execs.of(&handle.id) {
            let id = entry.view.load().id.clone();
            if let Some(exec) = running.iter().find(|exec| exec.id.0 == id) {
                entry.claimed.store(true, Ordering::Release);
                entry.started(exec.pid);
            } else if let Some(code) = crate::containers::find_exec_exit(&folder, &id) {
                entry.claimed.store(true, Ordering::Release);
                entry.end(code);
            }
        }
    }

    /// Runs a healthcheck's command; its exit code and the beginning of its output.
    pub(crate) async fn probe(&self, handle: &Handle, command: &[String], timeout: Duration) -> (i32, String) {
        match tokio::time::timeout(timeout, self.try_probe(handle, command)).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => (-1, error.message().to_owned()),
            Err(_) => (-1, format!("Health check exceeded timeout ({timeout:?})")),
        }
    }

    async fn try_probe(&self, handle: &Handle, command: &[String]) -> Result<(i32, String), EngineError> {
        let wrong = |error| EngineError::system("cannot watch the health check", error);
        let (ours, theirs) = UnixStream::pair().map_err(wrong)?;
        ours.set_nonblocking(true).map_err(wrong)?;
        let mut output = tokio::net::UnixStream::from_std(ours).map_err(wrong)?;
        let id = oci::ContainerId::from_random(crate::random_bytes()).to_string();
        let spec =
            ExecSpec { command: command.to_vec(), attach_stdout: true, attach_stderr: true, ..ExecSpec::default() };
        let entry = self.add_exec(handle, id.clone(), spec)?;
        let mut ended = entry.ended.subscribe();
        let cancelled = KillOnDrop { handle, id: &id, armed: true };
        let attach = Attach {
            id: AttachId(u64::from_le_bytes(crate::random_bytes())),
            target: Target::Container,
            socket: FdIndex(0),
            streams: Streams::OUTPUT,
            framing: Framing::Raw,
            detach_keys: monitor_protocol::DetachKeys::NONE,
            early_input: Vec::new(),
        };
        self.run_exec(handle, &entry, vec![attach], vec![OwnedFd::from(theirs)], None).await?;
        let text = read_beginning(&mut output).await;
        let code = ended.wait_for(Option::is_some).await.ok().and_then(|ended| *ended).map_or(-1, |(code, _)| code);
        cancelled.disarm();
        Ok((code, text))
    }
}

/// Ends a probe that takes too long.
struct KillOnDrop<'a> {
    handle: &'a Handle,
    id: &'a str,
    armed: bool,
}

impl KillOnDrop<'_> {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for KillOnDrop<'_> {
    fn drop(&mut self) {
        if let (true, Some(live)) = (self.armed, self.handle.live()) {
            let scope = KillScope::Exec(ExecId(self.id.to_owned()));
            live.connection.tell(Request::Kill { signal: monitor_protocol::Signal(9), scope });
        }
    }
}

/// Reads to the end and keeps the beginning.
async fn read_beginning(output: &mut tokio::net::UnixStream) -> String {
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        let room = PROBE_OUTPUT - kept.len();
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

fn new_view(id: String, container: ContainerId, spec: ExecSpec) -> ExecView {
    ExecView {
        id,
        container,
        entrypoint: spec.command.first().cloned().unwrap_or_default(),
        arguments: spec.command.get(1..).unwrap_or_default().to_vec(),
        spec: Arc::new(spec),
        state: ExecState::Created,
    }
}

fn stdio(spec: &ExecSpec, size: Option<TerminalSize>) -> Stdio {
    let stdin = if spec.attach_stdin { StdinMode::Once } else { StdinMode::Null };
    if spec.tty {
        Stdio::Terminal { stdin, size: size.map(|size| WindowSize { height: size.height, width: size.width }) }
    } else {
        Stdio::Pipes { stdin }
    }
}

fn failure_code(error: &MonitorError) -> i32 {
    match error.kind() {
        Some(FailureKind::NotFound) => 127,
        _ => 126,
    }
}

/// Docker's beginning of the message, by which clients know whose failure it is.
fn exec_error(error: MonitorError) -> EngineError {
    const BEGINNING: &str = "OCI runtime exec failed: ";
    let error = monitor_error(error);
    if error.message().starts_with(BEGINNING) {
        error
    } else {
        EngineError::new(error.kind(), format!("{BEGINNING}{}", error.message()))
    }
}
