//! The files that a monitor leaves for a daemon that was away; `monitor_protocol::record` has their types.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use durable::{Operation, PathError};
use monitor_protocol::record::{EXECS_DIR, EXIT_FILE, MONITOR_FILE, RECORD_VERSION};
use monitor_protocol::{ExecId, ExecRecord, Exit, ExitRecord, MonitorRecord, UnixNanos};
use serde::Serialize;

/// The container's folder.
#[derive(Debug)]
pub(crate) struct Records {
    dir: PathBuf,
}

impl Records {
    pub(crate) fn new(dir: PathBuf) -> Records {
        Records { dir }
    }

    /// Forgets an earlier run, before this one begins: its end must not be taken for this one's.
    pub(crate) fn clear(&self) -> Result<(), PathError> {
        remove(&self.dir.join(EXIT_FILE))?;
        remove(&self.dir.join(MONITOR_FILE))
    }

    /// Tells who owns the container.
    pub(crate) fn started(&self, pid: i32, started_at: UnixNanos) -> Result<(), PathError> {
        let monitor_pid = rustix::process::getpid().as_raw_nonzero().get();
        let record = MonitorRecord {
            version: RECORD_VERSION,
            monitor_pid,
            monitor_start_ticks: start_ticks(monitor_pid).unwrap_or(0),
            pid,
            pid_start_ticks: start_ticks(pid).unwrap_or(0),
            started_at,
        };
        write(&self.dir, MONITOR_FILE, &record)
    }

    /// Tells how the container ended.
    pub(crate) fn exited(&self, exit: Exit, started_at: UnixNanos) -> Result<(), PathError> {
        write(&self.dir, EXIT_FILE, &ExitRecord { version: RECORD_VERSION, exit, started_at })
    }

    /// Tells how a session ended.
    pub(crate) fn exec_exited(&self, id: &ExecId, exit: Exit) -> Result<(), PathError> {
        let dir = self.dir.join(EXECS_DIR);
        make_dir(&dir)?;
        let record = ExecRecord { version: RECORD_VERSION, id: id.clone(), exit };
        write(&dir, &format!("{}.json", id.0), &record)
    }
}

fn write(dir: &Path, name: &str, record: &impl Serialize) -> Result<(), PathError> {
    let bytes = serde_json::to_vec(record).expect("records are made of numbers and strings");
    durable::write_volatile(dir, name, &bytes)
}

fn remove(path: &Path) -> Result<(), PathError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(PathError::new(Operation::Remove, path, error)),
        _ => Ok(()),
    }
}

fn make_dir(dir: &Path) -> Result<(), PathError> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(PathError::new(Operation::Create, dir, error)),
        _ => Ok(()),
    }
}

/// When a process was started, in clock ticks since boot: field 22 of its `stat`.
fn start_ticks(pid: i32) -> Option<u64> {
    parse_start_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The second field is the program's name in parentheses, which may hold anything, parentheses too.
fn parse_start_ticks(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_odd_names() {
        let stat =
            "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 200 18446744073709551615 0\n";
        assert_eq!(parse_start_ticks(stat), Some(987_654));
        assert_eq!(parse_start_ticks("nonsense"), None);
        assert!(start_ticks(std::process::id() as i32).is_some_and(|ticks| ticks > 0));
    }

    #[test]
    fn records_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path().to_owned());
        records.clear().unwrap();
        let memory = Some(monitor_protocol::ExitMemory { limit_bytes: Some(9), peak_bytes: 8, kills: 1 });
        let signal = Some(monitor_protocol::Signal(9));
        let exit = Exit { code: 137, signal, oom_killed: true, memory, at: UnixNanos(5) };
        records.started(std::process::id() as i32, UnixNanos(4)).unwrap();
        records.exited(exit, UnixNanos(4)).unwrap();
        records.exec_exited(&ExecId("x1".to_owned()), exit).unwrap();
        let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
        let record: ExitRecord = serde_json::from_slice(&read("exit.json")).unwrap();
        assert_eq!((record.exit, record.started_at), (exit, UnixNanos(4)));
        let record: ExecRecord = serde_json::from_slice(&read("execs/x1.json")).unwrap();
        assert_eq!((record.id.0.as_str(), record.exit), ("x1", exit));
        records.clear().unwrap();
        assert!(!dir.path().join("exit.json").exists() && !dir.path().join("monitor.json").exists());
    }
}
