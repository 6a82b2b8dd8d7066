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
    taken: BTreeSet<u32>,
    next: u32,
}

impl Addresses {
    /// All free but the network's own, the broadcast address and `gateway`.
    pub(crate) fn new(subnet: Subnet, gateway: Ipv4Addr) -> Self {
        let taken = BTreeSet::from([subnet.network().to_bits(), subnet.broadcast().to_bits(), gateway.to_bits()]);
        Self { subnet, taken, next: subnet.network().to_bits() }
    }

    /// Marks an address as taken, if it is in the subnet.
    pub(crate) fn reserve(&mut self, address: Ipv4Addr) {
        if self.subnet.contains(address) {
            self.taken.insert(address.to_bits());
            self.next = self.next.max(address.to_bits());
        }
    }

    /// Takes the next free address; `None` when all are taken.
    pub(crate) fn take(&mut self) -> Option<Ipv4Addr> {
        if self.taken.len() as u64 >= self.subnet.size() {
            return None;
        }
        let (first, last) = (self.subnet.network().to_bits(), self.subnet.broadcast().to_bits());
        loop {
            let candidate = self.next;
            self.next = if candidate == last { first } else { candidate + 1 };
            if self.taken.insert(candidate) {
                return Some(Ipv4Addr::from_bits(candidate));
            }
        }
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
