//! Networks and endpoints: bridge, host, none; addresses; resolver and hosts files.
//!
//! [`Networks`] is the front door. It makes the engine's bridge, its firewall table and a supply of ready network namespaces,
//! so that a container that starts only has to be handed one:
//!
//! ```text
//! Networks::open ─▶ bridge + address + nft table          (again at every start: idempotent, atomic)
//!                └▶ pool thread ─▶ [namespace, namespace, …]   lo and eth0 up, address and default route set
//! take ◀── the next ready one;   release ──▶ pool thread deletes its veth and frees its address
//! ```
//!
//! Users' networks are bridges beside the default one ([`Definition`]); a namespace is plugged into them when a container needs it.
//! One nftables table serves all: its chains never change, bridges and published ports are elements of its sets and maps.
//!
//! ```text
//! publish ─▶ HostPorts (who has which port) ─▶ Firewall: two maps, address . protocol . port ─▶ container's address . port
//! attach  ─▶ address of the network ─▶ pair between namespace and bridge;   release ──▶ the same thread as above
//! ```
//!
//! What a running container has is its [`Place`], which the engine records and gives back to [`Networks::open`].
//!
//! Namespaces are held by descriptor only: when the last holder and the last process are gone, the kernel takes the namespace
//! and its veth pair away, so an engine that is killed leaves nothing but its bridge and table, which its next start takes over.
//!
//! Everything is blocking; callers in async code use their blocking pool. Nothing here knows containers, images or HTTP.

mod address;
mod allocator;
mod bridge;
mod definition;
mod endpoint;
mod explain;
mod files;
mod firewall;
mod forwarding;
mod gate;
mod maker;
mod mode;
mod names;
mod networks;
mod owner;
mod pools;
mod port_map;
mod ports;
mod resolver;
mod routes;
mod settings;
mod supply;
mod watch;

pub use address::{Ip, Mac, MacError, Subnet, SubnetError};
pub use allocator::{AddressError, Pair};
pub use definition::{Border, Definition, Driver, GatewayMode, Pool};
pub use endpoint::{DEFAULT_NETWORK, Endpoint, Family, Held, InterfaceStatistics, Place, Sandbox};
pub use explain::{Explanation, PortCaller, Reached};
pub use files::{
    Dns, ExtraHost, ExtraHostError, HostAddress, Reach, change_hosts, host_servers, hostname_file, hosts_file,
    read_host_resolv_conf, resolv_conf,
};
pub use firewall::FirewallError;
pub use maker::{LeadsOut, MakeError};
pub use mode::Mode;
pub use names::Names;
pub use netlink::link::{IpvlanFlag, IpvlanMode, MacvlanMode};
pub use networks::{
    AttachError, AttachRequest, Attachment, Bridge, CloseError, CreateError, Networks, OpenError, Options,
    PublishError, PublishPolicy, Remaining, StatisticsError, Subnet6, SubnetConflict, TakeError, Targets, Warning,
    namespace_of,
};
pub use owner::{IdRange, Owner, OwnerError};
pub use pools::{AddressPool, AddressPoolError};
pub use port_map::{InRow, PublishedPorts};
pub use ports::{ANY_IPV4, ANY_IPV6, PortError, PortRequest, Published, Transport};
pub use resolver::{NameSockets, RESOLVER, ResolverError, open_resolver, reopen_resolver};
pub use routes::{Loses, RouteConflict};
pub use settings::SettingError;
pub use supply::SupplyError;
pub use watch::WatchError;
