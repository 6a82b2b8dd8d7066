//! Which networks a container is to sit in, and sitting there.
//!
//! `spec.endpoints` says it, by name, from `create` on; `connect` and `disconnect` change it. What a running container has of it is
//! its [`Place`]: endpoints in the order of their interfaces.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use network::{
    AttachRequest, Attachment, DEFAULT_NETWORK, Endpoint, Family, LeadsOut, Mac, NameSockets, Pair, Place, Sandbox,
    Targets,
};

use super::links;
use super::record::ContainerRecord;
use super::relay::{self, Relayed};
use super::start::has_own_ids;
use crate::engine::{Engine, Inner};
use crate::model::{ContainerSpec, EndpointSpec, EngineError, ErrorKind, NetworkMode};
use crate::networks::{Found, NetworkRecord};

/// What interfaces in containers are called, before their number.
const INTERFACE_PREFIX: &str = "eth";
/// The name of the default bridge.
const BRIDGE: &str = "bridge";

/// A namespace with everything that a container is to have in it.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) namespace: OwnedFd,
    /// The user namespace that it belongs to, where that is not the engine's own.
    pub(super) user_namespace: Option<OwnedFd>,
    pub(super) endpoints: Vec<Endpoint>,
    /// Where its questions for names arrive, if they were opened ahead.
    pub(super) name_sockets: Option<NameSockets>,
}

/// A network that a container is to sit in.
#[derive(Debug)]
struct Wanted<'a> {
    name: &'a str,
    /// As the networks know it.
    id: String,
    endpoint: &'a EndpointSpec,
    traits: Traits,
}

/// What a network is like, as far as the choice of the one that leads out goes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Traits {
    internal: bool,
    ipv4: bool,
    ipv6: bool,
    /// What interfaces on it are called, before their number.
    interface_prefix: String,
}

/// The networks by whose gateways a container's packets for elsewhere leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Leading<'a> {
    ipv4: Option<&'a str>,
    ipv6: Option<&'a str>,
}

const NOBODY: Leading<'static> = Leading { ipv4: None, ipv6: None };

/// Names the networks of a request as they are called, the one of `--network` among them, and checks what is asked of each. A
/// network that is not there is found missing at the start, as with Docker.
pub(super) fn settle(engine: &Engine, spec: &mut ContainerSpec) -> Result<(), EngineError> {
    let mut endpoints = BTreeMap::new();
    for (reference, endpoint) in std::mem::take(&mut spec.endpoints) {
        endpoints.insert(name_of(engine, &reference)?, endpoint);
    }
    if let Some(primary) = primary(engine, spec)? {
        let is_user = !matches!(primary.as_str(), BRIDGE | "none" | "host");
        let endpoint: &mut EndpointSpec = endpoints.entry(primary).or_default();
        // On a user's network a link is a name, which is that network's affair.
        for link in spec.links.iter().filter(|_| is_user) {
            if !endpoint.links.contains(link) {
                endpoint.links.push(link.clone());
            }
        }
    }
    for link in links::parse(&spec.links)? {
        engine.inner.index.find(&link.container).map_err(|_| {
            EngineError::invalid(format!(
                "could not get container for {}: No such container: {}",
                link.container, link.container
            ))
        })?;
    }
    if spec.network_disabled || matches!(spec.network, NetworkMode::Container(_)) {
        endpoints.clear();
    }
    if let (Some(name), Some(mac)) = (primary(engine, spec)?, spec.mac_address.clone())
        && let Some(endpoint) = endpoints.get_mut(&name).filter(|endpoint| endpoint.mac_address.is_none())
    {
        endpoint.mac_address = Some(mac).filter(|mac| !mac.is_empty());
    }
    for (name, endpoint) in &endpoints {
        check(engine.find_network(name).ok().as_ref(), name, endpoint)?;
    }
    alone(endpoints.keys().map(String::as_str))?;
    spec.endpoints = endpoints;
    Ok(())
}

