//! From a name's registry to the servers that may have it.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci::Reference;

use crate::url::{Origin, Scheme, Url, UrlError};

const DOCKER_HUB: &str = "docker.io";
/// The server behind `docker.io`.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
/// For the addresses of a name.
const LOOKUP_LIMIT: Duration = Duration::from_secs(15);

/// A registry that may be spoken to without proof of who it is: over TLS with any certificate, or in the clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Insecure {
    /// `host` or `host:port`, as it stands in names of images.
    Host(String),
    /// Addresses: the first `bits` bits are those of `network`.
    Network {
        /// The first address.
        network: IpAddr,
        /// How many bits count.
        bits: u8,
    },
}

/// A text that is no [`Insecure`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid insecure registry {0:?}: HOST[:PORT] or a network such as 10.0.0.0/8 is expected")]
pub struct InsecureError(String);

/// As it was written.
impl fmt::Display for Insecure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Insecure::Host(host) => formatter.write_str(host),
            Insecure::Network { network, bits } => write!(formatter, "{network}/{bits}"),
        }
    }
}

impl Insecure {
    /// Reads `host`, `host:port` or `address/bits`.
    pub fn parse(text: &str) -> Result<Self, InsecureError> {
        let refused = || InsecureError(text.to_owned());
        let Some((address, bits)) = text.split_once('/') else {
            let is_name = Url::of_host(Scheme::Https, text).is_ok() && !text.contains("://") && !text.contains('@');
            let is_host = is_name || text.parse::<IpAddr>().is_ok();
            return if is_host { Ok(Insecure::Host(text.to_ascii_lowercase())) } else { Err(refused()) };
        };
        let network: IpAddr = address.parse().map_err(|_| refused())?;
        let bits: u8 = bits.parse().map_err(|_| refused())?;
        let most = if network.is_ipv4() { 32 } else { 128 };
        if bits <= most { Ok(Insecure::Network { network, bits }) } else { Err(refused()) }
    }

    fn covers(&self, url: &Url) -> bool {
        match self {
            Insecure::Host(host) if host.contains(':') && host.parse::<IpAddr>().is_err() => {
                *host == url.origin().host_and_port()
            }
            Insecure::Host(host) => *host == url.origin().host,
            Insecure::Network { .. } => self.covers_host(&url.origin().host),
        }
    }

    /// Whether a network has the address that `host` is.
    pub(crate) fn covers_host(&self, host: &str) -> bool {
        match self {
            Insecure::Host(_) => false,
            Insecure::Network { network, bits } => {
                host.parse().is_ok_and(|address| has_prefix(address, *network, *bits))
            }
        }
    }
}

fn has_prefix(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let shift = |width: u8| u32::from(width - bits.min(width));
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => (u64::from(a.to_bits()) ^ u64::from(n.to_bits())) >> shift(32) == 0,
        (IpAddr::V6(a), IpAddr::V6(n)) => (a.to_bits() ^ n.to_bits()).checked_shr(shift(128)).unwrap_or(0) == 0,
        _ => false,
    }
}

/// Another server that has what a registry has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The registry, as it stands in names: `docker.io`, `ghcr.io`.
    pub registry: String,
    /// The mirror; a name and password in it are for the mirror alone.
    pub url: Url,
}

/// A text that is no [`Mirror`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid registry mirror {text:?}: URL, or REGISTRY=URL, is expected")]
pub struct MirrorError {
    text: String,
    source: UrlError,
}

impl Mirror {
    /// Reads `REGISTRY=URL`, or a URL alone for a mirror of Docker Hub.
    pub fn parse(text: &str) -> Result<Self, MirrorError> {
        let (registry, url) = match text.split_once('=') {
            Some((registry, url)) if !registry.contains("://") => (registry, url),
            _ => (DOCKER_HUB, text),
        };
        let url = Url::parse(url).map_err(|source| MirrorError { text: text.to_owned(), source })?;
        Ok(Mirror { registry: registry.to_ascii_lowercase(), url })
    }
}

/// Whether a server must prove who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Trust {
    /// It must.
    Proven,
    /// Any certificate, or none.
    Anybody,
}

/// One server to ask about a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its top; what `/v2/` hangs below.
    pub(crate) base: Url,
    pub(crate) trust: Trust,
    /// Whether it is the registry itself and gets its credentials.
    pub(crate) role: Role,
}

/// What an endpoint is to the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A mirror, which has only what it was asked for before, and is never told secrets.
    Mirror,
    /// The registry itself.
    Registry,
}

