//! `RUN --mount`.

use crate::expand::ExpandError;
use crate::suggest::hint;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// Where; may be relative to the working directory, or empty.
    pub target: String,
    /// Whether it cannot be written.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// Files of a stage, an image or the context.
    Bind {
        /// Whose files; the context's when there is none.
        from: Option<String>,
        /// Which of them.
        source: String,
    },
    /// A directory that survives the build.
    Cache {
        /// Its name; the target when there is none.
        id: Option<String>,
        /// Who may use it at once.
        sharing: Sharing,
        /// What it holds at first.
        from: Option<String>,
        /// Which part of that.
        source: String,
        /// Who owns it.
        owner: FileOwner,
    },
    /// An empty directory that nobody keeps.
    Tmpfs {
        /// How much it holds.
        size_bytes: Option<u64>,
    },
    /// A secret as a file or a variable.
    Secret {
        /// Its name.
        id: String,
        /// The variable that it becomes; an empty name is the secret's own.
        variable: Option<String>,
        /// Whether the build fails without it.
        required: bool,
        /// Who owns the file.
        owner: FileOwner,
    },
    /// The socket of an SSH agent.
    Ssh {
        /// Its name.
        id: Option<String>,
        /// Whether the build fails without it.
        required: bool,
        /// Who owns the socket.
        owner: FileOwner,
    },
}

/// Owner and permissions, where they were given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileOwner {
    /// `mode`
    pub mode: Option<u32>,
    /// `uid`
    pub uid: Option<u32>,
    /// `gid`
    pub gid: Option<u32>,
}

/// Who may use a cache at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sharing {
    /// All.
    #[default]
    Shared,
    /// Everybody gets one of their own.
    Private,
    /// One waits for the other.
    Locked,
}

