//! Networks: bridge, host and none, and those that users make.
//!
//! ```text
//! request ─▶ request::check ─▶ Definition (subnet chosen) ─▶ record, on disk ─▶ bridge and rules ─▶ Registry
//! ```
//!
//! The record comes first: a bridge without one is swept at the next start, a record without a bridge gets it back. Which containers
//! sit in a network is theirs to say: their views name it.

mod explain;
mod record;
mod request;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use network::{CreateError, Definition, Driver, Ip, Subnet, SubnetConflict};
use oci::Digest;

pub use explain::PortView;
pub(crate) use record::{NetworkRecord, Registry, Template};
pub(crate) use request::interface as interface_name;
use request::{Kind, Pool, Pools, Wanted};

use crate::engine::{Engine, Inner, blocking};
use crate::model::{
    EngineError, ErrorKind, EventKind, IpamPool, NetworkMember, NetworkQuery, NetworkRequest, NetworkView, Patterns,
    PruneFilters, PruneReport,
};
use crate::store::{Change, Durability};

/// The networks that are always there: name and driver.
const PREDEFINED: [(&str, &str); 3] = [("bridge", "bridge"), ("host", "host"), ("none", "null")];

/// A predefined network's id: stable for an engine, and different from every other engine's.
pub(crate) fn id_of(engine_id: &str, name: &str) -> String {
    Digest::of(format!("network {engine_id} {name}").as_bytes()).hex()
}

/// A network that a reference leads to.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// One that is always there: name and driver.
    Predefined(&'static str, &'static str),
    /// One that a user made.
    User(Arc<NetworkRecord>),
}

impl Found {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Predefined(name, _) => name,
            Self::User(record) => &record.name,
        }
    }

    /// Its driver.
    pub(crate) fn driver(&self) -> &str {
        match self {
            Self::Predefined(_, driver) => driver,
            // As with Docker: what only says how others are to be is of no driver.
            Self::User(record) if record.template.is_some() => "null",
            Self::User(record) => record.definition.driver.as_str(),
        }
    }
}

impl Engine {
    /// A network by name, id or unique prefix, with its members.
    pub fn network(&self, reference: &str) -> Result<NetworkView, EngineError> {
        let found = self.find_network(reference)?;
        let mut view = self.network_view(&found);
        view.containers = self.members(found.name());
        Ok(view)
    }

    /// What a name, an id or a unique prefix leads to.
    pub(crate) fn find_network(&self, reference: &str) -> Result<Found, EngineError> {
        let predefined = |test: &dyn Fn(&str) -> bool| {
            let found = PREDEFINED.iter().find(|(name, _)| test(name));
            found.map(|(name, driver)| Found::Predefined(name, driver))
        };
        if let Some(found) = predefined(&|name| name == reference) {
            return Ok(found);
        }
        if let Some(found) = self.inner.registry.find(reference)? {
            return Ok(Found::User(found));
        }
        predefined(&|name| !reference.is_empty() && self.network_id(name).starts_with(reference))
            .ok_or_else(|| not_found(reference))
    }

    /// Networks.
    pub fn networks(&self, query: &NetworkQuery) -> Result<Vec<NetworkView>, EngineError> {
        let any = |list: &[String], test: &dyn Fn(&str) -> bool| list.is_empty() || list.iter().any(|text| test(text));
        let (names, ids) = (Patterns::new(&query.name), Patterns::new(&query.id));
        let predefined = PREDEFINED.iter().map(|(name, driver)| Found::Predefined(name, driver));
        let users = self.inner.registry.all().into_iter().map(Found::User);
        let shown = |found: &Found, view: &NetworkView| {
            let kind_of = if matches!(found, Found::User(_)) { "custom" } else { "builtin" };
            names.match_text(&view.name)
                && ids.match_text(&view.id)
                && any(&query.driver, &|driver| driver == view.driver)
                && any(&query.scope, &|scope| scope == view.scope)
                && any(&query.kind, &|kind| kind == kind_of)
                && query.label.iter().all(|label| label.matches(&view.labels))
                && query.dangling.is_none_or(|dangling| dangling == (kind_of == "custom" && view.containers.is_empty()))
        };
        let mut members = self.all_members();
        let views = predefined.chain(users).map(|found| {
            let mut view = self.network_view(&found);
            view.containers = members.remove(found.name()).unwrap_or_default();
            (view, found)
        });
        Ok(views.filter(|(view, found)| shown(found, view)).map(|(view, _)| view).collect())
    }

