//! From a request to a network's definition: Docker's checks, in its words, and what is not built, by name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use network::{Names, Subnet, SubnetError};

use crate::model::{EngineError, IpamPool, NetworkRequest};

/// What a request asks for, checked; the subnet may still have to be chosen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) pool: Option<Pool>,
    pub(super) options: DriverOptions,
}

/// An IPv4 pool.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pool {
    pub(super) subnet: Subnet,
    pub(super) range: Option<Subnet>,
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) auxiliary: BTreeMap<String, IpAddr>,
}

/// What the bridge driver's options mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DriverOptions {
    pub(super) interface: Option<String>,
    pub(super) talk: bool,
    pub(super) masquerade: bool,
    pub(super) mtu: Option<u32>,
    pub(super) host_binding: Option<IpAddr>,
}

/// The longest name of an interface.
const INTERFACE_NAME_MAX: usize = 15;

/// Checks a request for a bridge network.
pub(super) fn check(request: &NetworkRequest) -> Result<Wanted, EngineError> {
    let refuse = |what: &str| Err(EngineError::not_implemented(format!("{what} is not built")));
    if request.enable_ipv6 {
        return refuse("IPv6 for networks (EnableIPv6)");
    }
    if request.enable_ipv4 == Some(false) {
        return refuse("a network without IPv4 (EnableIPv4)");
    }
    if request.config_only || !request.config_from.is_empty() {
        return refuse("a network configuration (ConfigOnly, ConfigFrom)");
    }
    if !matches!(request.ipam_driver.as_str(), "" | "default") {
        return Err(EngineError::invalid(format!("could not find IPAM driver: {}", request.ipam_driver)));
    }
    Ok(Wanted { pool: pool(&request.pools)?, options: options(&request.options)? })
}

fn options(given: &BTreeMap<String, String>) -> Result<DriverOptions, EngineError> {
    let mut options = DriverOptions { interface: None, talk: true, masquerade: true, mtu: None, host_binding: None };
    for (key, value) in given {
        match key.as_str() {
            "com.docker.network.bridge.name" => options.interface = Some(interface(value)?),
            "com.docker.network.bridge.enable_icc" => options.talk = switch(key, value)?,
            "com.docker.network.bridge.enable_ip_masquerade" => options.masquerade = switch(key, value)?,
            "com.docker.network.driver.mtu" => options.mtu = Some(mtu(value)?),
            "com.docker.network.bridge.host_binding_ipv4" => {
                let address = value.parse::<Ipv4Addr>().map_err(|_| {
                    EngineError::invalid(format!("failed to parse {key}: \"{value}\" is not an IPv4 address"))
                })?;
                options.host_binding = Some(address.into());
            }
            "com.docker.network.bridge.gateway_mode_ipv4" if matches!(value.as_str(), "" | "nat") => {}
            _ if key.starts_with("com.docker.network.") => {
                return Err(EngineError::not_implemented(format!("the network option {key}={value} is not built")));
            }
            // As with Docker, what the driver does not know is kept and shown.
            _ => {}
        }
    }
    Ok(options)
}

fn switch(key: &str, value: &str) -> Result<bool, EngineError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(EngineError::invalid(format!("failed to parse {key} value \"{value}\": invalid syntax"))),
    }
}

fn mtu(value: &str) -> Result<u32, EngineError> {
    const SMALLEST: u32 = 68;
    const LARGEST: u32 = 65535;
    let wrong = || EngineError::invalid(format!("invalid value for MTU: \"{value}\""));
    value.parse().ok().filter(|mtu| (SMALLEST..=LARGEST).contains(mtu)).ok_or_else(wrong)
}

fn interface(name: &str) -> Result<String, EngineError> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"/:".contains(&byte);
    if name.is_empty() || name.len() > INTERFACE_NAME_MAX || !name.bytes().all(plain) || matches!(name, "." | "..") {
        return Err(EngineError::invalid(format!("invalid bridge name \"{name}\": expected an interface name")));
    }
    Ok(name.to_owned())
}

