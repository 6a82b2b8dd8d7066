//! The event bus: a ring for the past, a channel for what comes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::broadcast;

use crate::engine::Engine;
use crate::model::{EngineError, Event, EventFilters, EventKind, EventQuery};

/// Past events that `since` can reach; Docker keeps 256.
const RING_LENGTH: usize = 1024;
/// Events that a slow listener may be behind; beyond that it loses the oldest, and nobody else waits for it.
const LISTENER_QUEUE: usize = 4096;

/// Where events are told and heard.
#[derive(Debug)]
pub(crate) struct Bus {
    ring: Mutex<VecDeque<Arc<Event>>>,
    live: broadcast::Sender<Arc<Event>>,
}

impl Bus {
    pub(crate) fn new() -> Self {
        Self { ring: Mutex::default(), live: broadcast::channel(LISTENER_QUEUE).0 }
    }

    /// Tells what happened just now.
    pub(crate) fn tell(&self, kind: EventKind, action: &str, actor: &str, attributes: BTreeMap<String, String>) {
        self.tell_of(Event { kind, action: action.into(), actor: actor.into(), attributes, time: Timestamp::now() });
    }

    /// Tells of something that bears its own time.
    pub(crate) fn tell_of(&self, event: Event) {
        let event = Arc::new(event);
        // Under the lock, so that a listener that joins gets each event once: from the ring or from the channel.
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == RING_LENGTH {
            ring.pop_front();
        }
        ring.push_back(Arc::clone(&event));
        let _ = self.live.send(event);
    }

    /// How many listen.
    pub(crate) fn listeners(&self) -> usize {
        self.live.receiver_count()
    }

    fn listen(&self, query: EventQuery) -> EventStream {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.live.subscribe();
        // Without `since` and `until` only the future is of interest.
        let wants_past = query.since.is_some() || query.until.is_some();
        let past = if wants_past {
            ring.iter().filter(|event| query.matches(event)).cloned().collect()
        } else {
            VecDeque::new()
        };
        EventStream { past, live, query }
    }
}

/// Events in order; ends at `until`.
#[derive(Debug)]
pub struct EventStream {
    past: VecDeque<Arc<Event>>,
    live: broadcast::Receiver<Arc<Event>>,
    query: EventQuery,
}

impl EventStream {
    /// The next event; none at the end. Can be dropped and called again without losing one.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        if let Some(event) = self.past.pop_front() {
            return Some(event);
        }
        let until = self.query.until;
        tokio::select! {
            event = next_live(&mut self.live, &self.query) => event,
            () = reached(until) => None,
        }
    }
}

