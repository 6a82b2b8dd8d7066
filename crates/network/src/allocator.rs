//! Which addresses of a subnet are taken.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::address::Subnet;

/// The addresses of one subnet that are handed out.
///
/// The next one is searched upwards from the last: an address that has just become free is left alone for as long as there are
/// others, so that packets and neighbour entries of its last owner do not find the next.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    subnet: Subnet,
    /// The first and the last address that is handed out to who does not ask for a certain one.
    range: (u32, u32),
    /// Those that are nobody's to have.
    reserved: BTreeSet<u32>,
    taken: BTreeSet<u32>,
    next: u32,
}

/// Why a certain address cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is in another network.
    Outside,
    /// Somebody has it, or nobody can.
    Taken,
}

impl Addresses {
    /// All free but the network's own, the broadcast address and `gateway`.
    pub(crate) fn new(subnet: Subnet, gateway: Ipv4Addr) -> Self {
        let reserved = BTreeSet::from([subnet.network().to_bits(), subnet.broadcast().to_bits(), gateway.to_bits()]);
        let range = (subnet.network().to_bits(), subnet.broadcast().to_bits());
        Self { subnet, range, reserved, taken: BTreeSet::new(), next: range.0 }
    }

    /// The same, but what nobody asks for comes from `range` alone, and `excluded` are never handed out.
    pub(crate) fn within(mut self, range: Option<Subnet>, excluded: &[Ipv4Addr]) -> Self {
        if let Some(range) = range {
            self.range = (range.network().to_bits(), range.broadcast().to_bits());
            self.next = self.range.0;
        }
        self.reserved.extend(excluded.iter().map(|address| address.to_bits()));
        self
    }

    /// Marks an address as taken, if it is in the subnet.
    pub(crate) fn reserve(&mut self, address: Ipv4Addr) {
        if self.subnet.contains(address) {
            self.taken.insert(address.to_bits());
            if (self.range.0..=self.range.1).contains(&address.to_bits()) {
                self.next = self.next.max(address.to_bits());
            }
        }
    }

    /// Takes a certain address.
    pub(crate) fn take_this(&mut self, address: Ipv4Addr) -> Result<(), Refusal> {
        if !self.subnet.contains(address) {
            return Err(Refusal::Outside);
        }
        let address = address.to_bits();
        if self.reserved.contains(&address) || !self.taken.insert(address) { Err(Refusal::Taken) } else { Ok(()) }
    }

    /// Whether nobody has any.
    pub(crate) fn is_idle(&self) -> bool {
        self.taken.is_empty()
    }

    /// Takes the next free address; `None` when all are taken.
    pub(crate) fn take(&mut self) -> Option<Ipv4Addr> {
        let (first, last) = self.range;
        for _ in first..=last {
            let candidate = self.next;
            self.next = if candidate == last { first } else { candidate + 1 };
            if !self.reserved.contains(&candidate) && self.taken.insert(candidate) {
                return Some(Ipv4Addr::from_bits(candidate));
            }
        }
        None
    }

    /// Makes an address free again.
    pub(crate) fn release(&mut self, address: Ipv4Addr) {
        self.taken.remove(&address.to_bits());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn small() -> Addresses {
        Addresses::new("10.0.0.0/29".parse().unwrap(), Ipv4Addr::new(10, 0, 0, 1))
    }

    #[test]
    fn all_are_handed_out_once_and_the_oldest_freed_first() {
        let mut addresses = small();
        let all: Vec<u8> = std::iter::from_fn(|| addresses.take()).map(|address| address.octets()[3]).collect();
        assert_eq!(all, [2, 3, 4, 5, 6]);
        addresses.release(Ipv4Addr::new(10, 0, 0, 4));
        assert_eq!(addresses.take(), Some(Ipv4Addr::new(10, 0, 0, 4)));
        assert_eq!(addresses.take(), None);
    }

    #[test]
    fn a_freed_address_rests_while_there_are_others() {
        let mut addresses = small();
        let first = addresses.take().unwrap();
        addresses.release(first);
        assert_eq!(addresses.take(), Some(Ipv4Addr::new(10, 0, 0, 3)));
    }

    #[test]
    fn reserved_ones_are_skipped_and_strangers_ignored() {
        let mut addresses = small();
        addresses.reserve(Ipv4Addr::new(10, 0, 0, 3));
        addresses.reserve(Ipv4Addr::new(10, 9, 9, 9));
        let rest: Vec<u8> = std::iter::from_fn(|| addresses.take()).map(|address| address.octets()[3]).collect();
        assert_eq!(rest, [4, 5, 6, 2]);
    }

    #[test]
    fn a_range_binds_those_who_do_not_ask() {
        let range =
            Some("10.0.0.4/31".parse().unwrap_or_else(|_| Subnet::containing(Ipv4Addr::new(10, 0, 0, 4), 31).unwrap()));
        let mut addresses = small().within(range, &[Ipv4Addr::new(10, 0, 0, 3)]);
        assert_eq!(addresses.take_this(Ipv4Addr::new(10, 0, 0, 6)), Ok(()));
        assert_eq!(addresses.take_this(Ipv4Addr::new(10, 0, 0, 6)), Err(Refusal::Taken));
        assert_eq!(addresses.take_this(Ipv4Addr::new(10, 0, 0, 3)), Err(Refusal::Taken));
        assert_eq!(addresses.take_this(Ipv4Addr::new(10, 0, 1, 3)), Err(Refusal::Outside));
        let rest: Vec<u8> = std::iter::from_fn(|| addresses.take()).map(|address| address.octets()[3]).collect();
        assert_eq!(rest, [4, 5]);
        assert!(!addresses.is_idle() && small().is_idle());
    }

    proptest! {
        #[test]
        fn no_address_is_ever_taken_twice(steps in proptest::collection::vec(any::<(bool, u8)>(), 0..200)) {
            let mut addresses = small();
            let mut held: Vec<Ipv4Addr> = Vec::new();
            for (take, which) in steps {
                if take {
                    let taken = addresses.take();
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
