//! The build cache as its users see it: what is in it, and how it becomes smaller.

use std::path::Path;
use std::time::UNIX_EPOCH;

use builder::{CacheEntry, CacheKind};
use oci::Digest;

use super::mounts::{HeldCaches, TEMPORARY};
use crate::engine::{Engine, blocking};
use crate::model::{BuildCacheKind, BuildCacheView, BuildPruneReport, BuildPruneRequest, EngineError};

/// Removes caches that were being made when an engine died.
pub(super) fn sweep_mounts(dir: &Path) {
    for file in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if file.file_name().to_string_lossy().starts_with(TEMPORARY) {
            let _ = std::fs::remove_dir_all(file.path());
        }
    }
}

impl Engine {
    /// What earlier builds left.
    pub fn build_cache(&self) -> Vec<BuildCacheView> {
        let used = self.layers_of_images();
        let view = |(id, entry)| view(id, entry, &used);
        let mut all: Vec<BuildCacheView> = self.inner.builds.cache.entries().into_iter().map(view).collect();
        all.extend(self.cache_mounts());
        all
    }

    /// The directories of `RUN --mount=type=cache`.
    fn cache_mounts(&self) -> Vec<BuildCacheView> {
        let dir = self.inner.builds.dir.join("mounts");
        let mut mounts = Vec::new();
        for file in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let hex = name.split('-').next().unwrap_or_default();
            let (Ok(id), Ok(metadata)) = (Digest::from_hex(hex), file.metadata()) else { continue };
            if !metadata.is_dir() {
                continue;
            }
            let time = |time: std::io::Result<std::time::SystemTime>| {
                let since = time.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
                jiff::Timestamp::from_second(since.as_secs() as i64).unwrap_or_default()
            };
            mounts.push(BuildCacheView {
                id,
                description: "cached mount".to_owned(),
                kind: BuildCacheKind::Mount,
                in_use: false,
                size_bytes: size_of(&file.path()),
                created: time(metadata.created()),
                last_used: time(metadata.modified()),
                uses: 0,
            });
        }
        mounts
    }

    /// Forgets what earlier builds left, as far as the request says.
    pub async fn prune_build_cache(&self, request: BuildPruneRequest) -> Result<BuildPruneReport, EngineError> {
        let engine = self.clone();
        blocking(move || engine.prune_builds(&request)).await
    }

    fn prune_builds(&self, request: &BuildPruneRequest) -> Result<BuildPruneReport, EngineError> {
        let wrong = |error| EngineError::system("cannot prune the build cache", error);
        let mut chosen = choose(self.build_cache(), request, jiff::Timestamp::now());
        let mounts = self.inner.builds.dir.join("mounts");
        chosen.retain(|view| {
            view.kind != BuildCacheKind::Mount || remove_mount(&mounts, &view.id, &self.inner.builds.held)
        });
        let is_chosen =
            |id: &Digest, kind: BuildCacheKind| chosen.iter().any(|view| view.id == *id && view.kind == kind);
        let builds = &self.inner.builds;
        let steps = builds.cache.prune(|id, entry| is_chosen(id, kind_of(entry))).map_err(wrong)?;
        let layers: Vec<oci::DiffId> = steps.iter().filter_map(|(_, entry)| entry.layer).collect();
        let removed = self.inner.images.container_gone(&layers);
        removed.map_err(|error| EngineError::system("cannot remove layers", error))?;
        if request.all && request.kind.is_none() && request.ids.is_empty() && request.unused_for_s.is_none() {
            builds.synced.clear().map_err(wrong)?;
            for file in std::fs::read_dir(&builds.web).into_iter().flatten().flatten() {
                durable::remove(&builds.web, &file.file_name().to_string_lossy()).map_err(wrong)?;
            }
        }
        let freed = chosen.iter().filter(|view| !view.in_use).map(|view| view.size_bytes);
        Ok(BuildPruneReport { reclaimed_bytes: freed.sum(), removed: chosen.clone() })
    }
}

fn kind_of(entry: &CacheEntry) -> BuildCacheKind {
    if entry.kind == CacheKind::Context { BuildCacheKind::Context } else { BuildCacheKind::Step }
}

