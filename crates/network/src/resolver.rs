//! Where containers on users' networks ask for names: an address of their own loopback, whose port 53 leads to the engine's sockets.
//!
//! The sockets are bound to another port, because a container may want to be a name server itself and bind port 53 of every address.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::BorrowedFd;

use netlink::namespace::{self, NamespaceError};
use nftables::{
    Base, Chain, ChainKind, Family, Hook, Match, Nat, Polarity, Policy, Protocol, Rule, Side, Statement, Table,
    Transaction, TransactionError,
};
use thiserror::Error;

/// The name server in a container's `resolv.conf`; Docker's.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

const TABLE: &str = "name-server";
const DESTINATION_NAT: i32 = -100;
const DNS: u16 = 53;

/// Why a container has no name server.
#[derive(Debug, Error)]
pub enum ResolverError {
    /// Its namespace cannot be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// There are no sockets in it.
    #[error("cannot open a name server's sockets: {0}")]
    Sockets(#[from] io::Error),
    /// Port 53 cannot be led to them.
    #[error("cannot redirect questions to the name server: {0}")]
    Redirect(#[from] TransactionError),
}

/// The sockets of one container's name server, in its namespace.
#[derive(Debug)]
pub struct NameSockets {
    /// For datagrams.
    pub datagrams: UdpSocket,
    /// For connections, at the same port.
    pub connections: TcpListener,
}

impl NameSockets {
    /// In the calling thread's namespace, at a port that is free.
    fn open() -> io::Result<Self> {
        /// The port of one may be taken for the other.
        const ATTEMPTS: usize = 10;
        let mut failure = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..ATTEMPTS {
            match Self::at(0) {
                Ok(sockets) => return Ok(sockets),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn at(port: u16) -> io::Result<Self> {
        let datagrams = UdpSocket::bind((RESOLVER, port))?;
        let connections = TcpListener::bind(datagrams.local_addr()?)?;
        Ok(Self { datagrams, connections })
    }
}

/// Opens a name server's sockets in a namespace and leads port 53 of [`RESOLVER`] there to them. What led elsewhere before, as of a
/// daemon that was killed, is replaced.
pub fn open_resolver(namespace: BorrowedFd<'_>) -> Result<NameSockets, ResolverError> {
    namespace::within(namespace, open_here)?
}

/// The same in the calling thread's namespace.
pub(crate) fn open_here() -> Result<NameSockets, ResolverError> {
    let sockets = NameSockets::open()?;
    let table = redirection(sockets.datagrams.local_addr()?.port());
    let commit = |change: for<'a> fn(&'a mut Transaction, &Table) -> &'a mut Transaction| {
        let mut transaction = Transaction::new();
        change(&mut transaction, &table);
        transaction.commit()
    };
    commit(Transaction::create).or_else(|_| commit(Transaction::replace))?;
    Ok(sockets)
}

/// Opens a name server's sockets once more in a namespace where port 53 of [`RESOLVER`] leads to this port already, because the daemon
/// that had them was killed.
pub fn reopen_resolver(namespace: BorrowedFd<'_>, port: u16) -> Result<NameSockets, ResolverError> {
    Ok(namespace::within(namespace, || NameSockets::at(port))??)
}

fn redirection(port: u16) -> Table {
    let rule = |protocol| {
        Rule::new([
            Match::Address { side: Side::Destination, polarity: Polarity::Is, network: RESOLVER.into(), prefix: 32 }
                .into(),
            Match::DestinationPort(protocol, DNS).into(),
            Statement::DestinationNat(Nat::To(RESOLVER.into(), Some(port))),
        ])
    };
    let base = Base { kind: ChainKind::Nat, hook: Hook::Output, priority: DESTINATION_NAT, policy: Policy::Accept };
    let rules = vec![rule(Protocol::Udp), rule(Protocol::Tcp)];
    let chain = Chain { name: "redirect".to_owned(), base: Some(base), rules };
    Table { family: Family::Ip, name: TABLE.to_owned(), sets: Vec::new(), chains: vec![chain] }
}
