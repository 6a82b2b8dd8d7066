//! System calls in our words: the only crate with unsafe code.
