//! Docker's store of contexts: named engines, with the files of their TLS.
//!
//! ```text
//! ~/.docker/config.json                              "currentContext"
//!          /contexts/meta/<sha256 of the name>/meta.json
//!          /contexts/tls/<sha256 of the name>/docker/{ca,cert,key}.pem
//! ```

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use api_client::{Host, TlsOptions};
use archive::tar::{EntryKind, Metadata, Reader, Writer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::credentials::{ConfigFile, config_folder};
use crate::error::Failure;

/// The context that is always there: whatever the environment says.
pub(crate) const DEFAULT: &str = "default";
/// The one endpoint that contexts have here.
const DOCKER: &str = "docker";
const CURRENT: &str = "currentContext";
const TLS_FILES: [&str; 3] = ["ca.pem", "cert.pem", "key.pem"];
/// No context is larger.
const MAX_IMPORT: u64 = 10 << 20;

/// `meta.json`, with what others have written into it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct StoredContext {
    pub(crate) name: String,
    pub(crate) metadata: Map<String, Value>,
    pub(crate) endpoints: BTreeMap<String, Endpoint>,
}

/// Where an engine is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    #[serde(rename = "SkipTLSVerify")]
    pub(crate) skip_tls_verify: bool,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl StoredContext {
    /// A context of an engine at an address.
    pub(crate) fn new(name: &str, description: &str, host: &str, skip_tls_verify: bool) -> Self {
        let mut context = Self { name: name.to_owned(), ..Self::default() };
        context.describe(description);
        let endpoint = Endpoint { host: host.to_owned(), skip_tls_verify, others: Map::new() };
        context.endpoints.insert(DOCKER.to_owned(), endpoint);
        context
    }

    pub(crate) fn describe(&mut self, description: &str) {
        if !description.is_empty() {
            self.metadata.insert("Description".into(), description.into());
        }
    }

    pub(crate) fn description(&self) -> &str {
        self.metadata.get("Description").and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoints.get(DOCKER)
    }

    pub(crate) fn endpoint_mut(&mut self) -> &mut Endpoint {
        self.endpoints.entry(DOCKER.to_owned()).or_default()
    }

    /// The engine's address with its TLS.
    pub(crate) fn host(&self) -> Result<Host, Failure> {
        let wrong = |what: String| Failure::usage(format!("context {:?}: {what}", self.name));
        let endpoint = self.endpoint().ok_or_else(|| wrong("it has no address".to_owned()))?;
        let host = Host::parse(&endpoint.host).map_err(|error| wrong(error.to_string()))?;
        let tls = tls_folder(&self.name);
        if !tls.is_dir() {
            return Ok(host);
        }
        let mut options = TlsOptions::from_folder(&tls);
        if endpoint.skip_tls_verify {
            options.authority = None;
        }
        options.identity = options.identity.filter(|(certificate, _)| certificate.exists());
        Ok(host.with_tls(options))
    }
}

fn id(name: &str) -> String {
    oci::Digest::of(name.as_bytes()).hex()
}

/// Where a context's `meta.json` is.
pub(crate) fn meta_folder(name: &str) -> PathBuf {
    config_folder().join("contexts/meta").join(id(name))
}

/// Where a context's certificates are.
pub(crate) fn tls_folder(name: &str) -> PathBuf {
    config_folder().join("contexts/tls").join(id(name)).join(DOCKER)
}

/// A context by its name.
pub(crate) fn load(name: &str) -> Result<StoredContext, Failure> {
    let not_found = |error: io::Error| {
        Failure::usage(format!("context {name:?}: context not found: open {}: {error}", meta_folder(name).display()))
    };
    let text = std::fs::read(meta_folder(name).join("meta.json")).map_err(not_found)?;
    serde_json::from_slice(&text).map_err(|error| Failure::usage(format!("context {name:?}: {error}")))
}

/// All contexts but the default one, by name.
pub(crate) fn list() -> Result<Vec<StoredContext>, Failure> {
    let folder = match std::fs::read_dir(config_folder().join("contexts/meta")) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut contexts = Vec::new();
    for entry in folder {
        if let Ok(text) = std::fs::read(entry?.path().join("meta.json")) {
            contexts.push(serde_json::from_slice::<StoredContext>(&text)?);
        }
    }
    contexts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(contexts)
}

