//! Where a build's results go besides the engine: folders, archives, registries, caches in folders.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use api_client::{Body, Client};
use archive::extract::{Options, Overwrite, Owner, extract};
use archive::ids::Ids;
use archive::unpack::Privileges;
use oci::image::{ANNOTATION_REF_NAME, Index};

use crate::credentials::ConfigFile;
use crate::error::Failure;

/// Where one result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    /// It is an image of the engine.
    Image {
        /// Names beside those of `--tag`.
        names: Vec<String>,
        /// Whether it goes to its registry as well.
        push: bool,
    },
    /// It is put into a folder.
    Folder(Form, PathBuf),
    /// It becomes an archive; without a place on standard output.
    Archive(Form, Option<PathBuf>),
    /// A cache in a folder: the user's own words, and the tag.
    Cache { text: String, folder: PathBuf, tag: String },
}

/// What an archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    Files(FileOptions),
    Oci,
    Docker,
}

/// How files are put out: what names of statements begin with, and whether each platform has a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FileOptions {
    attestation_prefix: String,
    platform_split: String,
}

impl Form {
    fn name(&self) -> &'static str {
        match self {
            Form::Files(_) => "files",
            Form::Oci => "oci",
            Form::Docker => "docker",
        }
    }

    fn fetch(&self, client: &Client, result: &str, tags: &[String]) -> Result<Body, Failure> {
        let more = match self {
            Form::Files(FileOptions { attestation_prefix, platform_split }) => {
                vec![("attestationprefix", attestation_prefix.as_str()), ("platformsplit", platform_split.as_str())]
            }
            _ => Vec::new(),
        };
        let tags = if matches!(self, Form::Files(_)) { &[] } else { tags };
        Ok(client.build_result(result, self.name(), tags, &more)?)
    }
}

/// Reads `--output`: a folder, `-`, or `type=KIND,dest=PLACE`.
pub(super) fn destination(text: &str) -> Result<Destination, Failure> {
    if !text.contains('=') {
        let files = Form::Files(FileOptions::default());
        return Ok(match text {
            "-" => Destination::Archive(files, None),
            folder => Destination::Folder(files, folder.into()),
        });
    }
    let (mut kind, mut place, mut names, mut push, mut is_tar) = ("", None, Vec::new(), false, true);
    let mut options = FileOptions::default();
    for part in text.split(',') {
        let pair = part.split_once('=');
        let (name, value) = pair.ok_or_else(|| Failure::usage(format!("invalid value {part}: expected key=value")))?;
        match name {
            "type" => kind = value,
            "dest" => place = Some(value),
            "name" => names.push(value.to_owned()),
            "push" => push = truth(name, value)?,
            "tar" => is_tar = truth(name, value)?,
            "attestation-prefix" => options.attestation_prefix = value.to_owned(),
            "platform-split" => options.platform_split = u8::from(truth(name, value)?).to_string(),
            _ => return Err(Failure::usage(format!("invalid output: option {name:?} is not supported"))),
        }
    }
    let of_files = options != FileOptions::default();
    if of_files && !matches!(kind, "local" | "tar") {
        let words = format!("invalid output: attestation-prefix and platform-split are not for type {kind:?}");
        return Err(Failure::usage(words));
    }
    if !is_tar && !matches!(kind, "oci" | "docker") {
        return Err(Failure::usage(format!("invalid output: tar=false is not for type {kind:?}")));
    }
    let file = place.filter(|place| *place != "-").map(PathBuf::from);
    let folder = |file: Option<PathBuf>| {
        let kind = if kind == "local" { "local exporter" } else { "output with tar=false" };
        file.ok_or_else(|| Failure::usage(format!("dest is required for {kind}")))
    };
    match kind {
        "local" => Ok(Destination::Folder(Form::Files(options), folder(file)?)),
        "tar" => Ok(Destination::Archive(Form::Files(options), file)),
        "oci" if !is_tar => Ok(Destination::Folder(Form::Oci, folder(file)?)),
        "oci" => Ok(Destination::Archive(Form::Oci, file)),
        "docker" if !is_tar => Ok(Destination::Folder(Form::Docker, folder(file)?)),
        "docker" if place.is_some() => Ok(Destination::Archive(Form::Docker, file)),
        "docker" | "image" => Ok(Destination::Image { names, push }),
        "registry" => Ok(Destination::Image { names, push: true }),
        "" => Err(Failure::usage("type is required for output")),
        other => Err(Failure::usage(format!(
            "output type {other:?} is not supported: local, tar, oci, docker, image, registry"
        ))),
    }
}

