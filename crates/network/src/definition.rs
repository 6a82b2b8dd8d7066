//! Networks that users make.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::address::Subnet;
use crate::allocator::Addresses;
use crate::firewall::Segment;

/// A bridge network as a user asked for it, with what was chosen for it. The engine records it and gives it back at every start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// Its id; containers' endpoints name it.
    pub id: String,
    /// The bridge's interface.
    pub interface: String,
    /// Its addresses.
    pub subnet: Subnet,
    /// The bridge's address.
    pub gateway: Ipv4Addr,
    /// Where addresses come from for who asks for none.
    pub range: Option<Subnet>,
    /// Addresses that are somebody else's.
    pub reserved: Vec<Ipv4Addr>,
    /// The largest packet; `None` is the default bridge's.
    pub mtu: Option<u32>,
    /// Whether it is cut off from everything but the host.
    pub internal: bool,
    /// Whether its containers talk to each other.
    pub talk: bool,
    /// Whether its containers go out under the host's address.
    pub masquerade: bool,
}

impl Definition {
    pub(crate) fn segment(&self) -> Segment {
        Segment {
            interface: self.interface.clone(),
            subnet: self.subnet,
            talk: self.talk,
            internal: self.internal,
            masquerade: self.masquerade,
        }
    }

    pub(crate) fn addresses(&self) -> Addresses {
        Addresses::new(self.subnet, self.gateway).within(self.range, &self.reserved)
    }
}
