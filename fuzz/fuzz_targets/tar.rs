//! Layer tars from strangers: whatever comes is refused or makes a tree, and the pieces it comes in make no difference.
#![no_main]

use archive::layer::LayerTree;
use archive::tar::{Decoder, Event, Limits};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let tar = with_checksums(data);
    assert_eq!(tree(&tar, tar.len().max(1)), tree(&tar, 100));
});

/// Checksums are what a fuzzer never finds: every block that looks like a header gets its own.
fn with_checksums(data: &[u8]) -> Vec<u8> {
    let mut tar = data.to_vec();
    for block in tar.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    tar
}

/// How many files the tar makes, and how it ends.
fn tree(tar: &[u8], piece: usize) -> (usize, String) {
    let (mut decoder, mut tree) = (Decoder::new(Limits::default()), LayerTree::new());
    for mut bytes in tar.chunks(piece) {
        while !bytes.is_empty() {
            let step = match decoder.decode(bytes) {
                Ok(step) => step,
                Err(refusal) => return (tree.node_count(), refusal.to_string()),
            };
            bytes = &bytes[step.consumed..];
            let Some(Event::Entry(entry)) = step.event else { continue };
            if let Err(refusal) = tree.apply(*entry) {
                return (tree.node_count(), refusal.to_string());
            }
        }
    }
    (tree.node_count(), format!("{:?}", decoder.end()))
}
