//! What a log holds already, oldest first; with `tail` from the place where the last lines begin.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::follow::Position;
use super::line::{self, Reading};
use super::{Sink, suffixed};
use crate::model::LogQuery;

/// How much is read at once when searching backwards.
const BLOCK: u64 = 64 << 10;
/// No record is longer: 16 KiB of text, each byte escaped as six, and attributes.
const MAX_LINE: u64 = 1 << 20;

/// Where reading begins: a file of the log, and lines to skip in it (compressed) or an offset (plain).
#[derive(Debug)]
enum Start {
    Plain(File, u64),
    Compressed(PathBuf, u64),
}

/// Sends the lines; returns the position in the live file for a follower, none when nothing may follow.
pub(super) fn read(path: &Path, query: &LogQuery, sink: &Sink) -> io::Result<Option<Position>> {
    let mut starts = starts(path, query.tail)?;
    let Some(live) = starts.pop() else { return Ok(Some(Position::new(path, None, 0))) };
    for start in starts {
        let reader: Box<dyn Read> = match start {
            Start::Plain(mut file, offset) => {
                file.seek(SeekFrom::Start(offset))?;
                Box::new(file)
            }
            Start::Compressed(path, skip) => Box::new(skipped(&path, skip)?),
        };
        if send(BufReader::with_capacity(BLOCK as usize, reader), query, sink)?.is_none() {
            return Ok(None);
        }
    }
    let Start::Plain(file, offset) = live else { return Ok(None) };
    let mut position = Position::new(path, Some(file), offset);
    Ok(position.drain(query, |entry| sink.blocking_send(Ok(entry)).is_ok())?.then_some(position))
}

/// The files to read, oldest first, the live one last. None when there is no log yet.
fn starts(path: &Path, tail: Option<u64>) -> io::Result<Vec<Start>> {
    let mut newest_first = Vec::new();
    let mut wanted = tail;
    // The live file is opened first: a rotation meanwhile can only show lines twice removed from it, never lose the newest.
    let Some(live) = open(path)? else { return Ok(Vec::new()) };
    newest_first.push(plain(live, &mut wanted)?);
    for number in 1.. {
        if wanted == Some(0) {
            break;
        }
        let rotated = numbered(path, number);
        if let Some(file) = open(&rotated)? {
            newest_first.push(plain(file, &mut wanted)?);
        } else if suffixed(&rotated, "gz").exists() {
            newest_first.push(compressed(suffixed(&rotated, "gz"), &mut wanted)?);
        } else {
            break;
        }
    }
    newest_first.reverse();
    Ok(newest_first)
}

/// `<path>.<number>`
fn numbered(path: &Path, number: u32) -> PathBuf {
    suffixed(path, &number.to_string())
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes as many of the wanted lines as the file has, from its end.
fn plain(mut file: File, wanted: &mut Option<u64>) -> io::Result<Start> {
    let Some(lines) = wanted else { return Ok(Start::Plain(file, 0)) };
    let (offset, found) = last_lines(&mut file, *lines)?;
    *lines -= found;
    Ok(Start::Plain(file, offset))
}

/// Where the last `lines` lines begin, and how many there are.
fn last_lines(file: &mut File, lines: u64) -> io::Result<(u64, u64)> {
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok((end, 0));
    }
    let (mut at, mut found) = (end, 0);
    let mut block = Vec::new();
    while at > 0 {
        let size = BLOCK.min(at);
        at -= size;
        file.seek(SeekFrom::Start(at))?;
        block.clear();
        file.by_ref().take(size).read_to_end(&mut block)?;
        for (index, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let behind = at + index as u64 + 1;
            // A newline at the very end closes the last line and begins none.
            if behind == end {
                continue;
            }
            found += 1;
            if found == lines {
                return Ok((behind, found));
            }
        }
    }
    Ok((0, if end > 0 { found + 1 } else { 0 }))
}

/// A compressed file cannot be read backwards: its lines are counted first.
fn compressed(path: PathBuf, wanted: &mut Option<u64>) -> io::Result<Start> {
    let Some(lines) = wanted else { return Ok(Start::Compressed(path, 0)) };
    let mut reader = BufReader::new(MultiGzDecoder::new(File::open(&path)?));
    let mut total = 0;
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            break;
        }
        total += buffer.iter().filter(|byte| **byte == b'\n').count() as u64;
        let length = buffer.len();
        reader.consume(length);
    }
    let taken = total.min(*lines);
    *lines -= taken;
    Ok(Start::Compressed(path, total - taken))
}

