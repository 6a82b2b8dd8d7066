//! Which mounts a container gets: binds, mounts, tmpfs, `volumes-from` and the image's volumes, one per target; pure.

use std::collections::BTreeMap;

use oci::DiffId;
use serde::{Deserialize, Serialize};

use crate::model::{
    Access, Bind, BindRecursion, BindSource, ContainerSpec, CopyUp, EngineError, MountKind, MountPoint, MountPointKind,
    MountSpec, Propagation, clean_path, container_path,
};

/// One mount of a container, decided at create and kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlannedMount {
    pub(crate) target: String,
    pub(crate) source: PlannedSource,
    pub(crate) access: Access,
    pub(crate) propagation: Option<Propagation>,
    /// The mode part of a `-v`.
    pub(crate) mode: String,
    /// Where the wish came from, which decides what inspect shows.
    pub(crate) origin: Origin,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PlannedSource {
    /// A path of the host.
    Host { path: String, create: bool, recursion: BindRecursion },
    /// A volume; without a name it gets one at create.
    Volume {
        name: Option<String>,
        copy_up: CopyUp,
        labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
        /// A folder or file in it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subpath: Option<String>,
    },
    /// Memory.
    Tmpfs { options: Vec<String> },
    /// An image's files, read-only; which layers those are is settled at create.
    Image { reference: String, layers: Vec<DiffId>, subpath: Option<String> },
}

/// Who wished for a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Origin {
    /// `-v`
    Bind,
    /// `--mount`
    Mount,
    /// `--tmpfs`, which inspect shows only in HostConfig
    Tmpfs,
    /// The image, or `Volumes` of the request
    Image,
    /// Another container
    Inherited,
}

/// Docker's options of every tmpfs.
const TMPFS_DEFAULTS: [&str; 3] = ["noexec", "nosuid", "nodev"];

/// All mounts, parents before children. `inherited` are those of `--volumes-from`, in order.
pub(crate) fn plan(spec: &ContainerSpec, inherited: Vec<PlannedMount>) -> Result<Vec<PlannedMount>, EngineError> {
    let mut mounts: BTreeMap<String, PlannedMount> = BTreeMap::new();
    for mount in inherited {
        mounts.insert(mount.target.clone(), mount);
    }
    let mut wished: BTreeMap<String, PlannedMount> = BTreeMap::new();
    let binds = spec.binds.iter().map(from_bind);
    let specs = spec.mounts.iter().map(from_mount);
    let tmpfs = spec.tmpfs.iter().map(|(target, options)| from_tmpfs(target, options));
    for mount in binds.chain(specs).chain(tmpfs) {
        let mount = mount?;
        if wished.insert(mount.target.clone(), mount.clone()).is_some() {
            return Err(EngineError::invalid(format!("Duplicate mount point: {}", mount.target)));
        }
    }
    mounts.extend(wished);
    for target in &spec.volumes {
        let target = container_path(target).map_err(EngineError::invalid)?;
        mounts.entry(target.clone()).or_insert_with(|| image_volume(&target));
    }
    if let Some(mount) = mounts.values().find(|mount| mount.is_of_default_driver()) {
        refuse_driver(&spec.volume_driver, mount.volume())?;
    }
    let mut mounts: Vec<PlannedMount> = mounts.into_values().collect();
    mounts.sort_by_key(|mount| mount.target.matches('/').count());
    Ok(mounts)
}

/// A mount of another container, as `--volumes-from` takes it over; tmpfs stays behind.
pub(crate) fn inherit(mount: &PlannedMount, access: Option<Access>) -> Option<PlannedMount> {
    let mut mount = mount.clone();
    match &mut mount.source {
        PlannedSource::Tmpfs { .. } => return None,
        PlannedSource::Volume { copy_up, .. } => *copy_up = CopyUp::Never,
        PlannedSource::Host { .. } | PlannedSource::Image { .. } => {}
    }
    if access == Some(Access::ReadOnly) {
        mount.access = Access::ReadOnly;
    }
    mount.origin = Origin::Inherited;
    Some(mount)
}

impl PlannedMount {
    /// Whether `HostConfig.VolumeDriver` is who makes it.
    fn is_of_default_driver(&self) -> bool {
        matches!(self.source, PlannedSource::Volume { .. }) && matches!(self.origin, Origin::Bind | Origin::Image)
    }

    /// The volume's name, once it has one.
    pub(crate) fn volume(&self) -> Option<&str> {
        match &self.source {
            PlannedSource::Volume { name, .. } => name.as_deref(),
            _ => None,
        }
    }

