//! What earlier builds left: for each step's key, its layer.
//!
//! ```text
//! <root>/build/cache/<key>.json     one step
//! <root>/build/steps/<place>.json   what a step of a Dockerfile depended on when it ran last, to say what has changed since
//! ```
//!
//! A record is written after its layer is safe. One whose layer is gone is forgotten when it is met.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
    /// Files that a command saw and that are part of no image.
    Context,
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

/// What a step depends on, each thing by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inputs {
    facts: Vec<(String, Digest)>,
    files: Vec<(String, Digest)>,
}

impl Inputs {
    pub(crate) fn new(what: &str, layers: &[DiffId]) -> Inputs {
        let layers: Vec<String> = layers.iter().map(DiffId::to_string).collect();
        let mut inputs = Inputs { facts: Vec::new(), files: Vec::new() };
        inputs.add("the kind of step", what).add("the step before", layers.join(" "));
        inputs
    }

    pub(crate) fn add(&mut self, name: &str, value: impl AsRef<str>) -> &mut Inputs {
        self.facts.push((name.to_owned(), Digest::of(value.as_ref().as_bytes())));
        self
    }

    /// Adds files: all of them in one digest, and those that can be named one by one.
    pub(crate) fn add_files(&mut self, all: Digest, files: Vec<(String, Digest)>) {
        self.facts.push(("the files".to_owned(), all));
        self.files = files;
    }

    /// What a step's result is found by.
    pub(crate) fn key(&self) -> Digest {
        Digest::of(format!("3 {:?}", self.facts).as_bytes())
    }
}

/// What a step depended on when it ran last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StepRecord {
    facts: BTreeMap<String, Digest>,
    files: BTreeMap<String, Digest>,
}

impl Versioned for StepRecord {
    const VERSION: u32 = 1;
}

/// So many changed files are named.
const NAMED_FILES_MAX: usize = 10;

/// All of it.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    steps: PathBuf,
    entries: Mutex<BTreeMap<Digest, CacheEntry>>,
    making: Mutex<BTreeSet<Digest>>,
    made: Condvar,
    /// Configurations that steps without a layer have made since the engine started, to say so when they are made again.
    configured: Mutex<HashSet<Digest>>,
}

/// So many configurations are remembered.
const CONFIGURED_MAX: usize = 1 << 16;
/// How often a step that waits for another build looks whether it is wanted any more.
const LOOK: Duration = Duration::from_millis(100);

/// A step that is being made: whoever needs the same one waits until this is dropped.
#[derive(Debug)]
pub(crate) struct Making<'a> {
    cache: &'a Cache,
    key: Digest,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.cache.making.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.cache.made.notify_all();
    }
}

impl Cache {
    /// Opens the cache in `dir`, and what steps depended on in `steps`; both exist. Records that cannot be read, or whose layer is gone,
    /// are dropped: a cache may forget.
    pub fn open(dir: &Path, steps: &Path, snapshotter: &dyn Snapshotter) -> Result<Cache, durable::PathError> {
        durable::sweep_temporaries(dir)?;
        durable::sweep_temporaries(steps)?;
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
        Ok(Cache {
            dir: dir.to_owned(),
            steps: steps.to_owned(),
            entries: Mutex::new(entries),
            making: Mutex::default(),
            made: Condvar::new(),
            configured: Mutex::default(),
        })
    }

    /// Waits until nobody else makes the step with this key; nothing where the build that waits is not wanted any more.
    pub(crate) fn hold(&self, key: &Digest, is_stopped: impl Fn() -> bool) -> Option<Making<'_>> {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        while !making.insert(*key) {
            if is_stopped() {
                return None;
            }
            making = self.made.wait_timeout(making, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        Some(Making { cache: self, key: *key })
    }

    /// Remembers what a step without a layer has made; whether one had made it before.
    pub(crate) fn configure(&self, state: Digest) -> bool {
        let mut configured = self.configured.lock().unwrap_or_else(PoisonError::into_inner);
        if configured.len() >= CONFIGURED_MAX {
            configured.clear();
        }
        !configured.insert(state)
    }

