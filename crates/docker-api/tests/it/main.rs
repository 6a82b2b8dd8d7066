//! What this crate writes is read by another project's types, which were made from Docker's own description of its API.

mod bollard;
mod round_trip;
mod samples;
