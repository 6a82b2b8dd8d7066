//! Volumes.

use docker_api::volume::{CreateRequest, ListResponse, PruneReport, Volume};
use docker_api::{Filters, QueryBuilder, encode_path_segment};

use crate::client::{Client, Request};
use crate::error::Result;

impl Client {
    /// Makes a volume, or finds the one of that name.
    pub fn volume_create(&self, request: &CreateRequest) -> Result<Volume> {
        self.document(Request::post("/volumes/create").json(request)?)
    }

    /// Lists volumes.
    pub fn volume_list(&self, filters: &Filters) -> Result<ListResponse> {
        let query = QueryBuilder::new().with_filters(filters).build();
        self.document(Request::get(format!("/volumes{query}")))
    }

    /// Everything about a volume.
    pub fn volume_inspect(&self, name: &str) -> Result<Volume> {
        self.document(Request::get(format!("/volumes/{}", encode_path_segment(name))))
    }

    /// The same, as the server wrote it.
    pub fn volume_inspect_raw(&self, name: &str) -> Result<serde_json::Value> {
        self.document(Request::get(format!("/volumes/{}", encode_path_segment(name))))
    }

    /// Removes a volume.
    pub fn volume_remove(&self, name: &str, force: bool) -> Result<()> {
        let query = QueryBuilder::new().with_flag("force", force).build();
        self.command(Request::delete(format!("/volumes/{}{query}", encode_path_segment(name))))
    }

    /// Removes those that no container uses.
    pub fn volume_prune(&self, filters: &Filters) -> Result<PruneReport> {
        let query = QueryBuilder::new().with_filters(filters).build();
        self.document(Request::post(format!("/volumes/prune{query}")))
    }
}