    /// What inspect's `Mounts` shows. `mountpoint` finds a volume's folder.
    pub(crate) fn point(
        &self,
        mountpoint: impl Fn(&str) -> String,
        anonymous: impl Fn(&str) -> bool,
    ) -> Option<MountPoint> {
        let (kind, name, source, driver) = match &self.source {
            PlannedSource::Host { path, .. } => (MountPointKind::Bind, None, path.clone(), None),
            PlannedSource::Volume { name, .. } => {
                let name = name.clone()?;
                let folder = mountpoint(&name);
                (MountPointKind::Volume, Some(name), folder, Some("local".to_owned()))
            }
            PlannedSource::Tmpfs { .. } if self.origin == Origin::Tmpfs => return None,
            PlannedSource::Tmpfs { .. } => (MountPointKind::Tmpfs, None, String::new(), None),
            PlannedSource::Image { reference, .. } => (MountPointKind::Image, None, reference.clone(), None),
        };
        let propagation = match kind {
            MountPointKind::Bind => MountPoint::propagation_of(self.propagation).to_owned(),
            MountPointKind::Volume | MountPointKind::Tmpfs | MountPointKind::Image => String::new(),
        };
        let mode = match (self.origin, kind) {
            (Origin::Bind, MountPointKind::Volume) if self.mode.is_empty() => "z".to_owned(),
            (Origin::Mount, MountPointKind::Volume) => "z".to_owned(),
            _ => self.mode.clone(),
        };
        Some(MountPoint {
            kind,
            anonymous: name.as_deref().is_some_and(anonymous),
            name,
            source,
            target: self.target.clone(),
            driver,
            mode,
            writable: self.access == Access::ReadWrite,
            propagation,
        })
    }
}

fn from_bind(bind: &Bind) -> Result<PlannedMount, EngineError> {
    let volume = |name| PlannedSource::Volume {
        name,
        copy_up: bind.copy_up,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        subpath: None,
    };
    let source = match &bind.source {
        BindSource::Host(path) => {
            PlannedSource::Host { path: path.clone(), create: true, recursion: BindRecursion::Recursive }
        }
        BindSource::Volume(name) => volume(Some(name.clone())),
        BindSource::Anonymous => volume(None),
    };
    Ok(PlannedMount {
        target: bind.target.clone(),
        source,
        access: bind.access,
        propagation: bind.propagation,
        mode: bind.mode.clone(),
        origin: Origin::Bind,
    })
}

fn from_mount(mount: &MountSpec) -> Result<PlannedMount, EngineError> {
    mount.validate()?;
    // An image never changes, whatever was asked for.
    let access = if matches!(mount.kind, MountKind::Image { .. }) { Access::ReadOnly } else { mount.access };
    let (source, propagation) = match &mount.kind {
        MountKind::Bind { source, propagation, recursion, create_source } => {
            let path = clean_path(source);
            (PlannedSource::Host { path, create: *create_source, recursion: *recursion }, *propagation)
        }
        MountKind::Volume { name, copy_up, labels, driver, driver_options, subpath } => {
            refuse_driver(driver, name.as_deref())?;
            let source = PlannedSource::Volume {
                name: name.clone(),
                copy_up: *copy_up,
                labels: labels.clone(),
                options: driver_options.clone(),
                subpath: subpath.clone(),
            };
            (source, None)
        }
        MountKind::Tmpfs { size_bytes, mode, options } => {
            (PlannedSource::Tmpfs { options: tmpfs_options(*size_bytes, *mode, options, mount.access) }, None)
        }
        MountKind::Image { source, subpath } => {
            (PlannedSource::Image { reference: source.clone(), layers: Vec::new(), subpath: subpath.clone() }, None)
        }
    };
    Ok(PlannedMount {
        target: clean_path(&mount.target),
        source,
        access,
        propagation,
        mode: String::new(),
        origin: Origin::Mount,
    })
}

/// Only the local driver is built.
pub(crate) fn refuse_driver(driver: &str, volume: Option<&str>) -> Result<(), EngineError> {
    match driver {
        "" | "local" => Ok(()),
        _ => {
            let why = format!("error looking up volume plugin {driver}: plugin \"{driver}\" not found");
            Err(EngineError::not_found(format!("{}{why}", create_of(volume))))
        }
    }
}

/// How Docker begins what it says of a volume that cannot be made.
pub(crate) fn create_of(volume: Option<&str>) -> String {
    volume.map(|name| format!("create {name}: ")).unwrap_or_default()
}

fn tmpfs_options(size_bytes: Option<u64>, mode: Option<u32>, more: &[String], access: Access) -> Vec<String> {
    let mut options: Vec<String> = merge_tmpfs(more);
    options.extend(size_bytes.map(|bytes| format!("size={bytes}")));
    options.extend(mode.map(|mode| format!("mode={mode:o}")));
    if access == Access::ReadOnly {
        options.push("ro".into());
    }
    options
}

