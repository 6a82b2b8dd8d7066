//! Moments: the clock, nanoseconds since 1970 in records and messages, and steps in which everybody wakes up together.

use std::sync::OnceLock;
use std::time::Duration;

use jiff::Timestamp;
use monitor_protocol::UnixNanos;
use serde::{Deserialize, Deserializer, Serializer};
use tokio::time::Instant;

/// When so much time is over, or up to a step earlier: at a moment that all who wait in such steps share, since to wake up costs more
/// than the little that each does then.
pub(crate) fn in_step(after: Duration, step: Duration) -> Instant {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    let begin = *BEGIN.get_or_init(Instant::now);
    let due = Instant::now() + after;
    let early = due.saturating_duration_since(begin).as_nanos() % step.as_nanos().max(1);
    due - Duration::from_nanos(u64::try_from(early).unwrap_or_default())
}

/// A monitor's moment.
pub(crate) fn from_monitor(nanos: UnixNanos) -> Timestamp {
    from_nanos(nanos.0)
}

fn from_nanos(nanos: i64) -> Timestamp {
    // Every i64 of nanoseconds lies between the years 1677 and 2262.
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn to_nanos(moment: Timestamp) -> i64 {
    i64::try_from(moment.as_nanosecond()).unwrap_or(i64::MAX)
}

/// `serde(with)` for a moment.
pub(crate) fn serialize<S: Serializer>(moment: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(to_nanos(*moment))
}

/// `serde(with)` for a moment.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    i64::deserialize(deserializer).map(from_nanos)
}

/// `serde(with)` for a moment that may not have come yet.
pub(crate) mod optional {
    use super::{Deserialize, Deserializer, Serializer, Timestamp, from_nanos, to_nanos};

    #[expect(clippy::ref_option, reason = "serde hands over a reference to the field")]
    pub(crate) fn serialize<S: Serializer>(moment: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        match moment {
            Some(moment) => serializer.serialize_some(&to_nanos(*moment)),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        Option::<i64>::deserialize(deserializer).map(|nanos| nanos.map(from_nanos))
    }
}
