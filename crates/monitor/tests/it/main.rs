//! A real monitor, driven by its protocol. The tests need root; what they mount is seen by their containers alone.

mod attach;
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
