//! A container whose process nobody can end, because its file system does not answer: it delays nothing but itself.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use harness::Engine;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::waits::wait_until;

/// A FUSE file system with one file, `file`, that is opened and never read. Without it, or its thread, the kernel lets everybody go.
struct Silent {
    folder: PathBuf,
    /// Says that a reader waits: from now on no signal reaches it.
    readers: Receiver<()>,
    stop: Option<rustix::fd::OwnedFd>,
    server: Option<std::thread::JoinHandle<()>>,
}

impl Silent {
    fn mount(folder: &Path) -> Self {
        std::fs::create_dir(folder).unwrap();
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let options = std::ffi::CString::new(options).unwrap();
        mount("silent", folder, "fuse", MountFlags::empty(), Some(options.as_c_str())).unwrap();
        let (sender, readers) = channel();
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let server = std::thread::spawn(move || {
            loop {
                let mut ready = [PollFd::new(&device, PollFlags::IN), PollFd::new(&stopped, PollFlags::IN)];
                poll(&mut ready, None).unwrap();
                if !ready[1].revents().is_empty() {
                    return;
                }
                let mut request = vec![0; 1 << 17];
                let length = (&device).read(&mut request).unwrap();
                match answer(&request[..length]) {
                    Answer::Say(error, bytes) => reply(&device, &request, error, &bytes),
                    Answer::Nothing => {}
                    Answer::Never => drop(sender.send(())),
                }
            }
        });
        Self { folder: folder.to_owned(), readers, stop: Some(stop), server: Some(server) }
    }

    fn wait_for_reader(&self) {
        self.readers.recv_timeout(Duration::from_secs(60)).expect("nobody reads the file");
    }

    /// Lets everybody go.
    fn give_up(mut self) {
        self.stop.take();
        self.server.take().expect("it runs").join().unwrap();
        unmount(&self.folder, UnmountFlags::DETACH).unwrap();
    }
}

enum Answer {
    Say(i32, Vec<u8>),
    /// The kernel expects none.
    Nothing,
    Never,
}

/// What is said to a request of the protocol in linux/fuse.h.
fn answer(request: &[u8]) -> Answer {
    let node = u64::from_ne_bytes(request[16..24].try_into().unwrap());
    match u32::from_ne_bytes(request[4..8].try_into().unwrap()) {
        // LOOKUP
        1 if request[40..].starts_with(b"file\0") => {
            let validity = [[2_u64, 0, 3600, 3600, 0].map(u64::to_ne_bytes).concat(), attributes(2)];
            Answer::Say(0, validity.concat())
        }
        1 => Answer::Say(-2, Vec::new()),
        // FORGET, INTERRUPT, BATCH_FORGET
        2 | 36 | 42 => Answer::Nothing,
        // GETATTR
        3 => Answer::Say(0, [[3600_u64, 0].map(u64::to_ne_bytes).concat(), attributes(node)].concat()),
        // OPEN, OPENDIR
        14 | 27 => Answer::Say(0, vec![0; 16]),
        // READ
        15 => Answer::Never,
        // INIT: version 7.31, and otherwise what the kernel likes.
        26 => {
            let mut bytes = vec![0; 64];
            bytes[..4].copy_from_slice(&7_u32.to_ne_bytes());
            bytes[4..8].copy_from_slice(&31_u32.to_ne_bytes());
            bytes[20..24].copy_from_slice(&4096_u32.to_ne_bytes());
            Answer::Say(0, bytes)
        }
        // FLUSH, RELEASE, RELEASEDIR
        18 | 25 | 29 => Answer::Say(0, Vec::new()),
        // ENOSYS
        _ => Answer::Say(-38, Vec::new()),
    }
}

/// A folder for node 1, a file of a page for every other.
fn attributes(node: u64) -> Vec<u8> {
    let (mode, size) = if node == 1 { (0o040_755_u32, 0) } else { (0o100_644, 4096) };
    let times = [0_u64; 3];
    let numbers = [[node, size, size / 512].as_slice(), &times].concat();
    // Nanoseconds of three times; mode, links, user, group, device, block size, flags.
    let words = [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0_u32];
    let bytes = numbers.iter().flat_map(|number| number.to_ne_bytes());
    bytes.chain(words.iter().flat_map(|word| word.to_ne_bytes())).collect()
}

