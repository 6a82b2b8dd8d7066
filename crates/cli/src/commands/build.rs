//! Building an image: the folder is read here, filtered by its `.dockerignore`, and streamed to the engine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use api_client::{BuildOptions, Upload};
use archive::tar::{Device, EntryKind, Header, Metadata, Timestamp, Writer};
use clap::ArgMatches;
use docker_api::progress::Message;
use dockerfile::ignore::Ignore;

use super::{After, Entry, exactly, print};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::flags::Takes::{Many, One, Switch, SwitchOn};
use crate::flags::{Flag, flag, many, on, one, short};
use crate::output::units;

/// The name under which a Dockerfile travels that is not in its context.
const OUTSIDE_NAME: &str = ".dockerfile.outside";

const FLAGS: &[Flag] = &[
    short('t', "tag", Many, "A name for the image: NAME[:TAG]"),
    short('f', "file", One, "The Dockerfile (default: PATH/Dockerfile; - for standard input)"),
    flag("build-arg", Many, "Set an argument: NAME=VALUE, or NAME from the environment"),
    flag("label", Many, "Set a label: NAME=VALUE"),
    flag("target", One, "Build this stage"),
    flag("no-cache", Switch, "Use nothing that earlier builds left"),
    flag("pull", Switch, "Fetch base images anew"),
    short('q', "quiet", Switch, "Print only the image's ID"),
    flag("progress", One, "plain, or json for what the engine says as it is"),
    flag("platform", One, "What the image is for"),
    flag("network", One, "The network of RUN: default, none, host"),
    flag("add-host", Many, "A further name for RUN: NAME:ADDRESS"),
    flag("shm-size", One, "Size of /dev/shm for RUN"),
    short('m', "memory", One, "Memory limit for RUN"),
    flag("iidfile", One, "Write the image's ID to this file"),
    flag("rm", SwitchOn, "Containers of RUN never stay; taken for Docker's sake"),
];

pub(super) const BUILD: Entry = Entry {
    name: "build",
    about: "Build an image from a Dockerfile",
    operands: "PATH|-",
    after: After::Options,
    flags: &[FLAGS],
    run: build,
};

/// How a build is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Plain,
    Json,
}

fn build(context: &Context, matches: &ArgMatches) -> Outcome {
    let [path] = exactly(matches)?;
    let progress = match one(matches, "progress").unwrap_or("plain") {
        "plain" | "auto" => Progress::Plain,
        "json" | "rawjson" => Progress::Json,
        other => return Err(Failure::usage(format!("invalid progress {other:?}: plain or json"))),
    };
    let mut options = options(matches)?;
    let upload = upload(&path, one(matches, "file"), &mut options)?;
    let messages = context.client()?.image_build(upload, &options)?;
    let id = show(messages, progress, options.quiet)?;
    if let (Some(file), Some(id)) = (one(matches, "iidfile"), id) {
        std::fs::write(file, id).map_err(|error| Failure::usage(format!("cannot write {file}: {error}")))?;
    }
    Ok(0)
}

fn options(matches: &ArgMatches) -> Result<BuildOptions, Failure> {
    let text = |name: &str| one(matches, name).unwrap_or_default().to_owned();
    let size = |name: &str| match one(matches, name) {
        None => Ok(0),
        Some(text) => units::parse_size(text).map(|bytes| bytes.max(0) as u64).map_err(Failure::usage),
    };
    let from_environment = |name: &str| std::env::var(name).ok();
    Ok(BuildOptions {
        tags: many(matches, "tag"),
        target: text("target"),
        arguments: pairs(&many(matches, "build-arg"), from_environment),
        labels: pairs(&many(matches, "label"), |_| Some(String::new())),
        no_cache: on(matches, "no-cache"),
        pull: on(matches, "pull"),
        quiet: on(matches, "quiet"),
        platform: text("platform"),
        network: text("network"),
        extra_hosts: many(matches, "add-host"),
        shm_size: size("shm-size")?,
        memory: size("memory")?,
        ..BuildOptions::default()
    })
}

/// `NAME=VALUE`, or a name whose value somebody else knows.
fn pairs(words: &[String], missing: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let pair = |word: &String| match word.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => Some((word.clone(), missing(word)?)),
    };
    words.iter().filter_map(pair).collect()
}

