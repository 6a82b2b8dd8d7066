//! Choosing a subnet that is free on this host.

use std::net::{IpAddr, Ipv4Addr};

use netlink::address::LinkAddress;
use netlink::route::Route;

use crate::address::Subnet;

/// What else on the host has IPv4 addresses, as far as a choice of subnet must know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// Networks that a link other than our bridge is in.
    pub(crate) connected: Vec<Subnet>,
    /// Networks that a route leads to by a gateway.
    pub(crate) routed: Vec<Subnet>,
    /// The host's name servers.
    pub(crate) servers: Vec<Ipv4Addr>,
}

impl Surroundings {
    /// Sorts out what the kernel lists; `own` is the bridge's index, if it is there.
    pub(crate) fn of(addresses: &[LinkAddress], routes: &[Route], own: Option<u32>, servers: &[IpAddr]) -> Self {
        let network = |address: IpAddr, prefix: u8| match address {
            IpAddr::V4(address) => Subnet::containing(address, prefix),
            IpAddr::V6(_) => None,
        };
        let mut found = Self::default();
        for address in addresses.iter().filter(|address| Some(address.link) != own) {
            found.connected.extend(network(address.address, address.prefix));
        }
        // A default route, or half of one, leads everywhere and says nothing about a single network.
        const NARROWEST_EVERYWHERE: u8 = 4;
        let others = routes.iter().filter(|route| route.link != own || own.is_none());
        for route in others.filter(|route| route.prefix > NARROWEST_EVERYWHERE) {
            let list = if route.gateway.is_some() { &mut found.routed } else { &mut found.connected };
            list.extend(network(route.destination, route.prefix));
        }
        found.servers = servers
            .iter()
            .filter_map(|server| match server {
                IpAddr::V4(server) => Some(*server),
                IpAddr::V6(_) => None,
            })
            .collect();
        found
    }

    /// Whether a link of the host is already in (a part of) `subnet`.
    pub(crate) fn is_connected(&self, subnet: Subnet) -> bool {
        self.connected.iter().any(|taken| taken.overlaps(subnet))
    }

    fn is_known(&self, subnet: Subnet) -> bool {
        self.is_connected(subnet)
            || self.routed.iter().any(|taken| taken.overlaps(subnet))
            || self.servers.iter().any(|&server| subnet.contains(server))
    }

    /// The network of the host that `subnet` overlaps with, if there is one.
    pub(crate) fn conflict(&self, subnet: Subnet) -> Option<Subnet> {
        self.connected.iter().copied().find(|taken| taken.overlaps(subnet))
    }

    /// The first of Docker's pools that nothing on the host leads into; failing that, the first that no link is in.
    pub(crate) fn free_pool(&self) -> Option<Subnet> {
        pools().find(|&pool| !self.is_known(pool)).or_else(|| pools().find(|&pool| !self.is_connected(pool)))
    }

    /// The same for a user's network, where `ours` are the engine's own networks, whose bridges need not be there just now.
    pub(crate) fn free_user_pool(&self, ours: &[Subnet]) -> Option<Subnet> {
        let connected = Occupied::of(ours.iter().chain(&self.connected));
        let servers = self.servers.iter().filter_map(|server| Subnet::containing(*server, 32)).collect::<Vec<_>>();
        let known = Occupied::of(ours.iter().chain(&self.connected).chain(&self.routed).chain(&servers));
        let free = |occupied: &Occupied| user_pools().find(|pool| !occupied.meets(*pool));
        free(&known).or_else(|| free(&connected))
    }
}

/// Addresses that are somebody's: stretches that do not touch, in order, so that thousands are searched in a moment.
struct Occupied(Vec<(u32, u32)>);