fn reply(mut device: &File, request: &[u8], error: i32, bytes: &[u8]) {
    let length = u32::try_from(16 + bytes.len()).unwrap();
    let message = [&length.to_ne_bytes()[..], &error.to_ne_bytes(), &request[8..16], bytes].concat();
    // Who asked may have been interrupted.
    let _ = device.write_all(&message);
}

#[test]
fn a_process_that_cannot_be_killed_delays_nobody_else() {
    let mut engine = Engine::with_busybox();
    let silent = Silent::mount(&engine.host().files().join("silent"));
    let bind = format!("{}:/silent", silent.folder.display());
    engine.docker(["run", "-d", "--name", "other", "busybox", "sleep", "1000"]).ok();
    engine.docker(["run", "-d", "--name", "stuck", "-v", &bind, "busybox", "cat", "/silent/file"]).ok();
    silent.wait_for_reader();
    let mut kill = engine.docker(["kill", "stuck"]).spawn();
    let mut remove = engine.docker(["rm", "-f", "stuck"]).spawn();
    let mut stop = engine.docker(["stop", "-t", "0", "stuck"]).spawn();
    all_others_go_on(&engine);
    engine.kill();
    for client in [&mut kill, &mut remove, &mut stop] {
        client.wait().unwrap();
    }
    engine.launch();
    let state = engine.docker(["inspect", "--format", "{{.State.Status}}", "stuck"]).ok();
    assert_eq!(state, "running", "nobody may say that it has ended");
    all_others_go_on(&engine);
    silent.give_up();
    assert_eq!(engine.docker(["wait", "stuck"]).ok(), "137");
    engine.docker(["rm", "-f", "stuck", "other"]).ok();
    engine.finish();
}

/// Each goes on while somebody waits for the end of what cannot end.
fn all_others_go_on(engine: &Engine) {
    let calls: [&[&str]; 10] = [
        &["ps", "--format", "{{.Names}}"],
        &["inspect", "stuck"],
        &["logs", "stuck"],
        &["exec", "other", "true"],
        &["stats", "--no-stream"],
        &["system", "df"],
        &["run", "--rm", "busybox", "true"],
        &["restart", "-t", "0", "other"],
        &["kill", "-s", "WINCH", "other"],
        &["container", "prune", "-f"],
    ];
    let mut removals = Vec::new();
    for words in calls {
        let went_on = (0..ATTEMPTS).any(|_| {
            let mut removal = begin_removal(engine);
            engine.docker(words).ok();
            let still_waits = removal.try_wait().unwrap().is_none();
            removals.push(removal);
            still_waits
        });
        assert!(went_on, "{words:?} ends only after the removal of what cannot end");
    }
    // None is left that would remove it as soon as it ends.
    for mut removal in removals {
        removal.wait().unwrap();
    }
    let names = engine.docker(["ps", "--format", "{{.Names}}"]).ok();
    assert_eq!(names.lines().count(), 2, "{names}");
}

/// How often a call may end after the removal, which gives up some time: it may have been slow, and not have waited for it.
const ATTEMPTS: usize = 4;

/// Begins to remove what cannot end; returns when its signal has been sent.
fn begin_removal(engine: &Engine) -> Child {
    let before = kills(engine);
    let removal = engine.docker(["rm", "-f", "stuck"]).spawn();
    wait_until("the signal is sent", || kills(engine) > before);
    removal
}

/// How many signals it has been sent.
fn kills(engine: &Engine) -> usize {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let until = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
    let filters = ["--filter", "container=stuck", "--filter", "event=kill"];
    let words = [&["events", "--since", "1", "--until", &until], filters.as_slice(), &["--format", "{{.Action}}"]];
    engine.docker(words.concat()).ok().lines().count()
}
