//! From a request to a network's definition: Docker's checks, in its words, and what is not built, by name.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use network::{Border, Driver, GatewayMode, Ip, IpvlanFlag, IpvlanMode, MacvlanMode, Names, Subnet, SubnetError};

use crate::model::{EngineError, ErrorKind, IpamPool, NetworkRequest};

/// What a request asks for, checked; subnets may still have to be chosen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) driver: Kind,
    pub(super) ipv4: Pools<Ipv4Addr>,
    pub(super) ipv6: Pools<Ipv6Addr>,
    pub(super) options: DriverOptions,
}

/// A driver, and what it needs of the host.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bridge,
    Routed,
    /// Sharing the cable of an interface of the host, or of none.
    Share {
        driver: Driver,
        parent: Option<String>,
    },
}

/// The addresses of one family.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pools<A: Ip> {
    /// None: the network does without the family.
    None,
    /// Whichever are free.
    Any,
    /// These.
    These(Vec<Pool<A>>),
}

/// A pool.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pool<A: Ip> {
    pub(super) subnet: Subnet<A>,
    pub(super) range: Option<Subnet<A>>,
    pub(super) gateway: Option<A>,
    pub(super) auxiliary: BTreeMap<String, A>,
}

/// What the driver's options mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DriverOptions {
    pub(super) interface: Option<String>,
    pub(super) talk: bool,
    pub(super) border4: Border,
    pub(super) border6: Border,
    pub(super) mtu: Option<u32>,
    pub(super) host_binding: Option<IpAddr>,
    /// Whether the bridge goes without an IPv4 address of its own.
    pub(super) inhibit_ipv4: bool,
    /// Interfaces of the host from which containers are reached by their own addresses.
    pub(super) trusted: Vec<String>,
    /// What interfaces in containers are called, before their number.
    pub(super) interface_prefix: Option<String>,
    parent: Option<String>,
    macvlan_mode: MacvlanMode,
    ipvlan_mode: IpvlanMode,
    ipvlan_flag: IpvlanFlag,
}

/// The longest name of an interface.
const INTERFACE_NAME_MAX: usize = 15;

/// Checks a request for a network.
pub(super) fn check(request: &NetworkRequest) -> Result<Wanted, EngineError> {
    if !matches!(request.ipam_driver.as_str(), "" | "default") {
        return Err(EngineError::invalid(format!("could not find IPAM driver: {}", request.ipam_driver)));
    }
    let has_ipv4 = request.enable_ipv4 != Some(false);
    if !has_ipv4 && !request.enable_ipv6 {
        return Err(EngineError::invalid("IPv4 or IPv6 must be enabled"));
    }
    let (ipv6, ipv4): (Vec<&IpamPool>, Vec<&IpamPool>) =
        request.pools.iter().partition(|pool| pool.subnet.contains(':'));
    let (ipv4, ipv6) = (pools(&ipv4), pools(&ipv6));
    let (ipv4, ipv6) = match (ipv4, ipv6) {
        (Ok(ipv4), Ok(ipv6)) => (ipv4, ipv6),
        (ipv4, ipv6) => {
            let problems = [ipv4.err(), ipv6.err()].into_iter().flatten().flatten().collect::<Vec<_>>();
            return Err(EngineError::invalid(format!("invalid network config:\n{}", problems.join("\n"))));
        }
    };
    let options = options(&request.driver, &request.options)?;
    if !request.internal && [options.border4.mode, options.border6.mode].contains(&GatewayMode::Isolated) {
        return Err(EngineError::invalid("gateway mode 'isolated' can only be used for an internal network"));
    }
    ipv4.iter().try_for_each(Pool::check_auxiliary)?;
    ipv6.iter().try_for_each(Pool::check_auxiliary)?;
    let driver = kind(&request.driver, &options);
    let most = if matches!(driver, Kind::Share { .. }) { usize::MAX } else { 1 };
    Ok(Wanted {
        driver,
        ipv4: of_family("IPv4", has_ipv4, ipv4, most)?,
        // As with Docker, what is said of IPv6 is kept and shown, and nothing comes of it unless there is to be IPv6.
        ipv6: if request.enable_ipv6 { of_family("IPv6", true, ipv6, most)? } else { Pools::None },
        options,
    })
}

