//! Compression, recognised by its first bytes and done in this process.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};

use crate::pipe;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, also of several members.
    Gzip,
    /// Zstandard.
    Zstd,
    /// xz.
    Xz,
    /// bzip2.
    Bzip2,
}

impl Compression {
    /// Recognises a compression by the first bytes of a stream (six are enough; fewer may leave it unrecognised).
    pub fn detect(first_bytes: &[u8]) -> Self {
        const MAGICS: &[(&[u8], Compression)] = &[
            (&[0x1f, 0x8b], Compression::Gzip),
            (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Compression::Xz),
            (b"BZh", Compression::Bzip2),
        ];
        MAGICS.iter().find(|(magic, _)| first_bytes.starts_with(magic)).map_or(Compression::None, |(_, found)| *found)
    }
}

/// The longest window that a zstd stream may ask for, as a power of two: 128 MiB, the format's own recommendation.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Memory that an xz stream may ask for: enough for `xz -9`.
const XZ_MEMORY_BYTES: u64 = 128 << 20;
const INPUT_BYTES: usize = 128 << 10;
const MAGIC_BYTES: u64 = 6;

/// Decompresses `source`, whatever it is compressed with, on a thread of its own when it is compressed at all.
///
/// Nothing is read beyond what the stream needs, no program is run (CVE-2026-41567), and memory is limited for every format.
pub fn decompress(mut source: Box<dyn Read + Send>) -> io::Result<Decompressed> {
    let (compression, first_bytes) = look(&mut source)?;
    let whole = first_bytes.chain(source);
    let stream: Box<dyn Read + Send> = match compression {
        Compression::None => Box::new(whole),
        _ => Box::new(pipe::produce("decompress", move |output| {
            let input = BufReader::with_capacity(INPUT_BYTES, whole);
            copy_all(&mut *decoder(compression, input)?, output)
        })?),
    };
    Ok(Decompressed { compression, stream })
}

/// The same on the thread that reads, for who has one to spare: what is read goes straight to where it is wanted.
pub fn decompress_here<'a>(mut source: Box<dyn BufRead + Send + 'a>) -> io::Result<Box<dyn Read + 'a>> {
    let (compression, first_bytes) = look(&mut source)?;
    decoder(compression, first_bytes.chain(source))
}

/// The first bytes of a stream, and what they say.
fn look(source: &mut dyn Read) -> io::Result<(Compression, io::Cursor<Vec<u8>>)> {
    let mut first_bytes = Vec::new();
    source.take(MAGIC_BYTES).read_to_end(&mut first_bytes)?;
    Ok((Compression::detect(&first_bytes), io::Cursor::new(first_bytes)))
}

fn decoder<'a>(compression: Compression, input: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        Compression::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_BYTES, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
        }
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
    })
}

fn copy_all(input: &mut dyn Read, output: &mut dyn Write) -> io::Result<()> {
    let mut buffer = vec![0; INPUT_BYTES];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => output.write_all(&buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A decompressed stream.
pub struct Decompressed {
    compression: Compression,
    stream: Box<dyn Read + Send>,
}

impl Decompressed {
    /// How the source was compressed.
    pub fn compression(&self) -> Compression {
        self.compression
    }
}

impl fmt::Debug for Decompressed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Decompressed").field("compression", &self.compression).finish_non_exhaustive()
    }
}

impl Read for Decompressed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

/// A compressing writer; call [`finish`](Compressor::finish), or the end of the stream is missing.
pub struct Compressor<W: Write> {
    encoder: Encoder<W>,
}

enum Encoder<W: Write> {
    None(W),
    Gzip(flate2::write::GzEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Compressor<W> {
    /// Compresses into `inner` with gzip or zstd, or not at all; the others cannot be written. Fast rather than small: the next level
    /// of gzip takes three times as long for a tenth less.
    pub fn new(inner: W, compression: Compression) -> io::Result<Self> {
        let encoder = match compression {
            Compression::None => Encoder::None(inner),
            Compression::Gzip => Encoder::Gzip(flate2::write::GzEncoder::new(inner, flate2::Compression::fast())),
            Compression::Zstd => {
                Encoder::Zstd(zstd::stream::write::Encoder::new(inner, zstd::DEFAULT_COMPRESSION_LEVEL)?)
            }
            Compression::Xz | Compression::Bzip2 => {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "xz and bzip2 can be read only, not written"));
            }
        };
        Ok(Compressor { encoder })
    }

