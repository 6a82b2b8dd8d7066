//! The policy file.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci::Reference;
use serde_json::Value;

use crate::identity::SignedIdentity;
use crate::key::{KeyError, PEM_BYTES_MAX, PublicKey};
use crate::strict::Members;

/// The largest policy that is read.
const POLICY_BYTES_MAX: u64 = 1 << 20;
/// Keys of one requirement.
const KEYS_MAX: usize = 64;
/// Names of transports in the format; images come here by some of them.
const TRANSPORTS: &[&str] = &[
    "atomic",
    "containers-storage",
    "dir",
    "docker",
    "docker-archive",
    "docker-daemon",
    "oci",
    "oci-archive",
    "ostree",
    "sif",
    "tarball",
    Transport::Build.name(),
];

/// How an image came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// From a registry: `docker`.
    Registry,
    /// From an archive, or copied from another engine: `docker-archive`.
    Archive,
    /// Imported from a tar of files: `tarball`.
    Import,
    /// Built or committed here: `conex-build`, which the format does not know.
    Build,
}

impl Transport {
    /// Its name in policies.
    pub const fn name(self) -> &'static str {
        match self {
            Transport::Registry => "docker",
            Transport::Archive => "docker-archive",
            Transport::Import => "tarball",
            Transport::Build => "conex-build",
        }
    }
}

/// What is asked of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    default: Rule,
    transports: Vec<(String, Vec<(String, Rule)>)>,
}

/// What is asked of the images of one scope: all of it must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What people call it: `default`, or transport and scope.
    pub name: String,
    pub(crate) requirements: Vec<Requirement>,
}

