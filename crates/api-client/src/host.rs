//! Where a daemon is: `unix:///path`, `tcp://host:port`, `ssh://user@host:port`.

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::hijack::Socket;

/// How long a TCP connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The port of `tcp://host` without TLS, and with it.
const PLAIN_PORT: u16 = 2375;
const TLS_PORT: u16 = 2376;

/// A daemon's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP port, in the clear or with TLS.
    Tcp {
        /// Name or address.
        name: String,
        /// The port.
        port: u16,
        /// Encryption.
        tls: Option<TlsOptions>,
    },
    /// Another machine, through the user's ssh.
    Ssh(SshHost),
}

/// The files of a TLS connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    /// Whom to trust; `None` trusts any server.
    pub authority: Option<PathBuf>,
    /// The client's certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl TlsOptions {
    /// `ca.pem`, `cert.pem` and `key.pem` of a folder, as `DOCKER_CERT_PATH` holds them.
    pub fn from_folder(folder: &Path) -> Self {
        Self {
            authority: Some(folder.join("ca.pem")),
            identity: Some((folder.join("cert.pem"), folder.join("key.pem"))),
        }
    }
}

/// A machine that ssh can reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshHost {
    user: Option<String>,
    name: String,
    port: Option<u16>,
    socket: Option<String>,
}

/// An address that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Not `scheme://…`, or a scheme that is not known.
    #[error("unable to parse docker host `{0}`")]
    Scheme(String),
    /// The part behind the scheme makes no sense.
    #[error("invalid host address {address:?}: {why}")]
    Address {
        /// The address as given.
        address: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Host {
    /// Reads an address.
    pub fn parse(text: &str) -> std::result::Result<Self, HostError> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| HostError::Scheme(text.to_owned()))?;
        let wrong = |why| HostError::Address { address: text.to_owned(), why };
        match scheme {
            "unix" if rest.is_empty() => Err(wrong("a path is missing")),
            "unix" => Ok(Self::Unix(PathBuf::from(rest))),
            "tcp" | "http" | "https" => {
                let default = if scheme == "https" { TLS_PORT } else { PLAIN_PORT };
                let (name, port) = name_and_port(rest.trim_end_matches('/')).map_err(wrong)?;
                Ok(Self::Tcp { name, port: port.unwrap_or(default), tls: None })
            }
            "ssh" => SshHost::parse(rest).map(Self::Ssh).map_err(wrong),
            _ => Err(HostError::Scheme(text.to_owned())),
        }
    }

    /// The same TCP host, with TLS.
    #[must_use]
    pub fn with_tls(self, options: TlsOptions) -> Self {
        match self {
            Self::Tcp { name, port, .. } => Self::Tcp { name, port, tls: Some(options) },
            other => other,
        }
    }

    /// What to write into the `Host` header.
    pub(crate) fn header(&self) -> String {
        match self {
            Self::Tcp { name, port, .. } => format!("{name}:{port}"),
            Self::Unix(_) | Self::Ssh(_) => "api.moby.localhost".to_owned(),
        }
    }

    pub(crate) fn connect(&self) -> Result<Socket> {
        let refused = |source| Error::Connect { host: self.to_string(), source };
        match self {
            Self::Unix(path) => UnixStream::connect(path).map(Socket::Unix).map_err(refused),
            Self::Ssh(host) => host.connect().map(Socket::Unix).map_err(refused),
            Self::Tcp { name, port, tls: None } => connect_tcp(name, *port).map(Socket::Tcp).map_err(refused),
            Self::Tcp { name, port, tls: Some(options) } => {
                let stream = connect_tcp(name, *port).map_err(refused)?;
                let failed = |source| Error::Tls { host: self.to_string(), source };
                connect_tls(stream, name, options).map(Socket::Unix).map_err(failed)
            }
        }
    }
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> std::result::Result<Self, HostError> {
        Self::parse(text)
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { name, port, .. } => write!(f, "tcp://{name}:{port}"),
            Self::Ssh(host) => write!(f, "ssh://{}", host.destination()),
        }
    }
}

/// `name`, `name:port`, `[address]:port`.
fn name_and_port(text: &str) -> std::result::Result<(String, Option<u16>), &'static str> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, rest) = rest.split_once(']').ok_or("a bracket is missing")?;
            (name, rest.strip_prefix(':'))
        }
        None => match text.rsplit_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    if name.contains('/') {
        return Err("a path behind the port is not supported");
    }
    let port = match port {
        None | Some("") => None,
        Some(port) => Some(port.parse().map_err(|_| "the port is not a number")?),
    };
    let name = if name.is_empty() { "127.0.0.1" } else { name };
    Ok((name.to_owned(), port))
}

