//! How the monitor stands in the system: its session, its name, what it does not die of.

use std::fs;

use linux::signal::{self, SignalSet};
use rustix::process::Signal;

/// What the kernel's task name and `ps` show.
const NAME: &str = "conex-monitor";
/// The kernel should take nearly everybody else first when memory is short: who kills a monitor loses a container.
const OOM_SCORE: &str = "-999";

/// Sets a waiting monitor up: a session of its own, so that no terminal's signals reach it, and no working directory that it
/// would keep busy. It can still be ended by signals.
pub(crate) fn become_monitor() {
    // It may be a session's leader already.
    let _ = rustix::process::setsid();
    let _ = rustix::process::chdir("/");
    let _ = rustix::thread::set_name(c"conex-monitor");
    let _ = signal::set_mask(SignalSet::NONE.with(Signal::CHILD.as_raw()));
}

/// From now on only the container's end, or SIGKILL, ends the monitor.
pub(crate) fn ignore_signals() {
    let _ = signal::set_mask(SignalSet::ALL);
}

/// Shows whose monitor it is, and asks to be spared when memory is short.
pub(crate) fn take_container(id: &str) {
    let _ = linux::title::set_command_line(format!("{NAME} {id}").as_bytes());
    // Without CAP_SYS_RESOURCE this is refused; it is a help, not a need.
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE);
}

/// A helper that the monitor has started: the signals that are blocked there must not be here, nor in what is started next.
pub(crate) fn become_helper() {
    let _ = signal::set_mask(SignalSet::NONE);
}
