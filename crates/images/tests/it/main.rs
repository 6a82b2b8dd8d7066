//! The image store from outside, on real layers.

#![allow(clippy::unwrap_used, reason = "tests")]

mod builtin;
mod crash;
mod cuts;
mod fixtures;
mod hostile;
mod import;
mod load;
mod recorded_disk;
mod replays;
mod save;
mod store;
