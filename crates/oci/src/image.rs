//! Images: manifests, indexes and Docker's superset of the OCI image configuration.
//!
//! An image is identified by the digest of its configuration's *bytes*: whoever needs the identity keeps those bytes, these types
//! are for reading them and for writing new ones.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::{DiffId, Digest};
use crate::json::{is_default, null_default};

/// Media types of OCI and Docker.
pub mod media_type {
    /// An OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// An OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI image configuration.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// An OCI layer, not compressed.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// An OCI layer, gzip.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// An OCI layer, zstd.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// The empty JSON object that artifacts use as configuration.
    pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
    /// The file `oci-layout`.
    pub const OCI_LAYOUT: &str = "application/vnd.oci.layout.header.v1+json";
    /// A Docker manifest list.
    pub const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// A Docker image manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// A Docker image configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// A Docker layer, not compressed.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// A Docker layer, gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// A Docker layer, zstd.
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    /// A Docker layer that must be fetched from elsewhere.
    pub const DOCKER_LAYER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

    /// Says whether the media type names a list of manifests.
    pub fn is_index(media_type: &str) -> bool {
        matches!(media_type, OCI_INDEX | DOCKER_MANIFEST_LIST)
    }

    /// Says whether the media type names a manifest of one image.
    pub fn is_manifest(media_type: &str) -> bool {
        matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
    }
}

/// The annotation that holds an image's full name in an OCI layout (containerd's and Docker's convention).
pub const ANNOTATION_IMAGE_NAME: &str = "io.containerd.image.name";
/// The annotation that holds an image's tag or name in an OCI layout.
pub const ANNOTATION_REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A pointer to content: what it is, its digest and its size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    pub media_type: String,
    /// The content's digest.
    pub digest: Digest,
    /// The content's size in bytes.
    pub size: u64,
    /// Other places to get it from.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free key-value pairs.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The content itself in base64, if it is small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// For which platform the content is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What kind of artifact it points to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// A pointer with nothing but what must be there.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            data: None,
            platform: None,
            artifact_type: None,
        }
    }
}

/// An operating system and a processor.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// The processor, by Go's name (`amd64`).
    #[serde(default)]
    pub architecture: String,
    /// The operating system, by Go's name (`linux`).
    #[serde(default)]
    pub os: String,
    /// The version of the operating system (Windows).
    #[serde(
        default,
        rename = "os.version",
        deserialize_with = "null_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    /// Features of the operating system (Windows).
    #[serde(default, rename = "os.features", deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// The processor's variant (`v8`).
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    /// The platform that this program runs on, by Go's names.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            other => other,
        };
        Self { architecture: architecture.to_owned(), os: "linux".to_owned(), ..Self::default() }
    }
}

/// A list of manifests, usually one a platform; also Docker's manifest list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// What the document is; empty in old OCI documents.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// What kind of artifact it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests.
    #[serde(default, deserialize_with = "null_default")]
    pub manifests: Vec<Descriptor>,
    /// What the index refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free key-value pairs.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// One image: a configuration and its layers; also Docker's schema 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// What the document is; empty in old OCI documents.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// What kind of artifact it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(default, deserialize_with = "null_default")]
    pub layers: Vec<Descriptor>,
    /// What the manifest refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free key-value pairs.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// An index of this kind, without annotations.
    pub fn new(media_type: &str, manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: media_type.to_owned(),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }
}

impl Manifest {
    /// A manifest of this kind, without annotations.
    pub fn new(media_type: &str, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: media_type.to_owned(),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// The file `oci-layout` at the top of an OCI layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageLayout {
    /// Always [`ImageLayout::VERSION`].
    pub image_layout_version: String,
}

impl ImageLayout {
    /// The one version that there is (image-spec 1.1, image-layout, §oci-layout file).
    pub const VERSION: &str = "1.0.0";
}

impl Default for ImageLayout {
    fn default() -> Self {
        Self { image_layout_version: Self::VERSION.to_owned() }
    }
}

/// An image's configuration with Docker's additions; its bytes' digest is the image's identity.
///
/// `container_config` and `container` of Docker's legacy builder are ignored when read and never written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When it was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// The processor, by Go's name.
    #[serde(default)]
    pub architecture: String,
    /// The processor's variant.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// The operating system, by Go's name.
    #[serde(default)]
    pub os: String,
    /// The version of the operating system (Windows).
    #[serde(
        default,
        rename = "os.version",
        deserialize_with = "null_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    /// Features of the operating system (Windows).
    #[serde(default, rename = "os.features", deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// How containers of the image run unless told otherwise.
    #[serde(default, deserialize_with = "null_default")]
    pub config: ContainerConfig,
    /// The layers' identities.
    #[serde(default)]
    pub rootfs: RootFs,
    /// How the layers came to be.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// The version of the engine that made it.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub docker_version: String,
    /// A commit's message.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// The parent image in an archive of `docker save`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// What a build left for the next one, in base64 (BuildKit's inline cache).
    #[serde(default, rename = "moby.buildkit.cache.v0", skip_serializing_if = "Option::is_none")]
    pub build_cache: Option<String>,
}

impl ImageConfig {
    /// The platform that the image is for.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            variant: self.variant.clone(),
        }
    }
}

