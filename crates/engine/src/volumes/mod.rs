//! Volumes: folders that outlive containers.
//!
//! ```text
//! <root>/volumes/<name>/_data    the volume's files; `_data` is where Docker puts them, too
//! ```
//!
//! What is known of a volume is in the database; its name is safe as a folder's by construction.

mod copy_up;
mod held;
mod local;
mod plain;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub(crate) use copy_up::copy_up;
pub(crate) use held::{HeldVolumes, unmount_unused};
pub(crate) use plain::is_snapshot;

use crate::containers::{create_of, refuse_driver};
use crate::engine::{Engine, blocking};
use crate::model::{
    EngineError, EventKind, Patterns, PruneFilters, PruneReport, VolumeName, VolumeQuery, VolumeRequest, VolumeUsage,
    VolumeView,
};
use crate::store::{Change, Durability};

/// Version of [`VolumeRecord`].
const RECORD_VERSION: u32 = 1;
/// Docker's mark of volumes that it named itself; prune looks for it.
const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// All volumes.
#[derive(Debug)]
pub(crate) struct Volumes {
    folder: PathBuf,
    known: RwLock<BTreeMap<String, Arc<VolumeView>>>,
    users: held::Users,
}

/// What the database keeps of a volume.
#[derive(Debug, Serialize, Deserialize)]
struct VolumeRecord {
    version: u32,
    name: VolumeName,
    #[serde(with = "crate::moment")]
    created: Timestamp,
    labels: Option<BTreeMap<String, String>>,
    options: Option<BTreeMap<String, String>>,
    anonymous: bool,
}

/// Whether a volume was there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    Now,
    Before,
}

impl Volumes {
    /// All volumes of the database.
    pub(crate) fn open(root: &Path, records: &[(String, String)]) -> Self {
        let volumes = Self { folder: root.join("volumes"), known: RwLock::default(), users: held::Users::default() };
        for (name, text) in records {
            match serde_json::from_str::<VolumeRecord>(text) {
                Ok(record) if record.version <= RECORD_VERSION => drop(volumes.insert(record)),
                // Its folder stays: a newer program may read the record.
                Ok(record) => tracing::error!(
                    "the record of volume {name} is of version {}, newer than this program knows",
                    record.version
                ),
                Err(error) => tracing::error!("cannot read the record of volume {name}: {error}"),
            }
        }
        volumes
    }

    /// A volume's folder on the host.
    pub(crate) fn mountpoint(&self, name: &str) -> PathBuf {
        self.folder.join(name).join("_data")
    }

