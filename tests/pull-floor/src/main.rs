//! The floor of a pull: what the same libraries need to bring an image's layers to the disk, with nothing around them.
//!
//! `pull-floor ADDRESS REPOSITORY TAG FOLDER` asks the registry at ADDRESS, in the clear, for the manifest, and then for three layers at
//! a time. Of each one thread reads and hashes the blob, one inflates it, one hashes the tar, and one writes it, around the page cache,
//! and syncs it. Both hashes are compared. There is no authorisation, nothing is tried again, no tar is looked into, no index made, no
//! record kept, nothing told to anybody.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::{Context as _, Result, ensure};
use oci::image::{Descriptor, ImageConfig, Manifest, media_type};
use oci::{DiffId, Digest, Digester};
use rustix::fs::{FallocateFlags, OFlags};

/// Layers at one time, as in every engine.
const LAYERS_AT_ONCE: usize = 3;
/// Bytes of a blob that change threads together.
const PIECE_BYTES: usize = 256 << 10;
/// Bytes of a tar that change threads together.
const BLOCK_BYTES: usize = 1 << 20;
const QUEUE: usize = 4;
const ALIGNMENT: usize = 4096;
const RESERVED_BYTES: u64 = 256 << 20;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, repository, tag, folder] = arguments.as_slice() else {
        anyhow::bail!("usage: pull-floor ADDRESS REPOSITORY TAG FOLDER")
    };
    let get = |rest: &str| get(address, &format!("/v2/{repository}/{rest}"));
    let manifest: Manifest = serde_json::from_reader(get(&format!("manifests/{tag}"))?)?;
    let config: ImageConfig = serde_json::from_reader(get(&format!("blobs/{}", manifest.config.digest))?)?;
    let wanted = Mutex::new(manifest.layers.into_iter().zip(config.rootfs.diff_ids));
    let take = || wanted.lock().expect("no thread panics").next();
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            while let Some((blob, layer)) = take() {
                let body = get(&format!("blobs/{}", blob.digest))?;
                bring(&blob, &layer, body, Path::new(folder))?;
            }
            Ok(())
        };
        let threads: Vec<_> = (0..LAYERS_AT_ONCE).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("it does not panic"))
    })
}

/// The body of an answer to one request.
fn get(address: &str, path: &str) -> Result<impl Read + use<>> {
    let mut stream = TcpStream::connect(address)?;
    let accept = media_type::OCI_MANIFEST;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n")?;
    let mut stream = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    stream.read_line(&mut line)?;
    ensure!(line.contains(" 200 "), "{path}: {line}");
    while line.trim() != "" {
        line.clear();
        stream.read_line(&mut line)?;
        if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = text.trim().parse()?;
        }
    }
    Ok(stream.take(length))
}

/// One layer, from the network to the disk.
fn bring(blob: &Descriptor, layer: &DiffId, mut body: impl Read + Send, folder: &Path) -> Result<()> {
    let (pieces, inflated) = sync_channel(QUEUE);
    let (to_hash, blocks) = sync_channel(QUEUE);
    let (to_write, hashed) = sync_channel(QUEUE);
    std::thread::scope(|scope| {
        let fetching = scope.spawn(move || fetch(&mut body, &pieces));
        let inflating = scope.spawn(move || inflate(&blob.media_type, Pieces::new(inflated), &to_hash));
        let hashing = scope.spawn(move || hash(&blocks, &to_write));
        let path = folder.join(layer.hex());
        write(&path, &hashed)?;
        inflating.join().expect("it does not panic")?;
        ensure!(fetching.join().expect("it does not panic")? == blob.digest, "{} is another blob", blob.digest);
        ensure!(hashing.join().expect("it does not panic") == *layer.digest(), "{layer} is another layer");
        Ok(())
    })
}

fn fetch(body: &mut dyn Read, pieces: &SyncSender<Vec<u8>>) -> Result<Digest> {
    let mut digester = Digester::new();
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let length = body.read(&mut piece)?;
        if length == 0 {
            return Ok(digester.finish());
        }
        piece.truncate(length);
        digester.update(&piece);
        pieces.send(piece).context("nobody inflates any more")?;
    }
}

fn inflate(kind: &str, pieces: Pieces, to_hash: &SyncSender<Block>) -> Result<()> {
    let mut tar: Box<dyn Read> = match kind {
        media_type::OCI_LAYER_GZIP => Box::new(flate2::bufread::MultiGzDecoder::new(pieces)),
        media_type::OCI_LAYER_ZSTD => Box::new(zstd::stream::read::Decoder::with_buffer(pieces)?),
        _ => Box::new(pieces),
    };
    loop {
        let mut block = Block::new();
        while block.length < BLOCK_BYTES {
            match tar.read(block.room())? {
                0 => break,
                length => block.length += length,
            }
        }
        let is_last = block.length < BLOCK_BYTES;
        to_hash.send(block).context("nobody hashes any more")?;
        if is_last {
            return Ok(());
        }
    }
}

fn hash(blocks: &Receiver<Block>, to_write: &SyncSender<Block>) -> Digest {
    let mut digester = Digester::new();
    for block in blocks {
        digester.update(block.bytes());
        if to_write.send(block).is_err() {
            break;
        }
    }
    digester.finish()
}

fn write(path: &Path, blocks: &Receiver<Block>) -> Result<()> {
    let cached = File::create(path)?;
    let direct = OpenOptions::new().write(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path)?;
    let mut offset = 0;
    for block in blocks {
        if offset % RESERVED_BYTES == 0 {
            rustix::fs::fallocate(&cached, FallocateFlags::empty(), offset, RESERVED_BYTES)?;
        }
        let file = if block.length == BLOCK_BYTES { &direct } else { &cached };
        file.write_all_at(block.bytes(), offset)?;
        offset += block.length as u64;
    }
    cached.set_len(offset)?;
    Ok(cached.sync_all()?)
}

/// A piece of a tar, at an address that the disk takes it from.
struct Block {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Block {
    fn new() -> Self {
        let memory = vec![0; BLOCK_BYTES + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { memory, start, length: 0 }
    }

    fn room(&mut self) -> &mut [u8] {
        &mut self.memory[self.start + self.length..self.start + BLOCK_BYTES]
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }
}

/// The pieces of a blob as a stream.
struct Pieces {
    pieces: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    position: usize,
}

impl Pieces {
    fn new(pieces: Receiver<Vec<u8>>) -> Self {
        Self { pieces, piece: Vec::new(), position: 0 }
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.position == self.piece.len() {
            (self.piece, self.position) = (self.pieces.recv().unwrap_or_default(), 0);
        }
        Ok(&self.piece[self.position..])
    }

    fn consume(&mut self, length: usize) {
        self.position += length;
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}
