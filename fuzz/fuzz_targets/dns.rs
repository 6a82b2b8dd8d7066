//! Messages of containers and of name servers outside.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dns::fuzzing::message(bytes));