fn from_tmpfs(target: &str, options: &str) -> Result<PlannedMount, EngineError> {
    let target = container_path(target).map_err(EngineError::invalid)?;
    let given: Vec<String> = options.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect();
    check_tmpfs(&given)?;
    let access = if given.iter().any(|option| option == "ro") { Access::ReadOnly } else { Access::ReadWrite };
    Ok(PlannedMount {
        target,
        source: PlannedSource::Tmpfs { options: merge_tmpfs(&given) },
        access,
        propagation: None,
        mode: String::new(),
        origin: Origin::Tmpfs,
    })
}

fn check_tmpfs(options: &[String]) -> Result<(), EngineError> {
    const FLAGS: &[&str] = &[
        "ro",
        "rw",
        "exec",
        "noexec",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "sync",
        "async",
        "dirsync",
        "mand",
        "nomand",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
        "private",
        "rprivate",
        "shared",
        "rshared",
        "slave",
        "rslave",
        "unbindable",
        "runbindable",
        "bind",
        "rbind",
        "remount",
    ];
    const VALUES: &[&str] = &["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];
    for option in options {
        let known = match option.split_once('=') {
            None => FLAGS.contains(&option.as_str()),
            Some((key, _)) => VALUES.contains(&key),
        };
        if !known {
            return Err(EngineError::invalid(format!("invalid tmpfs option [\"{option}\"]")));
        }
    }
    Ok(())
}

/// Docker's defaults with the user's on top: `exec` takes the place of `noexec`.
fn merge_tmpfs(given: &[String]) -> Vec<String> {
    let overridden = |default: &str| {
        given.iter().any(|option| option == default || Some(option.as_str()) == default.strip_prefix("no"))
    };
    let defaults = TMPFS_DEFAULTS.iter().filter(|default| !overridden(default)).map(|default| (*default).to_owned());
    defaults.chain(given.iter().cloned()).collect()
}

fn image_volume(target: &str) -> PlannedMount {
    PlannedMount {
        target: target.into(),
        source: PlannedSource::Volume {
            name: None,
            copy_up: CopyUp::WhenEmpty,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            subpath: None,
        },
        access: Access::ReadWrite,
        propagation: None,
        mode: String::new(),
        origin: Origin::Image,
    }
}

#[cfg(test)]
mod tests {
    use super::{Origin, PlannedSource, inherit, plan};
    use crate::model::{Access, Bind, ContainerSpec};

    fn spec(binds: &[&str], tmpfs: &[(&str, &str)], volumes: &[&str]) -> ContainerSpec {
        ContainerSpec {
            binds: binds.iter().map(|text| Bind::parse(text).unwrap()).collect(),
            tmpfs: tmpfs.iter().map(|(target, options)| ((*target).to_owned(), (*options).to_owned())).collect(),
            volumes: volumes.iter().map(|target| (*target).to_owned()).collect(),
            ..ContainerSpec::default()
        }
    }

    #[test]
    fn one_mount_per_target_parents_first() {
        let mounts = plan(&spec(&["/h:/a/b", "vol:/a"], &[("/t", "size=1m,exec")], &["/a", "/d"]), Vec::new()).unwrap();
        let shown: Vec<(&str, Origin)> = mounts.iter().map(|mount| (mount.target.as_str(), mount.origin)).collect();
        assert_eq!(shown, [("/a", Origin::Bind), ("/d", Origin::Image), ("/t", Origin::Tmpfs), ("/a/b", Origin::Bind)]);
        assert_eq!(
            mounts[2].source,
            PlannedSource::Tmpfs { options: ["nosuid", "nodev", "size=1m", "exec"].map(String::from).to_vec() }
        );
    }

    #[test]
    fn the_same_target_twice_is_refused() {
        let error = plan(&spec(&["/h:/a", "/i:/a"], &[], &[]), Vec::new()).unwrap_err();
        assert_eq!(error.message(), "Duplicate mount point: /a");
        assert!(plan(&spec(&[], &[("/t", "bogus")], &[]), Vec::new()).is_err());
        assert!(plan(&spec(&[], &[], &["relative"]), Vec::new()).is_err());
    }

    #[test]
    fn what_is_inherited_gives_way_to_wishes() {
        let theirs = plan(&spec(&["/h:/a", "/i:/b"], &[("/t", "")], &[]), Vec::new()).unwrap();
        let inherited: Vec<_> = theirs.iter().filter_map(|mount| inherit(mount, Some(Access::ReadOnly))).collect();
        assert_eq!(inherited.len(), 2);
        let mounts = plan(&spec(&["/mine:/a"], &[], &["/b"]), inherited).unwrap();
        let shown: Vec<(Origin, Access)> = mounts.iter().map(|mount| (mount.origin, mount.access)).collect();
        assert_eq!(shown, [(Origin::Bind, Access::ReadWrite), (Origin::Inherited, Access::ReadOnly)]);
    }
}
