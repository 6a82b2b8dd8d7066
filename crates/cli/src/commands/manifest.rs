//! `manifest`: lists of manifests for several platforms, made here and sent to a registry without an engine.

use std::path::{Path, PathBuf};

use clap::ArgMatches;
use oci::image::{Descriptor, ImageConfig, Index, Manifest, media_type};
use oci::{Digest, Reference};
use registry::{Client, Credentials, Document, Fetched, Insecure, Mount, Name, Options, Places, Proxies, Repository};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{After, Entry, exactly, operands, print};
use crate::context::Context;
use crate::credentials::ConfigFile;
use crate::error::{Failure, Outcome};
use crate::flags::Takes::{Many, One, Switch};
use crate::flags::{Flag, flag, many, on, one, short};

/// The largest configuration that is read.
const CONFIG_BYTES_MAX: u64 = 8 << 20;

const INSECURE: Flag = flag("insecure", Switch, "Speak to a registry without TLS or a valid certificate");

const INSPECT_FLAGS: &[Flag] = &[INSECURE, short('v', "verbose", Switch, "Show names and platforms too")];

pub(super) const INSPECT: Entry = Entry {
    name: "inspect",
    about: "Show a manifest or a list of manifests",
    operands: "[LIST] MANIFEST",
    after: After::Options,
    flags: &[INSPECT_FLAGS],
    run: inspect,
};

const CREATE_FLAGS: &[Flag] = &[INSECURE, short('a', "amend", Switch, "Add to a list that was created before")];

pub(super) const CREATE: Entry = Entry {
    name: "create",
    about: "Create a list of manifests here, to annotate and push it",
    operands: "LIST MANIFEST [MANIFEST...]",
    after: After::Options,
    flags: &[CREATE_FLAGS],
    run: create,
};

const ANNOTATE_FLAGS: &[Flag] = &[
    flag("arch", One, "The processor"),
    flag("os", One, "The operating system"),
    flag("os-features", Many, "Features of the operating system"),
    flag("os-version", One, "The version of the operating system"),
    flag("variant", One, "The processor's variant"),
];

pub(super) const ANNOTATE: Entry = Entry {
    name: "annotate",
    about: "Say what a manifest of a list is for",
    operands: "LIST MANIFEST",
    after: After::Options,
    flags: &[ANNOTATE_FLAGS],
    run: annotate,
};

const PUSH_FLAGS: &[Flag] = &[INSECURE, short('p', "purge", Switch, "Forget the list afterwards")];

pub(super) const PUSH: Entry = Entry {
    name: "push",
    about: "Push a list of manifests to its registry",
    operands: "LIST",
    after: After::Options,
    flags: &[PUSH_FLAGS],
    run: push,
};

pub(super) const RM: Entry = Entry {
    name: "rm",
    about: "Forget lists of manifests",
    operands: "LIST [LIST...]",
    after: After::Options,
    flags: &[],
    run: |_, matches| {
        for name in operands(matches, 1)? {
            Draft::load(&parse(&name)?)?.remove()?;
        }
        Ok(0)
    },
};

/// A list in the making, as it is kept beside Docker's `config.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Draft {
    #[serde(skip)]
    path: PathBuf,
    entries: Vec<DraftEntry>,
}

/// One manifest of a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct DraftEntry {
    /// Where it is, in full.
    reference: String,
    descriptor: Descriptor,
}

impl Draft {
    fn path_of(list: &Reference) -> Result<PathBuf, Failure> {
        let name = list.canonical().replace(['/', ':', '@'], "_");
        Ok(ConfigFile::load()?.folder().join("conex-manifests").join(format!("{name}.json")))
    }

    fn load(list: &Reference) -> Result<Self, Failure> {
        let path = Self::path_of(list)?;
        let missing = |_| Failure::usage(format!("No such manifest: {}", list.familiar()));
        let draft: Self = serde_json::from_slice(&std::fs::read(&path).map_err(missing)?)?;
        Ok(Self { path, ..draft })
    }

    fn save(&self) -> Result<(), Failure> {
        std::fs::create_dir_all(self.path.parent().unwrap_or(Path::new("/")))?;
        let partial = self.path.with_extension("partial");
        std::fs::write(&partial, serde_json::to_vec_pretty(self)?)?;
        Ok(std::fs::rename(&partial, &self.path)?)
    }

    fn remove(&self) -> Result<(), Failure> {
        Ok(std::fs::remove_file(&self.path)?)
    }

