//! The store's files, and the order in which they are written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use durable::{Operation, PathError, RecordError, Versioned};
use jiff::Timestamp;
use oci::{Digest, Reference};
use serde::{Deserialize, Serialize};

use crate::ImageId;
use crate::catalogue::Damage;
use crate::origin::{Origin, PulledIndex};

const REFERENCES: &str = "references.json";
const DIRECTORY_MODE: u32 = 0o700;

/// What Conex adds to an image's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// When it came here.
    #[serde(with = "rfc3339")]
    pub(crate) loaded: Timestamp,
    /// The image that it was built upon here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<ImageId>,
    /// The sizes of its layers' tars, lowest first.
    pub(crate) layer_sizes: Vec<u64>,
    /// The manifest that a registry had for it.
    #[serde(default, with = "shared", skip_serializing_if = "Option::is_none")]
    pub(crate) manifest: Option<Arc<PulledManifest>>,
    /// The index that led to that manifest.
    #[serde(default, with = "shared", skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<Arc<PulledIndex>>,
    /// Where it came from, the newest first.
    #[serde(default, with = "shared", skip_serializing_if = "Option::is_none")]
    pub(crate) origins: Option<Arc<Vec<Origin>>>,
    /// Whether it was pinned by its id.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) pinned: bool,
}

/// A manifest as a registry had it, byte for byte: with it an image goes to another registry under the same digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PulledManifest {
    /// What it is.
    pub media_type: String,
    /// The document.
    pub document: String,
}

impl Versioned for ImageRecord {
    const VERSION: u32 = 1;
}

/// What a name means, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NamedImage {
    pub(crate) image: ImageId,
    /// Nothing for a name that came with the image: Docker shows no time for those.
    #[serde(default, with = "optional_rfc3339", skip_serializing_if = "Option::is_none")]
    pub(crate) tagged: Option<Timestamp>,
    /// Whether whatever it means is pinned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) pinned: bool,
}

/// All names. One file, so that a load of many names is whole or not at all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct References {
    pub(crate) names: BTreeMap<String, NamedImage>,
}

impl ImageRecord {
    /// The blobs that it speaks of beside the configuration.
    pub(crate) fn blobs(&self) -> Vec<Digest> {
        self.index.as_deref().map(PulledIndex::blobs).unwrap_or_default()
    }
}

impl Versioned for References {
    const VERSION: u32 = 1;
}

/// Values that many views of one image share.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        value: &Option<Arc<T>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_deref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Arc<T>>, D::Error> {
        Ok(Option::<T>::deserialize(deserializer)?.map(Arc::new))
    }
}

/// Times as text, which people can read in the files.
pub(crate) mod rfc3339 {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The same for a time that may be missing.
mod optional_rfc3339 {
    use jiff::Timestamp;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::rfc3339::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        super::rfc3339::deserialize(deserializer).map(Some)
    }
}

/// An image as read back.
#[derive(Debug, Clone)]
pub(crate) struct StoredImage {
    pub(crate) record: ImageRecord,
    pub(crate) config_bytes: Arc<[u8]>,
}

/// Everything that was on the disk.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) images: BTreeMap<ImageId, Result<StoredImage, String>>,
    pub(crate) references: BTreeMap<Reference, NamedImage>,
    pub(crate) problems: Vec<Damage>,
}

/// The directories of a store.
#[derive(Debug)]
pub(crate) struct Disk {
    images: PathBuf,
    records: PathBuf,
    blobs: PathBuf,
}

impl Disk {
    /// Makes the directories and removes what a crash left unfinished.
    pub(crate) fn open(root: &Path) -> Result<Disk, PathError> {
        let images = root.join("images");
        let disk = Disk { records: images.join("sha256"), blobs: root.join("blobs/sha256"), images };
        for directory in [&disk.images, &disk.records, &disk.blobs] {
            durable::create_dir(directory, DIRECTORY_MODE)?;
            durable::sweep_temporaries(directory)?;
        }
        Ok(disk)
    }

    /// Reads everything, and says of each image whether it is whole as far as these files go.
    pub(crate) fn read(&self) -> Result<Contents, PathError> {
        let mut contents = Contents::default();
        for entry in fs::read_dir(&self.records).map_err(PathError::with(Operation::List, &self.records))? {
            let name = entry.map_err(PathError::with(Operation::List, &self.records))?.file_name();
            if let Some(id) = id_of_record(&name.to_string_lossy()) {
                contents.images.insert(id, self.read_image(&id));
            }
        }
        self.read_references(&mut contents)?;
        Ok(contents)
    }

