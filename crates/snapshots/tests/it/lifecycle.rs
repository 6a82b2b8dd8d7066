//! A layer's life: stored, found again, checked, removed; and what crashes leave.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci::{DiffId, Digest};
use snapshots::{Backend, Choice, Error, OpenError};

use crate::raw_tar::RawTar;
use crate::support::{BACKENDS, Store, add, describe, open};

/// Contents that are replaced by a later entry, a file inside a file's padding, trailing bytes: a tar that only its own bytes can tell.
fn awkward_tar() -> Vec<u8> {
    let mut tar = RawTar::new()
        .file("replaced", "first version")
        .file("a", "x")
        .hard_link("b", "a")
        .file("replaced", "second")
        .directory("dir")
        .file("dir/large", &"contents ".repeat(10_000))
        .end();
    tar[1024 + 512 + 100] = b'!';
    tar.extend_from_slice(b"and something behind the end");
    tar
}

fn id(tar: &[u8]) -> DiffId {
    DiffId(Digest::of(tar))
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    describe(dir).into_iter().filter(|(_, file)| file.kind != 'd').map(|(path, _)| path).collect()
}

#[test]
fn a_tar_is_given_back_byte_for_byte() {
    for backend in BACKENDS {
        let store = Store::new(backend);
        let tar = awkward_tar();
        let layer = add(&*store.snapshotter, &tar).unwrap();
        assert!(store.snapshotter.has(&layer));
        assert_eq!(store.snapshotter.size(&layer).unwrap(), tar.len() as u64);
        let mut found = Vec::new();
        store.snapshotter.open_tar(&layer).unwrap().read_to_end(&mut found).unwrap();
        assert!(found == tar, "{backend}");
        store.snapshotter.verify(&layer).unwrap();
        let listed = store.snapshotter.list().unwrap();
        assert_eq!((listed.len(), listed[0].diff_id, listed[0].tar_bytes), (1, layer, tar.len() as u64));
        assert!(listed[0].disk_bytes > 90_000, "{backend}: {}", listed[0].disk_bytes);
    }
}

#[test]
fn what_is_not_finished_or_not_right_leaves_nothing() {
    for backend in BACKENDS {
        let store = Store::new(backend);
        let before = files_below(store.dir.path());
        drop(store.snapshotter.stage().unwrap());
        let mut unfinished = store.snapshotter.stage().unwrap();
        unfinished.write_all(&awkward_tar()[..5000]).unwrap();
        drop(unfinished);
        let mut wrong = store.snapshotter.stage().unwrap();
        wrong.write_all(&awkward_tar()).unwrap();
        assert!(matches!(wrong.finish(Some(&id(b"another"))), Err(Error::WrongDigest { .. })));
        let mut cut = store.snapshotter.stage().unwrap();
        cut.write_all(&awkward_tar()[..5000]).unwrap();
        assert!(matches!(cut.finish(None), Err(Error::Refused(_))));
        assert_eq!(files_below(store.dir.path()), before, "{backend}");
        assert!(matches!(store.snapshotter.lower_dirs(&[id(b"another")]), Err(Error::NotFound { .. })));
        assert!(matches!(store.snapshotter.open_tar(&id(b"another")).err(), Some(Error::NotFound { .. })));
    }
}

#[test]
fn a_layer_may_come_twice_also_at_once() {
    for backend in BACKENDS {
        let store = Store::new(backend);
        let tar = awkward_tar();
        std::thread::scope(|scope| {
            let jobs: Vec<_> = (0..4).map(|_| scope.spawn(|| add(&*store.snapshotter, &tar).unwrap())).collect();
            jobs.into_iter().for_each(|job| assert_eq!(job.join().unwrap(), id(&tar)));
        });
        add(&*store.snapshotter, &tar).unwrap();
        assert_eq!(store.snapshotter.list().unwrap().len(), 1);
        store.snapshotter.verify(&id(&tar)).unwrap();
    }
}

#[test]
fn a_removed_layer_leaves_nothing() {
    for backend in BACKENDS {
        let store = Store::new(backend);
        let before = files_below(store.dir.path());
        let layer = add(&*store.snapshotter, &awkward_tar()).unwrap();
        store.snapshotter.lower_dirs(&[layer]).unwrap();
        store.snapshotter.remove(&layer).unwrap();
        store.snapshotter.remove(&layer).unwrap();
        assert!(!store.snapshotter.has(&layer));
        assert_eq!(files_below(store.dir.path()), before, "{backend}");
    }
}

