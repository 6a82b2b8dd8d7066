//! Which hierarchies this machine has, where they are mounted and where this process is in them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use crate::controller::{Controller, ControllerSet, Version};
use crate::directory::{Directory, FileError};
use crate::path::{Anchor, CgroupPath};

const MOUNTINFO: &str = "/proc/self/mountinfo";
const OWN_CGROUPS: &str = "/proc/self/cgroup";
const CGROUP_MAGIC: i64 = 0x0027_e0eb;
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// The hierarchies of this machine, opened.
#[derive(Debug, Clone)]
pub struct Host {
    hierarchies: Vec<Arc<Hierarchy>>,
}

/// How the machine uses the two versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// v1 alone.
    V1,
    /// v1, with a v2 hierarchy beside it.
    Hybrid,
    /// v2 alone.
    V2,
}

/// One mounted hierarchy.
#[derive(Debug)]
pub struct Hierarchy {
    version: Version,
    controllers: ControllerSet,
    name: String,
    own: String,
    root: Directory,
}

/// Why the machine's cgroups cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// A file of /proc cannot be read.
    #[error("cannot read {path}")]
    Proc {
        /// Which file.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A mount point cannot be opened.
    #[error("cannot open the cgroup mount {}", path.display())]
    Open {
        /// Which mount point.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The list of controllers cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Nothing is mounted.
    #[error("no cgroup hierarchy is mounted")]
    None,
}

impl Host {
    /// Finds and opens the hierarchies. Takes about a hundred microseconds: do it once a process.
    pub fn detect() -> Result<Self, DetectError> {
        Self::detect_around(OWN_CGROUPS)
    }

    /// The hierarchies with the places of whose `/proc/<pid>/cgroup` this is for the own ones.
    pub(crate) fn detect_around(cgroups: &str) -> Result<Self, DetectError> {
        let read = |path: &str| {
            std::fs::read_to_string(path).map_err(|source| DetectError::Proc { path: path.to_owned(), source })
        };
        let mounts = parse_mounts(&read(MOUNTINFO)?);
        let own = parse_own(&read(cgroups)?);
        let mut hierarchies = Vec::with_capacity(mounts.len());
        for mount in mounts {
            hierarchies.extend(open_hierarchy(&mount, &own)?.map(Arc::new));
        }
        if hierarchies.is_empty() { Err(DetectError::None) } else { Ok(Self { hierarchies }) }
    }

    /// How the machine uses the two versions.
    pub fn layout(&self) -> Layout {
        let has = |version| self.hierarchies.iter().any(|hierarchy| hierarchy.version == version);
        match (has(Version::V1), has(Version::V2)) {
            (true, true) => Layout::Hybrid,
            (true, false) => Layout::V1,
            (false, _) => Layout::V2,
        }
    }

    /// The hierarchies: v1's in the order of the mount table, then v2's.
    pub fn hierarchies(&self) -> impl Iterator<Item = &Hierarchy> {
        self.hierarchies.iter().map(Arc::as_ref)
    }

    /// Says whether limits of this controller can be set. Freezing and device rules are always there in v2.
    pub fn has(&self, controller: Controller) -> bool {
        self.hierarchies.iter().any(|hierarchy| hierarchy.controllers.contains(controller))
    }

    /// Removes the cgroups of this path that are empty, in every hierarchy; missing and busy ones are left alone.
    ///
    /// Says whether none is left.
    pub fn remove_empty(&self, path: &CgroupPath) -> bool {
        let stays = |hierarchy: &&Arc<Hierarchy>| {
            let below = hierarchy.resolve(path, self.layout());
            let removed = rustix::fs::unlinkat(&hierarchy.root, below.as_str(), rustix::fs::AtFlags::REMOVEDIR);
            !matches!(removed, Ok(()) | Err(Errno::NOENT))
        };
        // Counted, so that one that stays does not keep the others from going.
        self.hierarchies.iter().filter(stays).count() == 0
    }

    pub(crate) fn shared_hierarchies(&self) -> &[Arc<Hierarchy>] {
        &self.hierarchies
    }

    /// A v2 hierarchy in an ordinary directory, for tests of what is written where.
    #[cfg(test)]
    pub(crate) fn fake_v2(root: &Path, own: &str) -> Self {
        let root = Directory::open(root).unwrap();
        let controllers = ControllerSet::parse_v2(&root.read("cgroup.controllers").unwrap());
        let hierarchy = Hierarchy { version: Version::V2, controllers, name: String::new(), own: own.to_owned(), root };
        Self { hierarchies: vec![Arc::new(hierarchy)] }
    }
}

impl Hierarchy {
    /// v1 or v2.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Its controllers.
    pub fn controllers(&self) -> ControllerSet {
        self.controllers
    }

    /// Its name as `/proc/self/cgroup` has it: `cpu,cpuacct`, `name=systemd`, empty for v2.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is mounted.
    pub fn mount_point(&self) -> &Path {
        self.root.path()
    }

    /// Where this process is in it, below the mount point, without a leading slash.
    pub fn own_path(&self) -> &str {
        &self.own
    }

    pub(crate) fn root(&self) -> &Directory {
        &self.root
    }

    /// The path below the mount point that a [`CgroupPath`] means here.
    pub(crate) fn resolve(&self, path: &CgroupPath, layout: Layout) -> String {
        let base = match (path.anchor(), layout) {
            (Anchor::Root, _) => "",
            (Anchor::Own, Layout::V2) => self.own.rsplit_once('/').map_or("", |(parent, _)| parent),
            (Anchor::Own, Layout::V1 | Layout::Hybrid) => &self.own,
        };
        if base.is_empty() { path.components().to_owned() } else { format!("{base}/{}", path.components()) }
    }
}

/// A line of mountinfo that is a cgroup file system.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    version: Version,
    /// v1: controllers and name as the super block's options list them; empty for v2.
    name: String,
    /// Which directory of the hierarchy is mounted.
    root: String,
    mount_point: String,
}

