//! What a client has sent of its folder, kept so that the next time it sends only what changed.
//!
//! ```text
//! <root>/build/synced/<key>.data    the bytes of all files, one after the other
//! <root>/build/synced/<key>.json    which file is where in it, with its time and digest
//! ```
//!
//! Bytes are only ever added to a data file, so a build that reads it is not disturbed by the next one. One build at a time adds to it:
//! another one that receives the same folder meanwhile keeps what it is sent for itself. When less than half of it is in use it is written
//! anew.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use archive::layer::LayerTree;
use archive::tar::{Device, Entry, EntryKind, Metadata, Timestamp, Xattr};
use durable::{StagedFile, Versioned};
use oci::{Digest, Digester};
use serde::{Deserialize, Serialize};

use crate::context::{Bytes, Context, ContextError};

/// A file as the client describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentFile {
    /// Its path in the folder: clean, without leading slash.
    pub path: String,
    /// What it is.
    pub kind: SentKind,
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Nanoseconds since 1970.
    pub modified_ns: i64,
    /// Extended attributes by name.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// What a client's file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SentKind {
    /// A file of so many bytes.
    File(u64),
    /// Another name of a file that came before.
    HardLink(String),
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink(String),
    /// A character device.
    CharDevice(u32, u32),
    /// A block device.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// A file whose bytes are here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    size: u64,
    modified_ns: i64,
    offset: u64,
    digest: Digest,
}

/// All files of one folder.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Index {
    files: HashMap<String, Kept>,
    /// How long the data file is.
    end: u64,
    /// Which boot of the machine wrote it: bytes are not synced, so only what the page cache still holds is trusted.
    boot: String,
}

impl Versioned for Index {
    const VERSION: u32 = 1;
}

#[derive(Debug, Clone)]
struct Snapshot {
    data: Arc<File>,
    index: Arc<Index>,
}

/// Folders of clients.
#[derive(Debug)]
pub struct SyncedFolders {
    dir: PathBuf,
    folders: Mutex<HashMap<String, Folder>>,
}

/// What is known of a folder without a look at the disk.
#[derive(Debug)]
enum Folder {
    /// A build receives it: nobody else may add to its data.
    Receiving,
    Kept(Snapshot),
}

impl SyncedFolders {
    /// Opens what is in `dir`, which exists.
    pub fn open(dir: &Path) -> Result<SyncedFolders, durable::PathError> {
        durable::sweep_temporaries(dir)?;
        Ok(SyncedFolders { dir: dir.to_owned(), folders: Mutex::default() })
    }

    /// Begins to receive a folder. `key` says which folder of which client it is; an empty one is of nobody.
    pub fn receive(&self, key: &str) -> Result<Receiver<'_>, ContextError> {
        let claim = if key.is_empty() { None } else { self.claim(Digest::of(key.as_bytes()).hex()) };
        let (claim, held) = claim.map_or((None, None), |(claim, held)| (Some(claim), held));
        let (data, before, end) = match held {
            Some(Snapshot { data, index }) => {
                let end = index.end;
                (Place::Old(data), index, end)
            }
            None => (Place::New(StagedFile::create(&self.dir)?), Arc::default(), 0),
        };
        Ok(Receiver {
            claim,
            data,
            before,
            end,
            run: Run::default(),
            tree: LayerTree::new(),
            digests: HashMap::new(),
            kept: HashMap::new(),
            expected: HashMap::new(),
            received: 0,
            next: 0,
            pending: Vec::new(),
            described_bytes: 0,
        })
    }

    /// Keeps others from a folder's data, and gives what is there of it. None where another build receives it: it is not waited for.
    fn claim(&self, name: String) -> Option<(Claim<'_>, Option<Snapshot>)> {
        let before = {
            let mut folders = self.lock();
            if matches!(folders.get(&name), Some(Folder::Receiving)) {
                return None;
            }
            folders.insert(name.clone(), Folder::Receiving)
        };
        let held = match before {
            Some(Folder::Kept(snapshot)) => Some(snapshot),
            _ => self.load(&name),
        };
        Some((Claim { folders: self, name }, held))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Folder>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self, name: &str) -> Option<Snapshot> {
        let index: Index = durable::load(&self.dir.join(format!("{name}.json"))).ok()?;
        if index.boot != boot_id() {
            return None;
        }
        let path = self.dir.join(format!("{name}.data"));
        let data = File::options().read(true).write(true).open(path).ok()?;
        // Shorter than it says: a crash came between.
        if data.metadata().ok()?.len() < index.end {
            return None;
        }
        Some(Snapshot { data: Arc::new(data), index: Arc::new(index) })
    }

    /// Bytes on the disk.
    pub fn disk_bytes(&self) -> u64 {
        let files = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
    }

    /// Forgets all folders; builds that read one go on.
    pub fn clear(&self) -> Result<(), durable::PathError> {
        self.lock().retain(|_, folder| matches!(folder, Folder::Receiving));
        for file in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            durable::remove(&self.dir, &file.file_name().to_string_lossy())?;
        }
        Ok(())
    }
}

