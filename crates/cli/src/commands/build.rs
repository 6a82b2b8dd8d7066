//! Building an image. An engine on this machine reads the folder by itself; for another one it is read here, filtered by its
//! `.dockerignore`, and streamed.

mod output;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use api_client::{BuildOptions, Host, SharedFolder, Upload};
use archive::tar::{Device, EntryKind, Header, Metadata, Timestamp, Writer};
use clap::ArgMatches;
use docker_api::progress::{BuildStep, Message};
use dockerfile::ignore::Ignore;
use serde::Deserialize as _;

use self::output::Destination;
use super::{After, Entry, exactly};
use crate::context::Context;
use crate::credentials::ConfigFile;
use crate::error::{Failure, Outcome};
use crate::flags::Takes::{Many, One, Switch, SwitchOn};
use crate::flags::{Flag, flag, many, on, one, short};
use crate::output::build::{Form, Reasons, View};
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
    flag("progress", One, "auto, tty (lines that move), plain, or json"),
    flag("why", Switch, "Say for each step that ran what had changed"),
    flag("build-context", Many, "A named context: NAME=FOLDER, NAME=URL or NAME=docker-image://IMAGE"),
    flag("secret", Many, "A secret for RUN: id=NAME[,src=FILE|env=VARIABLE]"),
    flag("ssh", Many, "An SSH agent for RUN: default, or ID=SOCKET"),
    flag("platform", One, "What the image is for: OS/ARCH, several with commas between them"),
    flag("network", One, "The network of RUN: default, none, host"),
    flag("add-host", Many, "A further name for RUN: NAME:ADDRESS"),
    flag("shm-size", One, "Size of /dev/shm for RUN"),
    short('m', "memory", One, "Memory limit for RUN"),
    flag("iidfile", One, "Write the image's ID to this file"),
    flag("metadata-file", One, "Write what was built to this file, as JSON"),
    short(
        'o',
        "output",
        Many,
        "Where the result goes: FOLDER, -, or type=local|tar|oci|docker|image[,dest=PLACE][,push=true]",
    ),
    flag("push", Switch, "Push the image as well"),
    flag("load", Switch, "Make an image of the engine, beside other outputs"),
    flag("cache-from", Many, "A cache to read: an image, or type=registry|local[,...]"),
    flag("cache-to", Many, "A cache to write: type=registry|local|inline[,mode=max][,...]"),
    flag("attest", Many, "Attest something: type=provenance|sbom[,...]"),
    flag("provenance", One, "Attest how the image is made: true, mode=min, mode=max"),
    flag("sbom", One, "Attest which packages are in the image: true"),
    flag("rm", SwitchOn, "Containers of RUN never stay; taken for Docker's sake"),
];

pub(super) const BUILD: Entry = Entry {
    name: "build",
    about: "Build an image from a Dockerfile",
    operands: "PATH|URL|-",
    after: After::Options,
    flags: &[FLAGS],
    run: build,
};

fn build(context: &Context, matches: &ArgMatches) -> Outcome {
    let [path] = exactly(matches)?;
    let form = match one(matches, "progress").unwrap_or("auto") {
        // A dumb terminal moves no cursor.
        "auto" if io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb") => {
            Form::Screen
        }
        "auto" | "plain" => Form::Plain,
        "tty" => Form::Screen,
        "json" | "rawjson" => Form::Json,
        other => return Err(Failure::usage(format!("invalid progress {other:?}: auto, tty, plain or json"))),
    };
    let reasons = if on(matches, "why") { Reasons::Told } else { Reasons::Untold };
    let mut options = options(matches)?;
    let destinations = destinations(matches, &mut options)?;
    let messages = begin(context.client()?, &path, one(matches, "file"), &mut options)?;
    let built = show(messages, View::new(form, reasons), &options, form)?;
    if let Some(result) = &built.result {
        let sent = destinations.iter().filter(|destination| destination.is_fetched());
        sent.into_iter().try_for_each(|destination| destination.send(context.client()?, result, &options.tags))?;
    }
    let pushed = destinations.iter().filter(|destination| destination.is_image());
    pushed.into_iter().try_for_each(|destination| destination.send(context.client()?, "", &options.tags))?;
    let write = |file: &str, text: String| {
        std::fs::write(file, text).map_err(|error| Failure::usage(format!("cannot write {file}: {error}")))
    };
    if let (Some(file), Some(id)) = (one(matches, "iidfile"), &built.id) {
        write(file, id.clone())?;
    }
    if let (Some(file), Some(id)) = (one(matches, "metadata-file"), &built.id) {
        let told = serde_json::json!({
            "containerimage.digest": id, "containerimage.config.digest": id, "image.name": options.tags.join(","),
        });
        write(file, format!("{told:#}\n"))?;
    }
    Ok(0)
}

