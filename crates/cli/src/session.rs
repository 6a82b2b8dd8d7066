//! A user joined to a process's streams: copies bytes both ways, passes signals and sizes on, until the process ends.
//!
//! One loop over four descriptors, no threads:
//!
//! ```text
//! standard input ──▶ socket ──▶ standard output, standard error
//! signals        ──▶ requests of their own (kill, resize)
//! ```

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use api_client::{Hijacked, Socket};
use docker_api::{FRAME_HEADER_LEN, FrameHeader, StreamKind};
use linux::signal::SignalSet;
use rustix::event::{PollFd, PollFlags, poll};

use crate::terminal::RawMode;

/// Bytes copied at a time.
const CHUNK: usize = 32 * 1024;
/// The longest payload of one frame that is believed.
const MAX_FRAME: u32 = 16 * 1024 * 1024;

/// How bytes come over the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// As the process wrote them: a terminal.
    Raw,
    /// With Docker's headers of eight bytes.
    Multiplexed,
}

/// What happens besides copying.
pub(crate) trait Watcher {
    /// A signal came for this program.
    fn signal(&mut self, signal: i32);
}

/// Signals taken from their usual course, to be passed on.
#[derive(Debug)]
pub(crate) struct Signals {
    descriptor: OwnedFd,
}

/// SIGWINCH, which tells of a new size of the terminal.
pub(crate) const WINDOW_CHANGED: i32 = 28;

/// Signals that `--sig-proxy` passes on: HUP, INT, QUIT, USR1, USR2, ALRM, TERM, CONT.
const PASSED_ON: [i32; 8] = [1, 2, 3, 10, 12, 14, 15, 18];

impl Signals {
    /// Takes SIGWINCH, and with `proxy` the signals that are passed on.
    pub(crate) fn take(proxy: bool) -> io::Result<Self> {
        let passed: &[i32] = if proxy { &PASSED_ON } else { &[] };
        let set = passed.iter().fold(SignalSet::default().with(WINDOW_CHANGED), |set, signal| set.with(*signal));
        linux::signal::set_mask(set)?;
        Ok(Self { descriptor: linux::signal::descriptor(set)? })
    }
}

/// Copies until the other side closes; standard input's end is passed on as a half-close.
pub(crate) fn run(
    stream: Hijacked,
    framing: Framing,
    input: Input,
    signals: &Signals,
    watcher: &mut dyn Watcher,
) -> io::Result<()> {
    let (socket, early) = stream.into_parts();
    let mut session = Session { socket, output: Output::new(framing), reading: input == Input::Forwarded };
    session.output.write(&early)?;
    if input == Input::Closed {
        // The process may have ended already.
        let _ = session.socket.close_write();
    }
    while session.step(signals, watcher)? == Step::Goes {}
    Ok(())
}

/// What becomes of standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// It goes to the process.
    Forwarded,
    /// The process reads its end at once.
    Closed,
    /// It is left alone, and the process's input too.
    Untouched,
}

/// Makes the terminal raw where keys must reach the process as they are typed.
pub(crate) fn raw_mode(framing: Framing, input: Input) -> Option<RawMode> {
    (framing == Framing::Raw && input == Input::Forwarded).then(RawMode::enter).flatten()
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Goes,
    Ended,
}

struct Session {
    socket: Socket,
    output: Output,
    reading: bool,
}

impl Session {
    fn step(&mut self, signals: &Signals, watcher: &mut dyn Watcher) -> io::Result<Step> {
        let stdin = rustix::stdio::stdin();
        let [input, output, signal] = self.wait(stdin, signals)?;
        if signal && let Some(number) = linux::signal::read_descriptor(signals.descriptor.as_fd())? {
            watcher.signal(number);
        }
        if output && self.copy_output()? == Step::Ended {
            return Ok(Step::Ended);
        }
        if input {
            self.copy_input()?;
        }
        Ok(Step::Goes)
    }

    fn wait(&self, stdin: BorrowedFd<'_>, signals: &Signals) -> io::Result<[bool; 3]> {
        let input = if self.reading { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = [
            PollFd::from_borrowed_fd(stdin, input),
            PollFd::new(&self.socket, PollFlags::IN),
            PollFd::new(&signals.descriptor, PollFlags::IN),
        ];
        // A descriptor at its end is always ready: it is left out once nothing is wanted of it.
        let from = usize::from(!self.reading);
        match poll(&mut fds[from..], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        Ok([self.reading && ready(&fds[0]), ready(&fds[1]), ready(&fds[2])])
    }

    fn copy_output(&mut self) -> io::Result<Step> {
        let mut buffer = [0; CHUNK];
        match self.socket.read(&mut buffer) {
            Ok(0) => Ok(Step::Ended),
            Ok(count) => self.output.write(&buffer[..count]).map(|()| Step::Goes),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Step::Ended),
            Err(error) => Err(error),
        }
    }

    fn copy_input(&mut self) -> io::Result<()> {
        let mut buffer = [0; CHUNK];
        let count = io::stdin().read(&mut buffer).unwrap_or(0);
        let written = match count {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => self.socket.write_all(&buffer[..count]),
        };
        if written.is_err() {
            // Either our input has ended or the process no longer reads: both end this direction only.
            self.reading = false;
            let _ = self.socket.close_write();
        }
        Ok(())
    }
}

/// Puts bytes of the socket on the right standard stream.
#[derive(Debug)]
pub(crate) struct Output {
    framing: Framing,
    header: Vec<u8>,
    /// The stream of the frame being copied, and what is left of it.
    frame: Option<(StreamKind, u32)>,
}

impl Output {
    pub(crate) fn new(framing: Framing) -> Self {
        Self { framing, header: Vec::with_capacity(FRAME_HEADER_LEN), frame: None }
    }

    /// Writes what these bytes hold; a frame may be cut anywhere.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.framing {
            Framing::Raw => write_to(StreamKind::Stdout, bytes),
            Framing::Multiplexed => self.write_frames(bytes),
        }
    }

    fn write_frames(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            bytes = match self.frame {
                Some((kind, left)) => {
                    let take = bytes.len().min(left as usize);
                    write_to(kind, &bytes[..take])?;
                    let left = left - take as u32;
                    self.frame = (left > 0).then_some((kind, left));
                    &bytes[take..]
                }
                None => self.read_header(bytes)?,
            };
        }
        Ok(())
    }

    fn read_header<'a>(&mut self, bytes: &'a [u8]) -> io::Result<&'a [u8]> {
        let take = bytes.len().min(FRAME_HEADER_LEN - self.header.len());
        self.header.extend_from_slice(&bytes[..take]);
        if let Ok(header) = <[u8; FRAME_HEADER_LEN]>::try_from(self.header.as_slice()) {
            let header = FrameHeader::decode(header).filter(|header| header.len <= MAX_FRAME);
            let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the engine sent a malformed frame");
            let header = header.ok_or_else(wrong)?;
            self.header.clear();
            self.frame = (header.len > 0).then_some((header.stream, header.len));
        }
        Ok(&bytes[take..])
    }
}

fn write_to(kind: StreamKind, bytes: &[u8]) -> io::Result<()> {
    match kind {
        StreamKind::Stdin | StreamKind::Stdout => {
            let mut out = io::stdout().lock();
            out.write_all(bytes)?;
            out.flush()
        }
        StreamKind::Stderr | StreamKind::SystemError => io::stderr().write_all(bytes),
    }
}
