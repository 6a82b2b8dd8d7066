//! Seeing what others change on the host: rules and routes.
//!
//! Rules are put back: `nft flush ruleset`, a firewall's reload or the start of another engine may take them away or put a drop in front
//! of them, and every container would be cut off, or open to its neighbours.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use netlink::{Errno, Family, Group, OpenError as SocketError, Socket};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use thiserror::Error;

use crate::firewall::Firewall;

/// Changes come in bursts; what is watched is looked at when nothing has happened for this long.
const QUIET: Duration = Duration::from_millis(50);
/// Rules are put back this many times in a row at once, and then no oftener than every so long: if somebody else insists on
/// removing them, the two must not wear the machine out.
const EAGER_REPAIRS: u32 = 5;
const REPAIR_PAUSE: Duration = Duration::from_secs(5);

/// Why nothing can be watched.
#[derive(Debug, Error)]
pub enum WatchError {
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

/// A thread that looks whenever something has changed.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: OwnedFd,
    worker: Mutex<Option<JoinHandle<()>>>,
}

impl Watch {
    /// Puts the rules back whenever they are gone.
    pub(crate) fn keep_up(firewall: Arc<Firewall>) -> Result<Self, WatchError> {
        let mut repairs = 0;
        let events = Socket::subscribe(Family::Netfilter, Group::Rules)?;
        Self::start("network-rules", events, move |stopped| {
            repair(&firewall, &mut repairs, stopped);
            None
        })
    }

    /// Looks whenever a route came or went, and once at the start; again by itself after as long as the last look says.
    pub(crate) fn routes(mut look: impl FnMut() -> Option<Duration> + Send + 'static) -> Result<Self, WatchError> {
        let events = Socket::subscribe(Family::Route, Group::Routes)?;
        Self::start("network-routes", events, move |_| look())
    }

    fn start(
        name: &str,
        events: Socket,
        look: impl FnMut(&OwnedFd) -> Option<Duration> + Send + 'static,
    ) -> Result<Self, WatchError> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let stopped = stop.try_clone()?;
        let worker =
            thread::Builder::new().name(name.to_owned()).spawn(move || Worker { look, events, stopped }.run())?;
        Ok(Self { stop, worker: Mutex::new(Some(worker)) })
    }

    /// Ends the thread.
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

struct Worker<L> {
    look: L,
    events: Socket,
    stopped: OwnedFd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    Event,
    Timeout,
    Stopped,
}

impl<L: FnMut(&OwnedFd) -> Option<Duration>> Worker<L> {
    fn run(mut self) {
        // Something may have changed before the subscription.
        let (mut woken, mut again) = (Woken::Event, None);
        while woken != Woken::Stopped {
            if woken == Woken::Timeout || self.until_quiet() == Woken::Timeout {
                again = (self.look)(&self.stopped);
            }
            woken = self.wait(again);
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

/// Puts the rules back if they are not there. Its own changes wake it again, and then all is well.
fn repair(firewall: &Firewall, repairs: &mut u32, stopped: &OwnedFd) {
    if firewall.is_complete().unwrap_or(true) {
        *repairs = 0;
        return;
    }
    *repairs += 1;
    if *repairs > EAGER_REPAIRS {
        let mut fds = [PollFd::new(stopped, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&timespec(REPAIR_PAUSE)));
    }
    // A failure is tried again at the next change; there is nobody here to tell.
    let _ = firewall.install();
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: duration.subsec_nanos().into() }
}