impl Occupied {
    fn of<'a>(subnets: impl Iterator<Item = &'a Subnet>) -> Self {
        let mut all: Vec<_> =
            subnets.map(|subnet| (subnet.network().to_bits(), subnet.broadcast().to_bits())).collect();
        all.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match merged.last_mut() {
                Some((_, end)) if first <= *end => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    fn meets(&self, subnet: Subnet) -> bool {
        let behind = self.0.partition_point(|(first, _)| *first <= subnet.broadcast().to_bits());
        behind > 0 && self.0[behind - 1].1 >= subnet.network().to_bits()
    }
}

/// The subnets of users' networks: the first few as large as Docker's, the next with room for 4,093 containers, and then two thousand
/// for 253, so that nobody runs out of networks. All in the ranges that Docker uses, in its order.
fn user_pools() -> impl Iterator<Item = Subnet> {
    let cut = |seconds: std::ops::RangeInclusive<u8>, prefix: u8| {
        let step = 1_u32 << (32 - prefix);
        seconds.flat_map(move |second| {
            let first = Ipv4Addr::new(172, second, 0, 0).to_bits();
            (0..(1_u32 << 16) / step)
                .filter_map(move |n| Subnet::containing(Ipv4Addr::from_bits(first + n * step), prefix))
        })
    };
    let tail = (0..=240).step_by(16).filter_map(|third| Subnet::containing(Ipv4Addr::new(192, 168, third, 0), 20));
    cut(17..=21, 16).chain(cut(22..=23, 20)).chain(cut(24..=31, 24)).chain(tail)
}

/// The subnets that Docker takes its networks from, in its order.
fn pools() -> impl Iterator<Item = Subnet> {
    let large = (17..=31).filter_map(|second| Subnet::containing(Ipv4Addr::new(172, second, 0, 0), 16));
    let small = (0..=240).step_by(16).filter_map(|third| Subnet::containing(Ipv4Addr::new(192, 168, third, 0), 20));
    large.chain(small)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnets(texts: &[&str]) -> Vec<Subnet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_first_free_pool_is_taken() {
        let check = |connected: &[&str], routed: &[&str], expected: &str| {
            let surroundings =
                Surroundings { connected: subnets(connected), routed: subnets(routed), servers: Vec::new() };
            assert_eq!(surroundings.free_pool(), Some(expected.parse().unwrap()), "{connected:?} {routed:?}");
        };
        check(&[], &[], "172.17.0.0/16");
        check(&["172.17.0.0/16"], &[], "172.18.0.0/16");
        check(&["172.17.5.0/24"], &["172.18.0.0/15"], "172.20.0.0/16");
        check(&["172.16.0.0/12"], &[], "192.168.0.0/20");
        check(&["172.16.0.0/12", "192.168.1.0/24"], &[], "192.168.16.0/20");
        // Everything is routed somewhere: only what is connected counts.
        check(&["172.17.0.0/16"], &["172.16.0.0/12", "192.168.0.0/16"], "172.18.0.0/16");
    }

    #[test]
    fn two_thousand_networks_find_room() {
        let surroundings =
            Surroundings { connected: subnets(&["172.17.0.0/16", "172.24.3.0/24"]), ..Surroundings::default() };
        let mut ours = Vec::new();
        while let Some(pool) = surroundings.free_user_pool(&ours) {
            ours.push(pool);
        }
        assert!(ours.len() > 2000, "{}", ours.len());
        assert_eq!(ours[0], "172.18.0.0/16".parse().unwrap());
        assert!(!ours.iter().any(|pool| surroundings.is_connected(*pool)));
        let mut sorted = ours.clone();
        sorted.sort();
        assert!(sorted.windows(2).all(|pair| !pair[0].overlaps(pair[1])));
    }

    #[test]
    fn a_name_server_is_not_cut_off() {
        let servers = vec![Ipv4Addr::new(172, 17, 0, 53)];
        let surroundings = Surroundings { servers, ..Surroundings::default() };
        assert_eq!(surroundings.free_pool(), Some("172.18.0.0/16".parse().unwrap()));
    }

    #[test]
    fn there_may_be_none() {
        let connected = subnets(&["172.16.0.0/12", "192.168.0.0/16"]);
        assert_eq!(Surroundings { connected, ..Surroundings::default() }.free_pool(), None);
    }

    #[test]
    fn our_own_bridge_and_default_routes_do_not_count() {
        let address = |link, address: &str| LinkAddress { link, address: address.parse().unwrap(), prefix: 16 };
        let route = |link, destination: &str, prefix| Route {
            destination: destination.parse().unwrap(),
            prefix,
            ..Route::default_by("192.0.2.1".parse().unwrap(), link)
        };
        let addresses = [address(3, "172.17.0.1"), address(4, "172.18.0.1"), address(4, "fd00::1")];
        let routes =
            [route(4, "0.0.0.0", 0), route(4, "128.0.0.0", 1), route(3, "172.17.0.0", 16), route(4, "10.0.0.0", 8)];
        let found = Surroundings::of(&addresses, &routes, Some(3), &["192.0.2.53".parse().unwrap()]);
        assert_eq!(found.connected, subnets(&["172.18.0.0/16"]));
        assert_eq!(found.routed, subnets(&["10.0.0.0/8"]));
        assert_eq!(found.servers, [Ipv4Addr::new(192, 0, 2, 53)]);
    }
}