fn name_of(engine: &Engine, reference: &str) -> Result<String, EngineError> {
    match engine.find_network(if reference == "default" { BRIDGE } else { reference }) {
        Ok(found) => Ok(found.name().to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(reference.to_owned()),
        Err(error) => Err(error),
    }
}

/// The network of `--network`, where that names one.
fn primary(engine: &Engine, spec: &ContainerSpec) -> Result<Option<String>, EngineError> {
    Ok(match &spec.network {
        NetworkMode::Bridge => Some(BRIDGE.to_owned()),
        NetworkMode::None => Some("none".to_owned()),
        NetworkMode::Host => Some("host".to_owned()),
        NetworkMode::Named(reference) => Some(name_of(engine, reference)?),
        NetworkMode::Container(_) => None,
    })
}

/// What may be asked of an endpoint.
pub(super) fn check(found: Option<&Found>, name: &str, endpoint: &EndpointSpec) -> Result<(), EngineError> {
    if let Some(mac) = &endpoint.mac_address {
        mac.parse::<Mac>().map_err(|error| EngineError::invalid(error.to_string()))?;
    }
    links::parse(&endpoint.links)?;
    link_local(endpoint)?;
    wishes(name, endpoint, "eth0")?;
    match found {
        Some(Found::Predefined(..)) => check_predefined(endpoint),
        Some(Found::User(record)) if record.template.is_some() => Err(EngineError::forbidden(format!(
            "{} is a configuration network: no container can be on it",
            record.name
        ))),
        Some(Found::User(record)) => check_address(record, endpoint),
        None => Ok(()),
    }
}

/// Addresses that mean something on the interface's cable alone.
fn link_local(endpoint: &EndpointSpec) -> Result<Vec<IpAddr>, EngineError> {
    let parse = |text: &String| {
        let address = text.parse().ok().filter(|address| match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        });
        address.ok_or_else(|| EngineError::invalid(format!("invalid link local IP address: {text}")))
    };
    endpoint.link_local.iter().map(parse).collect()
}

/// What an endpoint's driver options say of the interface.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wishes {
    /// What it is called in the container.
    interface: Option<String>,
    /// Its settings below `/proc/sys/net`.
    settings: Vec<(String, String)>,
}

/// Reads an endpoint's driver options; `usual` is the interface's name where they do not say.
fn wishes(network: &str, endpoint: &EndpointSpec, usual: &str) -> Result<Wishes, EngineError> {
    let mut wishes = Wishes::default();
    for (key, value) in &endpoint.driver_options {
        match key.as_str() {
            "com.docker.network.endpoint.ifname" => {
                wishes.interface = Some(crate::networks::interface_name("container", value)?);
            }
            "com.docker.network.endpoint.sysctls" => {}
            // Docker's namespace of options: one that is not built would be missed.
            other if other.starts_with("com.docker.network.") => {
                return Err(EngineError::not_implemented(format!(
                    "the option {key}={value} of the endpoint on {network} is not built"
                )));
            }
            // Notes of others, for others: kept and shown.
            _ => {}
        }
    }
    let interface = wishes.interface.as_deref().unwrap_or(usual);
    let sysctls = endpoint.driver_options.get("com.docker.network.endpoint.sysctls").map_or("", String::as_str);
    for sysctl in sysctls.split(',').filter(|sysctl| !sysctl.is_empty()) {
        wishes.settings.push(setting(sysctl, interface)?);
    }
    Ok(wishes)
}

/// Reads `net.ipv4.conf.IFNAME.log_martians=1`: settings of the interface alone.
fn setting(sysctl: &str, interface: &str) -> Result<(String, String), EngineError> {
    let wrong = || {
        EngineError::invalid(format!(
            "invalid endpoint settings:\ninvalid endpoint sysctl {sysctl}: expected net.(ipv4|ipv6|mpls).(conf|neigh).IFNAME.SETTING=VALUE"
        ))
    };
    let (name, value) = sysctl.split_once('=').ok_or_else(wrong)?;
    let parts: Vec<&str> = name.split('.').collect();
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match parts.as_slice() {
        // The docker command line writes what it is given in lower case.
        ["net", family @ ("ipv4" | "ipv6" | "mpls"), kind @ ("conf" | "neigh"), name, setting]
            if name.eq_ignore_ascii_case("IFNAME") && plain(setting) =>
        {
            Ok((format!("{family}/{kind}/{interface}/{setting}"), value.to_owned()))
        }
        _ => Err(wrong()),
    }
}

