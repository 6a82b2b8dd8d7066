//! Hijacked connections: what stands behind a request's body reaches the container whole; arbitrary bytes do no harm.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = api_server::fuzzing::exchange(bytes);
    let (body, input) = bytes.split_at(bytes.first().map_or(0, |first| usize::from(*first).min(bytes.len())));
    assert_eq!(api_server::fuzzing::leftovers(body, input), input);
});
