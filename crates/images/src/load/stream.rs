//! The archive as it comes: each entry is looked at once and goes to its place.
//!
//! One thread reads and takes the outer tar apart. A layer's bytes go in pieces to a worker, which decompresses them and
//! writes the layer; while it finishes (hashing, syncing), the next layer is already read for a second worker.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use archive::compression::{Compression, decompress, decompress_here};
use archive::tar::{Entry, EntryKind, Limits, Reader};
use oci::{DiffId, Digester};
use snapshots::{LayerWriter, Snapshotter};

use super::layout::{Archive, CONFIG_BYTES_MAX, Member, digest_in_name, normalised};
use super::{LoadError, LoadEvent, Progress, StagedLayer, drain};
use crate::layer::{PIECE_BYTES, read_full};

/// Entries of one archive. A layer takes three in the old layout, and an image has at most some hundred layers.
const ENTRIES_MAX: u64 = 200_000;
/// All documents of one archive, which wait in memory for its end.
const DOCUMENTS_BYTES_MAX: u64 = 64 << 20;
/// Workers at a time. More would only compete for the disk.
const WORKERS_MAX: usize = 2;
/// Pieces on their way to one worker: 16 MiB, enough to read on while the worker before finishes.
const PIECES_QUEUED_MAX: usize = 64;
const TAR_BLOCK_BYTES: usize = 512;
/// How often the progress of one layer is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Reads the whole archive into `archive`, layers into the snapshotter.
pub(super) fn read(
    input: Box<dyn Read + Send>,
    snapshotter: &dyn Snapshotter,
    archive: &mut Archive<StagedLayer>,
    on_event: Progress<'_>,
) -> Result<(), LoadError> {
    let decompressed = decompress(input).map_err(LoadError::Input)?;
    let mut tar = Reader::with_limits(decompressed, Limits { entries: ENTRIES_MAX, ..Limits::default() });
    std::thread::scope(|scope| {
        let mut intake = Intake { scope, snapshotter, archive, on_event, workers: VecDeque::new(), documents_bytes: 0 };
        let taken = intake.take_all(&mut tar);
        // Workers end by themselves when the reading has ended; what they made is recorded in every case.
        intake.join_all();
        taken
    })?;
    drain(&mut tar.into_inner());
    Ok(())
}

struct Intake<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    snapshotter: &'env dyn Snapshotter,
    archive: &'env mut Archive<StagedLayer>,
    on_event: Progress<'env>,
    workers: VecDeque<Worker<'scope>>,
    documents_bytes: u64,
}

/// A layer that is being written.
struct Worker<'scope> {
    name: String,
    /// The digest of the member's bytes, where it is not that of the layer itself.
    blob: Option<oci::Digest>,
    thread: ScopedJoinHandle<'scope, Result<DiffId, LoadError>>,
}

/// One piece of a layer, or its end. A channel that closes without an end is a stream that broke off.
enum Piece {
    Bytes(Vec<u8>),
    End,
}