/// A mount that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// Quotes that are not closed.
    #[error("failed to parse csv mounts: {0:?}")]
    Csv(String),
    /// A word without value.
    #[error("invalid field '{0}' must be a key=value pair")]
    NotKeyValue(String),
    /// An unknown key.
    #[error("unexpected key '{key}' in '{field}'{hint}")]
    UnknownKey {
        /// The key.
        key: String,
        /// All of it.
        field: String,
        /// What was meant, perhaps.
        hint: String,
    },
    /// A key that this type does not have.
    #[error("unexpected key '{key}' for mount type '{kind}'")]
    KeyOfOtherType {
        /// The key.
        key: String,
        /// The type.
        kind: &'static str,
    },
    /// An unknown type.
    #[error("unsupported mount type {kind:?}{hint}")]
    Type {
        /// As written.
        kind: String,
        /// What was meant, perhaps.
        hint: String,
    },
    /// Unknown sharing.
    #[error("unsupported sharing value {sharing:?}{hint}")]
    SharingValue {
        /// As written.
        sharing: String,
        /// What was meant, perhaps.
        hint: String,
    },
    /// Neither true nor false, or no size.
    #[error("invalid value for {key}: {value}")]
    Value {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// No number.
    #[error("invalid value {value} for {key}")]
    Number {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// Owner or permissions where there are none.
    #[error("{key} not allowed for {kind:?} type mounts")]
    Owner {
        /// The key.
        key: &'static str,
        /// The type.
        kind: &'static str,
    },
    /// A variable in `from`.
    #[error("'from' doesn't support variable expansion, define alias stage instead")]
    FromVariable,
    /// A secret from a stage.
    #[error("secret mount should not have a from")]
    SecretFrom,
    /// A secret without name.
    #[error("invalid secret mount. one of source, target required")]
    SecretName,
    /// A secret with two names.
    #[error("both source and id can't be set")]
    SecretNames,
    /// Sharing of something that cannot be shared.
    #[error("invalid cache sharing set for {0} mount")]
    Sharing(&'static str),
    /// No target.
    #[error("mount target cannot be empty")]
    Target,
    /// A value cannot be expanded.
    #[error(transparent)]
    Expand(#[from] ExpandError),
}

const TYPES: &[&str] = &["bind", "cache", "tmpfs", "secret", "ssh"];
const KEYS: &[&str] = &[
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// The fields as they come; the type may come after others.
#[derive(Debug, Default)]
struct Fields {
    kind: Option<&'static str>,
    from: Option<String>,
    source: Option<String>,
    target: Option<String>,
    read_only: Option<bool>,
    required: bool,
    size_bytes: Option<u64>,
    id: Option<String>,
    sharing: Option<Sharing>,
    variable: Option<String>,
    owner: FileOwner,
}

impl Mount {
    /// Parses `key=value,…`; `expand` replaces variables in values.
    pub fn parse(text: &str, expand: &mut dyn FnMut(&str) -> Result<String, ExpandError>) -> Result<Mount, MountError> {
        let mut fields = Fields::default();
        for field in split_csv(text)? {
            fields.set(&field, expand)?;
        }
        fields.finish()
    }

    /// The stage or image that the mount needs, and whether its text can be read at all; variables stay.
    pub fn parse_unexpanded(text: &str) -> Result<Option<String>, MountError> {
        let mut from = None;
        for field in split_csv(text)? {
            let Some((key, value)) = field.split_once('=') else { continue };
            if key.eq_ignore_ascii_case("from") {
                if value.find('$').is_some_and(|at| at + 1 != value.len()) {
                    return Err(MountError::FromVariable);
                }
                from = Some(value.to_owned());
            }
        }
        Ok(from)
    }
}

impl Fields {
    fn kind(&self) -> &'static str {
        self.kind.unwrap_or("bind")
    }

    fn set(
        &mut self,
        field: &str,
        expand: &mut dyn FnMut(&str) -> Result<String, ExpandError>,
    ) -> Result<(), MountError> {
        let Some((key, value)) = field.split_once('=') else { return self.set_word(field) };
        let (key, value) = (key.to_ascii_lowercase(), expand(value)?);
        match key.as_str() {
            "type" => self.kind = Some(known_type(&value)?),
            "from" => self.from = Some(value),
            "source" | "src" => self.source = Some(value),
            "target" | "dst" | "destination" => self.target = Some(value),
            "readonly" | "ro" => self.read_only = Some(boolean(&key, &value)?),
            "readwrite" | "rw" => self.read_only = Some(!boolean(&key, &value)?),
            "required" => {
                self.only_for(&key, &["secret", "ssh"])?;
                self.required = boolean(&key, &value)?;
            }
            "size" => {
                self.only_for(&key, &["tmpfs"])?;
                self.size_bytes = Some(size(&value).ok_or(MountError::Value { key, value })?);
            }
            "id" => self.id = Some(value),
            "sharing" => self.sharing = Some(known_sharing(&value)?),
            "mode" => self.owner.mode = Some(number("mode", &value, 8)?),
            "uid" => self.owner.uid = Some(number("uid", &value, 10)?),
            "gid" => self.owner.gid = Some(number("gid", &value, 10)?),
            "env" => self.variable = Some(value),
            _ => {
                let hint = hint(&key, KEYS.iter().copied());
                return Err(MountError::UnknownKey { key, field: field.to_owned(), hint });
            }
        }
        Ok(())
    }

    fn set_word(&mut self, word: &str) -> Result<(), MountError> {
        match word.to_ascii_lowercase().as_str() {
            "readonly" | "ro" => self.read_only = Some(true),
            "readwrite" | "rw" => self.read_only = Some(false),
            "required" => {
                self.only_for("required", &["secret", "ssh"])?;
                self.required = true;
            }
            _ => return Err(MountError::NotKeyValue(word.to_owned())),
        }
        Ok(())
    }

    fn only_for(&self, key: &str, kinds: &[&str]) -> Result<(), MountError> {
        let kind = self.kind();
        if kinds.contains(&kind) { Ok(()) } else { Err(MountError::KeyOfOtherType { key: key.to_owned(), kind }) }
    }

    fn check(&self) -> Result<(), MountError> {
        let kind = self.kind();
        if matches!(kind, "bind" | "tmpfs") {
            let given = [("mode", self.owner.mode), ("uid", self.owner.uid), ("gid", self.owner.gid)];
            if let Some((key, _)) = given.into_iter().find(|(_, value)| value.is_some()) {
                return Err(MountError::Owner { key, kind });
            }
        }
        if self.sharing.is_some() && kind != "cache" {
            return Err(MountError::Sharing(kind));
        }
        if kind != "secret" && kind != "ssh" && self.target.as_deref().unwrap_or_default().is_empty() {
            return Err(MountError::Target);
        }
        Ok(())
    }

    fn finish(self) -> Result<Mount, MountError> {
        self.check()?;
        let kind = self.kind();
        let read_only = self.read_only.unwrap_or(!matches!(kind, "cache" | "tmpfs"));
        let target = self.target.clone().unwrap_or_default();
        let source = self.source.clone().unwrap_or_default();
        let from = self.from.clone().filter(|from| !from.is_empty());
        let kind = match kind {
            "bind" => MountKind::Bind { from, source },
            "cache" => MountKind::Cache {
                id: self.id.filter(|id| !id.is_empty()),
                sharing: self.sharing.unwrap_or_default(),
                from,
                source,
                owner: self.owner,
            },
            "tmpfs" => MountKind::Tmpfs { size_bytes: self.size_bytes.filter(|bytes| *bytes > 0) },
            "secret" => self.secret()?,
            _ => MountKind::Ssh { id: self.id, required: self.required, owner: self.owner },
        };
        Ok(Mount { kind, target, read_only })
    }

    /// A secret's name is its id, its source, or the last part of its target.
    fn secret(self) -> Result<MountKind, MountError> {
        if self.from.is_some() {
            return Err(MountError::SecretFrom);
        }
        let present = |text: Option<String>| text.filter(|text| !text.is_empty());
        let (id, source, target) = (present(self.id), present(self.source), present(self.target));
        let id = match (id, source) {
            (Some(_), Some(_)) => return Err(MountError::SecretNames),
            (Some(name), None) | (None, Some(name)) => name,
            (None, None) => {
                let target = target.ok_or(MountError::SecretName)?;
                target.rsplit('/').next().unwrap_or_default().to_owned()
            }
        };
        Ok(MountKind::Secret { id, variable: self.variable, required: self.required, owner: self.owner })
    }
}

fn known_type(value: &str) -> Result<&'static str, MountError> {
    let lower = value.to_ascii_lowercase();
    TYPES
        .iter()
        .find(|kind| **kind == lower)
        .copied()
        .ok_or_else(|| MountError::Type { kind: value.to_owned(), hint: hint(value, TYPES.iter().copied()) })
}

fn known_sharing(value: &str) -> Result<Sharing, MountError> {
    match value.to_ascii_lowercase().as_str() {
        "shared" => Ok(Sharing::Shared),
        "private" => Ok(Sharing::Private),
        "locked" => Ok(Sharing::Locked),
        _ => Err(MountError::SharingValue {
            sharing: value.to_owned(),
            hint: hint(value, ["shared", "private", "locked"]),
        }),
    }
}

fn boolean(key: &str, value: &str) -> Result<bool, MountError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(MountError::Value { key: key.to_owned(), value: value.to_owned() }),
    }
}

