//! `GET /events`.

use docker_api::event::{Actor, Event};

/// One event; the members that 1.52 dropped are there for all versions that we speak.
pub(crate) fn show(event: &engine::model::Event) -> Event {
    Event {
        r#type: event.kind.as_str().to_owned(),
        action: event.action.clone(),
        actor: Actor { id: event.actor.clone(), attributes: event.attributes.clone() },
        scope: "local".to_owned(),
        time: event.time.as_second(),
        time_nano: i64::try_from(event.time.as_nanosecond()).unwrap_or(i64::MAX),
        ..Event::default()
    }
    .with_legacy_members()
}
