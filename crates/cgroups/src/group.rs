//! One container's cgroup: a directory in every hierarchy, held open.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::controller::{Controller, ControllerSet, Version};
use crate::directory::{Directory, FileError, write_once};
use crate::host::{DetectError, Hierarchy, Host, Layout};
use crate::path::CgroupPath;

pub(crate) const PROCS: &str = "cgroup.procs";
/// v1's file of single threads. A thread that moves itself by it needs no lock over all processes, whose taking would wait for an RCU
/// grace period: 4 to 16 ms here. The process that joins has one thread, so it means the same.
const TASKS: &str = "tasks";
const SUBTREE_CONTROL: &str = "cgroup.subtree_control";
const CPUSET_CPUS: &str = "cpuset.cpus";
const CPUSET_MEMS: &str = "cpuset.mems";
const DELEGATE_LIST: &str = "/sys/kernel/cgroup/delegate";
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);
/// How long the last processes may take to leave a cgroup that is to be removed.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(5);
const REMOVE_PAUSE_MAX: Duration = Duration::from_millis(20);

/// A container's cgroup in every hierarchy of the machine.
///
/// Dropping it closes the directories and leaves the cgroup alone: it belongs to the container, not to this process.
#[derive(Debug)]
pub struct Cgroup {
    groups: Vec<Group>,
    systemd_unit: Option<String>,
}

/// The cgroup's directory in one hierarchy.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) version: Version,
    pub(crate) controllers: ControllerSet,
    name: String,
    mount_point: PathBuf,
    path: String,
    pub(crate) directory: Directory,
    /// The hierarchy's root: absent when the cgroup was opened from a record.
    hierarchy: Option<Arc<Hierarchy>>,
}

/// What is needed to open a cgroup again, for a record on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Saved {
    directories: Vec<SavedDirectory>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    systemd_unit: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SavedDirectory {
    version: u8,
    name: String,
    mount_point: PathBuf,
    path: String,
}

/// Where the cgroup is in one hierarchy, for the `cgroup` mount type and for inspection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HierarchyPath<'a> {
    /// `cpu,cpuacct`, `name=systemd`, empty for v2.
    pub name: &'a str,
    /// v1 or v2.
    pub version: Version,
    /// Where the hierarchy is mounted.
    pub mount_point: &'a Path,
    /// The cgroup's directory, absolute.
    pub path: &'a Path,
    /// The cgroup's directory below the mount point, without a leading slash.
    pub below: &'a str,
}

/// The ways into a cgroup, opened beforehand so that a new process needs no path and no memory to join it.
#[derive(Debug)]
pub struct Entry {
    /// The v2 directory for `CLONE_INTO_CGROUP`, where the machine has v2 or a hybrid layout.
    pub v2: Option<OwnedFd>,
    /// The `cgroup.procs` files of the v1 hierarchies.
    pub procs: Vec<OwnedFd>,
}

/// Why a cgroup cannot be created or joined.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The directory cannot be made.
    #[error("cannot create the cgroup {}", path.display())]
    Create {
        /// Which directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The directory is there and holds processes: another container's.
    #[error("the cgroup {} exists and is not empty", path.display())]
    InUse {
        /// Which directory.
        path: PathBuf,
    },
    /// A file of the new cgroup cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// No hierarchy could be used at all.
    #[error("no cgroup hierarchy is writable")]
    NoneWritable,
}

/// Why a saved cgroup cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the cgroup {}", path.display())]
pub struct OpenError {
    path: PathBuf,
    source: io::Error,
}

/// Why a cgroup cannot be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// Processes are still in it.
    #[error("the cgroup {} is still in use", path.display())]
    Busy {
        /// Which directory.
        path: PathBuf,
    },
    /// The kernel refuses for another reason.
    #[error("cannot remove the cgroup {}", path.display())]
    Remove {
        /// Which directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// systemd does not let its unit go.
    #[error(transparent)]
    Systemd(#[from] crate::systemd::SystemdError),
}

/// What to do about hierarchies that this user may not write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forbidden {
    Fail,
    LeaveOut,
}

impl Cgroup {
    /// Makes the cgroup in every hierarchy; one that is there already must hold no process.
    pub fn create(host: &Host, path: &CgroupPath) -> Result<Self, CreateError> {
        Self::create_with(host, path, Forbidden::Fail)
    }

