//! The lines of long answers: pull, load, import, build.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::mount::is_zero;

/// One line; lines end with `\r\n`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct Message {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stream: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<Progress>,
    /// The bar as text, for clients that draw none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub progress: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    #[serde(rename = "errorDetail", skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<ErrorDetail>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<Value>,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct Progress {
    #[serde(skip_serializing_if = "is_zero")]
    pub current: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub total: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start: i64,
}

/// How fast a pull's bytes came, told in `aux` under the name `Flow` to those who ask for it (`flow=1`): not Docker's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Flow {
    /// The layer's short id; empty for all layers together.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub layer: String,
    /// Bytes that came.
    pub fetched: u64,
    /// Bytes of the layers' tars.
    pub unpacked: u64,
    /// How long it took.
    pub seconds: f64,
    /// What kept it from being faster: `network`, `CPU` or `disk`.
    pub limit: String,
}

/// What happens in a build, told in `aux` under the name `Build` to those who ask for it (`steps=1`): not Docker's. Steps run side by
/// side, and are told apart by their number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "Event", rename_all_fields = "PascalCase")]
#[allow(missing_docs, reason = "the variants are documented")]
pub enum BuildStep {
    /// A step begins. One that makes no files only changes the configuration.
    Begin { step: u32, title: String, makes_files: bool },
    /// Its result was there already.
    Cached { step: u32 },
    /// It has to run, because of this.
    Because { step: u32, reasons: Vec<String> },
    /// What its command writes.
    Output { step: u32, text: String },
    /// How many bytes of a part have come.
    Progress { step: u32, name: String, current: u64, total: Option<u64> },
    /// How large its layer is.
    Size { step: u32, bytes: u64 },
    /// It is over, after so long, well or with an error.
    End { step: u32, seconds: f64, error: Option<String> },
    /// Something that is better known.
    Warning { text: String },
}

/// Why an answer ends early.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct ErrorDetail {
    #[serde(skip_serializing_if = "is_zero")]
    pub code: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Message {
    /// A line of output.
    pub fn stream(text: impl Into<String>) -> Self {
        Self { stream: text.into(), ..Self::default() }
    }

    /// A line that says what is being done.
    pub fn status(text: impl Into<String>) -> Self {
        Self { status: text.into(), ..Self::default() }
    }

    /// A step of the thing `id`, with its bar.
    pub fn step(id: impl Into<String>, status: impl Into<String>, progress: Progress) -> Self {
        Self {
            id: id.into(),
            status: status.into(),
            progress: progress.bar(),
            progress_detail: Some(progress),
            ..Self::default()
        }
    }

    /// The line that ends an answer that failed after it began.
    pub fn failure(message: impl Into<String>) -> Self {
        let message = message.into();
        Self { error: message.clone(), error_detail: Some(ErrorDetail { code: 0, message }), ..Self::default() }
    }

    /// The line as it goes over the wire.
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("messages have string keys and finite numbers");
        line.extend_from_slice(b"\r\n");
        line
    }
}

impl Progress {
    /// The bar of 50 signs with both sizes, as Docker draws it for a terminal of unknown width.
    pub fn bar(self) -> String {
        if self.current <= 0 && self.total <= 0 {
            return String::new();
        }
        if self.total <= 0 {
            return format!("{:>8}", human_size(self.current));
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a share of 50 signs")]
        let filled = ((self.current as f64 / self.total as f64 * 100.0) as usize / 2).min(50);
        let bar = format!("[{}>{}] ", "=".repeat(filled), " ".repeat(50 - filled));
        let counts = if self.current > self.total {
            format!("{:>8}", human_size(self.current))
        } else {
            format!("{:>8}/{}", human_size(self.current), human_size(self.total))
        };
        bar + &counts
    }
}

/// A size with four significant digits and a decimal unit: `1.234MB`.
pub fn human_size(bytes: i64) -> String {
    const UNITS: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
    #[allow(clippy::cast_precision_loss, reason = "four digits are shown")]
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit < UNITS.len() - 1 {
        size /= 1000.0;
        unit += 1;
    }
    format!("{}{}", four_digits(size), UNITS[unit])
}

/// Go's `%.4g` for numbers below a thousand (and a thousand, where rounding makes it one).
fn four_digits(number: f64) -> String {
    let whole_digits = if number >= 100.0 {
        3
    } else if number >= 10.0 {
        2
    } else {
        1
    };
    let text = format!("{number:.*}", 4 - whole_digits);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_four_digits() {
        let sizes = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.234kB"),
            (7_339_123, "7.339MB"),
            (15_500_000, "15.5MB"),
            (999_960, "1000kB"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(human_size(bytes), text);
        }
    }

    #[test]
    fn a_bar_has_fifty_signs() {
        let bar = |current, total| Progress { current, total, start: 0 }.bar();
        assert_eq!(bar(0, 0), "");
        assert_eq!(bar(512, 0), "    512B");
        assert_eq!(bar(500, 1000), format!("[{}>{}]     500B/1kB", "=".repeat(25), " ".repeat(25)));
        assert_eq!(bar(2000, 1000), format!("[{}>]      2kB", "=".repeat(50)));
    }

    #[test]
    fn a_failure_is_said_twice() {
        assert_eq!(
            Message::failure("boom").to_line(),
            b"{\"errorDetail\":{\"message\":\"boom\"},\"error\":\"boom\"}\r\n"
        );
        assert_eq!(Message::stream("Loaded image: a:b\n").to_line(), b"{\"stream\":\"Loaded image: a:b\\n\"}\r\n");
    }
}
