//! Docker's `config.json`: who the user is to which registry, in the file itself or with a helper program.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use docker_api::AuthConfig;
use oci::Reference;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::Failure;

/// What Docker Hub is called in `config.json`.
pub(crate) const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// The name under which helpers keep tokens.
const TOKEN_USER: &str = "<token>";

/// The file, with everything that others have written into it.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    path: PathBuf,
    document: Map<String, Value>,
}

/// What a helper reads and writes.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct HelperCredentials {
    #[serde(rename = "ServerURL")]
    server_url: String,
    username: String,
    secret: String,
}

/// Where credentials were put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stored {
    /// In the file at this place, for everybody to read who can read the file.
    File(PathBuf),
    /// With a helper.
    Helper,
}

/// `$DOCKER_CONFIG`, or the folder in the home folder: where the docker command line keeps what it knows.
pub(crate) fn config_folder() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || variable("HOME").unwrap_or_else(|| "/".into()).join(".docker");
    variable("DOCKER_CONFIG").unwrap_or_else(home)
}

impl ConfigFile {
    /// Reads `$DOCKER_CONFIG/config.json`, or the one in the home folder. A file that is not there is an empty one.
    pub(crate) fn load() -> Result<Self, Failure> {
        let path = config_folder().join("config.json");
        let failed = |error: String| Failure::usage(format!("cannot read {}: {error}", path.display()));
        let document = match std::fs::read(&path) {
            Ok(bytes) if bytes.trim_ascii().is_empty() => Map::new(),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Map::new(),
            Err(error) => return Err(failed(error.to_string())),
        };
        Ok(Self { path, document })
    }

    /// The folder that it is in, or would be.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.path.parent().unwrap_or_else(|| std::path::Path::new("/"))
    }

    /// A text that is kept under a key.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        self.document.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// Keeps a text under a key, or nothing.
    pub(crate) fn set_text(&mut self, key: &str, text: Option<&str>) -> Result<(), Failure> {
        match text {
            Some(text) => drop(self.document.insert(key.to_owned(), text.into())),
            None => drop(self.document.remove(key)),
        }
        self.save()
    }

    /// What is known for the registry of an image.
    pub(crate) fn of_image(&self, image: &str) -> Result<AuthConfig, Failure> {
        let domain = Reference::parse(image).map(|reference| reference.domain().to_owned());
        // A name that is none is refused by the engine, in Docker's words.
        self.credentials(&server_name(&domain.unwrap_or_default()))
    }

    /// What is known for a registry.
    pub(crate) fn credentials(&self, server: &str) -> Result<AuthConfig, Failure> {
        if let Some(helper) = self.helper(server) {
            return Ok(helper_get(&helper, server)?.map(|found| found.into_auth(server)).unwrap_or_default());
        }
        let auths = self.document.get("auths").and_then(Value::as_object);
        let entry = auths.and_then(|auths| {
            auths
                .get(server)
                .or_else(|| auths.iter().find(|(key, _)| host_of(key) == host_of(server)).map(|(_, value)| value))
        });
        Ok(entry.map(|entry| auth_of(entry, server)).unwrap_or_default())
    }

    /// What is known for all registries, by their keys.
    pub(crate) fn everybody(&self) -> Result<BTreeMap<String, AuthConfig>, Failure> {
        let keys =
            |name: &str| self.document.get(name).and_then(Value::as_object).into_iter().flat_map(Map::keys).cloned();
        let mut servers: BTreeSet<String> = keys("auths").chain(keys("credHelpers")).collect();
        if let Some(helper) = self.document.get("credsStore").and_then(Value::as_str).filter(|name| !name.is_empty()) {
            servers.extend(helper_list(helper)?);
        }
        let mut all = BTreeMap::new();
        for server in servers {
            let known = self.credentials(&server)?;
            if !known.is_anonymous() {
                all.insert(server, known);
            }
        }
        Ok(all)
    }

    /// Keeps credentials.
    pub(crate) fn store(&mut self, auth: &AuthConfig) -> Result<Stored, Failure> {
        let server = auth.serveraddress.as_str();
        if let Some(helper) = self.helper(server) {
            let (username, secret) = match auth.identitytoken.as_str() {
                "" => (auth.username.clone(), auth.password.clone()),
                token => (TOKEN_USER.to_owned(), token.to_owned()),
            };
            let given = HelperCredentials { server_url: server.to_owned(), username, secret };
            run_helper(&helper, "store", &serde_json::to_string(&given)?)?;
            return Ok(Stored::Helper);
        }
        let entry = match auth.identitytoken.as_str() {
            "" => json!({ "auth": STANDARD.encode(format!("{}:{}", auth.username, auth.password)) }),
            token => json!({ "auth": STANDARD.encode(format!("{}:", auth.username)), "identitytoken": token }),
        };
        self.auths().insert(server.to_owned(), entry);
        self.save()?;
        Ok(Stored::File(self.path.clone()))
    }

    /// Forgets credentials; says whether there were any.
    pub(crate) fn erase(&mut self, server: &str) -> Result<bool, Failure> {
        if let Some(helper) = self.helper(server) {
            let known = helper_list(&helper)?.iter().any(|kept| host_of(kept) == host_of(server));
            if known {
                run_helper(&helper, "erase", server)?;
            }
            return Ok(known);
        }
        let before = self.auths().len();
        self.auths().retain(|key, _| host_of(key) != host_of(server));
        let is_erased = self.auths().len() < before;
        if is_erased {
            self.save()?;
        }
        Ok(is_erased)
    }

    /// The helper that keeps a registry's credentials: its own, or the one for all.
    fn helper(&self, server: &str) -> Option<String> {
        let own = self
            .document
            .get("credHelpers")
            .and_then(|helpers| helpers.get(host_of(server)).or_else(|| helpers.get(server)));
        let name = own.or_else(|| self.document.get("credsStore"))?.as_str()?;
        Some(name.to_owned()).filter(|name| !name.is_empty())
    }

    fn auths(&mut self) -> &mut Map<String, Value> {
        let auths = self.document.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        if !auths.is_object() {
            *auths = Value::Object(Map::new());
        }
        auths.as_object_mut().expect("it was just made one")
    }

    /// Replaces the file whole, readable by its owner alone.
    fn save(&self) -> Result<(), Failure> {
        use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
        let failed = |error: io::Error| Failure::usage(format!("cannot write {}: {error}", self.path.display()));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(self.folder()).map_err(failed)?;
        // A link to a file kept elsewhere stays a link.
        let target = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let partial = target.with_extension("json.partial");
        let mut text = serde_json::to_string_pretty(&self.document)?;
        text.push('\n');
        let mut options = std::fs::OpenOptions::new();
        let file = options.create(true).truncate(true).write(true).mode(0o600).open(&partial);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)?;
        std::fs::rename(&partial, &target).map_err(failed)
    }
}

