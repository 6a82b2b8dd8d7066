//! Messages between the daemon and a container's monitor, and their framing.
//!
//! A monitor is one process per container. It outlives the daemon that started it, and the next daemon may be
//! of another version, so everything here is versioned, unknown fields are ignored, and a request that a
//! monitor does not know is answered with [`FailureKind::Unsupported`] instead of a hang-up.
//!
//! ```text
//!   daemon                                        monitor
//!     │  spawn `conex-runtime monitor --fd 3`       │
//!     │ ◀───────────────── Hello (version, idle) ───│   warm: ready for one Launch
//!     │─── Launch + fds ───────────────────────────▶│
//!     │ ◀────────────── Reply: Started{pid} ────────│   now also listens on Launch.socket
//!     │─── Attach, Exec, Resize, Kill, … ──────────▶│
//!     │ ◀────────────── Reply, Event … ─────────────│
//!     │ ◀────────────── Event: Exited ──────────────│   the record is on disk by then
//!     │─── AcknowledgeExit ────────────────────────▶│   only now clients see the end of their streams
//! ```
//!
//! * [`launch`]: what a container is made from.
//! * [`message`]: requests, replies and events.
//! * [`frame`]: bytes and file descriptors to messages and back, without any I/O.
//! * [`outbox`]: messages on their way out.
//! * [`socket`]: the two system calls under it, usable with blocking and non-blocking sockets alike.
//! * [`record`]: the files a monitor leaves for a daemon that was away.
//! * [`client`]: a blocking client.

pub mod client;
pub mod detach_keys;
pub mod frame;
pub mod launch;
pub mod message;
pub mod outbox;
pub mod record;
pub mod socket;
pub mod stats;

pub use client::{Client, ClientError};
pub use detach_keys::{DetachKeys, DetachKeysError};
pub use frame::{DecodeError, Decoder, EncodeError, Frame, MAX_FDS, MAX_FRAME_BYTES};
pub use launch::{
    Attach, CgroupDriver, Delivery, FdIndex, Framing, Identity, Isolation, JsonFile, Launch, LogConfig, Relay, Rootfs,
    Rotated, SeccompProgram, StdinMode, Stdio, Streams, WindowSize,
};
pub use message::{
    AttachEnd, AttachId, ContainerStatus, Event, Exec, ExecId, Exit, ExitMemory, Failure, FailureKind, FromMonitor,
    Hello, KillScope, PROTOCOL_VERSION, Phase, Reply, Request, RequestId, Response, RunningExec, Signal, Target,
    ToMonitor, UnixNanos, UnreadableRequest,
};
pub use outbox::Outbox;
pub use record::{ExecRecord, ExitRecord, MonitorRecord};
pub use socket::Waiting;
pub use stats::Stats;
