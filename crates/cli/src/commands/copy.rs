//! `cp`: files between a container and here.

use std::io::{self, IsTerminal, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api_client::{Body, Client, Upload};
use archive::extract::{Options, Overwrite, Owner, Rename, extract};
use archive::ids::Ids;
use archive::place::base_name;
use archive::unpack::Privileges;
use clap::ArgMatches;
use rustix::fs::{Mode, OFlags};

use super::{After, Entry, complain, exactly};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::flags::Takes::Switch;
use crate::flags::{Flag, on, short};
use crate::output::units;

const CP_FLAGS: &[Flag] = &[
    short('a', "archive", Switch, "Keep owners: of files from a container, and to those of the container's user"),
    short('L', "follow-link", Switch, "Follow a symbolic link as the source"),
    short('q', "quiet", Switch, "Do not say what was copied"),
];

pub(super) const CP: Entry = Entry {
    name: "cp",
    about: "Copy files between a container and here",
    operands: "CONTAINER:SOURCE DESTINATION|-, or SOURCE|- CONTAINER:DESTINATION",
    after: After::Options,
    flags: &[CP_FLAGS],
    run: cp,
};

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Side<'a> {
    Here(&'a str),
    Inside { container: &'a str, path: &'a str },
}

/// A word with a colon names a container, unless it can only be a path.
fn side(word: &str) -> Side<'_> {
    match word.split_once(':') {
        Some((container, path)) if !word.starts_with(['/', '.']) && !container.is_empty() => {
            Side::Inside { container, path }
        }
        _ => Side::Here(word),
    }
}

fn cp(context: &Context, matches: &ArgMatches) -> Outcome {
    let [from, to] = exactly::<2>(matches)?;
    let copied = match (side(&from), side(&to)) {
        (Side::Inside { container, path }, Side::Here(to)) => {
            from_container(context.client()?, matches, container, path, to)?
        }
        (Side::Here(from), Side::Inside { container, path }) => {
            into_container(context.client()?, matches, from, container, path)?
        }
        (Side::Here(_), Side::Here(_)) => {
            return Err(Failure::usage("must specify at least one container source or destination"));
        }
        (Side::Inside { .. }, Side::Inside { .. }) => {
            return Err(Failure::usage("copying between containers is not supported"));
        }
    };
    if !on(matches, "quiet") && to != "-" {
        complain(&format!("Successfully copied {} to {to}", units::size(copied)));
    }
    Ok(0)
}

/// Copies out and returns how many bytes came.
fn from_container(
    client: &Client,
    matches: &ArgMatches,
    container: &str,
    path: &str,
    to: &str,
) -> Result<u64, Failure> {
    let mut source = path.to_owned();
    if on(matches, "follow-link") {
        let stat = client.container_path(container, path)?;
        if stat.is_link() {
            source = stat.link_target;
        }
    }
    if to == "-" && io::stdout().is_terminal() {
        return Err(Failure::usage("refusing to write an archive to a terminal"));
    }
    let (stat, tar) = client.container_copy_from(container, &source)?;
    let mut tar = Counted { inner: tar, count: Arc::default() };
    if to == "-" {
        io::copy(&mut tar, &mut io::stdout().lock())?;
        return Ok(tar.count());
    }
    let kind = if stat.is_directory() { SourceKind::Directory } else { SourceKind::Other };
    // A followed link keeps the name by which it was asked for.
    let wanted = base_name(path.as_bytes());
    let placed = place(kind, wanted, to, &Existing::here(Path::new(to)))?;
    let in_tar = match base_name(source.as_bytes()) {
        b"." | b"/" | b".." => &b""[..],
        name => name,
    };
    let rename = (in_tar != placed.name.as_slice()).then_some(Rename { from: in_tar, to: &placed.name });
    let rename = if placed.contents { None } else { rename };
    let keep_owner = on(matches, "archive") && rustix::process::geteuid().is_root();
    let owner = match keep_owner {
        true => Owner::AsInTar,
        false => Owner::Fixed { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() },
    };
    let privileges = if rustix::process::geteuid().is_root() { Privileges::Full } else { Privileges::UserNamespace };
    let directory = std::path::absolute(&placed.directory)?;
    let options = Options {
        directory: directory.as_os_str().as_bytes(),
        rename,
        overwrite: Overwrite::SameKind,
        owner,
        ids: &Ids::default(),
        privileges,
    };
    extract(&mut tar, host_root()?.as_fd(), &options).map_err(|error| Failure::from(io::Error::other(error)))?;
    io::copy(&mut tar, &mut io::sink())?;
    Ok(tar.count())
}