fn truth(name: &str, value: &str) -> Result<bool, Failure> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Failure::usage(format!("invalid output: {name}={value} is neither true nor false"))),
    }
}

/// A cache that goes into a folder here; nothing where the engine writes it.
pub(super) fn cache_folder(text: &str) -> Result<Option<Destination>, Failure> {
    let value = |name: &str| text.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    if value("type") != Some("local") {
        return Ok(None);
    }
    let folder = value("dest").ok_or_else(|| Failure::usage("local cache exporter requires dest"))?;
    let tag = value("tag").unwrap_or("latest").to_owned();
    // The engine writes it under its tag, wherever it is put here.
    let others = text.split(',').filter(|part| !part.starts_with("dest=") && !part.starts_with("tag="));
    let text: Vec<&str> = others.collect();
    let text = format!("{},dest={tag}", text.join(","));
    Ok(Some(Destination::Cache { text, folder: folder.into(), tag }))
}

/// A cache to read, as the engine finds it: folders by absolute paths, with the digest of what their tag means. Nothing where there is
/// none, which stops no build.
pub(super) fn cache_source(text: &str) -> Result<Option<String>, Failure> {
    let value = |name: &str| text.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    if value("type") != Some("local") {
        return Ok(Some(text.to_owned()));
    }
    let folder = value("src").ok_or_else(|| Failure::usage("local cache importer requires src"))?;
    let found = std::fs::canonicalize(folder).ok();
    let digest = match (value("digest"), &found) {
        (Some(digest), _) => Some(digest.to_owned()),
        (None, Some(found)) => digest_of(found, value("tag").unwrap_or("latest")),
        (None, None) => None,
    };
    match (found, digest) {
        (Some(found), Some(digest)) => Ok(Some(format!("type=local,src={},digest={digest}", found.display()))),
        _ => {
            crate::commands::complain(&format!("WARNING: local cache import at {folder} not found"));
            Ok(None)
        }
    }
}

fn digest_of(folder: &Path, tag: &str) -> Option<String> {
    let index: Index = serde_json::from_slice(&std::fs::read(folder.join("index.json")).ok()?).ok()?;
    let named = index.manifests.iter().find(|entry| is_named(entry, tag));
    named.map(|entry| entry.digest.to_string())
}

fn is_named(entry: &oci::image::Descriptor, tag: &str) -> bool {
    entry.annotations.get(ANNOTATION_REF_NAME).is_some_and(|name| name == tag)
}

impl Destination {
    /// Whether the engine keeps the result for it.
    pub(super) fn is_fetched(&self) -> bool {
        !matches!(self, Destination::Image { .. })
    }

    /// Whether the result becomes an image of the engine.
    pub(super) fn is_image(&self) -> bool {
        matches!(self, Destination::Image { .. })
    }

    /// Sends a result where it goes. `result` is what the engine calls it, `tags` are its names.
    pub(super) fn send(&self, client: &Client, result: &str, tags: &[String]) -> Result<(), Failure> {
        match self {
            Destination::Image { push: false, .. } => Ok(()),
            Destination::Image { .. } => tags.iter().try_for_each(|tag| push(client, tag)),
            Destination::Folder(form, folder) => unpack(form.fetch(client, result, tags)?, folder),
            Destination::Archive(form, place) => copy(form.fetch(client, result, tags)?, place.as_deref()),
            Destination::Cache { text, folder, tag } => {
                let before = std::fs::read(folder.join("index.json")).ok();
                unpack(client.build_result(result, "cache", &[], &[("cache", text)])?, folder)?;
                keep_other_tags(folder, before, tag)
            }
        }
    }
}

fn push(client: &Client, name: &str) -> Result<(), Failure> {
    let auth = ConfigFile::load()?.of_image(name)?;
    let reference = oci::Reference::parse(name).map_err(|error| Failure::usage(error.to_string()))?.with_default_tag();
    let lines = client.image_push(&reference.familiar_name(), reference.tag().unwrap_or_default(), "", &auth)?;
    crate::output::progress::show(lines, crate::output::progress::Mode::Silent)
}

fn copy(mut body: Body, place: Option<&Path>) -> Result<(), Failure> {
    match place {
        None => {
            io::copy(&mut body, &mut io::stdout().lock())?;
        }
        Some(path) => {
            let wrong = |error: io::Error| Failure::usage(format!("cannot write {}: {error}", path.display()));
            let mut file = File::create(path).map_err(wrong)?;
            io::copy(&mut body, &mut file).and_then(|_| file.flush()).map_err(wrong)?;
        }
    }
    Ok(())
}

