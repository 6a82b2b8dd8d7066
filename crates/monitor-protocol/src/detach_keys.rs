//! The key sequence that detaches a client from a terminal.

use serde::{Deserialize, Serialize};

/// Keys that end an attachment, as the bytes a terminal sends for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DetachKeys(Vec<u8>);

/// The text names a key that does not exist; Docker's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Unknown character: '{key}'")]
pub struct DetachKeysError {
    /// The part of the text that is no key.
    pub key: String,
}

impl DetachKeys {
    /// No keys: the client leaves by hanging up.
    pub const NONE: DetachKeys = DetachKeys(Vec::new());

    /// Docker's default, `ctrl-p,ctrl-q`.
    pub fn standard() -> DetachKeys {
        DetachKeys(vec![16, 17])
    }

    /// Reads Docker's form: single characters, `ctrl-` combinations and `DEL`, separated by commas.
    ///
    /// Empty text means [`DetachKeys::standard`], as it does for Docker.
    pub fn parse(text: &str) -> Result<DetachKeys, DetachKeysError> {
        if text.is_empty() {
            return Ok(DetachKeys::standard());
        }
        let key_byte = |key: &str| parse_key(key).ok_or_else(|| DetachKeysError { key: key.to_owned() });
        text.split(',').map(key_byte).collect::<Result<_, _>>().map(DetachKeys)
    }

    /// Whether there are no keys to look for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes to look for.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn parse_key(key: &str) -> Option<u8> {
    if let [byte] = key.as_bytes() {
        return Some(*byte);
    }
    if key == "DEL" {
        return Some(127);
    }
    match key.strip_prefix("ctrl-")?.as_bytes() {
        [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
        [b'@'] => Some(0),
        [sign @ (b'[' | b'\\' | b']' | b'^' | b'_')] => Some(sign - b'@'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_docker_keys() {
        let table: [(&str, &[u8]); 6] = [
            ("", &[16, 17]),
            ("ctrl-p,ctrl-q", &[16, 17]),
            ("ctrl-@,ctrl-[,ctrl-_", &[0, 27, 31]),
            ("a,ctrl-a,DEL", &[b'a', 1, 127]),
            ("ctrl-\\", &[28]),
            ("q", b"q"),
        ];
        for (text, bytes) in table {
            assert_eq!(DetachKeys::parse(text).unwrap().as_bytes(), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_no_key_is_named() {
        for (text, key) in [("ctrl-p,shift-q", "shift-q"), ("ctrl-A", "ctrl-A"), ("a,,b", ""), ("ctrl-", "ctrl-")] {
            assert_eq!(DetachKeys::parse(text), Err(DetachKeysError { key: key.to_owned() }));
        }
    }
}
