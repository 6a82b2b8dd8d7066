//! Choosing a subnet that is free on this host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use netlink::address::LinkAddress;
use netlink::route::Route;
use thiserror::Error;

use crate::address::{Ip, Subnet, SubnetError};
use crate::names::fnv;

/// What else on the host has addresses of a family, as far as a choice of subnet must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Surroundings<A: Ip = Ipv4Addr> {
    /// Networks that a link other than our bridge is in.
    pub(crate) connected: Vec<Subnet<A>>,
    /// Networks that a route leads to by a gateway.
    pub(crate) routed: Vec<Subnet<A>>,
    /// The host's name servers.
    pub(crate) servers: Vec<A>,
}

/// A default route, or half of one, leads everywhere and says nothing about a single network.
pub(crate) const NARROWEST_EVERYWHERE: u8 = 4;

impl<A: Ip> Default for Surroundings<A> {
    fn default() -> Self {
        Self { connected: Vec::new(), routed: Vec::new(), servers: Vec::new() }
    }
}

impl<A: Ip> Surroundings<A> {
    /// Sorts out what the kernel lists; `own` is the bridge's index, if it is there.
    pub(crate) fn of(addresses: &[LinkAddress], routes: &[Route], own: Option<u32>, servers: &[IpAddr]) -> Self {
        let network = |address: IpAddr, prefix: u8| Subnet::containing(A::of(address)?, prefix);
        let mut found = Self::default();
        for address in addresses.iter().filter(|address| Some(address.link) != own && !is_every_links(address.address))
        {
            found.connected.extend(network(address.address, address.prefix));
        }
        let others = routes.iter().filter(|route| route.link != own || own.is_none());
        let others = others.filter(|route| route.prefix > NARROWEST_EVERYWHERE && !is_every_links(route.destination));
        for route in others {
            let list = if route.gateway.is_some() { &mut found.routed } else { &mut found.connected };
            list.extend(network(route.destination, route.prefix));
        }
        found.servers = servers.iter().filter_map(|server| A::of(*server)).collect();
        found
    }

    /// Whether a link of the host is already in (a part of) `subnet`.
    pub(crate) fn is_connected(&self, subnet: Subnet<A>) -> bool {
        self.connected.iter().any(|taken| taken.overlaps(subnet))
    }

    /// The network of the host that `subnet` overlaps with, if there is one.
    pub(crate) fn conflict(&self, subnet: Subnet<A>) -> Option<Subnet<A>> {
        self.connected.iter().copied().find(|taken| taken.overlaps(subnet))
    }

    /// The first of `pools` that nothing on the host leads into, and none of `ours`, the engine's own networks, whose bridges need
    /// not be there just now; failing that, the first that no link is in.
    fn first_free(&self, ours: &[Subnet<A>], pools: impl Iterator<Item = Subnet<A>> + Clone) -> Option<Subnet<A>> {
        let connected = Occupied::of(ours.iter().chain(&self.connected));
        let servers = self.servers.iter().filter_map(|server| Subnet::containing(*server, A::BITS)).collect::<Vec<_>>();
        let known = Occupied::of(ours.iter().chain(&self.connected).chain(&self.routed).chain(&servers));
        let free = |occupied: &Occupied| pools.clone().find(|pool| !occupied.meets(*pool));
        free(&known).or_else(|| free(&connected))
    }
}

impl Surroundings {
    /// A subnet for the default bridge: of the pools that the engine was given, or else of Docker's.
    pub(crate) fn free_pool(&self, given: &[AddressPool]) -> Option<Subnet> {
        match AddressPool::of_family(given) {
            none if none.is_empty() => self.first_free(&[], pools()),
            given => self.first_free(&[], given.into_iter().flat_map(cut)),
        }
    }

    /// The same for a user's network.
    pub(crate) fn free_user_pool(&self, ours: &[Subnet], given: &[AddressPool]) -> Option<Subnet> {
        match AddressPool::of_family(given) {
            none if none.is_empty() => self.first_free(ours, user_pools()),
            given => self.first_free(ours, given.into_iter().flat_map(cut)),
        }
    }
}

impl Surroundings<Ipv6Addr> {
    /// A pool of the engine's, or of unique local addresses, from those of the engine called `identity`.
    pub(crate) fn free_local_pool(
        &self,
        ours: &[Subnet<Ipv6Addr>],
        identity: &str,
        given: &[AddressPool],
    ) -> Option<Subnet<Ipv6Addr>> {
        match AddressPool::of_family(given) {
            none if none.is_empty() => self.first_free(ours, local_pools(identity)),
            given => self.first_free(ours, given.into_iter().flat_map(cut)),
        }
    }
}

