//! The container's log.
//!
//! Output is cut into lines ([`split`]), each becomes an entry ([`entry`]), entries are gathered and written at once, when
//! the caller says so or when many wait, to files that rotate ([`file`]). Nothing is synced: a log is worth less than the
//! machine's time, and what was written survives everything but a crash of the machine.

mod entry;
mod file;
mod queue;
mod split;
mod stamp;

use std::collections::VecDeque;

use monitor_protocol::{Delivery, JsonFile, LogConfig, UnixNanos};

pub(crate) use entry::Stream;
pub(crate) use file::{Ended, Limits, LogFileError, RotatingFile};
pub(crate) use queue::{WRITER_FLAG, run_writer};

use queue::Queue;
use split::{Part, PartEnd, Splitter};
use stamp::Stamp;

/// When so much is gathered, it is written without being asked.
const BATCH_BYTES: usize = 48 * 1024;

/// Where the container's output is kept.
#[derive(Debug)]
pub(crate) enum Log {
    /// Nowhere.
    None,
    /// In Docker's `json-file` format.
    JsonFile(Box<JsonLog>),
}

/// A log in Docker's `json-file` format.
#[derive(Debug)]
pub(crate) struct JsonLog {
    attrs: Option<String>,
    stamp: Stamp,
    stdout: Lines,
    stderr: Lines,
    batch: Batch,
}

/// One stream's unfinished line, and when its first part was written: all parts carry that time.
#[derive(Debug, Default)]
struct Lines {
    splitter: Splitter,
    begun_at: Option<UnixNanos>,
}

/// Entries on their way out.
#[derive(Debug)]
struct Batch {
    entries: Vec<u8>,
    lines: u64,
    sink: Sink,
    trouble: Trouble,
}

/// Where entries go.
#[derive(Debug)]
enum Sink {
    /// To the file, and the container waits for it.
    File(RotatingFile),
    /// To a writer process, and what it cannot take in time is dropped.
    Queue(Queue),
}

/// What could not be kept.
#[derive(Debug, Default)]
struct Trouble {
    dropped_lines: u64,
    /// How many of them were told.
    told_lines: u64,
    /// Whether the last batch failed: trouble is told when it begins, when it ends, and while it lasts each time it has doubled.
    lasting: bool,
    untold: VecDeque<String>,
}

/// Output could not be kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LogTrouble {
    pub(crate) message: String,
    pub(crate) dropped_lines: u64,
}

impl Log {
    /// Opens the log.
    pub(crate) fn open(config: &LogConfig) -> Result<Log, LogFileError> {
        match config {
            LogConfig::None => Ok(Log::None),
            LogConfig::JsonFile(json) => JsonLog::open(json).map(|log| Log::JsonFile(Box::new(log))),
        }
    }

    /// Takes what was read from one of the container's streams.
    pub(crate) fn push(&mut self, stream: Stream, chunk: &[u8], now: UnixNanos) {
        if let Log::JsonFile(log) = self {
            log.push(stream, chunk, now);
        }
    }

    /// Takes what is left of a stream at its end.
    pub(crate) fn finish(&mut self, stream: Stream, now: UnixNanos) {
        if let Log::JsonFile(log) = self {
            log.finish(stream, now);
        }
    }

    /// Writes what is gathered.
    pub(crate) fn flush(&mut self) {
        if let Log::JsonFile(log) = self {
            log.batch.write();
        }
    }

    /// Begins a new file.
    pub(crate) fn rotate(&mut self) -> Result<(), LogFileError> {
        let Log::JsonFile(log) = self else { return Ok(()) };
        log.batch.write();
        match &mut log.batch.sink {
            Sink::File(file) => file.rotate(),
            Sink::Queue(queue) => {
                queue.rotate();
                Ok(())
            }
        }
    }

    /// To be told of every child that was reaped.
    pub(crate) fn child_ended(&mut self, pid: i32, ended: Ended) {
        match self {
            Log::JsonFile(log) => match &mut log.batch.sink {
                Sink::File(file) => file.child_ended(pid, ended),
                Sink::Queue(queue) => {
                    queue.child_ended(pid);
                    let lost = queue.lost();
                    log.batch.trouble.note(lost);
                    log.batch.trouble.tell_the_rest();
                }
            },
            Log::None => {}
        }
    }

    /// The trouble that nobody was told of yet.
    pub(crate) fn take_trouble(&mut self) -> Option<LogTrouble> {
        let Log::JsonFile(log) = self else { return None };
        let trouble = &mut log.batch.trouble;
        let message = trouble.untold.pop_front()?;
        trouble.told_lines = trouble.dropped_lines;
        Some(LogTrouble { message, dropped_lines: trouble.dropped_lines })
    }

