//! The client against servers that say exactly what a test wants them to say.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod requests;
mod server;
mod streams;
