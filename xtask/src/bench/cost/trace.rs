//! The kernel's own record of system calls: a buffer of tracefs of our own, which follows one process and its children.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// One end of a system call.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    pub(super) pid: u32,
    /// In microseconds since the machine's start.
    pub(super) time: f64,
    /// The call's name.
    pub(super) call: String,
    pub(super) what: What,
}

/// Which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Begin,
    End,
}

/// Room for a whole run, on each processor.
const BUFFER_KIB: &str = "4096";

/// A buffer of tracefs, which is gone with this.
#[derive(Debug)]
pub(super) struct Instance {
    mounted: PathBuf,
    path: PathBuf,
}

impl Instance {
    /// Mounts tracefs in a folder of the bench's own and makes a buffer that nobody else writes to.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let mounted = folder.join("tracefs");
        fs::create_dir_all(&mounted)?;
        mount("tracefs", &mounted, "tracefs", MountFlags::empty(), None).context("this kernel has no tracefs")?;
        let path = mounted.join(format!("instances/conex-{}", std::process::id()));
        // From here on it is taken away whatever happens.
        let instance = Self { mounted, path };
        fs::create_dir(&instance.path).context("cannot make a trace buffer")?;
        for (file, value) in [
            ("tracing_on", "0"),
            ("buffer_size_kb", BUFFER_KIB),
            ("options/event-fork", "1"),
            ("set_event_pid", &std::process::id().to_string()),
            ("set_event", "syscalls"),
        ] {
            instance.write(file, value)?;
        }
        Ok(instance)
    }

    /// What this process and its children call meanwhile.
    pub(super) fn record(&self, work: impl FnOnce() -> Result<()>) -> Result<Vec<Event>> {
        self.write("trace", "")?;
        self.write("tracing_on", "1")?;
        let worked = work();
        self.write("tracing_on", "0")?;
        worked?;
        Ok(fs::read_to_string(self.path.join("trace"))?.lines().filter_map(parse).collect())
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        fs::write(self.path.join(file), value).with_context(|| format!("cannot write {value:?} to tracefs' {file}"))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // What stays is only empty, and gone with the machine's next start.
        let _ = fs::remove_dir(&self.path);
        let _ = unmount(&self.mounted, UnmountFlags::DETACH);
    }
}

/// `   true-12547   [000] .....  1585.318598: sys_pivot_root(new_root: 0x20a051, …)`, or `… sys_pivot_root -> 0x0`.
fn parse(line: &str) -> Option<Event> {
    let (process, rest) = line.split_once(" [")?;
    let pid = process.trim_end().rsplit('-').next()?.parse().ok()?;
    let (before, call) = rest.split_once(": sys_")?;
    let seconds: f64 = before.split_ascii_whitespace().last()?.parse().ok()?;
    let (name, what) = match call.split_once(" -> ") {
        Some((name, _)) => (name, What::End),
        None => (call.split('(').next()?, What::Begin),
    };
    Some(Event { pid, time: seconds * 1e6, call: name.to_owned(), what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let event = |line| parse(line).map(|event| (event.pid, event.time.round(), event.call, event.what));
        let begin = " opt a-b-12547   [000] .N...  1585.318598: sys_pivot_root(new_root: 0x2, put_old: 0x2)";
        assert_eq!(event(begin), Some((12_547, 1_585_318_598.0, "pivot_root".to_owned(), What::Begin)));
        let end = "          <...>-7       [001] .....  2.000001: sys_clone3 -> 0x0";
        assert_eq!(event(end), Some((7, 2_000_001.0, "clone3".to_owned(), What::End)));
        assert_eq!(event("# tracer: nop"), None);
    }
}
