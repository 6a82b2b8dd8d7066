//! Tars read with suspicion, written faithfully; compression; differences of two trees.

pub mod changes;
pub mod compression;
pub mod layer;
pub mod tar;

mod refusal;

pub use refusal::{Name, Refusal};