    pub(crate) fn read_image(&self, id: &ImageId) -> Result<StoredImage, String> {
        let record = durable::load(&self.records.join(record_name(id))).map_err(|error| describe(&error))?;
        let bytes = durable::read(&self.blobs.join(id.hex())).map_err(|error| describe(&error))?;
        if ImageId::of_config(&bytes) != *id {
            return Err("its configuration is not the one that was stored".to_owned());
        }
        Ok(StoredImage { record, config_bytes: bytes.into() })
    }

    /// A damaged file of names is set aside, not fatal: the images are all there, and containers can run meanwhile.
    fn read_references(&self, contents: &mut Contents) -> Result<(), PathError> {
        let path = self.images.join(REFERENCES);
        let references: References = match durable::load_if_exists(&path) {
            Ok(references) => references.unwrap_or_default(),
            Err(RecordError::Path(error)) => return Err(error),
            Err(error) => {
                let aside = self.images.join(format!("{REFERENCES}.damaged"));
                durable::rename(&path, &aside)?;
                let reason = format!("{}; kept as {}", describe(&error), aside.display());
                contents.problems.push(Damage { subject: path.display().to_string(), reason });
                return Ok(());
            }
        };
        for (name, named) in references.names {
            match Reference::parse(&name) {
                Ok(reference) => drop(contents.references.insert(reference, named)),
                Err(error) => contents.problems.push(Damage { subject: name, reason: error.to_string() }),
            }
        }
        Ok(())
    }

    /// Stores an image: first its configuration, then its record. It has no name yet.
    pub(crate) fn write_image(&self, id: &ImageId, image: &StoredImage) -> Result<(), RecordError> {
        durable::write_atomic(&self.blobs, &id.hex(), &image.config_bytes)?;
        durable::save(&self.records, &record_name(id), &image.record)
    }

    /// Replaces all names at once.
    pub(crate) fn write_references(&self, references: &BTreeMap<Reference, NamedImage>) -> Result<(), RecordError> {
        let names = references.iter().map(|(reference, named)| (reference.canonical(), named.clone())).collect();
        durable::save(&self.images, REFERENCES, &References { names })
    }

    /// Replaces what is known about an image that is here.
    pub(crate) fn write_record(&self, id: &ImageId, record: &ImageRecord) -> Result<(), RecordError> {
        durable::save(&self.records, &record_name(id), record)
    }

    /// Stores a blob that a record is going to name.
    pub(crate) fn write_blob(&self, bytes: &[u8]) -> Result<(), PathError> {
        durable::write_atomic(&self.blobs, &Digest::of(bytes).hex(), bytes)
    }

    /// Reads a blob; why it is not what was stored.
    pub(crate) fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>, String> {
        let bytes = durable::read(&self.blobs.join(digest.hex())).map_err(|error| describe(&error))?;
        if Digest::of(&bytes) == *digest { Ok(bytes) } else { Err(format!("blob {digest} is not what was stored")) }
    }

    /// Removes a blob that no record names any more.
    pub(crate) fn remove_blob(&self, digest: &Digest) -> Result<(), PathError> {
        durable::remove(&self.blobs, &digest.hex())
    }

    /// Removes an image, in the opposite order. No name may mean it any more.
    pub(crate) fn remove_image(&self, id: &ImageId) -> Result<(), PathError> {
        durable::remove(&self.records, &record_name(id))?;
        durable::remove(&self.blobs, &id.hex())
    }

    /// Removes blobs that no record speaks of: a crash came between the two.
    pub(crate) fn remove_stray_blobs(&self, is_known: impl Fn(&Digest) -> bool) -> Result<(), PathError> {
        for entry in fs::read_dir(&self.blobs).map_err(PathError::with(Operation::List, &self.blobs))? {
            let name = entry.map_err(PathError::with(Operation::List, &self.blobs))?.file_name();
            let name = name.to_string_lossy();
            if Digest::from_hex(&name).is_ok_and(|digest| !is_known(&digest)) {
                durable::remove(&self.blobs, &name)?;
            }
        }
        Ok(())
    }
}

fn record_name(id: &ImageId) -> String {
    format!("{}.json", id.hex())
}

fn id_of_record(name: &str) -> Option<ImageId> {
    Digest::from_hex(name.strip_suffix(".json")?).ok().map(ImageId::new)
}

/// An error with its causes on one line.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}
