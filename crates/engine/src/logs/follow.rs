//! What a log will hold: the live file from a position on, through rotations, until the container has ended.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::Sink;
use super::line::{self, Reading};
use crate::containers::Progress;
use crate::model::{LogEntry, LogQuery};

/// How much is read before the client is served.
const CHUNK: usize = 64 << 10;
/// A line longer than this is no record.
const MAX_LINE: usize = 1 << 20;

/// A place in a log: the live file, how far it is read, and the beginning of a line that is not whole yet.
#[derive(Debug)]
pub(super) struct Position {
    path: PathBuf,
    file: Option<File>,
    offset: u64,
    unfinished: Vec<u8>,
}

/// Tells when something happens in the log's folder.
#[derive(Debug)]
pub(super) struct Watcher {
    inotify: AsyncFd<OwnedFd>,
}

impl Position {
    /// In the live file, if there is one yet.
    pub(super) fn new(path: &Path, file: Option<File>, offset: u64) -> Self {
        Self { path: path.to_owned(), file, offset, unfinished: Vec::new() }
    }

    /// Hands out every whole line up to the end; false when the client wants no more.
    pub(super) fn drain(&mut self, query: &LogQuery, mut send: impl FnMut(LogEntry) -> bool) -> io::Result<bool> {
        loop {
            let entries = self.next_entries(query)?;
            match entries {
                Batch::End => return Ok(true),
                Batch::Entries { entries, last } => {
                    for entry in entries {
                        if !send(entry) {
                            return Ok(false);
                        }
                    }
                    if last {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// One chunk's worth of lines; `End` when the file, and every file after it, is read.
    fn next_entries(&mut self, query: &LogQuery) -> io::Result<Batch> {
        if self.file.is_none() && !self.open_live()? {
            return Ok(Batch::End);
        }
        let count = self.read_chunk()?;
        if count == 0 {
            return if self.move_on()? {
                Ok(Batch::Entries { entries: Vec::new(), last: false })
            } else {
                Ok(Batch::End)
            };
        }
        Ok(self.take_lines(query))
    }

    fn read_chunk(&mut self) -> io::Result<usize> {
        let Some(file) = &mut self.file else { return Ok(0) };
        file.seek(SeekFrom::Start(self.offset))?;
        let count = file.by_ref().take(CHUNK as u64).read_to_end(&mut self.unfinished)?;
        self.offset += count as u64;
        Ok(count)
    }

    fn take_lines(&mut self, query: &LogQuery) -> Batch {
        let mut entries = Vec::new();
        let end = self.unfinished.iter().rposition(|byte| *byte == b'\n').map_or(0, |index| index + 1);
        for line in self.unfinished[..end].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match line::read(line, query) {
                Reading::Entry(entry) => entries.push(entry),
                Reading::Past => return Batch::Entries { entries, last: true },
                Reading::Skip | Reading::Broken => {}
            }
        }
        self.unfinished.drain(..end);
        if self.unfinished.len() > MAX_LINE {
            self.unfinished.clear();
        }
        Batch::Entries { entries, last: false }
    }

    /// At the end of a file: if it has been rotated away, go on with its successor.
    fn move_on(&mut self) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        let ours = file.metadata()?.ino();
        match std::fs::metadata(&self.path) {
            Ok(live) if live.ino() != ours => {}
            _ => return Ok(false),
        }
        // What was written between the last read and the rotation.
        if self.read_chunk()? > 0 {
            return Ok(true);
        }
        self.unfinished.clear();
        (self.file, self.offset) = (self.successor(ours)?, 0);
        Ok(self.file.is_some())
    }

    /// The file after the one with this inode: when more than one rotation has passed, a rotated one.
    fn successor(&self, inode: u64) -> io::Result<Option<File>> {
        for number in 2.. {
            let Ok(older) = std::fs::metadata(super::suffixed(&self.path, &number.to_string())) else { break };
            if older.ino() == inode {
                return File::open(super::suffixed(&self.path, &(number - 1).to_string())).map(Some);
            }
        }
        File::open(&self.path).map(Some)
    }

    fn open_live(&mut self) -> io::Result<bool> {
        match File::open(&self.path) {
            Ok(file) => {
                (self.file, self.offset) = (Some(file), 0);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// What a chunk gave.
#[derive(Debug)]
enum Batch {
    Entries { entries: Vec<LogEntry>, last: bool },
    End,
}

impl Watcher {
    /// Watches the log's folder: writes, rotations, and the log's first appearance.
    pub(super) fn new(log: &Path) -> io::Result<Option<Self>> {
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let folder = log.parent().unwrap_or(Path::new("/"));
        let what = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        match inotify::add_watch(&inotify, folder, what) {
            Ok(_) => {
                #[expect(deprecated, reason = "an OwnedFd keeps its descriptor open; the replacement is unsafe code")]
                let inotify = AsyncFd::new(inotify)?;
                Ok(Some(Self { inotify }))
            }
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns when something has happened since the last time.
    pub(super) async fn changed(&self) -> io::Result<()> {
        let mut guard = self.inotify.readable().await?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        // What exactly happened does not matter: the log is looked at.
        while !matches!(rustix::io::read(self.inotify.get_ref(), &mut buffer), Err(_) | Ok((&mut [], _))) {}
        guard.clear_ready();
        Ok(())
    }
}

/// Sends what comes until the container has ended and everything is sent, or the client is gone.
pub(super) async fn follow(
    watcher: Watcher,
    mut position: Position,
    query: &LogQuery,
    mut progress: watch::Receiver<Progress>,
    sink: &Sink,
) {
    loop {
        // Looked at before reading: the monitor has written everything before it tells the exit.
        let ended = !progress.borrow_and_update().running;
        loop {
            let (entries, last) = match position.next_entries(query) {
                Ok(Batch::End) => break,
                Ok(Batch::Entries { entries, last }) => (entries, last),
                Err(_) => return,
            };
            for entry in entries {
                if sink.send(Ok(entry)).await.is_err() {
                    return;
                }
            }
            if last {
                return;
            }
        }
        if ended {
            return;
        }
        tokio::select! {
            changed = watcher.changed() => if changed.is_err() { return },
            changed = progress.changed() => if changed.is_err() { return },
            () = until(query) => return,
            () = sink.closed() => return,
        }
    }
}

async fn until(query: &LogQuery) {
    match query.until {
        None => std::future::pending().await,
        Some(until) => {
            let wait = until.duration_since(jiff::Timestamp::now());
            tokio::time::sleep(std::time::Duration::try_from(wait).unwrap_or_default()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::sync::{mpsc, watch};

    use super::super::read;
    use crate::containers::Progress;
    use crate::model::LogQuery;

    fn line(text: &str) -> String {
        format!("{{\"log\":\"{text}\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:00Z\"}}\n")
    }

    #[test]
    fn lines_follow_through_rotation_until_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x-json.log");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let query = LogQuery {
            stdout: true,
            stderr: true,
            follow: true,
            since: None,
            until: None,
            timestamps: false,
            tail: None,
            details: false,
        };
        let progress = watch::Sender::new(Progress { running: true, ..Progress::default() });
        runtime.block_on(async {
            let (sink, mut entries) = mpsc::channel(100);
            tokio::spawn(read(path.clone(), query, progress.subscribe(), sink));
            let mut next =
                async || entries.recv().await.map(|entry| String::from_utf8(entry.unwrap().payload.to_vec()).unwrap());
            let mut file = std::fs::File::create(&path).unwrap();
            file.write_all(line("a").as_bytes()).unwrap();
            assert_eq!(next().await.unwrap(), "a");
            let whole = line("b");
            let (first, second) = whole.split_at(10);
            file.write_all(first.as_bytes()).unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            file.write_all(second.as_bytes()).unwrap();
            assert_eq!(next().await.unwrap(), "b");
            file.write_all(line("c").as_bytes()).unwrap();
            std::fs::rename(&path, folder.path().join("x-json.log.1")).unwrap();
            std::fs::write(&path, line("d")).unwrap();
            assert_eq!((next().await.unwrap(), next().await.unwrap()), ("c".into(), "d".into()));
            progress.send_modify(|progress| progress.running = false);
            assert_eq!(next().await, None);
        });
    }
}