impl<'scope, 'env: 'scope> Intake<'scope, 'env> {
    fn take_all<R: Read>(&mut self, tar: &mut Reader<R>) -> Result<(), LoadError> {
        while let Some(entry) = tar.next_entry().map_err(archive_error)? {
            let Some(name) = std::str::from_utf8(&entry.path).ok().and_then(normalised) else { continue };
            match &entry.kind {
                EntryKind::File { .. } => self.take_file(tar, name, entry.data_size)?,
                EntryKind::Symlink { .. } | EntryKind::HardLink { .. } => self.take_link(name, &entry),
                _ => {}
            }
        }
        Ok(())
    }

    fn take_link(&mut self, name: String, entry: &Entry) {
        let target = match &entry.kind {
            EntryKind::Symlink { target } => symlink_target(&name, target),
            EntryKind::HardLink { target } => std::str::from_utf8(target).ok().and_then(normalised),
            _ => None,
        };
        if let Some(target) = target {
            self.insert(name, Member::Link(target));
        }
    }

    fn take_file<R: Read>(&mut self, tar: &mut Reader<R>, name: String, size_bytes: u64) -> Result<(), LoadError> {
        let mut head = vec![0; TAR_BLOCK_BYTES];
        let head_length = read_full(tar, &mut head).map_err(archive_error)?;
        head.truncate(head_length);
        match Compression::detect(&head) {
            Compression::None if looks_like_tar(&head, size_bytes) => {
                self.take_plain_layer(tar, name, head, size_bytes)
            }
            Compression::None => self.take_document(tar, name, head, size_bytes),
            _ => self.take_layer(tar, name, head, size_bytes, Form::Compressed),
        }
    }

    fn take_document<R: Read>(
        &mut self,
        tar: &mut Reader<R>,
        name: String,
        mut bytes: Vec<u8>,
        size_bytes: u64,
    ) -> Result<(), LoadError> {
        if size_bytes > CONFIG_BYTES_MAX as u64 {
            self.insert(name, Member::Unknown { size_bytes });
            return Ok(());
        }
        self.documents_bytes += size_bytes;
        if self.documents_bytes > DOCUMENTS_BYTES_MAX {
            return Err(LoadError::TooManyDocuments { limit_bytes: DOCUMENTS_BYTES_MAX });
        }
        tar.read_to_end(&mut bytes).map_err(archive_error)?;
        self.insert(name, Member::Document(bytes));
        Ok(())
    }

    /// A layer whose name says that it is here already is not written again. If its bytes are others than its name says,
    /// the ones that are here are right.
    fn take_plain_layer<R: Read>(
        &mut self,
        tar: &mut Reader<R>,
        name: String,
        head: Vec<u8>,
        size_bytes: u64,
    ) -> Result<(), LoadError> {
        match digest_in_name(&name) {
            Some(digest) if self.snapshotter.has(&DiffId(digest)) => {
                self.insert(name, Member::Layer(StagedLayer { blob: digest, stored: Ok(DiffId(digest)) }));
                Ok(())
            }
            _ => self.take_layer(tar, name, head, size_bytes, Form::Plain),
        }
    }

    fn take_layer<R: Read>(
        &mut self,
        tar: &mut Reader<R>,
        name: String,
        head: Vec<u8>,
        size_bytes: u64,
        form: Form,
    ) -> Result<(), LoadError> {
        while self.workers.len() >= WORKERS_MAX {
            self.join_oldest();
        }
        let writer = self.snapshotter.stage().map_err(|source| LoadError::Layer { name: name.clone(), source })?;
        let (pieces, incoming) = sync_channel(PIECES_QUEUED_MAX);
        let (emptied, reusable) = channel();
        let layer_name = name.clone();
        let thread = self.scope.spawn(move || write_layer(&layer_name, writer, Incoming::new(incoming, emptied), form));
        let mut feed = Feed { pieces: Some(pieces), reusable, digester: form.digester() };
        let fed = feed.all(tar, head, &mut LayerProgress::new(&name, size_bytes, self.on_event));
        let blob = feed.digester.map(Digester::finish);
        self.workers.push_back(Worker { name, blob, thread });
        fed
    }

    fn join_all(&mut self) {
        while !self.workers.is_empty() {
            self.join_oldest();
        }
    }

    fn join_oldest(&mut self) {
        let Some(worker) = self.workers.pop_front() else { return };
        let stored = worker.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let blob = worker.blob.or_else(|| stored.as_ref().ok().map(|layer| layer.0));
        let layer = StagedLayer { blob: blob.unwrap_or(oci::Digest::from_bytes([0; 32])), stored };
        self.insert(worker.name, Member::Layer(layer));
    }

    fn insert(&mut self, name: String, member: Member<StagedLayer>) {
        self.archive.insert(name, member);
    }
}

/// How a layer's bytes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Compressed,
}

impl Form {
    /// A plain layer is hashed where it is written; the compressed bytes of another are hashed here.
    fn digester(self) -> Option<Digester> {
        (self == Form::Compressed).then(Digester::new)
    }
}

/// The reading end of one layer.
struct Feed {
    pieces: Option<SyncSender<Piece>>,
    reusable: Receiver<Vec<u8>>,
    digester: Option<Digester>,
}

impl Feed {
    fn all<R: Read>(
        &mut self,
        tar: &mut Reader<R>,
        head: Vec<u8>,
        progress: &mut LayerProgress<'_>,
    ) -> Result<(), LoadError> {
        let mut piece = head;
        while !piece.is_empty() {
            progress.advance(piece.len());
            if let Some(digester) = &mut self.digester {
                digester.update(&piece);
            }
            self.send(Piece::Bytes(piece));
            piece = self.reusable.try_recv().unwrap_or_else(|_| Vec::with_capacity(PIECE_BYTES));
            piece.clear();
            tar.take(PIECE_BYTES as u64).read_to_end(&mut piece).map_err(archive_error)?;
        }
        self.send(Piece::End);
        progress.finish();
        Ok(())
    }

    /// A worker that has stopped listening has its reason, which it tells when it is joined; the stream goes on.
    fn send(&mut self, piece: Piece) {
        if self.pieces.as_ref().is_some_and(|pieces| pieces.send(piece).is_err()) {
            self.pieces = None;
        }
    }
}

/// The writing end of one layer, as a stream.
struct Incoming {
    pieces: Receiver<Piece>,
    emptied: Sender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
    is_complete: bool,
}

impl Incoming {
    fn new(pieces: Receiver<Piece>, emptied: Sender<Vec<u8>>) -> Incoming {
        Incoming { pieces, emptied, current: Vec::new(), position: 0, is_complete: false }
    }

