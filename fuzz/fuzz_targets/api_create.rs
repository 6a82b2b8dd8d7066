//! Bodies of `POST /containers/create`, for the oldest and the newest clients.
#![no_main]

use docker_api::ApiVersion;

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    api_server::fuzzing::create_body(body, ApiVersion::OLDEST);
    api_server::fuzzing::create_body(body, ApiVersion::NEWEST);
});
