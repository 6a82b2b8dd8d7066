//! The supply of ready namespaces, and the thread that keeps it up.
//!
//! ```text
//!            take ─▶ ready? hand it out ─────────────▶ wake the thread: make another
//!                    none?  make one on the spot (one maker at a time; meanwhile the thread's next may do)
//!         release ─▶ list of dead endpoints ─────────▶ wake the thread: unplug them together, free their addresses
//! ```
//!
//! There is a stock of namespaces with loopback alone, one of the default bridge's, and one of each network of users that a container
//! was made for or started on lately ([`KEPT`]). What a stock holds is nobody's: a network goes with it, and an address or a port of
//! the bridge that a container wants is taken from it.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::allocator::{AddressError, Holder, Pair, Space};
use crate::definition::Definition;
use crate::endpoint::{DEFAULT_NETWORK, Endpoint, Sandbox};
use crate::firewall::Firewall;
use crate::maker::{MakeError, Maker};
use crate::networks::Attachment;

/// As much that is dead is taken care of even before the supply is full again.
const DEAD_LIMIT: usize = 64;
/// What is dead waits this long for company: the kernel takes almost as long to delete one interface as a hundred, and nobody else
/// changes anything meanwhile. Who needs its address or its name does not wait.
const LINGER: Duration = Duration::from_millis(200);
/// So much is deleted at a time: nobody else changes anything of the host's interfaces meanwhile.
pub(crate) const UNPLUGGED_MAX: usize = 128;
/// A network of users is supplied for as long as this after somebody has asked for one of its namespaces.
const KEPT: Duration = Duration::from_secs(60);
/// So many of them are at a time; the one that was asked for longest ago makes room.
const SUPPLIED_MAX: usize = 8;
/// How many are ready on such a network beside those for containers that are made and not yet started.
const SPARE: usize = 2;

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
    /// How many there are to be of a kind, at most.
    target: usize,
}

#[derive(Debug)]
struct State {
    /// Few: of loopback alone, of the default bridge, and of networks that were asked for lately.
    stocks: Vec<Stock>,
    /// What the thread makes just now.
    making: Option<Kind>,
    dead: Vec<Dead>,
    /// Since when there is something dead.
    dead_since: Instant,
    /// Whether rules are left over in the kernel.
    unswept: bool,
    /// What more is being unplugged just now.
    unplugging: Vec<Dead>,
    /// By id.
    networks: HashMap<String, Network>,
    phase: Phase,
}

/// A network and who has which of its addresses.
#[derive(Debug)]
struct Network {
    definition: Arc<Definition>,
    addresses: Space,
}

/// What is to be deleted of the host's interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Dead {
    /// The pair of an endpoint that is over.
    Endpoint(Endpoint),
    /// What a network hung off, by name.
    Link(String),
}

impl Dead {
    /// The interface's name; empty where the host has no end.
    pub(crate) fn interface(&self) -> &str {
        match self {
            Self::Endpoint(endpoint) => &endpoint.host_interface,
            Self::Link(name) => name,
        }
    }
}

/// The network that a namespace is on; `None` for loopback alone.
type Kind = Option<String>;

/// Ready namespaces of one kind.
#[derive(Debug)]
struct Stock {
    kind: Kind,
    ready: Vec<Sandbox>,
    /// How many there are to be.
    target: usize,
    /// Making one failed, or a container needed what one had: none is made ahead until someone asks again.
    halted: bool,
    /// Until when it is kept; `None` for ever.
    until: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The supply is kept up.
    Supplying,
    /// The thread is to end.
    Closing,
}

/// What the thread does next.
enum Task {
    Make(Kind),
    Unplug(Vec<Dead>),
    Sweep,
    End,
}

