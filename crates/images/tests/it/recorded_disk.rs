//! A disk that keeps what is written to it, in order, and where it was told to let it reach the medium.
//!
//! ```text
//! ext4 ─▶ loop device ─▶ a file that is a FUSE file system of its own ─▶ a thread of the test: WRITE, FSYNC
//! ```
//!
//! The loop device passes each write of the file system above on as one, and each flush as an fsync: what device-mapper's log-writes target
//! records, where a kernel has it. From the record every state can be made that a disk may have when its power goes.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::mount::MountFlags;

/// The largest write that the kernel may hand over.
const WRITE_BYTES_MAX: usize = 1 << 20;
/// What a disk writes wholly or not at all.
pub(crate) const SECTOR_BYTES: usize = 4096;
const HEADER_BYTES: usize = 40;
const ROOT_MODE: u32 = 0o100_600;

/// What reached the disk.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Write {
        offset: usize,
        bytes: Vec<u8>,
    },
    /// All that was written before is on the medium.
    Sync,
}

/// The disk; it is one as long as it is mounted.
#[derive(Debug)]
pub(crate) struct RecordedDisk {
    state: Arc<Mutex<State>>,
    server: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    content: Vec<u8>,
    events: Vec<Event>,
}

impl RecordedDisk {
    /// Has an existing file show this disk.
    pub(crate) fn mount(file: &Path, content: Vec<u8>) -> RecordedDisk {
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode={ROOT_MODE:o},user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let options = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount("recorded", file, "fuse", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())
            .unwrap();
        let state = Arc::new(Mutex::new(State { content, events: Vec::new() }));
        let served = Arc::clone(&state);
        let server = std::thread::spawn(move || serve(device, &served));
        RecordedDisk { state, server: Some(server) }
    }

    /// How many events there were so far.
    pub(crate) fn position(&self) -> usize {
        self.state.lock().unwrap().events.len()
    }

    /// All events, when it is mounted no more.
    pub(crate) fn into_events(mut self) -> Vec<Event> {
        self.server.take().unwrap().join().unwrap();
        std::mem::take(&mut self.state.lock().unwrap().events)
    }
}

/// Answers the kernel until the file system is unmounted.
fn serve(mut device: File, state: &Mutex<State>) {
    let mut buffer = vec![0; WRITE_BYTES_MAX + 4096];
    // The kernel ends a connection that is unmounted with an error.
    while let Ok(length) = device.read(&mut buffer) {
        let request = Request(&buffer[..length]);
        let Some(answer) = answer(&request, &mut state.lock().unwrap()) else { continue };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(errno) => (-errno, Vec::new()),
        };
        let mut reply = Vec::with_capacity(16 + body.len());
        reply.extend((16 + body.len() as u32).to_le_bytes());
        reply.extend(error.to_le_bytes());
        reply.extend(request.u64(8).to_le_bytes());
        reply.extend(body);
        // Of a request that was interrupted the kernel wants no answer.
        let _ = device.write(&reply);
    }
}

/// A message of the kernel, as `linux/fuse.h` lays it out.
struct Request<'a>(&'a [u8]);

impl Request<'_> {
    fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().unwrap())
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.0[at..at + 8].try_into().unwrap())
    }

    /// The place and the length that a read and a write begin with.
    fn range(&self) -> (usize, usize) {
        (self.u64(HEADER_BYTES + 8) as usize, self.u32(HEADER_BYTES + 16) as usize)
    }
}

/// The body of an answer, or an error; nothing where none is wanted.
fn answer(request: &Request<'_>, state: &mut State) -> Option<Result<Vec<u8>, i32>> {
    const ENOSYS: i32 = 38;
    Some(Ok(match request.u32(4) {
        // FORGET, INTERRUPT, BATCH_FORGET
        2 | 36 | 42 => return None,
        // GETATTR, SETATTR
        3 | 4 => attributes(state.content.len() as u64),
        // OPEN: nothing but a zero handle, without flags
        14 => vec![0; 16],
        // READ
        15 => {
            let (offset, length) = request.range();
            let end = (offset + length).min(state.content.len());
            state.content[offset.min(end)..end].to_vec()
        }
        // WRITE
        16 => {
            let (offset, length) = request.range();
            let bytes = request.0[HEADER_BYTES + 40..][..length].to_vec();
            state.content[offset..offset + length].copy_from_slice(&bytes);
            state.events.push(Event::Write { offset, bytes });
            [(length as u32).to_ne_bytes(), [0; 4]].concat()
        }
        // FSYNC
        20 => {
            state.events.push(Event::Sync);
            Vec::new()
        }
        // RELEASE, FLUSH, DESTROY
        18 | 25 | 38 => Vec::new(),
        26 => init(request),
        _ => return Some(Err(ENOSYS)),
    }))
}

fn init(request: &Request<'_>) -> Vec<u8> {
    const BIG_WRITES: u32 = 1 << 5;
    const MAX_PAGES: u32 = 1 << 22;
    let readahead = request.u32(HEADER_BYTES + 8);
    let (max_write, max_pages) = (WRITE_BYTES_MAX as u32, (WRITE_BYTES_MAX / SECTOR_BYTES) as u16);
    let mut body = Vec::with_capacity(64);
    for word in [7, 31, readahead, BIG_WRITES | MAX_PAGES, 0, max_write, 1] {
        body.extend(word.to_ne_bytes());
    }
    body.extend(max_pages.to_ne_bytes());
    body.resize(64, 0);
    body
}

fn attributes(size: u64) -> Vec<u8> {
    // How long they are good, then the file's: number, size, blocks; times; mode, links, owner, device, block size, flags.
    let mut body = Vec::with_capacity(104);
    for word in [3600, 0, 1, size, size.div_ceil(512), 0, 0, 0] {
        body.extend(u64::to_ne_bytes(word));
    }
    for word in [0, 0, 0, ROOT_MODE, 1, 0, 0, 0, SECTOR_BYTES as u32, 0] {
        body.extend(u32::to_ne_bytes(word));
    }
    body
}
