//! Hashing and writing a stream on several threads.
//!
//! ```text
//! caller ─▶ hasher (SHA-256, in order) ─▶ writers (each at its own offset) ─▶ empty buffers go back to the caller
//! ```
//!
//! All but the beginning is written around the page cache (`O_DIRECT`), because a layer is written once and most of it is not read
//! soon: where memory has to be made for the cache first (in virtual machines whose host takes free pages back) that costs four times
//! as much as the disk itself, and everything that other programs had in the cache would be pushed out. It also means that the sync
//! at the end has nothing left to do. Small layers are written through the cache, so that a first container starts warm.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use oci::Digest;
use rustix::fs::{FallocateFlags, OFlags};
use sha2::{Digest as _, Sha256};

/// Bytes that go through the pipeline together.
const BUFFER_BYTES: usize = 1 << 20;
/// Buffers in all: memory for one layer.
const BUFFERS: usize = 8;
/// Requests to the disk at one time.
const WRITERS: usize = 3;
/// What direct writes must be aligned to, in memory and on the disk, on any disk.
const ALIGNMENT: usize = 4096;
/// Up to here everything goes through the page cache.
const CACHED_BYTES: u64 = 16 << 20;
/// Space is reserved in steps, since writes beside one another are faster than writes at the end.
const RESERVED_BYTES: u64 = 256 << 20;

/// A piece of the stream. Its memory is a little larger, so that the bytes can begin at an aligned address.
#[derive(Debug)]
struct Buffer {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Buffer {
    fn new() -> Self {
        let memory = vec![0; BUFFER_BYTES + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Buffer { memory, start, length: 0 }
    }

    /// What is still empty.
    fn room(&mut self) -> &mut [u8] {
        &mut self.memory[self.start + self.length..self.start + BUFFER_BYTES]
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }

    fn is_full(&self) -> bool {
        self.length == BUFFER_BYTES
    }
}

/// Where the stream goes.
#[derive(Debug)]
struct Target {
    cached: File,
    direct: Option<File>,
    /// Cleared when the file system turns a direct write down.
    direct_works: AtomicBool,
    failed: AtomicBool,
    failure: Mutex<Option<io::Error>>,
    /// Buffers that are hashed and not yet written.
    unwritten: AtomicUsize,
}

impl Target {
    fn write(&self, bytes: &[u8], offset: u64) {
        if self.failed.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.try_write(bytes, offset) {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            self.failed.store(true, Ordering::Relaxed);
        }
    }

    fn try_write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let aligned = bytes.len().is_multiple_of(ALIGNMENT) && offset >= CACHED_BYTES;
        if let Some(direct) = self.direct.as_ref().filter(|_| aligned && self.direct_works.load(Ordering::Relaxed)) {
            match direct.write_all_at(bytes, offset) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.direct_works.store(false, Ordering::Relaxed);
                }
                result => return result,
            }
        }
        self.cached.write_all_at(bytes, offset)
    }

    fn check(&self) -> io::Result<()> {
        if !self.failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        Err(match failure.as_ref().and_then(io::Error::raw_os_error) {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::other("a write to the layer's file has failed"),
        })
    }

    /// Reserves space in which the next bytes can be written. It is a help and no promise: what does not fit is found by writing.
    fn reserve(&self, offset: u64) {
        if offset >= CACHED_BYTES && offset.is_multiple_of(RESERVED_BYTES) || offset == CACHED_BYTES {
            let end = (offset + 1).next_multiple_of(RESERVED_BYTES);
            let _ = rustix::fs::fallocate(self.cached.as_fd(), FallocateFlags::empty(), offset, end - offset);
        }
    }
}

/// Takes a stream, writes it to a file and hashes it.
pub(crate) struct Pipeline {
    target: Arc<Target>,
    buffer: Buffer,
    bytes: u64,
    allocated: usize,
    waited_for_disk: Duration,
    /// Absent while all that has come is in the first buffer: then no thread is needed.
    threads: Option<Threads>,
}

struct Threads {
    to_hasher: SyncSender<Buffer>,
    empty: Receiver<Buffer>,
    hasher: JoinHandle<Digest>,
    writers: Vec<JoinHandle<()>>,
}

impl Pipeline {
    /// A pipeline into an empty file, which is also at `path`.
    pub(crate) fn new(file: &File, path: &Path) -> io::Result<Self> {
        let direct = OpenOptions::new().write(true).custom_flags(OFlags::DIRECT.bits() as i32).open(path);
        let target = Target {
            cached: file.try_clone()?,
            // Some file systems know no direct writes.
            direct: direct.ok(),
            direct_works: AtomicBool::new(true),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            unwritten: AtomicUsize::new(0),
        };
        let (target, buffer) = (Arc::new(target), Buffer::new());
        Ok(Pipeline { target, buffer, bytes: 0, allocated: 1, waited_for_disk: Duration::ZERO, threads: None })
    }

