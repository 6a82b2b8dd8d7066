//! Binds, mounts, tmpfs and `volumes-from`, parsed as Docker parses them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::EngineError;

/// Who may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Access {
    /// Reads and writes.
    #[default]
    ReadWrite,
    /// Reads only.
    ReadOnly,
}

/// How mount events travel between the host and the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// `private`
    Private,
    /// `rprivate`
    RPrivate,
    /// `shared`
    Shared,
    /// `rshared`
    RShared,
    /// `slave`
    Slave,
    /// `rslave`
    RSlave,
}

/// One `-v` argument (`HostConfig.Binds`), kept as given and as understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bind {
    /// The text as given, which inspect shows.
    pub text: String,
    /// A host path or a volume's name.
    pub source: BindSource,
    /// Where in the container, absolute and clean.
    pub target: String,
    /// The mode part as given (`ro,z`), which inspect's `Mounts` shows.
    pub mode: String,
    /// Who may write.
    pub access: Access,
    /// Mount propagation where it was given.
    pub propagation: Option<Propagation>,
    /// What to do with the image's files at the target (`nocopy`).
    pub copy_up: CopyUp,
}

/// The left side of a `-v` argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindSource {
    /// An absolute path on the host; made if it does not exist, as Docker does for `-v`.
    Host(String),
    /// A volume by name.
    Volume(String),
    /// No left side: an anonymous volume.
    Anonymous,
}

/// Whether an empty volume starts with the image's files at its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CopyUp {
    /// Copies when the volume is empty.
    #[default]
    WhenEmpty,
    /// Never copies (`nocopy`).
    Never,
}

/// One `--mount` argument (`HostConfig.Mounts`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// What is mounted, with the options of its kind.
    pub kind: MountKind,
    /// Where in the container, absolute.
    pub target: String,
    /// Who may write.
    pub access: Access,
    /// `Consistency`, shown again and without effect on Linux (Docker's own meaning).
    pub consistency: Option<String>,
}

/// The kinds of `--mount`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A path of the host.
    Bind {
        /// The host's path, absolute.
        source: String,
        /// `BindOptions.Propagation`.
        propagation: Option<Propagation>,
        /// `BindOptions.NonRecursive`: leave out what is mounted below the source.
        recursion: BindRecursion,
        /// `BindOptions.CreateMountpoint`: make the source when it does not exist.
        create_source: bool,
    },
    /// A volume.
    Volume {
        /// Its name; none for an anonymous one.
        name: Option<String>,
        /// `VolumeOptions.NoCopy`.
        copy_up: CopyUp,
        /// Labels for a volume that this makes.
        labels: BTreeMap<String, String>,
        /// The driver, `local` when empty.
        driver: String,
        /// Options for the driver.
        driver_options: BTreeMap<String, String>,
        /// A folder inside the volume.
        subpath: Option<String>,
    },
    /// Memory.
    Tmpfs {
        /// `TmpfsOptions.SizeBytes`.
        size_bytes: Option<u64>,
        /// `TmpfsOptions.Mode`, permission bits.
        mode: Option<u32>,
        /// `TmpfsOptions.Options` beyond those two, such as `exec`, `uid=1`.
        options: Vec<String>,
    },
    /// An image's file system, read-only.
    Image {
        /// The image's name.
        source: String,
        /// A folder inside it.
        subpath: Option<String>,
    },
}

/// How a bind treats what is mounted below its source, and whether read-only reaches there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum BindRecursion {
    /// Recursive; a read-only bind is read-only below as well where the kernel can.
    #[default]
    Recursive,
    /// Only the source itself.
    NonRecursive,
    /// Recursive; only the top is read-only (`ReadOnlyNonRecursive`).
    ReadOnlyTop,
    /// Recursive; fails where read-only cannot reach below (`ReadOnlyForceRecursive`).
    ForceReadOnly,
}

/// One `--volumes-from` argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumesFrom {
    /// The container by id or name.
    pub container: String,
    /// `ro` or `rw` where given; otherwise as it is there.
    pub access: Option<Access>,
}

impl Propagation {
    /// Reads `rshared` and its kin.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        Ok(match text {
            "private" => Self::Private,
            "rprivate" => Self::RPrivate,
            "shared" => Self::Shared,
            "rshared" => Self::RShared,
            "slave" => Self::Slave,
            "rslave" => Self::RSlave,
            _ => {
                let why = format!("invalid mount config for type \"bind\": invalid propagation mode: {text}");
                return Err(EngineError::invalid(why));
            }
        })
    }

    /// Docker's and mount(8)'s word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::RPrivate => "rprivate",
            Self::Shared => "shared",
            Self::RShared => "rshared",
            Self::Slave => "slave",
            Self::RSlave => "rslave",
        }
    }
}

