//! Images.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::container::{DriverData, HealthConfig};
use crate::mount::is_zero;
use crate::{ApiVersion, Set};

/// An image in a list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct Summary {
    pub containers: i64,
    pub created: i64,
    pub id: String,
    pub labels: Option<BTreeMap<String, String>>,
    pub parent_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<ManifestSummary>,
    pub repo_digests: Vec<String>,
    pub repo_tags: Vec<String>,
    pub shared_size: i64,
    pub size: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub virtual_size: i64,
    /// Of Conex alone, and only where shared sizes were asked for: bytes of the layers that no other image has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique_size: Option<i64>,
    /// Of Conex alone: when it was used last, in seconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub last_used: i64,
    /// Of Conex alone: what keeps it from going by itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<String>,
}

impl Summary {
    /// Gives older versions what they expect.
    #[must_use]
    pub fn for_version(mut self, version: ApiVersion) -> Self {
        if version.before(43) && self.repo_tags.is_empty() && self.repo_digests.is_empty() {
            self.repo_tags.push("<none>:<none>".to_owned());
            self.repo_digests.push("<none>@<none>".to_owned());
        }
        if version.before(44) {
            self.virtual_size = self.size;
        }
        if version.before(47) {
            self.manifests.clear();
        }
        if version.before(48) {
            self.descriptor = None;
        }
        if version.before(51) {
            self.containers = -1;
        }
        self
    }
}

/// One line of the answer to `POST /images/verify`, which is Conex's own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Check {
    /// `image` or `layer`.
    pub kind: String,
    /// The image's id or the layer's diff-id.
    #[serde(rename = "ID")]
    pub id: String,
    /// The images that need it.
    pub images: Vec<String>,
    /// `whole`, `repaired` or `damaged`.
    pub verdict: String,
    /// What is, or was, wrong.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Everything about an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct Inspect {
    pub id: String,
    pub repo_tags: Vec<String>,
    pub repo_digests: Vec<String>,
    pub parent: String,
    pub comment: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_config: Option<Value>,
    pub docker_version: String,
    pub author: String,
    pub config: Option<Value>,
    pub architecture: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    pub os: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    pub size: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub virtual_size: i64,
    pub graph_driver: DriverData,
    #[serde(rename = "RootFS")]
    pub root_fs: RootFs,
    pub metadata: Metadata,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<ManifestSummary>,
    /// Of Conex alone: when it was used last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_used: String,
    /// Of Conex alone: what keeps it from going by itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<String>,
    /// Of Conex alone: whence it came, and what is said about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
}

/// Where an image came from, and what is said about it; of Conex alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Provenance {
    /// Each way in which it came, the newest first.
    pub origins: Vec<Origin>,
    /// What the engine's policy says about it; nothing without a policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyVerdict>,
    /// What is attested about it.
    pub attestations: Vec<Attestation>,
}

/// One way in which an image came.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Origin {
    /// `registry`, `archive`, `import` or `build`.
    pub kind: String,
    /// The name that was asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reference: String,
    /// What that name meant.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// The image's manifest.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub manifest: String,
    /// The server that gave it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server: String,
    /// When.
    pub time: String,
    /// Signatures that came with it, trusted or not.
    pub signatures: usize,
}

/// What a policy says about an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PolicyVerdict {
    /// Whether it may run.
    pub allowed: bool,
    /// The rule that decided.
    pub rule: String,
    /// The key that signed it, where a signature decided.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub signed_by: String,
    /// Why it may not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// A manifest of statements about an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Attestation {
    /// Its digest.
    pub manifest: String,
    /// The statements.
    pub statements: Vec<Statement>,
}

/// One statement about an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Statement {
    /// What kind of statement.
    pub predicate_type: String,
    /// What the blob is.
    pub media_type: String,
    /// The blob.
    pub digest: String,
    /// Its size.
    pub size: i64,
}

/// One manifest of an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct ManifestSummary {
    #[serde(rename = "ID")]
    pub id: String,
    pub descriptor: Value,
    pub available: bool,
    pub size: ManifestSize,
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_data: Option<ManifestImage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attestation_data: Option<ManifestAttestation>,
}

/// What a manifest takes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct ManifestSize {
    pub content: i64,
    pub total: i64,
}

/// A manifest of an image for a platform.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct ManifestImage {
    pub platform: oci::image::Platform,
    pub size: UnpackedSize,
    pub containers: Vec<String>,
}

/// What an image takes beyond its content.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct UnpackedSize {
    pub unpacked: i64,
}

/// A manifest of an attestation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct ManifestAttestation {
    pub r#for: String,
}

