//! Times as Docker writes and reads them.

use docker_api::ZERO_TIME;
use jiff::{SignedDuration, Timestamp, Zoned};

use crate::error::{ApiError, ApiResult};

/// RFC 3339 with as many digits of the second as there are; Go's zero time where nothing has happened.
pub(crate) fn shown(time: Option<Timestamp>) -> String {
    time.map_or_else(|| ZERO_TIME.to_owned(), |time| time.to_string())
}

/// `since` and `until` of logs and events: seconds with nanoseconds. Nothing and `0` mean no limit.
pub(crate) fn limit(text: &str) -> ApiResult<Option<Timestamp>> {
    let Some(docker_api::Timestamp { seconds, nanoseconds }) = docker_api::Timestamp::parse(text)? else {
        return Ok(None);
    };
    if (seconds, nanoseconds) == (0, 0) {
        return Ok(None);
    }
    let nanoseconds = i32::try_from(nanoseconds).unwrap_or_default();
    let out_of_range = || ApiError::bad_request(format!("the time {text} is out of range"));
    Timestamp::new(seconds, nanoseconds).map(Some).map_err(|_| out_of_range())
}

/// The `until` filter of prunes and lists: seconds, a date, a time, or a Go duration before now.
pub(crate) fn moment(text: &str, now: &Zoned) -> ApiResult<Timestamp> {
    let refused = || ApiError::bad_request(format!("failed to parse value as time or duration: {text:?}"));
    if let Some(ago) = go_duration(text).filter(|_| text != "0") {
        return now.timestamp().checked_sub(ago).map_err(|_| refused());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(local) = text.parse::<jiff::civil::DateTime>() {
        return local.to_zoned(now.time_zone().clone()).map(|zoned| zoned.timestamp()).map_err(|_| refused());
    }
    limit(text).map_err(|_| refused())?.ok_or_else(refused)
}

/// `1h30m`, `24h`, `10s`, `1.5h`: a Go duration.
fn go_duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number * unit(&rest[..end])?;
        rest = &rest[end..];
    }
    SignedDuration::try_from_secs_f64(if negative { -seconds } else { seconds }).ok()
}

fn unit(text: &str) -> Option<f64> {
    Some(match text {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        let at = |nanoseconds| shown(Some(Timestamp::new(1_700_000_000, nanoseconds).unwrap()));
        assert_eq!(at(0), "2023-11-14T22:13:20Z");
        assert_eq!(at(120_000_000), "2023-11-14T22:13:20.12Z");
        assert_eq!(at(123_456_789), "2023-11-14T22:13:20.123456789Z");
        assert_eq!(shown(None), "0001-01-01T00:00:00Z");
    }

    #[test]
    fn moments_are_seconds_dates_or_durations() {
        let now = Timestamp::new(1_700_000_000, 0).unwrap().to_zoned(jiff::tz::TimeZone::UTC);
        let seconds = |text| moment(text, &now).unwrap().as_second();
        assert_eq!(seconds("1h30m"), 1_700_000_000 - 5400);
        assert_eq!(seconds("1.5h"), 1_700_000_000 - 5400);
        assert_eq!(seconds("1600000000"), 1_600_000_000);
        assert_eq!(seconds("1600000000.5"), 1_600_000_000);
        assert_eq!(seconds("2023-11-14T22:13:20Z"), 1_700_000_000);
        assert_eq!(seconds("2023-11-14T23:13:20+01:00"), 1_700_000_000);
        assert_eq!(seconds("2023-11-14"), 1_699_920_000);
        for wrong in ["", "x", "1x", "2023-99-01", "h"] {
            assert!(moment(wrong, &now).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nothing_and_zero_are_no_limit() {
        assert_eq!(limit("").unwrap(), None);
        assert_eq!(limit("0").unwrap(), None);
        assert_eq!(limit("12.5").unwrap().unwrap().as_nanosecond(), 12_500_000_000);
        assert!(limit("99999999999999").is_err());
    }
}
