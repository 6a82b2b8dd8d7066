//! What a build left, as BuildKit writes caches down: for other engines, beside the layers or within an image's configuration.
//!
//! The document is BuildKit's (`application/vnd.buildkit.cacheconfig.v0`): blobs of layers with their parents, and records with a key, the
//! records that they build upon, and the blob on top of their result. BuildKit reads it. What our keys are made of is ours alone, so
//! neither finds steps of the other; what our steps need beyond BuildKit's words stands beside them, where BuildKit does not look:
//! each record has a member `conex` with the step's layer, whether or not its blob goes along. A step whose layer is elsewhere counts as
//! done as long as nobody needs its files, so that a stage of which only copies are wanted does not run again.

use std::collections::BTreeMap;

use oci::{DiffId, Digest};
use serde::{Deserialize, Serialize};

use crate::cache::{CacheEntry, CacheKind};

/// BuildKit's name for the document.
pub const CACHE_CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";
/// Records that are read of one document.
const RECORDS_MAX: usize = 100_000;

/// A step that a build took, made or found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltStep {
    /// What it is found by.
    pub key: Digest,
    /// Its result.
    pub entry: CacheEntry,
    /// The stage, and the place in it.
    pub place: (usize, usize),
    /// The layers of the stage with its own.
    pub layers: Vec<DiffId>,
}

/// The blob of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its size.
    pub size_bytes: u64,
    /// What it is.
    pub media_type: String,
}

/// What a cache from elsewhere knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownSteps {
    /// Results by key.
    pub steps: Vec<(Digest, CacheEntry)>,
    /// The layers whose blobs the document names.
    pub blobs: BTreeMap<DiffId, Digest>,
}

