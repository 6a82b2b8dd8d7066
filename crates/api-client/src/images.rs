//! Images.

use std::collections::BTreeMap;

use docker_api::image::{
    Check, DeleteItem, HistoryItem, Inspect, Layers, Pins, PruneReport, SearchResult, SendRequest, Summary,
};
use docker_api::progress::Message;
use docker_api::{
    AuthConfig, AuthResponse, Filters, QueryBuilder, REGISTRY_AUTH_HEADER, REGISTRY_CONFIG_HEADER, encode_path_segment,
};

use crate::body::Body;
use crate::client::{Client, Request, Upload};
use crate::error::Result;
use crate::lines::Lines;

/// Which images to list.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "the fields are the parameters of the endpoint")]
pub struct ImageListOptions {
    pub all: bool,
    pub shared_size: bool,
    pub manifests: bool,
    pub filters: Filters,
}

/// What Conex adds to a prune.
#[derive(Debug, Clone, Default)]
pub struct ImagePruneOptions {
    /// Only say what would go.
    pub dry_run: bool,
    /// Remove what this budget leaves no room for; the server's own where it is empty.
    pub budget: Option<String>,
}

/// Which form of an image to show.
#[derive(Debug, Clone, Default)]
pub struct ImageInspectOptions {
    /// A platform that it must be for: a JSON document.
    pub platform: String,
    /// Whether to show its manifests.
    pub manifests: bool,
}

/// How to make an image of a tar.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// The name, without a tag.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// A comment for its history.
    pub message: String,
    /// Dockerfile instructions for its configuration.
    pub changes: Vec<String>,
    /// `os/arch`, or empty for the server's.
    pub platform: String,
}

fn at(name: &str, action: &str) -> String {
    format!("/images/{}{action}", encode_path_segment(name))
}

impl Client {
    /// Lists images.
    pub fn image_list(&self, options: &ImageListOptions) -> Result<Vec<Summary>> {
        let query = QueryBuilder::new()
            .with_flag("all", options.all)
            .with_flag("shared-size", options.shared_size)
            .with_flag("manifests", options.manifests)
            .with_filters(&options.filters)
            .build();
        self.document(Request::get(format!("/images/json{query}")))
    }

    /// Everything about an image.
    pub fn image_inspect(&self, name: &str) -> Result<Inspect> {
        self.image_inspect_as(name, &ImageInspectOptions::default())
    }

    /// The same for one platform, or with its manifests.
    pub fn image_inspect_as(&self, name: &str, options: &ImageInspectOptions) -> Result<Inspect> {
        let query =
            QueryBuilder::new().with_some("platform", &options.platform).with_flag("manifests", options.manifests);
        self.document(Request::get(at(name, &format!("/json{}", query.build()))))
    }

    /// The same, as the server wrote it.
    pub fn image_inspect_raw(&self, name: &str) -> Result<serde_json::Value> {
        self.document(Request::get(at(name, "/json")))
    }

    /// The steps that made it.
    pub fn image_history(&self, name: &str, platform: &str) -> Result<Vec<HistoryItem>> {
        let query = QueryBuilder::new().with_some("platform", platform).build();
        self.document(Request::get(at(name, &format!("/history{query}"))))
    }

    /// Gives it another name.
    pub fn image_tag(&self, name: &str, repository: &str, tag: &str) -> Result<()> {
        let query = QueryBuilder::new().with("repo", repository).with_some("tag", tag).build();
        self.command(Request::post(at(name, &format!("/tag{query}"))))
    }

    /// Removes a name, and the image with its last one.
    pub fn image_remove(&self, name: &str, force: bool, prune: bool) -> Result<Vec<DeleteItem>> {
        let query = QueryBuilder::new().with_flag("force", force).with_flag("noprune", !prune).build();
        self.document(Request::delete(at(name, &query)))
    }

    /// Removes those that are not used.
    pub fn image_prune(&self, filters: &Filters) -> Result<PruneReport> {
        self.image_prune_as(filters, &ImagePruneOptions::default())
    }

    /// The same with what Conex adds.
    pub fn image_prune_as(&self, filters: &Filters, options: &ImagePruneOptions) -> Result<PruneReport> {
        let query = QueryBuilder::new().with_filters(filters).with_flag("dry-run", options.dry_run);
        let query = match &options.budget {
            Some(budget) => query.with("budget", budget),
            None => query,
        };
        self.document(Request::post(format!("/images/prune{}", query.build())))
    }

    /// Keeps an image from going by itself; says what keeps it then.
    pub fn image_pin(&self, name: &str) -> Result<Pins> {
        self.document(Request::post(at(name, "/pin")))
    }

    /// Lets it go by itself again; says what keeps it nevertheless.
    pub fn image_unpin(&self, name: &str) -> Result<Pins> {
        self.document(Request::post(at(name, "/unpin")))
    }

