//! Staying with a process until it ends: its terminal, its signals, its exit code.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use linux::Errno;
use linux::signal::{self, SignalSet};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, waitid, waitpid};

use super::CommandError;
use super::console::{RawTerminal, copy_size, pump};
use super::notify::NotifyListener;

const SIGCHLD: i32 = rustix::process::Signal::CHILD.as_raw();
const SIGWINCH: i32 = rustix::process::Signal::WINCH.as_raw();
const SIGURG: i32 = rustix::process::Signal::URG.as_raw();

/// Blocks every signal and takes them from a descriptor from now on. To be called before the process to watch is made, so that
/// none is lost; its own mask is emptied again.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: OwnedFd,
}

impl Signals {
    pub(crate) fn take() -> Result<Signals, CommandError> {
        signal::set_mask(SignalSet::ALL).map_err(CommandError::system("cannot block signals"))?;
        let fd = signal::descriptor(SignalSet::ALL).map_err(CommandError::system("cannot watch signals"))?;
        Ok(Signals { fd })
    }
}

/// The process to stay with.
#[derive(Debug)]
pub(crate) struct Watched<'a> {
    pub(crate) pid: Pid,
    pub(crate) pidfd: &'a OwnedFd,
    /// The master of its terminal, when it is to be joined to ours.
    pub(crate) console: Option<OwnedFd>,
    /// Where it says that it is ready.
    pub(crate) notify: Option<NotifyListener>,
}

/// Stays until the process ends; returns its exit code, 128 and the signal where one ended it.
pub(crate) fn stay(mut watched: Watched<'_>, signals: &Signals) -> Result<ExitCode, CommandError> {
    let raw = match &watched.console {
        Some(master) => {
            copy_size(master.as_fd());
            Some(RawTerminal::enter()?)
        }
        None => None,
    };
    let mut input_open = true;
    while !step(&mut watched, signals, &mut input_open)? {}
    if let Some(master) = &watched.console {
        // What the process has written last is still in there.
        drain(master);
    }
    drop(raw);
    exit_code(watched.pidfd)
}

/// Waits for something to happen and handles it; true when the process has ended.
fn step(watched: &mut Watched<'_>, signals: &Signals, input_open: &mut bool) -> Result<bool, CommandError> {
    let input = rustix::stdio::stdin();
    let mut fds = vec![PollFd::new(watched.pidfd, PollFlags::IN), PollFd::new(&signals.fd, PollFlags::IN)];
    let notify_at = watched.notify.as_ref().map(|listener| {
        fds.push(PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN));
        fds.len() - 1
    });
    let console_at = fds.len();
    if let Some(master) = &watched.console {
        fds.push(PollFd::new(master, PollFlags::IN));
        if *input_open {
            fds.push(PollFd::from_borrowed_fd(input, PollFlags::IN));
        }
    }
    match poll(&mut fds, None) {
        Err(Errno::INTR) => return Ok(false),
        other => other.map_err(CommandError::system("poll"))?,
    };
    let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
    if ready[1] {
        forward_signals(watched, signals)?;
    }
    if notify_at.is_some_and(|at| ready[at])
        && let Some(listener) = watched.notify.take()
    {
        // The manager is to watch us: we stay as long as the container, and pass its signals on.
        watched.notify = listener.take_one(std::process::id() as i32)?;
    }
    if let Some(master) = &watched.console {
        if ready[console_at] {
            pump(master.as_fd(), rustix::stdio::stdout());
        }
        if ready.get(console_at + 1).copied().unwrap_or(false) {
            *input_open = pump(input, master.as_fd());
        }
    }
    Ok(ready[0])
}

fn drain(master: &OwnedFd) {
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        let mut fds = [PollFd::new(master, PollFlags::IN)];
        let readable =
            poll(&mut fds, Some(&now)).is_ok_and(|count| count > 0) && fds[0].revents().contains(PollFlags::IN);
        if !readable || !pump(master.as_fd(), rustix::stdio::stdout()) {
            return;
        }
    }
}

fn forward_signals(watched: &Watched<'_>, signals: &Signals) -> Result<(), CommandError> {
    while let Some(number) =
        signal::read_descriptor(signals.fd.as_fd()).map_err(CommandError::system("cannot read signals"))?
    {
        match number {
            SIGCHLD => reap_others(watched.pid),
            SIGWINCH => {
                if let Some(master) = &watched.console {
                    copy_size(master.as_fd());
                }
            }
            SIGURG => {}
            other => {
                let _it_may_have_ended = signal::send_to_pidfd(watched.pidfd.as_fd(), other);
            }
        }
    }
    Ok(())
}

/// Collects orphans of the container, but not the process itself: its end is told by its pidfd.
fn reap_others(watched: Pid) {
    loop {
        let ended = waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT);
        let Ok(Some(_)) = ended else { return };
        // The kernel's information has the pid, rustix does not tell it: so look at whether it is ours.
        let ours = waitid(WaitId::Pid(watched), WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT);
        if matches!(ours, Ok(Some(_))) {
            return;
        }
        if !matches!(waitpid(None, WaitOptions::NOHANG), Ok(Some(_))) {
            return;
        }
    }
}

/// Collects the process and tells how it ended.
pub(crate) fn exit_code(pidfd: &OwnedFd) -> Result<ExitCode, CommandError> {
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(CommandError::system("cannot wait for the process")(errno)),
            Ok(None) => return Ok(ExitCode::FAILURE),
            Ok(Some(status)) => {
                let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
                return Ok(ExitCode::from(code.unwrap_or(1) as u8));
            }
        }
    }
}
