//! Warm monitors: a start takes one that waits already instead of paying for a process.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use monitor_protocol::{Decoder, FromMonitor, Launch, Outbox, Request, RequestId, ToMonitor, Waiting, socket};

/// How many monitors wait. Each costs well under a megabyte; a burst beyond them pays for its own.
const READY: usize = 4;
/// Refilling waits for this much quiet, so that it does not take the processor from the container that is starting.
const QUIET: Duration = Duration::from_millis(4);
/// A monitor that says nothing for so long is broken.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// After a failed start of a monitor, the next attempt waits.
const RETRY: Duration = Duration::from_secs(1);

/// An id's length.
const TITLE_LENGTH: usize = 64;

/// The id of the request that launches; later ones count on from it.
pub(super) const LAUNCH_ID: u64 = 1;

/// Why there is no monitor.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    #[error("cannot start {program}")]
    Spawn { program: PathBuf, source: std::io::Error },
    #[error("the monitor {program} did not answer; see {log}")]
    NoHello { program: PathBuf, log: PathBuf },
    #[error("cannot send the container to its monitor")]
    Send(#[source] std::io::Error),
    #[error("the container's configuration is too large for a message")]
    TooLarge(#[from] monitor_protocol::EncodeError),
}

/// A monitor that has been given its container.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(super) socket: UnixStream,
    pub(super) decoder: Decoder,
    pub(super) child: Child,
}

/// The waiting monitors and the thread that keeps their number up.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    filler: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    program: PathBuf,
    log: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ready: Vec<Warm>,
    taken: u64,
    closing: bool,
}

/// A monitor that waits for a container.
#[derive(Debug)]
struct Warm {
    socket: UnixStream,
    decoder: Decoder,
    child: Child,
}

impl Pool {
    /// Starts to fill in the background.
    pub(crate) fn new(program: &Path, run: &Path) -> std::io::Result<Pool> {
        let shared = Arc::new(Shared {
            program: program.to_owned(),
            log: run.join("monitors.log"),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let filled = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("monitors".into()).stack_size(256 << 10);
        let filler = thread.spawn(move || filled.keep_full())?;
        Ok(Pool { shared, filler: Mutex::new(Some(filler)) })
    }

    /// Gives a container to a monitor: a waiting one, or one made now. Blocks for the sending only, not for the container's start.
    pub(crate) fn launch(&self, launch: Launch, fds: Vec<OwnedFd>) -> Result<Launched, SpawnError> {
        let warm = match self.shared.take() {
            Some(warm) => warm,
            None => self.shared.spawn()?,
        };
        let mut outbox = Outbox::new();
        let message = ToMonitor { id: RequestId(LAUNCH_ID), request: Request::Launch(Box::new(launch)) };
        outbox.push(&message, fds)?;
        outbox.flush(warm.socket.as_fd(), Waiting::Block).map_err(SpawnError::Send)?;
        Ok(Launched { socket: warm.socket, decoder: warm.decoder, child: warm.child })
    }

    /// Ends the waiting monitors.
    pub(crate) fn close(&self) {
        let idle = {
            let mut state = self.shared.lock();
            state.closing = true;
            std::mem::take(&mut state.ready)
        };
        self.shared.changed.notify_all();
        for warm in idle {
            warm.end();
        }
        let filler = self.filler.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(filler) = filler {
            let _ = filler.join();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Warm> {
        let mut state = self.lock();
        state.taken += 1;
        let warm = state.ready.pop();
        drop(state);
        self.changed.notify_one();
        warm
    }

    fn keep_full(&self) {
        while self.wait_until_short() {
            match self.spawn() {
                Ok(warm) => self.put(warm),
                Err(error) => {
                    tracing::error!("{}", crate::model::chain(&error));
                    std::thread::sleep(RETRY);
                }
            }
        }
    }

    /// Waits until monitors are wanted and nobody has taken one for a moment; false when the pool closes.
    fn wait_until_short(&self) -> bool {
        let mut state = self.lock();
        loop {
            if state.closing {
                return false;
            }
            if state.ready.len() >= READY {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (taken, empty) = (state.taken, state.taken == 0);
            if empty {
                return true;
            }
            let (after, _) = self.changed.wait_timeout(state, QUIET).unwrap_or_else(PoisonError::into_inner);
            state = after;
            if state.taken == taken {
                return !state.closing;
            }
        }
    }

    fn put(&self, warm: Warm) {
        let mut state = self.lock();
        if state.closing {
            drop(state);
            warm.end();
        } else {
            state.ready.push(warm);
        }
    }

    fn spawn(&self) -> Result<Warm, SpawnError> {
        let failed = |source| SpawnError::Spawn { program: self.program.clone(), source };
        let (socket, theirs) = UnixStream::pair().map_err(failed)?;
        let log = File::options().create(true).append(true).open(&self.log).map_err(failed)?;
        let child = Command::new(&self.program)
            .args(["monitor", "--fd", "0"])
            .env_clear()
            // Room for the title that the monitor gives itself, which ends with the container's id.
            .env("CONEX_TITLE", "x".repeat(TITLE_LENGTH))
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let mut warm = Warm { socket, decoder: Decoder::new(), child };
        if warm.says_hello() {
            Ok(warm)
        } else {
            warm.end();
            Err(SpawnError::NoHello { program: self.program.clone(), log: self.log.clone() })
        }
    }
}

impl Warm {
    fn says_hello(&mut self) -> bool {
        if self.socket.set_read_timeout(Some(HELLO_LIMIT)).is_err() {
            return false;
        }
        loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => return matches!(FromMonitor::from_json(&frame.body), Ok(FromMonitor::Hello(_))),
                Ok(None) => {}
                Err(_) => return false,
            }
            match socket::receive(self.socket.as_fd(), &mut self.decoder, Waiting::Block) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return false,
            }
        }
    }

    /// A monitor without a container ends when its socket closes.
    fn end(mut self) {
        drop(self.socket);
        let _ = self.child.wait();
    }
}
