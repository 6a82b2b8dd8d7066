//! Several images, or an image and what is attested about it, as one index, in the form that BuildKit gives it.
//!
//! ```text
//! index ─┬─ manifest of an image, for each platform
//!        └─ manifest of attestations ─▶ statements (in-toto), each about the digest of one manifest
//! ```
//!
//! Statements name the manifest that they are about. So who writes a manifest anew, because layers are compressed on their way, writes
//! the statements anew.

use std::collections::BTreeMap;

use oci::image::{Descriptor, Index, Manifest, Platform, media_type};
use oci::{Digest, Reference};
use serde_json::{Value, json};

use crate::manifests::{ATTESTATION, ATTESTATION_ABOUT};
use crate::{PulledIndex, PulledManifest};

const STATEMENT: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v0.1";
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

/// Something that is said about an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Predicate {
    /// What kind of thing.
    pub kind: String,
    /// The thing.
    pub value: Value,
}

/// One image of an index.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Its manifest.
    pub manifest: PulledManifest,
    /// What it is for.
    pub platform: Platform,
    /// What is said about it.
    pub predicates: Vec<Predicate>,
}

/// An index with everything that it names but the images.
#[derive(Debug, Clone, PartialEq)]
pub struct Bundle {
    /// The index.
    pub index: PulledManifest,
    /// Manifests of attestations.
    pub attestations: Vec<PulledManifest>,
    /// The blobs that those name.
    pub blobs: Vec<Vec<u8>>,
}

/// The index of some images that have these names.
pub fn bundle(members: &[Member], names: &[Reference]) -> Bundle {
    let (mut attestations, mut blobs) = (Vec::new(), Vec::new());
    let entry = |member: &Member| {
        let descriptor = descriptor_of(&member.manifest);
        Descriptor { platform: Some(member.platform.clone()), ..descriptor }
    };
    let mut manifests: Vec<Descriptor> = members.iter().map(entry).collect();
    for member in members.iter().filter(|member| !member.predicates.is_empty()) {
        let (manifest, more) = attestation(member, names);
        let unknown = Platform { architecture: "unknown".into(), os: "unknown".into(), ..Platform::default() };
        let about = (ATTESTATION_ABOUT.to_owned(), member.manifest.digest().to_string());
        let annotations = BTreeMap::from([(ATTESTATION.0.to_owned(), ATTESTATION.1.to_owned()), about]);
        manifests.push(Descriptor { platform: Some(unknown), annotations, ..descriptor_of(&manifest) });
        attestations.push(manifest);
        blobs.extend(more);
    }
    let index = Index::new(media_type::OCI_INDEX, manifests);
    let document = serde_json::to_string(&index).expect("an index has text keys");
    Bundle { index: PulledManifest { media_type: media_type::OCI_INDEX.to_owned(), document }, attestations, blobs }
}

fn descriptor_of(manifest: &PulledManifest) -> Descriptor {
    Descriptor::new(&manifest.media_type, manifest.digest(), manifest.document.len() as u64)
}