    /// Creates a network and returns its id.
    pub async fn create_network(&self, request: NetworkRequest) -> Result<String, EngineError> {
        check_name(&request)?;
        let request = self.with_configuration(request)?;
        let wanted = request::check(&request)?;
        let _one_at_a_time = self.inner.registry.changing.lock().await;
        if self.inner.registry.by_name(&request.name).is_some() {
            return Err(EngineError::conflict(format!("network with name {} already exists", request.name)));
        }
        let id = oci::ContainerId::from_random(crate::random_bytes()).to_string();
        let record = if request.config_only {
            let record = configuration(id, request);
            self.store_network(put(&record)?).await?;
            record
        } else {
            let record = self.with_subnet(id, request, wanted).await?;
            self.make_network(&record).await?;
            record
        };
        let id = record.id.clone();
        self.tell_of_network("create", &record);
        self.inner.registry.insert(Arc::new(record));
        Ok(id)
    }

    /// The request with what the configuration says that it names.
    fn with_configuration(&self, mut request: NetworkRequest) -> Result<NetworkRequest, EngineError> {
        if request.config_from.is_empty() {
            return Ok(request);
        }
        let found = self.inner.registry.find(&request.config_from)?;
        let Some((record, template)) = found.as_ref().and_then(|record| Some((record, record.template.as_ref()?)))
        else {
            return Err(EngineError::not_found(format!(
                "configuration network \"{}\" does not exist",
                request.config_from
            )));
        };
        let says_more = !request.pools.iter().all(|pool| pool.subnet.is_empty())
            || !request.options.is_empty()
            || request.enable_ipv6
            || request.config_only
            || !matches!(request.ipam_driver.as_str(), "" | "default");
        if says_more {
            return Err(EngineError::forbidden(
                "user specified configurations are not supported if the network depends on a configuration network",
            ));
        }
        request.config_from.clone_from(&record.name);
        (request.enable_ipv4, request.enable_ipv6) = (template.enable_ipv4, template.enable_ipv6);
        request.ipam_driver.clone_from(&template.ipam_driver);
        request.pools.clone_from(&template.pools);
        request.options.clone_from(&record.options);
        request.ipam_options.clone_from(&record.ipam_options);
        for (key, value) in &record.labels {
            request.labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
        Ok(request)
    }

    /// The record of a network to be made: with the subnet that was asked for, if it is free, or one that is.
    async fn with_subnet(
        &self,
        id: String,
        request: NetworkRequest,
        wanted: Wanted,
    ) -> Result<NetworkRecord, EngineError> {
        let inner = Arc::clone(&self.inner);
        let interface = wanted.interface(&id);
        let Wanted { driver, ipv4, ipv6, options } = wanted;
        let driver = self.driver(driver, &interface)?;
        let internal = request.internal || interface == network::Names::dummy(&id);
        let (subnet_given, subnet6_given) = (matches!(ipv4, Pools::These(_)), matches!(ipv6, Pools::These(_)));
        let (ipv4, ipv6) = blocking(move || {
            let networks = &inner.networks;
            let ipv4 = settle(&inner, ipv4, || networks.choose_subnet())?;
            Ok((ipv4, settle(&inner, ipv6, || networks.choose_subnet6())?))
        })
        .await?;
        let is_unused = |pool: &IpamPool| !request.enable_ipv6 && pool.subnet.contains(':');
        let unused = request.pools.into_iter().filter(is_unused);
        let definition = Definition {
            driver,
            interface,
            id: id.clone(),
            ipv4: ipv4.iter().map(Pool::definition).collect(),
            ipv6: ipv6.iter().map(Pool::definition).collect(),
            mtu: options.mtu,
            internal,
            talk: options.talk,
            border4: options.border4,
            border6: options.border6,
            inhibit_ipv4: options.inhibit_ipv4,
            trusted: options.trusted,
        };
        Ok(NetworkRecord {
            version: record::RECORD_VERSION,
            id,
            name: request.name,
            created: Timestamp::now(),
            definition,
            attachable: request.attachable,
            labels: request.labels,
            options: request.options,
            ipam_options: request.ipam_options,
            pools: ipv4.iter().map(Pool::shown).chain(ipv6.iter().map(Pool::shown)).chain(unused).collect(),
            subnet_given,
            subnet6_given,
            host_binding: options.host_binding,
            interface_prefix: options.interface_prefix,
            template: None,
            config_from: request.config_from,
        })
    }

    /// The driver as the networks know it, if this host lets it be used with the interface.
    fn driver(&self, kind: Kind, interface: &str) -> Result<Driver, EngineError> {
        match kind {
            Kind::Bridge => Ok(Driver::Bridge),
            Kind::Routed => Ok(Driver::Routed { group: self.inner.networks.free_group() }),
            Kind::Share { driver, .. } => match self.inner.networks.sharing(interface) {
                None => Ok(driver),
                Some(other) => {
                    let name = self.inner.registry.by_id(&other).map_or(other, |record| record.name.clone());
                    Err(EngineError::forbidden(format!("network {name} is already using parent interface {interface}")))
                }
            },
        }
    }

    async fn make_network(&self, record: &NetworkRecord) -> Result<(), EngineError> {
        self.store_network(put(record)?).await?;
        let (inner, definition) = (Arc::clone(&self.inner), record.definition.clone());
        let made = blocking(move || inner.networks.add(&definition).map_err(cannot_make)).await;
        if made.is_err() {
            self.store_network(Change::RemoveNetwork { id: record.id.clone() }).await?;
        }
        made
    }

    async fn store_network(&self, change: Change) -> Result<(), EngineError> {
        let written = self.inner.store.write(vec![change], Durability::Machine).await;
        written.map_err(|error| EngineError::system("cannot store the network", error))
    }

    /// Removes a network that no running container is in.
    pub async fn remove_network(&self, reference: &str) -> Result<(), EngineError> {
        match self.find_network(reference)? {
            Found::Predefined(name, _) => {
                Err(EngineError::forbidden(format!("{name} is a pre-defined network and cannot be removed")))
            }
            Found::User(record) => self.remove_user_network(&record).await,
        }
    }

    async fn remove_user_network(&self, record: &Arc<NetworkRecord>) -> Result<(), EngineError> {
        let _one_at_a_time = self.inner.registry.changing.lock().await;
        if self.inner.registry.all().iter().any(|other| record.template.is_some() && other.config_from == record.name) {
            return Err(EngineError::forbidden(format!(
                "error while removing network: configuration network \"{}\" is in use",
                record.name
            )));
        }
        let (inner, id) = (Arc::clone(&self.inner), record.id.clone());
        if !blocking(move || Ok(inner.networks.remove(&id))).await? {
            let members: Vec<String> = self.members(&record.name).iter().map(active).collect();
            return Err(EngineError::forbidden(format!(
                "error while removing network: network {} has active endpoints ({})",
                record.name,
                members.join(" ")
            )));
        }
        self.store_network(Change::RemoveNetwork { id: record.id.clone() }).await?;
        self.inner.registry.remove(&record.id);
        self.tell_of_network("destroy", record);
        Ok(())
    }

    /// Removes networks that no running container is in.
    pub async fn prune_networks(&self, filters: PruneFilters) -> Result<PruneReport, EngineError> {
        let mut report = PruneReport::default();
        for record in self.inner.registry.all() {
            let wanted = filters.label.iter().all(|label| label.matches(&record.labels))
                && !filters.without_label.iter().any(|label| label.matches(&record.labels))
                && filters.until.is_none_or(|until| record.created < until);
            if !wanted {
                continue;
            }
            match self.remove_user_network(&record).await {
                Ok(()) => report.deleted.push(record.name.clone()),
                Err(error) if error.kind() == ErrorKind::Forbidden => {}
                Err(error) => return Err(error),
            }
        }
        self.tell(EventKind::Network, "prune", "", BTreeMap::from([("reclaimed".to_owned(), "0".to_owned())]));
        Ok(report)
    }

    /// The id of a network by name, for events and views; a predefined one's, or a user's while it is there.
    pub(crate) fn network_id(&self, name: &str) -> String {
        if PREDEFINED.iter().any(|(predefined, _)| *predefined == name) {
            return id_of(&self.inner.id, name);
        }
        self.inner.registry.by_name(name).map(|record| record.id.clone()).unwrap_or_default()
    }

    fn tell_of_network(&self, action: &str, record: &NetworkRecord) {
        let attributes = [("name", record.name.as_str()), ("type", record.definition.driver.as_str())];
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned()));
        self.tell(EventKind::Network, action, &record.id, BTreeMap::from(attributes));
    }

    /// A network without its members.
    fn network_view(&self, found: &Found) -> NetworkView {
        let id = match found {
            Found::Predefined(name, _) => self.network_id(name),
            Found::User(record) => record.id.clone(),
        };
        let known_as = if matches!(found, Found::Predefined("bridge", _)) { network::DEFAULT_NETWORK } else { &id };
        let conflicts = self.inner.networks.route_conflicts(known_as);
        let mut view = NetworkView {
            warnings: conflicts.iter().map(network::RouteConflict::to_string).collect(),
            id,
            name: found.name().into(),
            driver: found.driver().into(),
            // As old as the engine that made them.
            created: self.inner.opened,
            scope: "local".into(),
            enable_ipv4: false,
            enable_ipv6: false,
            internal: false,
            attachable: false,
            ipam: Vec::new(),
            ipam_options: BTreeMap::new(),
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            config_only: false,
            config_from: String::new(),
            containers: BTreeMap::new(),
        };
        match found {
            Found::Predefined("bridge", _) => {
                let bridge = self.inner.networks.bridge();
                let pool = |subnet: String, gateway: IpAddr| IpamPool {
                    subnet,
                    range: None,
                    gateway: Some(gateway),
                    auxiliary: BTreeMap::new(),
                };
                let ipv6 = bridge.subnet6.map(|subnet| pool(subnet.to_string(), subnet.gateway().into()));
                (view.enable_ipv4, view.enable_ipv6) = (true, ipv6.is_some());
                view.ipam = vec![pool(bridge.subnet.to_string(), bridge.gateway.into())];
                view.ipam.extend(ipv6);
                view.options = bridge_options(bridge);
            }
            Found::Predefined(..) => {}
            Found::User(record) => {
                view.created = record.created;
                view.internal = record.definition.internal;
                view.enable_ipv4 = !record.definition.ipv4.is_empty();
                view.enable_ipv6 = !record.definition.ipv6.is_empty();
                if let Some(template) = &record.template {
                    view.config_only = true;
                    (view.enable_ipv4, view.enable_ipv6) = (template.enable_ipv4 != Some(false), template.enable_ipv6);
                }
                view.config_from.clone_from(&record.config_from);
                view.attachable = record.attachable;
                view.ipam.clone_from(&record.pools);
                view.ipam_options.clone_from(&record.ipam_options);
                view.options.clone_from(&record.options);
                view.labels.clone_from(&record.labels);
            }
        }
        view
    }

    /// The containers that run on a network.
    fn members(&self, network: &str) -> BTreeMap<String, NetworkMember> {
        self.all_members().remove(network).unwrap_or_default()
    }

    /// The containers that run on each network, by its name.
    fn all_members(&self) -> HashMap<String, BTreeMap<String, NetworkMember>> {
        let mut all: HashMap<String, BTreeMap<String, NetworkMember>> = HashMap::new();
        for handle in self.inner.index.all().into_iter().filter(|handle| handle.live().is_some()) {
            let view = handle.view();
            for (network, endpoint) in &view.networks.endpoints {
                let member = NetworkMember {
                    name: view.name.to_string(),
                    endpoint_id: endpoint.endpoint_id.clone(),
                    mac_address: endpoint.mac_address.clone(),
                    ipv4: endpoint.ipv4,
                    ipv4_prefix: endpoint.ipv4_prefix,
                    ipv6: endpoint.ipv6,
                    ipv6_prefix: endpoint.ipv6_prefix,
                };
                all.entry(network.clone()).or_default().insert(handle.id.to_string(), member);
            }
        }
        all
    }
}