fn view(id: Digest, entry: CacheEntry, used: &std::collections::BTreeSet<oci::DiffId>) -> BuildCacheView {
    let time = |seconds| jiff::Timestamp::from_second(seconds).unwrap_or_default();
    BuildCacheView {
        id,
        kind: kind_of(&entry),
        in_use: entry.layer.is_some_and(|layer| used.contains(&layer)),
        size_bytes: entry.size_bytes,
        created: time(entry.created_s),
        last_used: time(entry.last_used_s),
        uses: entry.uses,
        description: entry.description,
    }
}

/// What goes: everything that the filters name and that no image has, the least recently used first, until the rest fits the budget.
fn choose(mut all: Vec<BuildCacheView>, request: &BuildPruneRequest, now: jiff::Timestamp) -> Vec<BuildCacheView> {
    all.retain(|view| request.all || !view.in_use);
    if let Some(kind) = &request.kind {
        all.retain(|view| view.kind.name() == kind);
    }
    if !request.ids.is_empty() {
        all.retain(|view| request.ids.iter().any(|id| !id.is_empty() && view.id.hex().starts_with(id.as_str())));
    }
    if let Some(seconds) = request.unused_for_s {
        all.retain(|view| now.as_second() - view.last_used.as_second() >= seconds);
    }
    let Some(keep) = request.keep_bytes else { return all };
    all.sort_by_key(|view| std::cmp::Reverse((view.last_used, view.id)));
    let mut kept = 0;
    all.retain(|view| {
        kept += view.size_bytes;
        kept > keep
    });
    all
}

/// Removes a cache and its private copies, but none that a command uses; says whether any went.
fn remove_mount(dir: &Path, id: &Digest, held: &HeldCaches) -> bool {
    let hex = id.hex();
    let mut removed = false;
    for file in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        if !name.starts_with(&hex) || name.ends_with(".lock") {
            continue;
        }
        // First out of sight, so that no build finds half of it.
        let gone = dir.join(format!("{TEMPORARY}{name}"));
        if held.stopped(|used| !used.contains(&name) && std::fs::rename(file.path(), &gone).is_ok()) {
            let _ = std::fs::remove_dir_all(&gone);
            removed = true;
        }
    }
    removed
}

fn size_of(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut total = 0;
    for file in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(metadata) = file.metadata() else { continue };
        total += if metadata.is_dir() { size_of(&file.path()) } else { metadata.blocks() * 512 };
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, size_bytes: u64, last_used_s: i64, in_use: bool) -> BuildCacheView {
        BuildCacheView {
            id: Digest::of(name.as_bytes()),
            description: name.to_owned(),
            kind: if name == "mount" { BuildCacheKind::Mount } else { BuildCacheKind::Step },
            in_use,
            size_bytes,
            created: jiff::Timestamp::UNIX_EPOCH,
            last_used: jiff::Timestamp::from_second(last_used_s).unwrap(),
            uses: 0,
        }
    }

    #[test]
    fn what_goes() {
        let all = || {
            vec![
                entry("old", 10, 1, false),
                entry("new", 10, 90, false),
                entry("used", 10, 50, true),
                entry("mount", 5, 80, false),
            ]
        };
        let now = jiff::Timestamp::from_second(100).unwrap();
        let chosen = |request: BuildPruneRequest| {
            let mut names: Vec<String> =
                choose(all(), &request, now).into_iter().map(|view| view.description).collect();
            names.sort();
            names.join(" ")
        };
        let request = BuildPruneRequest::default;
        assert_eq!(chosen(request()), "mount new old");
        assert_eq!(chosen(BuildPruneRequest { all: true, ..request() }), "mount new old used");
        assert_eq!(chosen(BuildPruneRequest { unused_for_s: Some(20), ..request() }), "mount old");
        assert_eq!(chosen(BuildPruneRequest { keep_bytes: Some(15), ..request() }), "old");
        assert_eq!(chosen(BuildPruneRequest { kind: Some("exec.cachemount".into()), ..request() }), "mount");
        let ids = vec![Digest::of(b"old").hex()[..12].to_owned()];
        assert_eq!(chosen(BuildPruneRequest { ids, ..request() }), "old");
    }
}
