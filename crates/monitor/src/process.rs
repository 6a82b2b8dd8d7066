//! A process we started, from its start until the last client has fetched its output.
//!
//! ```text
//!   Running ──exited──▶ Draining ──take_exit──▶ Told ──acknowledge──▶ Released ──▶ is_done
//! ```

use std::time::Instant;

use monitor_protocol::message::ACKNOWLEDGE_LIMIT;
use monitor_protocol::{Exit, Signal, UnixNanos};
use rustix::process::WaitStatus;

use crate::streams::{Streams, Surroundings};

/// A process and its streams.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) started_at: UnixNanos,
    pub(crate) streams: Streams,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Running,
    /// It has ended; its output may not have.
    Draining(Exit),
    /// Daemons have been told; clients see the end when one of them has acknowledged, or at this moment.
    Told {
        at_the_latest: Instant,
    },
    Released,
}

impl Process {
    pub(crate) fn new(pid: i32, started_at: UnixNanos, streams: Streams) -> Process {
        Process { pid, started_at, streams, state: State::Running }
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, State::Running)
    }

    /// The process has ended: fetches what it has left in its pipes.
    pub(crate) fn exited(&mut self, exit: Exit, around: &mut Surroundings<'_>) {
        self.state = State::Draining(exit);
        self.streams.process_ended(around);
    }

    /// Whether the process has ended and its output has been read.
    pub(crate) fn is_drained(&mut self, around: &mut Surroundings<'_>) -> bool {
        !self.is_running() && self.streams.drained(around)
    }

    /// How it ended; once, for the caller to record and to tell.
    pub(crate) fn take_exit(&mut self, now: Instant) -> Option<Exit> {
        let State::Draining(exit) = self.state else { return None };
        self.state = State::Told { at_the_latest: now + ACKNOWLEDGE_LIMIT };
        Some(exit)
    }

    /// A daemon knows of the end (or there is none to wait for): clients may know too.
    pub(crate) fn acknowledge(&mut self, now: Instant) {
        if matches!(self.state, State::Told { .. }) {
            self.state = State::Released;
            self.streams.release(now);
        }
    }

    /// Whether clients may know of the end.
    pub(crate) fn is_released(&self) -> bool {
        matches!(self.state, State::Released)
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.streams.tick(now);
        if matches!(self.state, State::Told { at_the_latest } if now >= at_the_latest) {
            self.acknowledge(now);
        }
    }

    /// When to call [`Process::tick`] at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let of_state = match self.state {
            State::Told { at_the_latest } => Some(at_the_latest),
            State::Running | State::Draining(_) | State::Released => None,
        };
        self.streams.deadline().into_iter().chain(of_state).min()
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, State::Released) && self.streams.is_done()
    }
}

/// How a process ended, from what wait(2) says.
pub(crate) fn exit_of(status: WaitStatus, at: UnixNanos) -> Exit {
    let signal = status.terminating_signal();
    let code = status.exit_status().or(signal.map(|number| 128 + number)).unwrap_or(255);
    Exit { code, signal: signal.map(Signal), oom_killed: false, memory: None, at }
}