/// How containers of an image run unless told otherwise; the fields are Docker's, in Docker's order.
///
/// `Cmd`, `Entrypoint`, `OnBuild` and others tell `null` from an empty list, because `inspect` shows the difference.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// The host name.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// The NIS domain name.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub domainname: String,
    /// `user`, `uid`, `user:group`.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Whether standard input is attached.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "is_default")]
    pub attach_stdin: bool,
    /// Whether standard output is attached.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "is_default")]
    pub attach_stdout: bool,
    /// Whether standard error is attached.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "is_default")]
    pub attach_stderr: bool,
    /// Ports that the program listens on, `80/tcp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<BTreeMap<String, EmptyObject>>,
    /// Whether the process gets a terminal.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "is_default")]
    pub tty: bool,
    /// Whether standard input stays open.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "is_default")]
    pub open_stdin: bool,
    /// Whether standard input closes with the first client.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "is_default")]
    pub stdin_once: bool,
    /// The environment, `KEY=value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// Arguments, or program and arguments where there is no entry point.
    #[serde(default, deserialize_with = "text_or_list", skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// How to see that the program is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Whether the command is already escaped (Windows).
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "is_default")]
    pub args_escaped: bool,
    /// The image that this one was made from.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Directories that get a volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<BTreeMap<String, EmptyObject>>,
    /// The working directory.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Program and first arguments.
    #[serde(default, deserialize_with = "text_or_list", skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Whether there is no network.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "is_default")]
    pub network_disabled: bool,
    /// The hardware address.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub mac_address: String,
    /// Instructions for builds upon this image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
    /// Free key-value pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// The signal that asks the program to end.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Seconds between that signal and SIGKILL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// The shell of shell-form instructions.
    #[serde(default, deserialize_with = "text_or_list", skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// The `{}` that Go's `struct{}` becomes as a map's value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmptyObject {}

/// How to see that a container's program is well; times are nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `NONE`, `CMD` and arguments, or `CMD-SHELL` and a line; empty inherits.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "is_default")]
    pub interval: i64,
    /// For one check.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "is_default")]
    pub timeout: i64,
    /// While failures don't count.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "is_default")]
    pub start_period: i64,
    /// Between two checks in the start period.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "is_default")]
    pub start_interval: i64,
    /// Failures in a row until the container counts as unhealthy.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "is_default")]
    pub retries: i64,
}

/// The layers of an image, lowest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed tars.
    #[serde(default, deserialize_with = "null_default")]
    pub diff_ids: Vec<DiffId>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// One step in the making of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By which instruction.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// By whom.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// A message.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether the step made no layer.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "is_default")]
    pub empty_layer: bool,
}

/// Reads a list, or the single text that images of Docker's first years have in its place.
fn text_or_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum TextOrList {
        Text(String),
        List(Vec<String>),
    }
    Ok(Option::<TextOrList>::deserialize(deserializer)?.map(|value| match value {
        TextOrList::Text(text) => vec![text],
        TextOrList::List(list) => list,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_docker_writes() {
        let config: ImageConfig = serde_json::from_str(
            r#"{"architecture":"amd64","config":{"Hostname":"","Env":["PATH=/bin"],"Cmd":["sh"],"OnBuild":null,"Volumes":{"/data":{}},
                "ExposedPorts":{"80/tcp":{}},"Labels":null,"Healthcheck":{"Test":["CMD","true"],"Interval":1000000000}},
                "container":"abc","container_config":{"Cmd":["/bin/sh","-c","(nop) "]},"created":"2024-01-02T03:04:05.6Z",
                "docker_version":"26.1.5","history":[{"created":"2024-01-02T03:04:05.6Z","created_by":"ADD","empty_layer":true}],"os":"linux",
                "rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#,
        )
        .unwrap();
        assert_eq!(config.config.cmd, Some(vec!["sh".to_owned()]));
        assert_eq!(config.config.entrypoint, None);
        assert_eq!(config.config.volumes.as_ref().map(BTreeMap::len), Some(1));
        assert_eq!(config.rootfs.diff_ids[0].0, Digest::of(b""));
        assert!(config.history[0].empty_layer);
        let written = serde_json::to_string(&config).unwrap();
        assert!(!written.contains("container_config"));
        assert_eq!(serde_json::from_str::<ImageConfig>(&written).unwrap(), config);
    }

    #[test]
    fn an_old_image_may_have_a_text_as_entry_point() {
        let config: ContainerConfig =
            serde_json::from_str(r#"{"Entrypoint":"/run.sh","Cmd":null,"Shell":["sh","-c"]}"#).unwrap();
        assert_eq!(config.entrypoint, Some(vec!["/run.sh".to_owned()]));
        assert_eq!(config.cmd, None);
        assert_eq!(config.shell.map(|shell| shell.len()), Some(2));
    }

    #[test]
    fn a_missing_config_object_is_an_empty_one() {
        let config: ImageConfig =
            serde_json::from_str(r#"{"os":"linux","architecture":"arm64","config":null}"#).unwrap();
        assert_eq!(config.config, ContainerConfig::default());
        assert_eq!(config.platform().architecture, "arm64");
    }

    #[test]
    fn manifests_and_indexes_keep_their_fields() {
        let text = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0,"annotations":{"org.opencontainers.image.ref.name":"v1"},"platform":{"architecture":"arm64","os":"linux","variant":"v8"}}]}"#;
        let index: Index = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&index).unwrap(), text);
        assert!(media_type::is_index(&index.media_type) && media_type::is_manifest(&index.manifests[0].media_type));
    }
}