impl Supply {
    /// Starts the thread, which keeps up to `target` namespaces of each kind ready. `networks` are all with their addresses.
    pub(crate) fn start(
        maker: Maker,
        firewall: Arc<Firewall>,
        networks: impl Iterator<Item = (Arc<Definition>, Space)>,
        target: usize,
    ) -> Result<Self, std::io::Error> {
        let networks = networks
            .map(|(definition, addresses)| (definition.id.clone(), Network { definition, addresses }))
            .collect();
        let lasting = |kind| Stock { kind, ready: Vec::new(), target, halted: false, until: None };
        let state = State {
            stocks: vec![lasting(Some(DEFAULT_NETWORK.to_owned())), lasting(None)],
            making: None,
            dead: Vec::new(),
            dead_since: Instant::now(),
            unswept: false,
            unplugging: Vec::new(),
            networks,
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
        let kind = match attachment {
            Attachment::Bridge => Some(DEFAULT_NETWORK.to_owned()),
            Attachment::None => None,
        };
        if let Some(ready) = self.shared.take_ready(&kind) {
            return Ok(ready);
        }
        let _one_at_a_time = lock(&self.shared.making);
        if let Some(ready) = self.shared.take_ready(&kind) {
            return Ok(ready);
        }
        let made = self.shared.make_elsewhere(&kind)?;
        lock(&self.shared.state).pass_on(made.endpoint.as_ref(), Holder::Container);
        Ok(made)
    }

    /// A namespace on a network of users, if one is ready or on its way.
    pub(crate) fn take_if_ready(&self, network: &str) -> Option<Sandbox> {
        let kind = Some(network.to_owned());
        if let Some(ready) = self.shared.take_ready(&kind) {
            return Some(ready);
        }
        let mut state = lock(&self.shared.state);
        while state.making.as_ref() == Some(&kind) && state.stock(&kind).is_some_and(|stock| stock.ready.is_empty()) {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.hand_out(&kind)
    }

    /// Has a namespace made ready on a network of users, for a container that will want it soon.
    pub(crate) fn expect(&self, network: &str) {
        let mut state = lock(&self.shared.state);
        let target = self.shared.target;
        if let Some(stock) = state.ask(&Some(network.to_owned()), target) {
            stock.target = (stock.target + 1).min(target);
        }
        self.shared.changed.notify_all();
    }

    /// Makes a network and its addresses known.
    pub(crate) fn add_network(&self, definition: Arc<Definition>) {
        let network = Network { addresses: definition.space(), definition };
        lock(&self.shared.state).networks.insert(network.definition.id.clone(), network);
    }

    /// Forgets a network if no container has an address of it, and says whether that was so. What is left of it is unplugged behind
    /// the answer.
    pub(crate) fn remove_network(&self, network: &str) -> bool {
        let mut state = lock(&self.shared.state);
        if state.networks.get(network).is_some_and(|network| !network.addresses.is_idle()) {
            return false;
        }
        state.networks.remove(network);
        state.give_up(|stock| stock.kind.as_deref() == Some(network));
        self.shared.changed.notify_all();
        true
    }

    /// Addresses of a network, for a container; [`Supply::release`] of their endpoint gives them back.
    pub(crate) fn take_addresses(&self, network: &str, wanted: Pair) -> Result<Pair, AddressError> {
        self.shared.take_addresses(network, wanted, Holder::Container)
    }

    /// Gives addresses back that were never used.
    pub(crate) fn return_addresses(&self, network: &str, held: Pair) {
        lock(&self.shared.state).release_addresses(network, held);
    }

    /// Unplugs what is ready on a network, and says whether there was any: a container needs the room.
    pub(crate) fn make_room(&self, network: &str) -> bool {
        let mut state = lock(&self.shared.state);
        if !state.reclaim(network, Pair::default()) {
            return false;
        }
        while state.has_dead() {
            state = self.shared.unplug_or_wait(state);
        }
        true
    }

    /// Has an interface of the host deleted that nobody needs any more.
    pub(crate) fn bury_link(&self, name: &str) {
        lock(&self.shared.state).add_dead(Dead::Link(name.to_owned()));
        self.shared.changed.notify_all();
    }

    /// Waits until an interface is gone that is to be deleted: somebody wants its name.
    pub(crate) fn outlive_link(&self, name: &str) {
        let link = Dead::Link(name.to_owned());
        let mut state = lock(&self.shared.state);
        while state.dead.contains(&link) || state.unplugging.contains(&link) {
            state = self.shared.unplug_or_wait(state);
        }
    }

    /// The maker, for what is done to a namespace after it was taken.
    pub(crate) fn maker(&self) -> &Maker {
        &self.shared.maker
    }

    /// Takes an ended container's endpoint back.
    pub(crate) fn release(&self, endpoint: Endpoint) {
        let mut state = lock(&self.shared.state);
        state.bury(endpoint);
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
        while state.has_dead() || state.unswept || state.making.is_some() || state.wanted().is_some() {
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
        let mut state = lock(&self.shared.state);
        state.give_up(|_| true);
        while !state.dead.is_empty() {
            state = self.shared.unplug_or_wait(state);
        }
    }
}

impl Drop for Supply {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn take_ready(&self, kind: &Kind) -> Option<Sandbox> {
        let mut state = lock(&self.state);
        let stock = state.ask(kind, self.target)?;
        if stock.until.is_some() {
            stock.target = stock.target.saturating_sub(1).max(SPARE.min(self.target));
        }
        let sandbox = state.hand_out(kind);
        self.changed.notify_all();
        sandbox
    }

    /// The thread: one task after the other.
    fn work(&self) {
        loop {
            match self.next_task() {
                Task::End => return,
                Task::Unplug(dead) => self.unplug(dead),
                Task::Sweep => self.sweep(),
                Task::Make(kind) => self.make_ahead(&kind),
            }
        }
    }

    fn next_task(&self) -> Task {
        let mut state = lock(&self.state);
        loop {
            let now = Instant::now();
            state.give_up(|stock| stock.until.is_some_and(|until| until <= now));
            let wanted = state.wanted();
            let ripe = state.dead_since + LINGER;
            let is_ripe = ripe <= now || state.phase == Phase::Closing;
            if state.dead.len() >= DEAD_LIMIT || (!state.dead.is_empty() && wanted.is_none() && is_ripe) {
                return Task::Unplug(state.collect_dead());
            }
            if state.unswept && (wanted.is_none() || state.phase == Phase::Closing) {
                return Task::Sweep;
            }
            if state.phase == Phase::Closing {
                return Task::End;
            }
            if let Some(kind) = wanted {
                state.making = Some(kind.clone());
                return Task::Make(kind);
            }
            let ripe = (!state.dead.is_empty()).then_some(ripe);
            let next = state.stocks.iter().filter_map(|stock| stock.until).chain(ripe).min();
            let patience = next.map_or(KEPT, |next| next.saturating_duration_since(now));
            let waited = self.changed.wait_timeout(state, patience);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn make_ahead(&self, kind: &Kind) {
        // Held until it is in the supply, so that who waits to make one finds it there.
        let _one_at_a_time = lock(&self.making);
        let made = self.make_here(kind);
        let mut state = lock(&self.state);
        state.making = None;
        match made {
            Ok(sandbox) => state.put(kind, sandbox),
            // Whoever asks for one gets the reason; trying over and over would only burn time.
            Err(_) => state.stock(kind).into_iter().for_each(|stock| stock.halted = true),
        }
        self.changed.notify_all();
    }

    /// Makes one on a thread of its own, because the caller's must stay where it is.
    fn make_elsewhere(&self, kind: &Kind) -> Result<Sandbox, SupplyError> {
        thread::scope(|scope| {
            let helper = thread::Builder::new().name("network-maker".to_owned());
            let helper = helper.spawn_scoped(scope, || self.make_here(kind)).map_err(SupplyError::Thread)?;
            match helper.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn make_here(&self, kind: &Kind) -> Result<Sandbox, SupplyError> {
        let made = match kind {
            None => self.maker.isolated_here().map_err(SupplyError::from),
            Some(network) => self.make_joined_here(network),
        };
        self.maker.return_home().map_err(MakeError::from)?;
        made
    }

    fn make_joined_here(&self, network: &str) -> Result<Sandbox, SupplyError> {
        let held = self.take_addresses(network, Pair::default(), Holder::Nobody).map_err(SupplyError::NoAddress)?;
        let definition = lock(&self.state).networks.get(network).map(|network| Arc::clone(&network.definition));
        let definition = definition.ok_or(SupplyError::NoAddress(AddressError::NoNetwork))?;
        self.maker.joined_here(&definition, held).map_err(|error| {
            lock(&self.state).release_addresses(network, held);
            error.into()
        })
    }

    /// Free addresses, or certain ones; when there are none, those of the dead are freed first, and for a container those of what is
    /// ready.
    fn take_addresses(&self, network: &str, wanted: Pair, holder: Holder) -> Result<Pair, AddressError> {
        let mut state = lock(&self.state);
        loop {
            let addresses = &mut state.networks.get_mut(network).ok_or(AddressError::NoNetwork)?.addresses;
            let refusal = match addresses.take(wanted, holder) {
                Ok(taken) => return Ok(taken),
                Err(refusal) => refusal,
            };
            if matches!(refusal, AddressError::Outside(_)) {
                return Err(refusal);
            }
            let reclaimed = holder == Holder::Container && state.reclaim(network, wanted);
            if !reclaimed && !state.has_dead() {
                return Err(refusal);
            }
            state = self.unplug_or_wait(state);
        }
    }

    /// Unplugs what is dead, or waits for something to change where another does so already.
    fn unplug_or_wait<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let dead = state.collect_dead();
        if dead.is_empty() {
            return self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        self.unplug(dead);
        lock(&self.state)
    }

    fn sweep(&self) {
        // What cannot be removed now is removed with the next change.
        let _ = self.firewall.sweep();
        lock(&self.state).unswept = false;
        self.changed.notify_all();
    }

    fn unplug(&self, dead: Vec<Dead>) {
        let stuck = self.maker.unplug(&dead);
        if dead.iter().any(|one| matches!(one, Dead::Link(_))) {
            // A network's part in the rules goes with what it hung off; what stays goes with the next change.
            let _ = self.firewall.sweep();
        }
        let mut state = lock(&self.state);
        for one in dead {
            state.unplugging.retain(|other| *other != one);
            match one {
                Dead::Endpoint(endpoint) if !stuck.contains(&endpoint.host_interface) => {
                    state.release_addresses(&endpoint.network, endpoint.pair());
                }
                _ => {}
            }
        }
        self.changed.notify_all();
    }
}

impl State {
    fn stock(&mut self, kind: &Kind) -> Option<&mut Stock> {
        self.stocks.iter_mut().find(|stock| stock.kind == *kind)
    }

    /// The stock of a kind that somebody asks for: it is kept on, or there is one from now on; `None` for networks that nothing is
    /// made ready for.
    fn ask(&mut self, kind: &Kind, target: usize) -> Option<&mut Stock> {
        if self.stock(kind).is_none() {
            let network = self.networks.get(kind.as_deref()?)?;
            if !network.definition.driver.passes_the_host() {
                return None;
            }
            self.make_way();
            let target = SPARE.min(target);
            self.stocks.push(Stock {
                kind: kind.clone(),
                ready: Vec::new(),
                target,
                halted: false,
                until: Some(Instant::now()),
            });
        }
        let stock = self.stock(kind)?;
        stock.halted = false;
        stock.until = stock.until.map(|_| Instant::now() + KEPT);
        Some(stock)
    }

    /// Gives up the stock that was asked for longest ago where there are too many.
    fn make_way(&mut self) {
        let passing = self.stocks.iter().filter_map(|stock| stock.until);
        if passing.clone().count() >= SUPPLIED_MAX
            && let Some(oldest) = passing.min()
        {
            self.give_up(|stock| stock.until == Some(oldest));
        }
    }

    /// Takes a ready namespace out for a container.
    fn hand_out(&mut self, kind: &Kind) -> Option<Sandbox> {
        let ready = &mut self.stock(kind)?.ready;
        let sandbox = if ready.is_empty() { return None } else { ready.remove(0) };
        self.pass_on(sandbox.endpoint.as_ref(), Holder::Container);
        Some(sandbox)
    }

    fn pass_on(&mut self, endpoint: Option<&Endpoint>, holder: Holder) {
        let Some(endpoint) = endpoint else { return };
        if let Some(network) = self.networks.get_mut(&endpoint.network) {
            network.addresses.pass_on(endpoint.pair(), holder);
        }
    }

    /// Puts one into its stock, if that is still wanted.
    fn put(&mut self, kind: &Kind, sandbox: Sandbox) {
        let network = sandbox.endpoint.as_ref().map(|endpoint| endpoint.network.as_str());
        let is_known = network.is_none_or(|network| self.networks.contains_key(network));
        match self.stock(kind) {
            Some(stock) if is_known => stock.ready.push(sandbox),
            _ => sandbox.endpoint.into_iter().for_each(|endpoint| self.bury(endpoint)),
        }
    }

    fn bury(&mut self, endpoint: Endpoint) {
        self.pass_on(Some(&endpoint), Holder::Nobody);
        self.add_dead(Dead::Endpoint(endpoint));
    }

    fn add_dead(&mut self, dead: Dead) {
        if self.dead.is_empty() {
            self.dead_since = Instant::now();
        }
        self.dead.push(dead);
    }

    /// Does away with stocks and what is in them.
    fn give_up(&mut self, test: impl Fn(&Stock) -> bool) {
        let gone: Vec<Stock> = self.stocks.extract_if(.., |stock| test(stock)).collect();
        let unused = gone.into_iter().flat_map(|stock| stock.ready).filter_map(|sandbox| sandbox.endpoint);
        unused.for_each(|endpoint| self.bury(endpoint));
    }

    /// Buries what is ready on a network and has one of the wanted addresses, or all where none is named; says whether there was any.
    fn reclaim(&mut self, network: &str, wanted: Pair) -> bool {
        let has_wanted = |endpoint: &Endpoint| {
            let held = endpoint.pair();
            let same4 = wanted.ipv4.is_some() && wanted.ipv4 == held.ipv4;
            wanted == Pair::default() || same4 || (wanted.ipv6.is_some() && wanted.ipv6 == held.ipv6)
        };
        let Some(stock) = self.stocks.iter_mut().find(|stock| stock.kind.as_deref() == Some(network)) else {
            return false;
        };
        let in_the_way = |sandbox: &mut Sandbox| sandbox.endpoint.as_ref().is_some_and(has_wanted);
        let gone: Vec<Sandbox> = stock.ready.extract_if(.., in_the_way).collect();
        // Or what is freed would be taken for another at once.
        stock.halted |= !gone.is_empty();
        let found = !gone.is_empty();
        gone.into_iter().filter_map(|sandbox| sandbox.endpoint).for_each(|endpoint| self.bury(endpoint));
        found
    }

    /// The kind that the supply is shortest of.
    fn wanted(&self) -> Option<Kind> {
        if self.phase == Phase::Closing {
            return None;
        }
        let short = self.stocks.iter().filter(|stock| !stock.halted && stock.ready.len() < stock.target);
        short.min_by_key(|stock| stock.ready.len()).map(|stock| stock.kind.clone())
    }

    /// What to unplug next; the caller does it.
    fn collect_dead(&mut self) -> Vec<Dead> {
        let next: Vec<Dead> = self.dead.drain(..self.dead.len().min(UNPLUGGED_MAX)).collect();
        self.unplugging.extend(next.iter().cloned());
        next
    }

    fn release_addresses(&mut self, network: &str, held: Pair) {
        if let Some(network) = self.networks.get_mut(network) {
            network.addresses.release(held);
        }
    }

    fn has_dead(&self) -> bool {
        !self.unplugging.is_empty() || !self.dead.is_empty()
    }
}

/// Locks; what is kept here is consistent at every step, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
