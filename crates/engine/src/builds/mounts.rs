//! What a command of a build sees besides its root: caches, files of stages, secrets, agents. Everything but the caches hangs below one
//! folder that is in memory and gone with the command.
//!
//! ```text
//! <run>/builds/<random>/          a tmpfs
//!   view-N/                       merged layers of a stage or an image
//!   secrets/N                     files that are on no disk
//!   agent-N                       sockets
//! ```

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use archive::extract::{Options, Overwrite, Owner, extract};
use archive::ids::Ids;
use archive::unpack::Privileges;
use builder::{HostError, JobMount, JobMountKind, Ownership, SecretVariable, Sharing};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, move_mount, unmount,
};
use snapshots::Snapshotter;

use super::sources::Answers;
use crate::model::{Access, Bind, BindSource, CopyUp};

/// So many builds may each have a private copy of one cache.
const PRIVATE_COPIES: usize = 64;
/// How often a locked cache is looked at.
const LOCK_LOOK: Duration = Duration::from_millis(20);
/// What a symbolic link may name at most.
const LINK_BYTES_MAX: usize = 4096;

/// The mounts of one command.
#[derive(Debug)]
pub(super) struct Mounts {
    pub(super) binds: Vec<Bind>,
    pub(super) tmpfs: Vec<(String, String)>,
    /// Secrets as variables: for the process alone.
    pub(super) environment: Vec<String>,
    folder: Option<PathBuf>,
    scratch: Vec<PathBuf>,
    agents: Vec<Agent>,
    _locks: Vec<durable::Lock>,
    _held: Vec<Held>,
}

/// The names of caches that commands use now: they must not go away under them.
#[derive(Debug, Default)]
pub(super) struct HeldCaches(Mutex<Vec<String>>);

/// A cache that stays as long as this lives.
#[derive(Debug)]
struct Held(Arc<HeldCaches>, String);

impl HeldCaches {
    fn hold(self: &Arc<Self>, name: &str) -> Held {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
        Held(Arc::clone(self), name.to_owned())
    }

    /// Does something to caches while no command begins to use one; it is told which ones are used.
    pub(super) fn stopped<T>(&self, work: impl FnOnce(&[String]) -> T) -> T {
        work(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut names = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = names.iter().position(|name| *name == self.1) {
            names.swap_remove(at);
        }
    }
}

/// Where things are.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    /// Caches.
    pub(super) caches: &'a Path,
    /// Those that are used.
    pub(super) held: &'a Arc<HeldCaches>,
    /// What is in memory.
    pub(super) run: &'a Path,
    /// What is written and lost.
    pub(super) scratch: &'a Path,
    /// Whether nobody wants the command any more.
    pub(super) stopped: &'a dyn Fn() -> bool,
}

impl Mounts {
    pub(super) fn prepare(
        places: Places<'_>,
        snapshotter: &dyn Snapshotter,
        answers: &Answers,
        (mounts, secrets): (&[JobMount], &[SecretVariable]),
    ) -> Result<Mounts, HostError> {
        let mut prepared = Mounts {
            binds: Vec::new(),
            tmpfs: Vec::new(),
            environment: Vec::new(),
            folder: None,
            scratch: Vec::new(),
            agents: Vec::new(),
            _locks: Vec::new(),
            _held: Vec::new(),
        };
        let mut work = Work { places, snapshotter, answers, mounts: &mut prepared, number: 0 };
        for mount in mounts {
            work.add(mount)?;
        }
        for secret in secrets {
            work.variable(secret)?;
        }
        Ok(prepared)
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        self.agents.clear();
        if let Some(folder) = &self.folder {
            forget_folder(folder);
        }
        for scratch in &self.scratch {
            let _ = fs::remove_dir_all(scratch);
        }
    }
}

/// Removes what an engine that died left.
pub(super) fn sweep(run: &Path) {
    for folder in fs::read_dir(run).into_iter().flatten().flatten() {
        forget_folder(&folder.path());
    }
}

fn forget_folder(folder: &Path) {
    // What hangs below goes with it.
    if let Err(error) = unmount(folder, UnmountFlags::DETACH) {
        tracing::debug!("cannot unmount {}: {error}", folder.display());
    }
    let _ = fs::remove_dir(folder);
}