impl Bind {
    /// Reads `source:target[:mode]`, `name:target[:mode]` or `target`.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        let invalid = || EngineError::invalid(format!("invalid volume specification: '{text}'"));
        if text.is_empty() {
            return Err(invalid());
        }
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, mode) = match parts.as_slice() {
            [target] => (BindSource::Anonymous, *target, ""),
            [source, target] => (bind_source(source).ok_or_else(invalid)?, *target, ""),
            [source, target, mode] if !mode.is_empty() => (bind_source(source).ok_or_else(invalid)?, *target, *mode),
            _ => return Err(invalid()),
        };
        let modes = BindModes::parse(mode, &source)?;
        let kind = if matches!(source, BindSource::Host(_)) { "bind" } else { "volume" };
        let target = container_path(target).map_err(|why| {
            let why = format!("invalid mount config for type \"{kind}\": {why}");
            EngineError::invalid(format!("invalid volume specification: '{text}': {why}"))
        })?;
        check_volume_name(&source)?;
        Ok(Self {
            text: text.into(),
            source,
            target,
            mode: mode.into(),
            access: modes.access,
            propagation: modes.propagation,
            copy_up: modes.copy_up,
        })
    }
}

impl TryFrom<String> for Bind {
    type Error = EngineError;
    fn try_from(text: String) -> Result<Self, EngineError> {
        Self::parse(&text)
    }
}

impl From<Bind> for String {
    fn from(bind: Bind) -> String {
        bind.text
    }
}

impl VolumesFrom {
    /// Reads `container[:ro|rw]`.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        if text.is_empty() {
            return Err(EngineError::invalid("volumes-from specification cannot be an empty string"));
        }
        let (container, access) = match text.split_once(':') {
            None => (text, None),
            Some((container, mode)) => (container, Some(Self::access(mode)?)),
        };
        if container.is_empty() {
            return Err(EngineError::invalid(format!(
                "invalid volumes-from specification: {text}: malformed volumes-from specification"
            )));
        }
        Ok(Self { container: container.into(), access })
    }

    /// The text that inspect shows.
    pub fn text(&self) -> String {
        match self.access {
            None => self.container.clone(),
            Some(Access::ReadWrite) => format!("{}:rw", self.container),
            Some(Access::ReadOnly) => format!("{}:ro", self.container),
        }
    }

    fn access(mode: &str) -> Result<Access, EngineError> {
        match mode {
            "ro" => Ok(Access::ReadOnly),
            "rw" => Ok(Access::ReadWrite),
            // SELinux labels mean nothing without SELinux; Docker takes them here as well.
            "z" | "Z" => Ok(Access::ReadWrite),
            _ => Err(EngineError::invalid(format!("invalid mode: {mode}"))),
        }
    }
}

impl MountSpec {
    /// Checks what Docker checks of a mount before anything is made.
    pub fn validate(&self) -> Result<(), EngineError> {
        let kind = self.kind_name();
        let wrong = |why: &str| EngineError::invalid(format!("invalid mount config for type \"{kind}\": {why}"));
        if self.target.is_empty() {
            return Err(wrong("field Target must not be empty"));
        }
        container_path(&self.target).map_err(|why| wrong(&why))?;
        match &self.kind {
            MountKind::Bind { source, .. } if source.is_empty() => Err(wrong("field Source must not be empty")),
            MountKind::Bind { source, .. } if !source.starts_with('/') => {
                Err(wrong(&format!("invalid mount path: '{source}' mount path must be absolute")))
            }
            MountKind::Image { source, .. } if source.is_empty() => Err(wrong("field Source must not be empty")),
            MountKind::Volume { subpath: Some(subpath), .. } if !is_local(subpath) => {
                Err(wrong("subpath must be a relative path within the volume"))
            }
            MountKind::Image { subpath: Some(subpath), .. } if !is_local(subpath) => {
                Err(wrong("subpath must be a relative path within the image"))
            }
            MountKind::Volume { name: Some(name), .. } => VolumeName::parse(name).map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Docker's word for the kind.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            MountKind::Bind { .. } => "bind",
            MountKind::Volume { .. } => "volume",
            MountKind::Tmpfs { .. } => "tmpfs",
            MountKind::Image { .. } => "image",
        }
    }
}

/// The name of a volume: safe as the name of a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeName(String);

