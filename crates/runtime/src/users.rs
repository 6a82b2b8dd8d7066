//! Users and groups of a container: Docker's user forms, and the container's own `/etc/passwd` and `/etc/group`.
//!
//! The files belong to an image and are not trusted: they are found inside the root, must be regular files, and are read in
//! bounded pieces. A number is never taken for a name, nor a text that merely looks like a number for one.

use std::io::{BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::Path;

use linux::Errno;
use rustix::fs::{FileType, OFlags, fstat};

use crate::error::{Error, Result, Stage, errno_text};
use crate::root::Root;

/// The largest id that Docker allows.
const MAX_ID: u32 = i32::MAX as u32;
/// How much of `/etc/passwd` or `/etc/group` is read; a longer file is an error.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// The longest line of them; a longer one is an error.
const MAX_LINE_BYTES: u64 = 1024 * 1024;
/// The kernel's limit of supplementary groups.
const MAX_GROUPS: usize = 65_536;

/// A user or a group as the user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NameOrId {
    Id(u32),
    Name(String),
}

/// Docker's `--user`: each half may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct UserText {
    pub(crate) user: Option<NameOrId>,
    pub(crate) group: Option<NameOrId>,
}

impl UserText {
    /// Parses `name`, `uid`, `name:group`, `uid:gid`, `:group` and the like.
    pub(crate) fn parse(text: &str) -> Result<UserText> {
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        Ok(UserText { user: parse_half(user, "user", "passwd")?, group: parse_half(group, "group", "group")? })
    }
}

fn parse_half(text: &str, what: &str, file: &str) -> Result<Option<NameOrId>> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse::<u32>() {
            Ok(id) if id <= MAX_ID => Ok(Some(NameOrId::Id(id))),
            _ => Err(Error::new(Stage::User, format!("uids and gids must be in range 0-{MAX_ID}"))),
        };
    }
    // `-1`, `+0` and `0x0` are no names, whatever an image's passwd says.
    let starts_well = text.starts_with(|letter: char| !letter.is_ascii_digit() && !"+-".contains(letter));
    if !starts_well || text.chars().any(|letter| letter.is_whitespace() || letter.is_control() || letter == ':') {
        return Err(not_found(what, text, file));
    }
    Ok(Some(NameOrId::Name(text.to_owned())))
}

fn not_found(what: &str, text: &str, file: &str) -> Error {
    Error::new(Stage::User, format!("unable to find {what} {text}: no matching entries in {file} file"))
}

