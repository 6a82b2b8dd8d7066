//! The compressor of rotated logs: standard input to standard output, in a process of its own.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

/// How the monitor's program is told to be a compressor.
pub(crate) const FLAG: &str = "--compress-log";

/// How much it steps back behind containers that have work to do.
const NICENESS: i32 = 10;

/// Compresses standard input.
pub(crate) fn run() -> io::Result<()> {
    // Being refused to be nice is no reason not to work.
    let _ = rustix::process::nice(NICENESS);
    compress(&mut io::stdin().lock(), io::stdout().lock())
}

fn compress(source: &mut impl io::Read, target: impl Write) -> io::Result<()> {
    let mut encoder = GzEncoder::new(target, Compression::default());
    io::copy(source, &mut encoder)?;
    encoder.finish()?.flush()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_was_compressed_comes_back() {
        let text = "the same line\n".repeat(10_000);
        let mut packed = Vec::new();
        compress(&mut text.as_bytes(), &mut packed).unwrap();
        assert!(packed.len() < text.len() / 50);
        let mut back = String::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut back).unwrap();
        assert_eq!(back, text);
    }
}
