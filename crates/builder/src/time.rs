//! Times that go into images, and durations as Go shows them.

use std::time::Duration;

use archive::tar::Timestamp;

use crate::error::BuildError;

/// The clock of a build: fixed by `SOURCE_DATE_EPOCH`, or the machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clock {
    fixed: Option<jiff::Timestamp>,
}

impl Clock {
    /// Reads `SOURCE_DATE_EPOCH`; empty is not set.
    pub(crate) fn new(epoch: Option<&str>) -> Result<Clock, BuildError> {
        let parse = |text: &str| {
            let seconds = text.parse().ok();
            seconds
                .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
                .ok_or_else(|| BuildError::Epoch(text.to_owned()))
        };
        Ok(Clock { fixed: epoch.filter(|text| !text.is_empty()).map(parse).transpose()? })
    }

    /// The fixed time, RFC 3339.
    pub(crate) fn fixed(self) -> Option<String> {
        self.fixed.map(|time| time.to_string())
    }

    /// For files that a step makes.
    pub(crate) fn file_time(self) -> Timestamp {
        let now = self.fixed.unwrap_or_else(jiff::Timestamp::now);
        Timestamp { seconds: now.as_second(), nanoseconds: 0 }
    }

    /// Times of copied files are not younger than a fixed clock.
    pub(crate) fn at_most(self, time: Timestamp) -> Timestamp {
        match self.fixed {
            Some(_) => time.min(self.file_time()),
            None => time,
        }
    }
}

/// `1m30s`, as Go prints durations; the history of HEALTHCHECK shows them.
pub(crate) fn go_duration(duration: Duration) -> String {
    let (seconds, nanoseconds) = (duration.as_secs(), duration.subsec_nanos());
    if seconds == 0 {
        return match nanoseconds {
            0 => "0s".to_owned(),
            n if n >= 1_000_000 => format!("{}ms", f64::from(n) / 1e6),
            n if n >= 1000 => format!("{}µs", f64::from(n) / 1e3),
            n => format!("{n}ns"),
        };
    }
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = format!("{nanoseconds:09}");
    let fraction = fraction.trim_end_matches('0');
    let rest = if fraction.is_empty() { format!("{rest}s") } else { format!("{rest}.{fraction}s") };
    match (hours, minutes) {
        (0, 0) => rest,
        (0, _) => format!("{minutes}m{rest}"),
        _ => format!("{hours}h{minutes}m{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_prints_them() {
        let cases = [(0, "0s"), (250, "250ms"), (1500, "1.5s"), (90_000, "1m30s"), (3_600_000, "1h0m0s")];
        for (milliseconds, expected) in cases {
            assert_eq!(go_duration(Duration::from_millis(milliseconds)), expected);
        }
    }

    #[test]
    fn a_fixed_clock_stands_still() {
        let clock = Clock::new(Some("86400")).unwrap();
        assert_eq!(clock.fixed().as_deref(), Some("1970-01-02T00:00:00Z"));
        assert_eq!(clock.at_most(Timestamp { seconds: 90_000, nanoseconds: 5 }).seconds, 86_400);
        assert_eq!(clock.at_most(Timestamp { seconds: 5, nanoseconds: 5 }).seconds, 5);
        assert!(Clock::new(Some("x")).is_err());
    }
}
