//! Messages of gRPC, however their bytes come: the same messages, and none longer than it may be.
#![no_main]

libfuzzer_sys::fuzz_target!(|pieces: Vec<Vec<u8>>| {
    let messages = buildkit::fuzzing::frames(&pieces);
    assert_eq!(messages, buildkit::fuzzing::frames(&[pieces.concat()]));
});