/// The driver of a name that was checked.
fn kind(name: &str, options: &DriverOptions) -> Kind {
    let parent = options.parent.clone();
    match name {
        "routed" => Kind::Routed,
        "macvlan" => Kind::Share { driver: Driver::Macvlan(options.macvlan_mode), parent },
        "ipvlan" => Kind::Share { driver: Driver::Ipvlan(options.ipvlan_mode, options.ipvlan_flag), parent },
        _ => Kind::Bridge,
    }
}

/// The drivers that an option is for.
fn is_for(key: &str, driver: &str) -> bool {
    match key {
        "parent" => matches!(driver, "macvlan" | "ipvlan"),
        "macvlan_mode" => driver == "macvlan",
        "ipvlan_mode" | "ipvlan_flag" => driver == "ipvlan",
        "com.docker.network.bridge.name" => !matches!(driver, "macvlan" | "ipvlan" | "routed"),
        _ if key.starts_with("com.docker.network.bridge.") => !matches!(driver, "macvlan" | "ipvlan"),
        _ => true,
    }
}

fn of_family<A: Ip>(family: &str, enabled: bool, pools: Vec<Pool<A>>, most: usize) -> Result<Pools<A>, EngineError> {
    match (enabled, pools.first()) {
        (false, Some(pool)) => {
            Err(EngineError::invalid(format!("the subnet {} is given, but {family} is not enabled", pool.subnet)))
        }
        (false, None) => Ok(Pools::None),
        (true, None) => Ok(Pools::Any),
        (true, Some(_)) if pools.len() > most => {
            Err(EngineError::forbidden(format!("bridge driver doesn't support multiple {family} subnets")))
        }
        (true, Some(_)) => Ok(Pools::These(pools)),
    }
}

fn options(driver: &str, given: &BTreeMap<String, String>) -> Result<DriverOptions, EngineError> {
    let mut options = DriverOptions {
        interface: None,
        talk: true,
        border4: Border::NAT,
        border6: Border::NAT,
        mtu: None,
        host_binding: None,
        inhibit_ipv4: false,
        trusted: Vec::new(),
        interface_prefix: None,
        parent: None,
        macvlan_mode: MacvlanMode::Bridge,
        ipvlan_mode: IpvlanMode::L2,
        ipvlan_flag: IpvlanFlag::Bridge,
    };
    for (key, value) in given {
        match key.as_str() {
            _ if !is_for(key, driver) && key.starts_with("com.docker.") => {
                return Err(EngineError::invalid(format!("the network driver {driver} has no option {key}")));
            }
            _ if !is_for(key, driver) => {}
            "parent" => options.parent = Some(interface("parent", value)?).filter(|name| !name.is_empty()),
            "macvlan_mode" => options.macvlan_mode = macvlan_mode(value)?,
            "ipvlan_mode" => options.ipvlan_mode = ipvlan_mode(value)?,
            "ipvlan_flag" => options.ipvlan_flag = ipvlan_flag(value)?,
            "com.docker.network.bridge.name" => options.interface = Some(interface("bridge", value)?),
            "com.docker.network.bridge.enable_icc" => options.talk = switch(key, value)?,
            "com.docker.network.bridge.enable_ip_masquerade" => {
                let masquerade = switch(key, value)?;
                (options.border4.masquerade, options.border6.masquerade) = (masquerade, masquerade);
            }
            "com.docker.network.driver.mtu" => options.mtu = Some(mtu(value)?),
            "com.docker.network.bridge.host_binding_ipv4" => {
                let address = value.parse::<Ipv4Addr>().map_err(|_| {
                    EngineError::invalid(format!("failed to parse {key}: \"{value}\" is not an IPv4 address"))
                })?;
                options.host_binding = Some(address.into());
            }
            "com.docker.network.bridge.gateway_mode_ipv4" => options.border4.mode = gateway_mode(key, value)?,
            "com.docker.network.bridge.gateway_mode_ipv6" => options.border6.mode = gateway_mode(key, value)?,
            "com.docker.network.bridge.inhibit_ipv4" => options.inhibit_ipv4 = switch(key, value)?,
            "com.docker.network.bridge.trusted_host_interfaces" => {
                options.trusted = value.split(':').map(|name| interface("host", name)).collect::<Result<_, _>>()?;
            }
            "com.docker.network.container_iface_prefix" => {
                options.interface_prefix = Some(interface("container", value)?);
            }
            _ if key.starts_with("com.docker.network.") => {
                return Err(EngineError::not_implemented(format!("the network option {key}={value} is not built")));
            }
            // As with Docker, what the driver does not know is kept and shown.
            _ => {}
        }
    }
    Ok(options)
}

