//! Networks: bridge, host and none.

use std::collections::BTreeMap;

use crate::engine::{Engine, unwritten};
use crate::model::{EndpointSpec, EngineError, NetworkQuery, NetworkView, PruneFilters, PruneReport};

impl Engine {
    /// A network by name, id or unique prefix, with its members.
    pub fn network(&self, reference: &str) -> Result<NetworkView, EngineError> {
        let _ = reference;
        Err(unwritten())
    }

    /// Networks.
    pub fn networks(&self, query: &NetworkQuery) -> Result<Vec<NetworkView>, EngineError> {
        let _ = query;
        Err(unwritten())
    }

    /// Creates a network: not built yet, but names and drivers are checked as Docker checks them.
    pub async fn create_network(
        &self,
        name: &str,
        driver: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<String, EngineError> {
        let _ = (name, driver, labels);
        Err(unwritten())
    }

    /// Removes a network.
    pub async fn remove_network(&self, reference: &str) -> Result<(), EngineError> {
        let _ = reference;
        Err(unwritten())
    }

    /// Connects a container to a network.
    pub async fn connect_network(
        &self,
        reference: &str,
        container: &str,
        endpoint: EndpointSpec,
    ) -> Result<(), EngineError> {
        let _ = (reference, container, endpoint);
        Err(unwritten())
    }

    /// Disconnects a container from a network.
    pub async fn disconnect_network(&self, reference: &str, container: &str, force: bool) -> Result<(), EngineError> {
        let _ = (reference, container, force);
        Err(unwritten())
    }

    /// Removes unused networks: the predefined ones stay, so nothing goes.
    pub async fn prune_networks(&self, filters: PruneFilters) -> Result<PruneReport, EngineError> {
        let _ = filters;
        Err(unwritten())
    }
}