    /// How many lines could not be kept.
    pub(crate) fn dropped_lines(&self) -> u64 {
        match self {
            Log::JsonFile(log) => log.batch.trouble.dropped_lines,
            Log::None => 0,
        }
    }

    /// The writer process's pipe while something waits for it.
    pub(crate) fn waiting_pipe(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        match self {
            Log::JsonFile(log) => match &log.batch.sink {
                Sink::Queue(queue) => queue.waiting_pipe(),
                Sink::File(_) => None,
            },
            Log::None => None,
        }
    }

    /// Lets what waits for the writer process go on.
    pub(crate) fn pump(&mut self) {
        if let Log::JsonFile(log) = self
            && let Sink::Queue(queue) = &mut log.batch.sink
        {
            queue.pump();
        }
    }

    /// Whether a child of this process still works on the files.
    pub(crate) fn is_busy(&self) -> bool {
        match self {
            Log::JsonFile(log) => match &log.batch.sink {
                Sink::File(file) => file.is_compressing(),
                Sink::Queue(queue) => queue.is_busy(),
            },
            Log::None => false,
        }
    }

    /// Whether everything that was taken is in the files.
    pub(crate) fn is_complete(&self) -> bool {
        match self {
            Log::JsonFile(log) => match &log.batch.sink {
                Sink::File(_) => true,
                Sink::Queue(queue) => !queue.is_busy(),
            },
            Log::None => true,
        }
    }

    /// Nothing more will come.
    pub(crate) fn close(&mut self) {
        self.flush();
        let Log::JsonFile(log) = self else { return };
        if let Sink::Queue(queue) = &mut log.batch.sink {
            queue.close();
        }
        log.batch.trouble.tell_the_rest();
    }

    /// What has not been taken by now is lost.
    pub(crate) fn abandon(&mut self) {
        let Log::JsonFile(log) = self else { return };
        if let Sink::Queue(queue) = &mut log.batch.sink {
            queue.abandon();
            let lost = queue.lost();
            log.batch.trouble.note(lost);
            log.batch.trouble.tell_the_rest();
        }
    }
}

impl JsonLog {
    fn open(json: &JsonFile) -> Result<JsonLog, LogFileError> {
        let limits =
            Limits { max_size_bytes: json.max_size_bytes, max_files: json.max_files.max(1), rotated: json.rotated };
        let sink = match json.delivery {
            Delivery::Blocking => Sink::File(RotatingFile::open(&json.path, limits)?),
            Delivery::NonBlocking { buffer_bytes } => Sink::Queue(Queue::start(&json.path, limits, buffer_bytes)?),
        };
        let batch = Batch { entries: Vec::new(), lines: 0, sink, trouble: Trouble::default() };
        let (stdout, stderr) = (Lines::default(), Lines::default());
        Ok(JsonLog { attrs: json.attrs.clone(), stamp: Stamp::default(), stdout, stderr, batch })
    }

    fn push(&mut self, stream: Stream, chunk: &[u8], now: UnixNanos) {
        let lines = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let (begun_at, attrs) = (&mut lines.begun_at, self.attrs.as_deref());
        let (stamp, batch) = (&mut self.stamp, &mut self.batch);
        lines.splitter.push(chunk, |part| {
            let time = part_time(begun_at, part.end, now);
            batch.add(part, stream, attrs, stamp.text(time));
        });
    }

    fn finish(&mut self, stream: Stream, now: UnixNanos) {
        let lines = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let time = lines.begun_at.take().unwrap_or(now);
        let (attrs, stamp, batch) = (self.attrs.as_deref(), &mut self.stamp, &mut self.batch);
        lines.splitter.finish(|part| batch.add(part, stream, attrs, stamp.text(time)));
    }
}

/// All parts of a line carry the time of the first one.
fn part_time(begun_at: &mut Option<UnixNanos>, end: PartEnd, now: UnixNanos) -> UnixNanos {
    let time = begun_at.unwrap_or(now);
    *begun_at = (end == PartEnd::Open).then_some(time);
    time
}

impl Batch {
    fn add(&mut self, part: Part<'_>, stream: Stream, attrs: Option<&str>, time: &[u8]) {
        if let Sink::File(file) = &self.sink
            && file.is_full(self.entries.len())
        {
            self.write();
            self.rotate();
        }
        entry::write(part, stream, attrs, time, &mut self.entries);
        self.lines += 1;
        if self.entries.len() >= BATCH_BYTES {
            self.write();
        }
    }