    /// Takes some bytes; says how many.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room()?;
        let taken = bytes.len().min(room.len());
        room[..taken].copy_from_slice(&bytes[..taken]);
        self.advance(taken);
        Ok(taken)
    }

    /// Where the next bytes go, for who can put them there without a copy; never empty. [`advance`](Pipeline::advance) takes them.
    pub(crate) fn room(&mut self) -> io::Result<&mut [u8]> {
        if self.buffer.is_full() {
            self.pass_on()?;
        }
        Ok(self.buffer.room())
    }

    /// Takes so many bytes that have been put into the room.
    pub(crate) fn advance(&mut self, length: usize) {
        self.buffer.length = (self.buffer.length + length).min(BUFFER_BYTES);
        self.bytes += length as u64;
    }

    /// How long the stream had to wait because the disk was behind.
    pub(crate) fn waited_for_disk(&self) -> Duration {
        self.waited_for_disk
    }

    /// How many bytes were taken.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Waits until everything is written, though not synced, and gives the digest.
    pub(crate) fn finish(mut self) -> io::Result<Digest> {
        let digest = match self.threads.take() {
            None => {
                self.target.write(self.buffer.bytes(), 0);
                Digest::of(self.buffer.bytes())
            }
            Some(threads) => {
                let last = std::mem::replace(&mut self.buffer, Buffer { memory: Vec::new(), start: 0, length: 0 });
                threads.to_hasher.send(last).expect("the hasher ends only after its channel");
                threads.join()
            }
        };
        self.target.check()?;
        // What was reserved and not needed.
        self.target.cached.set_len(self.bytes)?;
        Ok(digest)
    }

    fn pass_on(&mut self) -> io::Result<()> {
        self.target.check()?;
        if self.threads.is_none() {
            self.threads = Some(Threads::start(&self.target)?);
        }
        let Some(threads) = &self.threads else { return Ok(()) };
        let next = match threads.empty.try_recv() {
            Ok(buffer) => buffer,
            Err(_) if self.allocated < BUFFERS => {
                self.allocated += 1;
                Buffer::new()
            }
            Err(_) => {
                let is_disk_behind = self.target.unwritten.load(Ordering::Relaxed) > BUFFERS / 2;
                let begun = Instant::now();
                let buffer = threads.empty.recv().map_err(|_| io::Error::other("the writing threads are gone"))?;
                if is_disk_behind {
                    self.waited_for_disk += begun.elapsed();
                }
                buffer
            }
        };
        let full = std::mem::replace(&mut self.buffer, next);
        threads.to_hasher.send(full).map_err(|_| io::Error::other("the hashing thread is gone"))
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.join();
        }
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pipeline").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Threads {
    fn start(target: &Arc<Target>) -> io::Result<Self> {
        let (to_hasher, to_hash) = sync_channel(BUFFERS);
        let (hashed, to_write) = sync_channel(BUFFERS);
        let (written, empty) = channel();
        let to_write = Arc::new(Mutex::new(to_write));
        let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let mut writers = Vec::with_capacity(WRITERS);
        for _ in 0..WRITERS {
            let (target, to_write, written) = (target.clone(), to_write.clone(), written.clone());
            writers.push(named("layer-write").spawn(move || write_all(&target, &to_write, &written))?);
        }
        let target = target.clone();
        let hasher = named("layer-sha256").spawn(move || hash_all(&target, &to_hash, &hashed))?;
        Ok(Threads { to_hasher, empty, hasher, writers })
    }

    fn join(self) -> Digest {
        drop(self.to_hasher);
        let digest = self.hasher.join().expect("hashing does not panic");
        for writer in self.writers {
            writer.join().expect("writing does not panic");
        }
        digest
    }
}

fn hash_all(target: &Target, to_hash: &Receiver<Buffer>, hashed: &SyncSender<(u64, Buffer)>) -> Digest {
    let mut sha256 = Sha256::new();
    let mut offset = 0;
    for buffer in to_hash {
        target.reserve(offset);
        sha256.update(buffer.bytes());
        let length = buffer.length as u64;
        target.unwritten.fetch_add(1, Ordering::Relaxed);
        if hashed.send((offset, buffer)).is_err() {
            break;
        }
        offset += length;
    }
    Digest::from_bytes(sha256.finalize().into())
}

fn write_all(target: &Target, to_write: &Mutex<Receiver<(u64, Buffer)>>, written: &Sender<Buffer>) {
    loop {
        let next = to_write.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((offset, mut buffer)) = next else { return };
        target.write(buffer.bytes(), offset);
        target.unwritten.fetch_sub(1, Ordering::Relaxed);
        buffer.length = 0;
        // When the stream has ended nobody needs it any more.
        let _ = written.send(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(length: usize) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = File::create_new(&path).unwrap();
        let bytes: Vec<u8> = (0..length as u32).map(|at| (at / 5) as u8).collect();
        let mut pipeline = Pipeline::new(&file, &path).unwrap();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let taken = pipeline.write(&rest[..rest.len().min(70_001)]).unwrap();
            rest = &rest[taken..];
        }
        assert_eq!(pipeline.finish().unwrap(), Digest::of(&bytes), "{length}");
        assert!(std::fs::read(&path).unwrap() == bytes, "{length}");
    }

    #[test]
    fn streams_of_every_length_are_written_and_hashed() {
        for length in [0, 1, 4096, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1] {
            check(length);
        }
        for length in [0, 1, 511, 512, 4096, BUFFER_BYTES, BUFFER_BYTES + 5] {
            check(CACHED_BYTES as usize + length);
        }
        check(CACHED_BYTES as usize * 3 + 12_345);
    }

    #[test]
    fn buffers_are_aligned() {
        for _ in 0..5 {
            assert!(Buffer::new().bytes().as_ptr().addr().is_multiple_of(ALIGNMENT));
        }
    }

    #[test]
    fn a_dropped_pipeline_ends_its_threads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = File::create_new(&path).unwrap();
        let mut pipeline = Pipeline::new(&file, &path).unwrap();
        for _ in 0..200 {
            pipeline.write(&[1; 100_000]).unwrap();
        }
        // Every thread holds the target as long as it lives.
        let target = Arc::downgrade(&pipeline.target);
        assert_eq!(target.strong_count(), 2 + WRITERS);
        drop(pipeline);
        assert_eq!(target.strong_count(), 0);
    }
}
