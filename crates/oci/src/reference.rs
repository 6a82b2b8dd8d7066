//! Names of images, normalised as Docker normalises them.
//!
//! The rules are those of `distribution/reference`: `ubuntu` is `docker.io/library/ubuntu`; the first component is a registry if it
//! is `localhost`, holds a `.` or `:`, or has an upper-case letter; the path is lower case and at most 255 bytes.
//!
//! ```text
//! reference      = name [ ":" tag ] [ "@" digest ]
//! name           = [ domain "/" ] component *( "/" component )
//! domain         = host [ ":" port ]          host: domain name, IPv4, or IPv6 in brackets
//! component      = alnum *( separator alnum ) separator: "." | "_" | "__" | 1*"-"
//! tag            = word *127( word | "." | "-" )
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Digest, DigestError};

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const DEFAULT_TAG: &str = "latest";
const PATH_LENGTH_MAX: usize = 255;
const TAG_LENGTH_MAX: usize = 128;

/// A normalised image name with an optional tag and an optional digest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image reference; the messages are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The text follows no rule of the grammar.
    #[error("invalid reference format")]
    Format,
    /// The repository holds upper-case letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    UpperCase(String),
    /// The repository's path is longer than 255 bytes.
    #[error("repository name must not be more than {PATH_LENGTH_MAX} characters")]
    TooLong,
    /// The text is 64 hexadecimal digits and would be mistaken for an image's id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    /// The digest is not one that Conex can verify.
    #[error("invalid reference format: {0}")]
    Digest(#[from] DigestError),
}

impl Reference {
    /// Parses a name as a user writes it and normalises it.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if Digest::from_hex(text).is_ok() {
            return Err(ReferenceError::LooksLikeId(text.to_owned()));
        }
        let (domain, remainder) = split_domain(text);
        refuse_upper_case(&remainder)?;
        let (rest, digest) = split_digest(&remainder)?;
        let (path, tag) = split_tag(rest)?;
        check_domain(domain)?;
        check_path(path)?;
        Ok(Self { domain: domain.to_owned(), path: path.to_owned(), tag: tag.map(str::to_owned), digest })
    }

    /// The registry: `docker.io` when the user named none.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository inside the registry: `library/ubuntu`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if one was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Registry and repository in full: `docker.io/library/ubuntu`.
    pub fn canonical_name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// Everything in full: `docker.io/library/ubuntu:24.04`.
    pub fn canonical(&self) -> String {
        self.with_suffixes(self.canonical_name())
    }

    /// The repository as Docker shows it: `ubuntu`, `user/app`, `ghcr.io/user/app`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.canonical_name();
        }
        match self.path.strip_prefix(OFFICIAL_PREFIX) {
            // 64 hexadecimal digits alone would be taken for an image's id.
            Some(official) if !official.contains('/') && Digest::from_hex(official).is_err() => official.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// Everything as Docker shows it: `ubuntu:24.04`.
    pub fn familiar(&self) -> String {
        self.with_suffixes(self.familiar_name())
    }

    /// Says whether neither tag nor digest was given.
    pub fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// Adds the tag `latest` to a reference that has neither tag nor digest.
    #[must_use]
    pub fn with_default_tag(mut self) -> Self {
        if self.is_name_only() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The same repository with this tag, and without a digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        check_tag(tag)?;
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository with this digest, and without a tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The repository alone.
    #[must_use]
    pub fn without_suffixes(&self) -> Self {
        Self { tag: None, digest: None, ..self.clone() }
    }

    fn with_suffixes(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(&digest.to_string());
        }
        name
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.canonical())
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.canonical())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.canonical())
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Splits the registry off and completes what Docker leaves out.
fn split_domain(text: &str) -> (&str, String) {
    let (domain, rest) = match text.split_once('/') {
        // A single component is a repository even with a colon: `ubuntu:24.04` is not a host with a port.
        None => (DEFAULT_DOMAIN, text),
        Some((LEGACY_DEFAULT_DOMAIN, rest)) => (DEFAULT_DOMAIN, rest),
        Some((first, rest)) if is_domain(first) => (first, rest),
        Some(_) => (DEFAULT_DOMAIN, text),
    };
    if domain == DEFAULT_DOMAIN && !rest.contains('/') {
        (domain, format!("{OFFICIAL_PREFIX}{rest}"))
    } else {
        (domain, rest.to_owned())
    }
}

fn is_domain(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.chars().any(char::is_uppercase)
}

