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

    /// The first of Docker's pools that nothing on the host leads into; failing that, the first that no link is in.
    pub(crate) fn free_pool(&self) -> Option<Subnet> {
        pools().find(|&pool| !self.is_known(pool)).or_else(|| pools().find(|&pool| !self.is_connected(pool)))
    }
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