    /// The list itself: Docker's kind where all that it lists is, else OCI's.
    fn index(&self) -> Index {
        let is_docker = self.entries.iter().all(|entry| entry.descriptor.media_type == media_type::DOCKER_MANIFEST);
        let media_type = if is_docker { media_type::DOCKER_MANIFEST_LIST } else { media_type::OCI_INDEX };
        Index::new(media_type, self.entries.iter().map(|entry| entry.descriptor.clone()).collect())
    }
}

/// Registries, for a command that blocks.
struct Registries {
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Registries {
    fn new(matches: &ArgMatches, names: &[&Reference]) -> Result<Self, Failure> {
        let insecure = on(matches, "insecure");
        let hosts = names.iter().filter(|_| insecure).map(|name| Insecure::Host(name.domain().to_owned()));
        let certificates = ["/etc/conex/certs.d", "/etc/docker/certs.d"].map(PathBuf::from).to_vec();
        let places = Places { insecure: hosts.collect(), certificates, ..Places::default() };
        let proxies = Proxies::read(|name| std::env::var(name).ok());
        let user_agent = format!("conex/{}", env!("CARGO_PKG_VERSION"));
        let client = Client::new(Options { places, proxies, user_agent, ..Options::default() });
        Ok(Self { client, runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()? })
    }

    fn repository(&self, name: &Reference) -> Result<Repository, Failure> {
        let credentials = credentials(name)?;
        let session = self.runtime.block_on(self.client.open_registry_of(name, credentials)).map_err(failed)?;
        Ok(session.repository(name.path()))
    }

    fn fetch(&self, name: &Reference) -> Result<(Repository, Fetched), Failure> {
        let repository = self.repository(name)?;
        let fetched = self.runtime.block_on(repository.manifest(manifest_name(name))).map_err(|error| {
            match error.is_not_found() {
                true => Failure::usage(format!("no such manifest: {}", name.familiar())),
                false => failed(error),
            }
        })?;
        Ok((repository, fetched))
    }

    /// What a list says about a manifest: the platform is in its configuration.
    fn describe(&self, name: &Reference) -> Result<Descriptor, Failure> {
        let (repository, fetched) = self.fetch(name)?;
        let manifest = single(name, &fetched)?;
        let config = &manifest.config;
        let blob = repository.small_blob(&config.digest, config.size, CONFIG_BYTES_MAX);
        let config: ImageConfig = serde_json::from_slice(&self.runtime.block_on(blob).map_err(failed)?)?;
        let media_type = if fetched.media_type.is_empty() { &manifest.media_type } else { &fetched.media_type };
        let descriptor = Descriptor::new(media_type, fetched.digest, fetched.bytes.len() as u64);
        Ok(Descriptor { platform: Some(config.platform()), ..descriptor })
    }
}

fn credentials(name: &Reference) -> Result<Credentials, Failure> {
    let auth = ConfigFile::load()?.of_image(&name.canonical_name())?;
    Ok(match () {
        () if !auth.registrytoken.is_empty() => Credentials::RegistryToken(auth.registrytoken),
        () if !auth.identitytoken.is_empty() => Credentials::IdentityToken(auth.identitytoken),
        () if !auth.username.is_empty() => Credentials::Password { username: auth.username, password: auth.password },
        () => Credentials::Anonymous,
    })
}

fn parse(name: &str) -> Result<Reference, Failure> {
    let reference = Reference::parse(name).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(reference.with_default_tag())
}

fn manifest_name(reference: &Reference) -> Name<'_> {
    match reference.digest() {
        Some(digest) => Name::Digest(digest),
        None => Name::Tag(reference.tag().unwrap_or("latest")),
    }
}

fn failed(error: registry::Error) -> Failure {
    Failure::usage(error.to_string())
}

/// A manifest of one image; a list may not hold lists.
fn single(name: &Reference, fetched: &Fetched) -> Result<Manifest, Failure> {
    match fetched.document() {
        Ok(Document::Manifest(manifest)) => Ok(manifest),
        Ok(Document::Index(_)) => Err(Failure::usage(format!("{} is a manifest list", name.familiar()))),
        Err(error) => Err(Failure::usage(format!("{}: {error}", name.familiar()))),
    }
}

