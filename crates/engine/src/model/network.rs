//! Networks as readers see them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

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
    /// Whether it has IPv4.
    pub enable_ipv4: bool,
    /// Whether it has IPv6.
    pub enable_ipv6: bool,
    /// Whether it is cut off from the outside.
    pub internal: bool,
    /// Whether containers may be connected by hand (services of a swarm are not built).
    pub attachable: bool,
    /// Address pools.
    pub ipam: Vec<IpamPool>,
    /// Options of the address management.
    pub ipam_options: BTreeMap<String, String>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it is a configuration for others.
    pub config_only: bool,
    /// The configuration that it was made from.
    pub config_from: String,
    /// Running containers on it, by container id.
    pub containers: BTreeMap<String, NetworkMember>,
    /// What is wrong with it on this host.
    pub warnings: Vec<String>,
}

/// A network to be made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkRequest {
    /// `Name`
    pub name: String,
    /// `Driver`; empty is `bridge`.
    pub driver: String,
    /// `Scope`
    pub scope: String,
    /// `EnableIPv4`; none is yes.
    pub enable_ipv4: Option<bool>,
    /// `EnableIPv6`
    pub enable_ipv6: bool,
    /// `Internal`
    pub internal: bool,
    /// `Attachable`
    pub attachable: bool,
    /// `Ingress`
    pub ingress: bool,
    /// `ConfigOnly`
    pub config_only: bool,
    /// `ConfigFrom.Network`
    pub config_from: String,
    /// `IPAM.Driver`; empty is `default`.
    pub ipam_driver: String,
    /// `IPAM.Options`
    pub ipam_options: BTreeMap<String, String>,
    /// `IPAM.Config`
    pub pools: Vec<IpamPool>,
    /// `Options`
    pub options: BTreeMap<String, String>,
    /// `Labels`
    pub labels: BTreeMap<String, String>,
}

/// One pool of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IpamPool {
    /// `172.17.0.0/16`
    pub subnet: String,
    /// `172.17.5.0/24`
    pub range: Option<String>,
    /// `172.17.0.1`
    pub gateway: Option<IpAddr>,
    /// Addresses of others, by name.
    pub auxiliary: BTreeMap<String, IpAddr>,
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
    /// Its IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// The prefix length.
    pub ipv6_prefix: u8,
}
