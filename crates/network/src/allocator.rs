//! Which addresses of a network are taken.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

use crate::address::{Ip, Subnet};
use crate::definition::Pool;

/// Why there is no address.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AddressError {
    /// All are taken.
    #[error("no available {0} addresses on this network's address pools")]
    Exhausted(&'static str),
    /// The one that was asked for is taken.
    #[error("Address already in use")]
    Taken,
    /// The one that was asked for is of another network.
    #[error("no configured subnet contains IP address {0}")]
    Outside(IpAddr),
    /// The network is gone.
    #[error("the network is being removed")]
    NoNetwork,
}

/// A container's addresses in one network, or those that it asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// Of IPv4.
    pub ipv4: Option<Ipv4Addr>,
    /// Of IPv6.
    pub ipv6: Option<Ipv6Addr>,
}

/// Who has an address that is not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A container.
    Container,
    /// Nobody: it is of an interface that waits for a container, or that one has left.
    Nobody,
}

/// The addresses of one network, of both families.
#[derive(Clone, Debug, Default)]
pub(crate) struct Space {
    ipv4: Vec<Addresses<Ipv4Addr>>,
    ipv6: Vec<Addresses<Ipv6Addr>>,
}

impl Space {
    /// Those of these pools, all free.
    pub(crate) fn of(ipv4: &[Pool<Ipv4Addr>], ipv6: &[Pool<Ipv6Addr>]) -> Self {
        Self { ipv4: ipv4.iter().map(Addresses::of).collect(), ipv6: ipv6.iter().map(Addresses::of).collect() }
    }

    /// One of each family that there is: the one that was asked for, or the next free one.
    pub(crate) fn take(&mut self, wanted: Pair, holder: Holder) -> Result<Pair, AddressError> {
        let ipv4 = take(&mut self.ipv4, wanted.ipv4, holder, "IPv4")?;
        match take(&mut self.ipv6, wanted.ipv6, holder, "IPv6") {
            Ok(ipv6) => Ok(Pair { ipv4, ipv6 }),
            Err(error) => {
                self.release(Pair { ipv4, ipv6: None });
                Err(error)
            }
        }
    }

    /// Marks what somebody has.
    pub(crate) fn reserve(&mut self, held: Pair) {
        held.ipv4.into_iter().for_each(|address| self.ipv4.iter_mut().for_each(|pool| pool.reserve(address)));
        held.ipv6.into_iter().for_each(|address| self.ipv6.iter_mut().for_each(|pool| pool.reserve(address)));
    }

    /// Passes addresses on that are not free.
    pub(crate) fn pass_on(&mut self, held: Pair, holder: Holder) {
        let pools = self.ipv4.iter_mut().filter_map(|pool| pool.taken.get_mut(&held.ipv4?));
        let pools6 = self.ipv6.iter_mut().filter_map(|pool| pool.taken.get_mut(&held.ipv6?));
        pools.chain(pools6).for_each(|of| *of = holder);
    }

    /// Makes addresses free again.
    pub(crate) fn release(&mut self, held: Pair) {
        held.ipv4.into_iter().for_each(|address| self.ipv4.iter_mut().for_each(|pool| pool.release(address)));
        held.ipv6.into_iter().for_each(|address| self.ipv6.iter_mut().for_each(|pool| pool.release(address)));
    }

    /// Whether no container has any.
    pub(crate) fn is_idle(&self) -> bool {
        self.ipv4.iter().all(Addresses::is_idle) && self.ipv6.iter().all(Addresses::is_idle)
    }
}

fn take<A: Ip>(
    pools: &mut [Addresses<A>],
    wanted: Option<A>,
    holder: Holder,
    family: &'static str,
) -> Result<Option<A>, AddressError> {
    match wanted {
        Some(wanted) => {
            let pool = pools.iter_mut().find(|pool| pool.subnet.contains(wanted));
            pool.ok_or(AddressError::Outside(wanted.into()))?.take_this(wanted, holder)?;
            Ok(Some(wanted))
        }
        None if pools.is_empty() => Ok(None),
        None => pools.iter_mut().find_map(|pool| pool.take(holder)).map(Some).ok_or(AddressError::Exhausted(family)),
    }
}