/// Puts a tar into a folder, whose files belong to who runs this.
fn unpack(mut body: Body, folder: &Path) -> Result<(), Failure> {
    let wrong = |error: io::Error| Failure::usage(format!("cannot write {}: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(wrong)?;
    let root = File::open(folder).map_err(wrong)?;
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let options = Options {
        directory: b"",
        rename: None,
        overwrite: Overwrite::Replace,
        owner: if uid.is_root() { Owner::AsInTar } else { Owner::Fixed { uid: uid.as_raw(), gid: gid.as_raw() } },
        ids: &Ids::default(),
        privileges: if uid.is_root() { Privileges::Full } else { Privileges::UserNamespace },
    };
    extract(&mut body, root.as_fd(), &options).map_err(|error| Failure::from(io::Error::other(error)))?;
    io::copy(&mut body, &mut io::sink())?;
    Ok(())
}

/// Caches under other tags stay in a folder's index.
fn keep_other_tags(folder: &Path, before: Option<Vec<u8>>, tag: &str) -> Result<(), Failure> {
    let place = folder.join("index.json");
    let Some(before) = before.and_then(|bytes| serde_json::from_slice::<Index>(&bytes).ok()) else { return Ok(()) };
    let mut now: Index = serde_json::from_slice(&std::fs::read(&place)?).map_err(io::Error::from)?;
    now.manifests.extend(before.manifests.into_iter().filter(|entry| !is_named(entry, tag)));
    std::fs::write(place, serde_json::to_vec(&now).map_err(io::Error::from)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_read_as_buildx_reads_them() {
        let read = |text: &str| destination(text).map_err(|failure| failure.message);
        let files = || Form::Files(FileOptions::default());
        assert_eq!(read("out"), Ok(Destination::Folder(files(), "out".into())));
        assert_eq!(read("-"), Ok(Destination::Archive(files(), None)));
        let options = FileOptions { attestation_prefix: "a-".to_owned(), platform_split: "0".to_owned() };
        assert_eq!(
            read("type=local,dest=x,attestation-prefix=a-,platform-split=false"),
            Ok(Destination::Folder(Form::Files(options), "x".into()))
        );
        assert_eq!(read("type=oci,dest=a,tar=false"), Ok(Destination::Folder(Form::Oci, "a".into())));
        assert_eq!(read("type=oci,dest=a.tar"), Ok(Destination::Archive(Form::Oci, Some("a.tar".into()))));
        assert_eq!(read("type=docker,dest=-"), Ok(Destination::Archive(Form::Docker, None)));
        assert_eq!(read("type=docker"), Ok(Destination::Image { names: Vec::new(), push: false }));
        let pushed = Destination::Image { names: vec!["a/b".to_owned()], push: true };
        assert_eq!(read("type=image,name=a/b,push=true"), Ok(pushed));
        for (text, word) in [
            ("type=local", "dest"),
            ("type=odd", "odd"),
            ("type=tar,odd=1", "odd"),
            ("dest=x", "type"),
            ("type=oci,tar=false", "dest"),
            ("type=tar,tar=false", "tar=false"),
            ("type=oci,dest=x,platform-split=true", "platform-split"),
            ("type=tar,tar=odd", "odd"),
        ] {
            assert!(read(text).unwrap_err().contains(word), "{text}");
        }
    }

    #[test]
    fn caches_in_folders_are_found_by_their_tags() {
        let cache = cache_folder("type=local,dest=/c,mode=max,tag=a").unwrap();
        let text = "type=local,mode=max,dest=a".to_owned();
        assert_eq!(cache, Some(Destination::Cache { text, folder: "/c".into(), tag: "a".to_owned() }));
        assert_eq!(cache_folder("type=registry,ref=x").unwrap(), None);
        let folder = tempfile::tempdir().unwrap();
        let digest = oci::Digest::of(b"x");
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"m","size":1,"digest":"{digest}","annotations":{{"{ANNOTATION_REF_NAME}":"latest"}}}}]}}"#
        );
        std::fs::write(folder.path().join("index.json"), index).unwrap();
        let path = std::fs::canonicalize(folder.path()).unwrap().display().to_string();
        let source = |more: &str| cache_source(&format!("type=local,src={path}{more}")).unwrap();
        assert_eq!(source(""), Some(format!("type=local,src={path},digest={digest}")));
        assert_eq!(source(",tag=other"), None);
        assert_eq!(cache_source("name:1").unwrap(), Some("name:1".to_owned()));
    }
}
