//! The local log as a queue: what was sent is remembered beside it, what is rotated away unsent is counted.
//!
//! ```text
//! <container dir>/<id>-json.log, .1, .2.gz …   the queue; written by the monitor, whatever becomes of the sink
//!                 forward.json                 how far it was sent, and how much was lost
//! ```
//!
//! A file of the log is known by its first line, which rotation and compression leave alone.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};

use super::record::{Parts, Record};
use crate::logs::suffixed;

/// How much is read at once.
const CHUNK: usize = 64 << 10;
/// A line longer than this is no record.
const MAX_LINE: usize = 1 << 20;
/// How much of a first line is looked at.
const HEAD: usize = 4096;
const STATE_FILE: &str = "forward.json";
/// The state is written in place, and a shorter one must cover a longer one.
const STATE_BYTES: usize = 256;
const STATE_VERSION: u32 = 1;

/// What is remembered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    /// Where sending goes on; none before the first record.
    place: Option<Place>,
    /// Lines that the sink has taken.
    pub(super) sent: u64,
    /// Lines that it has not: they were rotated away first, or it can never take them.
    pub(super) dropped: u64,
    /// How often files may have been rotated away that nobody could count.
    pub(super) gaps: u64,
}

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    /// The checksum of the file's first line.
    file: u32,
    /// Bytes of the file's uncompressed content that are done.
    offset: u64,
}

/// The log, from the first record that was not sent.
#[derive(Debug)]
pub(super) struct Spool {
    path: PathBuf,
    /// How many files the log has at most.
    max_files: u32,
    state: State,
    state_file: File,
    current: Option<Current>,
    parts: Parts,
}

/// The file that is being read.
#[derive(Debug)]
struct Current {
    source: Source,
    /// Its identity, once its first line is whole.
    file: Option<u32>,
    /// Where the next read goes on.
    offset: u64,
    /// A line that is not whole yet; it ends at `offset`.
    unfinished: Vec<u8>,
}

enum Source {
    Plain(File),
    Gzip(Box<MultiGzDecoder<BufReader<File>>>),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Source::Plain(_) => "Plain",
            Source::Gzip(_) => "Gzip",
        })
    }
}

/// Records in order, and what is done once they are sent.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    end: Option<Place>,
}

impl Spool {
    /// Opens the log of a container's folder where it was left; makes an empty one where there is none, so that it can be read even
    /// when the container is gone a moment later.
    pub(super) fn open(path: &Path, max_files: u32) -> io::Result<Spool> {
        let mut options = OpenOptions::new();
        options.create(true).append(true).mode(0o640).open(path)?;
        let state_path = path.with_file_name(STATE_FILE);
        let state_file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(state_path)?;
        let state = read_state(&state_file);
        let mut spool =
            Spool { path: path.to_owned(), max_files, state, state_file, current: None, parts: Parts::default() };
        spool.current = spool.resume()?;
        Ok(spool)
    }

    /// How much was sent and lost.
    pub(super) fn state(&self) -> State {
        self.state
    }

    /// The next records; none when all of the log is read.
    pub(super) fn next(&mut self) -> io::Result<Batch> {
        loop {
            let Some(current) = &mut self.current else { return Ok(Batch { records: Vec::new(), end: None }) };
            let count = current.read()?;
            let records = current.take_records(&mut self.parts);
            if !records.is_empty() {
                let end = current.place();
                return Ok(Batch { records, end });
            }
            if count == 0 && !self.move_on()? {
                return Ok(Batch { records: Vec::new(), end: None });
            }
        }
    }

    /// The records are sent, but for `refused` that the sink can never take.
    pub(super) fn commit(&mut self, batch: &Batch, refused: u64) {
        self.state.sent += batch.records.len() as u64 - refused;
        self.state.dropped += refused;
        self.state.place = batch.end.or(self.state.place);
        self.save();
    }

    /// Gives up the file that the next rotation will delete, when that is where sending waits: then it can still be counted. Whether
    /// there was such a file; records that were read from it are done.
    pub(super) fn give_up_doomed(&mut self) -> io::Result<bool> {
        let Some(file) = self.current.as_mut().and_then(Current::identity) else { return Ok(false) };
        // Where it is not even the oldest any more, it is open here, and nowhere else.
        if self.position_of(file)?.is_some_and(|index| index + 1 < self.max_files) {
            return Ok(false);
        }
        self.drop_rest_of_file()?;
        self.move_on()?;
        self.save();
        Ok(true)
    }