/// One thing that is asked of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing.
    AcceptAnything,
    /// What no image has.
    Reject,
    /// A signature by one of these keys, under a name that agrees.
    Signed {
        /// The keys.
        keys: Vec<PublicKey>,
        /// How the names must agree.
        identity: SignedIdentity,
    },
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is implausibly large.
    #[error("{path} is larger than {limit_bytes} bytes")]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// The limit.
        limit_bytes: u64,
    },
    /// Not JSON, or with members twice.
    #[error("invalid image policy")]
    Json(#[from] serde_json::Error),
    /// A member that nobody knows, or that is missing or of the wrong kind.
    #[error("invalid image policy: {place}: {what}")]
    Invalid {
        /// Where.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// Something that the format has and Conex does not.
    #[error("image policy: {place}: {what} is not supported")]
    Unsupported {
        /// Where.
        place: String,
        /// What.
        what: String,
    },
    /// A key that is none.
    #[error("image policy: {place}: cannot use the key {key}")]
    Key {
        /// Where.
        place: String,
        /// Its file, or `keyData`.
        key: String,
        /// Why not.
        source: KeyError,
    },
}

impl Policy {
    /// Reads a policy and the keys that it names.
    pub fn load(path: &Path) -> Result<Policy, PolicyError> {
        let text = read(path, POLICY_BYTES_MAX)?;
        Policy::parse(&text, &|path| read(path, PEM_BYTES_MAX as u64))
    }

    /// Reads a policy from text; `read_key` gives the text of a file of keys.
    pub fn parse(text: &str, read_key: KeyReader<'_>) -> Result<Policy, PolicyError> {
        let Members(members) = serde_json::from_str::<Members<Value>>(text)?;
        // `Value` would have kept the last of two members: it is read again, strictly, where it has members.
        let strict: Strict = serde_json::from_str(text)?;
        let mut policy = Policy { default: Rule::missing(), transports: Vec::new() };
        for (name, _) in &members {
            if !matches!(name.as_str(), "default" | "transports") {
                return Err(invalid("the file", format!("unknown member \"{name}\"")));
            }
        }
        let default = strict.default.ok_or_else(|| invalid("the file", "\"default\" is missing"))?;
        policy.default = rule("default".to_owned(), default, read_key)?;
        for (transport, scopes) in strict.transports.unwrap_or(Members(Vec::new())).0 {
            if !TRANSPORTS.contains(&transport.as_str()) {
                return Err(invalid("transports", format!("unknown transport \"{transport}\"")));
            }
            let mut rules = Vec::new();
            for (scope, requirements) in scopes.0 {
                check_scope(&transport, &scope)?;
                let name = format!("{transport} \"{scope}\"");
                rules.push((scope, rule(name, requirements, read_key)?));
            }
            policy.transports.push((transport, rules));
        }
        Ok(policy)
    }

    /// The rule for an image: that of the most specific scope, of its transport, or the default.
    pub fn rule(&self, transport: Transport, reference: Option<&Reference>) -> &Rule {
        let rules = self.transports.iter().find(|(name, _)| name == transport.name());
        let Some((_, rules)) = rules else { return &self.default };
        let find = |scope: &str| rules.iter().find(|(name, _)| name == scope).map(|(_, rule)| rule);
        let scopes = reference.map(scopes_of).unwrap_or_default();
        scopes.iter().find_map(|scope| find(scope)).or_else(|| find("")).unwrap_or(&self.default)
    }
}

/// How the text of a file of keys is got.
pub(crate) type KeyReader<'a> = &'a dyn Fn(&Path) -> Result<String, PolicyError>;

#[derive(serde::Deserialize)]
struct Strict {
    default: Option<Vec<Members<Value>>>,
    transports: Option<Members<Members<Vec<Members<Value>>>>>,
}

impl Rule {
    fn missing() -> Rule {
        Rule { name: "default".to_owned(), requirements: vec![Requirement::Reject] }
    }
}

fn invalid(place: &str, what: impl Into<String>) -> PolicyError {
    PolicyError::Invalid { place: place.to_owned(), what: what.into() }
}

fn read(path: &Path, limit_bytes: u64) -> Result<String, PolicyError> {
    let failed = |source| PolicyError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(limit_bytes + 1).read_to_string(&mut text).map_err(failed)?;
    match text.len() as u64 > limit_bytes {
        true => Err(PolicyError::TooLarge { path: path.to_owned(), limit_bytes }),
        false => Ok(text),
    }
}

/// What is most specific first: name with tag or digest, repository, the paths above it, the host, hosts above that.
fn scopes_of(reference: &Reference) -> Vec<String> {
    let mut scopes = vec![reference.canonical()];
    let name = reference.canonical_name();
    let mut rest = name.as_str();
    loop {
        scopes.push(rest.to_owned());
        match rest.rsplit_once('/') {
            Some((above, _)) => rest = above,
            None => break,
        }
    }
    let mut host = reference.domain().split(':').next().unwrap_or_default();
    while let Some((_, above)) = host.split_once('.') {
        scopes.push(format!("*.{above}"));
        host = above;
    }
    scopes
}

fn check_scope(transport: &str, scope: &str) -> Result<(), PolicyError> {
    let has_no_scopes = [Transport::Archive, Transport::Import, Transport::Build];
    match transport {
        _ if scope.is_empty() => Ok(()),
        "docker" if scope.starts_with("*.") && scope.contains(['/', ':']) => {
            Err(invalid("transports: docker", format!("scope \"{scope}\": a wildcard is for hosts alone")))
        }
        "docker" if scope.starts_with('/') || scope.ends_with('/') || scope.contains("//") => {
            Err(invalid("transports: docker", format!("scope \"{scope}\" is no beginning of a name")))
        }
        _ if has_no_scopes.iter().any(|known| known.name() == transport) => {
            Err(invalid("transports", format!("{transport} has no scopes but \"\", so not \"{scope}\"")))
        }
        _ => Ok(()),
    }
}

fn rule(name: String, requirements: Vec<Members<Value>>, read_key: KeyReader<'_>) -> Result<Rule, PolicyError> {
    if requirements.is_empty() {
        // The format has no list that means "anything".
        return Err(invalid(&name, "the list of requirements is empty"));
    }
    let read = |members| requirement(&name, members, read_key);
    let requirements = requirements.into_iter().map(read).collect::<Result<_, _>>()?;
    Ok(Rule { name, requirements })
}

fn requirement(
    place: &str,
    Members(members): Members<Value>,
    read_key: KeyReader<'_>,
) -> Result<Requirement, PolicyError> {
    let kind = members.iter().find(|(name, _)| name == "type").and_then(|(_, kind)| kind.as_str());
    let kind = kind.ok_or_else(|| invalid(place, "a requirement has no \"type\""))?.to_owned();
    let rest: Vec<(String, Value)> = members.into_iter().filter(|(name, _)| name != "type").collect();
    match kind.as_str() {
        "insecureAcceptAnything" | "reject" => match rest.first() {
            Some((name, _)) => Err(invalid(place, format!("unknown member \"{name}\" of {kind}"))),
            None if kind == "reject" => Ok(Requirement::Reject),
            None => Ok(Requirement::AcceptAnything),
        },
        "sigstoreSigned" => signed(place, rest, read_key),
        "signedBy" | "signedBaseLayer" => {
            let what = format!("requirement \"{kind}\" (GPG signatures)");
            Err(PolicyError::Unsupported { place: place.to_owned(), what })
        }
        other => Err(invalid(place, format!("unknown requirement \"{other}\""))),
    }
}

fn signed(place: &str, members: Vec<(String, Value)>, read_key: KeyReader<'_>) -> Result<Requirement, PolicyError> {
    let (mut sources, mut identity) = (None, SignedIdentity::MatchRepoDigestOrExact);
    for (name, value) in members {
        match name.as_str() {
            "keyPath" | "keyPaths" | "keyData" | "keyDatas" => {
                if sources.replace((name, value)).is_some() {
                    return Err(invalid(place, "exactly one of keyPath, keyPaths, keyData and keyDatas must be there"));
                }
            }
            "signedIdentity" => identity = signed_identity(place, value)?,
            "fulcio"
            | "pki"
            | "rekorPublicKeyPath"
            | "rekorPublicKeyPaths"
            | "rekorPublicKeyData"
            | "rekorPublicKeyDatas" => {
                let what = format!("\"{name}\" of sigstoreSigned");
                return Err(PolicyError::Unsupported { place: place.to_owned(), what });
            }
            other => return Err(invalid(place, format!("unknown member \"{other}\" of sigstoreSigned"))),
        }
    }
    let missing = || invalid(place, "exactly one of keyPath, keyPaths, keyData and keyDatas must be there");
    let (name, value) = sources.ok_or_else(missing)?;
    Ok(Requirement::Signed { keys: keys(place, &name, value, read_key)?, identity })
}

fn keys(place: &str, name: &str, value: Value, read_key: KeyReader<'_>) -> Result<Vec<PublicKey>, PolicyError> {
    let wrong = || invalid(place, format!("\"{name}\" must hold text"));
    let texts = match (name, value) {
        ("keyPath" | "keyData", Value::String(text)) => vec![text],
        ("keyPaths" | "keyDatas", Value::Array(texts)) => {
            let text = |text: Value| text.as_str().map(str::to_owned).ok_or_else(wrong);
            texts.into_iter().map(text).collect::<Result<_, _>>()?
        }
        _ => return Err(wrong()),
    };
    if texts.is_empty() || texts.len() > KEYS_MAX {
        return Err(invalid(place, format!("\"{name}\" must hold one to {KEYS_MAX} keys")));
    }
    let key = |text: String| {
        let failed = |key: &str, source| PolicyError::Key { place: place.to_owned(), key: key.to_owned(), source };
        if name.starts_with("keyPath") {
            let path = Path::new(&text);
            if !path.is_absolute() {
                return Err(invalid(place, format!("the key's path {text} must be absolute")));
            }
            return PublicKey::from_pem(&read_key(path)?).map_err(|source| failed(&text, source));
        }
        let pem = STANDARD.decode(&text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let pem = pem.ok_or_else(|| failed("keyData", KeyError::Malformed))?;
        PublicKey::from_pem(&pem).map_err(|source| failed("keyData", source))
    };
    texts.into_iter().map(key).collect()
}

fn signed_identity(place: &str, value: Value) -> Result<SignedIdentity, PolicyError> {
    let wrong = |what: &str| invalid(place, format!("signedIdentity: {what}"));
    let Value::Object(mut members) = value else { return Err(wrong("it must be an object")) };
    let mut text = |name: &str| match members.remove(name) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(wrong(&format!("\"{name}\" is missing"))),
    };
    let reference = |text: String| Reference::parse(&text).map_err(|error| wrong(&format!("{text}: {error}")));
    let identity = match text("type")?.as_str() {
        "matchExact" => SignedIdentity::MatchExact,
        "matchRepoDigestOrExact" => SignedIdentity::MatchRepoDigestOrExact,
        "matchRepository" => SignedIdentity::MatchRepository,
        "exactReference" => match reference(text("dockerReference")?)? {
            name if name.is_name_only() => return Err(wrong("\"dockerReference\" needs a tag or a digest")),
            name => SignedIdentity::ExactReference(name),
        },
        "exactRepository" => SignedIdentity::ExactRepository(reference(text("dockerRepository")?)?),
        "remapIdentity" => SignedIdentity::Remap { prefix: text("prefix")?, signed_prefix: text("signedPrefix")? },
        other => return Err(wrong(&format!("unknown type \"{other}\""))),
    };
    match members.keys().next() {
        Some(name) => Err(wrong(&format!("unknown member \"{name}\""))),
        None => Ok(identity),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::testing::{P256_PREFIX, pem};

    fn parse(text: &str) -> Result<Policy, String> {
        let read_key = |path: &Path| match path.to_str() {
            Some("/good.pub") => Ok(pem(P256_PREFIX, &[4; 65])),
            _ => Ok("junk".to_owned()),
        };
        Policy::parse(text, &read_key).map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            format!("{error}{cause}")
        })
    }

    fn rule_name(policy: &Policy, name: &str) -> String {
        policy.rule(Transport::Registry, Some(&Reference::parse(name).unwrap())).name.clone()
    }

    const REJECT: &str = r#"[{"type":"reject"}]"#;

    #[test]
    fn the_most_specific_scope_counts() {
        let policy = parse(&format!(
            r#"{{"default":{REJECT},"transports":{{"docker":{{"docker.io":{REJECT},"docker.io/library":{REJECT},"docker.io/library/busybox:1":{REJECT},"*.example.com":{REJECT},"r:5000":{REJECT}}},"docker-archive":{{"":{REJECT}}}}}}}"#
        ))
        .unwrap();
        for (name, expected) in [
            ("busybox:1", r#"docker "docker.io/library/busybox:1""#),
            ("busybox:2", r#"docker "docker.io/library""#),
            ("me/x:1", r#"docker "docker.io""#),
            ("a.b.example.com:99/x:1", r#"docker "*.example.com""#),
            ("example.com/x:1", "default"),
            ("r:5000/x/y:1", r#"docker "r:5000""#),
            ("r.other/x:1", "default"),
        ] {
            assert_eq!(rule_name(&policy, name), expected, "{name}");
        }
        assert_eq!(policy.rule(Transport::Archive, None).name, r#"docker-archive """#);
        assert_eq!(policy.rule(Transport::Build, None).name, "default");
    }

    #[test]
    fn what_is_wrong_or_not_built_is_named() {
        let signed = |more: &str| format!(r#"{{"default":[{{"type":"sigstoreSigned"{more}}}]}}"#);
        let key = r#","keyPath":"/good.pub""#;
        for (text, part) in [
            ("[]".to_owned(), "invalid image policy"),
            ("{}".to_owned(), "\"default\" is missing"),
            (r#"{"default":[]}"#.to_owned(), "the list of requirements is empty"),
            (format!(r#"{{"default":{REJECT},"extra":1}}"#), "unknown member \"extra\""),
            (format!(r#"{{"default":{REJECT},"default":{REJECT}}}"#), "is there twice"),
            (r#"{"default":[{"type":"reject","type":"insecureAcceptAnything"}]}"#.to_owned(), "is there twice"),
            (r#"{"default":[{"type":"reject","why":1}]}"#.to_owned(), "unknown member \"why\" of reject"),
            (
                r#"{"default":[{"type":"signedBy","keyType":"GPGKeys"}]}"#.to_owned(),
                "\"signedBy\" (GPG signatures) is not supported",
            ),
            (r#"{"default":[{"type":"other"}]}"#.to_owned(), "unknown requirement \"other\""),
            (r#"{"default":[{}]}"#.to_owned(), "has no \"type\""),
            (signed(""), "exactly one of keyPath"),
            (signed(r#","keyPath":"/good.pub","keyData":"x""#), "exactly one of keyPath"),
            (signed(r#","keyPath":"good.pub""#), "must be absolute"),
            (
                signed(r#","keyPath":"/bad.pub""#),
                "cannot use the key /bad.pub: no \"-----BEGIN PUBLIC KEY-----\" block",
            ),
            (signed(r#","keyData":"!""#), "cannot use the key keyData"),
            (signed(r#","fulcio":{}"#), "\"fulcio\" of sigstoreSigned is not supported"),
            (
                signed(&format!(r#"{key},"rekorPublicKeyPath":"/x""#)),
                "\"rekorPublicKeyPath\" of sigstoreSigned is not supported",
            ),
            (signed(&format!(r#"{key},"signedIdentity":{{"type":"odd"}}"#)), "unknown type \"odd\""),
            (
                signed(&format!(r#"{key},"signedIdentity":{{"type":"exactReference","dockerReference":"a/b"}}"#)),
                "needs a tag or a digest",
            ),
            (format!(r#"{{"default":{REJECT},"transports":{{"dokcer":{{}}}}}}"#), "unknown transport \"dokcer\""),
            (format!(r#"{{"default":{REJECT},"transports":{{"docker-archive":{{"x":{REJECT}}}}}}}"#), "has no scopes"),
            (
                format!(r#"{{"default":{REJECT},"transports":{{"docker":{{"*.x/y":{REJECT}}}}}}}"#),
                "a wildcard is for hosts alone",
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(parse(&signed(key)).is_ok());
        assert!(
            parse(&signed(r#","keyPaths":["/good.pub","/good.pub"],"signedIdentity":{"type":"matchRepository"}"#))
                .is_ok()
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]{}\",: a-z]{0,80}") {
            let _ = parse(&text);
        }
    }
}