fn inspect(_: &Context, matches: &ArgMatches) -> Outcome {
    let words = operands(matches, 1)?;
    let name = parse(words.last().map_or("", String::as_str))?;
    if let [list, _] = words.as_slice() {
        let draft = Draft::load(&parse(list)?)?;
        let entry = draft.entries.iter().find(|entry| entry.reference == name.canonical());
        let entry = entry.ok_or_else(|| Failure::usage(format!("No such manifest: {}", name.familiar())))?;
        return show(&json!({ "Ref": entry.reference, "Descriptor": entry.descriptor }));
    }
    if let ([_], Ok(draft)) = (words.as_slice(), Draft::load(&name)) {
        return show(&serde_json::to_value(draft.index())?);
    }
    let (_, fetched) = Registries::new(matches, &[&name])?.fetch(&name)?;
    let document: Value = serde_json::from_slice(&fetched.bytes)?;
    if !on(matches, "verbose") {
        return show(&document);
    }
    let media_type =
        if fetched.media_type.is_empty() { document["mediaType"].clone() } else { json!(fetched.media_type) };
    let descriptor = json!({ "mediaType": media_type, "digest": fetched.digest, "size": fetched.bytes.len() });
    show(&json!({ "Ref": name.canonical(), "Descriptor": descriptor, "Manifest": document }))
}

/// Four spaces, as Docker indents here.
fn show(value: &Value) -> Outcome {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter))?;
    print(&format!("{}\n", String::from_utf8_lossy(&text)))?;
    Ok(0)
}

fn create(_: &Context, matches: &ArgMatches) -> Outcome {
    let words = operands(matches, 2)?;
    let list = parse(&words[0])?;
    let names = words[1..].iter().map(|word| parse(word)).collect::<Result<Vec<_>, _>>()?;
    let mut draft = match (Draft::load(&list), on(matches, "amend")) {
        (Ok(_), false) => {
            return Err(Failure::usage("refusing to amend an existing manifest list with no --amend flag"));
        }
        (Ok(draft), true) => draft,
        (Err(_), _) => Draft { path: Draft::path_of(&list)?, entries: Vec::new() },
    };
    let registries = Registries::new(matches, &names.iter().collect::<Vec<_>>())?;
    for name in &names {
        if name.domain() != list.domain() {
            return Err(Failure::usage("cannot use source images from a different registry than the target image"));
        }
        let entry = DraftEntry { reference: name.canonical(), descriptor: registries.describe(name)? };
        draft.entries.retain(|known| known.reference != entry.reference);
        draft.entries.push(entry);
    }
    draft.save()?;
    print(&format!("Created manifest list {}\n", list.canonical()))?;
    Ok(0)
}

fn annotate(_: &Context, matches: &ArgMatches) -> Outcome {
    let [list, name] = exactly(matches)?;
    let (mut draft, name) = (Draft::load(&parse(&list)?)?, parse(&name)?);
    let entry = draft.entries.iter_mut().find(|entry| entry.reference == name.canonical());
    let missing = || Failure::usage(format!("manifest for image {} does not exist in {list}", name.familiar()));
    let platform = entry.ok_or_else(missing)?.descriptor.platform.get_or_insert_default();
    let set = |field: &mut String, flag: &str| {
        if let Some(text) = one(matches, flag) {
            text.clone_into(field);
        }
    };
    set(&mut platform.os, "os");
    set(&mut platform.architecture, "arch");
    set(&mut platform.variant, "variant");
    set(&mut platform.os_version, "os-version");
    platform.os_features.extend(many(matches, "os-features"));
    draft.save()?;
    Ok(0)
}

fn push(_: &Context, matches: &ArgMatches) -> Outcome {
    let [list] = exactly(matches)?;
    let list = parse(&list)?;
    let draft = Draft::load(&list)?;
    let registries = Registries::new(matches, &[&list])?;
    let target = registries.repository(&list)?;
    for entry in &draft.entries {
        let source = parse(&entry.reference)?.with_digest(entry.descriptor.digest);
        if source.path() != list.path() {
            let (repository, fetched) = registries.fetch(&source)?;
            let manifest = single(&source, &fetched)?;
            registries.runtime.block_on(carry(&repository, &target, &fetched, &manifest)).map_err(failed)?;
        }
    }
    let index = draft.index();
    let document = serde_json::to_vec(&index)?;
    let put = target.put_manifest(manifest_name(&list), &index.media_type, &document);
    let digest: Digest = registries.runtime.block_on(put).map_err(failed)?;
    if on(matches, "purge") {
        draft.remove()?;
    }
    print(&format!("{digest}\n"))?;
    Ok(0)
}

/// Sees to it that a repository has a manifest that another one of the same registry has, blobs first.
async fn carry(
    source: &Repository,
    target: &Repository,
    fetched: &Fetched,
    manifest: &Manifest,
) -> Result<(), registry::Error> {
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        if target.has_blob(&blob.digest).await? {
            continue;
        }
        if let Mount::Refused(upload) = target.mount(&blob.digest, source.path()).await? {
            source.send_blob(&blob.digest, blob.size, upload).await?;
        }
    }
    target.put_manifest(Name::Digest(&fetched.digest), &fetched.media_type, &fetched.bytes).await.map(drop)
}