struct Work<'a> {
    places: Places<'a>,
    snapshotter: &'a dyn Snapshotter,
    answers: &'a Answers,
    mounts: &'a mut Mounts,
    number: u32,
}

impl Work<'_> {
    fn add(&mut self, mount: &JobMount) -> Result<(), HostError> {
        self.number += 1;
        match &mount.kind {
            JobMountKind::Tmpfs { size_bytes } => {
                let size = size_bytes.map(|bytes| format!("size={bytes}")).unwrap_or_default();
                self.mounts.tmpfs.push((mount.target.clone(), size));
            }
            JobMountKind::Cache { id, sharing, seed, owner, .. } => {
                let path = self.cache(id, *sharing, seed.as_ref(), *owner)?;
                self.bind(&path, mount);
            }
            JobMountKind::Bind { layers, source } => {
                let path = self.view(layers, source, mount.read_only)?;
                self.bind(&path, mount);
            }
            JobMountKind::Secret { id, required, owner } => {
                if let Some(bytes) = self.secret(id, *required)? {
                    let path = self.secret_file(&bytes, *owner)?;
                    self.bind(&path, mount);
                }
            }
            JobMountKind::Ssh { id, required, owner } => {
                if self.answers.has_agent(id)? {
                    let path = self.agent(id, *owner)?;
                    self.bind(&path, mount);
                } else if *required {
                    return Err(HostError(format!("no SSH key {id:?} forwarded from the client")));
                }
            }
        }
        Ok(())
    }

    fn bind(&mut self, path: &Path, mount: &JobMount) {
        let source = path.display().to_string();
        // Sockets are written to, whatever the mount says.
        let read_only = mount.read_only && !matches!(mount.kind, JobMountKind::Ssh { .. });
        self.mounts.binds.push(Bind {
            text: format!("{source}:{}", mount.target),
            source: BindSource::Host(source),
            target: mount.target.clone(),
            mode: if read_only { "ro" } else { "" }.to_owned(),
            access: if read_only { Access::ReadOnly } else { Access::ReadWrite },
            propagation: None,
            copy_up: CopyUp::Never,
        });
    }

    fn secret(&self, id: &str, required: bool) -> Result<Option<Vec<u8>>, HostError> {
        match self.answers.secret(id)? {
            None if required => Err(HostError(format!("secret {id}: not found"))),
            secret => Ok(secret),
        }
    }

    fn variable(&mut self, wanted: &SecretVariable) -> Result<(), HostError> {
        let Some(bytes) = self.secret(&wanted.id, wanted.required)? else { return Ok(()) };
        let value = String::from_utf8(bytes)
            .map_err(|_| HostError(format!("secret {} is no text, and a variable must be", wanted.id)))?;
        self.mounts.environment.push(format!("{}={value}", wanted.name));
        Ok(())
    }

    /// The folder in memory; made when it is needed first.
    fn folder(&mut self) -> Result<PathBuf, HostError> {
        if let Some(folder) = &self.mounts.folder {
            return Ok(folder.clone());
        }
        let name = crate::random_name::<8>();
        let folder = self.places.run.join(name);
        make_dir(&folder)?;
        self.mounts.folder = Some(folder.clone());
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed)?;
        fsconfig_set_string(context.as_fd(), "mode", "0700").map_err(failed)?;
        fsconfig_create(context.as_fd()).map_err(failed)?;
        attach(&context, &folder)?;
        Ok(folder)
    }

    fn secret_file(&mut self, bytes: &[u8], owner: Ownership) -> Result<PathBuf, HostError> {
        let path = self.folder()?.join(format!("secret-{}", self.number));
        let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        io::Write::write_all(&mut file, bytes).map_err(failed)?;
        own(file.as_fd(), owner)?;
        Ok(path)
    }

    fn agent(&mut self, id: &str, owner: Ownership) -> Result<PathBuf, HostError> {
        let path = self.folder()?.join(format!("agent-{}", self.number));
        let listener = UnixListener::bind(&path).map_err(failed)?;
        std::os::unix::fs::chown(&path, Some(owner.uid), Some(owner.gid)).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(owner.mode)).map_err(failed)?;
        self.mounts.agents.push(Agent::serve(listener, path.clone(), self.answers.clone(), id.to_owned()));
        Ok(path)
    }

    /// Merged layers, or one file or directory of theirs, by a path that no symbolic link of theirs leads elsewhere.
    fn view(&mut self, layers: &[oci::DiffId], source: &str, read_only: bool) -> Result<PathBuf, HostError> {
        let lower = self.snapshotter.lower_dirs(layers).map_err(failed)?;
        let place = self.folder()?.join(format!("view-{}", self.number));
        make_dir(&place)?;
        let (lower, upper) = match read_only {
            // An overlay wants two layers where it has no upper one.
            true if lower.len() == 1 => (vec![lower[0].clone(), self.empty_dir()?], None),
            true => (lower, None),
            false => (lower, Some(self.scratch_dir()?)),
        };
        let writable = |context: &OwnedFd| {
            if let Some(upper) = &upper {
                fsconfig_set_string(context.as_fd(), "upperdir", upper.join("upper"))?;
                fsconfig_set_string(context.as_fd(), "workdir", upper.join("work"))?;
            }
            Ok(())
        };
        let context = crate::rootfs::overlay_of(&lower, &writable).map_err(failed)?;
        attach(&context, &place)?;
        inside(&place, source)
    }

    fn empty_dir(&mut self) -> Result<PathBuf, HostError> {
        let empty = self.folder()?.join("empty");
        if !empty.exists() {
            make_dir(&empty)?;
        }
        Ok(empty)
    }

    /// Where what is written is lost.
    fn scratch_dir(&mut self) -> Result<PathBuf, HostError> {
        let name = crate::random_name::<8>();
        let scratch = self.places.scratch.join(name);
        for dir in [scratch.clone(), scratch.join("upper"), scratch.join("work")] {
            make_dir(&dir)?;
        }
        fs::set_permissions(scratch.join("upper"), fs::Permissions::from_mode(0o755)).map_err(failed)?;
        self.mounts.scratch.push(scratch.clone());
        Ok(scratch)
    }

    fn cache(
        &mut self,
        id: &str,
        sharing: Sharing,
        seed: Option<&(Vec<oci::DiffId>, String)>,
        owner: Ownership,
    ) -> Result<PathBuf, HostError> {
        let dir = self.places.caches;
        let name = match sharing {
            Sharing::Shared => id.to_owned(),
            Sharing::Locked => {
                let lock = wait_for(&dir.join(format!("{id}.lock")), self.places.stopped)?;
                self.mounts._locks.push(lock);
                id.to_owned()
            }
            Sharing::Private => {
                let (name, lock) = private(dir, id)?;
                self.mounts._locks.push(lock);
                name
            }
        };
        self.mounts._held.push(self.places.held.hold(&name));
        let path = dir.join(name);
        if !path.exists() {
            self.make_cache(&path, seed, owner)?;
        }
        touch(&path);
        Ok(path)
    }

    /// Makes a cache whole before it has its name.
    fn make_cache(
        &mut self,
        path: &Path,
        seed: Option<&(Vec<oci::DiffId>, String)>,
        owner: Ownership,
    ) -> Result<(), HostError> {
        let temporary = crate::random_name::<8>();
        let temporary = path.with_file_name(format!("{TEMPORARY}{temporary}"));
        make_dir(&temporary)?;
        if let Some((layers, source)) = seed {
            let from = self.view(layers, source, true)?;
            copy_tree(&from, &temporary)?;
        }
        own(fs::File::open(&temporary).map_err(failed)?.as_fd(), owner)?;
        match fs::rename(&temporary, path) {
            // Another build was quicker.
            Err(_) if path.exists() => fs::remove_dir_all(&temporary).map_err(failed),
            renamed => renamed.map_err(failed),
        }
    }
}

