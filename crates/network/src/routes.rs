//! Routes of the host that lead to what is a network's of ours: a VPN that comes up over it takes the host's packets for its
//! containers, or loses some of its own to it.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink::Socket;
use netlink::route::Route;

use crate::address::{Ip, Subnet};
use crate::definition::Definition;
use crate::names::Names;
use crate::pools::{NARROWEST_EVERYWHERE, is_every_links};

/// A route of somebody else that overlaps with a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteConflict {
    /// The network's id.
    pub network: String,
    /// The network's addresses.
    pub subnet: String,
    /// The route, as `ip route` writes it.
    pub route: String,
    /// The first address that it leads to, and the length of the prefix that it has in common with the others.
    pub destination: (IpAddr, u8),
    /// What it means.
    pub loses: Loses,
}

/// Whose packets the host sends the wrong way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loses {
    /// The network's: the route is narrower.
    Network,
    /// One of the two: they are equally wide.
    Either,
    /// The route's: the network is a part of it.
    Route,
}

impl RouteConflict {
    /// Whether the host sends what is for this address of the network by the route, for sure or perhaps.
    pub(crate) fn misleads(&self, address: IpAddr) -> bool {
        fn leads_to<A: Ip>((first, prefix): (IpAddr, u8), address: A) -> bool {
            A::of(first).and_then(|first| Subnet::containing(first, prefix)).is_some_and(|net| net.contains(address))
        }
        self.loses != Loses::Route
            && match address {
                IpAddr::V4(address) => leads_to(self.destination, address),
                IpAddr::V6(address) => leads_to(self.destination, address),
            }
    }
}

impl fmt::Display for RouteConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subnet, route, .. } = self;
        write!(f, "the host's route to {route} overlaps with the network's {subnet}: ")?;
        f.write_str(match self.loses {
            Loses::Network => "containers there are not reached from the host, nor by published ports",
            Loses::Either => "the host reaches only one of the two, which the routes' metrics decide",
            Loses::Route => "the host does not reach what has these addresses behind that route",
        })
    }
}

/// Looks at the host's routes, and remembers which links are whose.
#[derive(Debug)]
pub(crate) struct Lookout {
    names: Names,
    socket: Socket,
    /// Those that routes of the last look lead by.
    known: HashMap<u32, Whose>,
    links: HashMap<u32, Whose>,
}

/// Whose a link is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Whose {
    Ours,
    /// Somebody else's, of this name.
    Other(String),
}

impl Lookout {
    pub(crate) fn new(names: Names, socket: Socket) -> Self {
        Self { names, socket, known: HashMap::new(), links: HashMap::new() }
    }

    /// What overlaps now, by network; nothing where the kernel does not say.
    pub(crate) fn look(&mut self, networks: &[impl AsRef<Definition>]) -> Vec<RouteConflict> {
        self.known = std::mem::take(&mut self.links);
        let mut found = self.of_family::<Ipv4Addr>(networks);
        found.extend(self.of_family::<Ipv6Addr>(networks));
        found.sort();
        found.dedup();
        found
    }

    fn of_family<A: Ip>(&mut self, networks: &[impl AsRef<Definition>]) -> Vec<RouteConflict> {
        let mut subnets: Vec<(Subnet<A>, &str)> =
            networks.iter().flat_map(|network| subnets(network.as_ref())).collect();
        subnets.sort();
        if subnets.is_empty() {
            return Vec::new();
        }
        let routes = self.socket.routes_of(A::VERSION).unwrap_or_default();
        let mut found = Vec::new();
        for route in routes {
            let overlapping = overlapping(&subnets, &route);
            if overlapping.is_empty() {
                continue;
            }
            let Some(text) = self.describe(&route) else { continue };
            found.extend(overlapping.iter().map(|(subnet, network)| RouteConflict {
                network: (*network).to_owned(),
                subnet: subnet.to_string(),
                route: text.clone(),
                destination: (route.destination, route.prefix),
                loses: match route.prefix.cmp(&subnet.prefix()) {
                    std::cmp::Ordering::Greater => Loses::Network,
                    std::cmp::Ordering::Equal => Loses::Either,
                    std::cmp::Ordering::Less => Loses::Route,
                },
            }));
        }
        found
    }

