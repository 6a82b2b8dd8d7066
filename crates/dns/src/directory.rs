//! Who is called what on which network.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A container's place on one network, as others there find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The network's id.
    pub network: String,
    /// What it is called: `web.front` is found as well as `web`.
    pub network_name: String,
    /// Whether it is cut off from everything outside.
    pub internal: bool,
    /// The container's addresses on it.
    pub addresses: Vec<IpAddr>,
    /// The names that it is found by; the first is the one that its addresses are called.
    pub names: Vec<String>,
    /// Names that it alone has for others there: what, and whose, by a name that all there know or by the client's own key.
    pub links: Vec<(String, String)>,
}

/// What a name or an address leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// These addresses, at least one, of either family.
    Addresses(Vec<IpAddr>),
    /// This name.
    Name(String),
    /// Nothing that is known here.
    Unknown,
}

/// The names of all networks. Locked for a look-up or a change only.
#[derive(Debug, Default)]
pub struct Directory {
    state: RwLock<State>,
    turn: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    clients: HashMap<String, Vec<Membership>>,
    /// By network and name in lower case: who has it, and where.
    names: HashMap<(String, String), Vec<(String, IpAddr)>>,
    /// By network: what an address is called.
    pointers: HashMap<(String, IpAddr), String>,
}

impl Directory {
    /// Says all there is to say of a container, in the place of what was said before.
    pub fn put(&self, client: &str, memberships: Vec<Membership>) {
        let mut state = self.write();
        state.forget(client);
        state.learn(client, memberships);
    }

    /// Forgets a container.
    pub fn remove(&self, client: &str) {
        self.write().forget(client);
    }

    /// What a name leads to for a client: on its own networks, in their order. Several that share a name take turns at being first.
    pub(crate) fn by_name(&self, client: &str, name: &str) -> Found {
        let state = self.read();
        for membership in state.memberships(client) {
            let network = &membership.network;
            let suffix = format!(".{}", membership.network_name.to_lowercase());
            let short = name.strip_suffix(&suffix);
            let link = membership.links.iter().find(|(alias, _)| alias.to_lowercase() == name);
            if let Some(addresses) = link.and_then(|(_, other)| state.addresses_of(other, network)) {
                return Found::Addresses(addresses);
            }
            for candidate in std::iter::once(name).chain(short) {
                if let Some(found) = state.names.get(&(network.clone(), candidate.to_owned())) {
                    let mut addresses: Vec<IpAddr> = found.iter().map(|(_, address)| *address).collect();
                    let turn = self.turn.fetch_add(1, Ordering::Relaxed) % addresses.len().max(1);
                    addresses.rotate_left(turn);
                    return Found::Addresses(addresses);
                }
            }
        }
        Found::Unknown
    }

    /// What an address is called for a client.
    pub(crate) fn by_address(&self, client: &str, address: IpAddr) -> Found {
        let state = self.read();
        let name = state
            .memberships(client)
            .iter()
            .find_map(|membership| state.pointers.get(&(membership.network.clone(), address)).cloned());
        name.map_or(Found::Unknown, Found::Name)
    }