/// The addresses of one subnet that are handed out.
///
/// The next one is searched upwards from the last: an address that has just become free is left alone for as long as there are
/// others, so that packets and neighbour entries of its last owner do not find the next.
#[derive(Clone, Debug)]
struct Addresses<A: Ip> {
    subnet: Subnet<A>,
    /// The first and the last address that is handed out to who does not ask for a certain one.
    range: (u128, u128),
    /// Those that are nobody's to have.
    reserved: BTreeSet<u128>,
    taken: BTreeMap<A, Holder>,
    next: u128,
}

impl<A: Ip> Addresses<A> {
    /// All free but the network's own, the gateway, those that are somebody else's, and in IPv4 the one that means everybody.
    fn of(pool: &Pool<A>) -> Self {
        let mut reserved: BTreeSet<u128> = pool.reserved.iter().map(|address| address.number()).collect();
        reserved.extend(pool.gateway.map(Ip::number));
        reserved.insert(pool.subnet.network().number());
        if A::BITS == 32 {
            reserved.insert(pool.subnet.last().number());
        }
        let from = pool.range.unwrap_or(pool.subnet);
        let range = (from.network().number(), from.last().number());
        Self { subnet: pool.subnet, range, reserved, taken: BTreeMap::new(), next: range.0 }
    }

    /// Marks an address as a container's, if it is in the subnet.
    fn reserve(&mut self, address: A) {
        if self.subnet.contains(address) {
            self.taken.insert(address, Holder::Container);
            if (self.range.0..=self.range.1).contains(&address.number()) {
                self.next = self.next.max(address.number());
            }
        }
    }

    /// Takes a certain address of the subnet.
    fn take_this(&mut self, address: A, holder: Holder) -> Result<(), AddressError> {
        if self.reserved.contains(&address.number()) || self.taken.contains_key(&address) {
            return Err(AddressError::Taken);
        }
        self.taken.insert(address, holder);
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.taken.values().all(|holder| *holder == Holder::Nobody)
    }

    /// Takes the next free address; `None` when all are taken.
    fn take(&mut self, holder: Holder) -> Option<A> {
        let (first, last) = self.range;
        // Ends long before the last address of a large network: at the first that is neither taken nor reserved.
        for _ in first..=last {
            let candidate = self.next;
            self.next = if candidate == last { first } else { candidate + 1 };
            let address = A::of_number(candidate);
            if self.take_this(address, holder).is_ok() {
                return Some(address);
            }
        }
        None
    }

