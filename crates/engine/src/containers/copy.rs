//! `cp`: a path of a container looked at, read as a tar, filled from a tar; running or not.

use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use archive::extract::{ExtractError, Options, Overwrite, Owner, extract};
use archive::ids::Ids;
use archive::place;
use archive::unpack::Privileges;
use rustix::fs::{OFlags, StatVfsMountFlags};
use tokio::sync::{mpsc, oneshot};

use super::actor::Command;
use super::ask;
use super::files::{Pieces, QUEUE_LENGTH};
use super::handle::Handle;
use super::owner::owner_of;
use super::root::{RootAccess, StoppedRoot, Work, of_running, with_running};
use crate::engine::{Engine, blocking};
use crate::images::{ByteStream, Incoming, InputStream};
use crate::model::{CopyIn, EngineError, PathStat};

/// How often a container may start or end just when its files are looked for.
const ROOT_ATTEMPTS: usize = 5;

impl Engine {
    /// What is at a path of a container.
    pub async fn container_path(&self, reference: &str, path: &str) -> Result<PathStat, EngineError> {
        let handle = self.inner.index.find(reference)?;
        let path = absolute(path);
        let missing = not_found(&path, reference);
        let work: Work<_> = Box::new(move |root, _| place::path_stat(root, path.as_bytes()));
        let stat = self.with_root(&handle, RootAccess::ReadOnly, work).await?;
        Ok(path_stat(stat.map_err(|error| failed(error, missing))?))
    }

    /// A file or directory of a container as a tar.
    pub async fn copy_from_container(
        &self,
        reference: &str,
        path: &str,
    ) -> Result<(PathStat, ByteStream), EngineError> {
        let handle = self.inner.index.find(reference)?;
        let path = absolute(path);
        let missing = not_found(&path, reference);
        let (told, found) = oneshot::channel();
        let (sink, stream) = mpsc::channel(QUEUE_LENGTH);
        let work: Work<()> = Box::new(move |root, ids| match place::path_stat(root, path.as_bytes()) {
            Err(error) => drop(told.send(Err(error))),
            Ok(stat) => {
                let name = stat.name.clone();
                if told.send(Ok(stat)).is_ok() {
                    write_tar(root, &path, &name, ids, sink);
                }
            }
        });
        let (engine, owner) = (self.clone(), Arc::clone(&handle));
        let task = tokio::spawn(async move { engine.with_root(&owner, RootAccess::ReadOnly, work).await });
        let stat = match found.await {
            Ok(stat) => stat.map_err(|error| failed(error, missing))?,
            // Its files could not even be opened.
            Err(_) => {
                return Err(match task.await {
                    Ok(Err(error)) => error,
                    _ => EngineError::unavailable("the container's files cannot be read"),
                });
            }
        };
        self.tell_container(&handle.record(), "archive-path", &[]);
        Ok((path_stat(stat), stream))
    }

    /// Puts the files of a tar, compressed or not, into a directory of a container.
    pub async fn copy_into_container(
        &self,
        reference: &str,
        copy: CopyIn,
        input: InputStream,
    ) -> Result<(), EngineError> {
        let handle = self.inner.index.find(reference)?;
        let record = handle.record();
        let access = if record.spec.readonly_rootfs { RootAccess::ReadOnly } else { RootAccess::ReadWrite };
        let path = absolute(&copy.path);
        let missing = not_found(&path, reference);
        let user = if copy.copy_owner { record.spec.user.clone() } else { String::new() };
        let overwrite = if copy.keep_kinds { Overwrite::SameKind } else { Overwrite::Replace };
        let work: Work<_> = Box::new(move |root, ids| put(root, &path, (overwrite, &user, ids), missing, input));
        self.with_root(&handle, access, work).await??;
        self.tell_container(&record, "extract-to-dir", &[]);
        Ok(())
    }

    /// Does something with the root of a container and all that is mounted in it. One that does not run cannot start meanwhile.
    async fn with_root<T: Send + 'static>(
        &self,
        handle: &Arc<Handle>,
        access: RootAccess,
        work: Work<T>,
    ) -> Result<T, EngineError> {
        let failed = |error| EngineError::system("cannot open the container's files", error);
        for _ in 0..ROOT_ATTEMPTS {
            ask(handle, |answer| Command::Settle { answer }).await?;
            let lent = handle.borrow_files().await;
            let Some(live) = handle.live() else {
                let (inner, record) = (Arc::clone(&self.inner), handle.record());
                return blocking(move || {
                    let done = StoppedRoot::plan(&inner, &record, access)?.with(work).map_err(failed);
                    drop(lent);
                    done
                })
                .await;
            };
            drop(lent);
            let own = self.root_of(handle).await?.fd;
            let root = blocking(move || of_running(live.pid, own.as_fd()).map_err(failed)).await?;
            if let Some(root) = root {
                let record = handle.record();
                return blocking(move || with_running(root, record.id_mappings.as_ref(), work).map_err(failed)).await;
            }
        }
        Err(EngineError::unavailable(format!("the files of container {} cannot be found", handle.id)))
    }
}

