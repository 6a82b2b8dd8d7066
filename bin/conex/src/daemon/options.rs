//! The daemon's options.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use api_server::{Address, ScopedSocket, SocketGroup};
use engine::model::{LabelFilter, LogConfig, Ulimit, parse_size};
use engine::{
    ContainerDefaults, EngineOptions, Insecure, Mirror, NetworkOptions, PublishPolicy, RegistryOptions, Settings,
    SpaceOptions, StorageBackend,
};
use lexopt::{Arg, ValueExt};
use tracing::Level;

use super::config_file;

/// What `conex daemon --help` says.
pub(super) const HELP: &str = "\
Run the engine in the foreground

Usage: conex daemon [OPTIONS]

Options:
      --config-file FILE       Options as JSON, by the names that Docker's daemon.json has for them and those below (default
                               /etc/conex/daemon.json, where it is there); SIGHUP reads it again
      --validate               Check the options and the file, and end
      --root DIR               What is kept (default /var/lib/conex); also --data-root
      --run DIR                What does not outlive the machine (default /run/conex); also --exec-root
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
  -D, --debug                  Same as --log-level debug
      --label KEY[=VALUE]      What info tells of this engine; may be repeated
      --storage-backend KIND   auto, erofs, erofs-loop or directories (default auto)
      --bridge-subnet SUBNET   The default bridge's network, such as 172.17.0.0/16 (default: one that is free)
      --bip ADDRESS/PREFIX     The same by the bridge's own address, the first of its network, such as 172.17.0.1/16
      --mtu BYTES              The default bridge's largest packet (default: the host's)
      --default-address-pool base=SUBNET,size=PREFIX
                               Where networks get subnets that are given none; may be repeated (default: Docker's)
      --dns ADDRESS            A name server of containers that name none; may be repeated (default: the host's)
      --dns-search DOMAIN      A domain that they try; may be repeated
      --dns-opt OPTION         An option of their resolver; may be repeated
      --log-driver DRIVER      Where output goes of containers that name no log driver (default json-file)
      --log-opt KEY=VALUE      An option of that; may be repeated
      --default-ulimit NAME=SOFT[:HARD]
                               A limit of containers that have no such limit of their own; may be repeated
      --default-shm-size SIZE  /dev/shm of containers that ask for no size (default 64MiB)
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
    /// What the configuration file says.
    pub(super) file: config_file::Read,
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
    /// Only to be looked at, and they are right.
    Valid,
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
    #[error("{0}")]
    Value(String),
    #[error("invalid boolean value \"{1}\" for --{0}")]
    Switch(&'static str, String),
    #[error("invalid --bip '{0}': the bridge has the first address of its network, {1}")]
    BridgeAddress(String, String),
    #[error("unable to configure the daemon with file {}", file.display())]
    File { file: PathBuf, source: config_file::FileError },
    #[error("unable to configure the daemon with file {}", file.display())]
    InFile { file: PathBuf, source: Box<OptionsError> },
    #[error("a tcp:// address needs --tlscacert, --tlscert and --tlskey, or --insecure")]
    Unprotected,
}

/// How often a flag may be given, and what JSON says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Once: a text, or a number.
    Text,
    /// Given or not: true or false.
    Switch,
    /// As often as one likes: a list of texts.
    List,
    /// `KEY=VALUE`, as often as one likes: an object of texts.
    Map,
    /// `base=SUBNET,size=PREFIX`: a list of objects with these keys.
    Pools,
    /// `NAME=SOFT:HARD`: objects with `Name`, `Soft` and `Hard`, by name.
    Ulimits,
    /// `NAME=PATH`: objects with `path`, by name.
    Runtimes,
}

/// A flag: its name, what a configuration file calls it, and its shape.
#[derive(Debug)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) directive: &'static str,
    pub(super) shape: Shape,
}

const fn flag(name: &'static str, directive: &'static str, shape: Shape) -> Flag {
    Flag { name, directive, shape }
}

