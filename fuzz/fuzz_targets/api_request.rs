//! Request lines, queries and filters.
#![no_main]

use docker_api::{Filters, Query, route};

libfuzzer_sys::fuzz_target!(|text: &str| {
    for method in ["GET", "POST", "HEAD", "PUT", "DELETE"] {
        let _ = route(method, text);
    }
    let _ = Query::parse(text);
    if let Ok(filters) = Filters::parse(text) {
        assert_eq!(Filters::parse(&filters.to_json()).map(|again| again.to_json()), Ok(filters.to_json()));
    }
    api_server::fuzzing::filters(text);
});