/// Writes a context; certificates are copied, so that they stay when their files go.
pub(crate) fn save(context: &StoredContext, certificates: &BTreeMap<String, Vec<u8>>) -> Result<(), Failure> {
    let folder = private_folder(&meta_folder(&context.name))?;
    write_file(&folder.join("meta.json"), &serde_json::to_vec(context)?)?;
    if !certificates.is_empty() {
        let folder = private_folder(&tls_folder(&context.name))?;
        for (name, contents) in certificates {
            write_file(&folder.join(name), contents)?;
        }
    }
    Ok(())
}

/// Takes a context away.
pub(crate) fn remove(name: &str) -> Result<(), Failure> {
    std::fs::remove_dir_all(meta_folder(name))?;
    match tls_folder(name).parent().map(std::fs::remove_dir_all) {
        Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// The context that the user has chosen for good.
pub(crate) fn chosen() -> Result<Option<String>, Failure> {
    Ok(ConfigFile::load()?.text(CURRENT).filter(|name| name != DEFAULT))
}

/// Chooses a context for good.
pub(crate) fn choose(name: &str) -> Result<(), Failure> {
    ConfigFile::load()?.set_text(CURRENT, (name != DEFAULT).then_some(name))
}

/// Whether this may be a context's name, in Docker's words.
pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    if name.is_empty() {
        return Err(Failure::usage("context name cannot be empty"));
    }
    if name == DEFAULT {
        return Err(Failure::usage("\"default\" is a reserved context name"));
    }
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte);
    let fits = name.len() > 1 && name.as_bytes()[0].is_ascii_alphanumeric() && name.bytes().all(is_word);
    if fits {
        return Ok(());
    }
    let pattern = "^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$";
    Err(Failure::usage(format!("context name {name:?} is invalid, names should match regexp {pattern:?}")))
}

/// Writes a context as the tar that Docker exports.
pub(crate) fn export(name: &str, output: &mut dyn Write) -> Result<(), Failure> {
    let context = load(name)?;
    let mut tar = Writer::new(output);
    let metadata = |mode| Metadata { mode, ..Metadata::default() };
    tar.file(b"meta.json", &metadata(0o644), &serde_json::to_vec(&context)?)?;
    let folder = tls_folder(name);
    for file in TLS_FILES {
        if let Ok(contents) = std::fs::read(folder.join(file)) {
            tar.file(format!("tls/{DOCKER}/{file}").as_bytes(), &metadata(0o600), &contents)?;
        }
    }
    tar.finish()?;
    Ok(())
}

/// Reads a context from the tar that Docker exports, under a new name.
pub(crate) fn import(name: &str, input: impl Read) -> Result<(), Failure> {
    let invalid = |what: &str| Failure::usage(format!("invalid context: {what}"));
    let mut tar = Reader::new(input.take(MAX_IMPORT));
    let (mut context, mut certificates) = (None, BTreeMap::new());
    while let Some(entry) = tar.next_entry()? {
        if !matches!(entry.kind, EntryKind::File { .. }) {
            continue;
        }
        let path = String::from_utf8(entry.path).map_err(|_| invalid("a name is no text"))?;
        let mut contents = Vec::new();
        tar.read_to_end(&mut contents)?;
        if path == "meta.json" {
            context = Some(serde_json::from_slice::<StoredContext>(&contents)?);
        } else if let Some(file) = path.strip_prefix("tls/docker/").filter(|file| TLS_FILES.contains(file)) {
            certificates.insert(file.to_owned(), contents);
        } else {
            return Err(invalid(&format!("unexpected context file {path}")));
        }
    }
    let mut context = context.ok_or_else(|| invalid("there is no meta.json in it"))?;
    name.clone_into(&mut context.name);
    context.host()?;
    save(&context, &certificates)
}

fn private_folder(path: &Path) -> io::Result<PathBuf> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    Ok(path.to_owned())
}

/// Keys are among them.
fn write_file(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(contents)
}
