//! Route netlink: the messages and sockets that Conex needs.
//!
//! [`Request`]s are values: made by the functions of [`link`], [`address`], [`route`] and [`neighbour`], or attribute by
//! attribute (as crate `nftables` does). A [`Socket`] sends any number of them in one system call and reads what the kernel
//! answers, every error with the request it belongs to and the kernel's own explanation.
//!
//! A socket belongs to the network namespace that its thread was in when it was opened, for ever: that is how one thread
//! configures several namespaces.

pub mod address;
pub mod attribute;
pub mod conntrack;
pub mod link;
pub mod namespace;
pub mod neighbour;
pub mod request;
pub mod route;
pub mod socket;

pub use attribute::{Attribute, Attributes};
pub use request::Request;
pub use socket::{Errno, Family, Group, OpenError, Reply, RequestError, Socket};