fn connect_tcp(name: &str, port: u16) -> io::Result<TcpStream> {
    use std::net::ToSocketAddrs as _;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in (name, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => {
                // Requests are one write each; waiting for more would only cost time.
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connect_tls(stream: TcpStream, name: &str, options: &TlsOptions) -> std::result::Result<UnixStream, tls::TlsError> {
    let verification = options.authority.as_deref().map_or(tls::Verification::None, tls::Verification::Authority);
    let identity = options.identity.as_ref().map(|(chain, key)| (chain.as_path(), key.as_path()));
    tls::Connector::load(tls::ClientFiles { verification, identity })?.connect(stream, name)
}

impl SshHost {
    fn parse(rest: &str) -> std::result::Result<Self, &'static str> {
        let (destination, socket) = match rest.split_once('/') {
            Some((destination, "")) => (destination, None),
            Some((destination, path)) => (destination, Some(format!("/{path}"))),
            None => (rest, None),
        };
        let (user, address) = match destination.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, destination),
        };
        let (name, port) = name_and_port(address)?;
        // ssh would take these for options.
        if address.is_empty()
            || name.starts_with('-')
            || user.is_some_and(|user| user.is_empty() || user.starts_with('-'))
        {
            return Err("not a user and a host");
        }
        if user.is_some_and(|user| user.contains(':')) {
            return Err("plain-text password is not supported");
        }
        Ok(Self { user: user.map(str::to_owned), name, port, socket })
    }

    fn destination(&self) -> String {
        match &self.user {
            Some(user) => format!("{user}@{}", self.name),
            None => self.name.clone(),
        }
    }

    /// Starts ssh with both its streams on one socket: closing our half for writing is the end of its input.
    fn connect(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let input = OwnedFd::from(theirs.try_clone()?);
        self.command().stdin(Stdio::from(input)).stdout(Stdio::from(OwnedFd::from(theirs))).spawn()?;
        // The child ends with the connection; it is not waited for because this process ends soon after.
        Ok(ours)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("ssh");
        command.args(["-o", "ConnectTimeout=30", "-T"]);
        if let Some(port) = self.port {
            command.args(["-p", &port.to_string()]);
        }
        command.args(["--", &self.destination()]);
        let host = self.socket.as_ref().map(|path| format!(" -H unix://{}", quoted(path))).unwrap_or_default();
        // Whichever of the two commands the other machine has; `exec` so that no shell stays between.
        command.arg(format!(
            "if command -v conex >/dev/null 2>&1; then exec conex{host} system dial-stdio; else exec docker{host} system dial-stdio; fi"
        ));
        command
    }
}

/// A word for a remote shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, shown) in [
            ("unix:///run/x.sock", "unix:///run/x.sock"),
            ("tcp://1.2.3.4:99", "tcp://1.2.3.4:99"),
            ("tcp://host", "tcp://host:2375"),
            ("tcp://:80", "tcp://127.0.0.1:80"),
            ("tcp://[::1]:80", "tcp://::1:80"),
            ("https://host/", "tcp://host:2376"),
            ("ssh://me@host:22", "ssh://me@host"),
        ] {
            assert_eq!(Host::parse(text).unwrap().to_string(), shown);
        }
        for wrong in [
            "",
            "unix://",
            "host:80",
            "ftp://x",
            "tcp://host:port",
            "tcp://host:1/path",
            "ssh://",
            "ssh://-oProxyCommand=x",
            "ssh://-x@h",
            "ssh://u:p@h",
        ] {
            assert!(Host::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ssh_gets_the_destination_behind_its_options_and_quoted_words() {
        let Ok(Host::Ssh(host)) = Host::parse("ssh://me@host:2222/run/a'b.sock") else { panic!("not ssh") };
        let arguments: Vec<_> = host.command().get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        assert_eq!(arguments[..7], ["-o", "ConnectTimeout=30", "-T", "-p", "2222", "--", "me@host"]);
        assert!(arguments[7].contains(r"conex -H unix://'/run/a'\''b.sock' system dial-stdio"), "{}", arguments[7]);
    }
}
