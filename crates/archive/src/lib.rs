//! Tars read with suspicion, written faithfully; compression; differences of two trees.