/// The name of a hierarchy and this process's path in it.
type Own = (String, String);

fn open_hierarchy(mount: &Mount, own: &[Own]) -> Result<Option<Hierarchy>, DetectError> {
    let path = Path::new(&mount.mount_point);
    let failed = |errno: Errno| DetectError::Open { path: path.to_owned(), source: errno.into() };
    let root = match Directory::open(path) {
        // Mounts that this root or this user cannot reach are of no use.
        Err(Errno::NOENT | Errno::ACCESS) => return Ok(None),
        other => other.map_err(failed)?,
    };
    let magic = rustix::fs::fstatfs(&root).map_err(failed)?.f_type;
    // Something else may be mounted on top of it.
    if magic != (if mount.version == Version::V1 { CGROUP_MAGIC } else { CGROUP2_MAGIC }) {
        return Ok(None);
    }
    let controllers = match mount.version {
        Version::V1 => ControllerSet::parse_v1(&mount.name),
        Version::V2 => ControllerSet::parse_v2(&root.read("cgroup.controllers")?),
    };
    // Other named hierarchies belong to somebody else.
    if mount.version == Version::V1 && controllers.is_empty() {
        return Ok(None);
    }
    Ok(Some(Hierarchy {
        version: mount.version,
        controllers,
        name: mount.name.clone(),
        own: own_path(mount, own),
        root,
    }))
}

/// Where this process is below the mount point: the mount may show only a part of the hierarchy.
fn own_path(mount: &Mount, own: &[Own]) -> String {
    let path = own.iter().find(|(name, _)| same_hierarchy(name, &mount.name)).map_or("", |(_, path)| path.as_str());
    let below = path.strip_prefix(mount.root.trim_end_matches('/')).unwrap_or("");
    let below = below.trim_matches('/');
    // Seen from a cgroup namespace, a process outside it is at `/../x`.
    if below.split('/').any(|component| component == "..") { String::new() } else { below.to_owned() }
}

/// The kernel lists the controllers of a hierarchy in two orders: compare them as sets.
fn same_hierarchy(a: &str, b: &str) -> bool {
    let sorted = |text: &str| {
        let mut names: Vec<_> = text.split(',').map(str::to_owned).collect();
        names.sort();
        names
    };
    a == b || sorted(a) == sorted(b)
}

/// Finds the cgroup mounts: each hierarchy once, the mount that shows most of it, v2 last.
fn parse_mounts(mountinfo: &str) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = Vec::new();
    for mount in mountinfo.lines().filter_map(parse_mount) {
        match mounts.iter_mut().find(|seen| seen.version == mount.version && same_hierarchy(&seen.name, &mount.name)) {
            Some(seen) if rank(&mount) < rank(seen) => *seen = mount,
            Some(_) => {}
            None => mounts.push(mount),
        }
    }
    mounts.sort_by_key(|mount| mount.version == Version::V2);
    mounts
}