    /// Makes the cgroup in the hierarchies that this user may write to: for the rootless.
    pub fn create_where_permitted(host: &Host, path: &CgroupPath) -> Result<Self, CreateError> {
        Self::create_with(host, path, Forbidden::LeaveOut)
    }

    /// Opens a cgroup that exists; directories that are gone meanwhile are left out.
    pub fn open(saved: &Saved) -> Result<Self, OpenError> {
        let mut groups = Vec::with_capacity(saved.directories.len());
        for directory in &saved.directories {
            groups.extend(Group::open(directory)?);
        }
        Ok(Self { groups, systemd_unit: saved.systemd_unit.clone() })
    }

    /// The cgroup that somebody else has made for process `pid`; hierarchies in which it is where the caller is are left out.
    pub fn of_process(pid: i32) -> Result<Self, DetectError> {
        let (host, theirs) = (Host::detect()?, Host::detect_around(&format!("/proc/{pid}/cgroup"))?);
        let own: Vec<_> = host.hierarchies().map(|own| (own.name(), own.own_path())).collect();
        let moved = theirs
            .shared_hierarchies()
            .iter()
            .filter(|hierarchy| !own.contains(&(hierarchy.name(), hierarchy.own_path())));
        let open = |hierarchy: &Arc<Hierarchy>| {
            Group::of(hierarchy, hierarchy.own_path()).map_err(|errno| DetectError::Open {
                path: hierarchy.mount_point().join(hierarchy.own_path()),
                source: errno.into(),
            })
        };
        Ok(Self { groups: moved.map(open).collect::<Result<_, _>>()?, systemd_unit: None })
    }

    /// What [`Cgroup::open`] needs.
    pub fn saved(&self) -> Saved {
        Saved { directories: self.groups.iter().map(Group::saved).collect(), systemd_unit: self.systemd_unit.clone() }
    }

    /// Opens the ways into the cgroup.
    pub fn entry(&self) -> Result<Entry, FileError> {
        let mut entry = Entry { v2: None, procs: Vec::with_capacity(self.groups.len()) };
        for group in &self.groups {
            group.add_entry("", &mut entry)?;
        }
        Ok(entry)
    }

    /// The v2 cgroup that a process of this one is in: itself, or one below that the process has moved to.
    pub fn v2_directory_of(&self, pid: i32) -> Result<Option<OwnedFd>, FileError> {
        let Some(group) = self.v2_group() else { return Ok(None) };
        let file = PathBuf::from(format!("/proc/{pid}/cgroup"));
        let content =
            std::fs::read_to_string(&file).map_err(|source| FileError::Read { path: file.clone(), source })?;
        let path = content.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let below = path.strip_prefix(group.path.as_str()).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        // Elsewhere it is in nobody's cgroup that we know of.
        let below = below.ok_or(FileError::Content { path: file, content: content.clone() })?;
        group.open_below(below.trim_start_matches('/')).map(|directory| Some(directory.into_fd()))
    }

    /// Moves a process, with all its threads, into the cgroup.
    pub fn add(&self, pid: i32) -> Result<(), FileError> {
        let pid = pid.to_string();
        self.groups.iter().try_for_each(|group| group.directory.write(PROCS, &pid))
    }

