//! One line of a json-file log, read and turned into what a client sees; pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;

use crate::containers::ContainerRecord;
use crate::model::{EngineError, LogEntry, LogQuery, OutputStream};

/// What one line of the file means for a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reading {
    /// For the client.
    Entry(LogEntry),
    /// Of another stream, or too early.
    Skip,
    /// Later than wanted: so is everything behind it.
    Past,
    /// Not a whole record, such as the last line after a crash.
    Broken,
}

#[derive(Debug, Deserialize)]
struct Record<'a> {
    #[serde(borrow, default)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(default)]
    attrs: Option<BTreeMap<String, String>>,
}

/// Reads one line without its newline.
pub(super) fn read(line: &[u8], query: &LogQuery) -> Reading {
    let Ok(record) = serde_json::from_slice::<Record<'_>>(line) else { return Reading::Broken };
    let Ok(time) = record.time.parse::<Timestamp>() else { return Reading::Broken };
    let stream = if record.stream == "stderr" { OutputStream::Stderr } else { OutputStream::Stdout };
    let wanted = match stream {
        OutputStream::Stdout => query.stdout,
        OutputStream::Stderr => query.stderr,
    };
    if query.until.is_some_and(|until| time > until) {
        return Reading::Past;
    }
    if !wanted || query.since.is_some_and(|since| time < since) {
        return Reading::Skip;
    }
    Reading::Entry(LogEntry { stream, payload: payload(&record, time, query) })
}

fn payload(record: &Record<'_>, time: Timestamp, query: &LogQuery) -> Bytes {
    if !query.timestamps && !query.details {
        return Bytes::copy_from_slice(record.log.as_bytes());
    }
    let mut text = String::with_capacity(record.log.len() + 32);
    if query.timestamps {
        text.push_str(&stamp(time));
        text.push(' ');
    }
    if query.details {
        let pairs = record.attrs.iter().flatten().map(|(key, value)| format!("{}={}", escape(key), escape(value)));
        text.push_str(&pairs.collect::<Vec<_>>().join(","));
        text.push(' ');
    }
    text.push_str(&record.log);
    text.into()
}

/// RFC 3339 with nine digits, always.
fn stamp(time: Timestamp) -> String {
    let seconds = Timestamp::from_second(time.as_second()).unwrap_or(Timestamp::UNIX_EPOCH).to_string();
    format!("{}.{:09}Z", seconds.trim_end_matches('Z'), time.subsec_nanosecond())
}

/// As Go's `url.QueryEscape`.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(byte.into()),
            b' ' => escaped.push('+'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// The attributes of every line (`--log-opt labels=`, `env=`, `tag=`, and by patterns) as a JSON object; none when there are none.
pub(crate) fn attributes(record: &ContainerRecord) -> Result<Option<String>, EngineError> {
    let log = &record.spec.log;
    let mut attributes = log.chosen(&record.spec.labels, &record.spec.env)?;
    if let Some(tag) = log.options.get("tag").filter(|tag| !tag.is_empty()) {
        attributes.insert("tag".into(), super::tag::render(tag, record)?);
    }
    Ok(if attributes.is_empty() { None } else { serde_json::to_string(&attributes).ok() })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{Reading, read, stamp};
    use crate::model::{LogQuery, OutputStream};

    pub(in crate::logs) fn everything() -> LogQuery {
        LogQuery {
            stdout: true,
            stderr: true,
            follow: false,
            since: None,
            until: None,
            timestamps: false,
            tail: None,
            details: false,
        }
    }

    const LINE: &[u8] =
        br#"{"log":"h\u00e4\n","stream":"stderr","attrs":{"a b":"c/d"},"time":"2026-01-02T03:04:05.06Z"}"#;

    fn payload(query: &LogQuery) -> String {
        match read(LINE, query) {
            Reading::Entry(entry) => {
                assert_eq!(entry.stream, OutputStream::Stderr);
                String::from_utf8(entry.payload.to_vec()).unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lines_get_what_was_asked_for() {
        assert_eq!(payload(&everything()), "hä\n");
        assert_eq!(payload(&LogQuery { timestamps: true, ..everything() }), "2026-01-02T03:04:05.060000000Z hä\n");
        assert_eq!(
            payload(&LogQuery { timestamps: true, details: true, ..everything() }),
            "2026-01-02T03:04:05.060000000Z a+b=c%2Fd hä\n"
        );
    }

    #[test]
    fn filters_apply() {
        let time = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        assert_eq!(read(LINE, &LogQuery { stderr: false, ..everything() }), Reading::Skip);
        assert_eq!(read(LINE, &LogQuery { since: time("2026-01-02T03:04:06Z"), ..everything() }), Reading::Skip);
        assert_eq!(read(LINE, &LogQuery { until: time("2026-01-02T03:04:05Z"), ..everything() }), Reading::Past);
        assert_eq!(read(b"{\"log\":\"cut", &everything()), Reading::Broken);
    }

    #[test]
    fn stamps_have_nine_digits() {
        assert_eq!(stamp(Timestamp::from_second(0).unwrap()), "1970-01-01T00:00:00.000000000Z");
    }
}
