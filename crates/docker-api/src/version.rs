//! The API's version, as in `/v1.45/containers/json`.

use std::fmt;
use std::str::FromStr;

/// A version of Docker's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    major: u16,
    minor: u16,
}

impl ApiVersion {
    /// The oldest version that is answered.
    pub const OLDEST: Self = Self::new(1, 24);
    /// The newest version that is answered, and the meaning of a path without a version.
    pub const NEWEST: Self = Self::new(1, 51);

    /// A version by its two numbers.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// Whether this version is at least 1.`minor`.
    pub fn at_least(self, minor: u16) -> bool {
        self >= Self::new(1, minor)
    }

    /// Whether this version came before 1.`minor`.
    pub fn before(self, minor: u16) -> bool {
        !self.at_least(minor)
    }

    /// Refuses a version outside the window, in Docker's words.
    pub fn supported(self) -> Result<Self, VersionError> {
        if self < Self::OLDEST {
            return Err(VersionError::TooOld(self));
        }
        if self > Self::NEWEST {
            return Err(VersionError::TooNew(self));
        }
        Ok(self)
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for ApiVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let malformed = || VersionError::Malformed(text.to_owned());
        let (major, minor) = text.split_once('.').ok_or_else(malformed)?;
        Ok(Self { major: decimal(major).ok_or_else(malformed)?, minor: decimal(minor).ok_or_else(malformed)? })
    }
}

fn decimal(text: &str) -> Option<u16> {
    // `parse` alone would accept a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A version that is not one, or is outside the window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// Older than [`ApiVersion::OLDEST`].
    #[error(
        "client version {0} is too old. Minimum supported API version is {oldest}, please upgrade your client to a newer version",
        oldest = ApiVersion::OLDEST
    )]
    TooOld(ApiVersion),
    /// Newer than [`ApiVersion::NEWEST`].
    #[error(
        "client version {0} is too new. Maximum supported API version is {newest}",
        newest = ApiVersion::NEWEST
    )]
    TooNew(ApiVersion),
    /// Not two numbers.
    #[error("{0:?} is not an API version")]
    Malformed(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number_not_by_text() {
        let parse = |text: &str| text.parse::<ApiVersion>().unwrap();
        assert!(parse("1.9") < parse("1.24"));
        assert!(parse("1.45").at_least(45) && parse("1.45").before(46));
        for wrong in ["1", "1.", ".1", "1.+2", "a.b", "1.2.3", "1.99999"] {
            assert!(wrong.parse::<ApiVersion>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn refusals_use_dockers_words() {
        let refusal = |text: &str| text.parse::<ApiVersion>().unwrap().supported().unwrap_err().to_string();
        assert_eq!(refusal("9.99"), "client version 9.99 is too new. Maximum supported API version is 1.51");
        assert_eq!(
            refusal("1.10"),
            "client version 1.10 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"
        );
        assert!(ApiVersion::new(1, 24).supported().is_ok());
    }
}
