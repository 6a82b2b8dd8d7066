//! The client against servers that do what they like.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod authorization;
mod faults;
mod manifests;
mod server;
mod uploads;
