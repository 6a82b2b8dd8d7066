//! The local driver's options: a volume may be a file system that the kernel mounts (`type`, `device`, `o`) in place of a plain folder.
//!
//! It is mounted on the volume's folder when the first container (or a copy into it) needs it and taken away behind the last one, as
//! Docker does: two containers that share a tmpfs volume share its memory.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount};

use crate::model::EngineError;

/// What mount(8) says for the kernel's flags; what is set, and what is taken away.
const FLAGS: &[(&str, MountFlags, MountFlags)] = &[
    ("ro", MountFlags::RDONLY, MountFlags::empty()),
    ("rw", MountFlags::empty(), MountFlags::RDONLY),
    ("nosuid", MountFlags::NOSUID, MountFlags::empty()),
    ("suid", MountFlags::empty(), MountFlags::NOSUID),
    ("nodev", MountFlags::NODEV, MountFlags::empty()),
    ("dev", MountFlags::empty(), MountFlags::NODEV),
    ("noexec", MountFlags::NOEXEC, MountFlags::empty()),
    ("exec", MountFlags::empty(), MountFlags::NOEXEC),
    ("sync", MountFlags::SYNCHRONOUS, MountFlags::empty()),
    ("async", MountFlags::empty(), MountFlags::SYNCHRONOUS),
    ("dirsync", MountFlags::DIRSYNC, MountFlags::empty()),
    ("noatime", MountFlags::NOATIME, MountFlags::empty()),
    ("atime", MountFlags::empty(), MountFlags::NOATIME),
    ("nodiratime", MountFlags::NODIRATIME, MountFlags::empty()),
    ("diratime", MountFlags::empty(), MountFlags::NODIRATIME),
    ("relatime", MountFlags::RELATIME, MountFlags::empty()),
    ("norelatime", MountFlags::empty(), MountFlags::RELATIME),
    ("strictatime", MountFlags::STRICTATIME, MountFlags::empty()),
    ("nostrictatime", MountFlags::empty(), MountFlags::STRICTATIME),
    ("bind", MountFlags::BIND, MountFlags::empty()),
    ("rbind", MountFlags::from_bits_retain(MS_BIND | MS_REC), MountFlags::empty()),
    ("defaults", MountFlags::empty(), MountFlags::empty()),
];

const MS_BIND: u32 = 0x1000;
const MS_REC: u32 = 0x4000;

/// What the kernel is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LocalMount {
    kind: String,
    device: String,
    flags: MountFlags,
    propagation: Option<MountPropagationFlags>,
    /// For the file system's own driver.
    data: Vec<String>,
}

impl LocalMount {
    /// Reads the options of a volume; none for a plain folder.
    pub(super) fn parse(options: &BTreeMap<String, String>) -> Result<Option<Self>, EngineError> {
        let is_plain = |key: &&String| super::plain::OPTIONS.contains(&key.as_str());
        let is_known = |key: &&String| ["type", "device", "o"].contains(&key.as_str()) || is_plain(key);
        if let Some(unknown) = options.keys().find(|key| !is_known(key)) {
            return Err(EngineError::invalid(format!("invalid option: \"{unknown}\"")));
        }
        if options.keys().all(|key| is_plain(&key)) {
            return Ok(None);
        }
        if let Some(key) = options.keys().find(is_plain) {
            return Err(EngineError::invalid(format!(
                "the option \"{key}\" is for volumes that are folders, not for those of a file system (type, device, o)"
            )));
        }
        let required = |key: &str| match options.get(key).filter(|value| !value.is_empty()) {
            Some(value) => Ok(value.clone()),
            None => Err(EngineError::invalid(format!("missing required option: \"{key}\""))),
        };
        let mut parsed = Self {
            device: required("device")?,
            kind: required("type")?,
            flags: MountFlags::empty(),
            propagation: None,
            data: Vec::new(),
        };
        for word in options.get("o").map(String::as_str).unwrap_or_default().split(',').filter(|word| !word.is_empty())
        {
            parsed.option(word);
        }
        if parsed.flags.contains(MountFlags::BIND) && !parsed.device.starts_with('/') {
            return Err(EngineError::invalid(format!(
                "a bind's device must be an absolute path: \"{}\"",
                parsed.device
            )));
        }
        Ok(Some(parsed))
    }

    fn option(&mut self, word: &str) {
        if let Some((_, set, cleared)) = FLAGS.iter().find(|(known, ..)| *known == word) {
            self.flags = (self.flags | *set) & !*cleared;
            return;
        }
        match propagation(word) {
            Some(flags) => self.propagation = Some(flags),
            None => self.data.push(word.to_owned()),
        }
    }