impl Endpoint {
    /// What it is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its address.
    pub fn url(&self) -> &Url {
        &self.base
    }
}

/// How registries are reached; all of it may be empty.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Registries that need not prove themselves, besides those of this machine (127.0.0.0/8, ::1, localhost).
    pub insecure: Vec<Insecure>,
    /// Mirrors, in the order in which they are asked.
    pub mirrors: Vec<Mirror>,
    /// Folders of `HOST[:PORT]/{*.crt,*.cert,*.key}`, as `/etc/docker/certs.d`.
    pub certificates: Vec<PathBuf>,
}

impl Places {
    /// The servers that may have what `reference` names, in the order in which to ask.
    pub fn to_pull(&self, reference: &Reference) -> Result<Vec<Endpoint>, UrlError> {
        let domain = reference.domain();
        let mirrors = self.mirrors.iter().filter(|mirror| mirror.registry == domain);
        let mut endpoints: Vec<Endpoint> =
            mirrors.map(|mirror| self.endpoint(mirror.url.clone(), Role::Mirror)).collect();
        endpoints.push(self.to_push(reference)?);
        Ok(endpoints)
    }

    /// The registry itself.
    pub fn to_push(&self, reference: &Reference) -> Result<Endpoint, UrlError> {
        self.registry(reference.domain())
    }

    /// The registry of this name, `host[:port]`.
    pub fn registry(&self, domain: &str) -> Result<Endpoint, UrlError> {
        let host = if is_docker_hub(domain) { DOCKER_HUB_HOST } else { domain };
        Url::of_host(Scheme::Https, host).map(|url| self.endpoint(url, Role::Registry))
    }

    fn endpoint(&self, base: Url, role: Role) -> Endpoint {
        let trust = if base.scheme() == Scheme::Http { Trust::Anybody } else { self.trust(&base) };
        Endpoint { base, trust, role }
    }

    /// What rules say about a server without asking anybody; a rule for networks may still cover the addresses of its name.
    pub(crate) fn trust(&self, url: &Url) -> Trust {
        let is_local = match url.origin().host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => url.origin().host == "localhost",
        };
        if is_local || self.insecure.iter().any(|insecure| insecure.covers(url)) {
            Trust::Anybody
        } else {
            Trust::Proven
        }
    }
}

impl Endpoint {
    /// Where its name leads if that is in networks of which no proof is wanted, or on this machine; nothing otherwise. Docker trusts it
    /// then, wherever else the name leads. Here it is spoken to at these addresses alone: who answers for the name cannot say one
    /// address to be trusted, and another to be connected to. Docker Hub always has to prove itself.
    pub(crate) async fn covered_addresses(&self, places: &Places) -> Vec<IpAddr> {
        let Origin { host, port, .. } = self.base.origin();
        let is_name = host.parse::<IpAddr>().is_err();
        if self.trust == Trust::Anybody || !is_name || is_docker_hub(host) {
            return Vec::new();
        }
        let looking_up = tokio::time::timeout(LOOKUP_LIMIT, tokio::net::lookup_host((host.as_str(), *port)));
        // A name without an address cannot be connected to either, which is when it is told.
        let Ok(Ok(addresses)) = looking_up.await else { return Vec::new() };
        addresses.map(|address| address.ip()).filter(|address| places.covers_address(*address)).collect()
    }
}

impl Places {
    fn covers_address(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.insecure.iter().any(|insecure| insecure.covers_host(&address.to_string()))
    }
}

/// Docker Hub under any of its names.
pub(crate) fn is_docker_hub(domain: &str) -> bool {
    matches!(domain, DOCKER_HUB | "index.docker.io" | DOCKER_HUB_HOST)
}

/// What `HOST[:PORT]` has in one folder of certificates: authorities, and pairs of certificate and key.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct HostFiles {
    pub(crate) authorities: Vec<PathBuf>,
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

impl HostFiles {
    /// What all folders have for a server. A folder that is not there has nothing.
    pub(crate) fn find(folders: &[PathBuf], authority: &str) -> HostFiles {
        let mut found = HostFiles::default();
        for folder in folders {
            found.add(&folder.join(authority));
        }
        found
    }

