//! Where clients connect: unix sockets, TCP with mutual TLS, and TCP in the clear where somebody insists.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{Gid, Mode};
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// Reading and writing for the owner and the group, nothing for others.
const SOCKET_MODE: u32 = 0o660;
/// The groups whose members may speak to the daemon, best first.
const GROUPS: [&str; 2] = ["docker", "conex"];
const GROUP_FILE: &str = "/etc/group";

/// An address to listen on, as `-H` gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `unix:///run/conex/conex.sock`
    Unix(PathBuf),
    /// `tcp://127.0.0.1:2376`
    Tcp(String),
}

/// An address that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot listen on {0:?}: use unix:///PATH or tcp://HOST:PORT")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let refused = || AddressError(text.to_owned());
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) if address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => {
                Ok(Self::Tcp(address.strip_prefix(':').map_or(address.to_owned(), |port| format!("0.0.0.0:{port}"))))
            }
            _ => Err(refused()),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// Who owns a unix socket besides root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SocketGroup {
    /// The group `docker`, or else `conex`, or else root's.
    #[default]
    Usual,
    /// This one, by name.
    Named(String),
}

/// How a TCP port is protected: everybody who can speak to it is root on this machine.
#[derive(Debug, Clone)]
pub enum TcpSecurity {
    /// Only clients with a certificate.
    Tls(tls::Acceptor),
    /// Everybody (`--insecure`).
    Insecure,
}

/// Why a listener cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else serves this socket.
    #[error("another daemon is listening on {path}", path = .0.display())]
    InUse(PathBuf),
    /// No such group.
    #[error("there is no group {0:?} in {GROUP_FILE}")]
    NoGroup(String),
    /// The system refuses.
    #[error("cannot listen on {address}")]
    Io {
        /// Where.
        address: Address,
        /// Why.
        source: io::Error,
    },
}

/// A place that accepts clients.
#[derive(Debug)]
pub enum Listener {
    /// A unix socket, removed at the end.
    #[doc(hidden)]
    Unix(UnixListener, PathBuf),
    /// A TCP port.
    #[doc(hidden)]
    Tcp(TcpListener, TcpSecurity),
}

impl Listener {
    /// Listens on a unix socket that root and one group can use. A socket that nobody serves any more is replaced.
    pub async fn unix(path: &Path, group: &SocketGroup) -> Result<Self, ListenError> {
        if UnixStream::connect(path).await.is_ok() {
            return Err(ListenError::InUse(path.to_owned()));
        }
        let gid = group.id()?;
        let failed = |source| ListenError::Io { address: Address::Unix(path.to_owned()), source };
        let listener = bind_private(path, gid).map_err(failed)?;
        Ok(Self::Unix(listener, path.to_owned()))
    }

    /// Listens on a TCP port.
    pub async fn tcp(address: &str, security: TcpSecurity) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Io { address: Address::Tcp(address.to_owned()), source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        Ok(Self::Tcp(listener, security))
    }

    /// Where it listens, for people.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Unix(_, path) => Address::Unix(path.clone()).to_string(),
            Self::Tcp(listener, _) => listener.local_addr().map(|at| format!("tcp://{at}")).unwrap_or_default(),
        }
    }

    /// The TCP address that it has got, where the port was 0.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener, _) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }
}

/// Binds in a folder that only we can enter, sets owner and mode, then moves the socket to its place: at no moment can others connect.
fn bind_private(path: &Path, gid: Gid) -> io::Result<UnixListener> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(parent)?;
    // Short, because the path of a socket is limited to 107 bytes.
    let folder = parent.join(format!(".s{}", std::process::id()));
    match rustix::fs::mkdir(&folder, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let result = bind_in(&folder, path, gid);
    let _ = std::fs::remove_file(folder.join("s"));
    std::fs::remove_dir(&folder)?;
    result
}

fn bind_in(folder: &Path, path: &Path, gid: Gid) -> io::Result<UnixListener> {
    let temporary = folder.join("s");
    let listener = UnixListener::bind(&temporary)?;
    rustix::fs::chown(&temporary, None, Some(gid))?;
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    std::fs::rename(&temporary, path)?;
    Ok(listener)
}

impl SocketGroup {
    fn id(&self) -> Result<Gid, ListenError> {
        let groups = std::fs::read_to_string(GROUP_FILE).unwrap_or_default();
        match self {
            Self::Usual => Ok(GROUPS.iter().find_map(|name| group_id(&groups, name)).unwrap_or(Gid::ROOT)),
            Self::Named(name) => group_id(&groups, name).ok_or_else(|| ListenError::NoGroup(name.clone())),
        }
    }
}

/// Finds a group in the text of `/etc/group`.
fn group_id(groups: &str, name: &str) -> Option<Gid> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok().map(Gid::from_raw))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, shown) in [
            ("unix:///run/x.sock", "unix:///run/x.sock"),
            ("tcp://127.0.0.1:1", "tcp://127.0.0.1:1"),
            ("tcp://:1", "tcp://0.0.0.0:1"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        for wrong in ["", "unix://relative", "tcp://x", "tcp://x:y", "fd://", "/run/x.sock"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn groups_are_found_by_name() {
        let groups = "root:x:0:\ndocker:x:998:me,you\nbroken\n";
        assert_eq!(group_id(groups, "docker"), Some(Gid::from_raw(998)));
        assert_eq!(group_id(groups, "dock"), None);
    }

    #[tokio::test]
    async fn a_socket_is_private_replaces_a_dead_one_and_respects_a_living_one() {
        let folder = std::env::temp_dir().join(format!("conex-listener-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("x.sock");
        let listener = Listener::unix(&path, &SocketGroup::Usual).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o660);
        assert!(matches!(Listener::unix(&path, &SocketGroup::Usual).await, Err(ListenError::InUse(_))));
        drop(listener);
        assert!(Listener::unix(&path, &SocketGroup::Usual).await.is_ok());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "the private folder is gone");
        let group = SocketGroup::Named("no such group".into());
        assert!(matches!(Listener::unix(&folder.join("y"), &group).await, Err(ListenError::NoGroup(_))));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
