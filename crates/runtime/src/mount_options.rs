//! The options of one mount, as fstab words, sorted by who takes them. Pure.

use oci::runtime::Mount;
use rustix::mount::MountAttrFlags;

/// Whether a mount shows a directory tree that exists or a file system of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A file system type.
    FileSystem,
    /// The mount at the source.
    Bind,
    /// The mount at the source and all below it.
    RecursiveBind,
}

/// Mount propagation and whether it is set on the mounts below too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Propagation {
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`.
    pub(crate) flag: u64,
    pub(crate) recursive: bool,
}

/// Attribute bits to set and to clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct AttributeChange {
    pub(crate) set: u64,
    pub(crate) clear: u64,
}

impl AttributeChange {
    pub(crate) fn is_empty(self) -> bool {
        self.set == 0 && self.clear == 0
    }

    fn set(&mut self, bit: u64) {
        self.set |= bit;
        self.clear &= !bit;
    }

    fn clear(&mut self, bit: u64) {
        self.clear |= bit;
        self.set &= !bit;
    }

    /// The access time options are one field of the kernel's, set as a whole.
    fn access_time(&mut self, value: u64) {
        self.clear |= ATIME_MASK;
        self.set = self.set & !ATIME_MASK | value;
    }
}

/// Id mapping of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum IdMapped {
    #[default]
    No,
    /// This mount.
    One,
    /// This mount and those below.
    Recursive,
}

/// The options of a mount, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountOptions {
    pub(crate) source: Source,
    /// Attributes of this mount.
    pub(crate) attributes: AttributeChange,
    /// Attributes of this mount and all below it (`rro`, `rnosuid`, …).
    pub(crate) recursive_attributes: AttributeChange,
    pub(crate) propagation: Vec<Propagation>,
    /// Flags of the superblock (`sync`, `dirsync`, …) as `fsconfig` names them.
    pub(crate) superblock: Vec<&'static str>,
    pub(crate) remount: bool,
    pub(crate) copy_up: bool,
    pub(crate) id_mapped: IdMapped,
    /// What the file system itself takes.
    pub(crate) data: Vec<String>,
}

const ATIME_MASK: u64 = 0x70;
const RELATIME: u64 = 0x00;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const READ_ONLY: u64 = MountAttrFlags::MOUNT_ATTR_RDONLY.bits() as u64;
const NO_SUID: u64 = MountAttrFlags::MOUNT_ATTR_NOSUID.bits() as u64;
const NO_DEV: u64 = MountAttrFlags::MOUNT_ATTR_NODEV.bits() as u64;
const NO_EXEC: u64 = MountAttrFlags::MOUNT_ATTR_NOEXEC.bits() as u64;
const NO_DIR_ATIME: u64 = MountAttrFlags::MOUNT_ATTR_NODIRATIME.bits() as u64;
const NO_SYMFOLLOW: u64 = MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW.bits() as u64;

const MS_UNBINDABLE: u64 = 1 << 17;
const MS_PRIVATE: u64 = 1 << 18;
const MS_SLAVE: u64 = 1 << 19;
const MS_SHARED: u64 = 1 << 20;

/// What an option word does.
#[derive(Clone, Copy)]
enum Effect {
    Nothing,
    Bind(Source),
    Remount,
    CopyUp,
    IdMap(IdMapped),
    Set(u64),
    Clear(u64),
    AccessTime(u64),
    SetRecursive(u64),
    ClearRecursive(u64),
    AccessTimeRecursive(u64),
    Propagate(u64, bool),
    SuperblockSet(&'static str),
    SuperblockClear(&'static str),
}

/// Every word that is not left to the file system, for `features` too.
const WORDS: [(&str, Effect); 68] = [
    ("acl", Effect::SuperblockSet("acl")),
    ("async", Effect::SuperblockClear("sync")),
    ("atime", Effect::AccessTime(RELATIME)),
    ("bind", Effect::Bind(Source::Bind)),
    ("defaults", Effect::Nothing),
    ("dev", Effect::Clear(NO_DEV)),
    ("diratime", Effect::Clear(NO_DIR_ATIME)),
    ("dirsync", Effect::SuperblockSet("dirsync")),
    ("exec", Effect::Clear(NO_EXEC)),
    ("idmap", Effect::IdMap(IdMapped::One)),
    ("iversion", Effect::SuperblockSet("iversion")),
    ("lazytime", Effect::SuperblockSet("lazytime")),
    ("loud", Effect::Nothing),
    ("mand", Effect::SuperblockSet("mand")),
    ("noacl", Effect::SuperblockSet("noacl")),
    ("noatime", Effect::AccessTime(NOATIME)),
    ("nodev", Effect::Set(NO_DEV)),
    ("nodiratime", Effect::Set(NO_DIR_ATIME)),
    ("noexec", Effect::Set(NO_EXEC)),
    ("noiversion", Effect::SuperblockClear("iversion")),
    ("nolazytime", Effect::SuperblockClear("lazytime")),
    ("nomand", Effect::SuperblockClear("mand")),
    ("norelatime", Effect::AccessTime(RELATIME)),
    ("nostrictatime", Effect::AccessTime(RELATIME)),
    ("nosuid", Effect::Set(NO_SUID)),
    ("nosymfollow", Effect::Set(NO_SYMFOLLOW)),
    ("private", Effect::Propagate(MS_PRIVATE, false)),
    ("ratime", Effect::AccessTimeRecursive(RELATIME)),
    ("rbind", Effect::Bind(Source::RecursiveBind)),
    ("rdev", Effect::ClearRecursive(NO_DEV)),
    ("rdiratime", Effect::ClearRecursive(NO_DIR_ATIME)),
    ("relatime", Effect::AccessTime(RELATIME)),
    ("remount", Effect::Remount),
    ("rexec", Effect::ClearRecursive(NO_EXEC)),
    ("ridmap", Effect::IdMap(IdMapped::Recursive)),
    ("rnoatime", Effect::AccessTimeRecursive(NOATIME)),
    ("rnodev", Effect::SetRecursive(NO_DEV)),
    ("rnodiratime", Effect::SetRecursive(NO_DIR_ATIME)),
    ("rnoexec", Effect::SetRecursive(NO_EXEC)),
    ("rnorelatime", Effect::AccessTimeRecursive(RELATIME)),
    ("rnostrictatime", Effect::AccessTimeRecursive(RELATIME)),
    ("rnosuid", Effect::SetRecursive(NO_SUID)),
    ("rnosymfollow", Effect::SetRecursive(NO_SYMFOLLOW)),
    ("ro", Effect::Set(READ_ONLY)),
    ("rprivate", Effect::Propagate(MS_PRIVATE, true)),
    ("rrelatime", Effect::AccessTimeRecursive(RELATIME)),
    ("rro", Effect::SetRecursive(READ_ONLY)),
    ("rrw", Effect::ClearRecursive(READ_ONLY)),
    ("rshared", Effect::Propagate(MS_SHARED, true)),
    ("rslave", Effect::Propagate(MS_SLAVE, true)),
    ("rstrictatime", Effect::AccessTimeRecursive(STRICTATIME)),
    ("rsuid", Effect::ClearRecursive(NO_SUID)),
    ("rsymfollow", Effect::ClearRecursive(NO_SYMFOLLOW)),
    ("runbindable", Effect::Propagate(MS_UNBINDABLE, true)),
    ("rw", Effect::Clear(READ_ONLY)),
    ("shared", Effect::Propagate(MS_SHARED, false)),
    ("silent", Effect::SuperblockSet("silent")),
    ("slave", Effect::Propagate(MS_SLAVE, false)),
    ("strictatime", Effect::AccessTime(STRICTATIME)),
    ("suid", Effect::Clear(NO_SUID)),
    ("symfollow", Effect::Clear(NO_SYMFOLLOW)),
    ("sync", Effect::SuperblockSet("sync")),
    ("tmpcopyup", Effect::CopyUp),
    ("unbindable", Effect::Propagate(MS_UNBINDABLE, false)),
    // fstab words that mean nothing to the kernel.
    ("auto", Effect::Nothing),
    ("noauto", Effect::Nothing),
    ("nouser", Effect::Nothing),
    ("_netdev", Effect::Nothing),
];

/// The names of all options that the runtime itself understands.
pub fn mount_option_names() -> Vec<&'static str> {
    WORDS.iter().map(|(word, _)| *word).filter(|word| !["auto", "noauto", "nouser", "_netdev"].contains(word)).collect()
}

impl MountOptions {
    /// Sorts the options of a mount.
    pub(crate) fn parse(mount: &Mount) -> MountOptions {
        let source = if mount.kind == "bind" { Source::Bind } else { Source::FileSystem };
        let mut options = MountOptions {
            source,
            attributes: AttributeChange::default(),
            recursive_attributes: AttributeChange::default(),
            propagation: Vec::new(),
            superblock: Vec::new(),
            remount: false,
            copy_up: false,
            id_mapped: IdMapped::No,
            data: Vec::new(),
        };
        for word in &mount.options {
            match WORDS.iter().find(|(known, _)| known == word) {
                Some((_, effect)) => options.apply(*effect),
                None => options.data.push(word.clone()),
            }
        }
        if options.id_mapped == IdMapped::No && !mount.uid_mappings.is_empty() {
            options.id_mapped = IdMapped::One;
        }
        options
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Nothing => {}
            Effect::Bind(source) => self.source = source,
            Effect::Remount => self.remount = true,
            Effect::CopyUp => self.copy_up = true,
            Effect::IdMap(kind) => self.id_mapped = kind,
            Effect::Set(bit) => self.attributes.set(bit),
            Effect::Clear(bit) => self.attributes.clear(bit),
            Effect::AccessTime(value) => self.attributes.access_time(value),
            Effect::SetRecursive(bit) => self.recursive_attributes.set(bit),
            Effect::ClearRecursive(bit) => self.recursive_attributes.clear(bit),
            Effect::AccessTimeRecursive(value) => self.recursive_attributes.access_time(value),
            Effect::Propagate(flag, recursive) => self.propagation.push(Propagation { flag, recursive }),
            Effect::SuperblockSet(name) => self.superblock.push(name),
            Effect::SuperblockClear(name) => self.superblock.retain(|set| *set != name),
        }
    }

    /// Whether the mount is to be read-only.
    pub(crate) fn is_read_only(&self) -> bool {
        (self.attributes.set | self.recursive_attributes.set) & READ_ONLY != 0
    }
}

/// `MOUNT_ATTR_RDONLY` for `mount_setattr`.
pub(crate) const ATTR_READ_ONLY: u64 = READ_ONLY;
/// `MS_PRIVATE` for `mount_setattr`.
pub(crate) const PROPAGATION_PRIVATE: u64 = MS_PRIVATE;
/// `MS_SLAVE` for `mount_setattr`.
pub(crate) const PROPAGATION_SLAVE: u64 = MS_SLAVE;
/// `MS_SHARED` for `mount_setattr`.
pub(crate) const PROPAGATION_SHARED: u64 = MS_SHARED;
/// `MS_UNBINDABLE` for `mount_setattr`.
pub(crate) const PROPAGATION_UNBINDABLE: u64 = MS_UNBINDABLE;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(kind: &str, options: &[&str]) -> MountOptions {
        let options = options.iter().map(|word| (*word).to_owned()).collect();
        MountOptions::parse(&Mount { kind: kind.to_owned(), options, ..Mount::default() })
    }

    #[test]
    fn words_are_sorted_by_who_takes_them() {
        let options = parse("tmpfs", &["nosuid", "size=64k", "ro", "rw", "sync", "rslave", "mode=755", "tmpcopyup"]);
        assert_eq!(options.attributes, AttributeChange { set: NO_SUID, clear: READ_ONLY });
        assert_eq!(options.superblock, ["sync"]);
        assert_eq!(options.propagation, [Propagation { flag: MS_SLAVE, recursive: true }]);
        assert_eq!(options.data, ["size=64k", "mode=755"]);
        assert!(options.copy_up);
        assert_eq!(options.source, Source::FileSystem);
    }

    #[test]
    fn the_last_access_time_word_wins() {
        let options = parse("bind", &["noatime", "strictatime"]);
        assert_eq!(options.attributes, AttributeChange { set: STRICTATIME, clear: ATIME_MASK });
        let options = parse("bind", &["rnoatime", "rrelatime"]);
        assert_eq!(options.recursive_attributes, AttributeChange { set: 0, clear: ATIME_MASK });
    }

    #[test]
    fn binds_come_from_type_or_option() {
        assert_eq!(parse("bind", &[]).source, Source::Bind);
        assert_eq!(parse("none", &["rbind"]).source, Source::RecursiveBind);
        assert_eq!(parse("bind", &["rbind", "rro"]).source, Source::RecursiveBind);
        assert!(parse("bind", &["rro"]).is_read_only());
    }

    #[test]
    fn every_word_is_there_once() {
        let mut words: Vec<_> = WORDS.iter().map(|(word, _)| word).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), WORDS.len());
    }
}
