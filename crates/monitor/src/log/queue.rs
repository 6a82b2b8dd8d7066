//! The non-blocking mode of a log: a writer process does the writing, and what it cannot take in time waits in a buffer of
//! fixed size. What does not fit there is dropped, the newest first, as Docker does.
//!
//! A writer process, because writes to files block whatever one asks for, and a thread would cost the same memory. What the disk does not
//! take it tells on its standard output, a byte a line.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use monitor_protocol::Rotated;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::WaitOptions;

use super::file::{Ended, Limits, LogFileError, RotatingFile};

/// How the monitor's program is told to be a log writer; the file and its limits follow.
pub(crate) const WRITER_FLAG: &str = "--write-log";
/// An empty line in the pipe: no entry is empty, so it can mean "begin a new file".
const ROTATE: &[u8] = b"\n";
/// How much the writer reads at once.
const READ_BYTES: usize = 64 * 1024;

/// Entries on their way to the writer process.
#[derive(Debug)]
pub(crate) struct Queue {
    writer: Option<Child>,
    pipe: Option<ChildStdin>,
    /// A byte for each line that the writer has lost.
    lost: Option<ChildStdout>,
    waiting: Vec<u8>,
    sent: usize,
    limit_bytes: usize,
    /// Lines that waited when the writer was gone.
    stranded: u64,
    /// Nothing more will come.
    closing: bool,
}

impl Queue {
    /// Starts the writer process for the log at `path`.
    pub(crate) fn start(path: &Path, limits: Limits, limit_bytes: u64) -> Result<Queue, LogFileError> {
        // Opened here once, so that a log that cannot be opened is an error of the container's start.
        drop(RotatingFile::open(path, Limits { rotated: Rotated::Plain, ..limits })?);
        let failed = |source| LogFileError::new("start a writer for", path, source);
        let mut writer = command(path, limits).spawn().map_err(failed)?;
        let pipe = writer.stdin.take().ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        let lost = writer.stdout.take().ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        let opened = set_nonblocking(pipe.as_fd()).and_then(|()| set_nonblocking(lost.as_fd()));
        opened.map_err(|error| failed(error.into()))?;
        let limit_bytes = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
        let (pipe, lost) = (Some(pipe), Some(lost));
        let (waiting, stranded) = (Vec::new(), 0);
        Ok(Queue { writer: Some(writer), pipe, lost, waiting, sent: 0, limit_bytes, stranded, closing: false })
    }

    /// Takes whole entries. Fails with the number of those that did not fit.
    pub(crate) fn push(&mut self, entries: &[u8]) -> Result<(), (u64, String)> {
        self.pump();
        let mut dropped = 0;
        for entry in entries.split_inclusive(|byte| *byte == b'\n') {
            if self.pipe.is_some() && self.waiting.len() - self.sent + entry.len() <= self.limit_bytes {
                self.waiting.extend_from_slice(entry);
            } else {
                dropped += 1;
            }
        }
        self.pump();
        if dropped > 0 {
            return Err((dropped, "the buffer of the non-blocking log is full".to_owned()));
        }
        self.lost()
    }

    /// What the writer has lost since this was asked last. Fails with the number of lines.
    pub(crate) fn lost(&mut self) -> Result<(), (u64, String)> {
        let (mut lines, mut bytes) = (std::mem::take(&mut self.stranded), [0; 1024]);
        while let Some(lost) = &mut self.lost {
            match lost.read(&mut bytes) {
                Ok(count @ 1..) => lines += count as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => self.lost = None,
            }
        }
        match lines {
            0 => Ok(()),
            _ => Err((lines, "the writer of the non-blocking log cannot write to its file".to_owned())),
        }
    }

    /// Asks the writer to begin a new file.
    pub(crate) fn rotate(&mut self) {
        self.waiting.extend_from_slice(ROTATE);
        self.pump();
    }

