//! A typed client of the Docker API.
//!
//! It blocks, and speaks just enough HTTP/1.1 for Docker's API over a unix socket, TCP, TLS or ssh. A command line starts, asks two or
//! three things and ends, so what counts is the time until the first byte: no event loop and no thread is started for plain sockets.
//! Connections are kept and used again. Streams ([`Body`], [`Hijacked`], [`Wait`]) give their socket to be polled.
//!
//! ```no_run
//! use api_client::{Client, Host};
//! let client = Client::new(Host::parse("unix:///run/conex/conex.sock")?);
//! for container in client.container_list(&Default::default())? {
//!     println!("{}", container.id);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod body;
mod build;
mod client;
mod connection;
mod containers;
mod error;
mod execs;
mod hijack;
mod host;
mod http;
mod images;
mod lines;
mod networks;
mod system;
mod volumes;

pub use body::Body;
pub use build::{BuildOptions, SharedFolder};
pub use client::{Client, Upload};
pub use containers::{
    AttachOptions, CommitOptions, ListOptions, LogsOptions, RemoveOptions, StopOptions, Wait, WaitCondition,
};
pub use error::{Error, Result};
pub use hijack::{Hijacked, Socket};
pub use host::{Host, HostError, TlsOptions};
pub use images::{ImageInspectOptions, ImageListOptions, ImagePruneOptions, ImportOptions};
pub use lines::Lines;
pub use system::{EventsOptions, Ping};
