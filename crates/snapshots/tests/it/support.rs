//! What the tests share.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use oci::{DiffId, Digest};
use rustix::mount::{MountPropagationFlags, mount_change};
use sha2::{Digest as _, Sha256};
use snapshots::{Backend, Choice, Snapshotter};
use tempfile::TempDir;

pub(crate) const BACKENDS: [Backend; 3] = [Backend::ErofsFile, Backend::ErofsLoop, Backend::Directories];

/// Gives this thread a mount namespace of its own, which ends with it, and with it everything that was mounted.
pub(crate) fn private_mounts() {
    linux::namespace::unshare(libc_clone_newns()).expect("tests run as root");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .expect("a mount namespace of our own");
}

fn libc_clone_newns() -> u64 {
    0x0002_0000
}

/// A store in a directory of its own.
pub(crate) struct Store {
    pub(crate) dir: TempDir,
    pub(crate) snapshotter: Arc<dyn Snapshotter>,
}

impl Store {
    pub(crate) fn new(backend: Backend) -> Self {
        private_mounts();
        let dir = TempDir::new().expect("a temporary directory");
        let snapshotter = open(dir.path(), backend);
        Store { dir, snapshotter }
    }

    /// Stores a tar and gives the directory where it can be seen.
    pub(crate) fn add(&self, tar: &[u8]) -> Result<PathBuf, snapshots::Error> {
        let layer = add(&*self.snapshotter, tar)?;
        Ok(self.snapshotter.lower_dirs(&[layer])?.remove(0))
    }
}

pub(crate) fn open(dir: &Path, backend: Backend) -> Arc<dyn Snapshotter> {
    snapshots::open(&dir.join("root"), &dir.join("run"), Choice::Only(backend))
        .expect("this machine has every back end")
}

pub(crate) fn add(snapshotter: &dyn Snapshotter, tar: &[u8]) -> Result<DiffId, snapshots::Error> {
    let mut writer = snapshotter.stage()?;
    // A refused tar fails here already; `finish` has the typed reason.
    let _ = writer.write_all(tar);
    let expected = DiffId(Digest::of(tar));
    writer.finish(Some(&expected)).map(|layer| layer.diff_id)
}

/// What is known of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) kind: char,
    mode: u32,
    owner: (u32, u32),
    size: u64,
    mtime: (i64, i64),
    device: (u32, u32),
    links: u64,
    target: Vec<u8>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    contents: [u8; 32],
    /// All its names, when it has several.
    pub(crate) names: Vec<PathBuf>,
}

/// Describes every file of a tree.
pub(crate) fn describe(root: &Path) -> BTreeMap<PathBuf, Described> {
    let mut found = BTreeMap::new();
    let mut names: BTreeMap<(u64, u64), Vec<PathBuf>> = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        let full = if path.as_os_str().is_empty() { root.to_owned() } else { root.join(&path) };
        let metadata = fs::symlink_metadata(&full).unwrap_or_else(|error| panic!("{}: {error}", full.display()));
        if metadata.is_dir() {
            pending.extend(
                fs::read_dir(&full).expect("readable").map(|entry| path.join(entry.expect("readable").file_name())),
            );
        }
        let described = describe_one(&full, &metadata);
        if described.links > 1 && described.kind != 'd' {
            names.entry((metadata.dev(), metadata.ino())).or_default().push(path.clone());
        }
        found.insert(path, described);
    }
    for mut group in names.into_values() {
        group.sort();
        for path in &group {
            found.get_mut(path).expect("found before").names = group.clone();
        }
    }
    found
}

fn describe_one(path: &Path, metadata: &fs::Metadata) -> Described {
    let file_type = metadata.file_type();
    let kind = match () {
        () if file_type.is_dir() => 'd',
        () if file_type.is_file() => '-',
        () if file_type.is_symlink() => 'l',
        () if file_type.is_char_device() => 'c',
        () if file_type.is_block_device() => 'b',
        () if file_type.is_fifo() => 'p',
        () => 's',
    };
    let target =
        if kind == 'l' { fs::read_link(path).expect("a link").as_os_str().as_bytes().to_vec() } else { vec![] };
    let device = if matches!(kind, 'c' | 'b') { metadata.rdev() } else { 0 };
    Described {
        kind,
        mode: metadata.mode() & 0o7777,
        owner: (metadata.uid(), metadata.gid()),
        // A directory's size is the file system's own affair, and its links are counted by some and not by others.
        size: if kind == 'd' { 0 } else { metadata.size() },
        links: if kind == 'd' { 0 } else { metadata.nlink() },
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        device: (rustix::fs::major(device), rustix::fs::minor(device)),
        target,
        xattrs: xattrs(path),
        contents: if kind == '-' { hash(path) } else { [0; 32] },
        names: Vec::new(),
    }
}

fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let file =
        rustix::fs::open(path, rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW, rustix::fs::Mode::empty());
    let xattrs = archive::attributes::read_xattrs(file.expect("it is there").as_fd()).expect("attributes");
    xattrs.into_iter().map(|xattr| (xattr.name, xattr.value)).collect()
}

fn hash(path: &Path) -> [u8; 32] {
    let (mut file, mut sha256) = (File::open(path).expect("readable"), Sha256::new());
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).expect("readable") {
            0 => return sha256.finalize().into(),
            length => sha256.update(&buffer[..length]),
        }
    }
}

/// Compares two trees and says what differs, the first few of it.
pub(crate) fn assert_same(ours: &BTreeMap<PathBuf, Described>, theirs: &BTreeMap<PathBuf, Described>, what: &str) {
    let paths: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let differing = paths.iter().filter(|path| ours.get(**path) != theirs.get(**path));
    let shown: Vec<String> = differing
        .take(5)
        .map(|path| format!("{}\n  ours:   {:?}\n  theirs: {:?}", path.display(), ours.get(*path), theirs.get(*path)))
        .collect();
    assert!(shown.is_empty(), "{what}: trees differ\n{}", shown.join("\n"));
}

/// Runs a program to its success.
pub(crate) fn run(command: &mut Command) -> Vec<u8> {
    let output = command.stderr(Stdio::piped()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Extracts a tar with GNU tar, with everything that it can restore.
pub(crate) fn gnu_extract(tar: &Path, into: &Path) {
    run(Command::new("tar")
        .args(["--extract", "--preserve-permissions", "--same-owner", "--numeric-owner", "--delay-directory-restore"])
        .args(["--xattrs", "--xattrs-include=*", "--file"])
        .arg(tar)
        .arg("--directory")
        .arg(into));
}
