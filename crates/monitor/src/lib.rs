//! The process that owns one container: its streams, log, exec sessions and exit status.

mod gzip;
mod log;
mod streams;