/// The body and the answer of `POST /conex/images/missing`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Layers {
    /// Layers by the digests of their uncompressed tars: those that are asked about, and in the answer those that are not here.
    pub layers: Vec<oci::DiffId>,
}

/// The body of `POST /conex/images/save`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SendRequest {
    /// The images.
    pub names: Vec<String>,
    /// Layers that the receiver has.
    pub without: Vec<oci::DiffId>,
}

/// The answer of `POST /images/{name}/pin` and `/unpin`, which are Conex's own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Pins {
    /// What keeps the image from going by itself now.
    pub pins: Vec<String>,
}

impl Inspect {
    /// Gives older versions what they expect.
    ///
    /// `config` holds what the image says; the members that a version always shows are added, sorted by name as Go does there.
    #[must_use]
    pub fn for_version(mut self, version: ApiVersion) -> Self {
        if version.before(44) {
            self.virtual_size = self.size;
            if self.created.is_empty() {
                crate::ZERO_TIME.clone_into(&mut self.created);
            }
        }
        if version.at_least(45) {
            self.container.clear();
            self.container_config = None;
        }
        if version.before(48) {
            self.descriptor = None;
            self.manifests.clear();
        }
        self.config = self.config.map(|config| with_always_shown_members(config, version));
        self
    }
}

fn with_always_shown_members(config: Value, version: ApiVersion) -> Value {
    let mut always = json!({
        "Cmd": null, "Entrypoint": null, "Env": null, "Labels": null,
        "OnBuild": null, "User": "", "Volumes": null, "WorkingDir": "",
    });
    let container_only = json!({
        "AttachStderr": false, "AttachStdin": false, "AttachStdout": false, "Domainname": "",
        "Hostname": "", "Image": "", "OpenStdin": false, "StdinOnce": false, "Tty": false,
    });
    let mut add = |members: Value| {
        if let (Value::Object(all), Value::Object(members)) = (&mut always, members) {
            all.extend(members);
        }
    };
    if version.before(50) {
        add(container_only);
    }
    add(config);
    always
}

/// What an image says about the containers made from it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct Config {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: Set,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: Set,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
}

/// The layers of an image, by the digests of their uncompressed tars.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct RootFs {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub r#type: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
}

/// What this engine, not the image, knows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct Metadata {
    pub last_tag_time: String,
}

/// One step of an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct HistoryItem {
    pub comment: String,
    pub created: i64,
    pub created_by: String,
    pub id: String,
    pub size: i64,
    pub tags: Option<Vec<String>>,
}

/// What a removal did: one of the two is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct DeleteItem {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub deleted: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub untagged: String,
}

/// The answer of `POST /images/prune`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct PruneReport {
    pub images_deleted: Option<Vec<DeleteItem>>,
    pub space_reclaimed: u64,
    /// Of Conex alone, where a budget was to be kept: what of the build cache is gone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub caches_deleted: Vec<String>,
}

/// One repository that a search found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct SearchResult {
    pub star_count: i64,
    pub is_official: bool,
    pub name: String,
    pub is_automated: bool,
    pub description: String,
}

/// What a registry has under a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct DistributionInspect {
    pub descriptor: oci::image::Descriptor,
    pub platforms: Vec<oci::image::Platform>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_change_with_the_version() {
        let summary = Summary { size: 7, containers: 2, ..Summary::default() };
        let old = summary.clone().for_version(ApiVersion::new(1, 42));
        assert_eq!((old.repo_tags[0].as_str(), old.virtual_size, old.containers), ("<none>:<none>", 7, -1));
        let new = summary.for_version(ApiVersion::NEWEST);
        assert_eq!((new.repo_tags.len(), new.virtual_size, new.containers), (0, 0, 2));
    }

    #[test]
    fn an_images_config_shows_more_to_older_clients() {
        let config = Config { cmd: vec!["sh".into()], ..Config::default() };
        let inspect = Inspect { config: serde_json::to_value(config).ok(), ..Inspect::default() };
        let new = serde_json::to_string(&inspect.clone().for_version(ApiVersion::NEWEST).config).unwrap();
        assert_eq!(
            new,
            r#"{"Cmd":["sh"],"Entrypoint":null,"Env":null,"Labels":null,"OnBuild":null,"User":"","Volumes":null,"WorkingDir":""}"#
        );
        let old = serde_json::to_string(&inspect.for_version(ApiVersion::new(1, 45)).config).unwrap();
        assert!(old.starts_with(r#"{"AttachStderr":false,"#) && old.contains(r#""Tty":false"#), "{old}");
    }
}
