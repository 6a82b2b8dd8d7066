//! The daemon's options.

use std::path::PathBuf;
use std::time::Duration;

use api_server::{Address, ScopedSocket, SocketGroup};
use engine::model::LabelFilter;
use engine::{
    EngineOptions, Insecure, Mirror, NetworkOptions, PublishPolicy, RegistryOptions, RuntimeOptions, SpaceOptions,
    StorageBackend,
};
use lexopt::{Arg, ValueExt as _};
use tracing::Level;

/// What `conex daemon --help` says.
pub(super) const HELP: &str = "\
Run the engine in the foreground

Usage: conex daemon [OPTIONS]

Options:
      --root DIR               What is kept (default /var/lib/conex)
      --run DIR                What does not outlive the machine (default /run/conex)
      --name NAME              Bridges, nftables table and cgroup parent are called after it (default conex)
  -H, --host ADDRESS           Listen on unix:///PATH or tcp://HOST:PORT; may be repeated (default unix://<run>/conex.sock)
      --socket PATH,allow=AREA:VERB[,allow=...][,label=KEY[=VALUE]][,group=GROUP]
                               Listen there for clients with fewer rights; may be repeated. Areas and verbs: containers (read, write,
                               exec), images, networks, volumes (read, write), system (read); * is every verb. With a label nothing
                               else can be seen or used, and what is made gets it
      --audit-log FILE         Write down every request: who, what, and what came of it, one line of JSON each
      --metrics-addr HOST:PORT Serve GET /metrics in Prometheus' format there, to everybody; it is on the sockets in any case
      --group GROUP            The group that may use the sockets (default docker, else conex)
      --log-level LEVEL        error, warn, info, debug or trace (default info)
      --storage-backend KIND   auto, erofs, erofs-loop or directories (default auto)
      --bridge-subnet SUBNET   The default bridge's network, such as 172.17.0.0/16 (default: one that is free)
      --ipv6                   Give the default bridge IPv6, from the engine's own unique local addresses
      --bridge-subnet6 SUBNET  The same from this network, such as 2001:db8:1::/64 (also --fixed-cidr-v6)
      --publish-policy POLICY  Who reaches published ports: open, everybody who reaches the host (default), or host, whom the host's own
                               firewall lets in
      --runtime FILE           The conex-runtime program (default: beside this program)
      --add-runtime NAME=PATH  Another OCI runtime for containers; may be repeated (runc and crun are known where they are installed)
      --default-runtime NAME   The runtime of containers that ask for none (default conex)
      --insecure-registry REG  HOST[:PORT] or network whose registries need no TLS, or no valid certificate; may be repeated
      --registry-mirror URL    Ask this server before Docker Hub, or with NAME=URL before the registry NAME; may be repeated
      --registry-certs DIR     Certificates as DIR/HOST[:PORT]/*.{crt,cert,key}; may be repeated
                               (default /etc/conex/certs.d and /etc/docker/certs.d)
      --image-policy FILE      Which images may be pulled and run, by registry and repository, as containers-policy.json(5) has it:
                               insecureAcceptAnything, reject, sigstoreSigned with keys (default: all)
      --cdi-spec-dir DIR       Where device vendors describe their devices; may be repeated, the last goes before the others
                               (default /etc/cdi and /run/cdi)
      --storage-budget SIZE    Remove unused images and build cache, those that were used longest ago first, when the file system of --root
                               is fuller than SIZE (80%), or when they take more than SIZE (20GB, 20GiB) (default: remove nothing)
      --storage-min-age TIME   Never remove by itself what came or was used within TIME, such as 30s, 10m or 24h (default 10m)
      --pin-label KEY[=VALUE]  Never remove by itself images with this label; may be repeated
      --userns-remap USER      Give containers the subordinate ids of USER[:GROUP] (default: those of dockremap), so that root in them is not root
      --tlscacert FILE         Accept TCP clients with a certificate of this authority
      --tlscert FILE           The certificate to show to TCP clients
      --tlskey FILE            Its key
      --tlsverify              Same as giving --tlscacert: clients must show a certificate
      --insecure               Accept everybody on TCP; whoever can connect is root on this machine
  -h, --help                   Show this help
";

/// Everything that the command line says.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) engine: EngineOptions,
    pub(super) addresses: Vec<Address>,
    pub(super) metrics: Option<String>,
    pub(super) sockets: Vec<ScopedSocket>,
    pub(super) audit_log: Option<PathBuf>,
    pub(super) group: SocketGroup,
    pub(super) log_level: Level,
    pub(super) tls: Tls,
    pub(super) insecure: bool,
}

/// The files for TLS.
#[derive(Debug, Default)]
pub(super) struct Tls {
    pub(super) authority: Option<PathBuf>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

/// What was asked for.
#[derive(Debug)]
pub(super) enum Asked {
    Run(Box<Options>),
    Help,
}

/// Why the options are refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum OptionsError {
    #[error(transparent)]
    Syntax(#[from] lexopt::Error),
    #[error(transparent)]
    Address(#[from] api_server::AddressError),
    #[error(transparent)]
    Scope(#[from] api_server::ScopeError),
    #[error("{0}")]
    Engine(String),
    #[error("unknown log level '{0}': use error, warn, info, debug or trace")]
    LogLevel(String),
    #[error("invalid name '{0}': at most 32 of a-z, 0-9 and -, beginning with a letter")]
    Name(String),
    #[error("invalid duration '{0}': a number of s, m or h is expected, such as 30s, 10m or 24h")]
    Duration(String),
    #[error("invalid --metrics-addr '{0}': HOST:PORT is expected, such as 127.0.0.1:9323")]
    Metrics(String),
    #[error("unknown publish policy '{0}': use open or host")]
    PublishPolicy(String),
    #[error("{0} must be an absolute path")]
    Relative(PathBuf),
    #[error("cannot find conex-runtime beside this program; say where it is with --runtime")]
    NoRuntime,
    #[error("a tcp:// address needs --tlscacert, --tlscert and --tlskey, or --insecure")]
    Unprotected,
}

/// Reads the options.
pub(super) fn parse(words: &[String]) -> Result<Asked, OptionsError> {
    let mut given = Given::default();
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Asked::Help),
            Arg::Short('H') | Arg::Long("host") => given.addresses.push(text(&mut parser)?.parse()?),
            Arg::Long("root") => given.root = Some(path(&mut parser)?),
            Arg::Long("run") => given.run = Some(path(&mut parser)?),
            Arg::Long("name") => given.name = Some(name(text(&mut parser)?)?),
            Arg::Long("socket") => given.sockets.push(text(&mut parser)?.parse()?),
            Arg::Long("audit-log") => given.audit_log = Some(path(&mut parser)?),
            Arg::Long("metrics-addr") => given.metrics = Some(metrics_address(text(&mut parser)?)?),
            Arg::Long("group") => given.group = SocketGroup::Named(text(&mut parser)?),
            Arg::Long("log-level") => given.log_level = Some(level(&text(&mut parser)?)?),
            Arg::Long("storage-backend") => given.storage = storage(&text(&mut parser)?)?,
            Arg::Long("bridge-subnet") => given.subnet = Some(text(&mut parser)?),
            Arg::Long("ipv6") => given.ipv6 = true,
            Arg::Long("bridge-subnet6" | "fixed-cidr-v6") => given.subnet6 = Some(text(&mut parser)?),
            Arg::Long("publish-policy") => given.publish_policy = publish_policy(&text(&mut parser)?)?,
            Arg::Long("runtime") => given.runtime = Some(path(&mut parser)?),
            Arg::Long("add-runtime") => given.runtimes.add(&text(&mut parser)?).map_err(engine_error)?,
            Arg::Long("default-runtime") => given.runtimes.default = Some(text(&mut parser)?),
            Arg::Long("insecure-registry") => given.registries.insecure.push(insecure(&text(&mut parser)?)?),
            Arg::Long("registry-mirror") => given.registries.mirrors.push(mirror(&text(&mut parser)?)?),
            Arg::Long("registry-certs") => given.registries.certificates.push(path(&mut parser)?),
            Arg::Long("image-policy") => given.image_policy = Some(path(&mut parser)?),
            Arg::Long("cdi-spec-dir") => given.cdi_spec_dirs.push(path(&mut parser)?),
            Arg::Long("storage-budget") => {
                given.space.budget = Some(text(&mut parser)?.parse().map_err(engine_error)?);
            }
            Arg::Long("storage-min-age") => given.space.min_age = duration(&text(&mut parser)?)?,
            Arg::Long("pin-label") => given.space.pin_labels.push(LabelFilter::parse(&text(&mut parser)?)),
            Arg::Long("userns-remap") => given.userns_remap = Some(text(&mut parser)?),
            Arg::Long("tlscacert") => given.tls.authority = Some(path(&mut parser)?),
            Arg::Long("tlscert") => given.tls.certificate = Some(path(&mut parser)?),
            Arg::Long("tlskey") => given.tls.key = Some(path(&mut parser)?),
            Arg::Long("tlsverify") => given.verify = true,
            Arg::Long("insecure") => given.insecure = true,
            other => return Err(other.unexpected().into()),
        }
    }
    given.complete().map(|options| Asked::Run(Box::new(options)))
}

/// What was found so far.
#[derive(Debug, Default)]
struct Given {
    addresses: Vec<Address>,
    metrics: Option<String>,
    sockets: Vec<ScopedSocket>,
    audit_log: Option<PathBuf>,
    root: Option<PathBuf>,
    run: Option<PathBuf>,
    name: Option<String>,
    group: SocketGroup,
    log_level: Option<Level>,
    storage: StorageBackend,
    subnet: Option<String>,
    subnet6: Option<String>,
    ipv6: bool,
    publish_policy: PublishPolicy,
    runtime: Option<PathBuf>,
    runtimes: RuntimeOptions,
    registries: RegistryOptions,
    space: SpaceOptions,
    image_policy: Option<PathBuf>,
    cdi_spec_dirs: Vec<PathBuf>,
    userns_remap: Option<String>,
    tls: Tls,
    verify: bool,
    insecure: bool,
}

impl Given {
    fn complete(self) -> Result<Options, OptionsError> {
        let run = self.run.unwrap_or_else(|| "/run/conex".into());
        let addresses =
            if self.addresses.is_empty() { vec![Address::Unix(run.join("conex.sock"))] } else { self.addresses };
        let has_tcp = addresses.iter().any(|address| matches!(address, Address::Tcp(_)));
        let has_tls = self.tls.authority.is_some() && self.tls.certificate.is_some() && self.tls.key.is_some();
        if (has_tcp || self.verify) && !has_tls && !self.insecure {
            return Err(OptionsError::Unprotected);
        }
        Ok(Options {
            engine: EngineOptions {
                root: self.root.unwrap_or_else(|| "/var/lib/conex".into()),
                run,
                name: self.name.unwrap_or_else(|| "conex".into()),
                storage: self.storage,
                registries: with_usual_certificates(self.registries),
                network: NetworkOptions {
                    bridge_subnet: self.subnet,
                    bridge_subnet6: self.subnet6.or_else(|| self.ipv6.then(|| "auto".to_owned())),
                    publish_policy: self.publish_policy,
                },
                runtime: match self.runtime {
                    Some(runtime) => runtime,
                    None => beside().ok_or(OptionsError::NoRuntime)?,
                },
                runtimes: self.runtimes,
                userns_remap: self.userns_remap,
                space: self.space,
                image_policy: self.image_policy,
                cdi_spec_dirs: match self.cdi_spec_dirs.is_empty() {
                    true => ["/etc/cdi", "/run/cdi"].map(PathBuf::from).to_vec(),
                    false => self.cdi_spec_dirs,
                },
            },
            addresses,
            metrics: self.metrics,
            sockets: self.sockets,
            audit_log: self.audit_log,
            group: self.group,
            log_level: self.log_level.unwrap_or(Level::INFO),
            tls: self.tls,
            insecure: self.insecure,
        })
    }
}

fn text(parser: &mut lexopt::Parser) -> Result<String, OptionsError> {
    Ok(parser.value()?.string()?)
}

fn path(parser: &mut lexopt::Parser) -> Result<PathBuf, OptionsError> {
    let path = PathBuf::from(parser.value()?);
    if path.is_absolute() { Ok(path) } else { Err(OptionsError::Relative(path)) }
}

/// `HOST:PORT`, where both are there.
fn metrics_address(text: String) -> Result<String, OptionsError> {
    let is_address = text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if is_address { Ok(text) } else { Err(OptionsError::Metrics(text)) }
}

/// Names of interfaces, tables, cgroups and files are made from it; what does not fit into one is shortened there.
fn name(text: String) -> Result<String, OptionsError> {
    let fits = (1..=32).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && text.starts_with(|first: char| first.is_ascii_lowercase());
    if fits { Ok(text) } else { Err(OptionsError::Name(text)) }
}

/// A number and `s`, `m` or `h`.
fn duration(text: &str) -> Result<Duration, OptionsError> {
    let refused = || OptionsError::Duration(text.to_owned());
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(refused)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(refused()),
    };
    let number: u64 = number.parse().map_err(|_| refused())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(refused)
}

fn level(text: &str) -> Result<Level, OptionsError> {
    text.parse().map_err(|_| OptionsError::LogLevel(text.to_owned()))
}

fn storage(text: &str) -> Result<StorageBackend, OptionsError> {
    StorageBackend::parse(text).map_err(engine_error)
}

fn publish_policy(text: &str) -> Result<PublishPolicy, OptionsError> {
    match text {
        "open" => Ok(PublishPolicy::Open),
        "host" => Ok(PublishPolicy::Host),
        _ => Err(OptionsError::PublishPolicy(text.to_owned())),
    }
}

fn engine_error(error: engine::model::EngineError) -> OptionsError {
    OptionsError::Engine(error.to_string())
}

fn insecure(text: &str) -> Result<Insecure, OptionsError> {
    Insecure::parse(text).map_err(|error| OptionsError::Engine(error.to_string()))
}

fn mirror(text: &str) -> Result<Mirror, OptionsError> {
    Mirror::parse(text).map_err(|error| OptionsError::Engine(error.to_string()))
}

/// Where certificates are unless somebody says otherwise: our own folder, and the one that Docker's users have.
fn with_usual_certificates(mut registries: RegistryOptions) -> RegistryOptions {
    if registries.certificates.is_empty() {
        registries.certificates = ["/etc/conex/certs.d", "/etc/docker/certs.d"].map(PathBuf::from).to_vec();
    }
    registries
}

/// `conex-runtime` in the folder of this program.
fn beside() -> Option<PathBuf> {
    let runtime = std::env::current_exe().ok()?.with_file_name("conex-runtime");
    runtime.is_file().then_some(runtime)
}

#[cfg(test)]
mod tests {
    use super::{Asked, Options, parse};

    fn options(words: &str) -> Result<Options, String> {
        let words: Vec<String> =
            words.split_whitespace().map(str::to_owned).chain(["--runtime=/bin/true".to_owned()]).collect();
        match parse(&words).map_err(|error| error.to_string())? {
            Asked::Run(options) => Ok(*options),
            Asked::Help => Err("help".into()),
        }
    }

    #[test]
    fn defaults_hang_together() {
        let options = options("--run /tmp/r").unwrap();
        assert_eq!(options.addresses[0].to_string(), "unix:///tmp/r/conex.sock");
        assert_eq!((options.engine.name.as_str(), options.engine.root.to_str().unwrap()), ("conex", "/var/lib/conex"));
    }

    #[test]
    fn tcp_needs_protection() {
        assert!(options("-H tcp://127.0.0.1:1").unwrap_err().contains("--insecure"));
        assert!(options("-H tcp://127.0.0.1:1 --tlscacert /a --tlscert /b --tlskey /c").is_ok());
        assert!(options("-H tcp://127.0.0.1:1 --insecure").unwrap().insecure);
    }

    #[test]
    fn wrong_options_are_named() {
        for (words, message) in [
            ("--bogus", "--bogus"),
            ("--root relative", "absolute"),
            ("--name Upper", "invalid name"),
            ("--name way_too_long", "invalid name"),
            ("--log-level loud", "log level"),
            ("--storage-backend x", "storage backend"),
            ("--publish-policy x", "publish policy"),
            ("--add-runtime x", "invalid runtime argument: x"),
            ("--add-runtime x=/a --add-runtime x=/b", "already defined"),
            ("-H ftp://x", "cannot listen"),
            ("--socket /x,allow=pods:read", "no right"),
            ("--metrics-addr 9323", "HOST:PORT"),
            ("--insecure-registry http://x", "invalid insecure registry"),
            ("--registry-mirror x", "invalid registry mirror"),
        ] {
            assert!(options(words).unwrap_err().contains(message), "{words}");
        }
    }
}
