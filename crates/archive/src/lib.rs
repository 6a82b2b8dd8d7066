//! Tars read with suspicion, written faithfully; compression; differences of two trees.
//!
//! - [`tar`]: the format. A reader that refuses what other readers disagree about, and a writer.
//! - [`layer`]: the tree that a layer's tar describes, built in memory; nothing on any disk is touched.
//! - [`unpack`]: such a tree put into an empty directory of ours.
//! - [`extract`]: a tar put into a directory that somebody else may be writing to.
//! - [`ids`]: owners as a container with a user namespace has them.
//! - [`place`]: one path inside a root that somebody else may be changing.
//! - [`export`], [`changes`]: the way back, from directories to tars and to lists of changes.
//! - [`trail`]: the way down into a tree, with few open directories.
//! - [`compression`]: recognised by its first bytes, undone in this process.
//!
//! What must not be known here: images, digests, where anything is stored.

pub mod attributes;
pub mod changes;
pub mod compression;
pub mod export;
pub mod extract;
pub mod ids;
pub mod layer;
pub mod pipe;
pub mod place;
pub mod tar;
pub mod trail;
pub mod unpack;

mod refusal;

pub use refusal::{Name, Refusal};
