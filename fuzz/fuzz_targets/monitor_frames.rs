//! What comes over a monitor's socket: no bytes make it panic or grow, and what is taken is written again as it was.
#![no_main]

use monitor_protocol::frame::{Decoder, HEADER_BYTES, encode};
use monitor_protocol::{FromMonitor, MAX_FRAME_BYTES, ToMonitor};

libfuzzer_sys::fuzz_target!(|pieces: Vec<Vec<u8>>| {
    let mut decoder = Decoder::new();
    for piece in pieces {
        decoder.receive(&piece, []);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => check_body(&frame.body),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});

fn check_body(body: &[u8]) {
    assert!(body.len() <= MAX_FRAME_BYTES);
    let _ = FromMonitor::from_json(body);
    if let Ok(request) = ToMonitor::from_json(body) {
        let mut bytes = Vec::new();
        encode(&request, 0, &mut bytes).expect("what was read can be written");
        let again = ToMonitor::from_json(&bytes[HEADER_BYTES..]).expect("what was written can be read");
        assert_eq!(format!("{request:?}"), format!("{again:?}"));
    }
}
