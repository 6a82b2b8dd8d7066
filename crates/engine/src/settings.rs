//! Settings that may change while the engine runs, and the defaults of containers.

use std::sync::{Arc, PoisonError, RwLock};

use crate::engine::Engine;
use crate::model::{EngineError, EventKind, LogConfig};
use crate::options::{EngineOptions, Settings};
use crate::runtimes::Runtimes;

/// The settings of the moment.
#[derive(Debug)]
pub(crate) struct Current(RwLock<(Arc<Settings>, Arc<Runtimes>)>);

impl Current {
    /// Those that an engine is opened with.
    pub(crate) fn new(options: &EngineOptions) -> Result<Self, EngineError> {
        let runtimes = Runtimes::new(&options.runtime, &options.settings.runtimes)?;
        Ok(Self(RwLock::new((Arc::new(options.settings.clone()), Arc::new(runtimes)))))
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).0)
    }

    pub(crate) fn runtimes(&self) -> Arc<Runtimes> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).1)
    }

    fn set(&self, settings: Settings, runtimes: Runtimes) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = (Arc::new(settings), Arc::new(runtimes));
    }
}

impl Engine {
    /// Takes other settings, all of them or, where one is refused, none; what runs is not touched. `told` is added to what the event
    /// says of them.
    pub fn reload(&self, settings: Settings, told: &[(&str, String)]) -> Result<(), EngineError> {
        let inner = &self.inner;
        let runtimes = Runtimes::new(&inner.options.runtime, &settings.runtimes)?;
        let mut attributes = settings.told(runtimes.default_name());
        attributes.extend(told.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        attributes.insert("name".to_owned(), inner.host.hostname.clone());
        inner.registries.reach(&settings.registries);
        inner.current.set(settings, runtimes);
        self.tell(EventKind::Daemon, "reload", &inner.id, attributes);
        Ok(())
    }

    /// Where the output of containers goes whose request names no driver.
    pub fn default_log(&self) -> &LogConfig {
        &self.inner.options.defaults.log
    }
}
