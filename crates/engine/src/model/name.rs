//! Names of containers, given and invented.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::EngineError;

/// A container's name, without Docker's leading slash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainerName(String);

impl ContainerName {
    /// Accepts `[a-zA-Z0-9][a-zA-Z0-9_.-]+` with or without a leading slash.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        let name = text.strip_prefix('/').unwrap_or(text);
        if name.len() > MAX_NAME_LENGTH || !is_restricted_name(name) {
            return Err(EngineError::invalid(format!(
                "Invalid container name ({text}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )));
        }
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Longer names than any tool makes, and short enough for an index and a message.
const MAX_NAME_LENGTH: usize = 1024;

/// Docker's pattern for names of containers and volumes: at least two characters.
pub(crate) fn is_restricted_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && text.len() >= 2
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::ContainerName;

    #[test]
    fn names_follow_dockers_pattern() {
        assert_eq!(ContainerName::parse("/web-1").unwrap().as_str(), "web-1");
        for bad in ["", "a", "-a", "a b", "a/b", "ä1", "//a1"] {
            assert!(ContainerName::parse(bad).unwrap_err().message().starts_with("Invalid container name ("), "{bad}");
        }
    }
}