fn macvlan_mode(value: &str) -> Result<MacvlanMode, EngineError> {
    Ok(match value {
        "" | "bridge" => MacvlanMode::Bridge,
        "private" => MacvlanMode::Private,
        "vepa" => MacvlanMode::Vepa,
        "passthru" => MacvlanMode::Passthru,
        _ => return Err(EngineError::invalid(format!("requested macvlan mode '{value}' is not valid"))),
    })
}

fn ipvlan_mode(value: &str) -> Result<IpvlanMode, EngineError> {
    Ok(match value {
        "" | "l2" => IpvlanMode::L2,
        "l3" => IpvlanMode::L3,
        "l3s" => IpvlanMode::L3S,
        _ => return Err(EngineError::invalid(format!("requested ipvlan mode '{value}' is not valid"))),
    })
}

fn ipvlan_flag(value: &str) -> Result<IpvlanFlag, EngineError> {
    Ok(match value {
        "" | "bridge" => IpvlanFlag::Bridge,
        "private" => IpvlanFlag::Private,
        "vepa" => IpvlanFlag::Vepa,
        _ => return Err(EngineError::invalid(format!("requested ipvlan flag '{value}' is not valid"))),
    })
}

fn gateway_mode(key: &str, value: &str) -> Result<GatewayMode, EngineError> {
    Ok(match value {
        "" | "nat" => GatewayMode::Nat,
        "nat-unprotected" => GatewayMode::NatUnprotected,
        "routed" => GatewayMode::Routed,
        "isolated" => GatewayMode::Isolated,
        _ => return Err(EngineError::invalid(format!("unknown gateway mode {value} for {key}"))),
    })
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

/// An interface's name, if it can be one.
pub(crate) fn interface(whose: &str, name: &str) -> Result<String, EngineError> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"/:".contains(&byte);
    if name.is_empty() || name.len() > INTERFACE_NAME_MAX || !name.bytes().all(plain) || matches!(name, "." | "..") {
        return Err(EngineError::invalid(format!("invalid {whose} interface name \"{name}\"")));
    }
    Ok(name.to_owned())
}