fn number(key: &'static str, value: &str, base: u32) -> Result<u32, MountError> {
    u32::from_str_radix(value, base).map_err(|_| MountError::Number { key, value: value.to_owned() })
}

/// `64m`, `1.5GiB`: powers of 1024.
fn size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let unit = text[end..].trim().to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit);
    let power = ["", "k", "m", "g", "t", "p"].iter().position(|known| *known == unit)?;
    let bytes = number * 1024_f64.powi(i32::try_from(power).ok()?);
    (bytes.is_finite() && bytes >= 0.0).then_some(bytes as u64)
}

/// Fields between commas; one in double quotes may hold commas, and doubled quotes.
fn split_csv(text: &str) -> Result<Vec<String>, MountError> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => csv_quoted(quoted).ok_or_else(|| MountError::Csv(text.to_owned()))?,
            None => {
                let end = rest.find([',', '"']).unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None if after.is_empty() => return Ok(fields),
            None => return Err(MountError::Csv(text.to_owned())),
        }
    }
}

fn csv_quoted(text: &str) -> Option<(String, &str)> {
    let (mut field, mut rest) = (String::new(), text);
    loop {
        let (before, after) = rest.split_once('"')?;
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return Some((field, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Mount, MountError> {
        Mount::parse(text, &mut |word| Ok(word.to_owned()))
    }

    #[test]
    fn the_five_kinds() {
        let owner = FileOwner::default();
        let bind = MountKind::Bind { from: Some("base".into()), source: "/x".into() };
        assert_eq!(
            parse("target=/m,from=base,source=/x").unwrap(),
            Mount { kind: bind, target: "/m".into(), read_only: true }
        );
        let cache = MountKind::Cache {
            id: Some("go".into()),
            sharing: Sharing::Locked,
            from: None,
            source: String::new(),
            owner: FileOwner { mode: Some(0o755), uid: Some(1), gid: Some(2) },
        };
        assert_eq!(
            parse("type=cache,dst=/c,id=go,sharing=locked,mode=0755,uid=1,gid=2").unwrap(),
            Mount { kind: cache, target: "/c".into(), read_only: false }
        );
        let tmpfs = MountKind::Tmpfs { size_bytes: Some(64 << 20) };
        assert_eq!(parse("type=tmpfs,target=/t,size=64m").unwrap().kind, tmpfs);
        let secret = MountKind::Secret { id: "key".into(), variable: None, required: true, owner };
        assert_eq!(parse("type=secret,target=/run/key,required").unwrap().kind, secret);
        let ssh = MountKind::Ssh { id: None, required: false, owner };
        assert_eq!(parse("type=ssh").unwrap().kind, ssh);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("type=bnd,target=/x", "unsupported mount type \"bnd\" (did you mean bind?)"),
            ("tagret=/x", "unexpected key 'tagret' in 'tagret=/x' (did you mean target?)"),
            ("foo", "invalid field 'foo' must be a key=value pair"),
            ("type=bind,target=/x,uid=1", "uid not allowed for \"bind\" type mounts"),
            ("type=bind,target=/x,size=1", "unexpected key 'size' for mount type 'bind'"),
            ("type=cache,target=/x,sharing=lockd", "unsupported sharing value \"lockd\" (did you mean locked?)"),
            ("type=secret", "invalid secret mount. one of source, target required"),
            ("type=secret,id=a,source=b", "both source and id can't be set"),
            ("type=tmpfs,target=/x,sharing=locked", "invalid cache sharing set for tmpfs mount"),
            ("target=/x,ro=maybe", "invalid value for ro: maybe"),
            ("type=cache,target=/x,mode=9", "invalid value 9 for mode"),
            ("target=\"/x", "failed to parse csv mounts: \"target=\\\"/x\""),
        ];
        for (text, message) in cases {
            assert_eq!(parse(text).unwrap_err().to_string(), message, "{text}");
        }
        assert_eq!(Mount::parse_unexpanded("from=$X,target=/x"), Err(MountError::FromVariable));
        assert_eq!(Mount::parse_unexpanded("from=a,target=$X"), Ok(Some("a".into())));
    }

    #[test]
    fn fields_may_be_quoted() {
        assert_eq!(split_csv(r#"a=b,"c=d,""e""",f"#).unwrap(), ["a=b", r#"c=d,"e""#, "f"]);
    }
}
