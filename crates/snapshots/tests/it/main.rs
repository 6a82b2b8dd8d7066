//! The layer store as its users see it, on this kernel: every test in its own mount namespace and its own directories.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod against_gnu_tar;
mod attacks;
mod corpus;
mod debian;
mod lifecycle;
mod overlay;
mod random;
mod raw_tar;
mod support;
mod user_namespace;
