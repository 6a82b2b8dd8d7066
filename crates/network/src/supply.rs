//! The supply of ready namespaces, and the thread that keeps it up.
//!
//! ```text
//!            take ─▶ ready? hand it out ─────────────▶ wake the thread: make another
//!                    none?  make one on the spot (one maker at a time; meanwhile the thread's next may do)
//!         release ─▶ list of dead endpoints ─────────▶ wake the thread: unplug them together, free their addresses
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use thiserror::Error;

use crate::allocator::{AddressError, Pair, Space};
use crate::endpoint::{DEFAULT_NETWORK, Endpoint, Sandbox};
use crate::firewall::Firewall;
use crate::maker::{MakeError, Maker};
use crate::networks::Attachment;

/// As many dead endpoints are taken care of even before the supply is full again.
const DEAD_LIMIT: usize = 64;

/// Why no namespace could be had.
#[derive(Debug, Error)]
pub enum SupplyError {
    /// It could not be made.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// All addresses of the subnet are taken.
    #[error("{0}: bridge")]
    NoAddress(#[source] AddressError),
    /// There is no thread to make it on.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// Ready namespaces, and the thread that makes them.
#[derive(Debug)]
pub(crate) struct Supply {
    shared: Arc<Shared>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    maker: Maker,
    firewall: Arc<Firewall>,
    /// Held while a namespace is made: the kernel makes one at a time anyway.
    making: Mutex<()>,
    state: Mutex<State>,
    changed: Condvar,
    target: usize,
}

#[derive(Debug)]
struct State {
    bridged: VecDeque<Sandbox>,
    isolated: VecDeque<Sandbox>,
    dead: Vec<Endpoint>,
    /// Whether rules are left over in the kernel.
    unswept: bool,
    /// How many more are being unplugged just now.
    unplugging: usize,
    /// By network.
    addresses: HashMap<String, Space>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The supply is kept up.
    Supplying,
    /// Making one failed; nothing is made ahead until someone asks again.
    Paused,
    /// The thread is to end.
    Closing,
}

/// What the thread does next.
enum Task {
    Make(Attachment),
    Unplug(Vec<Endpoint>),
    Sweep,
    End,
}

impl Supply {
    /// Starts the thread, which keeps `target` namespaces of each kind ready.
    pub(crate) fn start(
        maker: Maker,
        firewall: Arc<Firewall>,
        addresses: HashMap<String, Space>,
        target: usize,
    ) -> Result<Self, std::io::Error> {
        let state = State {
            bridged: VecDeque::new(),
            isolated: VecDeque::new(),
            dead: Vec::new(),
            unswept: false,
            unplugging: 0,
            addresses,
            phase: Phase::Supplying,
        };
        let shared = Arc::new(Shared {
            maker,
            firewall,
            making: Mutex::new(()),
            state: Mutex::new(state),
            changed: Condvar::new(),
            target,
        });
        let worker = {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("network-supply".to_owned()).spawn(move || shared.work())?
        };
        Ok(Self { shared, worker: Mutex::new(Some(worker)) })
    }

    /// A namespace of this kind.
    pub(crate) fn take(&self, attachment: Attachment) -> Result<Sandbox, SupplyError> {
        if let Some(ready) = self.shared.take_ready(attachment) {
            return Ok(ready);
        }
        let _one_at_a_time = lock(&self.shared.making);
        if let Some(ready) = self.shared.take_ready(attachment) {
            return Ok(ready);
        }
        self.shared.make_elsewhere(attachment)
    }

    /// Makes a network's addresses known.
    pub(crate) fn add_network(&self, network: &str, addresses: Space) {
        lock(&self.shared.state).addresses.insert(network.to_owned(), addresses);
    }

    /// Forgets a network if nobody has an address of it, and says whether that was so. Those of the dead are freed first.
    pub(crate) fn remove_network(&self, network: &str) -> bool {
        let mut state = lock(&self.shared.state);
        loop {
            if state.addresses.get(network).is_none_or(Space::is_idle) {
                state.addresses.remove(network);
                return true;
            }
            if !state.has_dead() {
                return false;
            }
            let dead = state.collect_dead();
            if dead.is_empty() {
                state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else {
                drop(state);
                self.shared.unplug(dead);
                state = lock(&self.shared.state);
            }
        }
    }

    /// Addresses of a network; [`Supply::release`] of their endpoint gives them back.
    pub(crate) fn take_addresses(&self, network: &str, wanted: Pair) -> Result<Pair, AddressError> {
        self.shared.take_addresses(network, wanted)
    }

    /// Gives addresses back that were never used.
    pub(crate) fn return_addresses(&self, network: &str, held: Pair) {
        lock(&self.shared.state).release_addresses(network, held);
    }

    /// The maker, for what is done to a namespace after it was taken.
    pub(crate) fn maker(&self) -> &Maker {
        &self.shared.maker
    }

    /// Takes an ended container's endpoint back.
    pub(crate) fn release(&self, endpoint: Endpoint) {
        let mut state = lock(&self.shared.state);
        state.dead.push(endpoint);
        self.shared.changed.notify_all();
    }

    /// Has rules that nobody needs any more taken away.
    pub(crate) fn sweep(&self) {
        lock(&self.shared.state).unswept = true;
        self.shared.changed.notify_all();
    }

    /// Waits until the supply is full and nothing is left to be unplugged. For tests and for measurements.
    pub(crate) fn settle(&self) {
        let mut state = lock(&self.shared.state);
        while state.has_dead() || state.unswept || (state.phase == Phase::Supplying && !self.shared.is_full(&state)) {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends the thread after it has unplugged what was released, and lets go of all ready namespaces.
    pub(crate) fn stop(&self) {
        lock(&self.shared.state).phase = Phase::Closing;
        self.shared.changed.notify_all();
        if let Some(worker) = lock(&self.worker).take() {
            // It does not panic; if it did, there is nothing left to wait for.
            let _ = worker.join();
        }
        let unused = {
            let mut state = lock(&self.shared.state);
            let bridged = std::mem::take(&mut state.bridged);
            state.isolated.clear();
            state.dead.extend(bridged.into_iter().filter_map(|sandbox| sandbox.endpoint));
            state.collect_dead()
        };
        self.shared.unplug(unused);
    }
}

impl Drop for Supply {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn take_ready(&self, attachment: Attachment) -> Option<Sandbox> {
        let mut state = lock(&self.state);
        let sandbox = state.of_kind(attachment).pop_front();
        if state.phase == Phase::Paused {
            state.phase = Phase::Supplying;
        }
        self.changed.notify_all();
        sandbox
    }

    fn is_full(&self, state: &State) -> bool {
        state.bridged.len() >= self.target && state.isolated.len() >= self.target
    }

    /// The thread: one task after the other.
    fn work(&self) {
        loop {
            match self.next_task() {
                Task::End => return,
                Task::Unplug(dead) => self.unplug(dead),
                Task::Sweep => self.sweep(),
                Task::Make(attachment) => self.make_ahead(attachment),
            }
        }
    }

    fn next_task(&self) -> Task {
        let mut state = lock(&self.state);
        loop {
            let wanted = self.wanted(&state);
            if !state.dead.is_empty() && (wanted.is_none() || state.dead.len() >= DEAD_LIMIT) {
                return Task::Unplug(state.collect_dead());
            }
            if state.unswept && (wanted.is_none() || state.phase == Phase::Closing) {
                return Task::Sweep;
            }
            if state.phase == Phase::Closing {
                return Task::End;
            }
            if let Some(attachment) = wanted {
                return Task::Make(attachment);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The kind that the supply is shortest of.
    fn wanted(&self, state: &State) -> Option<Attachment> {
        if state.phase != Phase::Supplying || self.is_full(state) {
            return None;
        }
        Some(if state.bridged.len() <= state.isolated.len() { Attachment::Bridge } else { Attachment::None })
    }

    fn make_ahead(&self, attachment: Attachment) {
        // Held until it is in the supply, so that who waits to make one finds it there.
        let _one_at_a_time = lock(&self.making);
        let made = self.make_here(attachment);
        let mut state = lock(&self.state);
        match made {
            Ok(sandbox) => state.of_kind(attachment).push_back(sandbox),
            // Whoever asks for one gets the reason; trying over and over would only burn time.
            Err(_) if state.phase == Phase::Supplying => state.phase = Phase::Paused,
            Err(_) => {}
        }
        self.changed.notify_all();
    }

    /// Makes one on a thread of its own, because the caller's must stay where it is.
    fn make_elsewhere(&self, attachment: Attachment) -> Result<Sandbox, SupplyError> {
        thread::scope(|scope| {
            let helper = thread::Builder::new().name("network-maker".to_owned());
            let helper = helper.spawn_scoped(scope, || self.make_here(attachment)).map_err(SupplyError::Thread)?;
            match helper.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn make_here(&self, attachment: Attachment) -> Result<Sandbox, SupplyError> {
        let made = match attachment {
            Attachment::None => self.maker.isolated_here().map_err(SupplyError::from),
            Attachment::Bridge => self.make_bridged_here(),
        };
        self.maker.return_home().map_err(MakeError::from)?;
        made
    }

    fn make_bridged_here(&self) -> Result<Sandbox, SupplyError> {
        let held = self.take_addresses(DEFAULT_NETWORK, Pair::default()).map_err(SupplyError::NoAddress)?;
        self.maker.bridged_here(held).map_err(|error| {
            lock(&self.state).release_addresses(DEFAULT_NETWORK, held);
            error.into()
        })
    }

    /// Free addresses, or certain ones; when there are none, those of the dead are freed first.
    fn take_addresses(&self, network: &str, wanted: Pair) -> Result<Pair, AddressError> {
        let mut state = lock(&self.state);
        loop {
            let addresses = state.addresses.get_mut(network).ok_or(AddressError::NoNetwork)?;
            let refusal = match addresses.take(wanted) {
                Ok(taken) => return Ok(taken),
                Err(refusal) => refusal,
            };
            if !state.has_dead() || matches!(refusal, AddressError::Outside(_)) {
                return Err(refusal);
            }
            let dead = state.collect_dead();
            if dead.is_empty() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else {
                drop(state);
                self.unplug(dead);
                state = lock(&self.state);
            }
        }
    }

    fn sweep(&self) {
        // What cannot be removed now is removed with the next change.
        let _ = self.firewall.sweep();
        lock(&self.state).unswept = false;
        self.changed.notify_all();
    }

    fn unplug(&self, dead: Vec<Endpoint>) {
        if dead.is_empty() {
            return;
        }
        let all = dead.clone();
        let stuck = self.maker.unplug(dead);
        let mut state = lock(&self.state);
        state.unplugging -= all.len();
        for endpoint in all.into_iter().filter(|endpoint| !stuck.contains(endpoint)) {
            state.release_addresses(&endpoint.network, endpoint.pair());
        }
        self.changed.notify_all();
    }
}

impl State {
    /// The endpoints to unplug; the caller does it.
    fn collect_dead(&mut self) -> Vec<Endpoint> {
        self.unplugging += self.dead.len();
        std::mem::take(&mut self.dead)
    }

    fn release_addresses(&mut self, network: &str, held: Pair) {
        if let Some(addresses) = self.addresses.get_mut(network) {
            addresses.release(held);
        }
    }

    fn has_dead(&self) -> bool {
        self.unplugging > 0 || !self.dead.is_empty()
    }

    fn of_kind(&mut self, attachment: Attachment) -> &mut VecDeque<Sandbox> {
        match attachment {
            Attachment::Bridge => &mut self.bridged,
            Attachment::None => &mut self.isolated,
        }
    }
}

/// Locks; what is kept here is consistent at every step, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
