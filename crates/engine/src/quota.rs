//! How much a container or a volume may take on the disk, by project quota.
//!
//! Its folders get the number of a project that nobody uses, chosen at random, and the number gets the limit; both are on the disk, so
//! there is nothing to do after a restart. Who removes the folders frees the number.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use linux::Errno;
use linux::quota::{limit_project, project_of, project_quota, set_project};
use rustix::fs::{self, Mode, OFlags};

use crate::model::EngineError;

/// Attempts to find a number that nobody uses; two thousand million are there to choose from.
const ATTEMPTS: usize = 16;

/// Limits what `folders`, which are new and on one file system, may hold together. Blocking.
pub(crate) fn limit(folders: &[&Path], bytes: u64) -> Result<(), EngineError> {
    let Some(first) = folders.first() else { return Ok(()) };
    let refused = |error: Errno| refusal(first, error);
    let opened = folders.iter().map(|folder| open(folder)).collect::<Result<Vec<_>, _>>().map_err(refused)?;
    let project = unused(&opened[0]).map_err(refused)?;
    // The limit before the folders: a number with a limit is taken.
    limit_project(opened[0].as_fd(), project, bytes).map_err(refused)?;
    opened.iter().try_for_each(|folder| set_project(folder.as_fd(), project)).map_err(|error| {
        let _ = limit_project(opened[0].as_fd(), project, 0);
        refused(error)
    })
}

/// Frees the number of a folder that is about to be removed, if it has one. Blocking.
pub(crate) fn release(folder: &Path) {
    let Ok(folder) = open(folder) else { return };
    let Ok(project @ 1..) = project_of(folder.as_fd()) else { return };
    // What is left of the files is removed by the caller, whatever comes of this.
    let _ = limit_project(folder.as_fd(), project, 0);
}

fn open(folder: &Path) -> Result<OwnedFd, Errno> {
    fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn unused(folder: &OwnedFd) -> Result<u32, Errno> {
    for _ in 0..ATTEMPTS {
        // Negative numbers are no good with older tools.
        let project = u32::from_ne_bytes(crate::random_bytes()) >> 1;
        let quota = project_quota(folder.as_fd(), project)?;
        if project != 0 && quota.used_bytes == 0 && quota.limit_bytes == 0 {
            return Ok(project);
        }
    }
    Err(Errno::BUSY)
}

fn refusal(folder: &Path, error: Errno) -> EngineError {
    let place = folder.display();
    match error {
        Errno::NOSYS | Errno::NOTTY | Errno::OPNOTSUPP | Errno::SRCH | Errno::INVAL | Errno::PERM => {
            EngineError::invalid(format!(
                "size: the file system of {place} keeps no project quotas ({error}); they need Linux 5.14, and xfs mounted with prjquota, or \
                 ext4 with the features quota and project, mounted with prjquota"
            ))
        }
        error => EngineError::system(&format!("cannot limit the size of {place}"), error),
    }
}
