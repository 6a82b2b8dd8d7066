//! Networks in the real kernel. Each test has a "host" of its own: a network namespace in which the engine's bridge and rules are
//! made, where it needs one with another namespace for the world outside.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod foreign;
mod lifecycle;
mod ports;
mod reach;
mod supply;
mod world;