/// Takes a cache that others have locked once they are done with it, unless nobody wants it any more.
fn wait_for(path: &Path, stopped: &dyn Fn() -> bool) -> Result<durable::Lock, HostError> {
    loop {
        if let Some(lock) = durable::Lock::try_acquire(path).map_err(failed)? {
            return Ok(lock);
        }
        if stopped() {
            return Err(HostError("build cancelled".to_owned()));
        }
        std::thread::sleep(LOCK_LOOK);
    }
}

/// Names of caches that are being made.
pub(super) const TEMPORARY: &str = ".new-";

/// Says when a cache was used last.
fn touch(path: &Path) {
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
    let _ = rustix::fs::utimensat(rustix::fs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW);
}

/// Copies files with their owners, permissions and links.
fn copy_tree(from: &Path, to: &Path) -> Result<(), HostError> {
    let source = fs::File::open(from).map_err(failed)?;
    let target = fs::File::open(to).map_err(failed)?;
    let ids = Ids::default();
    let tar = archive::pipe::produce("cache-seed", {
        let ids = ids.clone();
        move |output| archive::export::tree(source.as_fd(), &ids, output)
    });
    let options = Options {
        directory: b"",
        rename: None,
        overwrite: Overwrite::Replace,
        owner: Owner::AsInTar,
        privileges: Privileges::Full,
        ids: &ids,
    };
    extract(&mut tar.map_err(failed)?, target.as_fd(), &options).map_err(failed)
}

