//! Requests, replies and events.

use oci::runtime::{LinuxResources, Process};
use serde::{Deserialize, Serialize};

use crate::launch::{Attach, FdIndex, Identity, Launch, Relay, Stdio, WindowSize};
use crate::stats::Stats;

/// The version of these messages. It grows when an old monitor could misread a new daemon.
pub const PROTOCOL_VERSION: u32 = 1;

/// How long the clients of a process that has ended wait for [`Request::AcknowledgeExit`].
pub const ACKNOWLEDGE_LIMIT: std::time::Duration = std::time::Duration::from_millis(500);

/// The number by which a reply finds its request; unique per connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

/// A daemon's name for an attachment; best random, because attachments outlive daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AttachId(pub u64);

/// An exec session's id; also the name of its record file, hence letters, digits, `_`, `.` and `-` only.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExecId(pub String);

/// A signal's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Signal(pub i32);

/// A moment, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixNanos(pub i64);

/// What a daemon sends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ToMonitor {
    /// Comes back in the reply.
    pub id: RequestId,
    /// What is asked.
    pub request: Request,
}

impl ToMonitor {
    /// Reads one frame's body; on failure the request's id is saved where possible, so that it can be answered.
    pub fn from_json(body: &[u8]) -> Result<ToMonitor, UnreadableRequest> {
        #[derive(Deserialize)]
        struct IdOnly {
            id: RequestId,
        }
        serde_json::from_slice(body).map_err(|source| UnreadableRequest {
            id: serde_json::from_slice::<IdOnly>(body).ok().map(|only| only.id),
            source,
        })
    }
}

/// A frame that is no request this version knows.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the request")]
pub struct UnreadableRequest {
    /// The request's id, when at least that could be read.
    pub id: Option<RequestId>,
    /// What is wrong with it.
    pub source: serde_json::Error,
}

/// What a daemon asks of a monitor. Each is answered by one [`Reply`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Make and start the container. Answered by [`Response::Started`].
    Launch(Box<Launch>),
    /// Connect a client. Answered by [`Response::Done`]; its end is [`Event::AttachEnded`].
    Attach(Attach),
    /// Hang up on a client.
    Detach {
        /// Which.
        attach: AttachId,
    },
    /// Start another process in the container. Answered by [`Response::ExecStarted`].
    Exec(Box<Exec>),
    /// Set a terminal's size.
    Resize {
        /// Whose terminal.
        target: Target,
        /// The new size.
        size: WindowSize,
    },
    /// Send a signal.
    Kill {
        /// Which.
        signal: Signal,
        /// To whom.
        scope: KillScope,
    },
    /// Freeze all processes of the container.
    Pause,
    /// Let them go on.
    Unpause,
    /// Change the container's limits.
    Update {
        /// What is `None` stays as it is.
        resources: Box<LinuxResources>,
    },
    /// List the container's processes. Answered by [`Response::Pids`].
    Top,
    /// Read the container's numbers. Answered by [`Response::Stats`].
    Stats,
    /// Hand over the root file system. Answered by [`Response::Rootfs`].
    RootfsFd,
    /// Close a process's standard input.
    CloseStdin {
        /// Whose.
        target: Target,
    },
    /// Pass on what comes to these ports of the host from now on, and to no others.
    Relay {
        /// All that listen.
        relays: Vec<Relay>,
        /// All that take datagrams.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        datagram_relays: Vec<Relay>,
    },
    /// Begin a new log file now.
    RotateLogs,
    /// The daemon knows that a process has ended, and tells so to who asks.
    ///
    /// Clients see the end of their streams only after this, so that the exit code is there for whoever asks for it
    /// then (`docker exec` does). A monitor without a daemon, or with one that is silent for
    /// [`ACKNOWLEDGE_LIMIT`], does not wait.
    AcknowledgeExit {
        /// Which process.
        target: Target,
    },
    /// Tell the state again. Answered by [`Response::Status`].
    Status,
    /// End a monitor that has no container yet. Refused with [`FailureKind::Conflict`] while one runs.
    Shutdown,
}

/// Whose streams or terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Target {
    /// The container's first process.
    #[default]
    Container,
    /// An exec session.
    Exec(ExecId),
}

/// Who gets a signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KillScope {
    /// The container's first process.
    Init,
    /// Every process of the container.
    All,
    /// An exec session's process.
    Exec(ExecId),
}

/// Starts another process in a running container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exec {
    /// The session's name.
    pub id: ExecId,
    /// What to run, as whom.
    pub process: Box<Process>,
    /// How its user is found.
    #[serde(default)]
    pub identity: Identity,
    /// Its streams. With pipes and nobody in `attaches`, it finds `/dev/null` everywhere.
    pub stdio: Stdio,
    /// The clients, connected before the process starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attaches: Vec<Attach>,
}

/// What a monitor sends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum FromMonitor {
    /// The first message on every connection.
    Hello(Box<Hello>),
    /// The answer to a request.
    Reply(Reply),
    /// Something happened; sent to every connection.
    Event(Event),
}

