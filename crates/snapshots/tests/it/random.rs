//! Trees by chance: the index as the kernel reads it against the same tree unpacked.

use std::io::Write;

use archive::tar::{Device, EntryKind, Header, Metadata, Timestamp, Writer, Xattr};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use snapshots::{Backend, Snapshotter};

use crate::support::{add, assert_same, describe, open, private_mounts};

#[derive(Debug, Clone)]
struct RandomFile {
    path: Vec<u8>,
    metadata: Metadata,
    kind: EntryKind,
}

fn component() -> impl Strategy<Value = Vec<u8>> {
    // Short names meet each other; long ones fill directory blocks to their last byte.
    let byte = prop_oneof![1_u8..=b'.', b'0'..=255];
    let name = prop_oneof![
        3 => prop::sample::select(vec![b"a".to_vec(), b"b".to_vec(), b"!".to_vec(), b"..a".to_vec(), b"-".to_vec()]),
        2 => prop::collection::vec(byte.clone(), 1..20),
        1 => prop::collection::vec(byte, 240..256),
    ];
    name.prop_filter("names that mean something else", |name| {
        !matches!(name.as_slice(), b"." | b"..") && !name.starts_with(b".wh.")
    })
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(component(), 1..5).prop_map(|parts| parts.join(&b'/'))
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let xattr = (prop::sample::select(vec!["a", "b", "a-longer-name"]), 0_usize..900, any::<u8>()).prop_map(
        |(name, length, byte)| Xattr { name: format!("trusted.{name}").into_bytes(), value: vec![byte % 3; length] },
    );
    let xattrs = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(xattr, 1..4)];
    let mtime = (-1_000_000_000_i64..4_000_000_000, 0_u32..1_000_000_000);
    (0_u32..0o10000, 0_u32..4_000_000_000, 0_u32..70_000, mtime, xattrs).prop_map(
        |(mode, uid, gid, (seconds, nanoseconds), mut xattrs)| {
            xattrs.sort();
            xattrs.dedup_by(|a, b| a.name == b.name);
            Metadata { mode, uid, gid, mtime: Timestamp { seconds, nanoseconds }, xattrs }
        },
    )
}

fn kind() -> impl Strategy<Value = EntryKind> {
    let size = prop_oneof![Just(0), 1_u64..2000, prop::sample::select(vec![511_u64, 512, 513, 4096, 70_000])];
    let device = (1_u32..4096, 0_u32..1 << 20).prop_map(|(major, minor)| Device { major, minor });
    prop_oneof![
        4 => size.prop_map(|size| EntryKind::File { size, sparse: None }),
        4 => Just(EntryKind::Directory),
        2 => prop::collection::vec(1_u8..255, 1..1000).prop_map(|target| EntryKind::Symlink { target }),
        2 => path().prop_map(|target| EntryKind::HardLink { target }),
        1 => device.clone().prop_map(EntryKind::CharDevice),
        1 => device.prop_map(EntryKind::BlockDevice),
        1 => Just(EntryKind::Fifo),
    ]
}

fn file() -> impl Strategy<Value = RandomFile> {
    (path(), metadata(), kind()).prop_map(|(path, metadata, kind)| RandomFile { path, metadata, kind })
}

/// The tar of those files that a layer can have after the ones before them.
fn tar(files: &[RandomFile]) -> Vec<u8> {
    let mut tree = archive::layer::LayerTree::new();
    let mut writer = Writer::new(Vec::new());
    for (number, file) in files.iter().enumerate() {
        let entry = archive::tar::Entry {
            path: file.path.clone(),
            metadata: file.metadata.clone(),
            kind: file.kind.clone(),
            header_offset: 0,
            data_offset: 0,
            data_size: 0,
        };
        let before = tree.clone();
        if tree.apply(entry).is_err() {
            tree = before;
            continue;
        }
        writer.start(&Header { path: &file.path, metadata: &file.metadata, kind: &file.kind }).unwrap();
        if let EntryKind::File { size, .. } = file.kind {
            writer.write_all(&vec![number as u8; size as usize]).unwrap();
        }
    }
    writer.finish().unwrap()
}

#[test]
fn the_index_shows_what_unpacking_makes() {
    private_mounts();
    let dir = tempfile::tempdir().unwrap();
    let erofs = open(&dir.path().join("erofs"), Backend::ErofsFile);
    let unpacked = open(&dir.path().join("unpacked"), Backend::Directories);
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&prop::collection::vec(file(), 1..120), |files| {
        check(&*erofs, &*unpacked, &tar(&files));
        Ok(())
    });
    outcome.unwrap();
}

fn check(erofs: &dyn Snapshotter, unpacked: &dyn Snapshotter, tar: &[u8]) {
    let layer = add(erofs, tar).unwrap();
    add(unpacked, tar).unwrap();
    let seen = describe(&erofs.lower_dirs(&[layer]).unwrap()[0]);
    assert_same(&seen, &describe(&unpacked.lower_dirs(&[layer]).unwrap()[0]), "index and unpacked");
    erofs.remove(&layer).unwrap();
    unpacked.remove(&layer).unwrap();
}
