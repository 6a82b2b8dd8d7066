//! Why a tar is refused.

/// What is wrong with a tar from a stranger. Each says which entry (by its name, escaped).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The stream ends inside an entry.
    #[error("the tar ends in the middle of an entry, at byte {offset}")]
    Truncated {
        /// Where the stream ends.
        offset: u64,
    },
}