/// A registry's key in the file.
pub(crate) fn server_name(domain: &str) -> String {
    match domain {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB.to_owned(),
        domain => domain.to_owned(),
    }
}

/// `host:port` of a key, which may be a URL.
pub(crate) fn host_of(server: &str) -> &str {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

fn auth_of(entry: &Value, server: &str) -> AuthConfig {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let decoded =
        STANDARD.decode(text("auth")).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let (username, password) = match decoded.split_once(':') {
        Some((username, password)) => (username.to_owned(), password.trim_end_matches('\0').to_owned()),
        None => (text("username"), text("password")),
    };
    let (identitytoken, registrytoken) = (text("identitytoken"), text("registrytoken"));
    let serveraddress = server.to_owned();
    AuthConfig { username, password, identitytoken, registrytoken, serveraddress, ..AuthConfig::default() }
}

impl HelperCredentials {
    fn into_auth(self, server: &str) -> AuthConfig {
        let auth = AuthConfig { serveraddress: server.to_owned(), ..AuthConfig::default() };
        match self.username.as_str() {
            TOKEN_USER => AuthConfig { identitytoken: self.secret, ..auth },
            _ => AuthConfig { username: self.username, password: self.secret, ..auth },
        }
    }
}

fn helper_get(helper: &str, server: &str) -> Result<Option<HelperCredentials>, Failure> {
    match run_helper(helper, "get", server) {
        Ok(answer) => Ok(Some(serde_json::from_str(&answer)?)),
        // The protocol's own words.
        Err(failure) if failure.message.contains("credentials not found in native keychain") => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn helper_list(helper: &str) -> Result<Vec<String>, Failure> {
    let known: Map<String, Value> = serde_json::from_str(&run_helper(helper, "list", "")?)?;
    Ok(known.into_iter().map(|(server, _)| server).collect())
}

/// Runs `docker-credential-HELPER VERB`; the input goes to its standard input, the answer comes from its output, as do its errors.
fn run_helper(helper: &str, verb: &str, input: &str) -> Result<String, Failure> {
    let program = format!("docker-credential-{helper}");
    let failed = |why: String| Failure::usage(format!("error getting credentials - {program} {verb}: {why}"));
    let started = Command::new(&program).arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = started.map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read says why by its exit code.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() { Ok(text) } else { Err(failed(text)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(document: Value) -> ConfigFile {
        let Value::Object(document) = document else { panic!("an object") };
        ConfigFile { path: "/does/not/exist".into(), document }
    }

    #[test]
    fn credentials_are_found_under_every_key() {
        let file = config(json!({"auths": {
            "127.0.0.1:5000": {"auth": "dTpwOnc="},
            "https://reg.example/v2/": {"auth": "dTo=", "identitytoken": "t"},
            DOCKER_HUB: {"username": "hub", "password": "x"},
        }}));
        let found = file.of_image("127.0.0.1:5000/a").unwrap();
        assert_eq!((found.username.as_str(), found.password.as_str()), ("u", "p:w"));
        assert_eq!(file.of_image("reg.example/a/b:1").unwrap().identitytoken, "t");
        assert_eq!(file.of_image("alpine").unwrap().username, "hub");
        assert!(file.of_image("other.example/a").unwrap().is_anonymous());
        let everybody: Vec<String> = file.everybody().unwrap().into_keys().collect();
        assert_eq!(everybody, ["127.0.0.1:5000", DOCKER_HUB, "https://reg.example/v2/"]);
    }

    #[test]
    fn helpers_are_chosen_by_registry() {
        let file = config(json!({"credsStore": "all", "credHelpers": {"reg.example": "own"}}));
        assert_eq!(file.helper("reg.example").as_deref(), Some("own"));
        assert_eq!(file.helper(DOCKER_HUB).as_deref(), Some("all"));
        assert_eq!(config(json!({})).helper("x"), None);
    }
}