/// Paths begin at the root, whatever the client's working directory is; a slash or dot at the end keeps its meaning.
fn absolute(path: &str) -> String {
    format!("/{}", path.trim_start_matches('/'))
}

fn not_found(path: &str, reference: &str) -> EngineError {
    EngineError::not_found(format!("Could not find the file {path} in container {reference}"))
}

fn failed(error: io::Error, missing: EngineError) -> EngineError {
    match error.kind() {
        io::ErrorKind::NotFound => missing,
        io::ErrorKind::NotADirectory => EngineError::invalid(format!("{}: not a directory", missing.message())),
        _ => EngineError::system("cannot look at the container's files", error),
    }
}

fn write_tar(
    root: BorrowedFd<'_>,
    path: &str,
    name: &[u8],
    ids: &Ids,
    sink: mpsc::Sender<Result<bytes::Bytes, EngineError>>,
) {
    let mut writer = Pieces::new(sink.clone());
    let written = archive::export::subtree(root, path.as_bytes(), name, ids, &mut writer).and_then(|()| writer.flush());
    // A client that has gone is no error of ours.
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        let _ = sink.blocking_send(Err(EngineError::system("cannot read the container's files", error)));
    }
}

fn put(
    root: BorrowedFd<'_>,
    path: &str,
    (overwrite, user, ids): (Overwrite, &str, &Ids),
    missing: EngineError,
    input: InputStream,
) -> Result<(), EngineError> {
    match place::locate(root, path.as_bytes(), OFlags::PATH) {
        Err(error) => return Err(failed(error, missing)),
        Ok(place) => check_place(root, place.as_fd())?,
    }
    let owner = match user {
        "" => Owner::AsInTar,
        user => {
            let (uid, gid) = owner_of(root, user)?;
            Owner::Fixed { uid, gid }
        }
    };
    // Here and not by a program of the container's (CVE-2026-41567).
    let mut tar = archive::compression::decompress(Box::new(Incoming::new(input)))
        .map_err(|error| EngineError::invalid(format!("cannot read the tar: {error}")))?;
    let (directory, privileges) = (path.as_bytes(), Privileges::Full);
    let options = Options { directory, rename: None, overwrite, owner, ids, privileges };
    extract(&mut tar, root, &options).map_err(refused)
}

/// It must be a directory, and on something that may be written.
fn check_place(root: BorrowedFd<'_>, place: BorrowedFd<'_>) -> Result<(), EngineError> {
    let look = |error: rustix::io::Errno| EngineError::system("cannot look at the extraction point", error);
    let (stat, root) = (rustix::fs::fstat(place).map_err(look)?, rustix::fs::fstat(root).map_err(look)?);
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Directory {
        return Err(EngineError::invalid("extraction point is not a directory"));
    }
    let read_only = rustix::fs::fstatvfs(place).map_err(look)?.f_flag.contains(StatVfsMountFlags::RDONLY);
    match (read_only, stat.st_dev == root.st_dev) {
        (false, _) => Ok(()),
        (true, true) => Err(EngineError::forbidden("container rootfs is marked read-only")),
        (true, false) => Err(EngineError::forbidden("mounted volume is marked read-only")),
    }
}

fn refused(error: ExtractError) -> EngineError {
    let message = crate::model::chain(&error);
    match &error {
        ExtractError::Write { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            EngineError::forbidden(message)
        }
        ExtractError::Write { .. } => EngineError::new(crate::model::ErrorKind::System, message),
        ExtractError::Refused(_) | ExtractError::Read(_) | ExtractError::OtherKind(..) => EngineError::invalid(message),
    }
}

fn path_stat(stat: place::PathStat) -> PathStat {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let nanoseconds = i32::try_from(stat.mtime.nanoseconds).unwrap_or(0);
    PathStat {
        name: text(&stat.name),
        size_bytes: stat.size_bytes,
        mode: stat.mode,
        mtime: jiff::Timestamp::new(stat.mtime.seconds, nanoseconds).unwrap_or_default(),
        link_target: stat.link_target.as_deref().map(text).unwrap_or_default(),
    }
}