/// Addresses that networks are cut from: `--default-address-pool base=10.0.0.0/8,size=24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPool {
    base: IpAddr,
    base_prefix: u8,
    size: u8,
}

/// Why a text is no pool of addresses.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AddressPoolError {
    /// A word of it means nothing.
    #[error("invalid field '{0}' must be a key=value pair")]
    Field(String),
    /// There is no such key.
    #[error("unexpected key '{0}' in '{1}'")]
    Key(String, String),
    /// The base is no network.
    #[error("invalid base pool: {0}")]
    Base(#[from] SubnetError),
    /// Networks cannot be of that size.
    #[error("invalid subnet size {size}: networks of {base} have a prefix of {least} to {most} bits")]
    Size {
        /// What was asked for.
        size: String,
        /// What is cut.
        base: String,
        /// The base's own prefix.
        least: u8,
        /// What leaves room for a gateway and a container.
        most: u8,
    },
}

impl AddressPool {
    fn new<A: Ip>(base: Subnet<A>, size: &str) -> Result<Self, AddressPoolError> {
        let (least, most) = (base.prefix(), A::BITS - 2);
        match size.parse() {
            Ok(size) if (least..=most).contains(&size) => {
                Ok(Self { base: base.network().into(), base_prefix: base.prefix(), size })
            }
            _ => Err(AddressPoolError::Size { size: size.to_owned(), base: base.to_string(), least, most }),
        }
    }

    /// Base and size of those of one family.
    fn of_family<A: Ip>(all: &[Self]) -> Vec<(Subnet<A>, u8)> {
        all.iter()
            .filter_map(|pool| Some((Subnet::containing(A::of(pool.base)?, pool.base_prefix)?, pool.size)))
            .collect()
    }

    /// The base, as it was given.
    pub fn base(&self) -> String {
        format!("{}/{}", self.base, self.base_prefix)
    }

    /// The prefix length of the networks that are cut from it.
    pub fn size(&self) -> u8 {
        self.size
    }
}

impl FromStr for AddressPool {
    type Err = AddressPoolError;

    fn from_str(text: &str) -> Result<Self, AddressPoolError> {
        let (mut base, mut size) = ("", "");
        for field in text.split(',') {
            match field.split_once('=').ok_or_else(|| AddressPoolError::Field(field.to_owned()))? {
                ("base", value) => base = value,
                ("size", value) => size = value,
                (key, _) => return Err(AddressPoolError::Key(key.to_owned(), field.to_owned())),
            }
        }
        if base.contains(':') {
            Self::new(base.parse::<Subnet<Ipv6Addr>>()?, size)
        } else {
            Self::new(base.parse::<Subnet>()?, size)
        }
    }
}

/// Networks that are looked at in one pool, at most: a pool of IPv6 has more than anybody can try.
const CUT_MAX: u128 = 1 << 16;

/// The networks of a prefix of `size` bits in `base`, in order.
fn cut<A: Ip>((base, size): (Subnet<A>, u8)) -> impl Iterator<Item = Subnet<A>> + Clone {
    let step = 1_u128 << (A::BITS - size);
    let count = 1_u128.checked_shl(u32::from(size - base.prefix())).unwrap_or(CUT_MAX).min(CUT_MAX);
    (0..count).filter_map(move |n| Subnet::containing(A::of_number(base.network().number() + n * step), size))
}

/// Addresses that every link has of its own.
pub(crate) fn is_every_links(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_multicast(),
    }
}

/// The 65,536 networks of an engine's own prefix of unique local addresses (RFC 4193), which follows from its identity: two engines
/// hardly ever have the same, and one always has its own.
fn local_pools(identity: &str) -> impl Iterator<Item = Subnet<Ipv6Addr>> + Clone {
    let high = u64::from(fnv(identity.as_bytes()));
    let low = u64::from(fnv(format!("{identity} again").as_bytes()) & 0xff);
    let prefix = u128::from((0xfd << 40) | (high << 8) | low) << 80;
    (0..=u16::MAX)
        .filter_map(move |number| Subnet::containing(Ipv6Addr::from_bits(prefix | (u128::from(number) << 64)), 64))
}

/// Addresses that are somebody's: stretches that do not touch, in order, so that thousands are searched in a moment.
struct Occupied(Vec<(u128, u128)>);