    /// Where the cgroup is in each hierarchy.
    pub fn paths(&self) -> impl Iterator<Item = HierarchyPath<'_>> {
        self.groups.iter().map(|group| HierarchyPath {
            name: &group.name,
            version: group.version,
            mount_point: &group.mount_point,
            path: group.directory.path(),
            below: &group.path,
        })
    }

    /// Gives the v2 cgroup to a user who is root in the container, as systemd's `Delegate=` does.
    pub fn delegate(&self, uid: u32, gid: u32) -> Result<(), FileError> {
        let Some(group) = self.v2_group() else { return Ok(()) };
        // What the kernel wants delegated; the three are its list before it had one.
        let list = std::fs::read_to_string(DELEGATE_LIST)
            .unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".to_owned());
        for file in std::iter::once(".").chain(list.lines()) {
            match chown(&group.directory, file, uid, gid) {
                // The list names files of controllers that are not enabled here.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(group.directory.write_error(file, &format!("{uid}:{gid}"), errno)),
            }
        }
        Ok(())
    }

    /// Removes the cgroup and everything below it, waiting for processes that are just ending.
    pub fn remove(&self) -> Result<(), RemoveError> {
        let deadline = Instant::now() + REMOVE_TIMEOUT;
        for group in &self.groups {
            group.remove(deadline)?;
        }
        if let Some(unit) = &self.systemd_unit {
            crate::systemd::stop_unit(unit)?;
        }
        Ok(())
    }

    /// Builds a cgroup from directories that systemd made.
    pub(crate) fn from_systemd(groups: Vec<Group>, unit: String) -> Self {
        Self { groups, systemd_unit: Some(unit) }
    }

    pub(crate) fn systemd_unit(&self) -> Option<&str> {
        self.systemd_unit.as_deref()
    }

    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The directory in which limits of a controller are set; v1's comes first in a hybrid layout.
    pub(crate) fn group_for(&self, controller: Controller) -> Option<&Group> {
        self.groups.iter().find(|group| group.controllers.contains(controller))
    }

    pub(crate) fn v2_group(&self) -> Option<&Group> {
        self.groups.iter().find(|group| group.version == Version::V2)
    }

    /// Says whether v2 is all that the machine has.
    pub(crate) fn is_unified(&self) -> bool {
        self.groups.iter().all(|group| group.version == Version::V2)
    }

    fn create_with(host: &Host, path: &CgroupPath, forbidden: Forbidden) -> Result<Self, CreateError> {
        let mut cgroup = Self { groups: Vec::with_capacity(host.shared_hierarchies().len()), systemd_unit: None };
        for hierarchy in host.shared_hierarchies() {
            match Group::create(hierarchy, &hierarchy.resolve(path, host.layout()), host.layout()) {
                Ok(group) => cgroup.groups.push(group),
                Err(error) if forbidden == Forbidden::LeaveOut && error.is_permission() => {}
                Err(error) => {
                    // What was made so far must not stay behind; its own failure would hide the cause.
                    let _ = cgroup.remove();
                    return Err(error);
                }
            }
        }
        if cgroup.groups.is_empty() { Err(CreateError::NoneWritable) } else { Ok(cgroup) }
    }
}

impl Entry {
    /// Moves the calling process into the v1 cgroups. Allocates nothing: safe between `clone` and `exec`.
    ///
    /// `v2` is for `CLONE_INTO_CGROUP` and is not looked at here.
    pub fn join(&self) -> rustix::io::Result<()> {
        self.procs.iter().try_for_each(|procs| write_once(procs.as_fd(), "0"))
    }
}

impl Group {
    fn create(hierarchy: &Arc<Hierarchy>, path: &str, layout: Layout) -> Result<Self, CreateError> {
        let (group, is_new) = Self::make(hierarchy, path, layout)?;
        if !is_new {
            group.take_over()?;
        }
        Ok(group)
    }

    /// Takes the directory as it is, with whoever is in it: systemd has made it, or left it to us to make.
    pub(crate) fn create_or_open(hierarchy: &Arc<Hierarchy>, path: &str, layout: Layout) -> Result<Self, CreateError> {
        Self::make(hierarchy, path, layout).map(|(group, _)| group)
    }

    /// Makes the directory ready for processes and limits, and says whether it is new.
    fn make(hierarchy: &Arc<Hierarchy>, path: &str, layout: Layout) -> Result<(Self, bool), CreateError> {
        let (root, failed) = (hierarchy.root(), |errno: Errno| create_error(hierarchy, path, errno));
        let is_new = make_directories(root, path).map_err(failed)?;
        let group = Self::of(hierarchy, path).map_err(failed)?;
        match hierarchy.version() {
            Version::V1 if hierarchy.controllers().contains(Controller::Cpuset) => fill_cpuset(root, path)?,
            // In a hybrid layout v2 only tracks processes, until a limit asks for one of its controllers.
            Version::V2 if layout == Layout::V2 => group.enable(hierarchy.controllers())?,
            Version::V1 | Version::V2 => {}
        }
        Ok((group, is_new))
    }

    /// Opens the directory of an existing cgroup.
    pub(crate) fn of(hierarchy: &Arc<Hierarchy>, path: &str) -> rustix::io::Result<Self> {
        Ok(Self {
            version: hierarchy.version(),
            controllers: hierarchy.controllers(),
            name: hierarchy.name().to_owned(),
            mount_point: hierarchy.mount_point().to_owned(),
            path: path.to_owned(),
            directory: hierarchy.root().open_child(path)?,
            hierarchy: Some(Arc::clone(hierarchy)),
        })
    }