/// The right to add to a folder's data, until it is dropped.
#[derive(Debug)]
struct Claim<'a> {
    folders: &'a SyncedFolders,
    name: String,
}

impl Claim<'_> {
    fn data(&self) -> String {
        format!("{}.data", self.name)
    }

    fn index(&self) -> String {
        format!("{}.json", self.name)
    }

    fn keep(&self, snapshot: Snapshot) {
        self.folders.lock().insert(self.name.clone(), Folder::Kept(snapshot));
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut folders = self.folders.lock();
        // What was not kept is looked for on the disk the next time: what a build that failed has added lies behind what counts there.
        if matches!(folders.get(&self.name), Some(Folder::Receiving)) {
            folders.remove(&self.name);
        }
    }
}

#[derive(Debug)]
enum Place {
    Old(Arc<File>),
    New(StagedFile),
}

impl Place {
    fn file(&self) -> &File {
        match self {
            Place::Old(file) => file,
            Place::New(staged) => staged.file(),
        }
    }
}

/// A file on its way.
#[derive(Debug)]
struct Arriving {
    path: String,
    modified_ns: i64,
    /// Where it begins in the data file; nowhere before its first byte has come, so that small files stand in the order in which they come.
    offset: Option<u64>,
    length: u64,
    capacity: u64,
    digester: Digester,
}

/// Bytes that will be written together: most files are small and come one after the other.
#[derive(Debug, Default)]
struct Run {
    at: u64,
    bytes: Vec<u8>,
}

/// So many bytes are written together.
const RUN_BYTES: usize = 1 << 20;

impl Run {
    fn add(&mut self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        if at != self.at + self.bytes.len() as u64 || self.bytes.len() + bytes.len() > RUN_BYTES {
            self.flush(file)?;
            self.at = at;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self, file: &File) -> io::Result<()> {
        file.write_all_at(&self.bytes, self.at)?;
        self.at += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }
}

/// A folder on its way.
#[derive(Debug)]
pub struct Receiver<'a> {
    /// None where what comes is for this build alone.
    claim: Option<Claim<'a>>,
    data: Place,
    before: Arc<Index>,
    end: u64,
    run: Run,
    tree: LayerTree,
    digests: HashMap<archive::layer::NodeId, Digest>,
    kept: HashMap<String, Kept>,
    /// Files that were asked for, by the number under which they come.
    expected: HashMap<u32, Arriving>,
    /// Bytes that came.
    received: u64,
    next: u32,
    pending: Vec<SentFile>,
    /// What the descriptions take of memory, about.
    described_bytes: u64,
}