/// Where the result goes, and what the engine must do for that.
fn destinations(matches: &ArgMatches, options: &mut BuildOptions) -> Result<Vec<Destination>, Failure> {
    let mut all: Vec<Destination> =
        many(matches, "output").iter().map(|text| output::destination(text)).collect::<Result<_, _>>()?;
    if on(matches, "push") || on(matches, "load") {
        all.push(Destination::Image { names: Vec::new(), push: on(matches, "push") });
    }
    let is_image = all.is_empty() || all.iter().any(Destination::is_image);
    for destination in &all {
        if let Destination::Image { names, .. } = destination {
            options.tags.extend(names.iter().cloned());
        }
    }
    for text in many(matches, "cache-to") {
        match output::cache_folder(&text)? {
            Some(folder) => all.push(folder),
            None => options.cache_to.push(text),
        }
    }
    if on(matches, "push") && options.tags.is_empty() {
        return Err(Failure::usage("tag is needed when pushing to registry"));
    }
    let is_fetched = all.iter().any(Destination::is_fetched);
    options.result = match (is_fetched, is_image) {
        (false, _) => "",
        (true, false) => "kept",
        (true, true) => "both",
    }
    .to_owned();
    Ok(all)
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
        steps: !on(matches, "quiet"),
        cache_from: sources(&many(matches, "cache-from"))?,
        attests: attests(matches),
        registries: ConfigFile::load()?.everybody()?,
        contexts: named_contexts(&many(matches, "build-context"))?,
        secrets: secrets(&many(matches, "secret"))?,
        agents: agents(&many(matches, "ssh"), from_environment("SSH_AUTH_SOCK"))?,
        ..BuildOptions::default()
    })
}

fn sources(words: &[String]) -> Result<Vec<String>, Failure> {
    let found = words.iter().map(|word| output::cache_source(word)).collect::<Result<Vec<_>, _>>()?;
    Ok(found.into_iter().flatten().collect())
}

/// What is attested, each as `TYPE=OPTIONS`.
fn attests(matches: &ArgMatches) -> Vec<String> {
    let mut all = Vec::new();
    for word in many(matches, "attest") {
        let kind = word.split(',').find_map(|part| part.strip_prefix("type=")).unwrap_or_default();
        all.push(format!("{kind}={word}"));
    }
    for name in ["provenance", "sbom"] {
        all.extend(one(matches, name).map(|options| format!("{name}={options}")));
    }
    all
}

/// `NAME=VALUE`, or a name whose value somebody else knows.
fn pairs(words: &[String], missing: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let pair = |word: &String| match word.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => Some((word.clone(), missing(word)?)),
    };
    words.iter().filter_map(pair).collect()
}

/// Folders are named by their absolute path: the engine has its own working directory.
fn named_contexts(words: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let context = |word: &String| {
        let (name, place) = word
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("invalid context value: {word}, expected key=value")))?;
        if is_remote(place) {
            return Ok((name.to_owned(), place.to_owned()));
        }
        let whole = std::fs::canonicalize(place)
            .map_err(|error| Failure::usage(format!("failed to get build context {name}: {place}: {error}")))?;
        Ok((name.to_owned(), whole.to_string_lossy().into_owned()))
    };
    words.iter().map(context).collect()
}

/// Whether a context is something else than a folder.
fn is_remote(place: &str) -> bool {
    place.contains("://") || place.starts_with("git@") || place.starts_with("github.com/")
}

/// `id=NAME,src=FILE`, `id=NAME,env=VARIABLE`; what is said of no place is a variable of that name, else a file.
fn secrets(words: &[String]) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    words.iter().map(|word| secret(word)).collect()
}

fn secret(word: &str) -> Result<(String, Vec<u8>), Failure> {
    let (mut id, mut file, mut variable, mut kind) = ("", None, None, "");
    for part in word.split(',') {
        match part.split_once('=') {
            Some(("id", value)) => id = value,
            Some(("src" | "source", value)) => file = Some(value),
            Some(("env", value)) => variable = Some(value),
            Some(("type", value @ ("file" | "env"))) => kind = value,
            Some(("type", value)) => return Err(Failure::usage(format!("unsupported secret type {value:?}"))),
            _ => return Err(Failure::usage(format!("invalid field '{part}' in secret: expected key=value"))),
        }
    }
    if id.is_empty() {
        return Err(Failure::usage("secret is missing its id"));
    }
    let variable = variable.or((kind == "env").then(|| file.unwrap_or(id)));
    let named = file.is_none() && kind.is_empty() && std::env::var_os(id).is_some();
    if let Some(name) = variable.or(named.then_some(id)) {
        let value = std::env::var_os(name).ok_or_else(|| Failure::usage(format!("secret {id}: no variable {name}")))?;
        return Ok((id.to_owned(), value.as_bytes().to_vec()));
    }
    let file = file.unwrap_or(id);
    let bytes = std::fs::read(file).map_err(|error| Failure::usage(format!("secret {id}: {file}: {error}")))?;
    Ok((id.to_owned(), bytes))
}