    fn write(&mut self) {
        if self.entries.is_empty() {
            return;
        }
        let dropped = match &mut self.sink {
            Sink::File(file) => file.write(&self.entries).map_err(|error| (self.lines, describe(&error))),
            Sink::Queue(queue) => queue.push(&self.entries),
        };
        self.trouble.note(dropped);
        self.entries.clear();
        self.lines = 0;
    }

    fn rotate(&mut self) {
        if let Sink::File(file) = &mut self.sink {
            let rotated = file.rotate();
            self.trouble.note(rotated.map_err(|error| (0, describe(&error))));
        }
    }
}

impl Trouble {
    /// The count where it has grown since it was told.
    fn tell_the_rest(&mut self) {
        if self.dropped_lines > self.told_lines && self.untold.is_empty() {
            self.untold.push_back("more lines were lost until now".to_owned());
        }
    }

    fn note(&mut self, outcome: Result<(), (u64, String)>) {
        let was_lasting = std::mem::replace(&mut self.lasting, outcome.is_err());
        match outcome {
            Err((lines, message)) => {
                self.dropped_lines += lines;
                let has_doubled = self.dropped_lines >= self.told_lines * 2 && self.untold.is_empty();
                if !was_lasting || (has_doubled && lines > 0) {
                    self.untold.push_back(message);
                }
            }
            Ok(()) if was_lasting => self.tell_the_rest(),
            Ok(()) => {}
        }
    }
}

fn describe(error: &LogFileError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn open(path: &Path, change: impl FnOnce(&mut JsonFile)) -> Log {
        let mut json = JsonFile::at(path.to_owned());
        json.rotated = monitor_protocol::Rotated::Plain;
        change(&mut json);
        Log::open(&LogConfig::JsonFile(json)).unwrap()
    }

    #[test]
    fn streams_are_kept_apart_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = open(&path, |_| {});
        log.push(Stream::Stdout, b"out one\nout t", UnixNanos(0));
        log.push(Stream::Stderr, b"err\n", UnixNanos(1));
        log.push(Stream::Stdout, b"wo\nrest", UnixNanos(2));
        log.finish(Stream::Stdout, UnixNanos(3));
        log.flush();
        let expected = concat!(
            r#"{"log":"out one\n","stream":"stdout","time":"1970-01-01T00:00:00Z"}"#,
            "\n",
            r#"{"log":"err\n","stream":"stderr","time":"1970-01-01T00:00:00.000000001Z"}"#,
            "\n",
            r#"{"log":"out two\n","stream":"stdout","time":"1970-01-01T00:00:00.000000002Z"}"#,
            "\n",
            r#"{"log":"rest","stream":"stdout","time":"1970-01-01T00:00:00.000000003Z"}"#,
            "\n"
        );
        assert_eq!(fs::read_to_string(path).unwrap(), expected);
    }

    #[test]
    fn parts_of_a_line_carry_one_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = open(&path, |_| {});
        log.push(Stream::Stdout, &[b'x'; 20_000], UnixNanos(1));
        log.push(Stream::Stdout, b"end\nnext\n", UnixNanos(2));
        log.flush();
        let times: Vec<String> = fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["time"].as_str().unwrap().to_owned())
            .collect();
        let [first, second] = ["1970-01-01T00:00:00.000000001Z", "1970-01-01T00:00:00.000000002Z"];
        assert_eq!(times, [first, first, second]);
    }

    #[test]
    fn rotation_happens_between_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = open(&path, |json| json.max_size_bytes = Some(100));
        log.push(Stream::Stdout, b"first line\nsecond line\nthird line\n", UnixNanos(0));
        log.flush();
        assert!(fs::read_to_string(&path).unwrap().contains("third"));
        let rotated = fs::read_to_string(dir.path().join("log.1")).unwrap();
        assert!(rotated.contains("first") && rotated.contains("second"));
    }

    #[test]
    fn trouble_is_told_once_and_counted() {
        let mut trouble = Trouble::default();
        for outcome in [Err((2, "full".to_owned())), Err((3, "full".to_owned())), Ok(()), Err((1, "again".to_owned()))]
        {
            trouble.note(outcome);
        }
        assert_eq!(
            (trouble.dropped_lines, Vec::from(trouble.untold)),
            (6, vec!["full".to_owned(), "again".to_owned()])
        );
    }
}