/// Of several mounts of one hierarchy the one that shows its root is best, then the one in the usual place.
fn rank(mount: &Mount) -> (bool, bool) {
    (mount.root != "/", !mount.mount_point.starts_with("/sys/fs/cgroup"))
}

/// `31 23 0:28 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct`
fn parse_mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, mount_point) = (unescape(before.next()?), unescape(before.next()?));
    let mut after = after.split(' ');
    let version = match after.next()? {
        "cgroup" => Version::V1,
        "cgroup2" => Version::V2,
        _ => return None,
    };
    let options = after.nth(1).unwrap_or("");
    let is_identity = |option: &&str| option.starts_with("name=") || !ControllerSet::parse_v1(option).is_empty();
    let name = match version {
        Version::V1 => options.split(',').filter(is_identity).collect::<Vec<_>>().join(","),
        Version::V2 => String::new(),
    };
    Some(Mount { version, name, root, mount_point })
}

/// mountinfo writes spaces and backslashes as three octal digits.
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|text| u8::from_str_radix(text, 8).ok());
        match (first, octal) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `4:memory:/user.slice`, `0::/init.scope`
fn parse_own(cgroups: &str) -> Vec<Own> {
    let parse = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (name, path) = rest.split_once(':')?;
        Some((name.to_owned(), path.to_owned()))
    };
    cgroups.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpuacct,cpu
33 31 0:31 /docker/abc /mnt/with\\040space rw - cgroup cgroup rw,memory
34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
35 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
36 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
37 31 0:39 / /sys/fs/cgroup/elogind rw - cgroup cgroup rw,name=elogind
";

    #[test]
    fn mounts_are_found_once_with_v2_last() {
        let mounts = parse_mounts(HYBRID);
        let summary: Vec<_> = mounts.iter().map(|mount| (mount.name.as_str(), mount.mount_point.as_str())).collect();
        assert_eq!(
            summary,
            [
                ("cpuacct,cpu", "/sys/fs/cgroup/cpu,cpuacct"),
                ("memory", "/sys/fs/cgroup/memory"),
                ("name=systemd", "/sys/fs/cgroup/systemd"),
                ("name=elogind", "/sys/fs/cgroup/elogind"),
                ("", "/sys/fs/cgroup/unified"),
            ]
        );
        assert_eq!(unescape("/mnt/with\\040space\\134"), "/mnt/with space\\");
    }

    #[test]
    fn own_path_is_seen_through_the_mount() {
        let own = parse_own("4:memory:/docker/abc/x\n2:cpu,cpuacct:/user\n1:name=systemd:/../init.scope\n0::/a b:c\n");
        let mount = |name: &str, root: &str| Mount {
            version: Version::V1,
            name: name.to_owned(),
            root: root.to_owned(),
            mount_point: String::new(),
        };
        assert_eq!(own_path(&mount("memory", "/"), &own), "docker/abc/x");
        assert_eq!(own_path(&mount("memory", "/docker/abc"), &own), "x");
        assert_eq!(own_path(&mount("memory", "/elsewhere"), &own), "");
        assert_eq!(own_path(&mount("cpuacct,cpu", "/"), &own), "user");
        assert_eq!(own_path(&mount("name=systemd", "/"), &own), "");
        assert_eq!(own_path(&mount("", "/"), &own), "a b:c");
        assert_eq!(own_path(&mount("pids", "/"), &own), "");
    }

    #[test]
    fn relative_paths_start_at_the_own_cgroup_or_its_parent() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cgroup.controllers"), "cpu memory nonsense\n").unwrap();
        let host = Host::fake_v2(dir.path(), "user.slice/session.scope");
        assert_eq!(host.layout(), Layout::V2);
        assert!(host.has(Controller::Memory) && host.has(Controller::Devices) && !host.has(Controller::Pids));
        let hierarchy = host.hierarchies().next().unwrap();
        let resolve = |text: &str, layout| hierarchy.resolve(&CgroupPath::parse(text).unwrap(), layout);
        assert_eq!(resolve("/x/y", Layout::V2), "x/y");
        assert_eq!(resolve("x", Layout::V2), "user.slice/x");
        assert_eq!(resolve("x", Layout::Hybrid), "user.slice/session.scope/x");
    }

    #[test]
    fn this_machine_has_cgroups() {
        let host = Host::detect().unwrap();
        assert!(host.hierarchies().count() > 0);
        assert!(host.hierarchies().all(|hierarchy| hierarchy.mount_point().is_absolute()));
    }
}
