//! What an overlay's upper directory changes in the layers below it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, OFlags, Stat};

use crate::export::{is_opaque, mtime, names, open, stat};

/// Deeper trees are refused: each level takes file descriptors.
const DEPTH_MAX: usize = 512;

/// How a path differs from the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// It was there and is another now (Docker's `C`, 0).
    Modified,
    /// It was not there (Docker's `A`, 1).
    Added,
    /// It is gone (Docker's `D`, 2).
    Deleted,
}

/// One path that differs from the image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// The absolute path inside the container.
    pub path: Vec<u8>,
    /// How it differs.
    pub kind: ChangeKind,
}

/// Compares an upper directory with the lower ones, topmost first. As with Docker, a directory with changes inside is modified
/// itself. Sorted by path.
pub fn changes(upper: BorrowedFd<'_>, lowers: &[BorrowedFd<'_>]) -> io::Result<Vec<Change>> {
    let upper = open(upper, b".", OFlags::DIRECTORY)?;
    let lowers = lowers.iter().map(|lower| open(*lower, b".", OFlags::DIRECTORY)).collect::<io::Result<_>>()?;
    let mut changes = Vec::new();
    compare(&upper, &Below { found: None, merged: lowers }, b"", 0, &mut changes)?;
    changes.sort_unstable();
    Ok(changes)
}

/// What the lower layers have under one name.
struct Below {
    found: Option<Stat>,
    /// When it is a directory: those that make it up, topmost first.
    merged: Vec<OwnedFd>,
}

fn compare(upper: &OwnedFd, below: &Below, path: &[u8], depth: usize, changes: &mut Vec<Change>) -> io::Result<()> {
    if depth == DEPTH_MAX {
        return Err(io::Error::other("the directories are nested too deeply to be compared"));
    }
    let upper_names = names(upper.as_fd())?;
    if !below.merged.is_empty() && is_opaque(upper.as_fd())? {
        deleted_by_opacity(&upper_names, below, path, changes)?;
    }
    for name in upper_names {
        let Some(now) = stat(upper.as_fd(), &name)? else { continue };
        let child_path = [path, b"/", &name].concat();
        let before = look_below(&below.merged, &name)?;
        compare_one(upper, &name, &now, &before, child_path, depth, changes)?;
    }
    Ok(())
}

fn compare_one(
    upper: &OwnedFd,
    name: &[u8],
    now: &Stat,
    before: &Below,
    path: Vec<u8>,
    depth: usize,
    changes: &mut Vec<Change>,
) -> io::Result<()> {
    let kind = match (&before.found, is_whiteout(now)) {
        (Some(_), true) => ChangeKind::Deleted,
        (None, true) => return Ok(()),
        (Some(_), false) => ChangeKind::Modified,
        (None, false) => ChangeKind::Added,
    };
    let own_place = changes.len();
    changes.push(Change { path: path.clone(), kind });
    if !is_directory(now) {
        return Ok(());
    }
    compare(&open(upper.as_fd(), name, OFlags::DIRECTORY)?, before, &path, depth + 1, changes)?;
    let nothing_inside = changes.len() == own_place + 1;
    if nothing_inside && before.found.as_ref().is_some_and(|before| same_directory(now, before)) {
        changes.pop();
    }
    Ok(())
}

fn deleted_by_opacity(
    upper_names: &[Vec<u8>],
    below: &Below,
    path: &[u8],
    changes: &mut Vec<Change>,
) -> io::Result<()> {
    let mut hidden = Vec::new();
    for dir in &below.merged {
        hidden.extend(names(dir.as_fd())?);
    }
    hidden.sort_unstable();
    hidden.dedup();
    for name in hidden.iter().filter(|name| upper_names.binary_search(name).is_err()) {
        if look_below(&below.merged, name)?.found.is_some() {
            changes.push(Change { path: [path, b"/", name.as_slice()].concat(), kind: ChangeKind::Deleted });
        }
    }
    Ok(())
}

/// Looks a name up as overlayfs merges directories: the topmost decides, directories go on below until a whiteout, a file or an
/// opaque directory.
fn look_below(merged: &[OwnedFd], name: &[u8]) -> io::Result<Below> {
    let mut below = Below { found: None, merged: Vec::new() };
    for dir in merged {
        let Some(found) = stat(dir.as_fd(), name)? else { continue };
        if is_whiteout(&found) || (below.found.is_some() && !is_directory(&found)) {
            break;
        }
        let directory = is_directory(&found);
        below.found.get_or_insert(found);
        if !directory {
            break;
        }
        let dir = open(dir.as_fd(), name, OFlags::DIRECTORY)?;
        let opaque = is_opaque(dir.as_fd())?;
        below.merged.push(dir);
        if opaque {
            break;
        }
    }
    Ok(below)
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// A directory is copied up as soon as something changes below it; that alone does not change it.
fn same_directory(now: &Stat, before: &Stat) -> bool {
    let key = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, mtime(stat));
    is_directory(before) && key(now) == key(before)
}
