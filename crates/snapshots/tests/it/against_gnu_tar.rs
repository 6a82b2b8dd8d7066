//! What a mounted layer shows against what GNU tar makes of the same tar.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use snapshots::Backend;

use crate::support::{BACKENDS, Store, assert_same, describe, gnu_extract, run};

/// A tree with one of everything.
fn make_sample(root: &Path) {
    make_files(root);
    make_links_and_nodes(root);
    make_long_names(root);
    make_sparse_files(root);
    make_xattrs(root);
    let (uid, gid) = (rustix::fs::Uid::from_raw(1000), rustix::fs::Gid::from_raw(70_000));
    rustix::fs::chown(root.join("page"), Some(uid), Some(gid)).unwrap();
    set_times(&root.join("block"), 1_234_567_890, 123_456_789);
    set_times(&root.join("page"), 1_234_567_890, 0);
    set_times(&root.join("dir/sub"), 1, 5);
}

fn make_files(root: &Path) {
    let file = |name: &str, contents: &[u8], mode: u32| {
        fs::write(root.join(name), contents).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    for directory in ["dir", "dir/sub", "many", "deep", "odd"] {
        fs::create_dir(root.join(directory)).unwrap();
    }
    file("empty", b"", 0o600);
    file("one", b"1", 0o644);
    file("block", &[7; 512], 0o444);
    file("page", &[8; 4096], 0o640);
    file("large", &(0..3_000_001_u32).map(|at| (at / 7) as u8).collect::<Vec<_>>(), 0o644);
    file("dir/setuid", b"#!", 0o4755);
    file("dir/setgid", b"#!", 0o2755);
    fs::set_permissions(root.join("dir/sub"), fs::Permissions::from_mode(0o1777)).unwrap();
    for number in 0..700 {
        let name = format!("many/a file with a name of some length, number {number}");
        file(&name, format!("{number}").as_bytes(), 0o644);
    }
    for name in ["!first", "-dash", "+plus", "..x", ".hidden", "~", "\u{e4}\u{f6}\u{fc}", "new\nline", "#", "a b"] {
        file(&format!("odd/{name}"), name.as_bytes(), 0o644);
    }
}

fn make_links_and_nodes(root: &Path) {
    symlink("one", root.join("link")).unwrap();
    symlink("x".repeat(440), root.join("link-440")).unwrap();
    symlink("y".repeat(600), root.join("link-600")).unwrap();
    symlink("z".repeat(4000), root.join("link-4000")).unwrap();
    symlink("../../../../etc/passwd", root.join("link-out")).unwrap();
    fs::hard_link(root.join("one"), root.join("dir/one-again")).unwrap();
    fs::hard_link(root.join("one"), root.join("odd/one-more")).unwrap();
    fs::hard_link(root.join("link"), root.join("link-again")).unwrap();
    let node = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, root.join(name), kind, Mode::RUSR | Mode::WUSR, device).unwrap();
    };
    node("fifo", FileType::Fifo, 0);
    node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    node("disk", FileType::BlockDevice, rustix::fs::makedev(259, 70_000));
}

fn make_long_names(root: &Path) {
    let mut deep = root.join("deep");
    for level in 0..12 {
        deep = deep.join(format!("a directory with a rather long name on level {level}"));
        fs::create_dir(&deep).unwrap();
    }
    fs::write(deep.join("n".repeat(255)), "at the bottom").unwrap();
    fs::write(root.join("l".repeat(255)), "long").unwrap();
}

fn make_sparse_files(root: &Path) {
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(5_000_000).unwrap();
    sparse.write_all_at(&[1; 5000], 100_000).unwrap();
    sparse.write_all_at(&[2; 70_000], 1_000_000).unwrap();
    sparse.write_all_at(b"end", 4_999_997).unwrap();
    File::create(root.join("all-hole")).unwrap().set_len(100_000).unwrap();
}

fn make_xattrs(root: &Path) {
    let xattr = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::lsetxattr(root.join(name), key, value, XattrFlags::empty()).unwrap();
    };
    xattr("one", "user.one", b"1");
    xattr("one", "user.empty", b"");
    xattr("dir", "user.on-a-directory", &[0, 1, 2, 255]);
    xattr("dir", "trusted.shared", b"the same on many files");
    xattr("page", "trusted.shared", b"the same on many files");
    xattr("large", "trusted.shared", b"the same on many files");
    xattr("large", "user.long", &[b'v'; 2000]);
    xattr("link-440", "trusted.on-a-link", &[b'l'; 100]);
    xattr("block", "security.capability", &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

fn set_times(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let file = File::open(path).unwrap();
    rustix::fs::futimens(file.as_fd(), &rustix::fs::Timestamps { last_access: time, last_modification: time }).unwrap();
}

fn check(backend: Backend, tar_arguments: &[&str]) {
    let store = Store::new(backend);
    let (source, extracted) = (store.dir.path().join("source"), store.dir.path().join("extracted"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&extracted).unwrap();
    make_sample(&source);
    let tar = store.dir.path().join("sample.tar");
    run(Command::new("tar")
        .args(["--create", "--numeric-owner", "--file"])
        .arg(&tar)
        .args(tar_arguments)
        .arg("--directory")
        .arg(&source)
        .arg("."));
    gnu_extract(&tar, &extracted);
    let ours = store.add(&fs::read(&tar).unwrap()).unwrap();
    let (ours, theirs) = (describe(&ours), describe(&extracted));
    // Two trees of which nothing was read would be the same as well.
    assert_eq!(ours.values().any(|file| !file.xattrs.is_empty()), tar_arguments.contains(&"--xattrs"));
    assert!(ours.len() > 40 && ours.values().any(|file| file.names.len() > 1));
    assert_same(&ours, &theirs, &format!("{backend} {tar_arguments:?}"));
}

fn check_all(tar_arguments: &[&str]) {
    for backend in BACKENDS {
        check(backend, tar_arguments);
    }
}

#[test]
fn pax_with_attributes() {
    check_all(&["--format=pax", "--xattrs", "--xattrs-include=*"]);
}

#[test]
fn gnu_format() {
    check_all(&["--format=gnu"]);
}

#[test]
fn ustar_without_what_it_cannot_say() {
    check_all(&["--format=ustar", "--exclude=./deep", "--exclude=./link-*", "--exclude=lllll*"]);
}

#[test]
fn sparse_in_every_format() {
    check_all(&["--format=gnu", "--sparse", "--exclude=./many"]);
    for version in ["0.0", "0.1"] {
        let version = format!("--sparse-version={version}");
        check(Backend::ErofsFile, &["--format=pax", "--sparse", &version, "--exclude=./many"]);
    }
    check_all(&["--format=pax", "--sparse", "--sparse-version=1.0", "--exclude=./many"]);
}