/// All flags. Directives are Docker's where Docker has them.
pub(super) const FLAGS: &[Flag] = &[
    flag("host", "hosts", Shape::List),
    flag("root", "data-root", Shape::Text),
    flag("run", "exec-root", Shape::Text),
    flag("name", "name", Shape::Text),
    flag("socket", "sockets", Shape::List),
    flag("audit-log", "audit-log", Shape::Text),
    flag("metrics-addr", "metrics-addr", Shape::Text),
    flag("group", "group", Shape::Text),
    flag("log-level", "log-level", Shape::Text),
    flag("debug", "debug", Shape::Switch),
    flag("label", "labels", Shape::List),
    flag("storage-backend", "storage-backend", Shape::Text),
    flag("bridge-subnet", "bridge-subnet", Shape::Text),
    flag("bip", "bip", Shape::Text),
    flag("ipv6", "ipv6", Shape::Switch),
    flag("bridge-subnet6", "fixed-cidr-v6", Shape::Text),
    flag("mtu", "mtu", Shape::Text),
    flag("default-address-pool", "default-address-pools", Shape::Pools),
    flag("publish-policy", "publish-policy", Shape::Text),
    flag("dns", "dns", Shape::List),
    flag("dns-search", "dns-search", Shape::List),
    flag("dns-opt", "dns-opts", Shape::List),
    flag("log-driver", "log-driver", Shape::Text),
    flag("log-opt", "log-opts", Shape::Map),
    flag("default-ulimit", "default-ulimits", Shape::Ulimits),
    flag("default-shm-size", "default-shm-size", Shape::Text),
    flag("runtime", "runtime", Shape::Text),
    flag("add-runtime", "runtimes", Shape::Runtimes),
    flag("default-runtime", "default-runtime", Shape::Text),
    flag("insecure-registry", "insecure-registries", Shape::List),
    flag("registry-mirror", "registry-mirrors", Shape::List),
    flag("registry-certs", "registry-certs", Shape::List),
    flag("image-policy", "image-policy", Shape::Text),
    flag("cdi-spec-dir", "cdi-spec-dirs", Shape::List),
    flag("storage-budget", "storage-budget", Shape::Text),
    flag("storage-min-age", "storage-min-age", Shape::Text),
    flag("pin-label", "pin-labels", Shape::List),
    flag("userns-remap", "userns-remap", Shape::Text),
    flag("tlscacert", "tlscacert", Shape::Text),
    flag("tlscert", "tlscert", Shape::Text),
    flag("tlskey", "tlskey", Shape::Text),
    flag("tlsverify", "tlsverify", Shape::Switch),
    flag("insecure", "insecure", Shape::Switch),
];

/// What the command line said of a flag, for whoever must tell of it.
pub(super) type Said = BTreeMap<&'static str, Vec<String>>;

