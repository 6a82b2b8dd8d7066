//! How results look: Docker's units, tables and templates.

pub(crate) mod build;
pub(crate) mod json;
pub(crate) mod list;
pub(crate) mod live;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod template;
pub(crate) mod units;
