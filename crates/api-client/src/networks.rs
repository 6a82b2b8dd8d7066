//! Networks.

use docker_api::network::{
    ConnectRequest, CreateRequest, CreateResponse, DisconnectRequest, Network, PortExplanation, PruneReport,
};
use docker_api::{Filters, QueryBuilder, encode_path_segment};

use crate::client::{Client, Request};
use crate::error::Result;

impl Client {
    /// Of Conex alone: who reaches which published port, of one container or of all.
    pub fn ports_explain(&self, container: Option<&str>) -> Result<Vec<PortExplanation>> {
        let query = match container {
            Some(container) => QueryBuilder::new().with("container", container).build(),
            None => String::new(),
        };
        self.document(Request::get(format!("/conex/ports{query}")))
    }

    /// Lists networks.
    pub fn network_list(&self, filters: &Filters) -> Result<Vec<Network>> {
        let query = QueryBuilder::new().with_filters(filters).build();
        self.document(Request::get(format!("/networks{query}")))
    }

    /// Everything about a network, its containers included.
    pub fn network_inspect(&self, name: &str) -> Result<Network> {
        self.document(Request::get(format!("/networks/{}", encode_path_segment(name))))
    }

    /// The same, as the server wrote it.
    pub fn network_inspect_raw(&self, name: &str) -> Result<serde_json::Value> {
        self.document(Request::get(format!("/networks/{}", encode_path_segment(name))))
    }

    /// Makes a network.
    pub fn network_create(&self, request: &CreateRequest) -> Result<CreateResponse> {
        self.document(Request::post("/networks/create").json(request)?)
    }

    /// Connects a container to a network.
    pub fn network_connect(&self, name: &str, request: &ConnectRequest) -> Result<()> {
        self.command(Request::post(format!("/networks/{}/connect", encode_path_segment(name))).json(request)?)
    }

    /// Disconnects a container from a network.
    pub fn network_disconnect(&self, name: &str, request: &DisconnectRequest) -> Result<()> {
        self.command(Request::post(format!("/networks/{}/disconnect", encode_path_segment(name))).json(request)?)
    }

    /// Removes networks that no container is in.
    pub fn network_prune(&self, filters: &Filters) -> Result<PruneReport> {
        let query = QueryBuilder::new().with_filters(filters).build();
        self.document(Request::post(format!("/networks/prune{query}")))
    }

    /// Removes a network.
    pub fn network_remove(&self, name: &str) -> Result<()> {
        self.command(Request::delete(format!("/networks/{}", encode_path_segment(name))))
    }
}
