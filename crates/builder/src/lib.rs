//! Dockerfiles to images.
//!
//! ```text
//! Dockerfile ─▶ needed stages, a thread each ─▶ steps ─┬─ configuration only: nothing is stored
//!                                                      ├─ COPY, ADD, WORKDIR: a layer's tar is written, no file system is touched
//! contexts: a tar as it came (context),                └─ RUN: the host runs it and gives its layer back
//! a client's folder of which only                                             │
//! changes are sent (synced), a folder                        cache: what a step depends on ─▶ its layer,
//! of this machine (folder)                                   kept across builds and restarts
//! ```
//!
//! Caches of others (portable) say what steps were; their layers are fetched when somebody needs the files (borrow).
//!
//! The cache's keys are made of contents: the state that a step begins with, the step itself, and the names, owners, permissions and
//! bytes of the files that it takes. Times are not in them. Everything blocks. What must not be known here: containers (but for
//! [`Host`]), HTTP, how a client is told.

mod ahead;
mod borrow;
mod build;
mod cache;
mod clamp;
mod config;
mod context;
mod copy;
mod error;
mod event;
mod finish;
mod folder;
mod git;
mod host;
mod lint;
mod output;
mod owner;
mod portable;
mod request;
mod root;
mod run;
mod scan;
mod single;
mod stage;
mod step;
mod synced;
mod time;

pub use build::{Built, Material, Read, build, read};
pub use cache::{Cache, CacheEntry, CacheKind};
pub use context::{Context, ContextError};
pub use error::BuildError;
pub use event::{Description, Event, LintWarning, Output, Progress, Sink, StepId};
pub use folder::KnownFiles;
pub use git::{Repository, RepositoryError, is_repository, is_web};
pub use host::{
    DockerfileText, Download, Host, HostError, Imported, Job, JobMount, JobMountKind, JobNetwork, Outcome, Ownership,
    SecretVariable, Sharing, Wanted,
};
pub use lint::{Linted, lint};
pub use portable::{
    Blob, BuiltStep, CACHE_CONFIG, KnownSteps, PortableError, cache_config, read_cache_config, read_inline_cache,
};
pub use request::{Allowed, Dialect, NamedContext, Request, Reuse};
pub use scan::Ingredient;
pub use single::Single;
pub use synced::{Receiver, SentFile, SentKind, SyncedFolders};
