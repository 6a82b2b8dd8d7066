//! Atomic files, locks and versioned records that survive a crash.
