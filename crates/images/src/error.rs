//! What an error of this crate means to a caller, whichever operation raised it.

/// The four things a caller does with an error: HTTP statuses and exit codes are made from this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The named image does not exist.
    NotFound,
    /// The request itself is wrong: a malformed name, filter, change or archive.
    InvalidParameter,
    /// The request is right, but something that exists forbids it.
    Conflict,
    /// The disk, or something on it, failed us.
    Internal,
}
