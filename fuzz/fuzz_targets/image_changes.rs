//! The Dockerfile instructions of `import --change`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| images::fuzzing::changes(data));
