//! The files that a monitor leaves in the container's folder for a daemon that was away.
//!
//! ```text
//! <container dir>/monitor.json          MonitorRecord, soon after the start; not for a container that ends at once
//!                 exit.json             ExitRecord, before Event::Exited is sent
//!                 execs/<exec id>.json  ExecRecord, before Event::ExecExited is sent
//! ```
//!
//! They are renamed into place, so a reader sees a whole one or none. They are not synced to disk: after a crash of
//! the machine the container is gone anyway.

use serde::{Deserialize, Serialize};

use crate::message::{ExecId, Exit, UnixNanos};

/// The version of these files.
pub const RECORD_VERSION: u32 = 1;

/// Name of [`MonitorRecord`]'s file.
pub const MONITOR_FILE: &str = "monitor.json";
/// Name of [`ExitRecord`]'s file.
pub const EXIT_FILE: &str = "exit.json";
/// Name of the folder of [`ExecRecord`]s.
pub const EXECS_DIR: &str = "execs";

/// Who owns the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorRecord {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// The monitor's process.
    pub monitor_pid: i32,
    /// The start time of the monitor's process in clock ticks since boot (field 22 of `/proc/<pid>/stat`): together
    /// with the pid it names one process, and never a later one.
    pub monitor_start_ticks: u64,
    /// The container's first process.
    pub pid: i32,
    /// The start time of that process, likewise.
    pub pid_start_ticks: u64,
    /// When the container was started.
    pub started_at: UnixNanos,
}

/// How the container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// How.
    pub exit: Exit,
    /// When it had been started: tells this run's record from an earlier one's.
    pub started_at: UnixNanos,
}

/// How an exec session ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRecord {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// Which session.
    pub id: ExecId,
    /// How it ended.
    pub exit: Exit,
}
