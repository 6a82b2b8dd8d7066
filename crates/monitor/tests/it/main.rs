//! A real monitor, driven by its protocol. The tests need root; what they mount is seen by their containers alone.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests may fail loudly, and measurements print")]

mod attach;
mod control;
mod exec;
mod init;
mod log;
mod measure;
mod program;
mod reconnect;
mod resources;
mod rig;
mod run;
mod spec;
