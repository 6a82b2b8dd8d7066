//! Building images.

use std::collections::BTreeMap;

use docker_api::QueryBuilder;
use docker_api::container::Ulimit;
use docker_api::progress::Message;

use crate::client::{Client, Request, Upload};
use crate::error::Result;
use crate::lines::Lines;

/// How to build.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "the fields are Docker's parameters")]
pub struct BuildOptions {
    pub dockerfile: String,
    pub tags: Vec<String>,
    pub target: String,
    pub arguments: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub no_cache: bool,
    pub pull: bool,
    pub quiet: bool,
    pub platform: String,
    pub network: String,
    pub extra_hosts: Vec<String>,
    pub shm_size: u64,
    pub memory: u64,
    pub ulimits: Vec<Ulimit>,
}

impl Client {
    /// Builds an image of a context in a tar.
    pub fn image_build(&self, context: Upload, options: &BuildOptions) -> Result<Lines<Message>> {
        let request = Request::post(format!("/build{}", query(options))).header("Content-Type", "application/x-tar");
        self.upload(request, context).map(|answer| Lines::new(answer.body))
    }
}

fn query(options: &BuildOptions) -> String {
    let json = |map: &BTreeMap<String, String>| {
        if map.is_empty() { String::new() } else { serde_json::to_string(map).unwrap_or_default() }
    };
    let ulimits = if options.ulimits.is_empty() {
        String::new()
    } else {
        serde_json::to_string(&options.ulimits).unwrap_or_default()
    };
    let number = |number: u64| if number == 0 { String::new() } else { number.to_string() };
    let query = QueryBuilder::new()
        .with_some("dockerfile", &options.dockerfile)
        .with_some("target", &options.target)
        .with_some("buildargs", &json(&options.arguments))
        .with_some("labels", &json(&options.labels))
        .with_some("platform", &options.platform)
        .with_some("networkmode", &options.network)
        .with_some("shmsize", &number(options.shm_size))
        .with_some("memory", &number(options.memory))
        .with_some("ulimits", &ulimits)
        .with_flag("nocache", options.no_cache)
        .with_flag("pull", options.pull)
        .with_flag("q", options.quiet)
        .with("rm", "1");
    let query = options.tags.iter().fold(query, |query, tag| query.with("t", tag));
    options.extra_hosts.iter().fold(query, |query, host| query.with("extrahosts", host)).build()
}