    /// The rest of the current piece, or the next; nothing at the end.
    fn fill(&mut self) -> io::Result<&[u8]> {
        while self.position == self.current.len() && !self.is_complete {
            match self.pieces.recv() {
                Ok(Piece::Bytes(bytes)) => {
                    // Whether anybody reuses the buffer is not our business.
                    let _ = self.emptied.send(std::mem::replace(&mut self.current, bytes));
                    self.position = 0;
                }
                Ok(Piece::End) => self.is_complete = true,
                Err(_) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive broke off")),
            }
        }
        Ok(&self.current[self.position..])
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.position += length;
        Ok(length)
    }
}

impl BufRead for Incoming {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.fill()
    }

    fn consume(&mut self, length: usize) {
        self.position += length;
    }
}

fn write_layer(name: &str, mut writer: LayerWriter, mut incoming: Incoming, form: Form) -> Result<DiffId, LoadError> {
    let written = match form {
        Form::Plain => write_plain(&mut writer, &mut incoming),
        Form::Compressed => write_decompressed(&mut writer, incoming),
    };
    match written {
        Err(Interrupted::Input(source)) => Err(LoadError::LayerInput { name: name.to_owned(), source }),
        // What was wrong with the layer is known better to `finish` than to `write_all`.
        Ok(()) | Err(Interrupted::Refused) => match writer.finish(None) {
            Ok(layer) => Ok(layer.diff_id),
            Err(source) => Err(LoadError::Layer { name: name.to_owned(), source }),
        },
    }
}

/// Why a layer was not written to its end.
enum Interrupted {
    Input(io::Error),
    Refused,
}

/// Hands the pieces on as they are.
fn write_plain(writer: &mut LayerWriter, incoming: &mut Incoming) -> Result<(), Interrupted> {
    loop {
        let piece = incoming.fill().map_err(Interrupted::Input)?;
        if piece.is_empty() {
            return Ok(());
        }
        writer.write_all(piece).map_err(|_| Interrupted::Refused)?;
        incoming.position = incoming.current.len();
    }
}

fn write_decompressed(writer: &mut LayerWriter, incoming: Incoming) -> Result<(), Interrupted> {
    let mut tar = decompress_here(Box::new(incoming)).map_err(Interrupted::Input)?;
    writer.read_from(&mut *tar).map_err(Interrupted::Input)
}

/// Tells how a layer goes on, not more often than anybody can see.
struct LayerProgress<'a> {
    id: String,
    current_bytes: u64,
    total_bytes: u64,
    told: Option<Instant>,
    on_event: Progress<'a>,
}

impl<'a> LayerProgress<'a> {
    fn new(name: &str, total_bytes: u64, on_event: Progress<'a>) -> LayerProgress<'a> {
        LayerProgress { id: layer_id(name), current_bytes: 0, total_bytes, told: None, on_event }
    }

    fn advance(&mut self, length: usize) {
        self.current_bytes += length as u64;
        if self.told.is_none_or(|told| told.elapsed() >= PROGRESS_INTERVAL) {
            self.tell();
        }
    }

    fn finish(&mut self) {
        self.tell();
    }

    fn tell(&mut self) {
        self.told = Some(Instant::now());
        let LayerProgress { id, current_bytes, total_bytes, .. } = self;
        (self.on_event)(LoadEvent::Layer { id: id.clone(), current_bytes: *current_bytes, total_bytes: *total_bytes });
    }
}

/// Twelve characters that tell layers apart: of the digest, or of the directory in the old layout.
fn layer_id(name: &str) -> String {
    let significant = name.strip_prefix("blobs/sha256/").unwrap_or(name);
    significant.chars().take(12).collect()
}

/// Says whether `head` is the first block of a tar: its checksum fits, or it is the end of an empty tar.
fn looks_like_tar(head: &[u8], size_bytes: u64) -> bool {
    const CHECKSUM: std::ops::Range<usize> = 148..156;
    if head.len() < TAR_BLOCK_BYTES {
        return false;
    }
    if head.iter().all(|&byte| byte == 0) {
        return size_bytes.is_multiple_of(TAR_BLOCK_BYTES as u64) && size_bytes >= 2 * TAR_BLOCK_BYTES as u64;
    }
    let sum = |byte: (usize, &u8)| if CHECKSUM.contains(&byte.0) { u64::from(b' ') } else { u64::from(*byte.1) };
    let actual: u64 = head.iter().enumerate().map(sum).sum();
    let digits =
        head[CHECKSUM].iter().skip_while(|&&byte| byte == b' ').take_while(|byte| (b'0'..=b'7').contains(*byte));
    let stated = digits.fold(0, |value: u64, digit| value * 8 + u64::from(digit - b'0'));
    actual == stated
}

/// The member that a symbolic link called `name` leads to; nothing for one that leaves the archive.
fn symlink_target(name: &str, target: &[u8]) -> Option<String> {
    let target = std::str::from_utf8(target).ok().filter(|target| !target.starts_with('/'))?;
    let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
    normalised(&format!("{directory}/{target}"))
}

/// A tar that is refused is the sender's fault, a stream that breaks off may be anyone's.
fn archive_error(error: io::Error) -> LoadError {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => LoadError::Archive(error),
        _ => LoadError::Input(error),
    }
}
