//! Networks as readers see them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;

/// One network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkView {
    /// 64 hex digits.
    pub id: String,
    /// `bridge`, `host`, `none` or a user's name.
    pub name: String,
    /// `bridge`, `host` or `null`.
    pub driver: String,
    /// When it was made.
    pub created: Timestamp,
    /// `local`
    pub scope: String,
    /// Whether it has IPv6.
    pub enable_ipv6: bool,
    /// Whether it is cut off from the outside.
    pub internal: bool,
    /// Address pools.
    pub ipam: Vec<IpamPool>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Running containers on it, by container id.
    pub containers: BTreeMap<String, NetworkMember>,
}

/// One pool of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpamPool {
    /// `172.17.0.0/16`
    pub subnet: String,
    /// `172.17.0.1`
    pub gateway: Option<IpAddr>,
}

/// A running container on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkMember {
    /// The container's name.
    pub name: String,
    /// The endpoint's id.
    pub endpoint_id: String,
    /// `02:42:…`
    pub mac_address: String,
    /// Its address.
    pub ipv4: Option<Ipv4Addr>,
    /// The prefix length.
    pub ipv4_prefix: u8,
}
