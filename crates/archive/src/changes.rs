//! What an overlay's upper directory changes in the layers below it.

/// How a path differs from the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// It was there and is another now (Docker's `C`, 0).
    Modified,
    /// It was not there (Docker's `A`, 1).
    Added,
    /// It is gone (Docker's `D`, 2).
    Deleted,
}

/// One path that differs from the image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// The absolute path inside the container.
    pub path: Vec<u8>,
    /// How it differs.
    pub kind: ChangeKind,
}
