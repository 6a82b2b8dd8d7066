//! Addresses of the web, as far as registries need them.

use std::fmt;

use http::Uri;

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// A server: what a secret may not leave.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub(crate) scheme: Scheme,
    /// A name or an address, IPv6 without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Origin {
    /// `host[:port]`, the port only where it is not the usual one.
    pub(crate) fn authority(&self) -> String {
        if self.port == self.scheme.default_port() { self.bracketed() } else { self.host_and_port() }
    }

    /// `host:port`.
    pub(crate) fn host_and_port(&self) -> String {
        format!("{}:{}", self.bracketed(), self.port)
    }

    fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

/// An absolute address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Url {
    origin: Origin,
    /// Path and query; it begins with a slash.
    target: String,
    /// What stood before an `@`.
    user: Option<String>,
}

/// Why a text is no address that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid URL {0:?}")]
pub struct UrlError(String);

impl Url {
    /// Parses `http://…` or `https://…`.
    pub fn parse(text: &str) -> Result<Url, UrlError> {
        let invalid = || UrlError(text.to_owned());
        let uri: Uri = text.split('#').next().unwrap_or_default().parse().map_err(|_| invalid())?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => return Err(invalid()),
        };
        let authority = uri.authority().ok_or_else(invalid)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if host.is_empty() {
            return Err(invalid());
        }
        let behind_host =
            authority.as_str().rsplit('@').next().unwrap_or_default()[authority.host().len()..].to_owned();
        let port = match behind_host.as_str() {
            "" | ":" => scheme.default_port(),
            port => port.trim_start_matches(':').parse().map_err(|_| invalid())?,
        };
        let user = authority.as_str().rsplit_once('@').map(|(user, _)| user.to_owned());
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Url { origin: Origin { scheme, host, port }, target, user })
    }

    /// A server's top, from `host[:port]`.
    pub(crate) fn of_host(scheme: Scheme, host: &str) -> Result<Url, UrlError> {
        Url::parse(&format!("{}://{host}/", scheme.name()))
    }

    /// What a `Location` means that was found here.
    pub(crate) fn join(&self, location: &str) -> Result<Url, UrlError> {
        if location.contains("://") {
            return Url::parse(location);
        }
        let base = format!("{}://{}", self.origin.scheme.name(), self.origin.authority());
        if let Some(rest) = location.strip_prefix("//") {
            return Url::parse(&format!("{}://{rest}", self.origin.scheme.name()));
        }
        if location.starts_with('/') {
            return Url::parse(&format!("{base}{location}"));
        }
        if location.starts_with('?') {
            return Url::parse(&format!("{base}{}{location}", self.path()));
        }
        let folder = self.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        Url::parse(&format!("{base}{folder}/{location}"))
    }

    /// Another path on this server, below the path of this address.
    pub(crate) fn below(&self, path: &str) -> Url {
        let target = format!("{}/{}", self.path().trim_end_matches('/'), path.trim_start_matches('/'));
        Url { target, ..self.clone() }
    }

    /// The same with one more parameter.
    pub(crate) fn with_query(mut self, key: &str, value: &str) -> Url {
        self.target.push(if self.target.contains('?') { '&' } else { '?' });
        self.target.push_str(&form_pair(key, value));
        self
    }

    /// The same server under another scheme; a usual port becomes the other usual port.
    pub(crate) fn with_scheme(&self, scheme: Scheme) -> Url {
        let mut url = self.clone();
        if url.origin.port == url.origin.scheme.default_port() {
            url.origin.port = scheme.default_port();
        }
        url.origin.scheme = scheme;
        url
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.origin.scheme
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Path and query.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// `user:password` as they stood in the address.
    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// Secrets stay out of messages: what stood before the `@` is not shown, nor are signatures in queries.
impl fmt::Display for Url {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}{}", self.origin.scheme.name(), self.origin.authority(), self.path())?;
        if self.target.contains('?') { formatter.write_str("?…") } else { Ok(()) }
    }
}

/// Escapes everything that could mean something in a query.
fn encode(text: &str, out: &mut String) {
    const HEX_DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX_DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(HEX_DIGITS[usize::from(byte & 15)]));
        }
    }
}

/// `key=value`, as forms have it.
pub(crate) fn form_pair(key: &str, value: &str) -> String {
    let mut pair = String::new();
    encode(key, &mut pair);
    pair.push('=');
    encode(value, &mut pair);
    pair
}

/// The opposite, for what stands before an `@`.
pub fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = |offset: usize| bytes.get(at + offset).and_then(|byte| char::from(*byte).to_digit(16));
        match (bytes[at], digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(url: &Url) -> String {
        format!("{}://{}{}", url.scheme().name(), url.origin().authority(), url.target())
    }

    #[test]
    fn addresses_are_read() {
        for (text, authority, target) in [
            ("https://h", "h", "/"),
            ("https://H:443/v2/", "h", "/v2/"),
            ("http://h:5000/a?b=c", "h:5000", "/a?b=c"),
            ("http://[::1]:5000/", "[::1]:5000", "/"),
            ("http://u:p@h/x#y", "h", "/x"),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.origin().authority().as_str(), url.target()), (authority, target), "{text}");
        }
        for text in ["", "h", "ftp://h/", "https://", "https:///x", "https://h:99999/", "https://h x/"] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
        assert_eq!(Url::parse("http://u:p%40@h/x").unwrap().user().map(decode).as_deref(), Some("u:p@"));
    }

    #[test]
    fn locations_are_joined() {
        let base = Url::parse("https://h:5000/v2/a/blobs/uploads/?x=1").unwrap();
        for (location, expected) in [
            ("/v2/a/u?s=1", "https://h:5000/v2/a/u?s=1"),
            ("u", "https://h:5000/v2/a/blobs/uploads/u"),
            ("?y", "https://h:5000/v2/a/blobs/uploads/?y"),
            ("//other/u", "https://other/u"),
            ("http://other/u", "http://other/u"),
        ] {
            assert_eq!(whole(&base.join(location).unwrap()), expected, "{location}");
        }
    }

    #[test]
    fn parts_are_changed() {
        let url = Url::parse("https://h/prefix/").unwrap();
        assert_eq!(whole(&url.below("v2/a")), "https://h/prefix/v2/a");
        assert_eq!(
            whole(&url.below("v2/").with_query("n", "a b&c").with_query("m", "1")),
            "https://h/prefix/v2/?n=a%20b%26c&m=1"
        );
        assert_eq!(whole(&url.with_scheme(Scheme::Http)), "http://h/prefix/");
        let url = Url::parse("https://h:5000/").unwrap();
        assert_eq!(whole(&url.with_scheme(Scheme::Http)), "http://h:5000/");
    }

    #[test]
    fn secrets_are_not_shown() {
        let url = Url::parse("https://user:secret@h/a?signature=secret").unwrap();
        assert_eq!(url.to_string(), "https://h/a?…");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,60}", location in ".{0,60}") {
            let _ = Url::parse(&text);
            let _ = Url::parse("https://h/a/b").unwrap().join(&location);
            let _ = decode(&text);
        }
    }
}