fn check_predefined(endpoint: &EndpointSpec) -> Result<(), EngineError> {
    if endpoint.ipv4.is_some() || endpoint.ipv6.is_some() {
        return Err(EngineError::invalid("user specified IP address is supported on user defined networks only"));
    }
    if !endpoint.aliases.is_empty() {
        return Err(EngineError::invalid(
            "network-scoped alias is supported only for containers in user defined networks",
        ));
    }
    Ok(())
}

fn check_address(record: &NetworkRecord, endpoint: &EndpointSpec) -> Result<(), EngineError> {
    let definition = &record.definition;
    let contains4 = |address| definition.ipv4.iter().any(|pool| pool.subnet.contains(address));
    let contains6 = |address| definition.ipv6.iter().any(|pool| pool.subnet.contains(address));
    let given = record.subnet_given;
    let given6 = record.subnet6_given;
    endpoint.ipv4.map_or(Ok(()), |address| check_one(record, address.into(), given, contains4(address)))?;
    endpoint.ipv6.map_or(Ok(()), |address| check_one(record, address.into(), given6, contains6(address)))
}

fn check_one(record: &NetworkRecord, address: IpAddr, given: bool, contained: bool) -> Result<(), EngineError> {
    let wrong = |what: &str| {
        let network = &record.name;
        Err(EngineError::invalid(format!("invalid config for network {network}: invalid endpoint settings:\n{what}")))
    };
    match (given, contained) {
        (false, _) => wrong(
            "user specified IP address is supported only when connecting to networks with user configured subnets",
        ),
        (true, false) => wrong(&format!("no configured subnet contains IP address {address}")),
        (true, true) => Ok(()),
    }
}

/// Host and none stand alone.
pub(super) fn alone<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Result<(), EngineError> {
    if names.clone().count() < 2 {
        return Ok(());
    }
    if names.clone().any(|name| name == "host") {
        return Err(EngineError::invalid(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        ));
    }
    if names.clone().any(|name| name == "none") {
        return Err(EngineError::invalid(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ));
    }
    Ok(())
}

/// The networks of a container: that of `--network` first, the others by name.
fn wanted<'a>(inner: &Inner, record: &'a ContainerRecord) -> Result<Vec<Wanted<'a>>, EngineError> {
    let is_primary = |name: &str| match &record.spec.network {
        NetworkMode::Bridge => name == BRIDGE,
        NetworkMode::Named(reference) => {
            let found = inner.registry.by_id(reference);
            name == reference || found.is_some_and(|found| found.name == name)
        }
        _ => false,
    };
    let mut wanted = Vec::new();
    for (name, endpoint) in record.spec.endpoints.iter().filter(|(name, _)| !matches!(name.as_str(), "none" | "host")) {
        let (id, traits) = known(inner, name)?;
        wanted.push(Wanted { name, id, endpoint, traits });
    }
    wanted.sort_by_key(|wanted| !is_primary(wanted.name));
    Ok(wanted)
}