    /// Mounts it.
    pub(super) fn mount_on(&self, place: &Path) -> io::Result<()> {
        let data = CString::new(self.data()?.join(","))?;
        let data = Some(data.as_c_str()).filter(|data| !data.is_empty());
        mount(self.device.as_str(), place, self.kind.as_str(), self.flags, data)?;
        let completed = self.complete(place);
        if completed.is_err() {
            let _ = unmount(place, UnmountFlags::DETACH);
        }
        completed
    }

    /// What the kernel takes only of a mount that is there.
    fn complete(&self, place: &Path) -> io::Result<()> {
        let changes = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        if self.flags.contains(MountFlags::BIND) && self.flags.intersects(changes) {
            mount_remount(place, MountFlags::BIND | (self.flags & changes), c"")?;
        }
        if let Some(propagation) = self.propagation {
            mount_change(place, propagation)?;
        }
        Ok(())
    }

    /// The data, with the address of a file server in numbers: the kernel asks no name server.
    fn data(&self) -> io::Result<Vec<String>> {
        let is_remote = ["nfs", "nfs4", "cifs", "smb3"].contains(&self.kind.as_str());
        let number = |word: &String| match word.strip_prefix("addr=") {
            Some(host) if is_remote && host.parse::<IpAddr>().is_err() => {
                let mut found = (host, 0).to_socket_addrs()?;
                let address = found.next().ok_or_else(|| io::Error::other(format!("{host} has no address")))?;
                Ok(format!("addr={}", address.ip()))
            }
            _ => Ok(word.clone()),
        };
        self.data.iter().map(number).collect()
    }
}

fn propagation(word: &str) -> Option<MountPropagationFlags> {
    let (word, recursive) = match word.strip_prefix('r') {
        Some(rest) if ["private", "shared", "slave", "unbindable"].contains(&rest) => (rest, true),
        _ => (word, false),
    };
    let flags = match word {
        "private" => MountPropagationFlags::PRIVATE,
        "shared" => MountPropagationFlags::SHARED,
        "slave" => MountPropagationFlags::DOWNSTREAM,
        "unbindable" => MountPropagationFlags::UNBINDABLE,
        _ => return None,
    };
    Some(if recursive { flags | MountPropagationFlags::REC } else { flags })
}

/// Whether something is mounted on a folder itself.
pub(super) fn is_mounted_on(folder: &Path) -> io::Result<bool> {
    let folder = match folder.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        result => result?,
    };
    // A volume's name has no character that this file would write differently; the engine's root may have.
    let wanted = escaped(&folder.to_string_lossy());
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table.lines().any(|line| line.split(' ').nth(4) == Some(wanted.as_str())))
}

fn escaped(path: &str) -> String {
    path.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011").replace('\n', "\\012")
}

/// Takes away what is mounted on a folder, however often.
pub(super) fn unmount_all(folder: &Path) -> io::Result<()> {
    while is_mounted_on(folder)? {
        unmount(folder, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::mount::{MountFlags, MountPropagationFlags};

    use super::LocalMount;

    fn parse(options: &[(&str, &str)]) -> Result<Option<LocalMount>, String> {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        LocalMount::parse(&options).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn options_become_flags_and_data() {
        let mount =
            parse(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,nosuid,ro,rw,uid=5")]).unwrap().unwrap();
        assert_eq!((mount.flags, mount.data.join(" ")), (MountFlags::NOSUID, "size=1m uid=5".to_owned()));
        let mount = parse(&[("type", "none"), ("device", "/srv"), ("o", "rbind,ro,rslave")]).unwrap().unwrap();
        assert!(mount.flags.contains(MountFlags::BIND | MountFlags::RDONLY));
        assert_eq!(mount.propagation, Some(MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC));
        assert_eq!((parse(&[]), parse(&[("size", "1g")])), (Ok(None), Ok(None)));
    }

    #[test]
    fn wrong_options_are_named() {
        assert_eq!(parse(&[("color", "red")]).unwrap_err(), "invalid option: \"color\"");
        assert_eq!(parse(&[("o", "bind")]).unwrap_err(), "missing required option: \"device\"");
        assert_eq!(parse(&[("device", "/a")]).unwrap_err(), "missing required option: \"type\"");
        assert!(
            parse(&[("size", "1g"), ("o", "ro")]).unwrap_err().contains("\"size\" is for volumes that are folders")
        );
        assert!(parse(&[("type", "none"), ("device", "srv"), ("o", "bind")]).unwrap_err().contains("absolute"));
    }

    #[test]
    fn names_of_file_servers_become_numbers() {
        let mount = parse(&[("type", "nfs"), ("device", ":/x"), ("o", "addr=localhost,vers=4")]).unwrap().unwrap();
        let data = mount.data().unwrap();
        assert!(data[0] == "addr=127.0.0.1" || data[0] == "addr=::1", "{data:?}");
        assert_eq!(data[1], "vers=4");
    }
}
