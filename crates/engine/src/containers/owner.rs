//! Whose the files become that are copied into a container for its user, by the container's own lists of users and groups.

use std::io::Read;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, OFlags};

use crate::model::EngineError;

/// The longest list of users or groups that is read: the container may have made it endless.
const LIST_BYTES_MAX: u64 = 16 << 20;

/// The numbers of `user`, `user:group`, `uid` or `uid:gid`.
pub(super) fn owner_of(root: BorrowedFd<'_>, text: &str) -> Result<(u32, u32), EngineError> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let users = list(root, "/etc/passwd")?;
    let known = users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
        let by_number =
            user.parse::<u32>().is_ok_and(|uid| fields.get(2).and_then(|text| text.parse().ok()) == Some(uid));
        fields.first() == Some(&user) || by_number
    });
    let field = |index: usize| known.as_ref().and_then(|fields| fields.get(index)?.parse::<u32>().ok());
    let uid = match user.parse() {
        Ok(uid) => uid,
        Err(_) => field(2).ok_or_else(|| unknown("user", user))?,
    };
    let gid = match group.filter(|group| !group.is_empty()) {
        None => field(3).unwrap_or(0),
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => group_number(&list(root, "/etc/group")?, group).ok_or_else(|| unknown("group", group))?,
        },
    };
    Ok((uid, gid))
}

fn group_number(groups: &str, name: &str) -> Option<u32> {
    let line = groups.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

fn unknown(what: &str, name: &str) -> EngineError {
    EngineError::invalid(format!(
        "unable to find {what} {name}: no matching entries in the container's list of {what}s"
    ))
}

/// A list that is no regular file, or not there, is empty.
fn list(root: BorrowedFd<'_>, path: &str) -> Result<String, EngineError> {
    let failed = |error| EngineError::system(&format!("cannot read the container's {path}"), error);
    // What a name means may be asked of a pipe that nobody writes to.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match archive::place::locate(root, path.as_bytes(), flags) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        result => result.map_err(failed)?,
    };
    let stat = rustix::fs::fstat(&file).map_err(|error| failed(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    std::fs::File::from(file).take(LIST_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn users_are_looked_up_in_the_container() {
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("canary");
        std::fs::write(&outside, "host:x:7:7::/:\n").unwrap();
        let root_path = folder.path().join("root");
        std::fs::create_dir_all(root_path.join("etc")).unwrap();
        std::fs::write(root_path.join("etc/passwd"), "root:x:0:0::/:\nwww:x:33:34::/:\n").unwrap();
        std::fs::write(root_path.join("etc/group"), "web:x:50:\n").unwrap();
        let root = rustix::fs::open(&root_path, OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        let owner = |text: &str| owner_of(root.as_fd(), text).map_err(|error| error.message().to_owned());
        assert_eq!(owner("www"), Ok((33, 34)));
        assert_eq!(owner("33"), Ok((33, 34)));
        assert_eq!(owner("www:web"), Ok((33, 50)));
        assert_eq!(owner("1000:1001"), Ok((1000, 1001)));
        assert_eq!(owner("1000"), Ok((1000, 0)));
        assert!(owner("nobody").unwrap_err().starts_with("unable to find user nobody"));
        assert!(owner("www:none").unwrap_err().starts_with("unable to find group none"));
        std::fs::remove_file(root_path.join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("../../canary", root_path.join("etc/passwd")).unwrap();
        assert!(owner("host").is_err(), "the host's file was read");
    }
}
