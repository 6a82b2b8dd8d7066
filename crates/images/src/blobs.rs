//! Which blobs of registries a layer came from or went to.
//!
//! The store keeps a layer by its uncompressed tar, registries keep it compressed. What is noted here saves sending a blob that a
//! registry has, and keeps its digest. It is a hint: whoever uses it asks the registry, and a note that is lost costs time alone.
//!
//! ```text
//! <root>/images/blobs/<hex of a diff-id>.json
//! ```

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use durable::{Operation, PathError, RecordError, Versioned};
use oci::{DiffId, Digest};
use serde::{Deserialize, Serialize};

const DIRECTORY_MODE: u32 = 0o700;
/// Blobs of one layer that are noted, and repositories of one blob; the newest stay.
const NOTED_MAX: usize = 8;

/// A layer as a registry keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerBlob {
    /// The digest of the compressed bytes.
    pub digest: Digest,
    /// How many they are.
    pub size_bytes: u64,
    /// What they are.
    pub media_type: String,
    /// The repositories that had it, in full (`docker.io/library/alpine`), the newest first.
    pub repositories: Vec<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Noted {
    blobs: Vec<LayerBlob>,
}

impl Versioned for Noted {
    const VERSION: u32 = 1;
}

/// The notes of one store.
#[derive(Debug)]
pub(crate) struct BlobNotes {
    dir: PathBuf,
    /// Held while a note is read and written again.
    writing: Mutex<()>,
}

impl BlobNotes {
    /// Opens the notes below `images`, and forgets those about layers that are gone.
    pub(crate) fn open(images: &Path, has: impl Fn(&DiffId) -> bool) -> Result<BlobNotes, PathError> {
        let dir = images.join("blobs");
        durable::create_dir(&dir, DIRECTORY_MODE)?;
        durable::sweep_temporaries(&dir)?;
        for entry in fs::read_dir(&dir).map_err(PathError::with(Operation::List, &dir))? {
            let name = entry.map_err(PathError::with(Operation::List, &dir))?.file_name();
            let layer = name.to_str().and_then(|name| Digest::from_hex(name.strip_suffix(".json")?).ok()).map(DiffId);
            if let Some(layer) = layer.filter(|layer| !has(layer)) {
                durable::remove(&dir, &file_name(&layer))?;
            }
        }
        Ok(BlobNotes { dir, writing: Mutex::default() })
    }

    /// Notes a blob, its repositories first.
    pub(crate) fn note(&self, layer: &DiffId, blob: LayerBlob) -> Result<(), RecordError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.of(layer);
        let after = with_blob(before.clone(), blob);
        if after == before {
            return Ok(());
        }
        durable::save(&self.dir, &file_name(layer), &Noted { blobs: after })
    }

    /// What is noted about a layer, the newest first. A damaged note is none.
    pub(crate) fn of(&self, layer: &DiffId) -> Vec<LayerBlob> {
        let noted: Option<Noted> = durable::load_if_exists(&self.dir.join(file_name(layer))).unwrap_or_default();
        noted.unwrap_or_default().blobs
    }

    /// Forgets a layer.
    pub(crate) fn forget(&self, layer: &DiffId) -> Result<(), PathError> {
        durable::remove(&self.dir, &file_name(layer))
    }
}

fn file_name(layer: &DiffId) -> String {
    format!("{}.json", layer.hex())
}

/// The newest first, each once, not too many.
fn with_blob(mut blobs: Vec<LayerBlob>, mut blob: LayerBlob) -> Vec<LayerBlob> {
    if let Some(at) = blobs.iter().position(|known| known.digest == blob.digest) {
        blob.repositories.extend(blobs.remove(at).repositories);
    }
    let mut seen = HashSet::new();
    blob.repositories.retain(|repository| seen.insert(repository.clone()));
    blob.repositories.truncate(NOTED_MAX);
    blobs.insert(0, blob);
    blobs.truncate(NOTED_MAX);
    blobs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(content: &str, repository: &str) -> LayerBlob {
        LayerBlob {
            digest: Digest::of(content.as_bytes()),
            size_bytes: 1,
            media_type: "m".to_owned(),
            repositories: vec![repository.to_owned()],
        }
    }

    #[test]
    fn the_newest_is_first_and_nothing_is_twice() {
        let dir = tempfile::tempdir().unwrap();
        let (here, gone) = (DiffId(Digest::of(b"here")), DiffId(Digest::of(b"gone")));
        let notes = BlobNotes::open(dir.path(), |_| true).unwrap();
        for (content, repository) in [("a", "h/1"), ("b", "h/1"), ("a", "h/2"), ("a", "h/1")] {
            notes.note(&here, blob(content, repository)).unwrap();
        }
        notes.note(&gone, blob("c", "h/1")).unwrap();
        let noted = notes.of(&here);
        assert_eq!(noted.iter().map(|blob| blob.digest).collect::<Vec<_>>(), [Digest::of(b"a"), Digest::of(b"b")]);
        assert_eq!(noted[0].repositories, ["h/1", "h/2"]);
        let notes = BlobNotes::open(dir.path(), |layer| *layer == here).unwrap();
        assert_eq!((notes.of(&here).len(), notes.of(&gone).len()), (2, 0));
        notes.forget(&here).unwrap();
        assert!(notes.of(&here).is_empty());
    }

    #[test]
    fn a_damaged_note_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let layer = DiffId(Digest::of(b"x"));
        let notes = BlobNotes::open(dir.path(), |_| true).unwrap();
        fs::write(dir.path().join("blobs").join(file_name(&layer)), "{").unwrap();
        assert!(notes.of(&layer).is_empty());
        notes.note(&layer, blob("a", "h/1")).unwrap();
        assert_eq!(notes.of(&layer).len(), 1);
    }

    #[test]
    fn many_are_cut() {
        let blobs = (0..20).fold(Vec::new(), |blobs, number| with_blob(blobs, blob(&number.to_string(), "h/1")));
        assert_eq!((blobs.len(), blobs[0].digest), (NOTED_MAX, Digest::of(b"19")));
    }
}
