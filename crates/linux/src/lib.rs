//! System calls in our words: the only crate with unsafe code.
//!
//! rustix comes first: whatever it wraps safely is called directly by the crates above. Here is the rest, one system call a
//! function, each with a safe signature and the reason why it is one. Errors are [`Errno`], as rustix's are.

#![allow(unsafe_code, reason = "this crate is where it lives")]

mod raw;

pub mod allocator;
pub mod bpf;
pub mod clone;
pub mod credentials;
pub mod datagram;
pub mod exec;
pub mod fds;
pub mod fork;
pub mod keyring;
pub mod loop_device;
pub mod memory;
pub mod mount_attr;
pub mod namespace;
pub mod netlink;
pub mod quota;
pub mod resource;
pub mod scheduler;
pub mod scm;
pub mod seccomp;
pub mod signal;
pub mod terminal;
pub mod title;

pub use raw::{Errno, Result};