fn pool(pools: &[IpamPool]) -> Result<Option<Pool>, EngineError> {
    let mut problems = Vec::new();
    let mut found = Vec::new();
    for pool in pools {
        match one_pool(pool) {
            Ok(pool) => found.extend(pool),
            Err(more) => problems.extend(more),
        }
    }
    if !problems.is_empty() {
        return Err(EngineError::invalid(format!("invalid network config:\n{}", problems.join("\n"))));
    }
    match found.len() {
        0 | 1 => Ok(found.pop()),
        _ => Err(EngineError::forbidden("bridge driver doesn't support multiple IPv4 subnets")),
    }
}

/// A pool, none when it says nothing; or everything that is wrong with it.
fn one_pool(pool: &IpamPool) -> Result<Option<Pool>, Vec<String>> {
    if pool.subnet.is_empty() {
        let says_more = pool.range.is_some() || pool.gateway.is_some() || !pool.auxiliary.is_empty();
        let problem = "invalid subnet : invalid CIDR block notation".to_owned();
        return if says_more { Err(vec![problem]) } else { Ok(None) };
    }
    if pool.subnet.contains(':') {
        return Err(vec![format!("IPv6 subnets such as {} are not built", pool.subnet)]);
    }
    let subnet: Subnet = pool.subnet.parse().map_err(|error| vec![subnet_problem("subnet", &pool.subnet, &error)])?;
    let mut problems = Vec::new();
    let range = pool.range.as_deref().filter(|text| !text.is_empty());
    let range = range.and_then(|text| range_in(subnet, text).map_err(|problem| problems.push(problem)).ok());
    let mut inside = |what: &str, address: IpAddr| match address {
        IpAddr::V4(address) if subnet.contains(address) => Some(address),
        IpAddr::V4(_) => {
            problems.push(format!("invalid {what} {address}: parent subnet {subnet} doesn't contain this address"));
            None
        }
        IpAddr::V6(_) => {
            problems.push(format!("invalid {what} {address}: parent subnet is an IPv4 block"));
            None
        }
    };
    let gateway = pool.gateway.and_then(|gateway| inside("gateway", gateway));
    for address in pool.auxiliary.values() {
        inside("auxiliary address", *address);
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Some(Pool { subnet, range, gateway, auxiliary: pool.auxiliary.clone() }))
}

fn subnet_problem(what: &str, text: &str, error: &SubnetError) -> String {
    match error {
        SubnetError::HostBits { network, .. } => format!("invalid {what} {text}: it should be {network}"),
        SubnetError::TooSmall(_) => error.to_string(),
        SubnetError::Malformed(_) => format!("invalid {what} {text}: invalid CIDR block notation"),
    }
}

/// The part of a subnet that addresses are handed out from; it may be as small as one address.
fn range_in(subnet: Subnet, text: &str) -> Result<Subnet, String> {
    let malformed = || format!("invalid ip-range {text}: invalid CIDR block notation");
    let (address, prefix) = text.split_once('/').ok_or_else(malformed)?;
    let address: Ipv4Addr = address.parse().map_err(|_| malformed())?;
    let range = prefix.parse().ok().and_then(|prefix| Subnet::containing(address, prefix)).ok_or_else(malformed)?;
    if range.prefix() < subnet.prefix() {
        return Err(format!("invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}"));
    }
    if range.network() != address {
        return Err(format!("invalid ip-range {text}: it should be {range}"));
    }
    if !subnet.contains(address) {
        return Err(format!("invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range"));
    }
    Ok(range)
}

impl Pool {
    /// One that was chosen by the engine.
    pub(super) fn chosen(subnet: Subnet) -> Self {
        Self { subnet, range: None, gateway: None, auxiliary: BTreeMap::new() }
    }

    /// The gateway: as given, or the first address that is nobody else's.
    pub(super) fn gateway(&self) -> Ipv4Addr {
        let taken: BTreeSet<IpAddr> = self.auxiliary.values().copied().collect();
        let start = self.range.map_or(self.subnet.network(), Subnet::network);
        let first = if start == self.subnet.network() { self.subnet.gateway() } else { start };
        let last = self.subnet.broadcast().to_bits();
        let free = (first.to_bits()..last).map(Ipv4Addr::from_bits).find(|address| !taken.contains(&(*address).into()));
        self.gateway.or(free).unwrap_or(first)
    }

