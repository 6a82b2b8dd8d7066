//! A folder as a build's client sends it: no packet makes the receiver panic, or write outside of what it keeps.
#![no_main]

use std::collections::HashMap;
use std::sync::LazyLock;

static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

libfuzzer_sys::fuzz_target!(|input: (Vec<Vec<u8>>, HashMap<String, Vec<u8>>, Vec<(u16, u8)>)| {
    let (raw, files, damage) = input;
    let framed: Vec<Vec<u8>> = raw.iter().map(|message| buildkit::fuzzing::framed(message)).collect();
    let _ = buildkit::fuzzing::folder(&framed, DIR.path(), &["a"]);
    // What a client may say, with some of it changed.
    let mut bytes = buildkit::fuzzing::packets(&files).concat();
    for (at, byte) in damage {
        let at = usize::from(at) % bytes.len();
        bytes[at] = byte;
    }
    let _ = buildkit::fuzzing::folder(&[bytes], DIR.path(), &["a"]);
    let left: Vec<_> = std::fs::read_dir(DIR.path()).expect("the folder").flatten().map(|file| file.file_name()).collect();
    assert!(left.len() <= 2, "more is kept than data and an index: {left:?}");
});
