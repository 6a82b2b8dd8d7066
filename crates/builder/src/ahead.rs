//! Small files of contexts, read by several threads before they are needed: opening a file takes longer than copying it.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use archive::layer::{NodeId, NodeKind};

use crate::context::Context;

/// Files up to here are read ahead.
const SMALL_BYTES: u64 = 32 << 10;
/// Files that are read together.
const BATCH_FILES: usize = 256;
/// Fewer files are not worth a thread.
const FILES_MIN: usize = 2 * BATCH_FILES;
/// Batches of each thread that may wait.
const WAITING: usize = 1;
/// So many threads read at most.
const THREADS_MAX: usize = 4;

/// A file of a context.
pub(crate) type Source<'a> = (&'a Context, NodeId);

/// Whether a file is read ahead.
pub(crate) fn is_small((context, node): Source<'_>) -> bool {
    matches!(&context.node(node).kind, NodeKind::File { size, .. } if (1..=SMALL_BYTES).contains(size))
}

/// The contents of files, one after the other.
pub(crate) struct Ahead<'a> {
    files: &'a [Source<'a>],
    /// Which file is next.
    next: usize,
    /// Batch `n` comes from the reader of this number, modulo their count; nothing where no thread reads.
    readers: Vec<Receiver<io::Result<Batch>>>,
    batch: Batch,
}

/// Files that were read together.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
}

impl Batch {
    fn read(files: &[Source<'_>]) -> io::Result<Batch> {
        let mut batch = Batch::default();
        for (context, node) in files {
            if let Some(mut contents) = context.open(*node)? {
                let begin = batch.bytes.len();
                batch.bytes.resize(begin + contents.size as usize, 0);
                contents.read_exact(&mut batch.bytes[begin..])?;
            }
            batch.ends.push(batch.bytes.len());
        }
        Ok(batch)
    }

    fn file(&self, index: usize) -> &[u8] {
        let begin = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[begin..self.ends[index]]
    }
}

/// Works with the contents of these files, all of them small, which are asked for in this order.
pub(crate) fn read<T>(files: &[Source<'_>], work: impl FnOnce(&mut Ahead<'_>) -> io::Result<T>) -> io::Result<T> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let count = if files.len() < FILES_MIN { 0 } else { processors.min(THREADS_MAX) };
    std::thread::scope(|scope| {
        let mut readers = Vec::new();
        for reader in 0..count {
            let (sender, receiver) = sync_channel(WAITING);
            let batches = files.chunks(BATCH_FILES).skip(reader).step_by(count);
            let named = std::thread::Builder::new().name("layer-read".to_owned());
            named.spawn_scoped(scope, move || read_all(batches, &sender))?;
            readers.push(receiver);
        }
        work(&mut Ahead { files, next: 0, readers, batch: Batch::default() })
    })
}

fn read_all<'a>(batches: impl Iterator<Item = &'a [Source<'a>]>, sender: &SyncSender<io::Result<Batch>>) {
    for batch in batches {
        let read = Batch::read(batch);
        let failed = read.is_err();
        // Who does not want it any more has failed elsewhere.
        if sender.send(read).is_err() || failed {
            return;
        }
    }
}

impl Ahead<'_> {
    /// The next file's contents.
    pub(crate) fn next(&mut self) -> io::Result<&[u8]> {
        let (number, index) = (self.next / BATCH_FILES, self.next % BATCH_FILES);
        if index == 0 {
            self.batch = match self.readers.len() {
                0 => Batch::read(self.files.chunks(BATCH_FILES).nth(number).unwrap_or_default())?,
                count => {
                    self.readers[number % count].recv().map_err(|_| io::Error::other("a reading thread is gone"))??
                }
            };
        }
        self.next += 1;
        Ok(self.batch.file(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::context;

    fn check(count: usize) {
        let dir = tempfile::tempdir().unwrap();
        let entries: Vec<String> =
            (0..count).map(|number| format!("{number}={}", "x".repeat(1 + number % 7))).collect();
        let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
        let context = context(dir.path(), &entries).unwrap();
        let files: Vec<Source<'_>> =
            (0..count).map(|number| (&context, context.find(&number.to_string()).unwrap())).collect();
        assert!(files.iter().all(|file| is_small(*file)));
        let read = read(&files, |ahead| {
            for number in 0..count {
                assert_eq!(ahead.next()?.len(), 1 + number % 7, "{number} of {count}");
            }
            Ok(())
        });
        read.unwrap();
        // Who stops early keeps no thread waiting.
        super::read(&files, |ahead| ahead.next().map(drop)).unwrap();
    }

    #[test]
    fn files_come_in_their_order() {
        for count in [1, BATCH_FILES, FILES_MIN, 9 * BATCH_FILES + 1] {
            check(count);
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..FILES_MIN {
            std::fs::write(folder.path().join(number.to_string()), "text").unwrap();
        }
        let (ignore, known) = (dockerfile::ignore::Ignore::default(), crate::folder::KnownFiles::default());
        let context = Context::of_folder(folder.path(), &ignore, &known).unwrap();
        let files: Vec<Source<'_>> = context.children(NodeId::ROOT).map(|(_, node)| (&context, node)).collect();
        std::fs::remove_file(folder.path().join("300")).unwrap();
        let all = read(&files, |ahead| (0..files.len()).try_for_each(|_| ahead.next().map(drop)));
        assert_eq!(all.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
