//! Atomic files, locks and versioned records that survive a crash.
//!
//! A file is written under a temporary name in its own directory and renamed into place, so a reader sees the old bytes or the new
//! ones and never a mixture. What must survive a power failure is synced before it is named, and its directory is synced after
//! ([`write_atomic`], [`StagedFile::commit`]); what need only survive the process is renamed without waiting for the disk
//! ([`write_volatile`]).
//!
//! Temporary names start with [`TEMPORARY_PREFIX`]; a crash can leave one behind and [`sweep_temporaries`] removes it at the next start.

mod error;
mod file;
mod lock;
mod record;

pub use error::{Operation, PathError};
pub use file::{
    StagedFile, TEMPORARY_PREFIX, create_dir, read, remove, rename, sweep_temporaries, sync_dir, write_atomic,
    write_volatile,
};
pub use lock::Lock;
pub use record::{Record, RecordError, Versioned, load, load_if_exists, save, save_volatile};
