//! Keeping the runtime's own file out of a container's reach.
//!
//! A container that runs `/proc/self/exe`, or opens `/proc/PID/exe` of a process that is about to join it, holds the file of the
//! runtime. So the runtime runs from where that file cannot be written: a detached read-only mount of it, or, where no mount may be
//! made, a sealed copy in memory.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use linux::exec::{CStringList, execve_fd};
use linux::mount_attr::Reach;
use rustix::fs::{CWD, MemfdFlags, OFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstatvfs};
use rustix::fs::{Mode, StatVfsMountFlags};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::error::{Context, Error, Result, Stage};
use crate::mounts::make_read_only;

const OWN_FILE: &str = "/proc/self/exe";
/// Set for the program run again, which must find itself protected.
const MARK: &str = "_CONEX_RUNTIME_PROTECTED";

/// Makes sure that this process runs from a file that cannot be written; returns only in such a process.
///
/// To be called first in `main`: where it is not yet so, the program is run again.
pub fn protect_self() -> Result<()> {
    let failed = || "cannot protect the runtime's own file";
    let own =
        rustix::fs::open(OWN_FILE, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).context(Stage::Exec, failed)?;
    if is_protected(&own).context(Stage::Exec, failed)? {
        return Ok(());
    }
    if std::env::var_os(MARK).is_some() {
        return Err(Error::new(Stage::Exec, "cannot protect the runtime's own file: it is writable after all"));
    }
    let protected = match read_only_mount() {
        Ok(mount) => mount,
        Err(_) => sealed_copy(own).context(Stage::Exec, failed)?,
    };
    let environment =
        std::env::vars_os().map(|(key, value)| join(key, value)).chain([OsString::from(format!("{MARK}=1"))]);
    let lists = (CStringList::from_os(std::env::args_os()), CStringList::from_os(environment));
    let (Some(arguments), Some(environment)) = lists else {
        return Err(Error::new(Stage::Exec, "an argument has a NUL in it"));
    };
    Err(Error::os(Stage::Exec, failed(), execve_fd(protected.as_fd(), &arguments, &environment)))
}

fn join(mut key: OsString, value: OsString) -> OsString {
    key.push("=");
    key.push(value);
    key
}

fn is_protected(own: &OwnedFd) -> linux::Result<bool> {
    if fstatvfs(own)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    let needed = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    // EINVAL: not a file in memory.
    Ok(fcntl_get_seals(own).is_ok_and(|seals| seals.contains(needed)))
}

fn read_only_mount() -> linux::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, OWN_FILE, flags)?;
    make_read_only(mount.as_fd(), Reach::One)?;
    Ok(mount)
}

fn sealed_copy(own: OwnedFd) -> std::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = rustix::fs::memfd_create("conex-runtime", flags)?;
    std::io::copy(&mut File::from(own), &mut File::from(copy.try_clone()?))?;
    fcntl_add_seals(&copy, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(copy)
}