fn put(record: &NetworkRecord) -> Result<Change, EngineError> {
    let text = serde_json::to_string(record)
        .map_err(|error| EngineError::system("cannot write the network's record", error))?;
    Ok(Change::PutNetwork { id: record.id.clone(), record: text })
}

/// The record of a configuration, of which nothing is made.
fn configuration(id: String, request: NetworkRequest) -> NetworkRecord {
    let template = Template {
        enable_ipv4: request.enable_ipv4,
        enable_ipv6: request.enable_ipv6,
        ipam_driver: request.ipam_driver,
        pools: request.pools.clone(),
    };
    NetworkRecord {
        version: record::RECORD_VERSION,
        definition: Definition::nothing(&id),
        id,
        name: request.name,
        created: Timestamp::now(),
        attachable: request.attachable,
        labels: request.labels,
        options: request.options,
        ipam_options: request.ipam_options,
        pools: request.pools,
        subnet_given: false,
        subnet6_given: false,
        host_binding: None,
        interface_prefix: None,
        template: Some(template),
        config_from: String::new(),
    }
}

fn check_name(request: &NetworkRequest) -> Result<(), EngineError> {
    let name = request.name.as_str();
    if name.trim().is_empty() {
        return Err(EngineError::invalid("network name cannot be empty"));
    }
    if PREDEFINED.iter().any(|(predefined, _)| *predefined == name) || name == "default" {
        return Err(EngineError::forbidden(format!("operation is not permitted on predefined {name} network ")));
    }
    if name.contains([':', '/']) {
        return Err(EngineError::invalid(format!("invalid network name \"{name}\": ':' and '/' mean something else")));
    }
    if request.ingress || request.scope == "swarm" || request.driver == "overlay" {
        return Err(EngineError::unavailable(
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
        ));
    }
    match request.driver.as_str() {
        "" | "bridge" | "default" | "macvlan" | "ipvlan" | "routed" => Ok(()),
        "host" | "null" => {
            Err(EngineError::forbidden(format!("only one instance of \"{}\" network is allowed", request.driver)))
        }
        other => Err(EngineError::not_found(format!("plugin \"{other}\" not found"))),
    }
}