/// Reads the command line, and the configuration file that it names or else the usual one.
pub(super) fn parse(words: &[String]) -> Result<Asked, OptionsError> {
    let (mut given, mut said) = (Given::default(), Said::new());
    let (mut file, mut validate) = (None, false);
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(argument) = parser.next()? {
        let name = match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Asked::Help),
            Arg::Long("config-file") => {
                file = Some(path(&text(&mut parser)?)?);
                continue;
            }
            Arg::Long("validate") => {
                validate = true;
                continue;
            }
            Arg::Short('H') => "host",
            Arg::Short('D') => "debug",
            Arg::Long("fixed-cidr-v6") => "bridge-subnet6",
            Arg::Long("data-root") => "root",
            Arg::Long("exec-root") => "run",
            Arg::Long(name) => match FLAGS.iter().find(|flag| flag.name == name) {
                Some(flag) => flag.name,
                None => return Err(argument.unexpected().into()),
            },
            other => return Err(other.unexpected().into()),
        };
        let flag = FLAGS.iter().find(|flag| flag.name == name).expect("each of these names is in the table");
        let value = match flag.shape {
            Shape::Switch => parser.optional_value().map_or(Ok("true".to_owned()), ValueExt::string)?,
            _ => text(&mut parser)?,
        };
        given.take(flag.name, &value)?;
        said.entry(flag.name).or_default().push(value);
    }
    let read = config_file::read(file.as_deref(), &said)?;
    for (name, value) in &read.values {
        given
            .take(name, value)
            .map_err(|error| OptionsError::InFile { file: read.path.clone(), source: Box::new(error) })?;
    }
    let mut options = given.complete()?;
    options.file = read;
    Ok(if validate { Asked::Valid } else { Asked::Run(Box::new(options)) })
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
    debug: bool,
    storage: StorageBackend,
    network: NetworkOptions,
    ipv6: bool,
    settings: Settings,
    log_driver: String,
    log_options: BTreeMap<String, String>,
    defaults: ContainerDefaults,
    runtime: Option<PathBuf>,
    space: SpaceOptions,
    image_policy: Option<PathBuf>,
    cdi_spec_dirs: Vec<PathBuf>,
    userns_remap: Option<String>,
    tls: Tls,
    verify: bool,
    insecure: bool,
}

impl Given {
    /// Takes one value of the flag `name`.
    fn take(&mut self, name: &'static str, value: &str) -> Result<(), OptionsError> {
        let text = || value.to_owned();
        match name {
            "host" => self.addresses.push(value.parse()?),
            "root" => self.root = Some(path(value)?),
            "run" => self.run = Some(path(value)?),
            "name" => self.name = Some(engine_name(value)?),
            "socket" => self.sockets.push(value.parse()?),
            "audit-log" => self.audit_log = Some(path(value)?),
            "metrics-addr" => self.metrics = Some(metrics_address(value)?),
            "group" => self.group = SocketGroup::Named(text()),
            "log-level" => self.log_level = Some(level(value)?),
            "debug" => self.debug = switch(name, value)?,
            "storage-backend" => self.storage = StorageBackend::parse(value).map_err(engine_error)?,
            "runtime" => self.runtime = Some(path(value)?),
            "image-policy" => self.image_policy = Some(path(value)?),
            "cdi-spec-dir" => self.cdi_spec_dirs.push(path(value)?),
            "storage-budget" => self.space.budget = Some(value.parse().map_err(engine_error)?),
            "storage-min-age" => self.space.min_age = duration(value)?,
            "pin-label" => self.space.pin_labels.push(LabelFilter::parse(value)),
            "userns-remap" => self.userns_remap = Some(text()),
            "tlscacert" => self.tls.authority = Some(path(value)?),
            "tlscert" => self.tls.certificate = Some(path(value)?),
            "tlskey" => self.tls.key = Some(path(value)?),
            "tlsverify" => self.verify = switch(name, value)?,
            "insecure" => self.insecure = switch(name, value)?,
            _ => self.take_setting(name, value)?,
        }
        Ok(())
    }

    /// What is about registries, runtimes and containers.
    fn take_setting(&mut self, name: &'static str, value: &str) -> Result<(), OptionsError> {
        let settings = &mut self.settings;
        match name {
            "label" => settings.labels.push(label(value)?),
            "add-runtime" => settings.runtimes.add(value).map_err(engine_error)?,
            "default-runtime" => settings.runtimes.default = Some(value.to_owned()),
            "insecure-registry" => settings.registries.insecure.push(Insecure::parse(value).map_err(told)?),
            "registry-mirror" => settings.registries.mirrors.push(Mirror::parse(value).map_err(told)?),
            "registry-certs" => settings.registries.certificates.push(path(value)?),
            "default-shm-size" => settings.shm_size_bytes = Some(parse_size(value).map_err(engine_error)?),
            "log-driver" => value.clone_into(&mut self.log_driver),
            "log-opt" => {
                let (key, value) = value.split_once('=').unwrap_or((value, ""));
                self.log_options.insert(key.to_owned(), value.to_owned());
            }
            "default-ulimit" => self.defaults.ulimits.push(ulimit(value)?),
            "dns" => {
                let wrong = |_| OptionsError::Value(format!("{value} is not an ip address"));
                self.defaults.dns.push(value.parse().map_err(wrong)?);
            }
            "dns-search" => self.defaults.dns_search.push(value.to_owned()),
            "dns-opt" => self.defaults.dns_options.push(value.to_owned()),
            _ => self.take_network(name, value)?,
        }
        Ok(())
    }

