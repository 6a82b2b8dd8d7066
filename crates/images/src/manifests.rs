//! The manifests of an image: its own, those of attestations about it, and those of other platforms that its index names.

use oci::Digest;
use oci::image::{Descriptor, Index, Platform, media_type};

use crate::{Image, PulledManifest};

/// Marks the manifest of an attestation in an index, and says which manifest it is about.
pub(crate) const ATTESTATION: (&str, &str) = ("vnd.docker.reference.type", "attestation-manifest");
pub(crate) const ATTESTATION_ABOUT: &str = "vnd.docker.reference.digest";

/// One manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestEntry {
    /// Where an index names it, or how it would.
    pub descriptor: Descriptor,
    /// What it is.
    pub kind: ManifestKind,
    /// Whether everything that it names is here.
    pub available: bool,
    /// What it takes in a registry: the manifest and what it names; nothing where it is not here.
    pub content_bytes: u64,
}

/// What a manifest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestKind {
    /// An image for a platform.
    Image(Platform),
    /// Something that is said about another manifest.
    Attestation(Digest),
    /// Anything else.
    Unknown,
}

impl Image {
    /// What the image's name means in a registry: an index or a manifest, its own where it never saw one.
    pub fn descriptor(&self) -> Descriptor {
        match &self.index {
            Some(index) => descriptor_of(&index.media_type, &index.document),
            None => descriptor_of_manifest(&self.own_manifest()),
        }
    }

    /// The image's manifest as a registry had it, or as `save` would write it.
    pub fn own_manifest(&self) -> PulledManifest {
        match &self.manifest {
            Some(manifest) => PulledManifest::clone(manifest),
            None => {
                let manifest = crate::save::manifest_of(self);
                let document = serde_json::to_string(&manifest).expect("a manifest can be written");
                PulledManifest { media_type: manifest.media_type, document }
            }
        }
    }

    /// All its manifests, in the order of its index.
    pub fn manifests(&self) -> Vec<ManifestEntry> {
        let own = self.own_manifest();
        let digest = own.digest();
        let index =
            self.index.as_deref().and_then(|index| crate::json::object::<Index>(index.document.as_bytes()).ok());
        let Some(index) = index else {
            let descriptor = Descriptor { platform: Some(self.config.platform()), ..descriptor_of_manifest(&own) };
            return vec![self.own_entry(descriptor, &own)];
        };
        let entry = |descriptor: Descriptor| {
            if descriptor.digest == digest { self.own_entry(descriptor, &own) } else { self.other_entry(descriptor) }
        };
        index.manifests.into_iter().map(entry).collect()
    }

    fn own_entry(&self, descriptor: Descriptor, own: &PulledManifest) -> ManifestEntry {
        ManifestEntry {
            kind: ManifestKind::Image(self.config.platform()),
            available: true,
            content_bytes: content_bytes(own),
            descriptor,
        }
    }

    fn other_entry(&self, descriptor: Descriptor) -> ManifestEntry {
        let known = self.index.iter().flat_map(|index| &index.attestations);
        let here = known.into_iter().find(|manifest| manifest.digest() == descriptor.digest);
        let kind = match (attested(&descriptor), &descriptor.platform) {
            (Some(about), _) => ManifestKind::Attestation(about),
            (None, Some(platform)) if platform.os != "unknown" => ManifestKind::Image(platform.clone()),
            _ => ManifestKind::Unknown,
        };
        let (available, content_bytes) = (here.is_some(), here.map_or(0, content_bytes));
        ManifestEntry { descriptor, kind, available, content_bytes }
    }
}

/// Which manifest an index's entry attests something about; nothing for one that is no attestation.
pub fn attested(descriptor: &Descriptor) -> Option<Digest> {
    let is_marked = descriptor.annotations.get(ATTESTATION.0).is_some_and(|kind| kind == ATTESTATION.1);
    let about = descriptor.annotations.get(ATTESTATION_ABOUT).filter(|_| is_marked)?;
    Digest::parse(about).ok()
}

fn descriptor_of(media_type: &str, document: &str) -> Descriptor {
    Descriptor::new(media_type, Digest::of(document.as_bytes()), document.len() as u64)
}

fn descriptor_of_manifest(manifest: &PulledManifest) -> Descriptor {
    let kind = if manifest.media_type.is_empty() { media_type::OCI_MANIFEST } else { &manifest.media_type };
    descriptor_of(kind, &manifest.document)
}

/// What a manifest takes in a registry; what it says about sizes is believed, as far as it adds up.
fn content_bytes(manifest: &PulledManifest) -> u64 {
    let named = manifest.parse().map_or(0, |parsed| {
        let layers = parsed.layers.iter().map(|layer| layer.size);
        layers.fold(parsed.config.size, u64::saturating_add)
    });
    named.saturating_add(manifest.document.len() as u64)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::PulledIndex;
    use crate::testing::image;

    fn manifest(size: u64, word: &str) -> PulledManifest {
        let digest = Digest::of(word.as_bytes());
        let document = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{digest}","size":1}},"layers":[{{"mediaType":"l","digest":"{digest}","size":{size}}}]}}"#
        );
        PulledManifest { media_type: media_type::OCI_MANIFEST.to_owned(), document }
    }

    #[test]
    fn an_image_of_ones_own_has_one_manifest() {
        let image = image("a", None, "xy", 0);
        let manifests = image.manifests();
        assert_eq!((manifests.len(), manifests[0].available), (1, true));
        assert_eq!(manifests[0].descriptor.digest, image.descriptor().digest);
        assert!(manifests[0].content_bytes > 20);
    }

    #[test]
    fn an_index_names_platforms_and_attestations() {
        let (own, statement) = (manifest(100, "own"), manifest(7, "statement"));
        let (about, said, other) = (own.digest(), statement.digest(), Digest::of(b"other"));
        let marks = format!(r#"{{"{}":"{}","{ATTESTATION_ABOUT}":"{about}"}}"#, ATTESTATION.0, ATTESTATION.1);
        let entry = |digest, more: &str| format!(r#"{{"mediaType":"m","size":1,"digest":"{digest}"{more}}}"#);
        let document = format!(
            r#"{{"schemaVersion":2,"manifests":[{},{},{},{}]}}"#,
            entry(about, r#","platform":{"os":"linux","architecture":"amd64"}"#),
            entry(other, r#","platform":{"os":"linux","architecture":"arm64"}"#),
            entry(said, &format!(r#","annotations":{marks},"platform":{{"os":"unknown","architecture":"unknown"}}"#)),
            entry(Digest::of(b"lost"), &format!(r#","annotations":{marks}"#)),
        );
        let index = PulledIndex { attestations: vec![statement.clone()], ..PulledIndex::new("i".to_owned(), document) };
        let image =
            Image { manifest: Some(Arc::new(own.clone())), index: Some(Arc::new(index)), ..image("a", None, "x", 0) };
        let entries = image.manifests();
        let seen: Vec<(bool, u64)> = entries.iter().map(|entry| (entry.available, entry.content_bytes)).collect();
        let content = |manifest: &PulledManifest, named: u64| named + manifest.document.len() as u64;
        assert_eq!(seen, [(true, content(&own, 101)), (false, 0), (true, content(&statement, 8)), (false, 0)]);
        assert!(matches!(&entries[1].kind, ManifestKind::Image(platform) if platform.architecture == "arm64"));
        assert_eq!(entries[2].kind, ManifestKind::Attestation(about));
        assert_eq!(image.descriptor().media_type, "i");
    }
}