fn refuse_upper_case(remainder: &str) -> Result<(), ReferenceError> {
    let repository = remainder.split_once(':').map_or(remainder, |(repository, _)| repository);
    if repository.chars().any(char::is_uppercase) {
        return Err(ReferenceError::UpperCase(repository.to_owned()));
    }
    Ok(())
}

fn split_digest(remainder: &str) -> Result<(&str, Option<Digest>), ReferenceError> {
    match remainder.split_once('@') {
        None => Ok((remainder, None)),
        Some((rest, digest)) if is_digest_form(digest) => Ok((rest, Some(Digest::parse(digest)?))),
        Some(_) => Err(ReferenceError::Format),
    }
}

/// Tells a digest of another algorithm (a clear error) from something that is no digest at all.
fn is_digest_form(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        let is_word = |part: &str| {
            part.starts_with(|first: char| first.is_ascii_alphabetic())
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        algorithm.split(['-', '_', '+', '.']).all(is_word)
            && hex.len() >= 32
            && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

fn split_tag(rest: &str) -> Result<(&str, Option<&str>), ReferenceError> {
    match rest.split_once(':') {
        None => Ok((rest, None)),
        Some((path, tag)) => check_tag(tag).map(|()| (path, Some(tag))),
    }
}

fn check_tag(tag: &str) -> Result<(), ReferenceError> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let starts_well = tag.bytes().next().is_some_and(is_word);
    let goes_on_well = tag.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-');
    if starts_well && goes_on_well && tag.len() <= TAG_LENGTH_MAX { Ok(()) } else { Err(ReferenceError::Format) }
}

fn check_domain(domain: &str) -> Result<(), ReferenceError> {
    let (host, port) = split_port(domain);
    let port_fits = port.is_none_or(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
    if port_fits && (is_bracketed_ipv6(host) || host.split('.').all(is_domain_label)) {
        Ok(())
    } else {
        Err(ReferenceError::Format)
    }
}

fn split_port(domain: &str) -> (&str, Option<&str>) {
    let host_end = domain.rfind(']').map_or(0, |bracket| bracket + 1);
    match domain[host_end..].find(':') {
        Some(colon) => (&domain[..host_end + colon], Some(&domain[host_end + colon + 1..])),
        None => (domain, None),
    }
}

fn is_bracketed_ipv6(host: &str) -> bool {
    host.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|inner| !inner.is_empty() && inner.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':'))
}

