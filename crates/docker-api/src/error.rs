//! The body of every refusal.

use serde::{Deserialize, Serialize};

/// `{"message":"…"}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorResponse {
    /// What went wrong, in words that clients match on.
    pub message: String,
}
