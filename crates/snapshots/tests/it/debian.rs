//! A whole Debian, some 40,000 files: against GNU tar, the kernel, and Debian's own erofs-utils, which run inside of it.
//!
//! The root is made once with debootstrap and kept as a tar below `target/test-roots`.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Read};
use std::os::unix::fs::{FileExt, chroot};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::mount::mount_bind;
use snapshots::{Backend, Snapshotter};

use crate::support::{Store, assert_same, describe, gnu_extract, run};

const MIRROR: &str = "http://deb.debian.org/debian";
/// Many small files without much to download; erofs-utils to check our own index with.
const PACKAGES: &str = "erofs-utils,libboost1.83-dev,golang-src,vim-runtime";
const FILES_MIN: usize = 40_000;

/// The root as a tar.
fn debian() -> PathBuf {
    let roots = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-roots");
    fs::create_dir_all(&roots).unwrap();
    let tar = roots.join("debian.tar");
    let _lock = durable::Lock::acquire(&roots.join("lock")).unwrap();
    if !tar.exists() {
        let root = tempfile::tempdir_in(&roots).unwrap();
        run(Command::new("debootstrap")
            .args(["--variant=minbase", "--include", PACKAGES, "trixie"])
            .arg(root.path())
            .arg(MIRROR));
        let unfinished = roots.join("debian.tar.unfinished");
        run(Command::new("tar")
            .args([
                "--create",
                "--format=pax",
                "--xattrs",
                "--xattrs-include=*",
                "--numeric-owner",
                "--sort=name",
                "--file",
            ])
            .arg(&unfinished)
            .arg("--directory")
            .arg(root.path())
            .arg("."));
        fs::rename(unfinished, &tar).unwrap();
    }
    tar
}

fn store_tar(snapshotter: &dyn Snapshotter, tar: &Path) -> oci::DiffId {
    let mut writer = snapshotter.stage().unwrap();
    let mut source = BufReader::with_capacity(1 << 20, File::open(tar).unwrap());
    std::io::copy(&mut source, &mut writer).unwrap();
    writer.finish(None).unwrap().diff_id
}

#[test]
fn a_debian_root_is_what_gnu_tar_makes_of_it() {
    let tar = debian();
    let store = Store::new(Backend::ErofsFile);
    let begin = Instant::now();
    let layer = store_tar(&*store.snapshotter, &tar);
    let stored = begin.elapsed();
    let lower = store.snapshotter.lower_dirs(&[layer]).unwrap().remove(0);
    report(&store, &tar, stored);
    let extracted = store.dir.path().join("extracted");
    fs::create_dir(&extracted).unwrap();
    gnu_extract(&tar, &extracted);
    let ours = describe(&lower);
    assert!(ours.len() >= FILES_MIN, "only {} files", ours.len());
    assert_same(&ours, &describe(&extracted), "Debian");
    let index = store.dir.path().join("root/layers/sha256").join(format!("{}.erofs", layer.hex()));
    let files = ours.values().filter(|file| file.kind == '-').count() as u64;
    check_with_erofs_utils(&store, &lower, &index, files);
}

fn report(store: &Store, tar: &Path, stored: std::time::Duration) {
    let usage = store.snapshotter.list().unwrap().remove(0);
    let megabytes = fs::metadata(tar).unwrap().len() / 1_000_000;
    let index_kilobytes = usage.disk_bytes.saturating_sub(usage.tar_bytes) / 1000;
    eprintln!("stored {megabytes} MB in {stored:.1?} (a debug build), index of {index_kilobytes} kB");
    assert!(usage.disk_bytes * 100 < usage.tar_bytes * 105, "at most 5 % more than the tar: {usage:?}");
}

/// Runs fsck.erofs and dump.erofs of the Debian in the layer, in the mounted layer, on the layer's own index.
fn check_with_erofs_utils(store: &Store, lower: &Path, index: &Path, files: u64) {
    let work = store.dir.path().join("work");
    fs::create_dir(&work).unwrap();
    fs::copy(index, work.join("index")).unwrap();
    fs::hard_link(index.with_extension("tar"), work.join("tar")).unwrap();
    without_checksum(&work.join("index"));
    mount_bind(&work, lower.join("mnt")).unwrap();
    let inside = |arguments: &[&str]| {
        let mut command = Command::new(arguments[0]);
        command.args(&arguments[1..]).args(["--device=/mnt/tar", "/mnt/index"]);
        // Not /dev/null: devices of a layer cannot be opened where only the layer is mounted.
        command.stdin(Stdio::inherit());
        let root = lower.to_owned();
        // A program of the layer, run from the layer.
        let output = std::thread::spawn(move || {
            linux::namespace::unshare(0x200).unwrap();
            chroot(&root).unwrap();
            std::env::set_current_dir("/").unwrap();
            run(&mut command)
        });
        String::from_utf8(output.join().unwrap()).unwrap()
    };
    inside(&["/usr/bin/fsck.erofs"]);
    let statistics = inside(&["/usr/bin/dump.erofs", "-s", "-S"]);
    let number = |label: &str| -> u64 {
        let line =
            statistics.lines().find(|line| line.contains(label)).unwrap_or_else(|| panic!("{label}: {statistics}"));
        line.rsplit(|character: char| !character.is_ascii_digit())
            .find(|part| !part.is_empty())
            .unwrap()
            .parse()
            .unwrap()
    };
    assert_eq!(number("Filesystem regular file count"), files);
    assert_eq!(number("Filesystem blocksize"), 512);
    assert_eq!(number("Filesystem unknown type count"), 0);
}

/// Takes the mark of a checksum from a copy: fsck.erofs 1.8 computes it wrongly for blocks smaller than a kilobyte and crashes. The
/// kernel computes it rightly, and has checked it when it mounted the original.
fn without_checksum(index: &Path) {
    const FEATURES: u64 = 1024 + 8;
    let file = OpenOptions::new().read(true).write(true).open(index).unwrap();
    let mut features = [0; 4];
    file.read_exact_at(&mut features, FEATURES).unwrap();
    file.write_all_at(&(u32::from_le_bytes(features) & !1).to_le_bytes(), FEATURES).unwrap();
}

#[test]
fn an_unpacked_debian_root_comes_back_byte_for_byte() {
    let tar = debian();
    let store = Store::new(Backend::Directories);
    let layer = store_tar(&*store.snapshotter, &tar);
    store.snapshotter.verify(&layer).unwrap();
    let mut expected = BufReader::with_capacity(1 << 20, File::open(&tar).unwrap());
    let mut found = store.snapshotter.open_tar(&layer).unwrap();
    assert!(same_bytes(&mut expected, &mut found));
}

fn same_bytes(one: &mut dyn Read, other: &mut dyn Read) -> bool {
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let read = one.read(&mut left).unwrap();
        if read == 0 {
            return other.read(&mut right).unwrap() == 0;
        }
        if other.read_exact(&mut right[..read]).is_err() || left[..read] != right[..read] {
            return false;
        }
    }
}
