//! Registry credentials, as the `X-Registry-Auth` header and `POST /auth` carry them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The header's name.
pub const REGISTRY_AUTH_HEADER: &str = "X-Registry-Auth";
/// The name of the header with the credentials of several registries, by their names.
pub const REGISTRY_CONFIG_HEADER: &str = "X-Registry-Config";

/// Clients write both alphabets, with and without padding.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// What a client knows about a registry.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "lowercase")]
pub struct AuthConfig {
    /// The account's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// The account's password or access token.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// `username:password` in base64, an older form.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth: String,
    /// Unused by registries, still sent by clients.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub email: String,
    /// The registry that these credentials are for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub serveraddress: String,
    /// A refresh token that stands for the password.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub identitytoken: String,
    /// A bearer token to be sent as it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub registrytoken: String,
}

/// Secrets stay out of logs.
impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("serveraddress", &self.serveraddress)
            .finish_non_exhaustive()
    }
}

impl AuthConfig {
    /// Reads the header's value; an empty one and JSON's `null` are anonymous.
    pub fn from_header(value: &str) -> Result<Self, AuthHeaderError> {
        from_header(value)
    }

    /// Reads the header with several registries' credentials; an empty one has none.
    pub fn all_from_header(value: &str) -> Result<BTreeMap<String, Self>, AuthHeaderError> {
        from_header(value)
    }

    /// The header with several registries' credentials.
    pub fn all_to_header(all: &BTreeMap<String, Self>) -> String {
        let json = serde_json::to_vec(all).expect("strings always serialise");
        base64::engine::general_purpose::URL_SAFE.encode(json)
    }

    /// The header's value as Docker's CLI writes it.
    pub fn to_header(&self) -> String {
        let json = serde_json::to_vec(self).expect("strings always serialise");
        base64::engine::general_purpose::URL_SAFE.encode(json)
    }

    /// Whether nothing is known.
    pub fn is_anonymous(&self) -> bool {
        let Self { username, password, auth, identitytoken, registrytoken, .. } = self;
        [username, password, auth, identitytoken, registrytoken].iter().all(|text| text.is_empty())
    }
}

fn from_header<T: Default + DeserializeOwned>(value: &str) -> Result<T, AuthHeaderError> {
    let value = value.trim();
    if value.is_empty() {
        return Ok(T::default());
    }
    let alphabet = if value.contains(['+', '/']) { alphabet::STANDARD } else { alphabet::URL_SAFE };
    let json = GeneralPurpose::new(&alphabet, LENIENT).decode(value)?;
    Ok(crate::json::from_slice::<Option<T>>(&json)?.unwrap_or_default())
}

/// The answer of `POST /auth`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AuthResponse {
    /// A token to keep instead of the password.
    pub identity_token: String,
    /// `Login Succeeded`.
    pub status: String,
}

/// Why a header could not be read.
#[derive(Debug, thiserror::Error)]
pub enum AuthHeaderError {
    /// Not base64.
    #[error("invalid X-Registry-Auth header: not base64")]
    Base64(#[from] base64::DecodeError),
    /// Not the JSON of credentials.
    #[error("invalid X-Registry-Auth header: not JSON")]
    Json(#[from] serde_json::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_header_is_read() {
        let auth = AuthConfig { username: "ü?>".into(), password: "p~~".into(), ..Default::default() };
        let json = serde_json::to_vec(&auth).unwrap();
        use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
        for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
            assert_eq!(AuthConfig::from_header(&engine.encode(&json)).unwrap(), auth);
        }
        assert_eq!(AuthConfig::from_header(&auth.to_header()).unwrap(), auth);
    }

    #[test]
    fn nothing_and_null_are_anonymous_and_junk_is_refused() {
        for header in ["", "e30=", "bnVsbA=="] {
            assert!(AuthConfig::from_header(header).unwrap().is_anonymous(), "{header}");
        }
        assert!(AuthConfig::from_header("%%%").is_err());
        assert!(AuthConfig::from_header("YWJj").is_err());
    }

    #[test]
    fn several_registries_are_told_apart() {
        let known = AuthConfig { username: "u".into(), password: "p".into(), ..Default::default() };
        let all = BTreeMap::from([("reg:5000".to_owned(), known)]);
        assert_eq!(AuthConfig::all_from_header(&AuthConfig::all_to_header(&all)).unwrap(), all);
        assert!(AuthConfig::all_from_header("").unwrap().is_empty());
        assert!(AuthConfig::all_from_header("YWJj").is_err());
    }

    #[test]
    fn debug_output_keeps_secrets() {
        let auth = AuthConfig { password: "hunter2".into(), ..Default::default() };
        assert!(!format!("{auth:?}").contains("hunter2"));
    }
}
