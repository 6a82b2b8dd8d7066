//! The configuration file: Docker's `daemon.json`, under its rules and in its words.
//!
//! What it says becomes values of flags, so that each option is read and checked in one place. A directive that is also a flag on the
//! command line is a conflict, as in Docker; one that nobody knows is an error, and so is one of Docker's that has no meaning here.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::options::{FLAGS, Flag, OptionsError, Said, Shape};

/// The file that is read where it is there and no other is named.
const USUAL: &str = "/etc/conex/daemon.json";
/// What may differ when the file is read again.
const RELOADABLE: [&str; 8] = [
    "debug",
    "log-level",
    "labels",
    "runtimes",
    "default-runtime",
    "insecure-registries",
    "registry-mirrors",
    "default-shm-size",
];
/// What two engines that were configured alike may both say: the runtimes of the file are added to those of the command line.
const MERGED: &str = "runtimes";

/// Directives of Docker's that say what is always so here, and the only value that they can have.
const FIXED: [(&str, &str, &str); 7] = [
    ("live-restore", "true", "containers always outlive the engine"),
    ("userland-proxy", "false", "ports are published by the kernel, without a process"),
    ("experimental", "false", "there are no experimental parts"),
    ("selinux-enabled", "false", "SELinux labels are not given"),
    ("ip-forward", "true", "networks need forwarding"),
    ("ip-masq", "true", "a network says for itself whether it is translated"),
    ("exec-opts", r#"["native.cgroupdriver=cgroupfs"]"#, "cgroups are made as directories"),
];

/// Directives of Docker's that mean nothing here.
const FOREIGN: [&str; 47] = [
    "allow-nondistributable-artifacts",
    "api-cors-header",
    "authorization-plugins",
    "bridge",
    "builder",
    "cgroup-parent",
    "containerd",
    "containerd-namespace",
    "containerd-plugin-namespace",
    "cpu-rt-period",
    "cpu-rt-runtime",
    "default-cgroupns-mode",
    "default-gateway",
    "default-gateway-v6",
    "default-ipc-mode",
    "default-network-opts",
    "fixed-cidr",
    "host-gateway-ip",
    "http-proxy",
    "https-proxy",
    "icc",
    "init",
    "init-path",
    "ip",
    "ip6tables",
    "iptables",
    "log-format",
    "max-concurrent-downloads",
    "max-concurrent-uploads",
    "max-download-attempts",
    "metrics-addr6",
    "network-control-plane-mtu",
    "no-new-privileges",
    "no-proxy",
    "node-generic-resources",
    "oom-score-adjust",
    "pidfile",
    "proxies",
    "raw-logs",
    "seccomp-profile",
    "shutdown-timeout",
    "storage-driver",
    "storage-opts",
    "swarm-default-advertise-addr",
    "tls",
    "userland-proxy-path",
    "validate",
];

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("{0}")]
    Read(#[from] io::Error),
    #[error("{0}")]
    Syntax(#[from] serde_json::Error),
    #[error("the following directives don't match any configuration option: {0}")]
    Unknown(String),
    #[error("the following directives of Docker's have no meaning for this engine: {0}")]
    Foreign(String),
    #[error("the directive {directive} can only be {only}: {why}")]
    Fixed { directive: &'static str, only: &'static str, why: &'static str },
    #[error("the feature {0} is not one of this engine")]
    Feature(String),
    #[error("the directive {directive} must be {expected}")]
    Type { directive: String, expected: &'static str },
    #[error("the following directives are specified both as a flag and in the configuration file: {0}")]
    Conflict(String),
}

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// From where; the usual place where nothing was there.
    pub(crate) path: PathBuf,
    /// Flags and their values.
    pub(crate) values: Vec<(&'static str, String)>,
    directives: Map<String, Value>,
}

impl Read {
    /// The directives that differ in `newer` and take effect only at the next start.
    pub(crate) fn unheeded(&self, newer: &Self) -> Vec<String> {
        let all = self.directives.keys().chain(newer.directives.keys());
        let differs = |key: &&String| self.directives.get(*key) != newer.directives.get(*key);
        let mut found: Vec<String> =
            all.filter(differs).filter(|key| !RELOADABLE.contains(&key.as_str())).cloned().collect();
        found.sort();
        found.dedup();
        found
    }
}

/// Reads `file`, which must be there, or else the usual one, which need not.
pub(crate) fn read(file: Option<&Path>, said: &Said) -> Result<Read, OptionsError> {
    let path = file.unwrap_or(Path::new(USUAL)).to_owned();
    let found = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && file.is_none() => Ok(Map::new()),
        result => result.map_err(FileError::from).and_then(|bytes| parse(&bytes)),
    };
    let values = found.and_then(|directives| Ok((values(&directives, said)?, directives)));
    match values {
        Ok((values, directives)) => Ok(Read { path, values, directives }),
        Err(error) => Err(OptionsError::File { file: path, source: error }),
    }
}

/// An empty file says nothing.
fn parse(bytes: &[u8]) -> Result<Map<String, Value>, FileError> {
    // Editors of other systems begin a file with this.
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    if bytes.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    Ok(serde_json::from_slice(bytes)?)
}

/// What the directives say to flags.
fn values(directives: &Map<String, Value>, said: &Said) -> Result<Vec<(&'static str, String)>, FileError> {
    check_names(directives)?;
    let (mut values, mut conflicts) = (Vec::new(), Vec::new());
    for (name, value) in directives {
        let Some(flag) = flag_of(name) else {
            check_fixed(name, value)?;
            continue;
        };
        if let Some(given) = said.get(flag.name).filter(|_| flag.directive != MERGED) {
            conflicts.push(conflict(flag, name, given, value));
        }
        let texts = texts(flag.shape, value);
        let wrong = || FileError::Type { directive: name.clone(), expected: expected(flag.shape) };
        values.extend(texts.ok_or_else(wrong)?.into_iter().map(|text| (flag.name, text)));
    }
    if conflicts.is_empty() { Ok(values) } else { Err(FileError::Conflict(conflicts.join(", "))) }
}

/// Both what Docker calls it and the flag's own name are understood, where they differ and nothing else is called so.
fn flag_of(directive: &str) -> Option<&'static Flag> {
    let own = |flag: &&Flag| flag.name == directive && flag.shape == Shape::Text;
    FLAGS.iter().find(|flag| flag.directive == directive).or_else(|| FLAGS.iter().find(own))
}

fn check_names(directives: &Map<String, Value>) -> Result<(), FileError> {
    let is_known =
        |name: &str| flag_of(name).is_some() || name == "features" || FIXED.iter().any(|(fixed, ..)| *fixed == name);
    let others: Vec<&str> = directives.keys().map(String::as_str).filter(|name| !is_known(name)).collect();
    let (foreign, unknown): (Vec<&str>, Vec<&str>) = others.into_iter().partition(|name| FOREIGN.contains(name));
    match (unknown.is_empty(), foreign.is_empty()) {
        (false, _) => Err(FileError::Unknown(unknown.join(", "))),
        (true, false) => Err(FileError::Foreign(foreign.join(", "))),
        (true, true) => Ok(()),
    }
}

fn check_fixed(name: &str, value: &Value) -> Result<(), FileError> {
    if name == "features" {
        return check_features(value);
    }
    let value = value.to_string();
    match FIXED.iter().find(|(fixed, ..)| *fixed == name) {
        Some((directive, only, why)) if value != *only => Err(FileError::Fixed { directive, only, why }),
        _ => Ok(()),
    }
}

/// BuildKit's API is always there, and devices by CDI; images are never containerd's.
fn check_features(value: &Value) -> Result<(), FileError> {
    let wrong = || FileError::Type { directive: "features".into(), expected: "an object of true and false" };
    for (name, value) in value.as_object().ok_or_else(wrong)? {
        match (name.as_str(), value.as_bool().ok_or_else(wrong)?) {
            ("buildkit" | "cdi", true) | ("containerd-snapshotter", false) => {}
            (name, value) => return Err(FileError::Feature(format!("{name}={value}"))),
        }
    }
    Ok(())
}

fn conflict(flag: &Flag, name: &str, given: &[String], value: &Value) -> String {
    let given = match flag.shape {
        Shape::Text | Shape::Switch => given.last().cloned().unwrap_or_default(),
        Shape::Map => format!("map[{}]", given.join(" ").replace('=', ":")),
        _ => format!("[{}]", given.join(" ")),
    };
    format!("{name}: (from flag: {given}, from file: {})", go_words(value))
}

/// As Go prints a value that it read from JSON.
fn go_words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(go_words).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let entries: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", go_words(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

/// A value as texts of its flag; none where it has another type.
fn texts(shape: Shape, value: &Value) -> Option<Vec<String>> {
    match shape {
        Shape::Text => scalar(value).map(|text| vec![text]),
        Shape::Switch => value.as_bool().map(|on| vec![on.to_string()]),
        Shape::List => value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        Shape::Map => entries(value, |key, value| Some(format!("{key}={}", value.as_str()?))),
        Shape::Runtimes => entries(value, |name, value| {
            let runtime = only_keys(value, &["path"])?;
            Some(format!("{name}={}", runtime.get("path")?.as_str()?))
        }),
        Shape::Ulimits => entries(value, |name, value| {
            let limit = only_keys(value, &["Name", "Soft", "Hard"])?;
            let is_named = limit.get("Name").is_none_or(|own| own.as_str() == Some(name));
            let number = |key: &str| limit.get(key)?.as_i64();
            is_named.then_some(format!("{name}={}:{}", number("Soft")?, number("Hard")?))
        }),
        Shape::Pools => {
            let pool = |value: &Value| {
                let pool = only_keys(value, &["base", "size"])?;
                Some(format!("base={},size={}", pool.get("base")?.as_str()?, pool.get("size")?.as_u64()?))
            };
            value.as_array()?.iter().map(pool).collect()
        }
    }
}

fn entries(value: &Value, text: impl Fn(&str, &Value) -> Option<String>) -> Option<Vec<String>> {
    value.as_object()?.iter().map(|(key, value)| text(key, value)).collect()
}

fn only_keys<'a>(value: &'a Value, known: &[&str]) -> Option<&'a Map<String, Value>> {
    value.as_object().filter(|object| object.keys().all(|key| known.contains(&key.as_str())))
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn expected(shape: Shape) -> &'static str {
    match shape {
        Shape::Text => "a text or a number",
        Shape::Switch => "true or false",
        Shape::List => "a list of texts",
        Shape::Map => "an object of texts",
        Shape::Pools => "a list of objects with base and size",
        Shape::Ulimits => "an object of limits with Name, Soft and Hard",
        Shape::Runtimes => "an object of runtimes with their path",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{FIXED, FLAGS, FOREIGN, Read, Said, parse, values};

    fn said(flags: &[(&'static str, &str)]) -> Said {
        flags.iter().map(|(name, value)| (*name, vec![(*value).to_owned()])).collect()
    }

    fn read(text: &str, flags: &[(&'static str, &str)]) -> Result<String, String> {
        let found = parse(text.as_bytes()).and_then(|directives| values(&directives, &said(flags)));
        let found = found.map_err(|error| error.to_string())?;
        Ok(found.iter().map(|(name, value)| format!("--{name}={value}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn directives_become_flags() {
        for (text, expected) in [
            ("", ""),
            ("{}", ""),
            (r#"{"hosts": ["unix:///a", "tcp://b:1"]}"#, "--host=unix:///a --host=tcp://b:1"),
            (r#"{"debug": true, "mtu": 1400}"#, "--debug=true --mtu=1400"),
            (r#"{"log-driver": "local", "log-opts": {"max-size": "1m"}}"#, "--log-driver=local --log-opt=max-size=1m"),
            (
                r#"{"default-ulimits": {"nofile": {"Name": "nofile", "Soft": 1, "Hard": 2}}}"#,
                "--default-ulimit=nofile=1:2",
            ),
            (
                r#"{"default-address-pools": [{"base": "10.0.0.0/8", "size": 24}]}"#,
                "--default-address-pool=base=10.0.0.0/8,size=24",
            ),
            (r#"{"runtimes": {"mine": {"path": "/bin/mine"}}}"#, "--add-runtime=mine=/bin/mine"),
            (r#"{"data-root": "/a"}"#, "--root=/a"),
            (r#"{"root": "/a"}"#, "--root=/a"),
            (r#"{"live-restore": true, "userland-proxy": false, "features": {"buildkit": true}}"#, ""),
            (r#"{"exec-opts": ["native.cgroupdriver=cgroupfs"]}"#, ""),
        ] {
            assert_eq!(read(text, &[]).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let pair = "the following directives are specified both as a flag and in the configuration file: ";
        for (text, flags, expected) in [
            (
                r#"{"nosuch": 1, "debug": true}"#,
                &[][..],
                "the following directives don't match any configuration option: nosuch",
            ),
            (
                r#"{"iptables": false}"#,
                &[],
                "the following directives of Docker's have no meaning for this engine: iptables",
            ),
            (r#"{"live-restore": false}"#, &[], "live-restore can only be true"),
            (r#"{"features": {"containerd-snapshotter": true}}"#, &[], "the feature containerd-snapshotter=true"),
            (r#"{"dns": "1.2.3.4"}"#, &[], "the directive dns must be a list of texts"),
            (r#"{"debug": "yes"}"#, &[], "the directive debug must be true or false"),
            (r#"{"runtimes": {"a": {"path": "/a", "runtimeArgs": ["x"]}}}"#, &[], "the directive runtimes must be"),
            (
                r#"{"default-ulimits": {"nofile": {"Name": "cpu", "Soft": 1, "Hard": 2}}}"#,
                &[],
                "default-ulimits must be",
            ),
            (r#"{"debug": tru"#, &[], "EOF while parsing"),
            (r#"[]"#, &[], "invalid type"),
            (
                r#"{"labels": ["a", "b"]}"#,
                &[("label", "c")],
                &format!("{pair}labels: (from flag: [c], from file: [a b])"),
            ),
            (
                r#"{"log-opts": {"max-size": "1m"}, "log-driver": "local"}"#,
                &[("log-opt", "max-size=2m"), ("log-driver", "none")],
                &format!(
                    "{pair}log-driver: (from flag: none, from file: local), log-opts: (from flag: map[max-size:2m], from file: map[max-size:1m])"
                ),
            ),
        ] {
            let refused = read(text, flags).unwrap_err();
            assert!(refused.contains(expected), "{text}: {refused}");
        }
        assert!(read(r#"{"runtimes": {"a": {"path": "/a"}}}"#, &[("add-runtime", "b=/b")]).is_ok(), "they are added");
    }

    #[test]
    fn a_directive_has_one_meaning() {
        let flags = FLAGS.iter().map(|flag| flag.directive);
        let mut names: Vec<&str> = flags.chain(FIXED.iter().map(|(name, ..)| *name)).chain(FOREIGN).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn what_waits_for_the_next_start_is_told() {
        let of = |text: &str| Read { directives: parse(text.as_bytes()).unwrap(), ..Read::default() };
        let old = of(r#"{"debug": true, "mtu": 1400, "dns": ["1.1.1.1"]}"#);
        let new = of(r#"{"debug": false, "mtu": 1300, "labels": ["a"], "bip": "10.0.0.1/24", "dns": ["1.1.1.1"]}"#);
        assert_eq!(old.unheeded(&new), ["bip", "mtu"]);
    }

    proptest! {
        #[test]
        fn strangers_files_are_read_or_refused(text in "\\PC{0,60}", key in "[a-z-]{1,20}", value in "[\\[\\]{}0-9a-z\":,]{0,20}") {
            let _ = read(&text, &[]);
            let _ = read(&format!("{{\"{key}\": {value}}}"), &[("label", "x")]);
            for flag in FLAGS {
                let _ = read(&format!("{{\"{}\": {value}}}", flag.directive), &[]);
            }
        }
    }
}
