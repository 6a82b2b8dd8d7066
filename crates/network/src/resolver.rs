//! Where containers on users' networks ask for names: an address of their own loopback, whose port 53 leads to the engine's sockets.
//!
//! The sockets are bound to another port, because a container may want to be a name server itself and bind port 53 of every address.

use std::io;
use std::net::Ipv4Addr;
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

/// Opens a name server's sockets in a namespace and leads port 53 of [`RESOLVER`] there to the port that `open` returns with them. What
/// led elsewhere before, as of a daemon that was killed, is replaced.
pub fn open_resolver<S: Send>(
    namespace: BorrowedFd<'_>,
    open: impl FnOnce() -> io::Result<(S, u16)> + Send,
) -> Result<S, ResolverError> {
    namespace::within(namespace, || {
        let (sockets, port) = open()?;
        let mut transaction = Transaction::new();
        transaction.replace(&redirection(port));
        transaction.commit()?;
        Ok(sockets)
    })?
}

/// Opens a name server's sockets once more in a namespace where port 53 of [`RESOLVER`] leads to them already, because the daemon that
/// had them was killed.
pub fn reopen_resolver<S: Send>(
    namespace: BorrowedFd<'_>,
    open: impl FnOnce() -> io::Result<S> + Send,
) -> Result<S, ResolverError> {
    Ok(namespace::within(namespace, open)??)
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
