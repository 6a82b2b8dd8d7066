//! Connections of a build's client in both directions: whatever is said on them, they end.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = buildkit::fuzzing::calls(bytes);
    let _ = buildkit::fuzzing::answers(bytes);
});