    fn take_network(&mut self, name: &'static str, value: &str) -> Result<(), OptionsError> {
        let network = &mut self.network;
        match name {
            "bridge-subnet" => network.bridge_subnet = Some(value.to_owned()),
            "bip" => network.bridge_subnet = Some(subnet_of_bridge(value)?),
            "ipv6" => self.ipv6 = switch(name, value)?,
            "bridge-subnet6" => network.bridge_subnet6 = Some(value.to_owned()),
            "publish-policy" => network.publish_policy = publish_policy(value)?,
            "mtu" => network.mtu = Some(mtu(value)?),
            "default-address-pool" => network.address_pools.push(value.parse().map_err(told)?),
            _ => unreachable!("{name} is a flag of the table, and each has its place"),
        }
        Ok(())
    }

    fn complete(mut self) -> Result<Options, OptionsError> {
        self.defaults.log = LogConfig::new(&self.log_driver, self.log_options).map_err(engine_error)?;
        if self.ipv6 && self.network.bridge_subnet6.is_none() {
            self.network.bridge_subnet6 = Some("auto".to_owned());
        }
        let usual_level = if self.debug { Level::DEBUG } else { Level::INFO };
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
                settings: Settings { registries: with_usual_certificates(self.settings.registries), ..self.settings },
                defaults: self.defaults,
                network: self.network,
                runtime: match self.runtime {
                    Some(runtime) => runtime,
                    None => beside().ok_or(OptionsError::NoRuntime)?,
                },
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
            log_level: self.log_level.unwrap_or(usual_level),
            tls: self.tls,
            insecure: self.insecure,
            file: config_file::Read::default(),
        })
    }
}

fn text(parser: &mut lexopt::Parser) -> Result<String, OptionsError> {
    Ok(parser.value()?.string()?)
}

fn path(text: &str) -> Result<PathBuf, OptionsError> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err(OptionsError::Relative(path)) }
}

fn switch(name: &'static str, text: &str) -> Result<bool, OptionsError> {
    text.parse().map_err(|_| OptionsError::Switch(name, text.to_owned()))
}

/// `HOST:PORT`, where both are there.
fn metrics_address(text: &str) -> Result<String, OptionsError> {
    let is_address = text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if is_address { Ok(text.to_owned()) } else { Err(OptionsError::Metrics(text.to_owned())) }
}

/// Names of interfaces, tables, cgroups and files are made from it; what does not fit into one is shortened there.
fn engine_name(text: &str) -> Result<String, OptionsError> {
    let fits = (1..=32).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && text.starts_with(|first: char| first.is_ascii_lowercase());
    if fits { Ok(text.to_owned()) } else { Err(OptionsError::Name(text.to_owned())) }
}

/// `KEY` or `KEY=VALUE`, by Docker's rule.
fn label(text: &str) -> Result<String, OptionsError> {
    let key = text.split('=').next().unwrap_or_default();
    if key.is_empty() || key.contains(char::is_whitespace) {
        return Err(OptionsError::Value(format!("bad attribute format: {text}")));
    }
    Ok(text.to_owned())
}

/// `NAME=SOFT[:HARD]`.
fn ulimit(text: &str) -> Result<Ulimit, OptionsError> {
    let wrong = || OptionsError::Value(format!("invalid ulimit argument: {text}"));
    let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| text.parse::<i64>().map_err(|_| wrong());
    Ulimit::new(name, number(soft)?, number(hard)?).map_err(engine_error)
}