    /// Looks at every image and layer again, and repairs what can be made from what is whole.
    pub fn image_verify(&self, repair: bool, auths: &BTreeMap<String, AuthConfig>) -> Result<Lines<Check>> {
        let query = QueryBuilder::new().with_flag("repair", repair).build();
        let request = Request::post(format!("/images/verify{query}"));
        let request = request.header(REGISTRY_CONFIG_HEADER, AuthConfig::all_to_header(auths));
        self.send(request).map(|answer| Lines::new(answer.body))
    }

    /// Reads images from a tar, which may be compressed.
    pub fn image_load(&self, tar: Upload, quiet: bool, platform: &str) -> Result<Lines<Message>> {
        let query =
            QueryBuilder::new().with("quiet", if quiet { "1" } else { "0" }).with_some("platform", platform).build();
        let request = Request::post(format!("/images/load{query}")).header("Content-Type", "application/x-tar");
        self.upload(request, tar).map(|answer| Lines::new(answer.body))
    }

    /// Which of these layers are not there; a refusal as not found is a server that cannot say.
    pub fn layers_missing(&self, layers: &[oci::DiffId]) -> Result<Vec<oci::DiffId>> {
        let asked = Layers { layers: layers.to_vec() };
        let answer: Layers = self.document(Request::post("/conex/images/missing").json(&asked)?)?;
        Ok(answer.layers)
    }

    /// Writes an image into a tar without layers that its receiver has.
    pub fn image_send(&self, name: &str, without: &[oci::DiffId]) -> Result<Body> {
        let wanted = SendRequest { names: vec![name.to_owned()], without: without.to_vec() };
        self.send(Request::post("/conex/images/save").json(&wanted)?).map(|answer| answer.body)
    }

    /// Reads images from a tar that [`Client::image_send`] gave.
    pub fn image_receive(&self, tar: Upload) -> Result<Lines<Message>> {
        let request = Request::post("/conex/images/load?quiet=1").header("Content-Type", "application/x-tar");
        self.upload(request, tar).map(|answer| Lines::new(answer.body))
    }

    /// Writes images into a tar.
    pub fn image_save(&self, names: &[String], platform: &str) -> Result<Body> {
        let query = names
            .iter()
            .fold(QueryBuilder::new(), |query, name| query.with("names", name))
            .with_some("platform", platform)
            .build();
        self.send(Request::get(format!("/images/get{query}"))).map(|answer| answer.body)
    }

    /// Makes an image of one layer from a tar.
    pub fn image_import(&self, tar: Upload, options: &ImportOptions) -> Result<Lines<Message>> {
        let query = QueryBuilder::new()
            .with("fromSrc", "-")
            .with_some("repo", &options.repository)
            .with_some("tag", &options.tag)
            .with_some("message", &options.message)
            .with_some("platform", &options.platform);
        let query = options.changes.iter().fold(query, |query, change| query.with("changes", change)).build();
        let request = Request::post(format!("/images/create{query}")).header("Content-Type", "text/plain");
        self.upload(request, tar).map(|answer| Lines::new(answer.body))
    }

    /// Sends an image to a registry.
    pub fn image_push(&self, name: &str, tag: &str, platform: &str, auth: &AuthConfig) -> Result<Lines<Message>> {
        let query = QueryBuilder::new().with_some("tag", tag).with_some("platform", platform).build();
        let request = Request::post(at(name, &format!("/push{query}"))).header(REGISTRY_AUTH_HEADER, auth.to_header());
        self.send(request).map(|answer| Lines::new(answer.body))
    }

    /// Looks for repositories.
    pub fn image_search(
        &self,
        term: &str,
        limit: u32,
        filters: &Filters,
        auth: &AuthConfig,
    ) -> Result<Vec<SearchResult>> {
        let query =
            QueryBuilder::new().with("term", term).with("limit", &limit.to_string()).with_filters(filters).build();
        let request = Request::get(format!("/images/search{query}")).header(REGISTRY_AUTH_HEADER, auth.to_header());
        self.document(request)
    }

    /// Proves that credentials are good.
    pub fn login(&self, auth: &AuthConfig) -> Result<AuthResponse> {
        self.document(Request::post("/auth").json(auth)?)
    }

    /// Fetches an image from a registry. Among the messages are some whose `aux` tells how fast it came.
    pub fn image_pull(&self, repository: &str, tag: &str, platform: &str, auth: &AuthConfig) -> Result<Lines<Message>> {
        let query = QueryBuilder::new()
            .with("fromImage", repository)
            .with_some("tag", tag)
            .with_some("platform", platform)
            .with("flow", "1")
            .build();
        let request = Request::post(format!("/images/create{query}")).header(REGISTRY_AUTH_HEADER, auth.to_header());
        self.send(request).map(|answer| Lines::new(answer.body))
    }
}
