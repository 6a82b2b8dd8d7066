//! Options of volumes that are folders of the engine's own: how much they may hold, and what they begin with.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{self, Mode, OFlags};

use super::copy_up::{Contents, copy_tree};
use crate::model::{EngineError, VolumeName, parse_size};

/// The options, none of which goes together with those of [`super::local`].
pub(super) const OPTIONS: [&str; 3] = ["size", CLONE, SNAPSHOT];
const CLONE: &str = "clone";
const SNAPSHOT: &str = "snapshot";

/// What a plain volume's options say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Plain {
    /// `size`: the most that it may hold.
    pub(super) size_bytes: Option<u64>,
    /// `clone` and `snapshot`: the volume whose files it begins with.
    pub(super) source: Option<VolumeName>,
}

impl Plain {
    /// Reads the options of a volume; those of others are not looked at.
    pub(super) fn parse(options: &BTreeMap<String, String>) -> Result<Self, EngineError> {
        let size = options.get("size").map(|text| parse_size(text)).transpose()?;
        let source = match (options.get(CLONE), options.get(SNAPSHOT)) {
            (Some(_), Some(_)) => {
                return Err(EngineError::invalid("a volume is either a clone or a snapshot of another one, not both"));
            }
            (name, None) | (None, name) => name.map(|name| VolumeName::parse(name)).transpose()?,
        };
        Ok(Self { size_bytes: size.filter(|bytes| *bytes > 0), source })
    }
}

/// Whether nobody may write to a volume: what is a snapshot stays what it was.
pub(crate) fn is_snapshot(options: Option<&BTreeMap<String, String>>) -> bool {
    options.is_some_and(|options| options.contains_key(SNAPSHOT))
}

/// Makes `to`, an empty folder, a copy of the tree at `from` whose files share their blocks. Each file is as it was at one moment;
/// not all at the same. Blocking.
pub(super) fn share(from: &Path, to: &Path, source: &VolumeName) -> Result<(), EngineError> {
    let open =
        |path| fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    let copied =
        open(from).and_then(|from| Ok((from, open(to)?))).map_err(std::io::Error::from).and_then(|(from, to)| {
            copy_tree(from.as_fd(), to.as_fd(), Contents::Shared)?;
            // The volume is known from now on, and so must its files be.
            Ok(fs::syncfs(&to)?)
        });
    copied.map_err(|error| match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOTTY | rustix::io::Errno::XDEV | rustix::io::Errno::INVAL) => {
            EngineError::invalid(format!(
                "cannot clone volume {source}: the file system of {} cannot share blocks between files (reflink), as xfs and btrfs can",
                from.display()
            ))
        }
        _ => EngineError::system(&format!("cannot clone volume {source}"), error),
    })
}

#[cfg(test)]
mod tests {
    use super::Plain;

    #[test]
    fn options_are_read() {
        let parse = |options: &[(&str, &str)]| {
            let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            Plain::parse(&options).map_err(|error| error.message().to_owned())
        };
        assert_eq!(parse(&[("size", "1m")]).unwrap().size_bytes, Some(1 << 20));
        assert_eq!(parse(&[("size", "0")]).unwrap(), Plain::default());
        assert_eq!(parse(&[("clone", "other")]).unwrap().source.unwrap().as_str(), "other");
        assert_eq!(parse(&[("snapshot", "other")]).unwrap().source.unwrap().as_str(), "other");
        assert!(parse(&[("clone", "a"), ("snapshot", "bb")]).unwrap_err().contains("not both"));
        assert!(parse(&[("clone", "../x")]).is_err() && parse(&[("size", "lots")]).is_err());
    }
}