/// A member as the refusal of a removal shows it.
fn active((id, member): (&String, &NetworkMember)) -> String {
    format!("name:\"{}\" id:\"{}\"", member.name, id.get(..12).unwrap_or(id))
}

/// The pools of one family: those that were asked for, if they are free, or one that is.
fn settle<A: Ip, E: std::error::Error + Send + Sync + 'static>(
    inner: &Inner,
    wanted: Pools<A>,
    choose: impl Fn() -> Result<Option<Subnet<A>>, E>,
) -> Result<Vec<Pool<A>>, EngineError> {
    match wanted {
        Pools::None => Ok(Vec::new()),
        Pools::Any => {
            let chosen = choose().map_err(cannot_look)?.map(Pool::chosen);
            let none = "all predefined address pools have been fully subnetted: choose one with --subnet";
            Ok(vec![chosen.ok_or_else(|| EngineError::invalid(none))?])
        }
        Pools::These(pools) => {
            for pool in &pools {
                if let Some(conflict) = inner.networks.conflict(pool.subnet).map_err(cannot_look)? {
                    return Err(overlap(&inner.registry, &pool.subnet.to_string(), &conflict));
                }
            }
            Ok(pools)
        }
    }
}

fn overlap(registry: &Registry, subnet: &str, conflict: &SubnetConflict) -> EngineError {
    let with = match conflict {
        SubnetConflict::Network { id, subnet } => {
            let name = registry.by_id(id).map_or_else(|| id.clone(), |record| record.name.clone());
            format!("{subnet} of network {name}")
        }
        SubnetConflict::Host(taken) => format!("the host's own route to {taken}"),
    };
    EngineError::forbidden(format!(
        "invalid pool request: Pool overlaps with other one on this address space: {subnet} overlaps with {with}"
    ))
}