/// The context: a tar from standard input, or a folder.
fn upload(path: &str, file: Option<&str>, options: &mut BuildOptions) -> Result<Upload, Failure> {
    if path == "-" {
        if io::stdin().is_terminal() {
            return Err(Failure::usage("requested build from stdin, but stdin is a terminal"));
        }
        options.dockerfile = file.unwrap_or("Dockerfile").to_owned();
        return Ok(Upload { source: Box::new(io::stdin()), length: None });
    }
    let folder = PathBuf::from(path);
    if !folder.is_dir() {
        return Err(Failure::usage(format!("unable to prepare context: path {path:?} not found")));
    }
    let outside = place_dockerfile(&folder, file, options)?;
    let ignore = read_ignore(&folder, &options.dockerfile, file)?;
    let dockerfile = options.dockerfile.clone();
    let tar = archive::pipe::produce("build-context", move |output| {
        let mut sender =
            Sender { writer: Writer::new(output), ignore, keep: vec![dockerfile, ".dockerignore".to_owned()] };
        if let Some(text) = outside {
            sender.writer.file(OUTSIDE_NAME.as_bytes(), &Metadata { mode: 0o600, ..Metadata::default() }, &text)?;
        }
        sender.folder(&folder, "")?;
        sender.writer.finish().map(drop)
    })?;
    Ok(Upload { source: Box::new(tar), length: None })
}

/// Says where in the context the Dockerfile is; one that is elsewhere is given back, to be sent along.
fn place_dockerfile(folder: &Path, file: Option<&str>, options: &mut BuildOptions) -> Result<Option<Vec<u8>>, Failure> {
    let wrong = |error: io::Error| Failure::usage(format!("unable to prepare context: {error}"));
    let Some(file) = file else {
        options.dockerfile = "Dockerfile".to_owned();
        return Ok(None);
    };
    if file != "-" {
        let whole = std::fs::canonicalize(file).map_err(|error| {
            Failure::usage(format!("unable to prepare context: unable to evaluate Dockerfile {file}: {error}"))
        })?;
        if let Ok(inside) = whole.strip_prefix(std::fs::canonicalize(folder).map_err(wrong)?) {
            options.dockerfile = inside.to_string_lossy().into_owned();
            return Ok(None);
        }
    }
    options.dockerfile = OUTSIDE_NAME.to_owned();
    let mut text = Vec::new();
    match file {
        "-" => io::stdin().read_to_end(&mut text).map(drop),
        file => File::open(file).and_then(|mut file| file.read_to_end(&mut text)).map(drop),
    }
    .map_err(wrong)?;
    Ok(Some(text))
}

/// `X.dockerignore` beside the Dockerfile wins over the context's.
fn read_ignore(folder: &Path, dockerfile: &str, file: Option<&str>) -> Result<Ignore, Failure> {
    let own = match file {
        Some(file) if file != "-" => PathBuf::from(format!("{file}.dockerignore")),
        _ => folder.join(format!("{dockerfile}.dockerignore")),
    };
    let text = match std::fs::read_to_string(own).or_else(|_| std::fs::read_to_string(folder.join(".dockerignore"))) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Failure::usage(format!("error reading .dockerignore: {error}"))),
    };
    Ignore::parse(&text).map_err(|error| Failure::usage(format!("error checking context: {error}")))
}

/// Writes a folder into a tar, names sorted, owners forgotten.
struct Sender<'a> {
    writer: Writer<&'a mut dyn Write>,
    ignore: Ignore,
    /// Files that the engine needs, ignored or not.
    keep: Vec<String>,
}