/// The network in which the default bridge has this address, which must be the one that it takes.
fn subnet_of_bridge(text: &str) -> Result<String, OptionsError> {
    let wrong =
        || OptionsError::Value(format!("invalid --bip '{text}': ADDRESS/PREFIX is expected, such as 172.17.0.1/16"));
    let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
    let (address, prefix) = (address.parse().map_err(|_| wrong())?, prefix.parse().map_err(|_| wrong())?);
    let subnet = network::Subnet::<Ipv4Addr>::containing(address, prefix).ok_or_else(wrong)?;
    if subnet.gateway() != address {
        return Err(OptionsError::BridgeAddress(text.to_owned(), subnet.gateway().to_string()));
    }
    Ok(subnet.to_string())
}

/// The least that IPv4 works with, and the most that a bridge takes.
const MTUS: std::ops::RangeInclusive<u32> = 68..=65535;

fn mtu(text: &str) -> Result<u32, OptionsError> {
    let wrong = || OptionsError::Value(format!("invalid --mtu '{text}': a number from 68 to 65535 is expected"));
    text.parse().ok().filter(|mtu| MTUS.contains(mtu)).ok_or_else(wrong)
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

fn told(error: impl std::fmt::Display) -> OptionsError {
    OptionsError::Engine(error.to_string())
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
        let words = words.split_whitespace().map(str::to_owned);
        let words: Vec<String> = words.chain(["--runtime=/bin/true".to_owned()]).collect();
        match parse(&words).map_err(|error| error.to_string())? {
            Asked::Run(options) => Ok(*options),
            other => Err(format!("{other:?}")),
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
    fn every_flag_has_its_place() {
        for flag in super::FLAGS {
            // A value that is refused is as good as one that is taken: a flag without a place is a panic.
            let _ = super::Given::default().take(flag.name, "x");
            assert!(super::HELP.contains(&format!("--{}", flag.name)), "--{} is in the help", flag.name);
        }
    }

    #[test]
    fn what_containers_get_is_read() {
        let options = options(
            "--log-driver local --log-opt max-size=1m --default-ulimit nofile=10:20 --bip 10.7.0.1/24 --mtu 1400 -D \
             --dns 10.0.0.53 --default-shm-size 1m --label a=b",
        );
        let options = options.unwrap();
        assert_eq!(options.engine.defaults.log.driver_name(), "local");
        assert_eq!(options.engine.defaults.ulimits[0].hard, 20);
        assert_eq!(options.engine.network.bridge_subnet.as_deref(), Some("10.7.0.0/24"));
        assert_eq!((options.engine.network.mtu, options.log_level), (Some(1400), tracing::Level::DEBUG));
        assert_eq!(options.engine.settings.shm_size_bytes(), 1 << 20);
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
            ("--debug=perhaps", "invalid boolean value"),
            ("--label =x", "bad attribute format"),
            ("--dns here", "not an ip address"),
            ("--bip 10.0.0.2/24", "first address of its network, 10.0.0.1"),
            ("--bip 10.0.0.1", "ADDRESS/PREFIX"),
            ("--mtu 10", "from 68"),
            ("--default-address-pool base=10.0.0.0/8,size=40", "invalid subnet size"),
            ("--log-driver nosuch", "error looking up logging plugin nosuch"),
            ("--log-opt bogus=1", "unknown log opt 'bogus'"),
            ("--default-ulimit nofile", "invalid ulimit argument"),
            ("--default-ulimit nofile=2:1", "soft limit must be less"),
            ("--default-shm-size big", "big"),
            ("--config-file /no/such/file", "unable to configure the daemon with file /no/such/file"),
        ] {
            assert!(options(words).unwrap_err().contains(message), "{words}");
        }
    }
}