    /// A route as `ip route` writes it, unless it is one of ours.
    fn describe(&mut self, route: &Route) -> Option<String> {
        let mut text = format!("{}/{}", route.destination, route.prefix);
        if let Some(gateway) = route.gateway {
            text.push_str(&format!(" via {gateway}"));
        }
        match route.link.map(|link| self.whose(link)) {
            Some(Whose::Ours) => return None,
            Some(Whose::Other(name)) => text.push_str(&format!(" dev {name}")),
            None => {}
        }
        Some(text)
    }

    fn whose(&mut self, link: u32) -> Whose {
        if let Some(known) = self.links.get(&link).or_else(|| self.known.get(&link)).cloned() {
            self.links.insert(link, known.clone());
            return known;
        }
        let found = self.socket.link_by_index(link).ok().flatten();
        let whose = match found {
            Some(found) if found.alias == self.names.alias() || self.names.is_host_end(&found.name) => Whose::Ours,
            Some(found) => Whose::Other(found.name),
            // It is on its way out, and its routes with it.
            None => return Whose::Ours,
        };
        self.links.insert(link, whose.clone());
        whose
    }
}

/// The subnets of a network of one family, where packets pass the host.
fn subnets<A: Ip>(network: &Definition) -> Vec<(Subnet<A>, &str)> {
    if !network.driver.passes_the_host() {
        return Vec::new();
    }
    let ipv4 = network.ipv4.iter().map(|pool| pool.subnet.parts());
    let all = ipv4.chain(network.ipv6.iter().map(|pool| pool.subnet.parts()));
    let of_family = |(first, prefix): (IpAddr, u8)| Subnet::containing(A::of(first)?, prefix);
    all.filter_map(of_family).map(|subnet| (subnet, network.id.as_str())).collect()
}

/// Of subnets in order, which have no address in common, those that a route leads into. A route to everything leads nowhere in
/// particular.
fn overlapping<'a, 'b, A: Ip>(subnets: &'a [(Subnet<A>, &'b str)], route: &Route) -> &'a [(Subnet<A>, &'b str)] {
    let destination = A::of(route.destination).and_then(|first| Subnet::containing(first, route.prefix));
    let Some(destination) = destination else { return &[] };
    if route.prefix <= NARROWEST_EVERYWHERE || is_every_links(route.destination) {
        return &[];
    }
    let first = subnets.partition_point(|(subnet, _)| subnet.last() < destination.network());
    let end = subnets.partition_point(|(subnet, _)| subnet.network() <= destination.last());
    subnets.get(first..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_meets_what_it_has_addresses_in_common_with() {
        let subnets: Vec<(Subnet, &str)> =
            ["10.1.0.0/24", "10.1.1.0/24", "10.2.0.0/16"].map(|text| (text.parse().unwrap(), text)).to_vec();
        let check = |destination: &str, prefix, expected: &[&str]| {
            let route = Route::by_link(destination.parse().unwrap(), prefix, 7);
            let found: Vec<&str> = overlapping(&subnets, &route).iter().map(|(_, text)| *text).collect();
            assert_eq!(found, expected, "{destination}/{prefix}");
        };
        check("10.0.0.0", 8, &["10.1.0.0/24", "10.1.1.0/24", "10.2.0.0/16"]);
        check("10.1.0.0", 23, &["10.1.0.0/24", "10.1.1.0/24"]);
        check("10.1.1.128", 25, &["10.1.1.0/24"]);
        check("10.2.0.0", 16, &["10.2.0.0/16"]);
        check("10.3.0.0", 16, &[]);
        check("0.0.0.0", 0, &[]);
        check("0.0.0.0", 1, &[]);
        check("fd00::", 64, &[]);
    }
}