    /// Nothing more will be sent: what is still there is counted as lost.
    pub(super) fn give_up(&mut self) -> io::Result<()> {
        loop {
            self.drop_rest_of_file()?;
            if !self.move_on()? {
                self.save();
                return Ok(());
            }
        }
    }

    /// Counts what of the current file was not sent.
    fn drop_rest_of_file(&mut self) -> io::Result<()> {
        let identity = self.current.as_mut().and_then(Current::identity);
        let index = identity.map(|file| self.position_of(file)).transpose()?.flatten();
        let Some(current) = &mut self.current else { return Ok(()) };
        let from = self.state.place.filter(|place| Some(place.file) == identity).map_or(0, |place| place.offset);
        if current.offset != from {
            current.go_to(from, &numbered(&self.path, index.unwrap_or(0)))?;
        }
        let mut lost = 0;
        loop {
            let count = current.read()?;
            lost += current.take_records(&mut self.parts).len() as u64;
            if count == 0 {
                break;
            }
        }
        self.state.dropped += lost;
        self.state.place = current.place().or(self.state.place);
        Ok(())
    }

    fn resume(&mut self) -> io::Result<Option<Current>> {
        let Some(place) = self.state.place else {
            let oldest = self.oldest()?;
            return self.open_file(oldest);
        };
        match self.position_of(place.file)? {
            Some(index) => {
                let mut current = self.open_file(index)?;
                if let Some(current) = &mut current {
                    current.go_to(place.offset, &numbered(&self.path, index))?;
                }
                Ok(current)
            }
            None => {
                self.state.gaps += 1;
                let oldest = self.oldest()?;
                self.open_file(oldest)
            }
        }
    }

    /// At the end of a file: opens its successor, if it has one.
    fn move_on(&mut self) -> io::Result<bool> {
        let Some(current) = &mut self.current else { return Ok(false) };
        let Some(file) = current.identity() else { return Ok(false) };
        let next = match self.position_of(file)? {
            Some(0) => return Ok(false),
            Some(index) => index - 1,
            // It was the oldest, and is deleted: its successor is the oldest now, unless that has gone as well.
            None => self.oldest()?,
        };
        let is_lost = self.position_of(file)?.is_none();
        // What was written between the last read and the rotation.
        if self.current.as_mut().is_some_and(|current| current.read().is_ok_and(|count| count > 0)) {
            return Ok(true);
        }
        // A rotation has two steps: between them there is no live file.
        let Some(next) = self.open_file(next)? else { return Ok(false) };
        self.current = Some(next);
        self.state.gaps += u64::from(is_lost);
        Ok(true)
    }