async fn next_live(live: &mut broadcast::Receiver<Arc<Event>>, query: &EventQuery) -> Option<Arc<Event>> {
    loop {
        match live.recv().await {
            Ok(event) if query.matches(&event) => return Some(event),
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(lost)) => {
                tracing::warn!("a listener is too slow and lost {lost} events")
            }
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}

/// Returns when `until` has come; never without one.
async fn reached(until: Option<Timestamp>) {
    match until {
        None => std::future::pending().await,
        Some(until) => {
            let wait = until.duration_since(Timestamp::now());
            tokio::time::sleep(std::time::Duration::try_from(wait).unwrap_or_default()).await;
        }
    }
}

impl EventQuery {
    fn matches(&self, event: &Event) -> bool {
        self.since.is_none_or(|since| event.time >= since)
            && self.until.is_none_or(|until| event.time <= until)
            && self.filters.matches(event)
    }
}

impl EventFilters {
    fn matches(&self, event: &Event) -> bool {
        let any = |list: &[String], test: &dyn Fn(&str) -> bool| list.is_empty() || list.iter().any(|text| test(text));
        any(&self.kind, &|kind| kind == event.kind.as_str())
            && any(&self.action, &|action| action_matches(action, &event.action))
            && any(&self.scope, &|scope| scope == "local")
            && self.absent.is_empty()
            && any(&self.container, &|text| event.concerns(EventKind::Container, text))
            && any(&self.image, &|text| event.concerns_image(text))
            && any(&self.volume, &|text| event.concerns(EventKind::Volume, text))
            && any(&self.network, &|text| event.concerns(EventKind::Network, text))
            && any(&self.daemon, &|text| event.concerns(EventKind::Daemon, text))
            && self.label.iter().all(|label| label.matches(&event.attributes))
    }
}

/// `exec_start` also means `exec_start: sh`, `health_status` also `health_status: healthy`.
fn action_matches(wanted: &str, action: &str) -> bool {
    action == wanted || action.strip_prefix(wanted).is_some_and(|rest| rest.starts_with(':'))
}

impl Event {
    fn concerns(&self, kind: EventKind, text: &str) -> bool {
        let name = self.attributes.get("name").map(String::as_str);
        self.kind == kind && (self.actor.starts_with(text) || name == Some(text.strip_prefix('/').unwrap_or(text)))
    }

    /// An image's own events, and those of containers made from it; with or without the tag.
    fn concerns_image(&self, text: &str) -> bool {
        let is = |name: &str| name == text || name.rsplit_once(':').is_some_and(|(untagged, _)| untagged == text);
        match self.kind {
            EventKind::Image => is(&self.actor) || self.attributes.get("name").is_some_and(|name| is(name)),
            EventKind::Container => self.attributes.get("image").is_some_and(|image| is(image)),
            _ => false,
        }
    }
}

impl Engine {
    /// Past (when `since` says so) and future events.
    pub fn events(&self, query: EventQuery) -> Result<EventStream, EngineError> {
        Ok(self.inner.bus.listen(query))
    }

    /// Tells an event.
    pub(crate) fn tell(&self, kind: EventKind, action: &str, actor: &str, attributes: BTreeMap<String, String>) {
        self.inner.bus.tell(kind, action, actor, attributes);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;

    use super::{Bus, action_matches};
    use crate::model::{EventFilters, EventKind, EventQuery, LabelFilter};

    fn attributes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn past_and_future_come_once_and_in_order() {
        let bus = Bus::new();
        let tell = |action: &str| bus.tell(EventKind::Container, action, "abc", attributes(&[("name", "web")]));
        tell("create");
        let mut stream = bus.listen(EventQuery { since: Some(Timestamp::UNIX_EPOCH), ..EventQuery::default() });
        let mut only_new = bus.listen(EventQuery::default());
        tell("start");
        let actions =
            block_on(async { [stream.next().await, stream.next().await].map(|event| event.unwrap().action.clone()) });
        assert_eq!(actions, ["create", "start"]);
        assert_eq!(block_on(only_new.next()).unwrap().action, "start");
    }

    #[test]
    fn until_ends_the_stream() {
        let bus = Bus::new();
        bus.tell(EventKind::Volume, "create", "v", BTreeMap::new());
        let mut stream = bus.listen(EventQuery { until: Some(Timestamp::now()), ..EventQuery::default() });
        assert_eq!(block_on(stream.next()).unwrap().actor, "v");
        assert!(block_on(stream.next()).is_none());
    }

    #[test]
    fn filters_combine() {
        let bus = Bus::new();
        let filters = EventFilters {
            action: vec!["start".into(), "exec_start".into()],
            container: vec!["web".into()],
            label: vec![LabelFilter::parse("a=1")],
            ..EventFilters::default()
        };
        let query = EventQuery { since: Some(Timestamp::UNIX_EPOCH), until: Some(Timestamp::now()), filters };
        for (kind, action, name, a) in [
            (EventKind::Container, "start", "web", "1"),
            (EventKind::Container, "exec_start: sh", "web", "1"),
            (EventKind::Container, "die", "web", "1"),
            (EventKind::Container, "start", "db", "1"),
            (EventKind::Container, "start", "web", "2"),
            (EventKind::Volume, "start", "web", "1"),
        ] {
            bus.tell(kind, action, "id", attributes(&[("name", name), ("a", a)]));
        }
        let query = EventQuery { until: Some(Timestamp::now()), ..query };
        let mut stream = bus.listen(query);
        let mut count = 0;
        while block_on(stream.next()).is_some() {
            count += 1;
        }
        assert_eq!(count, 2);
        assert!(action_matches("health_status", "health_status: healthy") && !action_matches("exec", "exec_start: sh"));
    }
}