impl Occupied {
    fn of<'a, A: Ip + 'a>(subnets: impl Iterator<Item = &'a Subnet<A>>) -> Self {
        let mut all: Vec<_> = subnets.map(|subnet| (subnet.network().number(), subnet.last().number())).collect();
        all.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match merged.last_mut() {
                Some((_, end)) if first <= *end => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    fn meets<A: Ip>(&self, subnet: Subnet<A>) -> bool {
        let behind = self.0.partition_point(|(first, _)| *first <= subnet.last().number());
        behind > 0 && self.0[behind - 1].1 >= subnet.network().number()
    }
}

/// The subnets of users' networks: the first few as large as Docker's, the next with room for 4,093 containers, and then two thousand
/// for 253, so that nobody runs out of networks. All in the ranges that Docker uses, in its order.
fn user_pools() -> impl Iterator<Item = Subnet> + Clone {
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
fn pools() -> impl Iterator<Item = Subnet> + Clone {
    let large = (17..=31).filter_map(|second| Subnet::containing(Ipv4Addr::new(172, second, 0, 0), 16));
    let small = (0..=240).step_by(16).filter_map(|third| Subnet::containing(Ipv4Addr::new(192, 168, third, 0), 20));
    large.chain(small)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_has_a_prefix_of_its_own() {
        let none = Surroundings::<Ipv6Addr>::default();
        let first = none.free_local_pool(&[], "one", &[]).unwrap();
        assert_eq!(none.free_local_pool(&[], "one", &[]), Some(first));
        assert!(first.network().is_unique_local() && first.prefix() == 64, "{first}");
        let second = none.free_local_pool(&[first], "one", &[]).unwrap();
        assert_eq!(second.network().segments()[..3], first.network().segments()[..3]);
        assert_ne!(second, first);
        assert_ne!(
            none.free_local_pool(&[], "two", &[]).unwrap().network().segments()[..3],
            first.network().segments()[..3]
        );
    }

    fn subnets(texts: &[&str]) -> Vec<Subnet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_first_free_pool_is_taken() {
        let check = |connected: &[&str], routed: &[&str], expected: &str| {
            let surroundings =
                Surroundings { connected: subnets(connected), routed: subnets(routed), servers: Vec::new() };
            assert_eq!(surroundings.free_pool(&[]), Some(expected.parse().unwrap()), "{connected:?} {routed:?}");
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
        while let Some(pool) = surroundings.free_user_pool(&ours, &[]) {
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
    fn pools_of_the_engine_come_before_dockers() {
        let pool = |text: &str| text.parse::<AddressPool>();
        let given = [pool("base=10.9.0.0/23,size=24").unwrap(), pool("base=fd00:9::/56,size=64").unwrap()];
        let none = Surroundings::<Ipv4Addr>::default();
        let mut ours = Vec::new();
        while let Some(network) = none.free_user_pool(&ours, &given) {
            ours.push(network);
        }
        assert_eq!(ours, subnets(&["10.9.0.0/24", "10.9.1.0/24"]));
        assert_eq!(none.free_pool(&given), Some(ours[0]));
        let none = Surroundings::<Ipv6Addr>::default();
        assert_eq!(none.free_local_pool(&[], "x", &given).unwrap().to_string(), "fd00:9::/64");
        assert!(none.free_local_pool(&[], "x", &given[..1]).unwrap().network().is_unique_local());
        for (text, message) in [
            ("base=10.0.0.0/8", "invalid subnet size"),
            ("base=10.0.0.0/8,size=7", "prefix of 8 to 30 bits"),
            ("base=10.0.0.0/8,size=31", "prefix of 8 to 30 bits"),
            ("base=10.0.0.1/8,size=24", "invalid base pool"),
            ("size=24", "invalid base pool"),
            ("10.0.0.0/8", "must be a key=value pair"),
            ("base=10.0.0.0/8,size=24,x=y", "unexpected key 'x'"),
        ] {
            let refused = pool(text).unwrap_err().to_string();
            assert!(refused.contains(message), "{text}: {refused}");
        }
    }

    #[test]
    fn a_name_server_is_not_cut_off() {
        let servers = vec![Ipv4Addr::new(172, 17, 0, 53)];
        let surroundings = Surroundings { servers, ..Surroundings::default() };
        assert_eq!(surroundings.free_pool(&[]), Some("172.18.0.0/16".parse().unwrap()));
    }

    #[test]
    fn there_may_be_none() {
        let connected = subnets(&["172.16.0.0/12", "192.168.0.0/16"]);
        assert_eq!(Surroundings { connected, ..Surroundings::default() }.free_pool(&[]), None);
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
        let found = Surroundings::<Ipv4Addr>::of(&addresses, &routes, Some(3), &["192.0.2.53".parse().unwrap()]);
        assert_eq!(found.connected, subnets(&["172.18.0.0/16"]));
        assert_eq!(found.routed, subnets(&["10.0.0.0/8"]));
        assert_eq!(found.servers, [Ipv4Addr::new(192, 0, 2, 53)]);
    }
}
