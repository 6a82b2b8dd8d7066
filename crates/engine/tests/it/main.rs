//! The engine through its front door, with real monitors and real containers, in mount and network namespaces of the test's own.
//!
//! Needs root and the program `conex-runtime` (`./x build`, or `CONEX_PROGRAMS` naming the folder that has it).

#![allow(clippy::unwrap_used, reason = "what helpers of a test cannot do fails the test")]

mod containers;
mod execs;
mod files;
mod restarts;
mod world;
