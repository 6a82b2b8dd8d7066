//! The layer store as its users see it, on this kernel: every test in its own mount namespace and its own directories.

mod against_gnu_tar;
mod attacks;
mod raw_tar;
mod support;
