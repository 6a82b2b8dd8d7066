//! What this crate writes is read by another project's types, which were made from Docker's own description of its API.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bollard;
mod round_trip;
mod samples;