/// Copies in and returns how many bytes went.
fn into_container(
    client: &Client,
    matches: &ArgMatches,
    from: &str,
    container: &str,
    path: &str,
) -> Result<u64, Failure> {
    let mut destination = path.to_owned();
    let mut found = client.container_path(container, path);
    if let Ok(stat) = &found
        && stat.is_link()
    {
        destination.clone_from(&stat.link_target);
        found = client.container_path(container, &destination);
    }
    let existing = match found {
        Ok(stat) if stat.is_directory() => Existing::Directory,
        Ok(_) => Existing::Other,
        Err(api_client::Error::Refused { status: 404, .. }) => Existing::Nothing,
        Err(error) => return Err(error.into()),
    };
    let copy_owner = on(matches, "archive");
    if from == "-" {
        if existing != Existing::Directory {
            return Err(Failure::usage(format!("destination \"{container}:{path}\" must be a directory")));
        }
        let (source, count) = counted(Box::new(io::stdin()));
        client.container_copy_into(container, &destination, copy_owner, Upload { source, length: None })?;
        return Ok(count.load(Ordering::Relaxed));
    }
    let (source, kind) = local_source(from, on(matches, "follow-link"))?;
    let placed = place(kind, base_name(from.as_bytes()), &destination, &existing)?;
    let tar = archive::pipe::produce("cp", move |output| {
        archive::export::subtree(
            host_root()?.as_fd(),
            source.as_os_str().as_bytes(),
            &placed.name,
            &Ids::default(),
            output,
        )
    })?;
    let (source, count) = counted(Box::new(tar));
    client.container_copy_into(container, &placed.directory, copy_owner, Upload { source, length: None })?;
    Ok(count.load(Ordering::Relaxed))
}

/// The absolute path of what is to be copied, and what it is.
fn local_source(from: &str, follow: bool) -> Result<(PathBuf, SourceKind), Failure> {
    let not_there = |error| Failure::from(io::Error::other(format!("{from}: {error}")));
    let mut path = std::path::absolute(from)?;
    if follow {
        path = std::fs::canonicalize(&path).map_err(not_there)?;
    }
    // A slash at the end follows a link, here as on the server.
    let text = if from.ends_with(['/', '.']) { format!("{}/", path.display()) } else { path.display().to_string() };
    let metadata = std::fs::symlink_metadata(&text).map_err(not_there)?;
    let kind = if metadata.is_dir() { SourceKind::Directory } else { SourceKind::Other };
    Ok((text.into(), kind))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SourceKind {
    Directory,
    Other,
}

/// What has the destination's name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existing {
    Nothing,
    Directory,
    Other,
}

impl Existing {
    fn here(path: &Path) -> Self {
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Self::Directory,
            Ok(_) => Self::Other,
            Err(_) => Self::Nothing,
        }
    }
}

/// Where the source goes.
#[derive(Debug, PartialEq, Eq)]
struct Placed {
    /// The directory that is extracted into.
    directory: String,
    /// What the source is called there; `.` where its contents go into the directory itself.
    name: Vec<u8>,
    /// Whether the source is called by `.` or a root: its contents are copied, not it.
    contents: bool,
}

/// Docker's rules: into a directory that is there, else under the destination's name.
fn place(source: SourceKind, name: &[u8], to: &str, existing: &Existing) -> Result<Placed, Failure> {
    let asserts_directory = to.ends_with('/') || base_name(to.as_bytes()) == b".";
    match (existing, source) {
        (Existing::Directory, _) => {
            let contents = matches!(name, b"." | b"/" | b"..");
            let name = if contents { b".".to_vec() } else { name.to_vec() };
            Ok(Placed { directory: to.to_owned(), name, contents })
        }
        (Existing::Other, SourceKind::Directory) => Err(Failure::usage("cannot copy directory")),
        (Existing::Nothing, SourceKind::Other) if asserts_directory => Err(Failure::usage("no such directory")),
        _ => {
            let trimmed = to.trim_end_matches('/');
            let (directory, name) = trimmed.rsplit_once('/').unwrap_or((".", trimmed));
            let directory = if directory.is_empty() { "/" } else { directory };
            Ok(Placed { directory: directory.to_owned(), name: name.as_bytes().to_vec(), contents: false })
        }
    }
}

fn host_root() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// A reader that counts what goes through it.
struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl Counted<Body> {
    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.count.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

fn counted(inner: Box<dyn Read + Send>) -> (Box<dyn Read + Send>, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    (Box::new(Counted { inner, count: Arc::clone(&count) }), count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_makes_a_container() {
        assert_eq!(side("one:/etc"), Side::Inside { container: "one", path: "/etc" });
        assert_eq!(side("one:a:b"), Side::Inside { container: "one", path: "a:b" });
        for here in ["/a:b", "./a:b", "../a:b", "plain", "-", ":x"] {
            assert_eq!(side(here), Side::Here(here));
        }
    }

    #[test]
    fn the_destination_decides_the_name() {
        use Existing::{Directory, Nothing, Other};
        let placed = |kind, name: &str, to: &str, existing: Existing| {
            place(kind, name.as_bytes(), to, &existing)
                .map(|placed| (placed.directory, String::from_utf8(placed.name).unwrap(), placed.contents))
                .map_err(|failure| failure.message)
        };
        let ok = |directory: &str, name: &str, contents| Ok((directory.to_owned(), name.to_owned(), contents));
        assert_eq!(placed(SourceKind::Other, "f", "/d", Directory), ok("/d", "f", false));
        assert_eq!(placed(SourceKind::Directory, ".", "/d", Directory), ok("/d", ".", true));
        assert_eq!(placed(SourceKind::Other, "f", "/d/g", Nothing), ok("/d", "g", false));
        assert_eq!(placed(SourceKind::Other, "f", "g", Other), ok(".", "g", false));
        assert_eq!(placed(SourceKind::Directory, "d", "/new/", Nothing), ok("/", "new", false));
        assert!(placed(SourceKind::Directory, "d", "/file", Other).unwrap_err().contains("cannot copy directory"));
        assert!(placed(SourceKind::Other, "f", "/none/", Nothing).unwrap_err().contains("no such directory"));
    }
}
