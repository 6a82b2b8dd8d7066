//! One line of a `json-file` log, byte for byte as Docker writes it.
//!
//! `{"log":"text\n","stream":"stdout","attrs":{…},"time":"2026-11-21T22:08:02.123456789Z"}`
//!
//! Strings are escaped as moby's `jsonlog` does: `<`, `>` and `&` too, and a byte that is no UTF-8 becomes `\ufffd`.

use super::split::{Part, PartEnd};

/// Where an entry came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output, or a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn json(self) -> &'static [u8] {
        match self {
            Stream::Stdout => b"\",\"stream\":\"stdout\"",
            Stream::Stderr => b"\",\"stream\":\"stderr\"",
        }
    }
}

/// Appends one entry to `out`. `attrs` is a ready-made JSON object.
pub(crate) fn write(part: Part<'_>, stream: Stream, attrs: Option<&str>, time: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"log\":\"");
    escape(part.bytes, out);
    if part.end == PartEnd::Line {
        out.extend_from_slice(b"\\n");
    }
    out.extend_from_slice(stream.json());
    if let Some(attrs) = attrs {
        out.extend_from_slice(b",\"attrs\":");
        out.extend_from_slice(attrs.as_bytes());
    }
    out.extend_from_slice(b",\"time\":\"");
    out.extend_from_slice(time);
    out.extend_from_slice(b"\"}\n");
}

fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    if is_plain(bytes) {
        out.extend_from_slice(bytes);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        escape_text(chunk.valid().as_bytes(), out);
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

/// Whether all bytes stand for themselves, as they mostly do in logs.
fn is_plain(bytes: &[u8]) -> bool {
    bytes
        .chunks(PLAIN_BLOCK)
        .all(|block| !block.iter().fold(false, |found, byte| found | NOT_PLAIN[usize::from(*byte)]))
}

/// How much is looked at without asking whether something was found.
const PLAIN_BLOCK: usize = 64;

/// [`SPECIAL`], and what must be checked to be UTF-8.
const NOT_PLAIN: [bool; 256] = {
    let mut table = SPECIAL;
    let mut byte = 0x80;
    while byte < 256 {
        table[byte] = true;
        byte += 1;
    }
    table
};

/// Bytes that do not stand for themselves. 0xe2 begins U+2028 and U+2029, which JavaScript takes for line ends.
const SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = true;
        control += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table[b'<' as usize] = true;
    table[b'>' as usize] = true;
    table[b'&' as usize] = true;
    table[0xe2] = true;
    table
};

fn escape_text(mut text: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = text.iter().position(|byte| SPECIAL[usize::from(*byte)]) {
        out.extend_from_slice(&text[..at]);
        text = &text[at + escape_special(&text[at..], out)..];
    }
    out.extend_from_slice(text);
}

/// Writes the special character at the start of `text`; returns its length.
fn escape_special(text: &[u8], out: &mut Vec<u8>) -> usize {
    match text {
        [quoted @ (b'"' | b'\\'), ..] => out.extend_from_slice(&[b'\\', *quoted]),
        [b'\n', ..] => out.extend_from_slice(b"\\n"),
        [b'\r', ..] => out.extend_from_slice(b"\\r"),
        [0xe2, 0x80, last @ (0xa8 | 0xa9), ..] => {
            out.extend_from_slice(if *last == 0xa8 { b"\\u2028" } else { b"\\u2029" });
            return 3;
        }
        [0xe2, ..] => out.push(0xe2),
        [byte, ..] => {
            let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
        }
        [] => return 0,
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(bytes: &[u8], end: PartEnd, attrs: Option<&str>) -> String {
        let mut out = Vec::new();
        write(Part { bytes, end }, Stream::Stdout, attrs, b"T", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn entries_are_docker_entries() {
        let table: [(&[u8], PartEnd, &str); 6] = [
            (b"hello", PartEnd::Line, r#"{"log":"hello\n","stream":"stdout","time":"T"}"#),
            (b"", PartEnd::Line, r#"{"log":"\n","stream":"stdout","time":"T"}"#),
            (b"half", PartEnd::Open, r#"{"log":"half","stream":"stdout","time":"T"}"#),
            (
                b"a\"\\<b>&\r\t\x1b[0m\x7f",
                PartEnd::Line,
                "{\"log\":\"a\\\"\\\\\\u003cb\\u003e\\u0026\\r\\u0009\\u001b[0m\x7f\\n\",\"stream\":\"stdout\",\"time\":\"T\"}",
            ),
            (
                b"\xff\xe2\x82x\xc3",
                PartEnd::Open,
                r#"{"log":"\ufffd\ufffd\ufffdx\ufffd","stream":"stdout","time":"T"}"#,
            ),
            (
                "é€\u{2028}\u{2029}".as_bytes(),
                PartEnd::Open,
                "{\"log\":\"é€\\u2028\\u2029\",\"stream\":\"stdout\",\"time\":\"T\"}",
            ),
        ];
        for (bytes, end, expected) in table {
            assert_eq!(entry(bytes, end, None), format!("{expected}\n"));
        }
    }

    #[test]
    fn attributes_stand_before_the_time() {
        let expected = "{\"log\":\"x\\n\",\"stream\":\"stdout\",\"attrs\":{\"tag\":\"t\"},\"time\":\"T\"}\n";
        assert_eq!(entry(b"x", PartEnd::Line, Some(r#"{"tag":"t"}"#)), expected);
    }

    #[test]
    fn every_byte_makes_valid_json() {
        let all: Vec<u8> = (0..=255u8).chain(0..=255).collect();
        let text = entry(&all, PartEnd::Line, None);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["stream"], "stdout");
        assert!(value["log"].as_str().unwrap().starts_with("\0\u{1}\u{2}"));
    }
}
