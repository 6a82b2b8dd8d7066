//! Names of containers, answered inside their networks; everything else forwarded to the servers of the host.
//!
//! ```text
//! container ──127.0.0.11:53──▶ Sockets, opened in its namespace ──▶ serve ──▶ Directory: names of its own networks
//!                                                                      └────▶ Forwarder: cache, all servers at once, again and again
//! ```
//!
//! [`Directory`] is what the engine tells of its containers; a [`Serving`] is one container's server. Nothing here knows how a
//! namespace is entered or what a container is.

mod cache;
mod directory;
mod forward;
mod message;
mod serve;

pub use directory::{Directory, Membership};
pub use forward::Forwarder;
pub use serve::{Client, Serving, Sockets};

#[doc(hidden)]
pub mod fuzzing {
    //! For the fuzzers: everything that reads bytes of strangers.

    /// Reads a message as a query and as an answer.
    pub fn message(bytes: &[u8]) {
        if let Ok(query) = crate::message::Query::parse(bytes) {
            let _ = crate::message::refusal(&query, crate::message::SERVER_FAILURE);
            let _ = query.pointer();
        }
        let mut copy = bytes.to_vec();
        let _ = crate::message::lifetime(&copy);
        crate::message::grow_old(&mut copy, 1);
    }
}
