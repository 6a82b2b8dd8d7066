//! The log's files: the live one, and those rotated away.
//!
//! ```text
//! <id>-json.log               the live file
//! <id>-json.log.1             just rotated, not compressed yet
//! <id>-json.log.1.gz … .4.gz  older and older
//! <id>-json.log.gz.part       being compressed
//! ```
//!
//! Compression runs in a process of its own, so that it costs the monitor neither memory nor a thread. Rotation does not
//! wait for it: what is being compressed may move on meanwhile, and gets its final name when the compressor is done.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use monitor_protocol::Rotated;
use rustix::process::WaitStatus;

use crate::gzip;

/// A log file that is rotated when it is full.
#[derive(Debug)]
pub(crate) struct RotatingFile {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    limits: Limits,
    compression: Option<Compression>,
}

/// How a child has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With exit code 0.
    Well,
    /// Otherwise.
    Badly,
}

impl From<WaitStatus> for Ended {
    fn from(status: WaitStatus) -> Ended {
        if status.exit_status() == Some(0) { Ended::Well } else { Ended::Badly }
    }
}

/// When to rotate, and what to keep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_size_bytes: Option<u64>,
    pub(crate) max_files: u32,
    pub(crate) rotated: Rotated,
}

/// A compressor at work.
#[derive(Debug)]
struct Compression {
    child: Child,
    /// Which rotated file it reads; it grows when files move on. `None` once that file has been deleted.
    index: Option<u32>,
}

/// The log cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} log file {path}")]
pub(crate) struct LogFileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl LogFileError {
    pub(crate) fn new(action: &'static str, path: &Path, source: io::Error) -> LogFileError {
        LogFileError { action, path: path.to_owned(), source }
    }
}

impl RotatingFile {
    /// Opens the live file, going on where an earlier run has stopped.
    pub(crate) fn open(path: &Path, limits: Limits) -> Result<RotatingFile, LogFileError> {
        let failed = |source| LogFileError { action: "open", path: path.to_owned(), source };
        let file = open_live(path, Existing::Continue).map_err(failed)?;
        let size_bytes = file.metadata().map_err(failed)?.len();
        let mut log = RotatingFile { path: path.to_owned(), file, size_bytes, limits, compression: None };
        let _ = fs::remove_file(log.part_path());
        log.compress_next();
        Ok(log)
    }

    /// Whether the next entry belongs into a new file, when `waiting_bytes` are still to be written to this one.
    pub(crate) fn is_full(&self, waiting_bytes: usize) -> bool {
        self.limits.max_size_bytes.is_some_and(|max| self.size_bytes + waiting_bytes as u64 >= max)
    }

    /// Writes whole entries. After a failure none of them is there, not even a part.
    pub(crate) fn write(&mut self, entries: &[u8]) -> Result<(), LogFileError> {
        match self.file.write_all(entries) {
            Ok(()) => {
                self.size_bytes += entries.len() as u64;
                Ok(())
            }
            Err(source) => {
                // A torn line would spoil the next one too.
                let _ = self.file.set_len(self.size_bytes);
                Err(LogFileError { action: "write", path: self.path.clone(), source })
            }
        }
    }

    /// Begins a new live file.
    pub(crate) fn rotate(&mut self) -> Result<(), LogFileError> {
        let failed = |path: &Path, source| LogFileError { action: "rotate", path: path.to_owned(), source };
        let existing = if self.limits.max_files < 2 {
            Existing::Empty
        } else {
            self.shift_rotated();
            fs::rename(&self.path, self.rotated_path(1)).map_err(|source| failed(&self.path, source))?;
            Existing::Continue
        };
        self.file = open_live(&self.path, existing).map_err(|source| failed(&self.path, source))?;
        self.size_bytes = 0;
        self.compress_next();
        Ok(())
    }

    /// Whether the compressor is at work.
    pub(crate) fn is_compressing(&self) -> bool {
        self.compression.is_some()
    }

    /// To be told of every child that was reaped: gives a compressed file its name and starts with the next one.
    pub(crate) fn child_ended(&mut self, pid: i32, ended: Ended) {
        let Some(compression) = self.compression.take_if(|compression| compression.child.id() == pid as u32) else {
            return;
        };
        match compression.index {
            Some(index) if ended == Ended::Well => self.adopt_compressed(index),
            // The source has been deleted meanwhile, or the disk is full: a plain file is as good a log.
            _ => drop(fs::remove_file(self.part_path())),
        }
        if ended == Ended::Well {
            self.compress_next();
        }
    }

    /// Gives up a compressor that somebody else has reaped.
    pub(crate) fn forget_compressor(&mut self) {
        self.compression = None;
    }

    fn adopt_compressed(&self, index: u32) {
        let plain = self.rotated_path(index);
        // In this order a reader may see both, which are the same; in the other one neither.
        if fs::rename(self.part_path(), compressed(&plain)).is_ok() {
            let _ = fs::remove_file(plain);
        }
    }

