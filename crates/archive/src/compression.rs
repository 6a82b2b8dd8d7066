//! Compression, recognised by its first bytes and done in this process.

use std::io::{self, Read, Write};

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

/// Decompresses `source`, whatever it is compressed with, on a thread of its own when it is compressed at all.
pub fn decompress(source: Box<dyn Read + Send>) -> io::Result<Decompressed> {
    let _ = source;
    Err(io::Error::other("not built yet"))
}

/// A decompressed stream.
#[derive(Debug)]
pub struct Decompressed {
    compression: Compression,
}

impl Decompressed {
    /// How the source was compressed.
    pub fn compression(&self) -> Compression {
        self.compression
    }
}

impl Read for Decompressed {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("not built yet"))
    }
}

/// A compressing writer; call [`finish`](Compressor::finish), or the end of the stream is missing.
#[derive(Debug)]
pub struct Compressor<W: Write> {
    inner: W,
}

impl<W: Write> Compressor<W> {
    /// Compresses into `inner` with gzip or zstd, or not at all; the others cannot be written.
    pub fn new(inner: W, compression: Compression) -> io::Result<Self> {
        let _ = compression;
        Ok(Compressor { inner })
    }

    /// Writes the end of the compressed stream and gives the inner writer back.
    pub fn finish(self) -> io::Result<W> {
        Ok(self.inner)
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