    /// Whether a client reaches nothing outside: then nothing of it is told outside either.
    pub(crate) fn is_cut_off(&self, client: &str) -> bool {
        self.read().memberships(client).iter().all(|membership| membership.internal)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn memberships(&self, client: &str) -> &[Membership] {
        self.clients.get(client).map(Vec::as_slice).unwrap_or_default()
    }

    /// Where a container is on a network, by its key or by a name that it has there; none when it is not there.
    fn addresses_of(&self, client: &str, network: &str) -> Option<Vec<IpAddr>> {
        let there = self.memberships(client).iter().find(|membership| membership.network == network);
        let named = || self.names.get(&(network.to_owned(), client.to_lowercase()));
        let addresses = match there {
            Some(there) => there.addresses.clone(),
            None => named()?.iter().map(|(_, address)| *address).collect(),
        };
        Some(addresses).filter(|addresses| !addresses.is_empty())
    }

    fn learn(&mut self, client: &str, memberships: Vec<Membership>) {
        for membership in &memberships {
            for name in &membership.names {
                let key = (membership.network.clone(), name.to_lowercase());
                let places = self.names.entry(key).or_default();
                places.extend(membership.addresses.iter().map(|address| (client.to_owned(), *address)));
            }
            let Some(own) = membership.names.first() else { continue };
            for address in &membership.addresses {
                let name = format!("{own}.{}", membership.network_name);
                self.pointers.insert((membership.network.clone(), *address), name);
            }
        }
        self.clients.insert(client.to_owned(), memberships);
    }

    fn forget(&mut self, client: &str) {
        for membership in self.clients.remove(client).unwrap_or_default() {
            for name in &membership.names {
                let key = (membership.network.clone(), name.to_lowercase());
                if let Some(places) = self.names.get_mut(&key) {
                    places.retain(|(owner, _)| owner != client);
                    if places.is_empty() {
                        self.names.remove(&key);
                    }
                }
            }
            for address in &membership.addresses {
                self.pointers.remove(&(membership.network.clone(), *address));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership(network: &str, address: &str, names: &[&str]) -> Membership {
        Membership {
            network: network.to_owned(),
            network_name: network.to_owned(),
            internal: network == "inside",
            addresses: vec![address.parse().unwrap()],
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            links: Vec::new(),
        }
    }

    #[test]
    fn a_link_is_a_name_for_one_alone() {
        let directory = Directory::default();
        let mut linked = membership("front", "10.0.0.1", &["web"]);
        linked.links =
            vec![("Store".into(), "2".into()), ("gone".into(), "9".into()), ("later".into(), "Cache".into())];
        directory.put("1", vec![linked]);
        directory.put("2", vec![membership("front", "10.0.0.2", &["db"])]);
        assert_eq!(directory.by_name("1", "store"), found(&["10.0.0.2"]));
        assert_eq!(directory.by_name("2", "store"), Found::Unknown);
        assert_eq!(directory.by_name("1", "gone"), Found::Unknown);
        assert_eq!(directory.by_name("1", "later"), Found::Unknown);
        directory.put("3", vec![membership("front", "10.0.0.3", &["cache"])]);
        assert_eq!(directory.by_name("1", "later"), found(&["10.0.0.3"]), "who came after the link");
    }

    fn found(addresses: &[&str]) -> Found {
        Found::Addresses(addresses.iter().map(|address| address.parse().unwrap()).collect())
    }

    #[test]
    fn names_are_those_of_ones_own_networks() {
        let directory = Directory::default();
        directory.put("1", vec![membership("front", "10.0.0.1", &["Web", "www"])]);
        directory.put("2", vec![membership("front", "10.0.0.2", &["db"]), membership("inside", "10.1.0.2", &["db"])]);
        directory.put("3", vec![membership("inside", "10.1.0.3", &["job"])]);
        assert_eq!(directory.by_name("2", "web"), found(&["10.0.0.1"]));
        assert_eq!(directory.by_name("2", "www.front"), found(&["10.0.0.1"]));
        assert_eq!(directory.by_name("3", "web"), Found::Unknown);
        assert_eq!(directory.by_name("3", "db"), found(&["10.1.0.2"]));
        assert_eq!(directory.by_address("3", "10.1.0.2".parse().unwrap()), Found::Name("db.inside".into()));
        assert_eq!(directory.by_address("3", "10.0.0.2".parse().unwrap()), Found::Unknown);
        assert!(directory.is_cut_off("3") && !directory.is_cut_off("2"));
        directory.remove("2");
        assert_eq!(directory.by_name("3", "db"), Found::Unknown);
    }

    #[test]
    fn who_shares_a_name_takes_turns() {
        let directory = Directory::default();
        for (client, address) in [("1", "10.0.0.1"), ("2", "10.0.0.2")] {
            directory.put(client, vec![membership("front", address, &["web"])]);
        }
        let both = [directory.by_name("1", "web"), directory.by_name("1", "web")];
        assert!(both.contains(&found(&["10.0.0.1", "10.0.0.2"])) && both.contains(&found(&["10.0.0.2", "10.0.0.1"])));
        directory.put("2", vec![membership("front", "10.0.0.2", &["other"])]);
        assert_eq!(directory.by_name("1", "web"), found(&["10.0.0.1"]));
    }
}