/// How the networks know this one, and what it is like.
fn known(inner: &Inner, name: &str) -> Result<(String, Traits), EngineError> {
    if name == BRIDGE {
        let ipv6 = inner.networks.bridge().subnet6.is_some();
        let traits = Traits { internal: false, ipv4: true, ipv6, interface_prefix: INTERFACE_PREFIX.to_owned() };
        return Ok((DEFAULT_NETWORK.to_owned(), traits));
    }
    let Some(record) = inner.registry.by_name(name) else {
        return Err(EngineError::not_found(format!("failed to set up container networking: network {name} not found")));
    };
    let definition = &record.definition;
    let traits = Traits {
        internal: definition.internal,
        ipv4: !definition.ipv4.is_empty(),
        ipv6: !definition.ipv6.is_empty(),
        interface_prefix: record.interface_prefix.clone().unwrap_or_else(|| INTERFACE_PREFIX.to_owned()),
    };
    Ok((record.id.clone(), traits))
}

/// The networks whose gateways a container's packets for elsewhere leave by: the highest priority, then by name.
fn leading<'a>(wanted: &[Wanted<'a>]) -> Leading<'a> {
    let best = |has_family: fn(&Traits) -> bool| {
        let able = wanted.iter().filter(|wanted| !wanted.traits.internal && has_family(&wanted.traits));
        able.max_by_key(|wanted| (wanted.endpoint.gateway_priority, std::cmp::Reverse(wanted.name)))
    };
    let name = |wanted: &Wanted<'a>| wanted.name;
    Leading { ipv4: best(|traits| traits.ipv4).map(name), ipv6: best(|traits| traits.ipv6).map(name) }
}

/// A namespace with everything in it that the container is to have. What was taken is given back on failure.
pub(super) fn take(inner: &Inner, record: &ContainerRecord) -> Result<Taken, EngineError> {
    let wanted = wanted(inner, record)?;
    let leading = leading(&wanted);
    let sandbox = take_sandbox(inner, record, &wanted, leading)?;
    let mut place = Place { endpoints: sandbox.endpoint.into_iter().collect(), ..Place::default() };
    for one in wanted.iter().skip(place.endpoints.len()) {
        if let Err(error) = plug(inner, sandbox.namespace.as_fd(), &mut place, one, leading) {
            give_back(inner, place);
            return Err(error);
        }
    }
    let Sandbox { namespace, user_namespace, name_sockets, .. } = sandbox;
    Ok(Taken { namespace, user_namespace, endpoints: place.endpoints, name_sockets })
}

/// A namespace on the first of these networks, where one is ready or can be made at once, or with loopback alone.
fn take_sandbox(
    inner: &Inner,
    record: &ContainerRecord,
    wanted: &[Wanted<'_>],
    leading: Leading<'_>,
) -> Result<Sandbox, EngineError> {
    let networks = &inner.networks;
    let failed = |error| EngineError::system("failed to set up container networking", error);
    if let Some(mappings) = record.id_mappings.as_ref().filter(|_| has_own_ids(record)) {
        return networks.take_for(&mappings.owner()).map_err(failed);
    }
    let usual = wanted.first().filter(|first| first.is_usual(leading));
    let ready = match usual {
        Some(first) if first.id == DEFAULT_NETWORK => Some(
            networks
                .take(Attachment::Bridge)
                .map_err(|error| EngineError::system("failed to create endpoint on network bridge", error))?,
        ),
        Some(first) => networks.take_if_ready(&first.id),
        None => None,
    };
    match (ready, usual.map(|first| mac_of(first.endpoint)).transpose()?.flatten()) {
        (Some(ready), Some(mac)) => networks.with_mac(ready, mac).map_err(failed),
        (Some(ready), None) => Ok(ready),
        (None, _) => networks.take(Attachment::None).map_err(failed),
    }
}

/// Tells the networks of a container that will start, as far as something can be made ready for it.
pub(super) fn expect(inner: &Inner, record: &ContainerRecord) {
    // What is not there is found missing at the start.
    let Ok(wanted) = wanted(inner, record) else { return };
    let leading = leading(&wanted);
    if let Some(first) = wanted.first().filter(|first| first.is_usual(leading) && !has_own_ids(record)) {
        inner.networks.expect(&first.id);
    }
}

impl Wanted<'_> {
    /// Whether it is to be as those are that are made ahead: the first interface, under any address, that leads wherever it can.
    fn is_usual(&self, leading: Leading<'_>) -> bool {
        let leads = |family: Option<&str>| family.is_none_or(|leader| leader == self.name);
        let EndpointSpec { ipv4, ipv6, driver_options, link_local, .. } = self.endpoint;
        ipv4.is_none()
            && ipv6.is_none()
            && driver_options.is_empty()
            && link_local.is_empty()
            && self.traits.interface_prefix == INTERFACE_PREFIX
            && (leads(leading.ipv4) || !self.traits.ipv4)
            && (leads(leading.ipv6) || !self.traits.ipv6)
    }
}

