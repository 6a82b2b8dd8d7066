//! config.json: what is read and written is read the same again, and what is planned from it stays inside.
#![no_main]

use oci::runtime::Spec;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(spec) = serde_json::from_slice::<Spec>(data) else { return };
    let written = serde_json::to_vec(&spec).expect("every configuration can be written");
    assert_eq!(serde_json::from_slice::<Spec>(&written).expect("what was written can be read"), spec);
    runtime::fuzzing::configuration(&spec);
});
