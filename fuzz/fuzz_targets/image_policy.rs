//! Policies, keys and payloads of signatures.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trust::fuzzing::read(data));