fn attestation(member: &Member, names: &[Reference]) -> (PulledManifest, Vec<Vec<u8>>) {
    let mut blobs: Vec<Vec<u8>> = Vec::new();
    let mut layers = Vec::new();
    for predicate in &member.predicates {
        let bytes = statement(member, predicate, names).to_string().into_bytes();
        let named = Descriptor::new(STATEMENT, Digest::of(&bytes), bytes.len() as u64);
        let annotations = BTreeMap::from([(PREDICATE_TYPE.to_owned(), predicate.kind.clone())]);
        layers.push(Descriptor { annotations, ..named });
        blobs.push(bytes);
    }
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
    let config = json!({
        "architecture": "unknown", "os": "unknown", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = config.to_string().into_bytes();
    let named = Descriptor::new(media_type::OCI_CONFIG, Digest::of(&config), config.len() as u64);
    let manifest = Manifest::new(media_type::OCI_MANIFEST, named, layers);
    blobs.push(config);
    let document = serde_json::to_string(&manifest).expect("a manifest has text keys");
    (PulledManifest { media_type: media_type::OCI_MANIFEST.to_owned(), document }, blobs)
}

fn statement(member: &Member, predicate: &Predicate, names: &[Reference]) -> Value {
    let subject = |name: &Reference| (package_url(name, &member.platform), member.manifest.digest());
    statement_about(&names.iter().map(subject).collect::<Vec<_>>(), predicate)
}

/// A statement (in-toto) about things by their names and digests.
pub fn statement_about(subjects: &[(String, Digest)], predicate: &Predicate) -> Value {
    let subject = |(name, digest): &(String, Digest)| json!({ "name": name, "digest": { "sha256": digest.hex() } });
    json!({
        "_type": STATEMENT_TYPE,
        "predicateType": predicate.kind,
        "subject": subjects.iter().map(subject).collect::<Vec<_>>(),
        "predicate": predicate.value,
    })
}

/// `pkg:docker/busybox@latest?platform=linux%2Famd64`
pub fn package_url(name: &Reference, platform: &Platform) -> String {
    let escaped = |text: &str| text.replace(':', "%3A").replace('/', "%2F");
    let path = name.familiar_name().replace(':', "%3A");
    let version = match (name.tag(), name.digest()) {
        (_, Some(digest)) => format!("@{}", escaped(&digest.to_string())),
        (Some(tag), None) => format!("@{tag}"),
        (None, None) => String::new(),
    };
    format!("pkg:docker/{path}{version}?platform={}", escaped(&crate::platform_name(platform)))
}

/// What an index says about one of its manifests. `read` gives a blob.
pub fn predicates(index: &PulledIndex, about: &Digest, read: &dyn Fn(&Digest) -> Option<Vec<u8>>) -> Vec<Predicate> {
    let Ok(parsed) = crate::json::object::<Index>(index.document.as_bytes()) else { return Vec::new() };
    let own = parsed.manifests.iter().filter(|entry| crate::attested(entry) == Some(*about));
    let manifests = own.filter_map(|entry| {
        let known = index.attestations.iter().find(|manifest| manifest.digest() == entry.digest)?;
        known.parse()
    });
    let predicate = |layer: Descriptor| {
        let statement: Value = serde_json::from_slice(&read(&layer.digest)?).ok()?;
        let kind = statement["predicateType"].as_str()?.to_owned();
        Some(Predicate { kind, value: statement["predicate"].clone() })
    };
    manifests.flat_map(|manifest| manifest.layers).filter_map(predicate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(text: &str, predicates: &[&str]) -> Member {
        let predicate = |kind: &&str| Predicate { kind: (*kind).to_owned(), value: json!({ "said": text }) };
        Member {
            manifest: PulledManifest { media_type: media_type::OCI_MANIFEST.to_owned(), document: text.to_owned() },
            platform: Platform { architecture: text.to_owned(), os: "linux".to_owned(), ..Platform::default() },
            predicates: predicates.iter().map(predicate).collect(),
        }
    }

    #[test]
    fn what_is_said_is_read_back_and_said_of_another_manifest() {
        let members = [member("amd64", &["a", "b"]), member("arm64", &[])];
        let name = Reference::parse("localhost:5000/x/y:1").unwrap();
        let Bundle { index, attestations, blobs } = bundle(&members, std::slice::from_ref(&name));
        let parsed: Index = serde_json::from_str(&index.document).unwrap();
        assert_eq!(parsed.manifests.len(), 3);
        let own = members[0].manifest.digest();
        assert_eq!(crate::attested(&parsed.manifests[2]), Some(own));
        let pulled = PulledIndex { attestations, ..PulledIndex::new(index.media_type, index.document) };
        let read = |digest: &Digest| blobs.iter().find(|blob| Digest::of(blob) == *digest).cloned();
        assert_eq!(predicates(&pulled, &own, &read), members[0].predicates);
        assert_eq!(predicates(&pulled, &members[1].manifest.digest(), &read), []);
        // Everything that a manifest names is among the blobs.
        assert!(pulled.blobs().iter().all(|digest| read(digest).is_some()));
        let first: Value = serde_json::from_slice(&blobs[0]).unwrap();
        let url = "pkg:docker/localhost%3A5000/x/y@1?platform=linux%2Famd64";
        assert_eq!(first["subject"], json!([{ "name": url, "digest": { "sha256": own.hex() } }]));
        assert_eq!((&first["_type"], &first["predicateType"]), (&json!(STATEMENT_TYPE), &json!("a")));
        let name = Reference::parse("busybox").unwrap().with_default_tag();
        let arm =
            Platform { variant: "v7".into(), architecture: "arm".into(), os: "linux".into(), ..Platform::default() };
        assert_eq!(package_url(&name, &arm), "pkg:docker/busybox@latest?platform=linux%2Farm%2Fv7");
    }
}
