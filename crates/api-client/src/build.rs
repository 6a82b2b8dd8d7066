//! Building images.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use docker_api::container::Ulimit;
use docker_api::progress::Message;
use docker_api::{AuthConfig, QueryBuilder};

use crate::body::Body;
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
    /// Not Docker's: tell each step as it happens, in `aux`.
    pub steps: bool,
    /// Not Docker's: caches that are read, as `type=KIND,NAME=VALUE`.
    pub cache_from: Vec<String>,
    /// Not Docker's: caches that are written.
    pub cache_to: Vec<String>,
    /// Not Docker's: what is attested, each as `TYPE=OPTIONS`.
    pub attests: Vec<String>,
    /// Not Docker's: `kept` for a result that is asked for in parts instead of an image, `both` for one beside it.
    pub result: String,
    /// Who asks at which registry.
    pub registries: BTreeMap<String, AuthConfig>,
    /// Not Docker's: named contexts.
    pub contexts: BTreeMap<String, String>,
    /// Not Docker's: sockets of SSH agents on the engine's machine, by id.
    pub agents: BTreeMap<String, String>,
    /// Not Docker's: secrets by id.
    pub secrets: BTreeMap<String, Vec<u8>>,
}

/// A folder that the engine reads by itself, where both run on one machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedFolder {
    /// Its absolute path.
    pub path: String,
    /// Its device and inode: proof that the engine sees the same folder.
    pub device: u64,
    /// See `device`.
    pub inode: u64,
    /// The Dockerfile and its ignore file where they are not in the folder.
    pub dockerfile: Option<(String, String)>,
}

const REGISTRY_CONFIG_HEADER: &str = "X-Registry-Config";
/// Secrets travel in a header: addresses are logged.
const SECRETS_HEADER: &str = "X-Conex-Build-Secrets";

impl Client {
    /// Builds an image of a context in a tar.
    pub fn image_build(&self, context: Upload, options: &BuildOptions) -> Result<Lines<Message>> {
        let request = Request::post(format!("/build{}", query(options).build()));
        let request = with_secrets(request, options).header("Content-Type", "application/x-tar");
        self.upload(request, context).map(|answer| Lines::new(answer.body))
    }

    /// Builds an image of a folder that the engine shares.
    pub fn image_build_folder(&self, folder: &SharedFolder, options: &BuildOptions) -> Result<Lines<Message>> {
        let mut query = query(options)
            .with("folder", &folder.path)
            .with("folderdevice", &folder.device.to_string())
            .with("folderinode", &folder.inode.to_string());
        if let Some((text, ignore)) = &folder.dockerfile {
            query = query.with("dockerfiletext", text).with_some("ignoretext", ignore);
        }
        self.build_elsewhere(query, options)
    }

    /// Builds an image of a repository, an archive or a Dockerfile that the engine fetches.
    pub fn image_build_remote(&self, url: &str, options: &BuildOptions) -> Result<Lines<Message>> {
        self.build_elsewhere(query(options).with("remote", url), options)
    }

    /// A part of a result that the engine has kept: `files`, `oci`, `docker` or `cache`, with what the engine must know of it; always a tar.
    pub fn build_result(&self, result: &str, kind: &str, names: &[String], more: &[(&str, &str)]) -> Result<Body> {
        let query = QueryBuilder::new().with("id", result).with("type", kind);
        let query = more.iter().fold(query, |query, (name, value)| query.with_some(name, value));
        let query = names.iter().fold(query, |query, name| query.with("t", name));
        self.send(Request::get(format!("/build/result{}", query.build()))).map(|answer| answer.body)
    }

    fn build_elsewhere(&self, query: QueryBuilder, options: &BuildOptions) -> Result<Lines<Message>> {
        let request = with_secrets(Request::post(format!("/build{}", query.build())), options);
        self.send(request).map(|answer| Lines::new(answer.body))
    }
}

fn with_secrets<'a>(request: Request<'a>, options: &BuildOptions) -> Request<'a> {
    let request = match options.registries.is_empty() {
        true => request,
        false => request.header(REGISTRY_CONFIG_HEADER, AuthConfig::all_to_header(&options.registries)),
    };
    if options.secrets.is_empty() {
        return request;
    }
    let encode = |bytes: &[u8]| STANDARD.encode(bytes);
    let secrets: BTreeMap<&String, String> = options.secrets.iter().map(|(id, bytes)| (id, encode(bytes))).collect();
    let text = serde_json::to_string(&secrets).unwrap_or_default();
    request.header(SECRETS_HEADER, encode(text.as_bytes()))
}

fn query(options: &BuildOptions) -> QueryBuilder {
    let json = |map: &BTreeMap<String, String>| {
        if map.is_empty() { String::new() } else { serde_json::to_string(map).unwrap_or_default() }
    };
    let ulimits = if options.ulimits.is_empty() {
        String::new()
    } else {
        serde_json::to_string(&options.ulimits).unwrap_or_default()
    };
    let list =
        |list: &[String]| if list.is_empty() { String::new() } else { serde_json::to_string(list).unwrap_or_default() };
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
        .with_some("contexts", &json(&options.contexts))
        .with_some("ssh", &json(&options.agents))
        .with_some("result", &options.result)
        .with_some("cacheimports", &list(&options.cache_from))
        .with_some("cacheexports", &list(&options.cache_to))
        .with_flag("steps", options.steps)
        .with_flag("nocache", options.no_cache)
        .with_flag("pull", options.pull)
        .with_flag("q", options.quiet)
        .with("rm", "1");
    let query = options.tags.iter().fold(query, |query, tag| query.with("t", tag));
    let query = options.attests.iter().fold(query, |query, attest| query.with("attest", attest));
    options.extra_hosts.iter().fold(query, |query, host| query.with("extrahosts", host))
}