    /// Where the file of this identity is: 0 is the live one.
    fn position_of(&self, file: u32) -> io::Result<Option<u32>> {
        for index in 0..=self.max_files {
            let found = self.open_file(index)?;
            // Between the two steps of a rotation there is no live file.
            if found.is_none() && index > 0 {
                break;
            }
            if found.and_then(|mut found| found.identity()) == Some(file) {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    fn oldest(&self) -> io::Result<u32> {
        let mut oldest = 0;
        while oldest < self.max_files && self.open_file(oldest + 1)?.is_some() {
            oldest += 1;
        }
        Ok(oldest)
    }

    fn open_file(&self, index: u32) -> io::Result<Option<Current>> {
        let plain = numbered(&self.path, index);
        let source = match open_if_exists(&plain)? {
            Some(file) => Source::Plain(file),
            None => match open_if_exists(&suffixed(&plain, "gz"))? {
                Some(file) => Source::Gzip(Box::new(MultiGzDecoder::new(BufReader::new(file)))),
                None => return Ok(None),
            },
        };
        let mut current = Current { source, file: None, offset: 0, unfinished: Vec::new() };
        // A compressed file can only be asked at its beginning.
        current.identity();
        Ok(Some(current))
    }

    /// Not synced, as the log itself is not: it survives the engine, and after a crash of the machine a few lines come twice.
    fn save(&mut self) {
        self.state.version = STATE_VERSION;
        let text = serde_json::to_string(&self.state).unwrap_or_default();
        if let Err(error) = self.state_file.write_all_at(format!("{text:<STATE_BYTES$}").as_bytes(), 0) {
            tracing::warn!("cannot remember how far {} was sent: {error}", self.path.display());
        }
    }
}

impl Current {
    fn read(&mut self) -> io::Result<usize> {
        let before = self.unfinished.len();
        self.unfinished.resize(before + CHUNK, 0);
        let count = match &mut self.source {
            Source::Plain(file) => file.read_at(&mut self.unfinished[before..], self.offset),
            Source::Gzip(reader) => reader.read(&mut self.unfinished[before..]),
        };
        self.unfinished.truncate(before + count.as_ref().copied().unwrap_or(0));
        let count = count?;
        self.offset += count as u64;
        Ok(count)
    }

    fn take_records(&mut self, parts: &mut Parts) -> Vec<Record> {
        let end = self.unfinished.iter().rposition(|byte| *byte == b'\n').map_or(0, |index| index + 1);
        let lines = self.unfinished[..end].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let records = lines.filter_map(|line| parts.record(line)).collect();
        self.unfinished.drain(..end);
        if self.unfinished.len() > MAX_LINE {
            self.unfinished.clear();
        }
        records
    }

    /// The end of the last whole line.
    fn place(&mut self) -> Option<Place> {
        let offset = self.offset - self.unfinished.len() as u64;
        Some(Place { file: self.identity()?, offset })
    }

    fn identity(&mut self) -> Option<u32> {
        if self.file.is_none() {
            self.file = match &mut self.source {
                Source::Plain(file) => {
                    let mut head = [0; HEAD];
                    let count = file.read_at(&mut head, 0).ok()?;
                    checksum(&head[..count])
                }
                // Only at its beginning, which every compressed file is asked at.
                Source::Gzip(_) if self.offset == 0 => {
                    while self.unfinished.len() < HEAD && self.read().ok()? > 0 {}
                    checksum(&self.unfinished[..self.unfinished.len().min(HEAD)])
                }
                Source::Gzip(_) => None,
            };
        }
        self.file
    }

    /// Goes to a place in a file that is at `path`, in case it has to be opened again.
    fn go_to(&mut self, offset: u64, path: &Path) -> io::Result<()> {
        self.identity();
        if let Source::Gzip(_) = &self.source {
            if self.offset > offset + self.unfinished.len() as u64
                || self.offset - (self.unfinished.len() as u64) > offset
            {
                let mut file = File::open(suffixed(path, "gz"))?;
                file.seek(SeekFrom::Start(0))?;
                self.source = Source::Gzip(Box::new(MultiGzDecoder::new(BufReader::new(file))));
                self.offset = 0;
                self.unfinished.clear();
            }
            while self.offset < offset && self.read()? > 0 {
                let done = (self.offset - self.unfinished.len() as u64).max(offset.min(self.offset));
                let keep = (self.offset - done) as usize;
                self.unfinished.drain(..self.unfinished.len() - keep);
            }
            let start = self.offset - self.unfinished.len() as u64;
            self.unfinished.drain(..(offset.saturating_sub(start) as usize).min(self.unfinished.len()));
            return Ok(());
        }
        self.offset = offset;
        self.unfinished.clear();
        Ok(())
    }
}

/// Of a whole first line, or of as much as is looked at.
fn checksum(head: &[u8]) -> Option<u32> {
    let end = match head.iter().position(|byte| *byte == b'\n') {
        Some(end) => end,
        None if head.len() == HEAD => HEAD,
        None => return None,
    };
    let mut crc = flate2::Crc::new();
    crc.update(&head[..end]);
    Some(crc.sum())
}

fn read_state(file: &File) -> State {
    let mut bytes = vec![0; STATE_BYTES];
    let count = file.read_at(&mut bytes, 0).unwrap_or(0);
    match serde_json::from_slice::<State>(bytes[..count].trim_ascii_end()) {
        Ok(state) if state.version <= STATE_VERSION => state,
        // Nothing was sent yet, or it cannot be read: twice is better than never.
        _ => State::default(),
    }
}

/// The live file, or `<path>.<index>`.
fn numbered(path: &Path, index: u32) -> PathBuf {
    if index == 0 { path.to_owned() } else { suffixed(path, &index.to_string()) }
}

fn open_if_exists(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::ops::Range;

    use super::*;

    fn lines(range: Range<u32>) -> String {
        let line = |n| format!("{{\"log\":\"{n}\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:{n:02}Z\"}}\n");
        range.map(line).collect()
    }

    fn append(path: &Path, range: Range<u32>) {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(lines(range).as_bytes()).unwrap();
    }

    fn gzip(path: &Path) {
        let text = std::fs::read(path).unwrap();
        let target = File::create(suffixed(path, "gz")).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(target, flate2::Compression::fast());
        encoder.write_all(&text).unwrap();
        encoder.finish().unwrap();
        std::fs::remove_file(path).unwrap();
    }

    fn rotate(path: &Path, files: u32) {
        for index in (1..files).rev() {
            let (from, to) = (numbered(path, index), numbered(path, index + 1));
            for (from, to) in [(from.clone(), to.clone()), (suffixed(&from, "gz"), suffixed(&to, "gz"))] {
                let _ = if index + 1 < files { std::fs::rename(from, to) } else { std::fs::remove_file(from) };
            }
        }
        std::fs::rename(path, numbered(path, 1)).unwrap();
        File::create(path).unwrap();
    }

    fn take(spool: &mut Spool) -> String {
        let mut text = String::new();
        loop {
            let batch = spool.next().unwrap();
            if batch.records.is_empty() {
                return text;
            }
            text.extend(batch.records.iter().map(|record| format!("{} ", record.text)));
            spool.commit(&batch, 0);
        }
    }

    #[test]
    fn sending_goes_on_where_it_stopped_through_rotation_and_compression() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x-json.log");
        let mut spool = Spool::open(&path, 5).unwrap();
        assert_eq!(take(&mut spool), "");
        append(&path, 0..3);
        assert_eq!(take(&mut spool), "0 1 2 ");
        append(&path, 3..6);
        rotate(&path, 5);
        append(&path, 6..8);
        rotate(&path, 5);
        append(&path, 8..9);
        for compressed in [false, true] {
            if compressed {
                gzip(&numbered(&path, 1));
                gzip(&numbered(&path, 2));
            }
            let copy = std::fs::read(folder.path().join(STATE_FILE)).unwrap();
            let mut again = Spool::open(&path, 5).unwrap();
            assert_eq!(take(&mut again), "3 4 5 6 7 8 ", "compressed: {compressed}");
            assert_eq!((again.state().sent, again.state().dropped, again.state().gaps), (9, 0, 0));
            std::fs::write(folder.path().join(STATE_FILE), copy).unwrap();
        }
        // The first spool has the oldest file open still, and goes on from there.
        assert_eq!(take(&mut spool), "3 4 5 6 7 8 ");
    }

    #[test]
    fn what_is_not_committed_comes_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x-json.log");
        append(&path, 0..4);
        let mut spool = Spool::open(&path, 5).unwrap();
        assert_eq!(spool.next().unwrap().records.len(), 4);
        drop(spool);
        assert_eq!(take(&mut Spool::open(&path, 5).unwrap()), "0 1 2 3 ");
        assert_eq!(take(&mut Spool::open(&path, 5).unwrap()), "");
    }

    #[test]
    fn what_rotation_will_delete_is_counted_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x-json.log");
        append(&path, 0..4);
        let mut spool = Spool::open(&path, 3).unwrap();
        let waiting = spool.next().unwrap();
        assert_eq!(waiting.records.len(), 4);
        assert!(!spool.give_up_doomed().unwrap());
        rotate(&path, 3);
        append(&path, 4..6);
        assert!(!spool.give_up_doomed().unwrap());
        rotate(&path, 3);
        append(&path, 6..7);
        assert!(spool.give_up_doomed().unwrap());
        assert!(!spool.give_up_doomed().unwrap());
        assert_eq!((spool.state().dropped, spool.state().sent), (4, 0));
        assert_eq!(take(&mut spool), "4 5 6 ");
        append(&path, 7..9);
        spool.give_up().unwrap();
        assert_eq!((spool.state().dropped, spool.state().sent, spool.state().gaps), (6, 3, 0));
    }

    #[test]
    fn files_that_nobody_saw_are_a_gap() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x-json.log");
        append(&path, 0..2);
        take(&mut Spool::open(&path, 2).unwrap());
        for n in 1..4 {
            rotate(&path, 2);
            append(&path, n * 10..n * 10 + 2);
        }
        let mut spool = Spool::open(&path, 2).unwrap();
        assert_eq!(take(&mut spool), "20 21 30 31 ");
        assert_eq!(spool.state().gaps, 1);
    }
}