fn mac_of(endpoint: &EndpointSpec) -> Result<Option<Mac>, EngineError> {
    let mac = endpoint.mac_address.as_deref();
    mac.map(|text| text.parse().map_err(|error: network::MacError| EngineError::invalid(error.to_string()))).transpose()
}

fn plug(
    inner: &Inner,
    namespace: BorrowedFd<'_>,
    place: &mut Place,
    wanted: &Wanted<'_>,
    leading: Leading<'_>,
) -> Result<(), EngineError> {
    let is_free = |name: &String| place.endpoints.iter().all(|endpoint| endpoint.interface != *name);
    let mut numbered = (0..).map(|number| format!("{}{number}", wanted.traits.interface_prefix));
    let usual = numbered.find(is_free).unwrap_or_default();
    let wishes = wishes(wanted.name, wanted.endpoint, &usual)?;
    let interface = wishes.interface.unwrap_or(usual);
    if !is_free(&interface) {
        return Err(EngineError::conflict(format!("the interface {interface} is there already")));
    }
    let link_local = link_local(wanted.endpoint)?;
    let request = AttachRequest {
        network: &wanted.id,
        interface: &interface,
        addresses: Pair { ipv4: wanted.endpoint.ipv4, ipv6: wanted.endpoint.ipv6 },
        mac: mac_of(wanted.endpoint)?,
        leads_out: LeadsOut { ipv4: leading.ipv4 == Some(wanted.name), ipv6: leading.ipv6 == Some(wanted.name) },
        link_local: &link_local,
        settings: &wishes.settings,
    };
    let endpoint = inner.networks.attach(namespace, &request).map_err(|error| {
        let message = format!("failed to set up container networking: {error}");
        match error {
            network::AttachError::Address(network::AddressError::Taken) => EngineError::forbidden(message),
            network::AttachError::Address(_) => EngineError::invalid(message),
            _ => EngineError::new(ErrorKind::System, message),
        }
    })?;
    place.endpoints.push(endpoint);
    Ok(())
}

/// Gives everything back.
pub(super) fn give_back(inner: &Inner, place: Place) {
    inner.networks.unpublish(&place.ports);
    place.endpoints.into_iter().for_each(|endpoint| inner.networks.release(endpoint));
}

/// Publishes the container's ports: they lead to it from now on. Behind internal networks nothing is published.
pub(super) fn publish(inner: &Inner, record: &ContainerRecord, place: &mut Place) -> Result<Vec<Relayed>, EngineError> {
    let wanted = wanted(inner, record)?;
    let (ipv4, ipv6) = leading_endpoints(&wanted, place);
    let targets = Targets { ipv4: ipv4.as_ref(), ipv6: ipv6.as_ref() };
    let Some(first) = targets.ipv4.or(targets.ipv6) else { return Ok(Vec::new()) };
    let user = inner.registry.by_id(&first.network);
    if user.as_ref().is_some_and(|record| !record.definition.driver.passes_the_host()) {
        // As with Docker: who shares a cable is reached at its own address, past the host.
        return Ok(Vec::new());
    }
    let binding = user.and_then(|record| record.host_binding);
    let requests = super::ports::requests(&record.spec, binding, targets);
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    let wrong = |error: &dyn std::fmt::Display| {
        let message = format!(
            "failed to set up container networking: driver failed programming external connectivity on endpoint {} ({}): {error}",
            record.name, record.id
        );
        EngineError::new(ErrorKind::System, message)
    };
    place.ports = inner.networks.publish(&requests, targets).map_err(|error| wrong(&error))?;
    relay::open(&place.ports).map_err(|error| wrong(&error))
}