    fn open(saved: &SavedDirectory) -> Result<Option<Self>, OpenError> {
        let path = saved.mount_point.join(&saved.path);
        let directory = match Directory::open(&path) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.map_err(|errno| OpenError { path: path.clone(), source: errno.into() })?,
        };
        let (version, controllers) = match saved.version {
            1 => (Version::V1, ControllerSet::parse_v1(&saved.name)),
            _ => {
                let names = directory.read("cgroup.controllers").map_err(|error| open_error(&path, error))?;
                (Version::V2, ControllerSet::parse_v2(&names))
            }
        };
        Ok(Some(Self {
            version,
            controllers,
            name: saved.name.clone(),
            mount_point: saved.mount_point.clone(),
            path: saved.path.clone(),
            directory,
            hierarchy: None,
        }))
    }

    fn saved(&self) -> SavedDirectory {
        SavedDirectory {
            version: if self.version == Version::V1 { 1 } else { 2 },
            name: self.name.clone(),
            mount_point: self.mount_point.clone(),
            path: self.path.clone(),
        }
    }

    /// Uses a cgroup that somebody left: it must be empty, and it must not freeze what enters.
    fn take_over(&self) -> Result<(), CreateError> {
        if !self.directory.read(PROCS)?.is_empty() {
            return Err(CreateError::InUse { path: self.directory.path().to_owned() });
        }
        let (file, thawed) = match self.version {
            Version::V1 => ("freezer.state", "THAWED"),
            Version::V2 => ("cgroup.freeze", "0"),
        };
        match self.directory.write(file, thawed) {
            Err(error) if !error.is_missing() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Opens the way into this directory, or into the one at `below`.
    pub(crate) fn add_entry(&self, below: &str, entry: &mut Entry) -> Result<(), FileError> {
        let directory = self.open_below(below)?;
        match self.version {
            Version::V1 => {
                let tasks = directory.open_for_write(TASKS);
                entry.procs.push(tasks.map_err(|errno| directory.write_error(TASKS, "0", errno))?);
            }
            Version::V2 => entry.v2 = Some(directory.into_fd()),
        }
        Ok(())
    }

    fn open_below(&self, below: &str) -> Result<Directory, FileError> {
        self.directory.open_child(below).map_err(|errno| self.directory.read_error(below, errno.into()))
    }

    /// Makes controllers of a v2 hierarchy available in this cgroup: every ancestor has to hand them down.
    ///
    /// What an ancestor refuses is left out here and reported when a limit asks for it.
    pub(crate) fn enable(&self, wanted: ControllerSet) -> Result<(), FileError> {
        let available = ControllerSet::parse_v2(&self.directory.read("cgroup.controllers")?);
        if available.contains_all(wanted) {
            return Ok(());
        }
        let Some(hierarchy) = &self.hierarchy else { return Ok(()) };
        let missing = wanted.without(available);
        for end in ancestor_ends(&self.path) {
            let ancestor = &self.path[..end];
            let file = if end == 0 { SUBTREE_CONTROL.to_owned() } else { format!("{ancestor}/{SUBTREE_CONTROL}") };
            enable_below(hierarchy.root(), &file, missing);
        }
        Ok(())
    }

    /// The cgroups between the hierarchy's root and this one, from the top.
    pub(crate) fn ancestors(&self) -> Result<Vec<Directory>, FileError> {
        let open = |end| {
            let path = self.mount_point.join(&self.path[..end]);
            Directory::open(&path).map_err(|errno| FileError::Read { path, source: errno.into() })
        };
        ancestor_ends(&self.path).skip(1).map(open).collect()
    }

    fn remove(&self, deadline: Instant) -> Result<(), RemoveError> {
        let mut pause = Duration::from_micros(50);
        loop {
            match self.unlink() {
                Ok(()) | Err(Errno::NOENT | Errno::NODEV) => return Ok(()),
                Err(Errno::BUSY | Errno::NOTEMPTY) if Instant::now() < deadline => {
                    self.remove_children();
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(REMOVE_PAUSE_MAX);
                }
                Err(Errno::BUSY | Errno::NOTEMPTY) => {
                    return Err(RemoveError::Busy { path: self.directory.path().to_owned() });
                }
                Err(errno) => {
                    return Err(RemoveError::Remove { path: self.directory.path().to_owned(), source: errno.into() });
                }
            }
        }
    }

    fn unlink(&self) -> rustix::io::Result<()> {
        match &self.hierarchy {
            Some(hierarchy) => rustix::fs::unlinkat(hierarchy.root(), self.path.as_str(), AtFlags::REMOVEDIR),
            None => rustix::fs::rmdir(self.directory.path()),
        }
    }

    /// Removes the cgroups that the container made inside its own; those still busy are tried again by the caller.
    fn remove_children(&self) {
        remove_below(&self.directory);
    }
}

impl CreateError {
    fn is_permission(&self) -> bool {
        let denied = |errno| matches!(errno, Some(Errno::ACCESS | Errno::PERM | Errno::ROFS));
        match self {
            Self::Create { source, .. } => denied(Errno::from_io_error(source)),
            Self::File(error) => denied(error.errno()),
            Self::InUse { .. } | Self::NoneWritable => false,
        }
    }
}

/// Makes a directory, and its ancestors where they are missing; says whether the last one is new.
fn make_directories(root: &Directory, path: &str) -> rustix::io::Result<bool> {
    match rustix::fs::mkdirat(root, path, DIRECTORY_MODE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(Errno::NOENT) if path.contains('/') => {
            for end in ancestor_ends(path).skip(1) {
                match rustix::fs::mkdirat(root, &path[..end], DIRECTORY_MODE) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno),
                }
            }
            make_directories_again(root, path)
        }
        Err(errno) => Err(errno),
    }
}

