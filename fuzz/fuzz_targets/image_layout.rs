//! Manifests, indexes and configurations of archives from strangers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| images::fuzzing::layout(data));
