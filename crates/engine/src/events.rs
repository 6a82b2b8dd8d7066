//! The event bus: a ring for the past, a channel for what comes.

use std::sync::Arc;

use crate::engine::{Engine, unwritten};
use crate::model::{EngineError, Event, EventQuery};

/// Events in order; ends at `until`.
#[derive(Debug)]
pub struct EventStream {
    receiver: tokio::sync::mpsc::Receiver<Arc<Event>>,
}

impl EventStream {
    /// The next event; none at the end. Can be dropped and called again without losing one.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        self.receiver.recv().await
    }
}

impl Engine {
    /// Past (when `since` says so) and future events.
    pub fn events(&self, query: EventQuery) -> Result<EventStream, EngineError> {
        let _ = query;
        Err(unwritten())
    }
}