    /// A volume by name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<VolumeView>> {
        self.read().get(name).cloned()
    }

    /// Whether the engine named it.
    pub(crate) fn is_anonymous(&self, name: &str) -> bool {
        self.find(name).is_some_and(|volume| volume.anonymous)
    }

    /// All volumes by name.
    pub(crate) fn all(&self) -> Vec<Arc<VolumeView>> {
        self.read().values().cloned().collect()
    }

    fn insert(&self, record: VolumeRecord) -> Arc<VolumeView> {
        let view = Arc::new(VolumeView {
            mountpoint: self.mountpoint(record.name.as_str()).display().to_string(),
            driver: "local".into(),
            created: record.created,
            labels: record.labels,
            options: record.options,
            anonymous: record.anonymous,
            name: record.name,
        });
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(view.name.to_string(), Arc::clone(&view));
        view
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Arc<VolumeView>>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Creates a volume, or finds the one of that name.
    pub async fn create_volume(&self, request: VolumeRequest) -> Result<Arc<VolumeView>, EngineError> {
        let name = request.name.as_ref().map(VolumeName::as_str);
        refuse_driver(&request.driver, name)?;
        check_options(request.options.as_ref())
            .map_err(|error| EngineError::new(error.kind(), format!("{}{}", create_of(name), error.message())))?;
        self.ensure_volume(request).await.map(|(volume, _)| volume)
    }

    /// As [`Engine::create_volume`], for requests that are checked; also says whether it was there.
    pub(crate) async fn ensure_volume(&self, request: VolumeRequest) -> Result<(Arc<VolumeView>, Made), EngineError> {
        let anonymous = request.name.is_none();
        let name = match request.name {
            Some(name) => name,
            None => VolumeName::parse(oci::ContainerId::from_random(crate::random_bytes()).as_str())?,
        };
        if let Some(volume) = self.inner.volumes.find(name.as_str()) {
            return Ok((volume, Made::Before));
        }
        let labels = match (anonymous, request.labels) {
            (true, labels) => {
                let mut labels = labels.unwrap_or_default();
                labels.insert(ANONYMOUS_LABEL.into(), String::new());
                Some(labels)
            }
            (false, labels) => labels,
        };
        let record = VolumeRecord {
            version: RECORD_VERSION,
            name: name.clone(),
            created: Timestamp::now(),
            labels,
            options: request.options,
            anonymous,
        };
        self.make_volume_folder(&record).await?;
        self.write_volume(&record).await?;
        let volume = self.inner.volumes.insert(record);
        self.tell(EventKind::Volume, "create", name.as_str(), BTreeMap::from([("driver".into(), "local".into())]));
        Ok((volume, Made::Now))
    }

    /// Makes the folder as the options want it; on failure nothing stays.
    async fn make_volume_folder(&self, record: &VolumeRecord) -> Result<(), EngineError> {
        let path = self.inner.volumes.mountpoint(record.name.as_str());
        let wanted = plain::Plain::parse(record.options.as_ref().unwrap_or(&BTreeMap::new()))?;
        if wanted == plain::Plain::default() {
            return blocking(move || make_folder(&path)).await;
        }
        let source = wanted.source.map(|name| self.source_of_clone(name)).transpose()?;
        let folder = self.inner.volumes.folder.join(record.name.as_str());
        blocking(move || {
            make_folder(&path)?;
            let limited = wanted.size_bytes.map_or(Ok(()), |bytes| crate::quota::limit(&[&path], bytes));
            let filled = limited.and_then(|()| match &source {
                Some((name, from)) => plain::share(from, &path, name),
                None => Ok(()),
            });
            filled.inspect_err(|_| {
                crate::quota::release(&path);
                let _ = remove_tree(&folder);
            })
        })
        .await
    }

    /// The folder of the volume that another one begins as.
    fn source_of_clone(&self, name: VolumeName) -> Result<(VolumeName, PathBuf), EngineError> {
        let source = self.volume(name.as_str())?;
        if !is_plain(&source) {
            return Err(EngineError::invalid(format!(
                "cannot clone volume {name}: its files are in a file system that is mounted, not in a folder"
            )));
        }
        Ok((name, PathBuf::from(&source.mountpoint)))
    }

    async fn write_volume(&self, record: &VolumeRecord) -> Result<(), EngineError> {
        let text = serde_json::to_string(record)
            .map_err(|error| EngineError::system("cannot write the volume's record", error))?;
        let change = Change::PutVolume { name: record.name.to_string(), record: text };
        // An anonymous volume is worth as much as its container, which the database knows as well.
        let durability = if record.anonymous { Durability::Daemon } else { Durability::Machine };
        let written = self.inner.store.write(vec![change], durability).await;
        written.map_err(|error| EngineError::system("cannot store the volume", error))
    }

    /// A volume by name.
    pub fn volume(&self, name: &str) -> Result<Arc<VolumeView>, EngineError> {
        self.inner.volumes.find(name).ok_or_else(|| no_such_volume(name))
    }

    /// Volumes by name.
    pub fn volumes(&self, query: &VolumeQuery) -> Result<Vec<Arc<VolumeView>>, EngineError> {
        let names = Patterns::new(&query.name);
        let used = query.dangling.map(|_| self.used_volumes());
        let matches = |volume: &VolumeView| {
            let labels = volume.labels.clone().unwrap_or_default();
            names.match_text(volume.name.as_str())
                && (query.driver.is_empty() || query.driver.contains(&volume.driver))
                && query.label.iter().all(|label| label.matches(&labels))
                && query.dangling.is_none_or(|dangling| {
                    dangling != used.as_ref().is_some_and(|used| used.contains_key(volume.name.as_str()))
                })
        };
        Ok(self.inner.volumes.all().into_iter().filter(|volume| matches(volume)).collect())
    }

    /// Removes a volume; with `force` one that is not there is no error.
    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<(), EngineError> {
        if self.inner.volumes.find(name).is_none() {
            return if force { Ok(()) } else { Err(no_such_volume(name)) };
        }
        if let Some(users) = self.used_volumes().get(name) {
            return Err(EngineError::conflict(format!("remove {name}: volume is in use - [{}]", users.join(", "))));
        }
        self.forget_volume(name).await
    }

    /// Removes volumes that no container names: anonymous ones, or all.
    pub async fn prune_volumes(&self, filters: PruneFilters) -> Result<PruneReport, EngineError> {
        let used = self.used_volumes();
        let mut report = PruneReport::default();
        for volume in self.inner.volumes.all() {
            let labels = volume.labels.clone().unwrap_or_default();
            let wanted = (filters.all || volume.anonymous)
                && !used.contains_key(volume.name.as_str())
                && filters.label.iter().all(|label| label.matches(&labels))
                && !filters.without_label.iter().any(|label| label.matches(&labels))
                && filters.until.is_none_or(|until| volume.created < until);
            if wanted {
                let path = PathBuf::from(&volume.mountpoint);
                if is_plain(&volume) {
                    report.reclaimed_bytes += blocking(move || Ok(disk_bytes(&path))).await?;
                }
                self.forget_volume(volume.name.as_str()).await?;
                report.deleted.push(volume.name.to_string());
            }
        }
        let attributes = BTreeMap::from([("reclaimed".into(), report.reclaimed_bytes.to_string())]);
        self.tell(EventKind::Volume, "prune", "", attributes);
        Ok(report)
    }

    /// Removes a volume that nobody uses: first its name, then its record, then its files.
    pub(crate) async fn forget_volume(&self, name: &str) -> Result<(), EngineError> {
        let known = self.inner.volumes.known.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        let Some(volume) = known else { return Ok(()) };
        let change = Change::RemoveVolume { name: name.to_owned() };
        let durability = if volume.anonymous { Durability::Daemon } else { Durability::Machine };
        let written = self.inner.store.write(vec![change], durability).await;
        written.map_err(|error| EngineError::system("cannot store the removal", error))?;
        let folder = self.inner.volumes.folder.join(name);
        let place = self.inner.volumes.mountpoint(name);
        self.inner.volumes.users.forget(name);
        self.tell(EventKind::Volume, "destroy", name, BTreeMap::from([("driver".into(), volume.driver.clone())]));
        blocking(move || {
            // What is mounted there belongs to somebody else, and must not be removed with the folder.
            local::unmount_all(&place)
                .map_err(|error| EngineError::system(&format!("cannot unmount {}", place.display()), error))?;
            if volume.options.is_some() {
                crate::quota::release(&place);
            }
            remove_tree(&folder)
        })
        .await
    }

    /// Which containers name which volumes.
    pub(crate) fn used_volumes(&self) -> BTreeMap<String, Vec<String>> {
        let mut used: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for handle in self.inner.index.all() {
            for mount in &handle.record().mounts {
                if let Some(name) = mount.volume() {
                    used.entry(name.to_owned()).or_default().push(handle.id.to_string());
                }
            }
        }
        used
    }

    /// Volumes with their sizes.
    pub(crate) async fn volume_usage(&self) -> Result<Vec<VolumeUsage>, EngineError> {
        let (volumes, used) = (self.inner.volumes.all(), self.used_volumes());
        blocking(move || {
            let usage = volumes.into_iter().map(|volume| VolumeUsage {
                size_bytes: if is_plain(&volume) { disk_bytes(Path::new(&volume.mountpoint)) } else { 0 },
                reference_count: used.get(volume.name.as_str()).map_or(0, Vec::len),
                volume: VolumeView::clone(&volume),
            });
            Ok(usage.collect())
        })
        .await
    }
}