/// Brings a running container's place in line with its record, in which one network was added or removed; `before` is its record as
/// it was. Returns the endpoint that led out before where another does now: then its ports have to move.
pub(super) fn change(
    inner: &Inner,
    before: &ContainerRecord,
    record: &ContainerRecord,
    pid: i32,
    place: &mut Place,
) -> Result<Moved, EngineError> {
    let namespace = network::namespace_of(pid.unsigned_abs())
        .map_err(|error| EngineError::system("cannot enter the container's network", error))?;
    let now = wanted(inner, record)?;
    let led = wanted(inner, before).ok().map_or((None, None), |wanted| leading_endpoints(&wanted, place));
    for one in &now {
        if place.endpoints.iter().all(|endpoint| endpoint.network != one.id) {
            plug(inner, namespace.as_fd(), place, one, NOBODY)?;
        }
    }
    let leads = leading_endpoints(&now, place);
    for (family, before, after) in [(Family::Ipv4, &led.0, &leads.0), (Family::Ipv6, &led.1, &leads.1)] {
        let (before, after) = (before.as_ref(), after.as_ref());
        if before != after
            && let Err(error) = inner.networks.change_default_route(namespace.as_fd(), family, before, after)
        {
            tracing::warn!("container {}: cannot change the default route of {family}: {error}", record.id);
        }
    }
    let is_wanted = |endpoint: &Endpoint| now.iter().any(|one| one.id == endpoint.network);
    for gone in place.endpoints.extract_if(.., |endpoint| !is_wanted(endpoint)) {
        if let Err(error) = inner.networks.take_out(namespace.as_fd(), &gone) {
            tracing::warn!("container {}: cannot remove {}: {error}", record.id, gone.interface);
        }
        inner.networks.release(gone);
    }
    Ok(if led == leads { Moved::No } else { Moved::Yes })
}

/// Whether a container's packets for elsewhere leave by another endpoint than before: its ports then lead there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    Yes,
    No,
}

/// The endpoints that packets for elsewhere leave by, of IPv4 and of IPv6.
fn leading_endpoints(wanted: &[Wanted<'_>], place: &Place) -> (Option<Endpoint>, Option<Endpoint>) {
    let leading = leading(wanted);
    let endpoint = |name: Option<&str>| {
        let id = &wanted.iter().find(|wanted| Some(wanted.name) == name)?.id;
        place.endpoints.iter().find(|endpoint| endpoint.network == *id).cloned()
    };
    (endpoint(leading.ipv4), endpoint(leading.ipv6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_has_its_own_settings_alone() {
        let of = |key: &str, value: &str| {
            let driver_options = BTreeMap::from([(key.to_owned(), value.to_owned())]);
            wishes("back", &EndpointSpec { driver_options, ..EndpointSpec::default() }, "eth0")
        };
        let sysctls = "com.docker.network.endpoint.sysctls";
        let found = of(sysctls, "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.hop_limit=9").unwrap();
        let expected = [("ipv4/conf/eth0/log_martians", "1"), ("ipv6/conf/eth0/hop_limit", "9")];
        assert_eq!(found.settings, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        for wrong in
            ["net.ipv4.ip_forward=1", "net.ipv4.conf.all.x=1", "net.ipv4.conf.IFNAME.a/b=1", "net.ipv4.conf.IFNAME.x"]
        {
            assert!(of(sysctls, wrong).is_err(), "{wrong}");
        }
        assert_eq!(of("com.docker.network.endpoint.ifname", "lan0").unwrap().interface.as_deref(), Some("lan0"));
        assert!(of("com.docker.network.endpoint.ifname", "a/b").is_err());
        // Options of other programs are kept and shown.
        assert!(of("unheard", "of").is_ok());
    }
}
