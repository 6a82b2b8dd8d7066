//! Processes in running containers.

use docker_api::exec::{CreateRequest, CreateResponse, Inspect, StartRequest};
use docker_api::{QueryBuilder, encode_path_segment};

use crate::client::{Client, Request};
use crate::error::Result;
use crate::hijack::Hijacked;

impl Client {
    /// Prepares a process in a running container; returns its id.
    pub fn exec_create(&self, container: &str, request: &CreateRequest) -> Result<String> {
        let target = format!("/containers/{}/exec", encode_path_segment(container));
        self.document::<CreateResponse>(Request::post(target).json(request)?).map(|response| response.id)
    }

    /// Starts it and connects to its streams.
    pub fn exec_start(&self, id: &str, request: &StartRequest) -> Result<Hijacked> {
        self.hijack(Request::post(format!("/exec/{id}/start")).json(request)?)
    }

    /// Starts it and leaves it alone.
    pub fn exec_start_detached(&self, id: &str, request: &StartRequest) -> Result<()> {
        let request = StartRequest { detach: true, ..request.clone() };
        self.command(Request::post(format!("/exec/{id}/start")).json(&request)?)
    }

    /// How it is, and how it ended.
    pub fn exec_inspect(&self, id: &str) -> Result<Inspect> {
        self.document(Request::get(format!("/exec/{id}/json")))
    }

    /// Tells it the size of its terminal.
    pub fn exec_resize(&self, id: &str, height: u16, width: u16) -> Result<()> {
        let query = QueryBuilder::new().with("h", &height.to_string()).with("w", &width.to_string()).build();
        self.command(Request::post(format!("/exec/{id}/resize{query}")))
    }
}