impl FromMonitor {
    /// Reads one frame's body. A daemon skips what it cannot read: a newer monitor may know more events.
    pub fn from_json(body: &[u8]) -> Result<FromMonitor, serde_json::Error> {
        serde_json::from_slice(body)
    }
}

/// Who is speaking.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the monitor.
    pub version: u32,
    /// The monitor's process.
    pub monitor_pid: i32,
    /// The container; `None` while the monitor waits for a [`Launch`].
    pub container: Option<ContainerStatus>,
}

/// Everything a daemon needs to take a container up again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// The container's id.
    pub id: String,
    /// The pid of its first process, in the monitor's pid namespace.
    pub pid: i32,
    /// When it was started.
    pub started_at: UnixNanos,
    /// How far it is.
    pub phase: Phase,
    /// Whether the kernel has killed one of its processes for want of memory.
    pub oom_killed: bool,
    /// Sessions that run now. Those that ended have their record in `execs/`.
    pub execs: Vec<RunningExec>,
    /// Clients that are attached now.
    pub attached: Vec<AttachId>,
}

/// How far a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It runs.
    Running,
    /// It is frozen.
    Paused,
    /// It has ended; the record is on disk.
    Exited(Exit),
}

/// An exec session that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningExec {
    /// Its name.
    pub id: ExecId,
    /// Its process, in the monitor's pid namespace.
    pub pid: i32,
    /// When it was started.
    pub started_at: UnixNanos,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// What `docker wait` prints: its exit code, or 128 and the number of the signal that ended it.
    pub code: i32,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<Signal>,
    /// Whether the kernel has killed one of the container's processes for want of memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// The container's memory at its end, when the kernel has killed for want of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ExitMemory>,
    /// When.
    pub at: UnixNanos,
}

/// How much memory there was when a container ended for want of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitMemory {
    /// The limit in bytes; `None` for none.
    pub limit_bytes: Option<u64>,
    /// The most there has been, in bytes; 0 where the kernel does not tell.
    pub peak_bytes: u64,
    /// How many processes the kernel has killed.
    pub kills: u64,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's id.
    pub id: RequestId,
    /// What came of it.
    pub result: Result<Response, Failure>,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// It is done.
    Done,
    /// The container runs.
    Started {
        /// Its first process.
        pid: i32,
        /// When.
        at: UnixNanos,
    },
    /// The session runs.
    ExecStarted {
        /// Its process.
        pid: i32,
        /// When.
        at: UnixNanos,
    },
    /// The container's processes, in the monitor's pid namespace.
    Pids(Vec<i32>),
    /// The container's numbers.
    Stats(Box<Stats>),
    /// The root file system: a detached mount, or the folder, opened.
    Rootfs {
        /// Among the descriptors of this frame.
        fd: FdIndex,
    },
    /// The state.
    Status(Box<Hello>),
}

/// Why a request was refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What a caller may decide on.
    pub kind: FailureKind,
    /// The step that failed, in one word: `rootfs`, `cgroup`, `exec`, …; for logs.
    pub stage: String,
    /// For people, in the words that clients know from Docker and runc.
    pub message: String,
}

/// What a caller may decide on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The program to run does not exist: exit code 127.
    NotFound,
    /// The program to run may not be run: exit code 126.
    PermissionDenied,
    /// The container, the session or the attachment is not there (any more).
    NotRunning,
    /// The state forbids it: a second launch, a second session of the same name, pausing twice.
    Conflict,
    /// The request contradicts itself.
    Invalid,
    /// This monitor does not know the request, or this host cannot do it.
    Unsupported,
    /// Anything else.
    Other,
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The container ended. Its output is in the log and its record on disk.
    Exited(Exit),
    /// The container's cgroup, root file system and socket are given back: it may be started again, or removed. Follows
    /// [`Event::Exited`]; a monitor that hangs up has cleaned up as well as it could.
    CleanedUp,
    /// A session ended.
    ExecExited {
        /// Which.
        id: ExecId,
        /// How.
        exit: Exit,
    },
    /// A client is no longer attached.
    AttachEnded {
        /// Which.
        attach: AttachId,
        /// Why.
        why: AttachEnd,
    },
    /// The kernel killed a process of the container for want of memory.
    OutOfMemory {
        /// When it was noticed.
        at: UnixNanos,
    },
    /// The container was frozen.
    Paused,
    /// The container goes on.
    Unpaused,
    /// Output could not be kept: the disk is full, or the non-blocking buffer was. Sent once per trouble, not per line.
    LogTrouble {
        /// What went wrong.
        message: String,
        /// How many lines were dropped since the start.
        dropped_lines: u64,
    },
}

/// Why a client is no longer attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttachEnd {
    /// It pressed the detach keys.
    DetachKeys,
    /// It hung up.
    HungUp,
    /// It ended its input on a terminal.
    InputEnded,
    /// The daemon asked for it.
    Requested,
    /// The process ended, and everything was delivered.
    ProcessEnded,
}
