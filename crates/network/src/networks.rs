//! The front door: one engine's networks.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use thiserror::Error;

use crate::address::{Mac, Subnet};
use crate::endpoint::{Endpoint, InterfaceStatistics, Sandbox};
use crate::names::Names;

/// What an engine's networks are made from.
#[derive(Clone, Debug)]
pub struct Options {
    /// The engine's `--name`: interfaces and firewall table are called after it.
    pub name: String,
    /// The engine's `--run` folder: what was changed on the host is recorded there.
    pub run: PathBuf,
    /// The default bridge's subnet; `None` takes the first of Docker's pools that the host has no route into.
    pub subnet: Option<Subnet>,
    /// The largest packet; `None` leaves the kernel's 1500.
    pub mtu: Option<u32>,
    /// How many namespaces of each kind are kept ready; 0 makes each when it is asked for.
    pub ready: usize,
}

impl Options {
    /// The usual options of the engine called `name`.
    pub fn new(name: &str, run: PathBuf) -> Self {
        Self { name: name.to_owned(), run, subnet: None, mtu: None, ready: 8 }
    }
}

/// What a namespace is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// The default bridge.
    Bridge,
    /// Nothing: loopback alone.
    None,
}

/// The default bridge, as `network inspect bridge` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// The interface, `conex0`.
    pub interface: String,
    /// The network.
    pub subnet: Subnet,
    /// The interface's address.
    pub gateway: Ipv4Addr,
    /// The largest packet.
    pub mtu: u32,
}

/// Something this host cannot do or that stands in the way; for the log and for `info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// nf_tables is missing: containers reach each other and the host, but nothing outside, and are reachable by routes.
    NoFirewall(String),
    /// A foreign chain drops forwarded packets by default and cannot be told about the bridge.
    ForeignDrop(String),
    /// IPv4 forwarding is off and cannot be switched on.
    NoForwarding(String),
    /// IPv4 forwarding was off and has been switched on.
    ForwardingEnabled,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoFirewall(reason) => {
                write!(f, "no outbound network for containers: nf_tables cannot be used ({reason})")
            }
            Self::ForeignDrop(chain) => {
                write!(
                    f,
                    "chain {chain} drops forwarded packets: allow the bridge there if containers cannot reach out"
                )
            }
            Self::NoForwarding(reason) => {
                write!(f, "no outbound network for containers: IPv4 forwarding is off and cannot be enabled ({reason})")
            }
            Self::ForwardingEnabled => f.write_str("IPv4 forwarding was off; it is on now"),
        }
    }
}

/// Why the networks cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {}

/// Why no namespace can be handed out.
#[derive(Debug, Error)]
pub enum TakeError {}

/// Why an interface's statistics cannot be read.
#[derive(Debug, Error)]
pub enum StatisticsError {}

/// Why something could not be taken away.
#[derive(Debug, Error)]
pub enum CloseError {}

/// Whether containers stay behind when the engine closes its networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remaining {
    /// Some run on: bridge and firewall stay for them.
    Containers,
    /// None: everything goes.
    Nothing,
}

/// One engine's networks: its bridge, its firewall table, its supply of ready namespaces.
#[derive(Debug)]
pub struct Networks {}

impl Networks {
    /// Makes, or takes over, what the engine needs. `running` are the endpoints of containers that live on from before: their
    /// addresses stay taken, every other port of the bridge is a dead engine's and is removed.
    pub fn open(options: &Options, running: &[Endpoint]) -> Result<Self, OpenError> {
        let _ = (options, running, Names::of(&options.name));
        unreachable!("published before it is written")
    }

    /// What does not work as it should on this host.
    pub fn warnings(&self) -> &[Warning] {
        unreachable!("published before it is written")
    }

    /// The default bridge.
    pub fn bridge(&self) -> &Bridge {
        unreachable!("published before it is written")
    }

    /// A namespace to start a container in: a ready one at almost no cost, or a new one when none is left.
    pub fn take(&self, attachment: Attachment) -> Result<Sandbox, TakeError> {
        let _ = attachment;
        unreachable!("published before it is written")
    }

    /// As [`Networks::take`] of the bridge, with this hardware address (`--mac-address`) instead of the one that follows from
    /// the IP address.
    pub fn take_with_mac(&self, mac: Mac) -> Result<Sandbox, TakeError> {
        let _ = mac;
        unreachable!("published before it is written")
    }

    /// Gives back what a container had, after its last process has ended. Returns at once; the work is done behind it.
    pub fn release(&self, endpoint: Endpoint) {
        let _ = endpoint;
    }

    /// What the container's interface carried.
    pub fn statistics(&self, endpoint: &Endpoint) -> Result<InterfaceStatistics, StatisticsError> {
        let _ = endpoint;
        unreachable!("published before it is written")
    }

    /// Takes away what the engine made, as far as no container needs it any more; waits until that is done.
    pub fn close(&self, remaining: Remaining) -> Result<(), CloseError> {
        let _ = remaining;
        unreachable!("published before it is written")
    }
}

/// The network namespace of a process, for `--network container:ID` and for containers that live on from before.
pub fn namespace_of(pid: u32) -> std::io::Result<OwnedFd> {
    Ok(std::fs::File::open(format!("/proc/{pid}/ns/net"))?.into())
}