impl Receiver<'_> {
    /// Takes a description; gives the number of a file whose bytes are needed.
    pub fn describe(&mut self, file: SentFile) -> Result<Option<u32>, ContextError> {
        let id = self.next;
        self.next += 1;
        self.described_bytes += described_bytes(&file);
        if self.described_bytes > DESCRIBED_BYTES_MAX {
            return Err(wrong("the client's folder has too many files".to_owned()));
        }
        let SentKind::File(size) = file.kind else {
            self.pending.push(file);
            return Ok(None);
        };
        let known = self.before.files.get(&file.path).copied();
        let known = known.filter(|known| known.size == size && known.modified_ns == file.modified_ns);
        if let Some(known) = known {
            self.kept.insert(file.path.clone(), known);
            self.pending.push(file);
            return Ok(None);
        }
        let arriving = Arriving {
            path: file.path.clone(),
            modified_ns: file.modified_ns,
            offset: None,
            length: 0,
            capacity: size,
            digester: Digester::new(),
        };
        self.expected.insert(id, arriving);
        self.pending.push(file);
        Ok(Some(id))
    }

    /// Passes over a description of what no image can have.
    pub fn skip(&mut self) {
        self.next += 1;
    }

    /// Takes bytes of a file; none are its end.
    pub fn bytes(&mut self, id: u32, bytes: &[u8]) -> Result<(), ContextError> {
        let unasked = || wrong(format!("the client sent file {id}, which nobody wanted"));
        if bytes.is_empty() {
            let Arriving { path, modified_ns, offset, length, digester, .. } =
                self.expected.remove(&id).ok_or_else(unasked)?;
            let offset = offset.unwrap_or_default();
            self.kept.insert(path, Kept { size: length, modified_ns, offset, digest: digester.finish() });
            return Ok(());
        }
        let arriving = self.expected.get_mut(&id).ok_or_else(unasked)?;
        let (file, whole) = (self.data.file(), arriving.length + bytes.len() as u64);
        let offset = match arriving.offset {
            Some(offset) if whole <= arriving.capacity => offset,
            before => {
                // Its place, or a larger one since it grew after it was described.
                let grown = if before.is_some() { arriving.capacity.saturating_mul(2) } else { arriving.capacity };
                let (offset, capacity) = (self.end, grown.max(whole));
                let end = offset.checked_add(capacity).filter(|end| i64::try_from(*end).is_ok());
                self.end = end.ok_or_else(|| wrong(format!("{} is too large", arriving.path)))?;
                if let Some(before) = before {
                    self.run.flush(file).map_err(ContextError::Folder)?;
                    move_bytes(file, before, offset, arriving.length).map_err(ContextError::Folder)?;
                }
                (arriving.offset, arriving.capacity) = (Some(offset), capacity);
                offset
            }
        };
        self.run.add(file, bytes, offset + arriving.length).map_err(ContextError::Folder)?;
        arriving.digester.update(bytes);
        arriving.length = whole;
        self.received += bytes.len() as u64;
        Ok(())
    }

    /// Whether all that was asked for has come.
    pub fn is_complete(&self) -> bool {
        self.expected.is_empty()
    }

    /// Bytes that came so far.
    pub fn received_bytes(&self) -> u64 {
        self.received
    }

    /// Makes a context of what came and of what was here, and keeps it for the next time.
    pub fn finish(mut self) -> Result<Context, ContextError> {
        self.run.flush(self.data.file()).map_err(ContextError::Folder)?;
        for file in std::mem::take(&mut self.pending) {
            self.apply(file)?;
        }
        let shared = self.settle()?;
        Context::made(Bytes::Shared(shared), self.tree, self.digests)
    }

    fn apply(&mut self, file: SentFile) -> Result<(), ContextError> {
        let SentFile { path, kind, mode, uid, gid, modified_ns, xattrs } = file;
        let kept = self.kept.get(&path).copied();
        let kind = match kind {
            SentKind::File(_) => match kept {
                Some(kept) => EntryKind::File { size: kept.size, sparse: None },
                None => return Err(wrong(format!("the client did not send {path}"))),
            },
            SentKind::HardLink(target) => EntryKind::HardLink { target: target.into_bytes() },
            SentKind::Directory => EntryKind::Directory,
            SentKind::Symlink(target) => EntryKind::Symlink { target: target.into_bytes() },
            SentKind::CharDevice(major, minor) => EntryKind::CharDevice(Device { major, minor }),
            SentKind::BlockDevice(major, minor) => EntryKind::BlockDevice(Device { major, minor }),
            SentKind::Fifo => EntryKind::Fifo,
        };
        let is_file = matches!(kind, EntryKind::File { .. });
        let nanoseconds = modified_ns.rem_euclid(1_000_000_000) as u32;
        let xattr = |(name, value): (String, Vec<u8>)| Xattr { name: name.into_bytes(), value };
        let metadata = Metadata {
            mode,
            uid,
            gid,
            mtime: Timestamp { seconds: modified_ns.div_euclid(1_000_000_000), nanoseconds },
            xattrs: xattrs.into_iter().map(xattr).collect(),
        };
        let data_offset = kept.map_or(0, |kept| kept.offset);
        let entry = Entry { path: path.into_bytes(), metadata, kind, header_offset: 0, data_offset, data_size: 0 };
        self.tree.apply(entry).map_err(|refusal| ContextError::Tar(refusal.into()))?;
        if let (true, Some(kept), Some(id)) = (is_file, kept, self.tree.id(self.tree.node_count() - 1)) {
            self.digests.insert(id, kept.digest);
        }
        Ok(())
    }

    /// Puts the data where the next build finds it.
    fn settle(&mut self) -> Result<Arc<File>, ContextError> {
        let used: u64 = self.kept.values().map(|kept| kept.size).sum();
        let unchanged = self.received == 0 && self.kept.len() == self.before.files.len();
        let placeholder = Place::Old(Arc::new(self.data.file().try_clone().map_err(ContextError::Folder)?));
        let data = match std::mem::replace(&mut self.data, placeholder) {
            Place::Old(file) => file,
            Place::New(staged) => {
                let file = staged.file().try_clone().map_err(ContextError::Folder)?;
                if let Some(claim) = &self.claim {
                    // An index of other data would lie about these.
                    durable::remove(&claim.folders.dir, &claim.index())?;
                    staged.commit_volatile(&claim.data())?;
                }
                Arc::new(file)
            }
        };
        // Nobody's: it goes with the context.
        let Some(claim) = self.claim.take() else { return Ok(data) };
        if self.end > 2 * used + COMPACT_BYTES_MIN {
            // Mostly leftovers: the next build starts a new file.
            durable::remove(&claim.folders.dir, &claim.index())?;
            return Ok(data);
        }
        let index = Arc::new(Index { files: std::mem::take(&mut self.kept), end: self.end, boot: boot_id() });
        if !unchanged {
            // As the data it is of no use after the next boot.
            durable::save_volatile(&claim.folders.dir, &claim.index(), &*index).map_err(ContextError::Index)?;
        }
        claim.keep(Snapshot { data: Arc::clone(&data), index });
        Ok(data)
    }
}