    /// Writes the end of the compressed stream and gives the inner writer back.
    pub fn finish(self) -> io::Result<W> {
        match self.encoder {
            Encoder::None(inner) => Ok(inner),
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> fmt::Debug for Compressor<W> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.encoder {
            Encoder::None(_) => "None",
            Encoder::Gzip(_) => "Gzip",
            Encoder::Zstd(_) => "Zstd",
        };
        formatter.debug_tuple("Compressor").field(&name).finish()
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.encoder {
            Encoder::None(inner) => inner.write(bytes),
            Encoder::Gzip(encoder) => encoder.write(bytes),
            Encoder::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.encoder {
            Encoder::None(inner) => inner.flush(),
            Encoder::Gzip(encoder) => encoder.flush(),
            Encoder::Zstd(encoder) => encoder.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(compressed: Vec<u8>, compression: Compression, expected: &[u8]) {
        let mut found = Vec::new();
        // In pieces that end anywhere, as a network gives them.
        let pieces = BufReader::with_capacity(3, io::Cursor::new(compressed.clone()));
        decompress_here(Box::new(pieces)).unwrap().read_to_end(&mut found).unwrap();
        assert!(found == expected, "{compression:?}");
        let mut stream = decompress(Box::new(io::Cursor::new(compressed))).unwrap();
        assert_eq!(stream.compression(), compression);
        found.clear();
        stream.read_to_end(&mut found).unwrap();
        assert!(found == expected, "{compression:?}");
    }

    fn sample() -> Vec<u8> {
        (0..600_000_u32).flat_map(|number| (number * 7 % 1000).to_le_bytes()).collect()
    }

    #[test]
    fn what_we_write_we_read() {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let mut compressor = Compressor::new(Vec::new(), compression).unwrap();
            compressor.write_all(&sample()).unwrap();
            check(compressor.finish().unwrap(), compression, &sample());
        }
        assert!(Compressor::new(Vec::new(), Compression::Xz).is_err());
    }

    #[test]
    fn streams_of_several_members() {
        let gzip = |bytes: &[u8]| {
            let mut compressor = Compressor::new(Vec::new(), Compression::Gzip).unwrap();
            compressor.write_all(bytes).unwrap();
            compressor.finish().unwrap()
        };
        check([gzip(b"one "), gzip(b"two")].concat(), Compression::Gzip, b"one two");
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
        check([zstd(b"one "), zstd(b"two")].concat(), Compression::Zstd, b"one two");
    }

    #[test]
    fn formats_that_are_only_read() {
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
        xz.write_all(&sample()).unwrap();
        check(xz.finish().unwrap(), Compression::Xz, &sample());
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&sample()).unwrap();
        check(bzip2.finish().unwrap(), Compression::Bzip2, &sample());
        check(b"x".to_vec(), Compression::None, b"x");
        check(Vec::new(), Compression::None, b"");
    }

    #[test]
    fn cut_off_streams_are_errors() {
        for compression in [Compression::Gzip, Compression::Zstd] {
            let mut compressor = Compressor::new(Vec::new(), compression).unwrap();
            compressor.write_all(&sample()).unwrap();
            let mut compressed = compressor.finish().unwrap();
            compressed.truncate(compressed.len() / 2);
            let mut stream = decompress(Box::new(io::Cursor::new(compressed))).unwrap();
            assert!(stream.read_to_end(&mut Vec::new()).is_err(), "{compression:?}");
        }
    }

    #[test]
    fn a_zstd_window_has_a_limit() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(30).unwrap();
        encoder.long_distance_matching(true).unwrap();
        encoder.write_all(&sample()).unwrap();
        let mut stream = decompress(Box::new(io::Cursor::new(encoder.finish().unwrap()))).unwrap();
        assert!(stream.read_to_end(&mut Vec::new()).is_err());
    }
}
