//! Keeping the rules in place: `nft flush ruleset`, a firewall's reload or the start of another engine may take them away or put
//! a drop in front of them, and every container would be cut off, or open to its neighbours.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use netlink::{Errno, Family, Group, OpenError as SocketError, Socket};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use thiserror::Error;

use crate::firewall::Firewall;

/// Changes come in bursts; rules are looked at when nothing has happened for this long.
const QUIET: Duration = Duration::from_millis(50);
/// Rules are put back this many times in a row at once, and then no oftener than every so long: if somebody else insists on
/// removing them, the two must not wear the machine out.
const EAGER_REPAIRS: u32 = 5;
const REPAIR_PAUSE: Duration = Duration::from_secs(5);

/// Why the rules cannot be watched.
#[derive(Debug, Error)]
pub(crate) enum WatchError {
    /// There is no socket that tells of changes.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// There is no descriptor to end the thread by.
    #[error("cannot make an event descriptor: {0}")]
    Event(#[from] Errno),
    /// There is no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// A thread that puts the rules back whenever they are gone.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: OwnedFd,
    worker: Mutex<Option<JoinHandle<()>>>,
}

impl Watch {
    /// Starts the thread.
    pub(crate) fn start(firewall: Arc<Firewall>) -> Result<Self, WatchError> {
        let events = Socket::subscribe(Family::Netfilter, Group::Rules)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let stopped = stop.try_clone()?;
        let worker = thread::Builder::new()
            .name("network-rules".to_owned())
            .spawn(move || Worker { firewall, events, stopped, repairs: 0 }.run())?;
        Ok(Self { stop, worker: Mutex::new(Some(worker)) })
    }

    /// Ends the thread, before the rules are taken away for good.
    pub(crate) fn stop(&self) {
        // It cannot fail: the counter is far from its limit.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        let worker = self.worker.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(worker) = worker {
            let _ = worker.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Worker {
    firewall: Arc<Firewall>,
    events: Socket,
    stopped: OwnedFd,
    repairs: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    Event,
    Timeout,
    Stopped,
}

impl Worker {
    fn run(mut self) {
        // The rules may have been touched between their making and the subscription.
        let mut woken = Woken::Event;
        while woken != Woken::Stopped {
            if woken == Woken::Event && self.until_quiet() == Woken::Timeout {
                self.repair();
            }
            woken = self.wait(None);
        }
    }

    fn until_quiet(&mut self) -> Woken {
        loop {
            match self.wait(Some(QUIET)) {
                Woken::Event => {}
                other => return other,
            }
        }
    }

    /// Puts the rules back if they are not there. Its own changes wake it again, and then all is well.
    fn repair(&mut self) {
        if self.firewall.is_complete().unwrap_or(true) {
            self.repairs = 0;
            return;
        }
        self.repairs += 1;
        if self.repairs > EAGER_REPAIRS {
            self.pause();
        }
        // A failure is tried again at the next change; there is nobody here to tell.
        let _ = self.firewall.install();
    }

    fn pause(&self) {
        let mut fds = [PollFd::new(&self.stopped, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&timespec(REPAIR_PAUSE)));
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Woken {
        let timeout = timeout.map(timespec);
        let (event, stopped) = {
            let events = self.events.as_fd();
            let mut fds = [PollFd::new(&events, PollFlags::IN), PollFd::new(&self.stopped, PollFlags::IN)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => (!fds[0].revents().is_empty(), !fds[1].revents().is_empty()),
                Err(_) => (false, true),
            }
        };
        if stopped {
            return Woken::Stopped;
        }
        if event {
            self.events.discard();
            return Woken::Event;
        }
        Woken::Timeout
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: duration.subsec_nanos().into() }
}
