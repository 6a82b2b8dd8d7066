//! Proxies, as the environment names them.

use std::net::IpAddr;

use base64::Engine as _;

use crate::url::{Origin, Scheme, Url, decode};

/// Which servers are reached through which proxy.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    http: Option<Url>,
    https: Option<Url>,
    exceptions: Vec<String>,
}

impl Proxies {
    /// Reads `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, or the same in lower case, from `variable`.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Proxies {
        let either = |name: &str| {
            let value = variable(name).or_else(|| variable(&name.to_ascii_lowercase()));
            value.filter(|value| !value.is_empty())
        };
        let proxy = |name: &str| {
            let value = either(name)?;
            let url = if value.contains("://") { Url::parse(&value) } else { Url::parse(&format!("http://{value}")) };
            match url {
                Ok(url) => Some(url),
                Err(error) => {
                    tracing::warn!("{name} is ignored: {error}");
                    None
                }
            }
        };
        let exceptions = either("NO_PROXY").unwrap_or_default();
        Proxies {
            http: proxy("HTTP_PROXY"),
            https: proxy("HTTPS_PROXY"),
            exceptions: exceptions
                .split(',')
                .map(|rule| rule.trim().to_ascii_lowercase())
                .filter(|rule| !rule.is_empty())
                .collect(),
        }
    }

    /// The proxy on the way to a server. This machine is never reached through one.
    pub(crate) fn of(&self, origin: &Origin) -> Option<&Url> {
        let proxy = match origin.scheme {
            Scheme::Http => self.http.as_ref(),
            Scheme::Https => self.https.as_ref(),
        };
        proxy.filter(|_| !is_local(&origin.host) && !self.exceptions.iter().any(|rule| excepts(rule, origin)))
    }
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether one word of `NO_PROXY` means a server: `*`, a name and all below it, `.name`, an address, a network, each with or
/// without a port.
fn excepts(rule: &str, origin: &Origin) -> bool {
    if rule == "*" || rule == origin.host || rule == origin.host_and_port() {
        return true;
    }
    if rule.contains('/') {
        return crate::Insecure::parse(rule).is_ok_and(|network| network.covers_host(&origin.host));
    }
    let name = match rule.rsplit_once(':') {
        Some((name, port)) if port.parse() == Ok(origin.port) => name,
        Some(_) => return false,
        None => rule,
    };
    let name = name.trim_start_matches("*.").trim_start_matches('.');
    let is_below = origin.host.strip_suffix(name).is_some_and(|front| front.ends_with('.'));
    origin.host == name && !rule.starts_with('.') || is_below
}

/// What a proxy is told about who asks.
pub(crate) fn authorization(proxy: &Url) -> Option<String> {
    let user = decode(proxy.user()?);
    Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(user)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::read(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    fn way(proxies: &Proxies, url: &str) -> String {
        proxies.of(Url::parse(url).unwrap().origin()).map_or_else(|| "direct".to_owned(), ToString::to_string)
    }

    #[test]
    fn the_environment_names_proxies() {
        let proxies = proxies(&[("HTTP_PROXY", "p:3128"), ("https_proxy", "http://u:p@q:1"), ("NO_PROXY", "")]);
        assert_eq!(way(&proxies, "http://h/"), "http://p:3128/");
        assert_eq!(way(&proxies, "https://h/"), "http://q:1/");
        assert_eq!(way(&proxies, "https://127.0.0.9/"), "direct");
        assert_eq!(way(&proxies, "http://localhost:5000/"), "direct");
        assert_eq!(authorization(&Url::parse("http://u:p@q").unwrap()).as_deref(), Some("Basic dTpw"));
    }

    #[test]
    fn exceptions_are_names_addresses_and_networks() {
        let rules = "a.example,.b.example,*.c.example,d:5000,10.0.0.0/8, 9.9.9.9,[::2]";
        let proxies = proxies(&[("HTTPS_PROXY", "p"), ("no_proxy", rules)]);
        for (host, direct) in [
            ("a.example", true),
            ("x.a.example", true),
            ("xa.example", false),
            ("b.example", false),
            ("x.b.example", true),
            ("x.c.example", true),
            ("d:5000", true),
            ("d", false),
            ("10.1.2.3", true),
            ("11.1.2.3", false),
            ("9.9.9.9:7", true),
        ] {
            assert_eq!(way(&proxies, &format!("https://{host}/")) == "direct", direct, "{host}");
        }
        assert_eq!(way(&super::tests::proxies(&[("HTTPS_PROXY", "p"), ("NO_PROXY", "*")]), "https://h/"), "direct");
    }
}
