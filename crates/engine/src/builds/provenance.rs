//! How an image was made, as a predicate of SLSA 0.2 in the form that BuildKit gives it.

use std::collections::BTreeMap;

use builder::Material;
use jiff::Timestamp;
use oci::Reference;
use oci::image::Platform;
use serde_json::{Map, Value, json};

use crate::model::attest::{ProvenanceMode, ProvenanceRequest};

pub(super) const PROVENANCE: &str = "https://slsa.dev/provenance/v0.2";
const BUILD_TYPE: &str = "https://mobyproject.org/buildkit@v1";
/// Options that say something about this machine, or about what is attested.
const NOT_TOLD: &[&str] = &["cgroup-parent", "image-resolve-mode", "platform", "cache-imports", "cache-from"];

/// A build that is over.
pub(super) struct Story<'a> {
    /// What the client calls it.
    pub(super) id: &'a str,
    /// The Dockerfile's path.
    pub(super) dockerfile: &'a str,
    /// The frontend's options.
    pub(super) options: &'a BTreeMap<String, String>,
    pub(super) begun: Timestamp,
    pub(super) ended: Timestamp,
    pub(super) built: &'a builder::Built,
}

/// What is said about it.
pub(super) fn predicate(story: &Story<'_>, request: &ProvenanceRequest) -> Value {
    let is_max = request.mode == ProvenanceMode::Max;
    let private = |name: &str| name.starts_with("build-arg:") || name.starts_with("label:");
    let told = |name: &str| !NOT_TOLD.contains(&name) && !name.starts_with("attest:") && (is_max || !private(name));
    let arguments: Map<String, Value> =
        story.options.iter().filter(|(name, _)| told(name)).map(|(name, value)| (name.clone(), json!(value))).collect();
    // Which secrets there were is not told.
    let has_secrets = ["type=secret", "type=ssh"].iter().any(|word| story.built.dockerfile.contains(word));
    let is_whole = !has_secrets && (is_max || !story.options.keys().any(|name| private(name)));
    let mut metadata = json!({
        "buildInvocationID": story.id,
        "buildStartedOn": story.begun.to_string(),
        "buildFinishedOn": story.ended.to_string(),
        "completeness": { "parameters": is_whole, "environment": true, "materials": false },
        "reproducible": request.reproducible,
        "https://mobyproject.org/buildkit@v1#metadata": buildkit_metadata(story, is_max),
    });
    let mut predicate = json!({
        "builder": { "id": request.builder },
        "buildType": BUILD_TYPE,
        "materials": story.built.materials.iter().map(material).collect::<Vec<_>>(),
        "invocation": {
            "configSource": { "entryPoint": story.dockerfile },
            "parameters": {
                "frontend": "dockerfile.v0",
                "args": arguments,
                "locals": [{ "name": "context" }, { "name": "dockerfile" }],
            },
            "environment": { "platform": images::platform_name(&Platform::host()) },
        },
    });
    if is_max {
        predicate["buildConfig"] = json!({ "llbDefinition": steps(story.built) });
    }
    predicate["metadata"] = metadata.take();
    predicate
}

fn buildkit_metadata(story: &Story<'_>, is_max: bool) -> Value {
    let vcs: Map<String, Value> = story
        .options
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("vcs:")?.to_owned(), json!(value))))
        .collect();
    let mut metadata = Map::new();
    if !vcs.is_empty() {
        metadata.insert("vcs".to_owned(), Value::Object(vcs));
    }
    if is_max {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(&story.built.dockerfile);
        let source = json!({ "infos": [{ "filename": story.dockerfile, "language": "Dockerfile", "data": text }] });
        metadata.insert("source".to_owned(), source);
    }
    Value::Object(metadata)
}

/// The steps that made layers or ran. There are no operations of BuildKit's to tell of.
fn steps(built: &builder::Built) -> Vec<Value> {
    let mut before = None::<(usize, usize)>;
    let mut steps = Vec::new();
    for (number, step) in built.steps.iter().enumerate() {
        let below = before.filter(|(stage, _)| *stage == step.place.0).map(|(_, number)| format!("step{number}:0"));
        before = Some((step.place.0, number));
        let mut told = json!({ "id": format!("step{number}"), "description": step.entry.description });
        if let Some(below) = below {
            told["inputs"] = json!([below]);
        }
        steps.push(told);
    }
    steps
}

fn material(material: &Material) -> Value {
    match material {
        Material::Image { name, platform, digest } => {
            let reference = Reference::parse(name).map(Reference::with_default_tag);
            let uri = reference.map_or_else(|_| name.clone(), |reference| images::package_url(&reference, platform));
            json!({ "uri": uri, "digest": { "sha256": digest.hex() } })
        }
        Material::File { url, digest } => json!({ "uri": url, "digest": { "sha256": digest.hex() } }),
        Material::Repository { url } => json!({ "uri": url }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_private_is_told_only_where_all_is() {
        let options = BTreeMap::from(
            [("build-arg:KEY", "private"), ("target", "x"), ("vcs:revision", "abc"), ("attest:provenance", "")]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let digest = oci::Digest::of(b"");
        let built = builder::Built {
            ingredients: Vec::new(),
            config: oci::image::ImageConfig::default(),
            bytes: Vec::new(),
            steps: Vec::new(),
            materials: vec![Material::Image { name: "busybox".into(), platform: Platform::host(), digest }],
            dockerfile: "FROM busybox".to_owned(),
        };
        let now = Timestamp::UNIX_EPOCH;
        let story =
            Story { id: "i", dockerfile: "Dockerfile", options: &options, begun: now, ended: now, built: &built };
        let told = |mode| {
            let request = ProvenanceRequest { mode, builder: "https://b".into(), reproducible: false };
            predicate(&story, &request)
        };
        let (min, max) = (told(ProvenanceMode::Min), told(ProvenanceMode::Max));
        assert!(!min.to_string().contains("private") && max.to_string().contains("private"));
        assert_eq!(min["invocation"]["parameters"]["args"]["target"], "x");
        assert_eq!(min["invocation"]["parameters"]["args"]["attest:provenance"], Value::Null);
        assert_eq!(min["metadata"]["completeness"]["parameters"], false);
        let metadata = |told: &Value| told["metadata"]["https://mobyproject.org/buildkit@v1#metadata"].clone();
        assert_eq!(metadata(&min)["vcs"]["revision"], "abc");
        assert_eq!(metadata(&max)["source"]["infos"][0]["data"], "RlJPTSBidXN5Ym94");
        let uri = min["materials"][0]["uri"].as_str().unwrap();
        assert!(uri.starts_with("pkg:docker/busybox@latest?platform=linux%2F"), "{uri}");
    }
}
