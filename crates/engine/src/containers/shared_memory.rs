//! The /dev/shm of containers that share it (`--ipc shareable`, `--ipc container:ID`).
//!
//! ```text
//! <run>/shm/<id>    a tmpfs, mounted from the start to the end of the container that offers it
//! ```
//!
//! A mount cannot be taken out of another container's mount namespace, so this one kind lives in the engine's own, as with Docker.

use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::record::ContainerRecord;
use crate::engine::Inner;
use crate::model::{EngineError, IpcMode};

/// The folder to bind at /dev/shm, if it is a shared one; made for the container that offers it.
pub(super) fn prepare(inner: &Inner, record: &ContainerRecord) -> Result<Option<PathBuf>, EngineError> {
    match &record.spec.ipc {
        IpcMode::Shareable => {
            let folder = folder(inner, record.id.as_str());
            let made = make(&folder, record.spec.shm_size_bytes);
            made.map_err(|error| EngineError::system("cannot mount the shared memory", error))?;
            Ok(Some(folder))
        }
        IpcMode::Container(other) => Ok(Some(folder(inner, other))),
        IpcMode::Private | IpcMode::None | IpcMode::Host => Ok(None),
    }
}

/// Takes it away again; those who joined keep what they have.
pub(super) fn release(inner: &Inner, record: &ContainerRecord) {
    if record.spec.ipc == IpcMode::Shareable {
        let folder = folder(inner, record.id.as_str());
        let _ = unmount(&folder, UnmountFlags::DETACH);
        let _ = std::fs::remove_dir(&folder);
    }
}

fn folder(inner: &Inner, id: &str) -> PathBuf {
    inner.options.run.join("shm").join(id)
}

fn make(folder: &Path, size_bytes: u64) -> io::Result<()> {
    // One that a crash left would be covered by the new one and stay for ever.
    let _ = unmount(folder, UnmountFlags::DETACH);
    std::fs::create_dir_all(folder)?;
    let bytes = if size_bytes == 0 { crate::spec::DEFAULT_SHM_BYTES } else { size_bytes };
    let options = std::ffi::CString::new(format!("mode=1777,size={bytes}")).map_err(io::Error::other)?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    Ok(mount("shm", folder, "tmpfs", flags, options.as_c_str())?)
}
