//! The time of day, for logs and records.

use std::time::{SystemTime, UNIX_EPOCH};

use monitor_protocol::UnixNanos;

/// Now.
pub(crate) fn now() -> UnixNanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixNanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
