//! The runtime as its callers see it: containers made of busybox, each in a mount namespace of the test's own.
//!
//! They need root. Run them with a process for each test (`cargo nextest run`): a container's init is a copy of its creator, which
//! should have no other busy threads.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test ends by a panic, and this is a program")]

mod attacks;
mod exec;
mod harness;
mod hooks;
mod identity;
mod lifecycle;
mod mounts;
mod namespaces;
mod process;
mod single_door;
