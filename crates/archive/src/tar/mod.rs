//! The tar format: ustar, PAX, GNU and old V7, read with suspicion and written faithfully.
//!
//! [`Reader`] pulls entries out of a stream and never trusts them; [`Writer`] writes entries so that every tar reads them alike.

mod entry;
mod reader;
mod writer;

pub use entry::{Device, Entry, EntryKind, Metadata, SparseMap, SparseSegment, Timestamp, Xattr};
pub use reader::{Limits, Reader};
pub use writer::{Header, Writer};