    /// The addresses that are somebody else's.
    pub(super) fn reserved(&self) -> Vec<Ipv4Addr> {
        let v4 = |address: &IpAddr| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        };
        self.auxiliary.values().filter_map(v4).collect()
    }

    /// As inspect shows it: what was given, and the gateway.
    pub(super) fn shown(&self) -> IpamPool {
        IpamPool {
            subnet: self.subnet.to_string(),
            range: self.range.map(|range| range.to_string()),
            gateway: Some(self.gateway().into()),
            auxiliary: self.auxiliary.clone(),
        }
    }
}

impl DriverOptions {
    /// The bridge's interface.
    pub(super) fn interface(&self, id: &str) -> String {
        self.interface.clone().unwrap_or_else(|| Names::user_bridge(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool_of(subnet: &str, range: &str, gateway: &str) -> IpamPool {
        IpamPool {
            subnet: subnet.to_owned(),
            range: Some(range.to_owned()).filter(|range| !range.is_empty()),
            gateway: gateway.parse().ok(),
            auxiliary: BTreeMap::new(),
        }
    }

    #[test]
    fn pools_are_checked_in_dockers_words() {
        for (subnet, range, gateway, problem) in [
            ("10.0.0.0", "", "", "invalid subnet 10.0.0.0: invalid CIDR block notation"),
            ("10.0.0.1/24", "", "", "invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24"),
            ("10.0.0.0/24", "10.0.0.0/16", "", "CIDR block is bigger than its parent subnet 10.0.0.0/24"),
            ("10.0.0.0/24", "10.0.1.0/25", "", "parent subnet 10.0.0.0/24 doesn't contain ip-range"),
            ("10.0.0.0/24", "10.0.0.1/25", "", "invalid ip-range 10.0.0.1/25: it should be 10.0.0.0/25"),
            ("10.0.0.0/24", "", "10.0.1.1", "invalid gateway 10.0.1.1: parent subnet 10.0.0.0/24 doesn't contain"),
            ("", "", "10.0.1.1", "invalid subnet : invalid CIDR block notation"),
        ] {
            let error = pool(&[pool_of(subnet, range, gateway)]).unwrap_err();
            assert!(error.message().contains(problem), "{} / {problem}", error.message());
        }
        assert!(pool(&[pool_of("10.0.0.0/24", "", ""), pool_of("10.1.0.0/24", "", "")]).is_err());
        assert_eq!(pool(&[pool_of("", "", "")]).unwrap(), None);
    }

    #[test]
    fn the_gateway_is_the_first_address_of_the_range() {
        let gateway = |subnet: &str, range: &str| pool(&[pool_of(subnet, range, "")]).unwrap().unwrap().gateway();
        assert_eq!(gateway("10.0.0.0/24", ""), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(gateway("10.0.0.0/24", "10.0.0.128/25"), Ipv4Addr::new(10, 0, 0, 128));
        let mut pool = pool(&[pool_of("10.0.0.0/24", "", "")]).unwrap().unwrap();
        pool.auxiliary.insert("router".into(), "10.0.0.1".parse().unwrap());
        assert_eq!(pool.gateway(), Ipv4Addr::new(10, 0, 0, 2));
    }

    #[test]
    fn options_are_understood_kept_or_refused() {
        let of = |key: &str, value: &str| options(&BTreeMap::from([(key.to_owned(), value.to_owned())]));
        assert!(!of("com.docker.network.bridge.enable_icc", "false").unwrap().talk);
        assert_eq!(of("com.docker.network.driver.mtu", "1400").unwrap().mtu, Some(1400));
        assert_eq!(of("mine", "x").unwrap(), of("com.docker.network.bridge.gateway_mode_ipv4", "nat").unwrap());
        for (key, value) in [
            ("com.docker.network.bridge.enable_icc", "maybe"),
            ("com.docker.network.driver.mtu", "-1"),
            ("com.docker.network.bridge.name", "a/b"),
            ("com.docker.network.bridge.inhibit_ipv4", "true"),
            ("com.docker.network.bridge.gateway_mode_ipv4", "routed"),
        ] {
            assert!(of(key, value).is_err(), "{key}={value}");
        }
    }
}
