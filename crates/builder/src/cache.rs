//! What earlier builds left: for each step's key, its layer.
//!
//! ```text
//! <root>/build/cache/<key>.json     one step
//! ```
//!
//! A record is written after its layer is safe. One whose layer is gone is forgotten when it is met.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use durable::{RecordError, Versioned};
use oci::{DiffId, Digest};
use serde::{Deserialize, Serialize};
use snapshots::Snapshotter;

/// What a step was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheKind {
    /// Files were copied.
    Files,
    /// A command ran.
    Command,
}

/// One step's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheEntry {
    /// Its layer; none when it changed no file.
    pub layer: Option<DiffId>,
    /// The layer's size.
    pub size_bytes: u64,
    /// What it was.
    pub kind: CacheKind,
    /// The instruction.
    pub description: String,
    /// When it was made, in seconds since 1970.
    pub created_s: i64,
    /// When it was used last, in seconds since 1970, as far as this engine knows: using a step writes nothing.
    pub last_used_s: i64,
    /// How often it was used again since the engine started.
    #[serde(skip)]
    pub uses: u64,
}

impl Versioned for CacheEntry {
    const VERSION: u32 = 1;
}

/// All of it.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    entries: Mutex<BTreeMap<Digest, CacheEntry>>,
}

impl Cache {
    /// Opens the cache in `dir`, which exists. Records that cannot be read, or whose layer is gone, are dropped: a cache may forget.
    pub fn open(dir: &Path, snapshotter: &dyn Snapshotter) -> Result<Cache, durable::PathError> {
        durable::sweep_temporaries(dir)?;
        let listed =
            std::fs::read_dir(dir).map_err(|error| durable::PathError::new(durable::Operation::Read, dir, error))?;
        let mut entries = BTreeMap::new();
        for file in listed.flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let key = name.strip_suffix(".json").and_then(|hex| Digest::from_hex(hex).ok());
            let entry = durable::load::<CacheEntry>(&file.path()).ok();
            match (key, entry) {
                (Some(key), Some(entry)) if entry.layer.is_none_or(|layer| snapshotter.has(&layer)) => {
                    entries.insert(key, entry);
                }
                _ => durable::remove(dir, &name)?,
            }
        }
        Ok(Cache { dir: dir.to_owned(), entries: Mutex::new(entries) })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, CacheEntry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The result of the step with this key.
    pub(crate) fn find(&self, key: &Digest, snapshotter: &dyn Snapshotter) -> Option<CacheEntry> {
        let mut entries = self.lock();
        let entry = entries.get_mut(key)?;
        if entry.layer.is_some_and(|layer| !snapshotter.has(&layer)) {
            entries.remove(key);
            return None;
        }
        entry.last_used_s = jiff::Timestamp::now().as_second();
        entry.uses += 1;
        Some(entry.clone())
    }

    /// Remembers a step's result for good.
    pub(crate) fn store(&self, key: &Digest, entry: CacheEntry) -> Result<(), RecordError> {
        durable::save(&self.dir, &format!("{}.json", key.hex()), &entry)?;
        self.lock().insert(*key, entry);
        Ok(())
    }

    /// The layers that must not be deleted.
    pub fn layers(&self) -> Vec<DiffId> {
        self.lock().values().filter_map(|entry| entry.layer).collect()
    }

    /// All of it, by key.
    pub fn entries(&self) -> Vec<(Digest, CacheEntry)> {
        self.lock().iter().map(|(key, entry)| (*key, entry.clone())).collect()
    }

    /// Forgets what `gone` says yes to; gives what was forgotten. Layers are the image store's to delete.
    pub fn prune(
        &self,
        mut gone: impl FnMut(&Digest, &CacheEntry) -> bool,
    ) -> Result<Vec<(Digest, CacheEntry)>, durable::PathError> {
        let mut entries = self.lock();
        let keys: Vec<Digest> = entries.iter().filter(|(key, entry)| gone(key, entry)).map(|(key, _)| *key).collect();
        let mut pruned = Vec::new();
        for key in keys {
            durable::remove(&self.dir, &format!("{}.json", key.hex()))?;
            pruned.extend(entries.remove(&key).map(|entry| (key, entry)));
        }
        Ok(pruned)
    }
}