fn is_domain_label(label: &str) -> bool {
    let ends_well = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    ends_well(label.bytes().next())
        && ends_well(label.bytes().last())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn check_path(path: &str) -> Result<(), ReferenceError> {
    if !path.split('/').all(|component| is_path_component(component.as_bytes())) {
        return Err(ReferenceError::Format);
    }
    if path.len() > PATH_LENGTH_MAX { Err(ReferenceError::TooLong) } else { Ok(()) }
}

/// Letters and digits, between them single `.`, one or two `_`, or any number of `-`.
fn is_path_component(component: &[u8]) -> bool {
    let is_alnum = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (Some(first), Some(last)) = (component.first(), component.last()) else { return false };
    is_alnum(first)
        && is_alnum(last)
        && component.split(is_alnum).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&byte| byte == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// What is typed, what Docker shows, and what it means in full.
    #[test]
    fn names_are_normalised_as_docker_does() {
        let digest = format!("sha256:{HEX}");
        for (typed, familiar, canonical) in [
            ("ubuntu", "ubuntu", "docker.io/library/ubuntu"),
            ("ubuntu:24.04", "ubuntu:24.04", "docker.io/library/ubuntu:24.04"),
            ("library/ubuntu", "ubuntu", "docker.io/library/ubuntu"),
            ("docker.io/ubuntu", "ubuntu", "docker.io/library/ubuntu"),
            ("docker.io/library/ubuntu:a", "ubuntu:a", "docker.io/library/ubuntu:a"),
            ("index.docker.io/library/ubuntu", "ubuntu", "docker.io/library/ubuntu"),
            ("index.docker.io/user/app", "user/app", "docker.io/user/app"),
            ("user/app", "user/app", "docker.io/user/app"),
            ("library/a/b", "library/a/b", "docker.io/library/a/b"),
            ("localhost/app", "localhost/app", "localhost/app"),
            ("localhost", "localhost", "docker.io/library/localhost"),
            ("localhost:5000/app:v1", "localhost:5000/app:v1", "localhost:5000/app:v1"),
            ("ghcr.io/user/app", "ghcr.io/user/app", "ghcr.io/user/app"),
            ("HOST/app", "HOST/app", "HOST/app"),
            ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c"),
            ("[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app"),
            ("[2001:db8::1]/app:x", "[2001:db8::1]/app:x", "[2001:db8::1]/app:x"),
            ("a/b-c--d/e__f_g.h", "a/b-c--d/e__f_g.h", "docker.io/a/b-c--d/e__f_g.h"),
            ("foo_bar.com:8080", "foo_bar.com:8080", "docker.io/library/foo_bar.com:8080"),
        ] {
            let reference = Reference::parse(typed).unwrap_or_else(|error| panic!("{typed}: {error}"));
            assert_eq!(
                (reference.familiar().as_str(), reference.canonical().as_str()),
                (familiar, canonical),
                "{typed}"
            );
        }
        let reference = Reference::parse(&format!("app:v1@{digest}")).unwrap();
        assert_eq!(reference.familiar(), format!("app:v1@{digest}"));
        assert_eq!(reference.digest(), Some(&Digest::parse(&digest).unwrap()));
    }

    #[test]
    fn refuses_what_docker_refuses() {
        use ReferenceError::{Digest, Format, LooksLikeId, TooLong, UpperCase};
        fn check(text: &str, expected: fn(&ReferenceError) -> bool) {
            let error = Reference::parse(text).expect_err(text);
            assert!(expected(&error), "{text}: {error:?}");
        }
        for text in [
            "",
            ":tag",
            "a:",
            "a@",
            "a@b",
            "-a",
            "a-",
            "a//b",
            "/a",
            "a/",
            "a___b",
            "a..b",
            "a._b",
            "a:-x",
            "a:b:c",
            "a b",
            "ä",
            "foo_bar.com/app",
            "host:port/app",
            "[::1/app",
            "ex..ample.com/app",
            "-x.com/app",
            "::1/app",
            "[fe80::1%eth0]/app",
            "a/../b",
            &format!("a:{}", "t".repeat(129)),
            "aa@sha256:abc",
        ] {
            check(text, |error| *error == Format);
        }
        check("Ubuntu", |error| matches!(error, UpperCase(_)));
        check("user/App", |error| matches!(error, UpperCase(_)));
        check(HEX, |error| matches!(error, LooksLikeId(_)));
        check(&"a/".repeat(128).replace("a/a", "aa/a"), |error| matches!(error, Format | TooLong));
        check(&"a".repeat(256), |error| *error == TooLong);
        check(&format!("a@sha512:{HEX}{HEX}"), |error| matches!(error, Digest(_)));
    }

    #[test]
    fn limits_are_inclusive() {
        // `library/` counts, as it is part of the path.
        assert!(Reference::parse(&"a".repeat(255 - 8)).is_ok());
        assert_eq!(Reference::parse(&"a".repeat(255 - 7)), Err(ReferenceError::TooLong));
        assert!(Reference::parse(&format!("a:{}", "t".repeat(128))).is_ok());
    }

    #[test]
    fn a_name_that_looks_like_an_id_stays_readable() {
        let reference = Reference::parse(&format!("library/{HEX}")).unwrap();
        assert_eq!(reference.familiar(), format!("library/{HEX}"));
        assert_eq!(Reference::parse(&reference.familiar()), Ok(reference));
    }

    #[test]
    fn tags_and_digests_replace_one_another() {
        let name = Reference::parse("app").unwrap();
        assert_eq!(name.clone().with_default_tag().familiar(), "app:latest");
        let pinned = name.with_digest(crate::Digest::of(b""));
        assert_eq!(pinned.clone().with_default_tag(), pinned);
        assert_eq!(pinned.with_tag("v2").unwrap().familiar(), "app:v2");
        assert_eq!(pinned.with_tag("a/b"), Err(ReferenceError::Format));
        assert_eq!(pinned.without_suffixes(), name);
    }

    proptest! {
        #[test]
        fn canonical_and_familiar_parse_to_the_same(
            text in "(([a-z0-9]{1,5}\\.){0,2}(localhost|[a-z]{2,4})(:[0-9]{1,5})?/)?[a-z0-9]{1,6}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,4}){0,2}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,9})?"
        ) {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(&Reference::parse(&reference.canonical()).unwrap(), &reference);
                prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
            }
        }

        #[test]
        fn what_is_taken_is_clean(text in "[a-zA-Z0-9./:@_\\[\\]-]{0,40}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert!(reference.path().split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
                prop_assert!(!reference.domain().contains(['/', '@']));
                prop_assert!(reference.path().len() <= PATH_LENGTH_MAX);
                prop_assert_eq!(reference.path().to_lowercase(), reference.path());
                prop_assert_eq!(&Reference::parse(&reference.canonical()).unwrap(), &reference);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}") {
            let _ = Reference::parse(&text);
        }
    }
}