/// The document could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PortableError {
    /// It is no JSON of its kind.
    #[error("invalid cache configuration")]
    Json(#[from] serde_json::Error),
    /// It is no base64.
    #[error("invalid inline cache")]
    Base64(#[from] base64::DecodeError),
    /// It says too much.
    #[error("the cache configuration has more than {RECORDS_MAX} records")]
    TooMany,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct CacheConfig {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    layers: Vec<CacheLayer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    records: Vec<CacheRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CacheLayer {
    blob: Digest,
    /// The layer below; -1 for none. Go leaves 0 out.
    #[serde(default)]
    parent: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    annotations: Option<LayerAnnotations>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LayerAnnotations {
    media_type: String,
    #[serde(rename = "diffID", skip_serializing_if = "Option::is_none")]
    diff_id: Option<DiffId>,
    size: u64,
    created_at: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct CacheRecord {
    #[serde(default, rename = "layers", skip_serializing_if = "Vec::is_empty")]
    results: Vec<CacheResult>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<Vec<CacheInput>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    conex: Option<OwnWords>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CacheResult {
    layer: i64,
    #[serde(default)]
    created_at: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct CacheInput {
    link: usize,
}

/// What BuildKit has no words for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OwnWords {
    layer: Option<DiffId>,
    size: u64,
    kind: CacheKind,
    description: String,
    /// Seconds since 1970.
    created: i64,
}

/// The document of a cache whose layers are kept as these blobs.
pub fn cache_config(steps: &[BuiltStep], blobs: &BTreeMap<DiffId, Blob>) -> Vec<u8> {
    let mut config = CacheConfig::default();
    let mut places: BTreeMap<Vec<DiffId>, i64> = BTreeMap::new();
    for step in steps {
        if step.entry.layer.is_some() {
            add_chain(&mut config, &mut places, step, blobs);
        }
    }
    config.records = records(steps, |layers| {
        let known: Vec<DiffId> = layers.iter().filter(|layer| blobs.contains_key(layer)).copied().collect();
        places.get(&known).copied()
    });
    serde_json::to_vec(&config).expect("the document has text keys")
}

/// Adds the layers of a step that have blobs, each upon the one below.
fn add_chain(
    config: &mut CacheConfig,
    places: &mut BTreeMap<Vec<DiffId>, i64>,
    step: &BuiltStep,
    blobs: &BTreeMap<DiffId, Blob>,
) {
    let (mut chain, mut parent) = (Vec::new(), -1);
    for layer in &step.layers {
        let Some(blob) = blobs.get(layer) else { continue };
        chain.push(*layer);
        parent = *places.entry(chain.clone()).or_insert_with(|| {
            config.layers.push(CacheLayer {
                blob: blob.digest,
                parent,
                annotations: Some(LayerAnnotations {
                    media_type: blob.media_type.clone(),
                    diff_id: Some(*layer),
                    size: blob.size_bytes,
                    created_at: time(step.entry.created_s),
                }),
            });
            config.layers.len() as i64 - 1
        });
    }
}

/// The records that an image's configuration carries, in base64: their layers are those of the image.
pub(crate) fn inline_cache(steps: &[BuiltStep], image: &[DiffId]) -> String {
    use base64::Engine as _;
    let records = records(steps, |layers| if image.starts_with(layers) { Some(layers.len() as i64 - 1) } else { None });
    let text = serde_json::to_vec(&records).expect("the records have text keys");
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// One record a key. `place` says where the topmost of some layers is.
fn records(steps: &[BuiltStep], place: impl Fn(&[DiffId]) -> Option<i64>) -> Vec<CacheRecord> {
    let mut numbers: BTreeMap<Digest, usize> = BTreeMap::new();
    let (mut records, mut before) = (Vec::new(), None::<(usize, usize)>);
    for step in steps {
        let below = before.filter(|(stage, _)| *stage == step.place.0).map(|(_, record)| record);
        let next = records.len();
        let number = *numbers.entry(step.key).or_insert(next);
        before = Some((step.place.0, number));
        if number < next {
            continue;
        }
        let entry = &step.entry;
        let result = place(&step.layers).filter(|place| *place >= 0);
        records.push(CacheRecord {
            results: result.map(|layer| CacheResult { layer, created_at: time(entry.created_s) }).into_iter().collect(),
            digest: Some(step.key),
            inputs: below.map(|link| vec![vec![CacheInput { link }]]).unwrap_or_default(),
            conex: Some(OwnWords {
                layer: entry.layer,
                size: entry.size_bytes,
                kind: entry.kind,
                description: entry.description.clone(),
                created: entry.created_s,
            }),
        });
    }
    records
}

fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

/// Reads such a document. Of BuildKit's own records there is nothing to learn: their keys mean nothing here.
pub fn read_cache_config(bytes: &[u8]) -> Result<KnownSteps, PortableError> {
    let config: CacheConfig = serde_json::from_slice(bytes)?;
    let blob = |layer: CacheLayer| Some((layer.annotations?.diff_id?, layer.blob));
    let blobs = config.layers.into_iter().filter_map(blob).collect();
    Ok(KnownSteps { steps: steps_of(config.records)?, blobs })
}

/// Reads the records of an image's configuration, whose layers are the image's.
pub fn read_inline_cache(text: &str) -> Result<KnownSteps, PortableError> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text)?;
    Ok(KnownSteps { steps: steps_of(serde_json::from_slice(&bytes)?)?, blobs: BTreeMap::new() })
}

fn steps_of(records: Vec<CacheRecord>) -> Result<Vec<(Digest, CacheEntry)>, PortableError> {
    if records.len() > RECORDS_MAX {
        return Err(PortableError::TooMany);
    }
    let step = |record: CacheRecord| {
        let (key, own) = (record.digest?, record.conex?);
        let entry = CacheEntry {
            layer: own.layer,
            size_bytes: own.size,
            kind: own.kind,
            description: own.description,
            created_s: own.created,
            last_used_s: own.created,
            uses: 0,
        };
        Some((key, entry))
    };
    Ok(records.into_iter().filter_map(step).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn layer(name: &str) -> DiffId {
        DiffId(Digest::of(name.as_bytes()))
    }

    fn step(place: (usize, usize), own: Option<&str>, layers: &[&str]) -> BuiltStep {
        let text = format!("{place:?}");
        let entry = CacheEntry {
            layer: own.map(layer),
            size_bytes: 7,
            kind: CacheKind::Command,
            description: text.clone(),
            created_s: 86_400,
            last_used_s: 86_400,
            uses: 0,
        };
        let layers = layers.iter().map(|name| layer(name)).collect();
        BuiltStep { key: Digest::of(text.as_bytes()), entry, place, layers }
    }

    fn steps() -> Vec<BuiltStep> {
        vec![
            step((0, 1), Some("a"), &["base", "a"]),
            step((0, 2), None, &["base", "a"]),
            step((0, 3), Some("b"), &["base", "a", "b"]),
            step((1, 1), Some("c"), &["base", "c"]),
        ]
    }

    fn blobs(names: &[&str]) -> BTreeMap<DiffId, Blob> {
        let blob = |name: &&str| {
            let digest = Digest::of(format!("blob of {name}").as_bytes());
            (layer(name), Blob { digest, size_bytes: 3, media_type: "m".to_owned() })
        };
        names.iter().map(blob).collect()
    }

    #[test]
    fn a_cache_is_read_as_it_was_written() {
        let blobs = blobs(&["a", "b", "c"]);
        let read = read_cache_config(&cache_config(&steps(), &blobs)).unwrap();
        let expected: Vec<_> = steps().into_iter().map(|step| (step.key, step.entry)).collect();
        assert_eq!(read.steps, expected);
        assert_eq!(read.blobs, blobs.into_iter().map(|(layer, blob)| (layer, blob.digest)).collect());
    }

    #[test]
    fn the_document_is_buildkits() {
        let document: Value = serde_json::from_slice(&cache_config(&steps(), &blobs(&["a", "b"]))).unwrap();
        let parents: Vec<i64> =
            document["layers"].as_array().unwrap().iter().map(|l| l["parent"].as_i64().unwrap()).collect();
        assert_eq!(parents, [-1, 0]);
        let record = |at: usize| &document["records"][at];
        assert_eq!(record(0)["layers"], json!([{"layer": 0, "createdAt": "1970-01-02T00:00:00Z"}]));
        assert_eq!((&record(1)["layers"][0]["layer"], &record(2)["layers"][0]["layer"]), (&json!(0), &json!(1)));
        assert_eq!((&record(0)["inputs"], &record(2)["inputs"]), (&Value::Null, &json!([[{"link": 1}]])));
        // The result of the last one stays here, and what it is is said all the same.
        assert_eq!((&record(3)["layers"], &record(3)["inputs"]), (&Value::Null, &Value::Null));
        assert_eq!(record(3)["conex"]["layer"], json!(layer("c")));
    }

    #[test]
    fn an_image_carries_its_steps() {
        let image = [layer("base"), layer("a"), layer("b")];
        let text = inline_cache(&steps(), &image);
        assert_eq!(read_inline_cache(&text).unwrap().steps.len(), 4);
        use base64::Engine as _;
        let records: Value =
            serde_json::from_slice(&base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap();
        let results: Vec<&Value> = (0..4).map(|at| &records[at]["layers"][0]["layer"]).collect();
        assert_eq!(results, [&json!(1), &json!(1), &json!(2), &Value::Null]);
    }

    #[test]
    fn a_cache_of_buildkits_is_read_and_teaches_nothing() {
        let digest = Digest::of(b"x");
        let text = json!({
            "layers": [{"blob": digest, "parent": -1}, {"blob": digest, "annotations": {"diffID": digest, "createdAt": "x"}}],
            "records": [{"digest": digest, "chains": [{"layers": [0]}]}, {"inputs": [[{"selector": "s", "link": 0}]]}],
        });
        let read = read_cache_config(text.to_string().as_bytes()).unwrap();
        assert_eq!((read.steps.len(), read.blobs.len()), (0, 1));
    }

    proptest! {
        #[test]
        fn what_is_no_cache_is_refused_without_a_fuss(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_cache_config(&bytes);
            let _ = read_inline_cache(&String::from_utf8_lossy(&bytes));
        }
    }
}
