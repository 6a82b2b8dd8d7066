//! The task that keeps the budget.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use images::{CachedLayer, Collection, CollectionRequest, ImageId};
use jiff::Timestamp;
use oci::Digest;
use tokio::sync::Notify;

use super::{SpaceOptions, StorageBudget};
use crate::engine::{Engine, Inner, blocking};
use crate::model::{EngineError, EventKind, ImagePruneReport, StorageState};

/// How often the disk is looked at although nothing of ours has grown: others fill it, too.
const INTERVAL: Duration = Duration::from_secs(300);
/// Collections in a row: what a plan cannot remove after all is planned around.
const ROUNDS_MAX: usize = 3;
/// Why an event of a deletion happened.
const REASON: &str = "storage-budget";

/// What wakes the task, and what it found last.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    wake: Notify,
    state: Mutex<Option<StorageState>>,
}

/// What the disk has and may have, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Measure {
    used_bytes: u64,
    limit_bytes: u64,
}

impl Measure {
    fn excess_bytes(self) -> u64 {
        self.used_bytes.saturating_sub(self.limit_bytes)
    }
}

impl Engine {
    /// Starts to keep the budget, if there is one.
    pub(crate) fn keep_budget(&self) {
        let Some(budget) = self.inner.options.space.budget else { return };
        let (engine, mut closing) = (self.clone(), self.inner.closing.subscribe());
        tokio::spawn(async move {
            loop {
                if let Err(error) = engine.collect(budget).await {
                    tracing::error!("cannot keep the storage budget: {error}");
                }
                tokio::select! {
                    () = engine.inner.collector.wake.notified() => {}
                    () = tokio::time::sleep(INTERVAL) => {}
                    _ = closing.wait_for(|closing| *closing) => return,
                }
            }
        });
    }

    /// Says that images or the build cache have grown.
    pub(crate) fn grown(&self) {
        self.inner.collector.wake.notify_one();
    }

    /// Says that something may go now that could not before.
    pub(crate) fn may_shrink(&self) {
        let state = self.inner.collector.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.as_ref().is_some_and(|state| state.excess_bytes > 0) {
            self.grown();
        }
    }

    /// How the budget is kept, as of the last time it was looked at.
    pub(crate) fn storage_state(&self) -> Option<StorageState> {
        self.inner.collector.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn collect(&self, budget: StorageBudget) -> Result<(), EngineError> {
        let engine = self.clone();
        let state = blocking(move || {
            engine.shrink(budget)?;
            engine.look(budget)
        })
        .await?;
        let previous = self.inner.collector.state.lock().unwrap_or_else(PoisonError::into_inner).replace(state.clone());
        let is_news = previous.is_none_or(|previous| previous.excess_bytes != state.excess_bytes);
        if state.excess_bytes > 0 && is_news {
            tracing::warn!(
                "the storage budget of {budget} is exceeded by {} bytes, and nothing more may go: {}",
                state.excess_bytes,
                state.kept
            );
        }
        Ok(())
    }

    /// Removes until the budget is kept or nothing more may go.
    fn shrink(&self, budget: StorageBudget) -> Result<(), EngineError> {
        for _ in 0..ROUNDS_MAX {
            let plan = self.inner.plan(budget)?;
            if plan.cache.is_empty() && plan.images.is_empty() {
                return Ok(());
            }
            self.carry_out(&plan, REASON)?;
        }
        Ok(())
    }

    fn carry_out(&self, plan: &Collection, reason: &str) -> Result<ImagePruneReport, EngineError> {
        let cached = self.remove_cached(&plan.cache, reason)?;
        let collected = self.inner.images.collect(&plan.images, self.inner.used_before());
        let collected = collected.map_err(|error| EngineError::system("cannot remove images", error))?;
        for image in &plan.images {
            tracing::info!("{reason}: image {image} goes");
        }
        Ok(ImagePruneReport {
            removed: self.tell_removals(&collected.removals, Some(reason)),
            reclaimed_bytes: plan.freed_bytes,
            cached,
        })
    }

    /// Removes steps of the build cache, and their layers where nothing else has them.
    fn remove_cached(&self, keys: &[Digest], reason: &str) -> Result<Vec<Digest>, EngineError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let wanted: BTreeSet<&Digest> = keys.iter().collect();
        let pruned = self.inner.builds.cache.prune(|key, _| wanted.contains(key));
        let pruned = pruned.map_err(|error| EngineError::system("cannot prune the build cache", error))?;
        let layers: Vec<oci::DiffId> = pruned.iter().filter_map(|(_, entry)| entry.layer).collect();
        let removed = self.inner.images.container_gone(&layers);
        removed.map_err(|error| EngineError::system("cannot remove layers", error))?;
        for (key, entry) in &pruned {
            let attributes = [
                ("reason", reason.to_owned()),
                ("size", entry.size_bytes.to_string()),
                ("description", entry.description.clone()),
            ];
            let attributes = attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            self.tell(EventKind::Builder, "delete", &key.hex(), attributes);
        }
        Ok(pruned.into_iter().map(|(key, _)| key).collect())
    }

    fn look(&self, budget: StorageBudget) -> Result<StorageState, EngineError> {
        let measure = self.inner.measure(budget)?;
        let excess_bytes = measure.excess_bytes();
        Ok(StorageState {
            budget: budget.to_string(),
            limit_bytes: measure.limit_bytes,
            used_bytes: measure.used_bytes,
            excess_bytes,
            kept: if excess_bytes > 0 { self.inner.kept(budget) } else { String::new() },
        })
    }