/// Refuses what the local driver cannot mean.
pub(crate) fn check_options(options: Option<&BTreeMap<String, String>>) -> Result<(), EngineError> {
    let Some(options) = options else { return Ok(()) };
    local::LocalMount::parse(options)?;
    plain::Plain::parse(options).map(drop)
}

/// Whether its files are in its own folder; those of a file server are not counted, as with Docker.
fn is_plain(volume: &VolumeView) -> bool {
    volume.options.iter().flatten().all(|(key, _)| plain::OPTIONS.contains(&key.as_str()))
}

fn no_such_volume(name: &str) -> EngineError {
    EngineError::not_found(format!("get {name}: no such volume"))
}

fn make_folder(path: &Path) -> Result<(), EngineError> {
    let made = path
        .parent()
        .map_or(Ok(()), |parent| durable::create_dir(parent, 0o711))
        .and_then(|()| durable::create_dir(path, 0o755));
    match made {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(EngineError::system("cannot make the volume's folder", error))
        }
        _ => Ok(()),
    }
}

/// Removes a folder with everything in it; one that is not there is no error.
pub(crate) fn remove_tree(path: &Path) -> Result<(), EngineError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(EngineError::system(&format!("cannot remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// What a tree takes on the disk, hard links counted once, as `du` does.
pub(crate) fn disk_bytes(path: &Path) -> u64 {
    fn walk(path: &Path, seen: &mut std::collections::HashSet<(u64, u64)>) -> u64 {
        let Ok(metadata) = std::fs::symlink_metadata(path) else { return 0 };
        if metadata.is_dir() {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            return entries.map(|entry| walk(&entry.path(), seen)).sum();
        }
        let counted = metadata.nlink() > 1 && !seen.insert((metadata.dev(), metadata.ino()));
        if counted { 0 } else { metadata.len() }
    }
    walk(path, &mut std::collections::HashSet::new())
}
