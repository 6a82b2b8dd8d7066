//! One record on its way to a sink, and whose it is.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

/// One line of the log, or a part of a long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) time: Timestamp,
    pub(super) source: Source,
    /// Without the newline.
    pub(super) text: String,
    /// For lines that are longer than 16 KiB.
    pub(super) partial: Option<Partial>,
}

/// Which stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Stdout,
    Stderr,
}

impl Source {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Source::Stdout => "stdout",
            Source::Stderr => "stderr",
        }
    }

    /// Syslog's number of how bad it is: standard error is `err`, standard output `info`.
    pub(super) fn severity(self) -> u8 {
        match self {
            Source::Stdout => 6,
            Source::Stderr => 3,
        }
    }
}

/// Which part of a line this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Partial {
    /// The same for all parts of a line.
    pub(super) id: String,
    /// From 1.
    pub(super) ordinal: u32,
    /// Whether it is the line's end.
    pub(super) last: bool,
}

/// Reads records, and keeps in mind which lines have begun.
#[derive(Debug, Default)]
pub(super) struct Parts {
    stdout: Option<(String, u32)>,
    stderr: Option<(String, u32)>,
}

#[derive(Debug, Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

impl Parts {
    /// Reads a line of the file; none where it is not whole, as the last one after a crash.
    pub(super) fn record(&mut self, line: &[u8]) -> Option<Record> {
        let line = serde_json::from_slice::<Line<'_>>(line).ok()?;
        let time = line.time.parse().ok()?;
        let source = if line.stream == "stderr" { Source::Stderr } else { Source::Stdout };
        let begun = match source {
            Source::Stdout => &mut self.stdout,
            Source::Stderr => &mut self.stderr,
        };
        let (text, last) = match line.log.strip_suffix('\n') {
            Some(text) => (text, true),
            None => (&*line.log, false),
        };
        let partial = match (begun.take(), last) {
            (None, true) => None,
            (before, last) => {
                let (id, ordinal) = before.unwrap_or_else(|| (new_id(), 0));
                let partial = Partial { id, ordinal: ordinal + 1, last };
                *begun = (!last).then(|| (partial.id.clone(), partial.ordinal));
                Some(partial)
            }
        };
        Some(Record { time, source, text: text.to_owned(), partial })
    }
}

fn new_id() -> String {
    oci::ContainerId::from_random(crate::random_bytes()).to_string()
}

/// What sinks tell of the container.
#[derive(Debug, Clone, Default)]
pub(super) struct Origin {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) image_id: String,
    pub(super) image_name: String,
    pub(super) command: String,
    pub(super) created: Option<Timestamp>,
    pub(super) hostname: String,
    pub(super) tag: String,
    /// By `labels`, `labels-regex`, `env` and `env-regex`.
    pub(super) extra: BTreeMap<String, String>,
}

impl Origin {
    pub(super) fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_line_belong_together() {
        let mut parts = Parts::default();
        let mut read = |log: &str, stream: &str| {
            let line = format!(r#"{{"log":"{log}","stream":"{stream}","time":"2026-01-01T00:00:00Z"}}"#);
            parts.record(line.as_bytes()).unwrap()
        };
        assert_eq!(read("whole\\n", "stdout").partial, None);
        let first = read("a", "stdout").partial.unwrap();
        assert_eq!(read("other\\n", "stderr").partial, None);
        let last = read("b\\n", "stdout").partial.unwrap();
        assert_eq!((first.ordinal, first.last, last.ordinal, last.last), (1, false, 2, true));
        assert_eq!(first.id, last.id);
        assert_eq!(read("whole\\n", "stdout").partial, None);
        assert_eq!(parts.record(b"{\"log\":"), None);
    }
}