    /// What has changed since the step at this place ran last.
    pub(crate) fn explain(&self, place: &Digest, inputs: &Inputs) -> Vec<String> {
        let Ok(before) = durable::load::<StepRecord>(&self.steps.join(step_file(place))) else {
            return vec!["it has not run before".to_owned()];
        };
        let changed = |(name, digest): &&(String, Digest)| before.facts.get(name) != Some(digest);
        let names = inputs.facts.iter().filter(changed).map(|(name, _)| name.as_str());
        let mut reasons = Vec::new();
        for name in names {
            let files = if name == "the files" { changed_files(&before.files, &inputs.files) } else { Vec::new() };
            if files.is_empty() {
                reasons.push(format!("{name} changed"));
            }
            reasons.extend(files);
        }
        if reasons.is_empty() {
            reasons.push("nothing has changed, but its result is not in the cache any more".to_owned());
        }
        reasons
    }

    /// Remembers what the step at this place depended on.
    pub(crate) fn remember(&self, place: &Digest, inputs: &Inputs) -> Result<(), RecordError> {
        let record =
            StepRecord { facts: inputs.facts.iter().cloned().collect(), files: inputs.files.iter().cloned().collect() };
        durable::save(&self.steps, &step_file(place), &record)
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
        // They are upon layers, some of which are forgotten now.
        if !pruned.is_empty() {
            self.configured.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        Ok(pruned)
    }
}

fn step_file(place: &Digest) -> String {
    format!("{}.json", place.hex())
}

fn changed_files(before: &BTreeMap<String, Digest>, now: &[(String, Digest)]) -> Vec<String> {
    let now: BTreeMap<&String, &Digest> = now.iter().map(|(path, digest)| (path, digest)).collect();
    let mut changes: Vec<String> = Vec::new();
    for (path, digest) in &now {
        match before.get(*path) {
            None => changes.push(format!("{path} is new")),
            Some(old) if old != *digest => changes.push(format!("{path} changed")),
            Some(_) => {}
        }
    }
    changes.extend(before.keys().filter(|path| !now.contains_key(path)).map(|path| format!("{path} is gone")));
    let more = changes.len().saturating_sub(NAMED_FILES_MAX);
    changes.truncate(NAMED_FILES_MAX);
    if more > 0 {
        changes.push(format!("{more} more files changed"));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(command: &str, files: &[(&str, &str)]) -> Inputs {
        let mut inputs = Inputs::new("run", &[]);
        inputs.add("the command", command);
        let files: Vec<_> =
            files.iter().map(|(path, text)| ((*path).to_owned(), Digest::of(text.as_bytes()))).collect();
        inputs.add_files(Digest::of(format!("{files:?}").as_bytes()), files);
        inputs
    }

    fn empty(dir: &Path) -> Cache {
        Cache {
            dir: dir.to_owned(),
            steps: dir.to_owned(),
            entries: Mutex::default(),
            making: Mutex::default(),
            made: Condvar::new(),
            configured: Mutex::default(),
        }
    }

    #[test]
    fn what_changed_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let cache = empty(dir.path());
        let place = Digest::of(b"place");
        let first = inputs("a", &[("x", "1"), ("y", "1")]);
        assert_eq!(cache.explain(&place, &first), ["it has not run before"]);
        cache.remember(&place, &first).unwrap();
        let second = inputs("b", &[("x", "2"), ("z", "1")]);
        assert_eq!(cache.explain(&place, &second), ["the command changed", "x changed", "z is new", "y is gone"]);
        assert_ne!(first.key(), second.key());
        assert_eq!(first.key(), inputs("a", &[("x", "1"), ("y", "1")]).key());
    }
    #[test]
    fn a_build_that_is_not_wanted_any_more_waits_for_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let cache = empty(dir.path());
        let key = Digest::of(b"key");
        let held = cache.hold(&key, || true);
        assert!(held.is_some() && cache.hold(&key, || true).is_none());
        drop(held);
        assert!(cache.hold(&key, || true).is_some());
    }

    #[test]
    fn configurations_are_known_once_they_were_made() {
        let dir = tempfile::tempdir().unwrap();
        let cache = empty(dir.path());
        let state = |text: &[u8]| Digest::of(text);
        assert_eq!([b"a", b"b", b"a"].map(|text| cache.configure(state(text))), [false, false, true]);
    }
}