    /// Makes room at `.1`: the oldest goes, each other one moves up.
    fn shift_rotated(&mut self) {
        let oldest = self.limits.max_files - 1;
        for index in (1..=oldest).rev() {
            let from = self.rotated_path(index);
            let to = (index < oldest).then(|| self.rotated_path(index + 1));
            move_or_remove(&from, to.as_deref());
            move_or_remove(&compressed(&from), to.as_deref().map(compressed).as_deref());
        }
        if let Some(compression) = &mut self.compression {
            compression.index = compression.index.map(|index| index + 1).filter(|index| *index <= oldest);
        }
    }

    /// Starts to compress the oldest plain file, unless one is being compressed already.
    fn compress_next(&mut self) {
        if self.limits.rotated == Rotated::Plain || self.compression.is_some() {
            return;
        }
        let Some(index) = (1..self.limits.max_files).rev().find(|index| self.rotated_path(*index).exists()) else {
            return;
        };
        // Without a compressor (no process to be had) the file stays plain and is tried again at the next rotation.
        if let Ok(child) = self.start_compressor(index) {
            self.compression = Some(Compression { child, index: Some(index) });
        }
    }

    fn start_compressor(&self, index: u32) -> io::Result<Child> {
        let source = File::open(self.rotated_path(index))?;
        let target = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(self.part_path())?;
        let mut command = Command::new("/proc/self/exe");
        command.args(["monitor", gzip::FLAG]).env_clear().stdin(source).stdout(target);
        command.spawn()
    }

    fn rotated_path(&self, index: u32) -> PathBuf {
        with_suffix(&self.path, &format!(".{index}"))
    }

    fn part_path(&self) -> PathBuf {
        with_suffix(&self.path, ".gz.part")
    }
}

impl Drop for RotatingFile {
    fn drop(&mut self) {
        if let Some(compression) = &mut self.compression {
            let _ = compression.child.kill();
            let _ = compression.child.wait();
            let _ = fs::remove_file(self.part_path());
        }
    }
}

/// What becomes of a live file that is there already.
enum Existing {
    Continue,
    Empty,
}

fn open_live(path: &Path, existing: Existing) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).mode(0o640).append(true);
    let file = options.open(path)?;
    if matches!(existing, Existing::Empty) {
        file.set_len(0)?;
    }
    Ok(file)
}

fn move_or_remove(from: &Path, to: Option<&Path>) {
    // Not being there is the usual case, and nothing can be done about the others.
    let _ = match to {
        Some(to) => fs::rename(from, to),
        None => fs::remove_file(from),
    };
}

fn compressed(path: &Path) -> PathBuf {
    with_suffix(path, ".gz")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(max_size_bytes: u64, max_files: u32) -> Limits {
        Limits { max_size_bytes: Some(max_size_bytes), max_files, rotated: Rotated::Plain }
    }

    fn contents(dir: &Path) -> Vec<(String, String)> {
        let mut files: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap()))
            .collect();
        files.sort();
        files
    }

    fn write_rotating(log: &mut RotatingFile, entries: &[&str]) {
        for entry in entries {
            if log.is_full(0) {
                log.rotate().unwrap();
            }
            log.write(entry.as_bytes()).unwrap();
        }
    }

    #[test]
    fn the_oldest_file_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = RotatingFile::open(&dir.path().join("log"), plain(3, 3)).unwrap();
        write_rotating(&mut log, &["one", "two", "three", "four", "5"]);
        let expected = [("log", "5"), ("log.1", "four"), ("log.2", "three")];
        assert_eq!(contents(dir.path()), expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }

    #[test]
    fn one_file_is_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = RotatingFile::open(&dir.path().join("log"), plain(3, 1)).unwrap();
        write_rotating(&mut log, &["one", "two"]);
        assert_eq!(contents(dir.path()), [("log".to_owned(), "two".to_owned())]);
    }

    #[test]
    fn a_new_run_goes_on_in_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        write_rotating(&mut RotatingFile::open(&path, plain(5, 2)).unwrap(), &["old"]);
        let mut log = RotatingFile::open(&path, plain(5, 2)).unwrap();
        write_rotating(&mut log, &["new", "er"]);
        let expected = [("log", "er"), ("log.1", "oldnew")];
        assert_eq!(contents(dir.path()), expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }

    #[test]
    fn waiting_bytes_count() {
        let dir = tempfile::tempdir().unwrap();
        let log = RotatingFile::open(&dir.path().join("log"), plain(3, 3)).unwrap();
        assert!(!log.is_full(2));
        assert!(log.is_full(3));
    }

    #[test]
    fn a_failed_write_leaves_no_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = RotatingFile::open(&path, plain(100, 3)).unwrap();
        log.write(b"whole\n").unwrap();
        log.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = log.write(b"torn\n").unwrap_err();
        assert_eq!(error.to_string(), format!("cannot write log file {}", path.display()));
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole\n");
    }
}