/// Memory for descriptions of files. The tree that is made of them has a limit as well, but only later.
const DESCRIBED_BYTES_MAX: u64 = 256 << 20;
/// What a description takes besides its texts: itself, and its places in the lists of files.
const DESCRIPTION_BYTES: u64 = 2 * size_of::<SentFile>() as u64;

fn described_bytes(file: &SentFile) -> u64 {
    let target = match &file.kind {
        SentKind::HardLink(target) | SentKind::Symlink(target) => target.len(),
        _ => 0,
    };
    let xattrs: usize = file.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
    DESCRIPTION_BYTES + (file.path.len() + target + xattrs) as u64
}

fn wrong(what: String) -> ContextError {
    ContextError::Folder(io::Error::other(what))
}

/// Leftovers below this are not worth the work.
const COMPACT_BYTES_MIN: u64 = 64 << 20;

/// Which boot of the machine this is.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

fn move_bytes(file: &File, from: u64, to: u64, length: u64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    while done < length {
        let piece = buffer.len().min((length - done) as usize);
        file.read_exact_at(&mut buffer[..piece], from + done)?;
        file.write_all_at(&buffer[..piece], to + done)?;
        done += piece as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, size: u64, modified_ns: i64) -> SentFile {
        let kind = SentKind::File(size);
        SentFile { path: path.to_owned(), kind, mode: 0o644, uid: 0, gid: 0, modified_ns, xattrs: Vec::new() }
    }

    #[test]
    fn only_what_changed_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let folders = SyncedFolders::open(dir.path()).unwrap();
        let mut receiver = folders.receive("key").unwrap();
        assert_eq!(receiver.describe(file("a", 3, 1)).unwrap(), Some(0));
        assert_eq!(receiver.describe(file("b", 1, 1)).unwrap(), Some(1));
        receiver.bytes(0, b"on").unwrap();
        // Two files at once, and one that has grown since.
        receiver.bytes(1, b"x").unwrap();
        receiver.bytes(0, b"e").unwrap();
        receiver.bytes(1, b"yz").unwrap();
        assert!(receiver.bytes(7, b"?").is_err());
        receiver.bytes(0, b"").unwrap();
        receiver.bytes(1, b"").unwrap();
        assert!(receiver.is_complete());
        let first = receiver.finish().unwrap();
        assert_eq!((first.text("a").as_deref(), first.text("b").as_deref()), (Some("one"), Some("xyz")));
        drop(folders);
        // Another engine, later.
        let folders = SyncedFolders::open(dir.path()).unwrap();
        let mut receiver = folders.receive("key").unwrap();
        assert_eq!(receiver.describe(file("a", 3, 1)).unwrap(), None);
        assert_eq!(receiver.describe(file("b", 2, 2)).unwrap(), Some(1));
        receiver.bytes(1, b"22").unwrap();
        receiver.bytes(1, b"").unwrap();
        let second = receiver.finish().unwrap();
        assert_eq!((second.text("a").as_deref(), second.text("b").as_deref()), (Some("one"), Some("22")));
        assert_eq!(first.text("b").as_deref(), Some("xyz"), "an earlier build is not disturbed");
    }

    #[test]
    fn builds_of_one_folder_at_once_do_not_disturb_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let folders = SyncedFolders::open(dir.path()).unwrap();
        let begin = |file: &SentFile| {
            let mut receiver = folders.receive("key").unwrap();
            receiver.describe(file.clone()).unwrap();
            receiver
        };
        let send = |mut receiver: Receiver<'_>, text: &[u8]| {
            receiver.bytes(0, text).unwrap();
            receiver.bytes(0, b"").unwrap();
            receiver.finish().unwrap()
        };
        send(begin(&file("a", 3, 1)), b"one");
        for round in 2..5 {
            let changed = file("a", 3, round);
            let (mut first, second) = (begin(&changed), begin(&changed));
            first.bytes(0, b"tw").unwrap();
            let second = send(second, b"six");
            let first = send(first, b"o");
            assert_eq!((first.text("a").as_deref(), second.text("a").as_deref()), (Some("two"), Some("six")));
            // One that failed lets go.
            drop(begin(&file("a", 9, round)));
            let mut third = folders.receive("key").unwrap();
            assert_eq!(third.describe(changed).unwrap(), None);
            assert_eq!(third.finish().unwrap().text("a").as_deref(), Some("two"));
        }
    }

    #[test]
    fn what_was_not_sent_is_missed() {
        let dir = tempfile::tempdir().unwrap();
        let folders = SyncedFolders::open(dir.path()).unwrap();
        let mut receiver = folders.receive("").unwrap();
        receiver.describe(file("a", 3, 1)).unwrap();
        assert!(!receiver.is_complete());
        assert!(receiver.finish().is_err());
    }
}
