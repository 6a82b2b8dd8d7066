use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use monitor_protocol::{DetachKeys, FdIndex, Framing, Streams as Wanted, Target};
use rustix::event::{PollFd, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use super::*;

/// A process's side of the pipes, and ours.
struct Rig {
    streams: Streams,
    stdin: std::fs::File,
    stdout: Option<std::fs::File>,
    stderr: Option<std::fs::File>,
    log: Log,
    scratch: Vec<u8>,
    now: Instant,
}

/// The reading and the writing end of a pipe, of which `ours` does not block.
fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap()
}

fn rig(mode: StdinMode) -> Rig {
    let (stdin_read, stdin_write) = pipe();
    let (stdout_read, stdout_write) = pipe();
    let (stderr_read, stderr_write) = pipe();
    Rig {
        streams: Streams::pipes(Some(stdin_write), mode, stdout_read, stderr_read),
        stdin: stdin_read.into(),
        stdout: Some(stdout_write.into()),
        stderr: Some(stderr_write.into()),
        log: Log::None,
        scratch: vec![0; 65_536],
        now: Instant::now(),
    }
}

impl Rig {
    fn attach(&mut self, number: u64, framing: Framing, keys: DetachKeys) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let attach = Attach {
            id: AttachId(number),
            target: Target::Container,
            socket: FdIndex(0),
            streams: Wanted::ALL,
            framing,
            detach_keys: keys,
            early_input: Vec::new(),
        };
        self.streams.attach(&attach, ours.into());
        theirs
    }

    /// Turns the loop until nothing is ready.
    fn turn(&mut self) {
        while self.turn_once() {}
    }

    fn turn_once(&mut self) -> bool {
        let mut fds = Vec::new();
        let mut events = Vec::new();
        self.streams.interests(&mut |fd, flags, event| {
            fds.push(PollFd::from_borrowed_fd(fd, flags));
            events.push(event);
        });
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 })).unwrap();
        let ready: Vec<_> =
            fds.iter().map(PollFd::revents).zip(events).filter(|(ready, _)| !ready.is_empty()).collect();
        drop(fds);
        for (flags, event) in &ready {
            let mut around =
                Surroundings { log: &mut self.log, scratch: &mut self.scratch, time: UnixNanos(0), now: self.now };
            self.streams.on(*event, *flags, &mut around);
        }
        !ready.is_empty()
    }

    fn end_process(&mut self) {
        let mut around =
            Surroundings { log: &mut self.log, scratch: &mut self.scratch, time: UnixNanos(0), now: self.now };
        self.streams.process_ended(&mut around);
    }

    fn drained(&mut self) -> bool {
        let mut around =
            Surroundings { log: &mut self.log, scratch: &mut self.scratch, time: UnixNanos(0), now: self.now };
        self.streams.drained(&mut around)
    }

    fn print(&mut self, text: &[u8]) {
        self.stdout.as_mut().unwrap().write_all(text).unwrap();
    }

    fn input(&mut self) -> String {
        let mut bytes = [0; 1000];
        match self.stdin.read(&mut bytes) {
            Ok(count) => String::from_utf8(bytes[..count].to_vec()).unwrap(),
            Err(_) => "(nothing)".to_owned(),
        }
    }
}

fn receive(client: &mut UnixStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    client.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn output_goes_to_everybody_in_his_framing() {
    let mut rig = rig(StdinMode::Open);
    let mut raw = rig.attach(1, Framing::Raw, DetachKeys::NONE);
    let mut framed = rig.attach(2, Framing::Multiplexed, DetachKeys::NONE);
    rig.print(b"out");
    rig.turn();
    rig.stderr.as_mut().unwrap().write_all(b"err!").unwrap();
    rig.turn();
    assert_eq!(receive(&mut raw, 7), b"outerr!");
    assert_eq!(receive(&mut framed, 23), b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x04err!");
}

#[test]
fn input_comes_from_everybody() {
    let mut rig = rig(StdinMode::Open);
    let mut one = rig.attach(1, Framing::Raw, DetachKeys::NONE);
    let mut two = rig.attach(2, Framing::Raw, DetachKeys::NONE);
    one.write_all(b"one ").unwrap();
    rig.turn();
    two.write_all(b"two").unwrap();
    rig.turn();
    assert_eq!(rig.input(), "one two");
}

#[test]
fn input_that_may_be_given_once_ends_with_the_client() {
    let mut rig = rig(StdinMode::Once);
    let mut client = rig.attach(1, Framing::Raw, DetachKeys::NONE);
    client.write_all(b"last").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    rig.turn();
    assert_eq!(rig.input(), "last");
    assert_eq!(rig.input(), "");
    rig.print(b"answer");
    rig.turn();
    assert_eq!(receive(&mut client, 6), b"answer");
    assert_eq!(rig.streams.attached().count(), 1);
}

#[test]
fn a_client_without_input_stays_for_the_output() {
    let mut rig = rig(StdinMode::Open);
    let mut client = rig.attach(1, Framing::Raw, DetachKeys::NONE);
    client.shutdown(Shutdown::Write).unwrap();
    rig.turn();
    assert_eq!(rig.streams.take_ended(), []);
    assert_eq!(rig.input(), "(nothing)");
    rig.print(b"still here");
    rig.turn();
    assert_eq!(receive(&mut client, 10), b"still here");
    drop(client);
    rig.turn();
    assert_eq!(rig.streams.take_ended(), [(AttachId(1), AttachEnd::HungUp)]);
}

#[test]
fn a_client_without_input_leaves_a_terminal() {
    let mut rig = rig(StdinMode::Open);
    rig.streams.terminal = true;
    let mut client = rig.attach(1, Framing::Raw, DetachKeys::NONE);
    client.shutdown(Shutdown::Write).unwrap();
    rig.turn();
    assert_eq!(rig.streams.take_ended(), [(AttachId(1), AttachEnd::InputEnded)]);
    assert_eq!(client.read(&mut [0; 10]).unwrap(), 0);
}

#[test]
fn a_client_that_hangs_up_is_noticed_though_it_only_listens() {
    let mut rig = rig(StdinMode::Null);
    let client = rig.attach(1, Framing::Raw, DetachKeys::NONE);
    rig.turn();
    drop(client);
    rig.turn();
    assert_eq!(rig.streams.take_ended(), [(AttachId(1), AttachEnd::HungUp)]);
}

#[test]
fn detach_keys_end_one_client_only() {
    let mut rig = rig(StdinMode::Open);
    let mut leaving = rig.attach(1, Framing::Raw, DetachKeys::standard());
    let mut staying = rig.attach(2, Framing::Raw, DetachKeys::standard());
    leaving.write_all(b"bye\x10\x11lost").unwrap();
    rig.turn();
    assert_eq!(rig.streams.take_ended(), [(AttachId(1), AttachEnd::DetachKeys)]);
    assert_eq!(rig.input(), "bye");
    // Its unread input does not reset the connection.
    assert_eq!(leaving.read(&mut [0; 10]).unwrap(), 0);
    rig.print(b"more");
    rig.turn();
    assert_eq!(receive(&mut staying, 4), b"more");
}

#[test]
fn a_slow_client_slows_the_process_and_loses_nothing() {
    let mut rig = rig(StdinMode::Null);
    let mut client = rig.attach(1, Framing::Raw, DetachKeys::NONE);
    let chunk: Vec<u8> = (0..60_000u32).map(|n| n as u8).collect();
    let mut written = Vec::new();
    loop {
        rig.turn();
        match rig.stdout.as_mut().unwrap().write(&chunk) {
            Ok(count) => written.extend_from_slice(&chunk[..count]),
            Err(_) => break,
        }
        assert!(written.len() < 10_000_000, "nothing holds the process back");
    }
    assert!(rig.streams.clients[0].backlog_bytes() <= rig.scratch.len() + 8);
    rig.end_process();
    rig.stdout = None;
    rig.stderr = None;
    rig.turn();
    assert!(rig.drained());
    rig.streams.release(rig.now);
    assert!(!rig.streams.is_done());
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).unwrap();
        bytes
    });
    while !rig.streams.is_done() {
        rig.turn_once();
        rig.streams.take_ended();
    }
    assert_eq!(reader.join().unwrap(), written);
}

