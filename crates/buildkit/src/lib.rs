//! BuildKit's gRPC face over the engine: what buildx and Compose speak when they build.
//!
//! ```text
//! POST /grpc, upgraded     client ──calls──▶ service: Control (solve, status, du, prune, history)
//!                                            gateway: LLBBridge, by which clients run the Dockerfile frontend
//! POST /session, upgraded  client ◀──calls── session: files (filesync), secrets, credentials, SSH agents, results,
//!                                                         folders of blobs (content)
//! ```
//!
//! A build asks its client through [`engine::model::BuildClient`]; its events become BuildKit's status messages. No operations
//! (LLB) are carried out: the Dockerfile frontend that is built in makes images, other frontends are refused by name. What must not be
//! known here: how anything is built, and HTTP/1.

mod caches;
mod caps;
mod content;
mod early;
mod export;
mod filesync;
mod frontend;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod gateway;
mod grpc;
mod jobs;
mod messages;
mod service;
mod session;
mod solve;
mod status;
mod subrequest;

use std::sync::Arc;

use engine::Engine;
use engine::model::AttachTarget;

pub use session::SessionHead;

use self::jobs::Jobs;
use self::service::Control;
use self::session::{Sessions, stream_of};

/// BuildKit's face of one engine; cheap to clone.
#[derive(Debug, Clone)]
pub struct BuildKit {
    control: Arc<Control>,
}

impl BuildKit {
    /// The face of this engine.
    pub fn new(engine: Engine) -> BuildKit {
        let (sessions, jobs) = (Arc::new(Sessions::default()), Jobs::default());
        BuildKit { control: Arc::new(Control { engine, sessions, jobs }) }
    }

    /// Answers the calls on a connection until it ends.
    pub async fn serve(self, target: AttachTarget) {
        let stream = match stream_of(target.socket, target.early_input) {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%error, "cannot take a connection over"),
        };
        if let Err(error) = grpc::serve(stream, self.control).await {
            tracing::debug!(%error, "a BuildKit connection ended early");
        }
    }

    /// Calls a client on its connection while its builds run.
    pub fn open_session(&self, head: SessionHead, target: AttachTarget) {
        self.control.sessions.serve(head, target);
    }
}
