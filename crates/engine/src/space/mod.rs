//! The disk budget: what images and the build cache may take, and what goes when they take more.
//!
//! ```text
//! growth (pull, load, import, build, commit), start, every five minutes
//!     └─▶ measure ─▶ over the limit? ─▶ images::plan_collection (pure) ─▶ cache, then images ─▶ measure again ─▶ what is left is said
//! ```

mod budget;
mod collector;

pub use budget::{SpaceOptions, StorageBudget};
pub(crate) use collector::Collector;
