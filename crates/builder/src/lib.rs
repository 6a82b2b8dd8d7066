//! Dockerfiles to images.
//!
//! ```text
//! context (a tar, kept as it came, with its tree in memory)
//!      │
//! Dockerfile ─▶ needed stages ─▶ steps ─┬─ configuration only: nothing is stored
//!                                       ├─ COPY, ADD, WORKDIR: a layer's tar is written, no file system is touched
//!                                       └─ RUN: the host runs it and gives its layer back
//!                                              │
//!                             cache: what a step depends on ─▶ its layer, kept across builds and restarts
//! ```
//!
//! The cache's keys are made of contents: the state that a step begins with, the step itself, and the names, owners, permissions and
//! bytes of the files that it takes. Times are not in them. Everything blocks. What must not be known here: containers (but for
//! [`Host`]), HTTP, how a client is told.

mod base;
mod cache;
mod config;
mod context;
mod copy;
mod error;
mod host;
mod output;
mod owner;
mod root;
mod step;
mod time;

pub use base::build;
pub use cache::{Cache, CacheEntry, CacheKind};
pub use context::{Context, ContextError};
pub use error::BuildError;
pub use host::{Event, Host, HostError, Job, JobMount, JobMountKind, JobNetwork, Outcome, Request, Sharing};
