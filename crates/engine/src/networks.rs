//! Networks: bridge, host and none.

use std::collections::BTreeMap;
use std::net::IpAddr;

use oci::Digest;

use crate::containers::network_of;
use crate::engine::Engine;
use crate::model::{
    EndpointSpec, EngineError, EventKind, IpamPool, NetworkMember, NetworkQuery, NetworkView, PruneFilters,
    PruneReport, name_matches,
};

/// The networks that are always there: name and driver.
const PREDEFINED: [(&str, &str); 3] = [("bridge", "bridge"), ("host", "host"), ("none", "null")];

/// A predefined network's id: stable for an engine, and different from every other engine's.
pub(crate) fn id_of(engine_id: &str, name: &str) -> String {
    Digest::of(format!("network {engine_id} {name}").as_bytes()).hex()
}

impl Engine {
    /// A network by name, id or unique prefix, with its members.
    pub fn network(&self, reference: &str) -> Result<NetworkView, EngineError> {
        let known =
            |name: &str| name == reference || (!reference.is_empty() && self.network_id(name).starts_with(reference));
        let found = PREDEFINED
            .iter()
            .find(|(name, _)| *name == reference)
            .or_else(|| PREDEFINED.iter().find(|(name, _)| known(name)));
        found.map(|(name, driver)| self.network_view(name, driver)).ok_or_else(|| not_found(reference))
    }

    /// Networks.
    pub fn networks(&self, query: &NetworkQuery) -> Result<Vec<NetworkView>, EngineError> {
        let any = |list: &[String], test: &dyn Fn(&str) -> bool| list.is_empty() || list.iter().any(|text| test(text));
        let shown = |view: &NetworkView| {
            any(&query.name, &|name| name_matches(name, &view.name))
                && any(&query.id, &|id| view.id.starts_with(id))
                && any(&query.driver, &|driver| driver == view.driver)
                && any(&query.scope, &|scope| scope == view.scope)
                && any(&query.kind, &|kind| kind == "builtin")
                && query.label.iter().all(|label| label.matches(&view.labels))
                && query.dangling != Some(true)
        };
        let views = PREDEFINED.iter().map(|(name, driver)| self.network_view(name, driver));
        Ok(views.filter(|view| shown(view)).collect())
    }

    /// Creates a network: not built yet, but names and drivers are checked as Docker checks them.
    pub async fn create_network(
        &self,
        name: &str,
        driver: &str,
        _labels: BTreeMap<String, String>,
    ) -> Result<String, EngineError> {
        if PREDEFINED.iter().any(|(predefined, _)| *predefined == name) || name == "default" {
            return Err(EngineError::forbidden(format!("operation is not permitted on predefined {name} network ")));
        }
        match driver {
            "" | "bridge" => {
                Err(EngineError::not_implemented("creating networks is not built; bridge, host and none are there"))
            }
            "host" | "null" => {
                Err(EngineError::forbidden(format!("only one instance of \"{driver}\" network is allowed")))
            }
            _ => Err(EngineError::not_found(format!("plugin \"{driver}\" not found"))),
        }
    }

    /// Removes a network.
    pub async fn remove_network(&self, reference: &str) -> Result<(), EngineError> {
        let network = self.network(reference)?;
        Err(EngineError::forbidden(format!("{} is a pre-defined network and cannot be removed", network.name)))
    }

    /// Connects a container to a network.
    pub async fn connect_network(
        &self,
        reference: &str,
        container: &str,
        _endpoint: EndpointSpec,
    ) -> Result<(), EngineError> {
        self.refuse_connection(
            reference,
            container,
            "connecting a container to a network after its creation is not built",
        )
    }

    /// Disconnects a container from a network.
    pub async fn disconnect_network(&self, reference: &str, container: &str, _force: bool) -> Result<(), EngineError> {
        self.refuse_connection(reference, container, "disconnecting a container from its network is not built")
    }

    fn refuse_connection(&self, reference: &str, container: &str, why: &str) -> Result<(), EngineError> {
        self.network(reference)?;
        self.container(container)?;
        Err(EngineError::not_implemented(why))
    }

    /// Removes unused networks: the predefined ones stay, so nothing goes.
    pub async fn prune_networks(&self, _filters: PruneFilters) -> Result<PruneReport, EngineError> {
        self.tell(EventKind::Network, "prune", "", BTreeMap::from([("reclaimed".to_owned(), "0".to_owned())]));
        Ok(PruneReport::default())
    }

    /// A predefined network's id.
    pub(crate) fn network_id(&self, name: &str) -> String {
        id_of(&self.inner.id, name)
    }

    fn network_view(&self, name: &str, driver: &str) -> NetworkView {
        let mut view = NetworkView {
            id: self.network_id(name),
            name: name.into(),
            driver: driver.into(),
            // As old as the engine that made them.
            created: self.inner.opened,
            scope: "local".into(),
            enable_ipv6: false,
            internal: false,
            ipam: Vec::new(),
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            containers: self.members(name),
        };
        if name == "bridge" {
            let bridge = self.inner.networks.bridge();
            view.ipam = vec![IpamPool { subnet: bridge.subnet.to_string(), gateway: Some(IpAddr::V4(bridge.gateway)) }];
            view.options = bridge_options(bridge);
        }
        view
    }

    fn members(&self, network: &str) -> BTreeMap<String, NetworkMember> {
        let mut members = BTreeMap::new();
        for handle in self.inner.index.all() {
            let view = handle.view();
            let (Some(_), Some(endpoint)) = (handle.live(), view.networks.endpoints.get(network)) else { continue };
            if network_of(&view.spec).is_some_and(|(name, _)| name == network) {
                let member = NetworkMember {
                    name: view.name.to_string(),
                    endpoint_id: endpoint.endpoint_id.clone(),
                    mac_address: endpoint.mac_address.clone(),
                    ipv4: endpoint.ipv4,
                    ipv4_prefix: endpoint.ipv4_prefix,
                };
                members.insert(handle.id.to_string(), member);
            }
        }
        members
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