#[test]
fn a_grandchild_that_holds_the_pipes_does_not_hang_us() {
    let mut rig = rig(StdinMode::Null);
    rig.print(b"last words");
    let mut client = rig.attach(1, Framing::Raw, DetachKeys::NONE);
    rig.end_process();
    assert_eq!(receive(&mut client, 10), b"last words");
    assert!(!rig.drained());
    rig.now += DRAIN_QUIET;
    assert!(rig.drained());
    assert_eq!(rig.streams.take_ended(), []);
    rig.streams.release(rig.now);
    assert_eq!(rig.streams.take_ended(), [(AttachId(1), AttachEnd::ProcessEnded)]);
    assert!(rig.streams.is_done());
}

#[test]
fn a_client_that_never_reads_is_given_up_at_last() {
    let mut rig = rig(StdinMode::Null);
    let _client = rig.attach(1, Framing::Raw, DetachKeys::NONE);
    rig.streams.clients[0].deliver(Stream::Stdout, &vec![0; 900_000]);
    rig.end_process();
    rig.now += DRAIN_LIMIT;
    assert!(rig.drained());
    rig.streams.release(rig.now);
    assert_eq!(rig.streams.deadline(), Some(rig.now + CLIENT_LIMIT));
    rig.streams.tick(rig.now + CLIENT_LIMIT);
    rig.streams.take_ended();
    assert!(rig.streams.is_done());
    assert_eq!(rig.streams.deadline(), None, "what is over wakes nobody");
}

#[test]
fn input_nobody_listens_to_is_thrown_away() {
    let mut rig = rig(StdinMode::Once);
    let mut client = rig.attach(1, Framing::Raw, DetachKeys::NONE);
    rig.stdin = std::fs::File::open("/dev/null").unwrap();
    for _ in 0..100 {
        client.write_all(&[b'x'; 10_000]).unwrap();
        rig.turn();
    }
    rig.print(b"still here");
    rig.turn();
    assert_eq!(receive(&mut client, 10), b"still here");
}

#[test]
fn a_process_that_does_not_read_holds_the_client_back() {
    let mut rig = rig(StdinMode::Once);
    let mut client = rig.attach(1, Framing::Raw, DetachKeys::NONE);
    client.set_nonblocking(true).unwrap();
    let mut sent = 0;
    loop {
        rig.turn();
        match client.write(&[b'x'; 10_000]) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
        assert!(sent < 10_000_000, "nothing holds the client back");
    }
    client.shutdown(Shutdown::Write).unwrap();
    let mut received = 0;
    loop {
        let mut bytes = [0; 4096];
        match rig.stdin.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) => received += count,
            Err(_) => drop(rig.turn_once()),
        }
    }
    assert_eq!(received, sent);
}

#[test]
fn a_thousand_clients_come_and_go() {
    let mut rig = rig(StdinMode::Open);
    for number in 0..1000 {
        let client = rig.attach(number, Framing::Raw, DetachKeys::NONE);
        drop(client);
        rig.turn();
        assert_eq!(rig.streams.take_ended().len(), 1);
    }
    assert!(rig.streams.clients.is_empty());
    assert!(rig.streams.outputs[0].ready_fd().unwrap().as_fd().try_clone_to_owned().is_ok());
}