/// The ancestors are there now, unless somebody removes them at this very moment.
fn make_directories_again(root: &Directory, path: &str) -> rustix::io::Result<bool> {
    match rustix::fs::mkdirat(root, path, DIRECTORY_MODE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Where the paths of the ancestors end, the root's empty one first: for `a/b/c` that is 0, 1, 3.
fn ancestor_ends(path: &str) -> impl Iterator<Item = usize> {
    std::iter::once(0).chain(path.match_indices('/').map(|(index, _)| index))
}

/// v1's cpusets start empty, and no process can enter an empty one: they are filled from the parent, from the top down.
fn fill_cpuset(root: &Directory, path: &str) -> Result<(), FileError> {
    // Where the parent clones (below), both are there from the start.
    if !is_unfilled(root, path) {
        return Ok(());
    }
    let parent = path.rsplit_once('/').map(|(parent, _)| parent);
    let new_parent = parent.filter(|parent| is_unfilled(root, parent));
    for file in [CPUSET_CPUS, CPUSET_MEMS] {
        fill_cpuset_file(root, path, file)?;
    }
    match new_parent {
        // An empty one was made just now, by us: its next children are to be born filled.
        Some(parent) => root.write(&format!("{parent}/cgroup.clone_children"), "1"),
        None => Ok(()),
    }
}

fn is_unfilled(root: &Directory, path: &str) -> bool {
    root.read(&format!("{path}/{CPUSET_MEMS}")).is_ok_and(|mems| mems.trim_ascii().is_empty())
}

fn fill_cpuset_file(root: &Directory, path: &str, file: &str) -> Result<String, FileError> {
    let name = if path.is_empty() { file.to_owned() } else { format!("{path}/{file}") };
    let value = root.read(&name)?.trim_ascii().to_owned();
    if !value.is_empty() || path.is_empty() {
        return Ok(value);
    }
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    let inherited = fill_cpuset_file(root, parent, file)?;
    root.write(&name, &inherited)?;
    Ok(inherited)
}

/// Enables controllers for the children of a cgroup: all at once, or one by one if the kernel refuses some.
fn enable_below(root: &Directory, file: &str, controllers: ControllerSet) {
    let words: Vec<String> =
        controllers.iter().filter_map(|controller| Some(format!("+{}", controller.v2_name()?))).collect();
    if root.write(file, &words.join(" ")).is_err() {
        for word in &words {
            // A refused controller is reported when a limit asks for it: only then does it matter.
            let _ = root.write(file, word);
        }
    }
}

fn remove_below(directory: &Directory) {
    for name in directory.children().unwrap_or_default() {
        if let Ok(child) = directory.open_child(&name) {
            remove_below(&child);
        }
        // Busy children make the parent busy too, and it is retried.
        let _ = rustix::fs::unlinkat(directory, name.as_str(), AtFlags::REMOVEDIR);
    }
}

fn chown(directory: &Directory, file: &str, uid: u32, gid: u32) -> rustix::io::Result<()> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    rustix::fs::chownat(directory, file, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

fn create_error(hierarchy: &Hierarchy, path: &str, errno: Errno) -> CreateError {
    CreateError::Create { path: hierarchy.mount_point().join(path), source: errno.into() }
}

fn open_error(path: &Path, error: FileError) -> OpenError {
    OpenError { path: path.to_owned(), source: io::Error::other(error) }
}