    /// What keeping a budget, the engine's own where none is given, would remove now.
    pub async fn plan_budget(&self, budget: Option<StorageBudget>) -> Result<ImagePruneReport, EngineError> {
        let budget = self.budget_or(budget)?;
        let inner = std::sync::Arc::clone(&self.inner);
        blocking(move || {
            let plan = inner.plan(budget)?;
            Ok(inner.report(&plan))
        })
        .await
    }

    /// Removes what a budget, the engine's own where none is given, does not leave room for.
    pub async fn prune_to_budget(&self, budget: Option<StorageBudget>) -> Result<ImagePruneReport, EngineError> {
        let budget = self.budget_or(budget)?;
        let engine = self.clone();
        blocking(move || {
            let plan = engine.inner.plan(budget)?;
            let report = engine.carry_out(&plan, "prune")?;
            let attributes = BTreeMap::from([("reclaimed".to_owned(), report.reclaimed_bytes.to_string())]);
            engine.tell(EventKind::Image, "prune", "", attributes);
            Ok(report)
        })
        .await
    }

    fn budget_or(&self, budget: Option<StorageBudget>) -> Result<StorageBudget, EngineError> {
        budget.or(self.inner.options.space.budget).ok_or_else(|| {
            EngineError::invalid("no storage budget was given, and the engine runs without --storage-budget")
        })
    }
}

impl Inner {
    fn plan(&self, budget: StorageBudget) -> Result<Collection, EngineError> {
        let wanted_bytes = self.measure(budget)?.excess_bytes();
        if wanted_bytes == 0 {
            return Ok(Collection::default());
        }
        let request = CollectionRequest { wanted_bytes, used_before: self.used_before() };
        let (catalogue, uses) = (self.images.catalogue(), self.images.use_record());
        let containers = self.image_containers();
        Ok(images::plan_collection(&catalogue, &containers, &uses, &self.cached_layers(), request))
    }

    /// What was used later than this stays.
    fn used_before(&self) -> Timestamp {
        let SpaceOptions { min_age, .. } = self.options.space;
        let min_age = jiff::SignedDuration::try_from(min_age).unwrap_or(jiff::SignedDuration::MAX);
        // Uses are known by the second, so without an age everything up to now may go.
        let now = Timestamp::now() + jiff::SignedDuration::from_secs(1);
        now.checked_sub(min_age).unwrap_or(Timestamp::MIN)
    }

    fn measure(&self, budget: StorageBudget) -> Result<Measure, EngineError> {
        match budget {
            StorageBudget::Bytes(limit_bytes) => {
                let layers = self.snapshotter.list();
                let layers = layers.map_err(|error| EngineError::system("cannot list the layers", error))?;
                Ok(Measure { used_bytes: layers.iter().map(|layer| layer.disk_bytes).sum(), limit_bytes })
            }
            StorageBudget::Percent(percent) => {
                let stat = rustix::fs::statvfs(&self.options.root)
                    .map_err(|error| EngineError::system("cannot see how full the disk is", error))?;
                let used_bytes = stat.f_blocks.saturating_sub(stat.f_bfree) * stat.f_frsize;
                let limit = u128::from(stat.f_blocks) * u128::from(stat.f_frsize) * u128::from(percent) / 100;
                Ok(Measure { used_bytes, limit_bytes: u64::try_from(limit).unwrap_or(u64::MAX) })
            }
        }
    }

    fn cached_layers(&self) -> Vec<CachedLayer> {
        let entries = self.builds.cache.entries().into_iter();
        let cached = entries.filter_map(|(key, entry)| {
            let last_used = Timestamp::from_second(entry.last_used_s).unwrap_or_default();
            Some(CachedLayer { key, layer: entry.layer?, size_bytes: entry.size_bytes, last_used })
        });
        cached.collect()
    }

    /// What a plan would remove, in the words of a prune.
    fn report(&self, plan: &Collection) -> ImagePruneReport {
        let catalogue = self.images.catalogue();
        let removed = plan.images.iter().filter_map(|id| catalogue.get(id)).flat_map(|image| {
            let names = image.tags.iter().chain(&image.digests);
            let untagged = names.map(|name| crate::model::ImageRemoval::Untagged(name.familiar()));
            untagged.chain([crate::model::ImageRemoval::Deleted(image.id.to_string())]).collect::<Vec<_>>()
        });
        ImagePruneReport { removed: removed.collect(), reclaimed_bytes: plan.freed_bytes, cached: plan.cache.clone() }
    }

    /// What keeps images although the budget is exceeded, in words.
    fn kept(&self, budget: StorageBudget) -> String {
        let (catalogue, uses, before) = (self.images.catalogue(), self.images.use_record(), self.used_before());
        let used: BTreeSet<ImageId> = self.image_containers().into_iter().map(|user| user.image).collect();
        let (mut by_containers, mut pinned, mut lately) = (0, 0, 0);
        for image in catalogue.images() {
            match image {
                _ if used.contains(&image.id) => by_containers += 1,
                _ if !uses.pins(image).is_empty() => pinned += 1,
                _ if uses.last_use(image) >= before => lately += 1,
                _ => {}
            }
        }
        let mut parts = Vec::new();
        for (count, why) in
            [(by_containers, "used by containers"), (pinned, "pinned"), (lately, "used or come too lately")]
        {
            if count > 0 {
                parts.push(format!("{count} {} {why}", if count == 1 { "image is" } else { "images are" }));
            }
        }
        if matches!(budget, StorageBudget::Percent(_)) {
            parts.push("the rest of the disk is not ours to clear: containers, volumes, other programs".to_owned());
        }
        if parts.is_empty() {
            parts.push("layers are in use by something that goes on: a pull, a load or a build".to_owned());
        }
        parts.join(", ")
    }
}