/// Who a process becomes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Credentials {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// Looks up Docker's form of a user, and further groups, in the container's files.
pub(crate) fn look_up(root: Root<'_>, text: &str, further_groups: &[String]) -> Result<Credentials> {
    let wanted = UserText::parse(text)?;
    let entry = find_user(root, &wanted)?;
    let (uid, name) = match (&entry, &wanted.user) {
        (Some(entry), _) => (entry.uid, Some(entry.name.as_str())),
        (None, Some(NameOrId::Id(uid))) => (*uid, None),
        (None, Some(NameOrId::Name(name))) => return Err(not_found("user", name, "passwd")),
        (None, None) => (0, None),
    };
    let further = further_groups.iter().map(|text| parse_group(text)).collect::<Result<Vec<_>>>()?;
    let mut found = GroupSearch::new(&wanted, name, &further);
    let needs_file = found.needs_file();
    if needs_file && let Some(file) = open_file(root, "/etc/group")? {
        each_line(file, "/etc/group", |line| found.take(line))?;
    }
    let gid = match (&wanted.group, found.gid) {
        (Some(NameOrId::Id(gid)), _) => *gid,
        (_, Some(gid)) => gid,
        (Some(NameOrId::Name(name)), None) => return Err(not_found("group", name, "group")),
        (None, None) => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    let mut groups = found.groups;
    // As Docker does since CVE-2022-36109: a process whose supplementary groups lack its own one could pass by a file that
    // denies that group, after changing its gid.
    groups.push(gid);
    for (group, id) in further.iter().zip(found.further) {
        match (group, id) {
            (NameOrId::Id(id), _) => groups.push(*id),
            (_, Some(id)) => groups.push(id),
            (NameOrId::Name(name), None) => return Err(not_found("group", name, "group")),
        }
    }
    groups.sort_unstable();
    groups.dedup();
    Ok(Credentials { uid, gid, groups })
}

fn parse_group(text: &str) -> Result<NameOrId> {
    parse_half(text, "group", "group")?.ok_or_else(|| not_found("group", text, "group"))
}

/// The home directory of a user id, `/` where the container's files do not say.
pub(crate) fn home_of(root: Root<'_>, uid: u32) -> String {
    let mut home = None;
    if let Ok(Some(file)) = open_file(root, "/etc/passwd") {
        let _unreadable_means_unknown = each_line(file, "/etc/passwd", |line| match PasswdEntry::parse(line) {
            Some(entry) if entry.uid == uid => {
                home = Some(entry.home);
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        });
    }
    home.filter(|home| !home.is_empty() && !home.contains('\0')).unwrap_or_else(|| "/".to_owned())
}

struct PasswdEntry {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

impl PasswdEntry {
    /// A line of passwd; `None` for one that is malformed or has ids out of range.
    fn parse(line: &str) -> Option<PasswdEntry> {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let _password = fields.next()?;
        let uid = parse_id(fields.next()?)?;
        let gid = parse_id(fields.next()?)?;
        let home = fields.nth(1).unwrap_or_default().to_owned();
        Some(PasswdEntry { name, uid, gid, home })
    }
}

fn parse_id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id <= MAX_ID)
}

/// The first entry that the user's half means; user 0 where that half is missing.
fn find_user(root: Root<'_>, wanted: &UserText) -> Result<Option<PasswdEntry>> {
    let Some(file) = open_file(root, "/etc/passwd")? else { return Ok(None) };
    let root_user = NameOrId::Id(0);
    let user = wanted.user.as_ref().unwrap_or(&root_user);
    let mut found = None;
    each_line(file, "/etc/passwd", |line| match (PasswdEntry::parse(line), user) {
        (Some(entry), NameOrId::Id(uid)) if entry.uid == *uid => {
            found = Some(entry);
            ControlFlow::Break(())
        }
        (Some(entry), NameOrId::Name(name)) if entry.name == *name => {
            found = Some(entry);
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    })?;
    Ok(found)
}

/// What is looked for in `/etc/group`, in one pass over it.
struct GroupSearch<'a> {
    wanted: Option<&'a str>,
    /// The user whose groups are collected: as in Docker only when the group is not given.
    member: Option<&'a str>,
    further_names: Vec<Option<&'a str>>,
    gid: Option<u32>,
    groups: Vec<u32>,
    further: Vec<Option<u32>>,
}

impl<'a> GroupSearch<'a> {
    fn new(wanted: &'a UserText, user: Option<&'a str>, further: &'a [NameOrId]) -> GroupSearch<'a> {
        let name_of = |group: &'a NameOrId| match group {
            NameOrId::Name(name) => Some(name.as_str()),
            NameOrId::Id(_) => None,
        };
        GroupSearch {
            wanted: wanted.group.as_ref().and_then(name_of),
            member: if wanted.group.is_none() { user } else { None },
            further_names: further.iter().map(name_of).collect(),
            gid: None,
            groups: Vec::new(),
            further: vec![None; further.len()],
        }
    }

    fn needs_file(&self) -> bool {
        self.wanted.is_some() || self.member.is_some() || self.further_names.iter().any(Option::is_some)
    }

    fn take(&mut self, line: &str) -> ControlFlow<()> {
        let mut fields = line.split(':');
        let (Some(name), Some(_), Some(Some(gid))) = (fields.next(), fields.next(), fields.next().map(parse_id)) else {
            return ControlFlow::Continue(());
        };
        if self.gid.is_none() && self.wanted == Some(name) {
            self.gid = Some(gid);
        }
        for (further_name, id) in self.further_names.iter().zip(&mut self.further) {
            if id.is_none() && *further_name == Some(name) {
                *id = Some(gid);
            }
        }
        if let Some(member) = self.member
            && self.groups.len() < MAX_GROUPS
            && fields.next().unwrap_or_default().split(',').any(|listed| listed == member)
        {
            self.groups.push(gid);
        }
        ControlFlow::Continue(())
    }
}

/// Opens a regular file of the container to read; `None` when there is none.
fn open_file(root: Root<'_>, path: &str) -> Result<Option<OwnedFd>> {
    let failed =
        |errno: Errno| Error::new(Stage::User, format!("cannot open {path} of the container: {}", errno_text(errno)));
    let place = match root.locate(Path::new(path)) {
        Ok(place) => place,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(errno) => return Err(failed(errno)),
    };
    let before = fstat(&place).map_err(failed)?;
    if FileType::from_raw_mode(before.st_mode) != FileType::RegularFile {
        return Err(Error::new(Stage::User, format!("{path} of the container is not a regular file")));
    }
    // Not blocking, for what might have taken the file's place since; then it is not this file.
    let file = root.open(Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY).map_err(failed)?;
    let after = fstat(&file).map_err(failed)?;
    if (before.st_dev, before.st_ino) != (after.st_dev, after.st_ino) {
        return Err(Error::new(Stage::User, format!("{path} of the container changed while it was opened")));
    }
    Ok(Some(file))
}

/// Calls `take` for each line until it breaks; comments and empty lines are left out.
fn each_line(file: OwnedFd, path: &str, mut take: impl FnMut(&str) -> ControlFlow<()>) -> Result<()> {
    let mut reader = BufReader::new(std::fs::File::from(file).take(MAX_FILE_BYTES));
    let (mut line, mut total) = (Vec::new(), 0);
    loop {
        line.clear();
        let count = (&mut reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
        let count =
            count.map_err(|error| Error::io(Stage::User, format!("cannot read {path} of the container"), &error))?;
        total += count as u64;
        if total >= MAX_FILE_BYTES || count as u64 >= MAX_LINE_BYTES {
            return Err(Error::new(Stage::User, format!("{path} of the container is too large")));
        }
        if count == 0 {
            return Ok(());
        }
        let Ok(text) = std::str::from_utf8(line.trim_ascii()) else { continue };
        if !text.is_empty() && !text.starts_with('#') && take(text).is_break() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::Mode;
    use std::os::fd::AsFd;

    const PASSWD: &str = "# comment\nroot:x:0:0:root:/root:/bin/sh\nbin:x:1:1::/bin:\nalice:x:1000:1001::/home/alice:\n\
                          4294967296:x:0:0::/:\n0x0:x:0:0::/:\n-1:x:0:0::/:\nbroken\nbig:x:4294967296:0::/:\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:bin,alice\nwheel:x:10:root\nusers:x:1001:\nstaff:x:50:alice\n";

    fn with_files<T>(passwd: Option<&str>, group: Option<&str>, test: impl FnOnce(Root<'_>) -> T) -> T {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("etc")).unwrap();
        for (name, text) in [("passwd", passwd), ("group", group)] {
            if let Some(text) = text {
                std::fs::write(folder.path().join("etc").join(name), text).unwrap();
            }
        }
        let fd = rustix::fs::open(folder.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        test(Root::new(fd.as_fd()))
    }

    #[test]
    fn forms_mean_what_they_mean_to_docker() {
        let table: [(&str, u32, u32, &[u32]); 12] = [
            ("", 0, 0, &[0, 10]),
            ("root", 0, 0, &[0, 10]),
            ("0", 0, 0, &[0, 10]),
            ("1", 1, 1, &[1, 4]),
            ("1:", 1, 1, &[1, 4]),
            (":1", 0, 1, &[1]),
            ("1:7", 1, 7, &[7]),
            ("alice", 1000, 1001, &[4, 50, 1001]),
            ("alice:wheel", 1000, 10, &[10]),
            ("alice:7", 1000, 7, &[7]),
            ("2000", 2000, 0, &[0]),
            ("2147483647:2147483647", 2_147_483_647, 2_147_483_647, &[2_147_483_647]),
        ];
        with_files(Some(PASSWD), Some(GROUP), |root| {
            for (text, uid, gid, groups) in table {
                let expected = Credentials { uid, gid, groups: groups.to_vec() };
                assert_eq!(look_up(root, text, &[]).unwrap(), expected, "{text:?}");
            }
        });
    }

    #[test]
    fn what_only_looks_like_an_id_is_refused() {
        let forms =
            ["-1", "4294967295", "4294967296", "2147483648", "0x0", "+0", " 0", "0 ", "1:-1", "1:4294967296", "nobody"];
        with_files(Some(PASSWD), Some(GROUP), |root| {
            for text in forms {
                let error = look_up(root, text, &[]).unwrap_err();
                assert!(
                    error.message.contains("unable to find") || error.message.contains("must be in range"),
                    "{text:?}"
                );
            }
        });
    }

    #[test]
    fn errors_are_dockers() {
        with_files(Some(PASSWD), Some(GROUP), |root| {
            let message = |text| look_up(root, text, &[]).unwrap_err().message;
            assert_eq!(message("x"), "unable to find user x: no matching entries in passwd file");
            assert_eq!(message("root:x"), "unable to find group x: no matching entries in group file");
            assert_eq!(message("2147483648"), "uids and gids must be in range 0-2147483647");
        });
    }

    #[test]
    fn further_groups_are_added() {
        with_files(Some(PASSWD), Some(GROUP), |root| {
            let groups = ["wheel".to_owned(), "77".to_owned()];
            assert_eq!(look_up(root, "bin", &groups).unwrap().groups, [1, 4, 10, 77]);
            assert!(look_up(root, "bin", &["none".to_owned()]).is_err());
        });
    }

    #[test]
    fn images_without_the_files_have_numbers_only() {
        with_files(None, None, |root| {
            assert_eq!(look_up(root, "5:6", &[]).unwrap(), Credentials { uid: 5, gid: 6, groups: vec![6] });
            assert_eq!(look_up(root, "", &[]).unwrap(), Credentials { groups: vec![0], ..Credentials::default() });
            assert!(look_up(root, "root", &[]).is_err());
            assert_eq!(home_of(root, 0), "/");
        });
    }

    #[test]
    fn homes_are_found_by_id() {
        with_files(Some(PASSWD), None, |root| {
            assert_eq!(home_of(root, 0), "/root");
            assert_eq!(home_of(root, 1000), "/home/alice");
            assert_eq!(home_of(root, 9), "/");
        });
    }

    #[test]
    fn hostile_files_neither_hang_nor_fill_memory() {
        let folder = tempfile::tempdir().unwrap();
        let passwd = folder.path().join("etc/passwd");
        std::fs::create_dir(folder.path().join("etc")).unwrap();
        let fd = rustix::fs::open(folder.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let root = Root::new(fd.as_fd());
        let look = || look_up(root, "alice", &[]);

        rustix::fs::mknodat(rustix::fs::CWD, &passwd, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
        assert!(look().unwrap_err().message.contains("not a regular file"));
        std::fs::remove_file(&passwd).unwrap();

        let sparse = std::fs::File::create(&passwd).unwrap();
        sparse.set_len(10 << 30).unwrap();
        assert!(look().unwrap_err().message.contains("too large"));
        std::fs::remove_file(&passwd).unwrap();

        std::os::unix::fs::symlink("/etc/hostname", &passwd).unwrap();
        assert!(look().unwrap_err().message.contains("no matching entries"), "the host's file was read");
    }
}