#[test]
fn one_engine_at_a_time() {
    let store = Store::new(Backend::ErofsFile);
    let (root, run) = (store.dir.path().join("root"), store.dir.path().join("run"));
    let second = snapshots::open(&root, &run, Choice::Automatic);
    assert!(matches!(second, Err(OpenError::InUse { .. })));
}

#[test]
fn a_new_daemon_goes_on_with_the_mounts_of_the_old_one() {
    for backend in [Backend::ErofsFile, Backend::ErofsLoop] {
        let Store { dir, snapshotter } = Store::new(backend);
        let layer = add(&*snapshotter, &awkward_tar()).unwrap();
        let before = snapshotter.lower_dirs(&[layer]).unwrap();
        let device = fs::metadata(&before[0]).unwrap().dev();
        drop(snapshotter);
        let snapshotter = open(dir.path(), backend);
        assert_eq!(snapshotter.lower_dirs(&[layer]).unwrap(), before);
        assert_eq!(fs::metadata(&before[0]).unwrap().dev(), device, "{backend}: the same mount");
    }
}

/// The store's file of this suffix.
fn stored(dir: &Path, layer: &DiffId, suffix: &str) -> PathBuf {
    dir.join("root/layers/sha256").join(format!("{}.{suffix}", layer.hex()))
}