/// A file or directory of a mounted view, by its true path.
fn inside(view: &Path, source: &str) -> Result<PathBuf, HostError> {
    let root = rustix::fs::open(view, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.map_err(failed)?;
    let relative = source.trim_start_matches('/');
    let relative = if relative.is_empty() { "." } else { relative };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(&root, relative, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
        .map_err(|error| HostError(format!("cannot mount {source}: {error}")))?;
    true_path(&file)
}

fn true_path(file: &OwnedFd) -> Result<PathBuf, HostError> {
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStringExt;
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let path = rustix::fs::readlink(link, Vec::with_capacity(LINK_BYTES_MAX)).map_err(failed)?;
    Ok(PathBuf::from(std::ffi::OsString::from_vec(path.into_bytes())))
}

fn attach(context: &OwnedFd, place: &Path) -> Result<(), HostError> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(failed)?;
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(mount.as_fd(), c"", rustix::fs::CWD, place, empty).map_err(failed)
}

fn make_dir(path: &Path) -> Result<(), HostError> {
    fs::DirBuilder::new().mode(0o700).create(path).map_err(failed)
}

fn own(file: std::os::fd::BorrowedFd<'_>, owner: Ownership) -> Result<(), HostError> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    rustix::fs::fchown(file, Some(uid), Some(gid)).map_err(failed)?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(owner.mode)).map_err(failed)
}

fn private(dir: &Path, id: &str) -> Result<(String, durable::Lock), HostError> {
    for copy in 0..PRIVATE_COPIES {
        let name = if copy == 0 { id.to_owned() } else { format!("{id}-{copy}") };
        if let Some(lock) = durable::Lock::try_acquire(&dir.join(format!("{name}.lock"))).map_err(failed)? {
            return Ok((name, lock));
        }
    }
    Err(HostError("too many builds use a private cache at once".to_owned()))
}

/// A socket that leads to a client's agent.
#[derive(Debug)]
struct Agent {
    path: PathBuf,
    ended: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Agent {
    fn serve(listener: UnixListener, path: PathBuf, answers: Answers, id: String) -> Agent {
        let ended = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(connection) = connection else { return };
                if let Err(error) = answers.forward_agent(&id, connection) {
                    tracing::debug!("cannot reach SSH agent {id}: {error}");
                }
            }
        });
        Agent { path, ended, thread: Some(thread) }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the thread; where nobody can connect it has ended.
        let _ = UnixStream::connect(&self.path);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn failed(error: impl std::error::Error + 'static) -> HostError {
    HostError(crate::model::chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_locked_cache_can_give_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id.lock");
        let wanted = || false;
        let held = wait_for(&path, &wanted).unwrap();
        assert_eq!(wait_for(&path, &|| true).unwrap_err().0, "build cancelled");
        let next = std::thread::scope(|scope| {
            let waiter = scope.spawn(|| wait_for(&path, &wanted));
            drop(held);
            waiter.join().unwrap()
        });
        assert!(next.is_ok());
    }
}