/// The pools of one family, or everything that is wrong with them.
fn pools<A: Ip>(pools: &[&IpamPool]) -> Result<Vec<Pool<A>>, Vec<String>> {
    let (mut problems, mut found) = (Vec::new(), Vec::new());
    for pool in pools {
        match one_pool(pool) {
            Ok(pool) => found.extend(pool),
            Err(more) => problems.extend(more),
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

/// A pool, none when it says nothing; or everything that is wrong with it.
fn one_pool<A: Ip>(pool: &IpamPool) -> Result<Option<Pool<A>>, Vec<String>> {
    if pool.subnet.is_empty() {
        let says_more = pool.range.is_some() || pool.gateway.is_some() || !pool.auxiliary.is_empty();
        let problem = "invalid subnet : invalid CIDR block notation".to_owned();
        return if says_more { Err(vec![problem]) } else { Ok(None) };
    }
    let subnet: Subnet<A> =
        pool.subnet.parse().map_err(|error| vec![subnet_problem("subnet", &pool.subnet, &error)])?;
    let mut problems = Vec::new();
    let range = pool.range.as_deref().filter(|text| !text.is_empty());
    let range = range.and_then(|text| range_in(subnet, text).map_err(|problem| problems.push(problem)).ok());
    let mut inside = |what: &str, address: IpAddr| match A::of(address) {
        Some(address) if subnet.contains(address) => Some(address),
        Some(_) => {
            problems.push(format!("invalid {what} {address}: parent subnet {subnet} doesn't contain this address"));
            None
        }
        None => {
            let family = if A::BITS == 32 { "IPv4" } else { "IPv6" };
            problems.push(format!("invalid {what} {address}: parent subnet is an {family} block"));
            None
        }
    };
    let gateway = pool.gateway.and_then(|gateway| inside("gateway", gateway));
    let auxiliary = pool.auxiliary.iter();
    let auxiliary =
        auxiliary.filter_map(|(name, address)| Some((name.clone(), inside("auxiliary address", *address)?))).collect();
    if problems.is_empty() { Ok(Some(Pool { subnet, range, gateway, auxiliary })) } else { Err(problems) }
}

fn subnet_problem(what: &str, text: &str, error: &SubnetError) -> String {
    match error {
        SubnetError::HostBits { network, .. } => format!("invalid {what} {text}: it should be {network}"),
        SubnetError::TooSmall(_) => error.to_string(),
        SubnetError::Malformed { .. } => format!("invalid {what} {text}: invalid CIDR block notation"),
    }
}

/// The part of a subnet that addresses are handed out from; it may be as small as one address.
fn range_in<A: Ip>(subnet: Subnet<A>, text: &str) -> Result<Subnet<A>, String> {
    let malformed = || format!("invalid ip-range {text}: invalid CIDR block notation");
    let (address, prefix) = text.split_once('/').ok_or_else(malformed)?;
    let address: A = address.parse().map_err(|_| malformed())?;
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

impl<A: Ip> Pool<A> {
    /// One that was chosen by the engine.
    pub(super) fn chosen(subnet: Subnet<A>) -> Self {
        Self { subnet, range: None, gateway: None, auxiliary: BTreeMap::new() }
    }

    /// The gateway: as given, or the first address.
    pub(super) fn gateway(&self) -> A {
        let start = self.range.map_or(self.subnet.network(), Subnet::network);
        let first = if start == self.subnet.network() { self.subnet.gateway() } else { start };
        self.gateway.unwrap_or(first)
    }

    /// What is somebody else's cannot be the gateway's, which comes first; in Docker's words and with its status.
    fn check_auxiliary(&self) -> Result<(), EngineError> {
        match self.auxiliary.iter().find(|(_, address)| **address == self.gateway()) {
            None => Ok(()),
            Some((name, address)) => Err(EngineError::new(
                ErrorKind::System,
                format!("failed to allocate secondary ip address ({name}:{address}): Address already in use"),
            )),
        }
    }

    /// As the networks know it.
    pub(super) fn definition(&self) -> network::Pool<A> {
        network::Pool {
            subnet: self.subnet,
            gateway: Some(self.gateway()),
            range: self.range,
            reserved: self.auxiliary.values().copied().collect(),
        }
    }

    /// As inspect shows it: what was given, and the gateway.
    pub(super) fn shown(&self) -> IpamPool {
        IpamPool {
            subnet: self.subnet.to_string(),
            range: self.range.map(|range| range.to_string()),
            gateway: Some(self.gateway().into()),
            auxiliary: self.auxiliary.iter().map(|(name, address)| (name.clone(), (*address).into())).collect(),
        }
    }
}

impl Wanted {
    /// The host's interface that the network hangs off.
    pub(super) fn interface(&self, id: &str) -> String {
        match &self.driver {
            Kind::Bridge => self.options.interface.clone().unwrap_or_else(|| Names::user_bridge(id)),
            Kind::Routed => Names::router(id),
            Kind::Share { parent, .. } => parent.clone().unwrap_or_else(|| Names::dummy(id)),
        }
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
            let error = pool(subnet, range, gateway).unwrap_err().join(" ");
            assert!(error.contains(problem), "{error} / {problem}");
        }
        assert_eq!(pool("", "", "").unwrap(), None);
        let six =
            |gateway: &str| one_pool::<Ipv6Addr>(&pool_of("fd00::/64", "", gateway)).map_err(|list| list.join(" "));
        assert_eq!(six("").unwrap().unwrap().gateway().to_string(), "fd00::1");
        assert!(six("10.0.0.1").unwrap_err().contains("parent subnet is an IPv6 block"));
    }

    fn pool(subnet: &str, range: &str, gateway: &str) -> Result<Option<Pool<Ipv4Addr>>, Vec<String>> {
        one_pool(&pool_of(subnet, range, gateway))
    }

    #[test]
    fn families_are_chosen_by_switch_and_subnet() {
        let check = |ipv4: bool, ipv6: bool, subnets: &[&str]| {
            check(&NetworkRequest {
                enable_ipv4: Some(ipv4),
                enable_ipv6: ipv6,
                pools: subnets.iter().map(|subnet| pool_of(subnet, "", "")).collect(),
                ..NetworkRequest::default()
            })
            .map_err(|error| error.message().to_owned())
        };
        let usual = check(true, false, &[]).unwrap();
        assert_eq!((usual.ipv4, usual.ipv6), (Pools::Any, Pools::None));
        let dual = check(true, true, &["fd00::/64"]).unwrap();
        assert!(dual.ipv4 == Pools::Any && matches!(dual.ipv6, Pools::These(_)));
        assert_eq!(check(false, true, &[]).unwrap().ipv4, Pools::None);
        assert!(check(false, false, &[]).unwrap_err().contains("IPv4 or IPv6 must be enabled"));
        assert_eq!(check(true, false, &["fd00::/64"]).unwrap().ipv6, Pools::None);
        let two = check(true, false, &["10.0.0.0/24", "10.1.0.0/24"]).unwrap_err();
        assert!(two.contains("bridge driver doesn't support multiple IPv4 subnets"), "{two}");
    }

    #[test]
    fn the_gateway_is_the_first_address_of_the_range() {
        let gateway = |subnet: &str, range: &str| pool(subnet, range, "").unwrap().unwrap().gateway();
        assert_eq!(gateway("10.0.0.0/24", ""), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(gateway("10.0.0.0/24", "10.0.0.128/25"), Ipv4Addr::new(10, 0, 0, 128));
        let mut pool = pool("10.0.0.0/24", "", "").unwrap().unwrap();
        pool.auxiliary.insert("router".into(), "10.0.0.1".parse().unwrap());
        let refused = pool.check_auxiliary().unwrap_err();
        assert!(refused.message().contains("(router:10.0.0.1): Address already in use"), "{refused}");
        pool.gateway = Some(Ipv4Addr::new(10, 0, 0, 9));
        pool.check_auxiliary().unwrap();
    }

    #[test]
    fn options_are_understood_kept_or_refused() {
        let of = |key: &str, value: &str| options("bridge", &BTreeMap::from([(key.to_owned(), value.to_owned())]));
        assert!(!of("com.docker.network.bridge.enable_icc", "false").unwrap().talk);
        assert_eq!(of("com.docker.network.driver.mtu", "1400").unwrap().mtu, Some(1400));
        assert_eq!(of("mine", "x").unwrap(), of("com.docker.network.bridge.gateway_mode_ipv4", "nat").unwrap());
        for (key, value) in [
            ("com.docker.network.bridge.enable_icc", "maybe"),
            ("com.docker.network.driver.mtu", "-1"),
            ("com.docker.network.bridge.name", "a/b"),
            ("com.docker.network.bridge.inhibit_ipv4", "perhaps"),
            ("com.docker.network.bridge.gateway_mode_ipv4", "magic"),
            ("com.docker.network.bridge.trusted_host_interfaces", "eth0:"),
            ("com.docker.network.bridge.unheard_of", "1"),
        ] {
            assert!(of(key, value).is_err(), "{key}={value}");
        }
        let shared = |key: &str, value: &str| options("macvlan", &BTreeMap::from([(key.to_owned(), value.to_owned())]));
        assert_eq!(shared("parent", "eth0.10").unwrap().parent.as_deref(), Some("eth0.10"));
        assert_eq!(shared("macvlan_mode", "passthru").unwrap().macvlan_mode, MacvlanMode::Passthru);
        assert!(shared("macvlan_mode", "magic").is_err());
        assert!(shared("com.docker.network.bridge.enable_icc", "false").is_err(), "it would not be obeyed");
    }
}
