//! Waiting for what happens behind answers.

use std::io::Read;
use std::time::{Duration, Instant};

/// Nothing that is waited for takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until what is asked for is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What comes up to a mark.
#[track_caller]
pub(crate) fn read_until(stream: &mut impl Read, mark: &str) -> String {
    let mut text = String::new();
    while !text.contains(mark) {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "it ended with {text:?}");
        text.push_str(std::str::from_utf8(&piece[..count]).unwrap());
    }
    text
}
