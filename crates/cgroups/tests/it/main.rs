//! The crate's public face on a real kernel: v1 or hybrid on the machine, v2 in the virtual machine, with the same tests.
//!
//! Each test makes a cgroup named after itself and removes it. They need root and a `sh` and `dd` (busybox's will do).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod devices;
mod lifecycle;
mod limits;
mod processes;
mod stats;
mod support;
