//! A container's files from outside: what it changed, and all of it as a tar.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use archive::ids::Ids;
use bytes::Bytes;
use monitor_protocol::{Request, Response};
use tokio::sync::mpsc;

use super::actor::monitor_error;
use super::handle::Handle;
use crate::engine::{Engine, Inner, blocking};
use crate::images::ByteStream;
use crate::model::{Change, ChangeKind, EngineError};
use crate::userns::IdMappings;

/// Pieces of a stream that may wait for the client.
pub(super) const QUEUE_LENGTH: usize = 8;
/// Size of a piece.
const PIECE: usize = 256 << 10;

/// The root of a container's file system, and whose its files are.
#[derive(Debug)]
pub(crate) struct FoundRoot {
    pub(crate) fd: OwnedFd,
    pub(crate) ids: Ids,
}

impl Engine {
    /// What it changed in its image's files.
    pub async fn container_changes(&self, reference: &str) -> Result<Vec<Change>, EngineError> {
        let record = self.inner.index.find(reference)?.record();
        let inner = Arc::clone(&self.inner);
        blocking(move || Ok(changed_files(&inner, &record)?.into_iter().map(change).collect())).await
    }

    /// Its whole file system as a tar.
    pub async fn export_container(&self, reference: &str) -> Result<ByteStream, EngineError> {
        let handle = self.inner.index.find(reference)?;
        let root = self.root_of(&handle).await?;
        let (sink, stream) = mpsc::channel(QUEUE_LENGTH);
        tokio::task::spawn_blocking(move || {
            let mut writer = Pieces::new(sink.clone());
            let written = archive::export::tree(root.fd.as_fd(), &root.ids, &mut writer).and_then(|()| writer.flush());
            // A client that has gone is no error of ours.
            if let Err(error) = written
                && error.kind() != io::ErrorKind::BrokenPipe
            {
                let _ = sink.blocking_send(Err(EngineError::system("cannot export the container", error)));
            }
        });
        self.tell_container(&handle.record(), "export", &[]);
        Ok(stream)
    }

    /// The root of its file system without the mounts in it: the monitor's own while it runs, a view of the layers otherwise.
    pub(crate) async fn root_of(&self, handle: &Handle) -> Result<FoundRoot, EngineError> {
        if let Some(live) = handle.live() {
            match live.connection.request_fds(Request::RootfsFd, Vec::new()).await {
                Ok((Response::Rootfs { fd }, fds)) => {
                    let mut fds = fds.into_iter().skip(usize::from(fd.0));
                    let fd = fds.next();
                    let fd = fd.ok_or_else(|| EngineError::unavailable("the container's monitor gave no root"))?;
                    // Its layers are mounted with the container's ids.
                    let ids = handle.record().id_mappings.as_ref().map(IdMappings::ids);
                    return Ok(FoundRoot { fd, ids: ids.unwrap_or_default() });
                }
                Ok(_) => return Err(EngineError::unavailable("the container's monitor gave a wrong answer")),
                Err(error) if handle.live().is_some() => return Err(monitor_error(error)),
                // It has ended since we looked.
                Err(_) => {}
            }
        }
        let (inner, record) = (Arc::clone(&self.inner), handle.record());
        blocking(move || Ok(FoundRoot { fd: stopped_root(&inner, &record)?, ids: Ids::default() })).await
    }
}

/// What the container changed in its image's files, mount points left out.
pub(crate) fn changed_files(
    inner: &Inner,
    record: &super::ContainerRecord,
) -> Result<Vec<snapshots::Change>, EngineError> {
    let upper = inner.container_dir(&record.id).join("upper");
    let changes = inner.snapshotter.changes(&upper, &record.layers);
    let changes = changes.map_err(|error| EngineError::system("cannot compare the container with its image", error))?;
    Ok(without_mountpoints(changes, &mountpoints(record)))
}

fn stopped_root(inner: &Inner, record: &super::ContainerRecord) -> Result<OwnedFd, EngineError> {
    let lower = inner
        .snapshotter
        .lower_dirs(&record.layers)
        .map_err(|error| EngineError::system("cannot mount the image's layers", error))?;
    let upper = inner.container_dir(&record.id).join("upper");
    crate::rootfs::container_view(&upper, &lower)
        .map_err(|error| EngineError::system("cannot open the container's files", error))
}

/// Where the runtime makes an empty file or folder to mount on: the container's doing in form only, as in Docker's init layer.
fn mountpoints(record: &super::ContainerRecord) -> Vec<String> {
    const DEFAULTS: &[&str] =
        &["/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/.dockerenv"];
    let own = record.mounts.iter().map(|mount| mount.target.clone());
    let init = record.spec.init.unwrap_or(false).then(|| crate::spec::INIT_TARGET.to_owned());
    DEFAULTS.iter().map(|path| (*path).to_owned()).chain(own).chain(init).collect()
}

/// Leaves out mount points that were added, and folders that are there only for them.
fn without_mountpoints(changes: Vec<snapshots::Change>, mountpoints: &[String]) -> Vec<snapshots::Change> {
    let is_added = |change: &snapshots::Change| {
        change.kind == snapshots::ChangeKind::Added && mountpoints.iter().any(|path| path.as_bytes() == change.path)
    };
    let (hidden, mut kept): (Vec<_>, Vec<_>) = changes.into_iter().partition(is_added);
    loop {
        let is_empty_parent = |change: &snapshots::Change| {
            let below = [change.path.as_slice(), b"/"].concat();
            change.kind != snapshots::ChangeKind::Deleted
                && hidden.iter().any(|hidden| hidden.path.starts_with(&below))
                && !kept.iter().any(|other| other.path.starts_with(&below))
        };
        match kept.iter().position(is_empty_parent) {
            Some(index) => drop(kept.remove(index)),
            None => return kept,
        }
    }
}

fn change(change: snapshots::Change) -> Change {
    let kind = match change.kind {
        snapshots::ChangeKind::Modified => ChangeKind::Modified,
        snapshots::ChangeKind::Added => ChangeKind::Added,
        snapshots::ChangeKind::Deleted => ChangeKind::Deleted,
    };
    Change { path: String::from_utf8_lossy(&change.path).into_owned(), kind }
}

/// A writer whose bytes go to an async reader in pieces.
#[derive(Debug)]
pub(crate) struct Pieces {
    sink: mpsc::Sender<Result<Bytes, EngineError>>,
    buffer: Vec<u8>,
}

impl Pieces {
    pub(crate) fn new(sink: mpsc::Sender<Result<Bytes, EngineError>>) -> Self {
        Self { sink, buffer: Vec::with_capacity(PIECE) }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        self.sink.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use snapshots::{Change, ChangeKind};

    use super::without_mountpoints;

    #[test]
    fn mount_points_are_no_changes() {
        let change = |kind, path: &str| Change { path: path.into(), kind };
        let (added, modified) = (ChangeKind::Added, ChangeKind::Modified);
        let changes = vec![
            change(modified, "/etc"),
            change(added, "/etc/hosts"),
            change(added, "/proc"),
            change(added, "/srv"),
            change(added, "/srv/data"),
            change(modified, "/var"),
            change(added, "/var/mine"),
            change(added, "/var/vol"),
        ];
        let mountpoints = ["/etc/hosts", "/proc", "/srv/data", "/var/vol"].map(str::to_owned);
        assert_eq!(without_mountpoints(changes, &mountpoints), [change(modified, "/var"), change(added, "/var/mine")]);
        let deleted = vec![change(ChangeKind::Deleted, "/etc/hosts")];
        assert_eq!(without_mountpoints(deleted.clone(), &mountpoints), deleted);
    }
}
