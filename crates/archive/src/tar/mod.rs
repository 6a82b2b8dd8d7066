//! The tar format: ustar, PAX, GNU and old V7, read with suspicion and written faithfully.
//!
//! [`Decoder`] is the format without I/O; [`Reader`] pulls entries out of a stream with it. Where GNU tar, Go's and Python's readers
//! read the same bytes differently, ours refuses: a layer must mean one thing only. [`Writer`] writes entries so that every reader
//! reads them alike.

mod decoder;
mod entry;
mod header;
mod interpret;
mod pax;
mod reader;
mod writer;

pub use decoder::{Decoder, Event, Step};
pub use entry::{Device, Entry, EntryKind, Metadata, SparseMap, SparseSegment, Timestamp, Xattr};
pub(crate) use interpret::is_overlay_xattr;
pub use reader::{Limits, Reader};
pub use writer::{Header, Writer};
