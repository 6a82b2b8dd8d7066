//! Identifiers of containers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::encode_hex;

const LENGTH_MAX: usize = 1024;
const SHORT_LENGTH: usize = 12;

/// A container's identifier: safe as one component of a path.
///
/// The engine makes 64 hexadecimal digits ([`ContainerId::from_random`]); the runtime's own command line takes every name of
/// `[A-Za-z0-9_+.-]`, as runc does.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

/// Why a text is not a container's identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Empty, too long, `.`, `..`, or with a character that is not allowed.
    #[error("invalid container id {0:?}: 1 to 1024 characters of [A-Za-z0-9_+.-] expected")]
    Name(String),
    /// Not 64 lower-case hexadecimal digits.
    #[error("invalid container id {0:?}: 64 lower-case hexadecimal digits expected")]
    Hex(String),
}

impl ContainerId {
    /// Makes an engine's identifier from 32 random bytes.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(encode_hex(&bytes))
    }

    /// Parses any identifier that a runtime's command line accepts.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let length_fits = (1..=LENGTH_MAX).contains(&text.len());
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+.-".contains(&byte);
        if length_fits && text.bytes().all(allowed) && text != "." && text != ".." {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError::Name(text.to_owned()))
        }
    }

    /// Parses an engine's full identifier: 64 lower-case hexadecimal digits.
    pub fn parse_full(text: &str) -> Result<Self, IdError> {
        if text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError::Hex(text.to_owned()))
        }
    }

    /// The whole identifier.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve characters, as Docker's tables show them.
    pub fn short(&self) -> &str {
        self.0.get(..SHORT_LENGTH).unwrap_or(&self.0)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for ContainerId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse(text)
    }
}

impl AsRef<str> for ContainerId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Serialize for ContainerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ContainerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_runc_takes() {
        for good in ["a", "A-1_b.c+d", "..."] {
            assert!(ContainerId::parse(good).is_ok(), "{good:?} was refused");
        }
        for bad in ["", ".", "..", "a/b", "a b", "a\0", "ä", "a:b", &"x".repeat(1025)] {
            assert!(ContainerId::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn full_ids_are_hexadecimal() {
        let id = ContainerId::from_random([0xab; 32]);
        assert_eq!(ContainerId::parse_full(id.as_str()), Ok(id.clone()));
        assert_eq!(id.short(), "abababababab");
        assert!(ContainerId::parse_full("abc").is_err());
        assert!(ContainerId::parse_full(&"AB".repeat(32)).is_err());
    }

    #[test]
    fn json_refuses_what_parse_refuses() {
        assert!(serde_json::from_str::<ContainerId>("\"../x\"").is_err());
        assert_eq!(serde_json::from_str::<ContainerId>("\"x\"").unwrap().short(), "x");
    }
}