impl VolumeName {
    /// Accepts `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, as Docker's local driver does.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        if text.len() == 1 {
            return Err(EngineError::invalid(
                "volume name is too short, names should be at least two alphanumeric characters",
            ));
        }
        if text.len() > 255 || !super::name::is_restricted_name(text) {
            return Err(EngineError::invalid(format!(
                "create {text}: \"{text}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
            )));
        }
        Ok(Self(text.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for VolumeName {
    type Error = EngineError;
    fn try_from(text: String) -> Result<Self, EngineError> {
        Self::parse(&text)
    }
}

impl From<VolumeName> for String {
    fn from(name: VolumeName) -> String {
        name.0
    }
}

impl std::fmt::Display for VolumeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

struct BindModes {
    access: Access,
    propagation: Option<Propagation>,
    copy_up: CopyUp,
}

impl BindModes {
    fn parse(mode: &str, source: &BindSource) -> Result<Self, EngineError> {
        let mut modes = Self { access: Access::ReadWrite, propagation: None, copy_up: CopyUp::WhenEmpty };
        let accesses = mode.split(',').filter(|part| ["ro", "rw"].contains(part)).count();
        if accesses > 1 {
            return Err(EngineError::invalid(format!("invalid mode: {mode}")));
        }
        for part in mode.split(',').filter(|part| !part.is_empty()) {
            match part {
                "rw" => modes.access = Access::ReadWrite,
                "ro" => modes.access = Access::ReadOnly,
                "nocopy" if !matches!(source, BindSource::Host(_)) => modes.copy_up = CopyUp::Never,
                // SELinux relabelling has no object on a host without SELinux; the consistency words are for Docker Desktop.
                "z" | "Z" | "cached" | "delegated" | "consistent" => {}
                // Looked at by the start: only in a user namespace there is something to map.
                "idmap" if matches!(source, BindSource::Host(_)) => {}
                _ if matches!(source, BindSource::Host(_)) => {
                    modes.propagation = Some(
                        Propagation::parse(part).map_err(|_| EngineError::invalid(format!("invalid mode: {mode}")))?,
                    );
                }
                _ => return Err(EngineError::invalid(format!("invalid mode: {mode}"))),
            }
        }
        Ok(modes)
    }
}

fn bind_source(text: &str) -> Option<BindSource> {
    match text {
        "" => None,
        _ if text.starts_with('/') => Some(BindSource::Host(clean_path(text))),
        _ => Some(BindSource::Volume(text.into())),
    }
}

fn check_volume_name(source: &BindSource) -> Result<(), EngineError> {
    match source {
        BindSource::Volume(name) => VolumeName::parse(name).map(|_| ()),
        BindSource::Host(_) | BindSource::Anonymous => Ok(()),
    }
}

/// Whether a path is relative and stays below where it begins, going by its text: Go's `filepath.IsLocal`.
fn is_local(path: &str) -> bool {
    let mut depth = 0_usize;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if depth == 0 => return false,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    !path.is_empty() && !path.starts_with('/') && !path.contains('\0')
}

/// A path inside a container: absolute, without `.` and `..`, and not the root itself.
pub(crate) fn container_path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("invalid mount path: '{text}' mount path must be absolute"));
    }
    match clean_path(text) {
        path if path == "/" => Err("invalid specification: destination can't be '/'".to_owned()),
        path => Ok(path),
    }
}

/// What Go's `filepath.Clean` makes of an absolute path.
pub(crate) fn clean_path(text: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::{Access, Bind, BindSource, CopyUp, Propagation, VolumesFrom, clean_path};

    #[test]
    fn binds_are_understood() {
        let bind = Bind::parse("/a/../b:/c/./d:ro,rslave").unwrap();
        assert_eq!(bind.source, BindSource::Host("/b".into()));
        assert_eq!(
            (bind.target.as_str(), bind.access, bind.propagation),
            ("/c/d", Access::ReadOnly, Some(Propagation::RSlave))
        );
        let bind = Bind::parse("data:/d:nocopy").unwrap();
        assert_eq!((bind.source, bind.copy_up), (BindSource::Volume("data".into()), CopyUp::Never));
        assert_eq!(Bind::parse("/only").unwrap().source, BindSource::Anonymous);
    }

    #[test]
    fn wrong_binds_are_refused_in_dockers_words() {
        for (text, message) in [
            ("/a:/b:c:d", "invalid volume specification: '/a:/b:c:d'"),
            (
                "/a:/",
                "invalid volume specification: '/a:/': invalid mount config for type \"bind\": invalid specification: destination can't be '/'",
            ),
            (
                "/a:b",
                "invalid volume specification: '/a:b': invalid mount config for type \"bind\": invalid mount path: 'b' mount path must be absolute",
            ),
            ("/a:/b:bad", "invalid mode: bad"),
            ("vol:/b:rshared", "invalid mode: rshared"),
            (":/b", "invalid volume specification: ':/b'"),
        ] {
            assert_eq!(Bind::parse(text).unwrap_err().message(), message, "{text}");
        }
        assert!(
            Bind::parse("../x:/b")
                .unwrap_err()
                .message()
                .contains("includes invalid characters for a local volume name")
        );
    }

    #[test]
    fn volumes_from_takes_a_mode() {
        assert_eq!(VolumesFrom::parse("a:ro").unwrap().access, Some(Access::ReadOnly));
        assert_eq!(VolumesFrom::parse("a").unwrap().text(), "a");
        assert!(VolumesFrom::parse("a:x").is_err());
        assert!(VolumesFrom::parse("").is_err());
    }

    #[test]
    fn subpaths_stay_below_where_they_begin() {
        for (path, local) in
            [("a/b", true), ("a/../b", true), ("../a", false), ("a/../../b", false), ("/a", false), ("", false)]
        {
            assert_eq!(super::is_local(path), local, "{path}");
        }
    }

    #[test]
    fn paths_are_cleaned_without_leaving_the_root() {
        for (path, clean) in [("/../..", "/"), ("/a//b/", "/a/b"), ("/a/../../b", "/b")] {
            assert_eq!(clean_path(path), clean);
        }
    }
}
