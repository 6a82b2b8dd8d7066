//! A new process's standard streams: its ends, and ours.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use monitor_protocol::{StdinMode, Stdio, WindowSize};
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::streams::Streams;

/// The ends that the process gets.
#[derive(Debug)]
pub(crate) enum ProcessEnds {
    /// Standard input, output and error.
    Fds([OwnedFd; 3]),
    /// A terminal, which whoever makes the process makes too, and hands us the master of.
    Terminal { size: Option<WindowSize> },
}

/// The ends that stay here.
#[derive(Debug)]
pub(crate) enum OurEnds {
    Nothing,
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    Terminal,
}

/// Whether anybody sees the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// A log, or a client.
    Some,
    /// Nobody: pipes would only be read to be thrown away.
    Nobody,
}

/// The streams of a process cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the standard streams")]
pub(crate) struct StdioError(#[from] std::io::Error);

/// Makes both ends.
pub(crate) fn prepare(stdio: &Stdio, audience: Audience) -> Result<(ProcessEnds, OurEnds), StdioError> {
    match stdio {
        Stdio::Terminal { size, .. } => Ok((ProcessEnds::Terminal { size: *size }, OurEnds::Terminal)),
        Stdio::Pipes { .. } if audience == Audience::Nobody => {
            let ends = [dev_null()?.into(), dev_null()?.into(), dev_null()?.into()];
            Ok((ProcessEnds::Fds(ends), OurEnds::Nothing))
        }
        Stdio::Pipes { stdin } => pipes(*stdin),
    }
}

fn pipes(mode: StdinMode) -> Result<(ProcessEnds, OurEnds), StdioError> {
    let (process_stdin, stdin) = match mode {
        StdinMode::Null => (dev_null()?.into(), None),
        StdinMode::Open | StdinMode::Once => {
            let (read, write) = pipe()?;
            set_nonblocking(write.as_fd(), OFlags::WRONLY)?;
            (read, Some(write))
        }
    };
    let ((stdout, process_stdout), (stderr, process_stderr)) = (pipe()?, pipe()?);
    set_nonblocking(stdout.as_fd(), OFlags::RDONLY)?;
    set_nonblocking(stderr.as_fd(), OFlags::RDONLY)?;
    let ends = [process_stdin, process_stdout, process_stderr];
    Ok((ProcessEnds::Fds(ends), OurEnds::Pipes { stdin, stdout, stderr }))
}

impl OurEnds {
    /// The streams; `console` is the terminal's master, where one was made.
    pub(crate) fn into_streams(self, stdio: &Stdio, console: Option<OwnedFd>) -> Result<Streams, StdioError> {
        let (Stdio::Pipes { stdin: mode } | Stdio::Terminal { stdin: mode, .. }) = *stdio;
        match (self, console) {
            (OurEnds::Pipes { stdin, stdout, stderr }, _) => Ok(Streams::pipes(stdin, mode, stdout, stderr)),
            (OurEnds::Terminal, Some(master)) => {
                set_nonblocking(master.as_fd(), OFlags::RDWR)?;
                let input = master.try_clone()?;
                Ok(Streams::terminal(master, input, mode))
            }
            (OurEnds::Terminal, None) | (OurEnds::Nothing, _) => Ok(Streams::null()),
        }
    }
}

fn dev_null() -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/null")
}

fn pipe() -> std::io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}

/// Our end alone: the other one is another open file, and programs expect it to block.
fn set_nonblocking(fd: BorrowedFd<'_>, access: OFlags) -> std::io::Result<()> {
    Ok(rustix::fs::fcntl_setfl(fd, access | OFlags::NONBLOCK)?)
}