fn flip_a_byte(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn damage_is_found() {
    let Store { dir, snapshotter } = Store::new(Backend::ErofsFile);
    let layer = add(&*snapshotter, &awkward_tar()).unwrap();
    flip_a_byte(&stored(dir.path(), &layer, "tar"), 600);
    assert!(matches!(snapshotter.verify(&layer), Err(Error::Corrupt { .. })));
    drop(snapshotter);
    let Store { dir, snapshotter } = Store::new(Backend::Directories);
    let layer = add(&*snapshotter, &awkward_tar()).unwrap();
    let file = snapshotter.lower_dirs(&[layer]).unwrap()[0].join("a");
    fs::write(file, "y").unwrap();
    assert!(matches!(snapshotter.verify(&layer), Err(Error::Corrupt { .. })));
    drop(dir);
}

#[test]
fn what_is_found_corrupt_is_replaced_when_it_comes_again() {
    for backend in [Backend::ErofsFile, Backend::Directories] {
        let Store { dir, snapshotter } = Store::new(backend);
        let layer = add(&*snapshotter, &awkward_tar()).unwrap();
        match backend {
            Backend::Directories => fs::write(snapshotter.lower_dirs(&[layer]).unwrap()[0].join("a"), "y").unwrap(),
            _ => flip_a_byte(&stored(dir.path(), &layer, "tar"), 600),
        }
        assert!(snapshotter.has(&layer), "nobody knows yet");
        snapshotter.verify(&layer).unwrap_err();
        assert!(!snapshotter.has(&layer), "{backend}");
        add(&*snapshotter, &awkward_tar()).unwrap();
        assert!(snapshotter.has(&layer), "{backend}");
        snapshotter.verify(&layer).unwrap();
    }
}

#[test]
fn a_damaged_index_is_told_from_a_damaged_tar() {
    let Store { dir, snapshotter } = Store::new(Backend::ErofsFile);
    let layer = add(&*snapshotter, &awkward_tar()).unwrap();
    let path = stored(dir.path(), &layer, "erofs");
    let index = fs::read(&path).unwrap();
    flip_a_byte(&path, 1100);
    assert!(matches!(snapshotter.verify(&layer), Err(Error::DamagedIndex { .. })));
    assert!(snapshotter.has(&layer), "the tar has everything");
    snapshotter.rebuild_index(&layer).unwrap();
    snapshotter.verify(&layer).unwrap();
    assert_eq!(fs::read(&path).unwrap(), index);
    fs::remove_file(&path).unwrap();
    assert!(matches!(snapshotter.verify(&layer), Err(Error::DamagedIndex { .. })));
}

#[test]
fn a_lost_or_damaged_index_is_made_again_the_same() {
    for backend in [Backend::ErofsFile, Backend::ErofsLoop] {
        let Store { dir, snapshotter } = Store::new(backend);
        let layer = add(&*snapshotter, &awkward_tar()).unwrap();
        let path = stored(dir.path(), &layer, "erofs");
        let index = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let lower = snapshotter.lower_dirs(&[layer]).unwrap().remove(0);
        let files = describe(&lower);
        assert!(fs::read(&path).unwrap() == index, "the index depends on the tar alone");
        snapshotter.unmount_except(&[]).unwrap();
        flip_a_byte(&path, 1024);
        assert_eq!(describe(&snapshotter.lower_dirs(&[layer]).unwrap()[0]), files);
        snapshotter.unmount_except(&[]).unwrap();
        fs::write(&path, b"").unwrap();
        assert_eq!(describe(&snapshotter.lower_dirs(&[layer]).unwrap()[0]), files);
    }
}

#[test]
fn leftovers_of_a_crash_are_swept() {
    for backend in BACKENDS {
        let Store { dir, snapshotter } = Store::new(backend);
        drop(snapshotter);
        let layers = dir.path().join("root/layers");
        let before = files_below(&layers);
        let sub = if backend == Backend::Directories { "unpacked" } else { "sha256" };
        fs::write(layers.join(sub).join(".tmp-1-2-3"), b"half a layer").unwrap();
        if backend == Backend::Directories {
            fs::create_dir_all(layers.join("unpacked/.work-x/root/dir")).unwrap();
            fs::write(layers.join("unpacked/.work-x/root/dir/file"), b"x").unwrap();
        } else {
            // An index is named before its tar, and goes after it.
            fs::write(layers.join(sub).join(format!("{}.erofs", id(b"").hex())), b"an index").unwrap();
        }
        let snapshotter = open(dir.path(), backend);
        assert_eq!(files_below(&layers), before, "{backend}");
        assert!(snapshotter.list().unwrap().is_empty());
    }
}

#[test]
fn a_full_disk_is_a_clean_error() {
    // The kernel reads no EROFS image from a file of a tmpfs, through a loop device it does.
    for backend in [Backend::ErofsLoop, Backend::Directories] {
        crate::support::private_mounts();
        let dir = tempfile::tempdir().unwrap();
        rustix::mount::mount("none", dir.path(), "tmpfs", rustix::mount::MountFlags::empty(), Some(c"size=2m"))
            .unwrap();
        let snapshotter = open(dir.path(), backend);
        let contents = "x".repeat(3 << 20);
        let tar = RawTar::new().file("a", &contents).end();
        let mut writer = snapshotter.stage().unwrap();
        let _ = writer.write_all(&tar);
        match writer.finish(None) {
            Err(Error::Io { source, .. }) => assert_eq!(source.kind(), std::io::ErrorKind::StorageFull, "{backend}"),
            other => panic!("{backend}: {other:?}"),
        }
        // There is room again, and the store works.
        add(&*snapshotter, &RawTar::new().file("a", "x").end()).unwrap();
    }
}

#[test]
fn the_forms_on_disk_are_those_that_are_documented() {
    let Store { dir, snapshotter } = Store::new(Backend::ErofsFile);
    let layer = add(&*snapshotter, &awkward_tar()).unwrap();
    let lower = snapshotter.lower_dirs(&[layer]).unwrap().remove(0);
    assert_eq!(lower, dir.path().join("run/layers").join(&layer.hex()[..32]));
    drop(snapshotter);
    let mut names: Vec<_> = fs::read_dir(dir.path().join("root/layers/sha256"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["erofs", "tar"].map(|suffix| format!("{}.{suffix}", layer.hex())));
    for path in ["root/layers", "root/layers/sha256", "run/layers"] {
        assert_eq!(fs::metadata(dir.path().join(path)).unwrap().mode() & 0o7777, 0o700, "{path}");
    }
}

#[test]
fn long_paths_are_mounted_too() {
    for backend in [Backend::ErofsFile, Backend::ErofsLoop] {
        crate::support::private_mounts();
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(200)).join("e".repeat(200));
        fs::create_dir_all(&deep).unwrap();
        let snapshotter = open(&deep, backend);
        let layer = add(&*snapshotter, &awkward_tar()).unwrap();
        let lower = snapshotter.lower_dirs(&[layer]).unwrap().remove(0);
        assert_eq!(fs::read_to_string(lower.join("replaced")).unwrap(), "second", "{backend}");
    }
}