    /// Gives the writer what it takes now.
    pub(crate) fn pump(&mut self) {
        while self.sent < self.waiting.len() {
            let Some(pipe) = &mut self.pipe else { return self.abandon() };
            match pipe.write(&self.waiting[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.give_back(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.pipe = None,
            }
        }
        self.waiting = Vec::new();
        self.sent = 0;
        if self.closing {
            self.pipe = None;
        }
    }

    /// Gives up what waits.
    pub(crate) fn abandon(&mut self) {
        self.stranded += self.waiting[self.sent..].iter().filter(|byte| **byte == b'\n').count() as u64;
        (self.waiting, self.sent, self.pipe) = (Vec::new(), 0, None);
    }

    /// The pipe while something waits for it.
    pub(crate) fn waiting_pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().filter(|_| self.sent < self.waiting.len()).map(AsFd::as_fd)
    }

    /// Lets the writer finish: once it has what waits, the pipe is closed.
    pub(crate) fn close(&mut self) {
        self.closing = true;
        self.pump();
    }

    /// To be told of every child that was reaped.
    pub(crate) fn child_ended(&mut self, pid: i32) {
        if self.writer.take_if(|writer| writer.id() == pid as u32).is_some() {
            self.abandon();
        }
    }

    /// Whether the writer is still there.
    pub(crate) fn is_busy(&self) -> bool {
        self.writer.is_some()
    }

    /// Drops what has been sent when that is the larger part.
    fn give_back(&mut self) {
        if self.sent > self.waiting.len() / 2 {
            self.waiting.drain(..self.sent);
            self.sent = 0;
        }
    }
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> rustix::io::Result<()> {
    rustix::fs::fcntl_setfl(fd, OFlags::NONBLOCK)
}

fn command(path: &Path, limits: Limits) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["monitor", WRITER_FLAG])
        .arg(path)
        .args(limits_to_args(limits))
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

fn limits_to_args(limits: Limits) -> [String; 3] {
    let max_size = limits.max_size_bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
    let rotated = match limits.rotated {
        Rotated::Plain => "plain",
        Rotated::Compressed => "compressed",
    };
    [max_size, limits.max_files.to_string(), rotated.to_owned()]
}

fn limits_from_args(args: &[String]) -> Option<Limits> {
    let [max_size, max_files, rotated] = args else { return None };
    let max_size_bytes = if max_size == "-" { None } else { Some(max_size.parse().ok()?) };
    let rotated = match rotated.as_str() {
        "plain" => Rotated::Plain,
        "compressed" => Rotated::Compressed,
        _ => return None,
    };
    Some(Limits { max_size_bytes, max_files: max_files.parse().ok()?, rotated })
}

/// The writer process: entries from standard input into the log.
pub(crate) fn run_writer(args: &[String]) -> io::Result<()> {
    let usage = || io::Error::new(io::ErrorKind::InvalidInput, "the log writer needs a file and its limits");
    let (path, limits) = args.split_first().ok_or_else(usage)?;
    let limits = limits_from_args(limits).ok_or_else(usage)?;
    let mut log = RotatingFile::open(&PathBuf::from(path), limits).map_err(io::Error::other)?;
    let mut source = BufReader::with_capacity(READ_BYTES, io::stdin().lock());
    // Whoever counts is gone where this cannot be written, and waits for this process where it is full.
    write_all_entries(&mut source, &mut log, &mut || {
        let _ = rustix::io::write(io::stdout(), b".");
    });
    while log.is_compressing() {
        reap(&mut log, WaitOptions::empty());
    }
    Ok(())
}

/// Calls `lost` for each entry that could not be written.
fn write_all_entries(source: &mut impl BufRead, log: &mut RotatingFile, lost: &mut dyn FnMut()) {
    let mut entry = Vec::new();
    while source.read_until(b'\n', &mut entry).is_ok_and(|count| count > 0) {
        if entry == ROTATE || log.is_full(0) {
            reap(log, WaitOptions::NOHANG);
            // Without a new file the old one goes on growing, which is better than losing lines.
            let _ = log.rotate();
        }
        if entry != ROTATE {
            // As on a full disk.
            if log.write(&entry).is_err() {
                lost();
            }
        }
        entry.clear();
    }
}

fn reap(log: &mut RotatingFile, options: WaitOptions) {
    match rustix::process::wait(options) {
        Ok(Some((pid, status))) => log.child_ended(pid.as_raw_nonzero().get(), Ended::from(status)),
        Err(Errno::CHILD) => log.forget_compressor(),
        Ok(None) | Err(_) => {}
    }
}

/// A queue whose writer is `pipe`'s other end, for tests.
#[cfg(test)]
fn queue_into(pipe: std::os::fd::OwnedFd, limit_bytes: usize) -> Queue {
    set_nonblocking(pipe.as_fd()).unwrap();
    let pipe = Some(ChildStdin::from(pipe));
    Queue { writer: None, pipe, lost: None, waiting: Vec::new(), sent: 0, limit_bytes, stranded: 0, closing: false }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;

    use super::*;

    #[test]
    fn what_does_not_fit_is_dropped_whole_and_counted() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let pipe_size = rustix::pipe::fcntl_getpipe_size(&write).unwrap();
        let mut queue = queue_into(write, 100);
        let filling = [&vec![b'x'; pipe_size - 1][..], b"\n"].concat();
        queue.limit_bytes = pipe_size;
        queue.push(&filling).unwrap();
        queue.limit_bytes = 100;
        assert!(queue.waiting_pipe().is_none());
        let (dropped, _) = queue.push("twenty bytes of text\n".repeat(10).as_bytes()).unwrap_err();
        assert_eq!(dropped, 6);
        assert!(queue.waiting_pipe().is_some());
        let mut received = vec![0; pipe_size];
        let mut reader = fs::File::from(read);
        reader.read_exact(&mut received).unwrap();
        queue.close();
        assert!(queue.waiting_pipe().is_none());
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "twenty bytes of text\n".repeat(4));
    }

    #[test]
    fn closing_waits_for_nobody_and_what_is_given_up_is_counted() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let pipe_size = rustix::pipe::fcntl_getpipe_size(&write).unwrap();
        let mut queue = queue_into(write, 2 * pipe_size);
        queue.push(&[&vec![b'x'; pipe_size - 1][..], b"\none\ntwo\n"].concat()).unwrap();
        queue.close();
        assert!(queue.waiting_pipe().is_some(), "nobody reads");
        queue.abandon();
        assert_eq!(queue.lost().unwrap_err().0, 2);
        drop(read);
    }

    #[test]
    fn the_writer_writes_and_rotates() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let limits = Limits { max_size_bytes: Some(8), max_files: 3, rotated: Rotated::Plain };
        let mut log = RotatingFile::open(&path, limits).unwrap();
        write_all_entries(&mut &b"one\ntwo\nthree\n\nfour\n"[..], &mut log, &mut || panic!("nothing is lost"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "four\n");
        assert_eq!(fs::read_to_string(dir.path().join("log.1")).unwrap(), "three\n");
        assert_eq!(fs::read_to_string(dir.path().join("log.2")).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn the_writer_tells_what_the_disk_does_not_take() {
        let limits = Limits { max_size_bytes: None, max_files: 1, rotated: Rotated::Plain };
        let mut log = RotatingFile::open(Path::new("/dev/full"), limits).unwrap();
        let mut lost = 0;
        write_all_entries(&mut &b"one\ntwo\nthree\n"[..], &mut log, &mut || lost += 1);
        assert_eq!(lost, 3);
    }

    #[test]
    fn limits_survive_the_command_line() {
        for max_size_bytes in [None, Some(5)] {
            let limits = Limits { max_size_bytes, max_files: 3, rotated: Rotated::Compressed };
            let back = limits_from_args(&limits_to_args(limits)).unwrap();
            assert_eq!((back.max_size_bytes, back.max_files, back.rotated), (max_size_bytes, 3, Rotated::Compressed));
        }
        assert!(limits_from_args(&["x".to_owned(), "1".to_owned(), "plain".to_owned()]).is_none());
    }
}
