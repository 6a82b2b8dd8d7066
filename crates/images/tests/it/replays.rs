//! A store whose disk loses its power at every write: what was written since the last sync is there, or not, or in part.
//!
//! The script of `cuts` runs once on a disk that records. Then, for every event of the record, a disk is made on which all up to it has come,
//! and another that has lost some of what no sync had followed yet, sector by sector; on each the store must hold what it had acknowledged.

use std::fs;
use std::path::Path;

use snapshots::{Backend, Choice};

use crate::cuts::{self, Bench, Names};
use crate::recorded_disk::{Event, RecordedDisk, SECTOR_BYTES};

/// States that every test run looks at.
const SAMPLE: usize = 24;

/// What a run of the script left: all that was written, and how far the disk was when each step was acknowledged.
struct Record {
    empty: Vec<u8>,
    events: Vec<Event>,
    acknowledged: Vec<(usize, Names)>,
}

/// What becomes of writes that no sync has followed.
#[derive(Debug, Clone, Copy)]
enum Unsynced {
    Kept,
    /// About half of their sectors are lost.
    LostInPart,
}

fn record(bench: &Bench) -> Record {
    let file = bench.path("disk.img");
    fs::write(&file, "").unwrap();
    let empty = fs::read(bench.path("empty.img")).unwrap();
    let disk = RecordedDisk::mount(&file, empty.clone());
    bench.mount("disk.img");
    let mut acknowledged = vec![(0, Names::new())];
    {
        let (store, _snapshotter) = cuts::open(bench.place(), bench.backend()).unwrap();
        for (number, step) in cuts::steps().iter().enumerate() {
            step(&store, bench.place()).unwrap_or_else(|error| panic!("step {number}: {error}"));
            acknowledged.push((disk.position(), cuts::names(&store)));
        }
    }
    bench.unmount();
    cuts::run(std::process::Command::new("umount").arg(&file));
    Record { empty, events: disk.into_events(), acknowledged }
}

impl Record {
    /// The disk when the power went after `count` events.
    fn disk_after(&self, count: usize, unsynced: Unsynced) -> Vec<u8> {
        let synced = self.events[..count].iter().rposition(|event| matches!(event, Event::Sync)).unwrap_or(0);
        let mut disk = self.empty.clone();
        let mut random = count as u64 | 1;
        for (number, event) in self.events[..count].iter().enumerate() {
            let Event::Write { offset, bytes } = event else { continue };
            for (sector, piece) in bytes.chunks(SECTOR_BYTES).enumerate() {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                if number > synced && matches!(unsynced, Unsynced::LostInPart) && random & 0x100 == 0 {
                    continue;
                }
                let at = offset + sector * SECTOR_BYTES;
                disk[at..at + piece.len()].copy_from_slice(piece);
            }
        }
        disk
    }

    /// The names after the last step that was acknowledged by then, and after the one that was under way.
    fn allowed_after(&self, count: usize) -> Vec<Names> {
        let under_way = self.acknowledged.partition_point(|(position, _)| *position <= count);
        self.acknowledged[under_way - 1..].iter().take(2).map(|(_, names)| names.clone()).collect()
    }
}

/// Writes what is not zero: the file has holes where the disk is empty.
fn write_sparsely(file: &Path, disk: &[u8]) {
    use std::os::unix::fs::FileExt as _;
    let target = fs::File::create(file).unwrap();
    target.set_len(disk.len() as u64).unwrap();
    for (number, block) in disk.chunks(64 << 10).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            target.write_all_at(block, (number * (64 << 10)) as u64).unwrap();
        }
    }
}

fn survive_every_loss(backend: Choice) {
    let bench = Bench::new(backend);
    let record = record(&bench);
    let syncs = record.events.iter().filter(|event| matches!(event, Event::Sync)).count();
    // Before the file system is there, nothing is.
    let mut states: Vec<(usize, Unsynced)> = Vec::new();
    for count in 0..=record.events.len() {
        states.extend([(count, Unsynced::Kept), (count, Unsynced::LostInPart)]);
    }
    let chosen = cuts::sample(&states, SAMPLE);
    for (count, unsynced) in &chosen {
        write_sparsely(&bench.path("cut.img"), &record.disk_after(*count, *unsynced));
        bench.mount("cut.img");
        bench.check(&record.allowed_after(*count), &format!("power lost after {count} writes, unsynced {unsynced:?}"));
        bench.unmount();
    }
    let (of, writes) = (states.len(), record.events.len() - syncs);
    eprintln!("{} of {of} states of a disk with {writes} writes and {syncs} syncs", chosen.len());
}

#[test]
fn layers_as_tars_survive_every_loss() {
    survive_every_loss(Choice::Automatic);
}

#[test]
fn unpacked_layers_survive_every_loss() {
    survive_every_loss(Choice::Only(Backend::Directories));
}