    fn add(&mut self, folder: &Path) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        for file in files {
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => self.authorities.push(file),
                Some("cert") if self.identity.is_none() => {
                    self.identity = Some((file.clone(), file.with_extension("key")))
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(places: &Places, name: &str) -> Vec<String> {
        let endpoints = places.to_pull(&Reference::parse(name).unwrap()).unwrap();
        endpoints.iter().map(|endpoint| format!("{} {:?} {:?}", endpoint.base, endpoint.trust, endpoint.role)).collect()
    }

    #[test]
    fn names_lead_to_servers() {
        let places = Places {
            mirrors: vec![
                Mirror::parse("http://10.0.0.1:5000/hub").unwrap(),
                Mirror::parse("ghcr.io=https://m").unwrap(),
            ],
            insecure: vec![Insecure::parse("10.9.0.0/16").unwrap(), Insecure::parse("plain:5000").unwrap()],
            ..Places::default()
        };
        assert_eq!(
            servers(&places, "alpine"),
            ["http://10.0.0.1:5000/hub Anybody Mirror", "https://registry-1.docker.io/ Proven Registry"]
        );
        assert_eq!(servers(&places, "ghcr.io/a/b"), ["https://m/ Proven Mirror", "https://ghcr.io/ Proven Registry"]);
        for (name, expected) in [
            ("127.0.0.1:5000/a", "https://127.0.0.1:5000/ Anybody Registry"),
            ("[::1]:5000/a", "https://[::1]:5000/ Anybody Registry"),
            ("localhost/a", "https://localhost/ Anybody Registry"),
            ("10.9.1.1/a", "https://10.9.1.1/ Anybody Registry"),
            ("10.8.1.1/a", "https://10.8.1.1/ Proven Registry"),
            ("plain:5000/a", "https://plain:5000/ Anybody Registry"),
            ("plain:5001/a", "https://plain:5001/ Proven Registry"),
            ("quay.io/a/b", "https://quay.io/ Proven Registry"),
        ] {
            assert_eq!(servers(&places, name), [expected], "{name}");
        }
    }

    #[tokio::test]
    async fn addresses_of_names_count() {
        let covered = async |places: &Places, host: &str| {
            let endpoint = Endpoint { trust: Trust::Proven, ..places.registry(host).unwrap() };
            endpoint.covered_addresses(places).await
        };
        let none = Places::default();
        // The only name with an address on every machine.
        let local = covered(&none, "localhost:5000").await;
        assert!(!local.is_empty() && local.iter().all(IpAddr::is_loopback));
        for host in ["name.invalid:5000", "10.9.1.1:5000", "docker.io"] {
            assert_eq!(covered(&none, host).await, [] as [IpAddr; 0], "{host}");
        }
        let places = Places { insecure: vec![Insecure::parse("10.9.0.0/16").unwrap()], ..Places::default() };
        assert!(places.covers_address("10.9.1.1".parse().unwrap()) && places.covers_address("::1".parse().unwrap()));
        assert!(!places.covers_address("10.8.1.1".parse().unwrap()));
    }

    #[test]
    fn rules_are_read_or_refused() {
        assert_eq!(Insecure::parse("Reg:5000"), Ok(Insecure::Host("reg:5000".to_owned())));
        assert_eq!(Insecure::parse("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        for text in ["", "http://h", "10.0.0.0/33", "x/8", "a b", "u@h"] {
            assert!(Insecure::parse(text).is_err(), "{text}");
        }
        let covers =
            |rule: &str, host: &str| Insecure::parse(rule).unwrap().covers(&Url::of_host(Scheme::Https, host).unwrap());
        assert!(covers("0.0.0.0/0", "9.9.9.9") && covers("::/0", "[fe80::1]") && covers("fe80::/10", "[fe80::1]:1"));
        assert!(!covers("fe80::/10", "[fd00::1]") && !covers("::/0", "9.9.9.9") && !covers("0.0.0.0/0", "h"));
        assert!(covers("h", "h:5000") && covers("::1", "[::1]:5000") && !covers("h:1", "h"));
        assert!(Mirror::parse("ghcr.io=nonsense").is_err());
    }

    #[test]
    fn certificates_of_a_host_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let host = folder.path().join("h:5000");
        std::fs::create_dir(&host).unwrap();
        for name in ["ca.crt", "b.crt", "client.cert", "client.key", "note"] {
            std::fs::write(host.join(name), "").unwrap();
        }
        let found = HostFiles::find(&["/does/not/exist".into(), folder.path().into()], "h:5000");
        assert_eq!(found.authorities, [host.join("b.crt"), host.join("ca.crt")]);
        assert_eq!(found.identity, Some((host.join("client.cert"), host.join("client.key"))));
        assert_eq!(HostFiles::find(&[folder.path().into()], "h"), HostFiles::default());
    }
}
