//! `run` and `create`: options to a create body, and what happens after.

pub(crate) mod body;
pub(crate) mod mounts;
pub(crate) mod options;