/// `default`, the agent of this user, or `ID=SOCKET`.
fn agents(words: &[String], own: Option<String>) -> Result<BTreeMap<String, String>, Failure> {
    let agent = |word: &String| {
        let (id, socket) = word.split_once('=').unwrap_or((word, ""));
        let socket = match socket {
            "" => own.clone().ok_or_else(|| Failure::usage("SSH_AUTH_SOCK names no agent"))?,
            socket => socket.to_owned(),
        };
        let whole = std::fs::canonicalize(&socket);
        let whole = whole.map_err(|error| Failure::usage(format!("SSH agent {id}: {socket}: {error}")))?;
        Ok((id.to_owned(), whole.to_string_lossy().into_owned()))
    };
    words.iter().map(agent).collect()
}

/// What the engine answers a folder that it does not see as the client does.
const NOT_SHARED: &str = "is not a folder that the client and the engine share";

/// Starts the build: of what the engine fetches, of a folder that it reads by itself, or of what is sent.
fn begin(
    client: &api_client::Client,
    path: &str,
    file: Option<&str>,
    options: &mut BuildOptions,
) -> Result<api_client::Lines<Message>, Failure> {
    if is_remote(path) {
        options.dockerfile = file.unwrap_or_default().to_owned();
        return Ok(client.image_build_remote(path, options)?);
    }
    if path != "-" && matches!(client.host(), Host::Unix(_)) && file != Some("-") {
        let folder = shared(Path::new(path), file, options)?;
        match client.image_build_folder(&folder, options) {
            Err(error) if error.to_string().contains(NOT_SHARED) => {}
            messages => return Ok(messages?),
        }
    }
    let upload = upload(path, file, options)?;
    Ok(client.image_build(upload, options)?)
}

/// A folder as an engine on this machine finds it.
fn shared(folder: &Path, file: Option<&str>, options: &mut BuildOptions) -> Result<SharedFolder, Failure> {
    let wrong = |error: io::Error| Failure::usage(format!("unable to prepare context: {error}"));
    if !folder.is_dir() {
        return Err(Failure::usage(format!("unable to prepare context: path {:?} not found", folder.display())));
    }
    let outside = place_dockerfile(folder, file, options)?;
    let dockerfile = outside.map(|text| {
        let own = file.map(|file| std::fs::read_to_string(format!("{file}.dockerignore")));
        (String::from_utf8_lossy(&text).into_owned(), own.and_then(Result::ok).unwrap_or_default())
    });
    let whole = std::fs::canonicalize(folder).map_err(wrong)?;
    let found = whole.metadata().map_err(wrong)?;
    let path = whole.to_str().ok_or_else(|| Failure::usage("the folder's path is no text"))?.to_owned();
    Ok(SharedFolder { path, device: found.dev(), inode: found.ino(), dockerfile })
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

/// What was built.
#[derive(Debug, Default)]
struct Built {
    /// The image's ID.
    id: Option<String>,
    /// What the engine calls a result that it keeps.
    result: Option<String>,
}

/// Shows the build to its end.
fn show(
    messages: api_client::Lines<Message>,
    mut view: View,
    options: &BuildOptions,
    form: Form,
) -> Result<Built, Failure> {
    let (mut id, mut result) = (None, None);
    for message in messages {
        let message = message?;
        if let Some(error) = message.error_detail.as_ref().filter(|error| !error.message.is_empty()) {
            let code = u8::try_from(error.code).ok().filter(|code| *code != 0).unwrap_or(1);
            return Err(Failure { message: error.message.clone(), code });
        }
        if let Some(aux) = &message.aux {
            if let Some(step) = aux.get("Build").and_then(|step| BuildStep::deserialize(step).ok()) {
                view.show(step)?;
            }
            id = aux["ID"].as_str().map(str::to_owned).or(id);
            result = aux["Result"].as_str().map(str::to_owned).or(result);
        }
        let text = message.stream.trim_end();
        if options.quiet && text.starts_with("sha256:") {
            id = Some(text.to_owned());
        }
        if form != Form::Json && !text.is_empty() {
            view.line(text)?;
        }
    }
    match (&id, form) {
        (Some(id), Form::Json) => {
            let built = serde_json::json!({"Event": "Built", "Id": id, "Tags": options.tags});
            view.line(&built.to_string())?;
        }
        (Some(_), _) if !options.quiet => view.line(&view.summary())?,
        _ => {}
    }
    Ok(Built { id, result })
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

    #[test]
    fn secrets_and_contexts_are_read_here() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "word").unwrap();
        let read = |text: &str| secret(text).map_err(|failure| failure.message);
        let expected = ("k".to_owned(), b"word".to_vec());
        assert_eq!(read(&format!("id=k,src={}", file.display())), Ok(expected));
        assert!(read("id=k,env=CONEX_NO_SUCH_VARIABLE").unwrap_err().contains("CONEX_NO_SUCH_VARIABLE"));
        assert!(read("src=x").unwrap_err().contains("id") && read("id=k,odd=x").unwrap_err().contains("odd"));
        let contexts = |text: &str| named_contexts(&[text.to_owned()]).map_err(|failure| failure.message);
        assert_eq!(contexts("a=docker-image://b").unwrap()["a"], "docker-image://b");
        assert!(contexts("a").unwrap_err().contains("key=value") && contexts("a=/no/such").is_err());
        assert!(agents(&["default".to_owned()], None).is_err());
    }
}