fn skipped(path: &Path, lines: u64) -> io::Result<impl Read + use<>> {
    let mut reader = BufReader::new(MultiGzDecoder::new(File::open(path)?));
    let mut discarded = Vec::new();
    for _ in 0..lines {
        discarded.clear();
        reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut discarded)?;
    }
    Ok(reader)
}

/// Sends a rotated file's lines; none when the client is gone or wants no more.
fn send(mut reader: impl BufRead, query: &LogQuery, sink: &Sink) -> io::Result<Option<()>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(Some(()));
        }
        match line::read(&line, query) {
            Reading::Entry(entry) => {
                if sink.blocking_send(Ok(entry)).is_err() {
                    return Ok(None);
                }
            }
            Reading::Past => return Ok(None),
            Reading::Skip | Reading::Broken => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;

    use tokio::sync::mpsc;

    use super::read;
    use crate::model::LogQuery;

    fn everything() -> LogQuery {
        LogQuery {
            stdout: true,
            stderr: true,
            follow: false,
            since: None,
            until: None,
            timestamps: false,
            tail: None,
            details: false,
        }
    }

    fn lines(range: std::ops::Range<u32>) -> String {
        range
            .map(|n| format!("{{\"log\":\"{n}\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:{n:02}Z\"}}\n"))
            .collect()
    }

    fn gzip(path: &Path, text: &str) {
        let mut encoder =
            flate2::write::GzEncoder::new(std::fs::File::create(path).unwrap(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap();
    }

    fn read_all(path: &Path, query: &LogQuery) -> String {
        let (sink, mut entries) = mpsc::channel(1000);
        read(path, query, &sink).unwrap();
        drop(sink);
        let mut text = String::new();
        while let Some(entry) = entries.blocking_recv() {
            text.push_str(std::str::from_utf8(&entry.unwrap().payload).unwrap());
        }
        text.replace('\n', " ")
    }

    #[test]
    fn files_are_read_oldest_first_and_tails_from_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x-json.log");
        assert_eq!(read_all(&path, &everything()), "");
        std::fs::write(&path, lines(6..9)).unwrap();
        std::fs::write(folder.path().join("x-json.log.1"), lines(3..6)).unwrap();
        gzip(&folder.path().join("x-json.log.2.gz"), &lines(0..3));
        for (tail, expected) in [
            (None, "0 1 2 3 4 5 6 7 8 "),
            (Some(0), ""),
            (Some(2), "7 8 "),
            (Some(3), "6 7 8 "),
            (Some(5), "4 5 6 7 8 "),
            (Some(7), "2 3 4 5 6 7 8 "),
            (Some(99), "0 1 2 3 4 5 6 7 8 "),
        ] {
            assert_eq!(read_all(&path, &LogQuery { tail, ..everything() }), expected, "{tail:?}");
        }
    }

    #[test]
    fn until_ends_and_broken_lines_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x-json.log");
        std::fs::write(&path, format!("{}garbage\n{}{{\"log\":\"cut", lines(0..1), lines(1..9))).unwrap();
        let until = Some("2026-01-01T00:00:03Z".parse().unwrap());
        let since = Some("2026-01-01T00:00:01Z".parse().unwrap());
        assert_eq!(read_all(&path, &LogQuery { until, since, ..everything() }), "1 2 3 ");
    }

    #[test]
    fn a_tail_does_not_read_the_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x-json.log");
        // A hole of a gigabyte: reading it would take seconds, and its zeros are no lines.
        let mut file = std::fs::File::create(&path).unwrap();
        file.set_len(1 << 30).unwrap();
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).unwrap();
        file.write_all(format!("\n{}", lines(0..9)).as_bytes()).unwrap();
        let begin = std::time::Instant::now();
        assert_eq!(read_all(&path, &LogQuery { tail: Some(2), ..everything() }), "7 8 ");
        assert!(begin.elapsed() < std::time::Duration::from_millis(200));
    }
}