impl Sender<'_> {
    fn folder(&mut self, folder: &Path, above: &str) -> io::Result<()> {
        let mut names =
            std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        for name in names {
            let place = folder.join(&name);
            let name = String::from_utf8_lossy(name.as_bytes()).into_owned();
            let path = if above.is_empty() { name } else { format!("{above}/{name}") };
            self.entry(&place, &path)?;
        }
        Ok(())
    }

    fn entry(&mut self, place: &Path, path: &str) -> io::Result<()> {
        let found = match std::fs::symlink_metadata(place) {
            // Gone since its folder was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        let ignored = self.ignore.matches(path) && !self.keep.iter().any(|kept| kept == path);
        if found.is_dir() {
            let below = format!("{path}/");
            let skipped = self.ignore.ignores_all_below(path) && !self.keep.iter().any(|kept| kept.starts_with(&below));
            if ignored && skipped {
                return Ok(());
            }
            if !ignored {
                self.start(path, &found, &EntryKind::Directory)?;
            }
            return self.folder(place, path);
        }
        if ignored { Ok(()) } else { self.file(place, path, &found) }
    }

    fn file(&mut self, place: &Path, path: &str, found: &std::fs::Metadata) -> io::Result<()> {
        let kind = found.file_type();
        if kind.is_symlink() {
            let target = std::fs::read_link(place)?.as_os_str().as_bytes().to_vec();
            return self.start(path, found, &EntryKind::Symlink { target });
        }
        if kind.is_fifo() {
            return self.start(path, found, &EntryKind::Fifo);
        }
        if kind.is_char_device() || kind.is_block_device() {
            let device = Device { major: rustix::fs::major(found.rdev()), minor: rustix::fs::minor(found.rdev()) };
            let kind =
                if kind.is_char_device() { EntryKind::CharDevice(device) } else { EntryKind::BlockDevice(device) };
            return self.start(path, found, &kind);
        }
        if !kind.is_file() {
            // A socket: no tar can have it.
            return Ok(());
        }
        let file = File::open(place)?;
        let size = found.len();
        self.start(path, found, &EntryKind::File { size, sparse: None })?;
        let copied = io::copy(&mut file.take(size), &mut self.writer)?;
        if copied < size {
            return Err(io::Error::other(format!("{} became shorter while it was read", place.display())));
        }
        Ok(())
    }

    fn start(&mut self, path: &str, found: &std::fs::Metadata, kind: &EntryKind) -> io::Result<()> {
        let metadata = Metadata {
            mode: found.mode() & 0o7777,
            mtime: Timestamp { seconds: found.mtime(), nanoseconds: found.mtime_nsec() as u32 },
            ..Metadata::default()
        };
        self.writer.start(&Header { path: path.as_bytes(), metadata: &metadata, kind })
    }
}

/// Shows the build to its end; gives the image's ID.
fn show(messages: api_client::Lines<Message>, progress: Progress, quiet: bool) -> Result<Option<String>, Failure> {
    let mut id = None;
    for message in messages {
        let message = message?;
        if progress == Progress::Json {
            print(&format!("{}\n", serde_json::to_string(&message)?))?;
        }
        if let Some(error) = message.error_detail.as_ref().filter(|error| !error.message.is_empty()) {
            let code = u8::try_from(error.code).ok().filter(|code| *code != 0).unwrap_or(1);
            return Err(Failure { message: error.message.clone(), code });
        }
        if let Some(built) = message.aux.as_ref().and_then(|aux| aux["ID"].as_str()) {
            id = Some(built.to_owned());
        }
        if quiet && message.stream.starts_with("sha256:") {
            id = Some(message.stream.trim().to_owned());
        }
        if progress == Progress::Plain && !message.stream.is_empty() {
            print(&message.stream)?;
        }
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_sent_without_what_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["Dockerfile", "keep/a", "drop/b", "drop/keep/c", "x.log", ".dockerignore"] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "text").unwrap();
        }
        std::fs::write(folder.path().join(".dockerignore"), "drop\n!drop/keep\n*.log\nDockerfile\n").unwrap();
        let mut options = BuildOptions::default();
        let upload = upload(folder.path().to_str().unwrap(), None, &mut options).unwrap();
        let mut reader = archive::tar::Reader::new(upload.source);
        let mut names = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            names.push(String::from_utf8(entry.path).unwrap());
        }
        assert_eq!(names, [".dockerignore", "Dockerfile", "drop/keep", "drop/keep/c", "keep", "keep/a"]);
        assert_eq!(options.dockerfile, "Dockerfile");
    }

    #[test]
    fn values_may_come_from_the_environment() {
        let words = ["A=1".to_owned(), "B".to_owned(), "C".to_owned()];
        let known = |name: &str| (name == "B").then(|| "2".to_owned());
        let expected = [("A", "1"), ("B", "2")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(pairs(&words, known), BTreeMap::from(expected));
    }
}