fn cannot_look(error: impl std::error::Error + Send + Sync + 'static) -> EngineError {
    EngineError::system("cannot look for a free subnet", error)
}

fn cannot_make(error: CreateError) -> EngineError {
    match error {
        CreateError::Bridge(network::OpenError::ForeignInterface { interface }) => EngineError::forbidden(format!(
            "cannot create network: the interface {interface} exists and was not made by this engine"
        )),
        CreateError::Bridge(
            error @ (network::OpenError::NoParent { .. }
            | network::OpenError::LoopbackParent(_)
            | network::OpenError::NoKind(_)),
        ) => EngineError::invalid(error.to_string()),
        error => EngineError::system("cannot create network", error),
    }
}

/// Docker's labels of its default bridge.
fn bridge_options(bridge: &network::Bridge) -> BTreeMap<String, String> {
    let options = [
        ("com.docker.network.bridge.default_bridge", "true".to_owned()),
        ("com.docker.network.bridge.enable_icc", "true".to_owned()),
        ("com.docker.network.bridge.enable_ip_masquerade", "true".to_owned()),
        ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0".to_owned()),
        ("com.docker.network.bridge.name", bridge.interface.clone()),
        ("com.docker.network.driver.mtu", bridge.mtu.to_string()),
    ];
    options.map(|(key, value)| (key.to_owned(), value)).into()
}

fn not_found(reference: &str) -> EngineError {
    EngineError::not_found(format!("network {reference} not found"))
}