    fn release(&mut self, address: A) {
        self.taken.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool() -> Pool<Ipv4Addr> {
        let gateway = Some(Ipv4Addr::new(10, 0, 0, 1));
        Pool { subnet: "10.0.0.0/29".parse().unwrap(), gateway, range: None, reserved: Vec::new() }
    }

    fn small() -> Addresses<Ipv4Addr> {
        Addresses::of(&pool())
    }

    fn rest(addresses: &mut Addresses<Ipv4Addr>) -> Vec<u8> {
        std::iter::from_fn(|| addresses.take(Holder::Container)).map(|address| address.octets()[3]).collect()
    }

    #[test]
    fn all_are_handed_out_once_and_the_oldest_freed_first() {
        let mut addresses = small();
        assert_eq!(rest(&mut addresses), [2, 3, 4, 5, 6]);
        addresses.release(Ipv4Addr::new(10, 0, 0, 4));
        assert_eq!(addresses.take(Holder::Container), Some(Ipv4Addr::new(10, 0, 0, 4)));
        assert_eq!(addresses.take(Holder::Container), None);
    }

    #[test]
    fn a_freed_address_rests_while_there_are_others() {
        let mut addresses = small();
        let first = addresses.take(Holder::Container).unwrap();
        addresses.release(first);
        assert_eq!(addresses.take(Holder::Container), Some(Ipv4Addr::new(10, 0, 0, 3)));
    }

    #[test]
    fn reserved_ones_are_skipped_and_strangers_ignored() {
        let mut addresses = small();
        addresses.reserve(Ipv4Addr::new(10, 0, 0, 3));
        addresses.reserve(Ipv4Addr::new(10, 9, 9, 9));
        assert_eq!(rest(&mut addresses), [4, 5, 6, 2]);
    }

    #[test]
    fn a_range_binds_those_who_do_not_ask() {
        let range = Subnet::containing(Ipv4Addr::new(10, 0, 0, 4), 31);
        let mut space = Space::of(&[Pool { range, reserved: vec![Ipv4Addr::new(10, 0, 0, 3)], ..pool() }], &[]);
        let mut ask = |last: u8| {
            let wanted = Pair { ipv4: Some(Ipv4Addr::new(10, 0, last / 100, last % 100)), ipv6: None };
            space.take(wanted, Holder::Container).map(|_| ())
        };
        assert_eq!(ask(6), Ok(()));
        assert_eq!(ask(6), Err(AddressError::Taken));
        assert_eq!(ask(3), Err(AddressError::Taken));
        assert_eq!(ask(103), Err(AddressError::Outside([10, 0, 1, 3].into())));
        assert_eq!(rest(&mut space.ipv4[0]), [4, 5]);
        assert!(!space.is_idle() && small().is_idle());
    }

    #[test]
    fn a_network_is_idle_when_no_container_has_an_address() {
        let mut space = Space::of(&[pool()], &[]);
        let ready = space.take(Pair::default(), Holder::Nobody).unwrap();
        assert!(space.is_idle());
        space.pass_on(ready, Holder::Container);
        assert!(!space.is_idle());
        assert_eq!(space.take(ready, Holder::Nobody), Err(AddressError::Taken));
        space.pass_on(ready, Holder::Nobody);
        assert!(space.is_idle());
        assert_eq!(space.take(ready, Holder::Container), Err(AddressError::Taken), "its interface is still there");
        space.release(ready);
        space.pass_on(ready, Holder::Container);
        assert!(space.is_idle(), "what is free is nobody's to pass on");
    }

    #[test]
    fn both_families_are_taken_or_neither() {
        let six = |text: &str| Pool { subnet: text.parse().unwrap(), gateway: None, range: None, reserved: Vec::new() };
        let mut space = Space::of(&[pool()], &[six("fd00::/126")]);
        let taken: Vec<Pair> = (0..3).map(|_| space.take(Pair::default(), Holder::Container).unwrap()).collect();
        assert_eq!(taken[2].ipv6, Some("fd00::3".parse().unwrap()), "the last is nobody's broadcast");
        assert_eq!(space.take(Pair::default(), Holder::Container), Err(AddressError::Exhausted("IPv6")));
        space.release(taken[0]);
        assert_eq!(space.take(Pair::default(), Holder::Container).unwrap().ipv4, Some(Ipv4Addr::new(10, 0, 0, 6)));
        let mut only = Space::of(&[], &[six("fd00::/64"), six("fd01::/64")]);
        let wanted = Pair { ipv6: Some("fd01::9".parse().unwrap()), ipv4: None };
        assert_eq!(only.take(wanted, Holder::Container), Ok(wanted));
        assert_eq!(only.take(Pair::default(), Holder::Container).unwrap().ipv4, None);
    }

    proptest! {
        #[test]
        fn no_address_is_ever_taken_twice(steps in proptest::collection::vec(any::<(bool, u8)>(), 0..200)) {
            let mut addresses = small();
            let mut held: Vec<Ipv4Addr> = Vec::new();
            for (take, which) in steps {
                if take {
                    let taken = addresses.take(Holder::Container);
                    prop_assert_eq!(taken.is_none(), held.len() == 5);
                    if let Some(taken) = taken {
                        prop_assert!(!held.contains(&taken) && taken.octets()[3] > 1 && taken.octets()[3] < 7);
                        held.push(taken);
                    }
                } else if !held.is_empty() {
                    addresses.release(held.remove(usize::from(which) % held.len()));
                }
            }
        }
    }
}
