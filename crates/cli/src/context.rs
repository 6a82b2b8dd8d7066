//! Which engine a command talks to, and starting one where none runs.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use api_client::{Client, Host, TlsOptions};
use clap::ArgMatches;

use crate::contexts;
use crate::error::Failure;
use crate::flags::{Flag, Takes};
use crate::flags::{flag, on, one, short};
use crate::output::list::Style;

/// Where the engine of this machine listens.
const DEFAULT_SOCKET: &str = "/run/conex/conex.sock";
/// Where the engine's messages go when it was started by a command.
const LOG_FILE: &str = "/var/log/conex.log";
/// How long an engine may take to begin.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Options that every command takes.
pub(crate) const GLOBAL: &[Flag] = &[
    short('H', "host", Takes::One, "The engine's address: unix://, tcp:// or ssh://"),
    flag("context", Takes::One, "The context to use (see conex context)"),
    flag("tls", Takes::Switch, "Use TLS"),
    flag("tlsverify", Takes::Switch, "Use TLS and verify the engine"),
    flag("tlscacert", Takes::One, "Trust certificates signed by this authority"),
    flag("tlscert", Takes::One, "The client's certificate"),
    flag("tlskey", Takes::One, "The client's key"),
];

/// What a command works with.
#[derive(Debug)]
pub(crate) struct Context {
    client: Client,
    socket: Option<PathBuf>,
    tls: Option<TlsOptions>,
    /// The context's name.
    name: String,
}

impl Context {
    /// Reads the global options and the environment: `--context`, `-H`, `CONEX_HOST`, `DOCKER_HOST`, `DOCKER_CONTEXT`, the context that
    /// was chosen, then this machine's engine.
    pub(crate) fn new(matches: &ArgMatches) -> Result<Self, Failure> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let given = one(matches, "host").map(str::to_owned);
        if given.is_some() && one(matches, "context").is_some() {
            return Err(Failure::usage("conflicting options: cannot specify both --host and --context"));
        }
        let named = given.or_else(|| variable("CONEX_HOST")).or_else(|| variable("DOCKER_HOST"));
        let name = match (one(matches, "context"), &named) {
            (Some(name), _) => Some(name.to_owned()),
            (None, Some(_)) => None,
            (None, None) => match variable("DOCKER_CONTEXT") {
                Some(name) => Some(name),
                None => contexts::chosen()?,
            },
        };
        if let Some(name) = name.filter(|name| name != contexts::DEFAULT) {
            let client = Client::new(contexts::load(&name)?.host()?);
            return Ok(Self { client, socket: None, tls: None, name });
        }
        let socket = named.is_none().then(|| PathBuf::from(DEFAULT_SOCKET));
        let host = Host::parse(&named.unwrap_or_else(|| format!("unix://{DEFAULT_SOCKET}")));
        let host = host.map_err(|error| Failure::usage(error.to_string()))?;
        let tls = tls(matches);
        let name = contexts::DEFAULT.to_owned();
        Ok(Self { client: Client::new(with_tls(host, tls.as_ref())), socket, tls, name })
    }

    /// The context's name; `default` for none.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where the default context's engine is.
    pub(crate) fn usual_address() -> String {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let named = variable("CONEX_HOST").or_else(|| variable("DOCKER_HOST"));
        named.unwrap_or_else(|| format!("unix://{DEFAULT_SOCKET}"))
    }

    /// The engine's client; starts an engine first where this machine's is asked for and none runs.
    pub(crate) fn client(&self) -> Result<&Client, Failure> {
        if let Some(socket) = &self.socket
            && let Err(error) = UnixStream::connect(socket)
            && matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
        {
            start_engine(socket)?;
        }
        Ok(&self.client)
    }

    /// A client of another engine, with the same options for TLS.
    pub(crate) fn client_of(&self, host: Host) -> Client {
        Client::new(with_tls(host, self.tls.as_ref()))
    }

    /// The socket of the engine, which must be a local one.
    pub(crate) fn socket(&self) -> Result<PathBuf, Failure> {
        match self.client()?.host() {
            Host::Unix(path) => Ok(path.clone()),
            _ => Err(Failure::usage("only a local engine's socket can be joined")),
        }
    }

    /// How a list is to look.
    pub(crate) fn style<'a>(&self, matches: &'a ArgMatches) -> Style<'a> {
        let flagged = |name: &str| matches.try_contains_id(name).is_ok_and(|there| there) && on(matches, name);
        match matches.try_get_one::<String>("format").ok().flatten() {
            _ if flagged("quiet") => Style::Quiet,
            Some(format) => Style::Format(format),
            None if on(matches, "json") => Style::Format("json"),
            None => Style::Table,
        }
    }
}

fn with_tls(host: Host, options: Option<&TlsOptions>) -> Host {
    match options {
        Some(options) => host.with_tls(options.clone()),
        None => host,
    }
}

/// TLS as options or Docker's variables ask for it.
fn tls(matches: &ArgMatches) -> Option<TlsOptions> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let verify = on(matches, "tlsverify") || variable("DOCKER_TLS_VERIFY").is_some();
    if !verify && !on(matches, "tls") {
        return None;
    }
    let home = || PathBuf::from(variable("HOME").unwrap_or_default()).join(".docker");
    let folder = variable("DOCKER_CERT_PATH").map_or_else(home, PathBuf::from);
    let mut options = TlsOptions::from_folder(&folder);
    if let Some(authority) = one(matches, "tlscacert") {
        options.authority = Some(authority.into());
    }
    if let (Some(certificate), Some(key)) = (one(matches, "tlscert"), one(matches, "tlskey")) {
        options.identity = Some((certificate.into(), key.into()));
    }
    if !verify {
        options.authority = None;
    }
    options.identity = options.identity.filter(|(certificate, _)| certificate.exists());
    Some(options)
}

/// Starts `conex daemon` in the background and waits until it listens.
fn start_engine(socket: &Path) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        let message = format!("no engine listens at {}; starting one needs root", socket.display());
        return Err(Failure { message, code: 1 });
    }
    let failed =
        |what: &str, error: io::Error| Failure { message: format!("cannot start an engine: {what}: {error}"), code: 1 };
    // Nobody to tell where standard error is closed.
    let _ = writeln!(io::stderr(), "conex: starting an engine (messages go to {LOG_FILE})");
    let log =
        std::fs::File::options().create(true).append(true).open(LOG_FILE).map_err(|error| failed(LOG_FILE, error))?;
    let errors = log.try_clone().map_err(|error| failed(LOG_FILE, error))?;
    let program = std::env::current_exe().map_err(|error| failed("this program's own path", error))?;
    let mut daemon = std::os::unix::process::CommandExt::process_group(
        Command::new(program).arg("daemon").current_dir("/").stdin(Stdio::null()).stdout(log).stderr(errors),
        0,
    )
    .spawn()
    .map_err(|error| failed("conex daemon", error))?;
    let end = Instant::now() + START_LIMIT;
    while UnixStream::connect(socket).is_err() {
        let ended = daemon.try_wait().map_err(|error| failed("conex daemon", error))?;
        if ended.is_some() || Instant::now() > end {
            return Err(Failure { message: format!("the engine did not start; {LOG_FILE} says why"), code: 1 });
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
