//! Security options and capabilities, parsed.

use serde::{Deserialize, Serialize};

use super::EngineError;

/// One `--security-opt`, kept as given and as understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecurityOption {
    /// The text as given, which inspect shows.
    pub text: String,
    /// What it means.
    pub meaning: SecurityMeaning,
}

/// What a `--security-opt` means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecurityMeaning {
    /// `seccomp=unconfined`
    SeccompUnconfined,
    /// `seccomp=builtin`
    SeccompBuiltin,
    /// `seccomp={…}`: a profile, whole (clients send the file's text).
    SeccompProfile(String),
    /// `apparmor=unconfined`
    AppArmorUnconfined,
    /// `apparmor=NAME`
    AppArmorProfile(String),
    /// `no-new-privileges` or `no-new-privileges=true`
    NoNewPrivileges,
    /// `no-new-privileges=false`
    NewPrivilegesAllowed,
    /// `label=disable`
    LabelDisable,
    /// `label=…`: an SELinux label part.
    Label(String),
    /// `systempaths=unconfined`: neither masked nor read-only paths.
    SystemPathsUnconfined,
    /// `writable-cgroups=true|false`
    WritableCgroups(bool),
}

impl SecurityOption {
    /// Reads `key=value` (also the old `key:value`) and the bare words.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        let meaning = match text {
            "no-new-privileges" => SecurityMeaning::NoNewPrivileges,
            _ => {
                let (key, value) = text
                    .split_once(['=', ':'])
                    .ok_or_else(|| EngineError::invalid(format!("invalid --security-opt 1: \"{text}\"")))?;
                meaning(key, value)
                    .ok_or_else(|| EngineError::invalid(format!("invalid --security-opt 2: \"{text}\"")))?
            }
        };
        Ok(Self { text: text.into(), meaning })
    }
}

fn meaning(key: &str, value: &str) -> Option<SecurityMeaning> {
    Some(match (key, value) {
        ("seccomp", "unconfined") => SecurityMeaning::SeccompUnconfined,
        ("seccomp", "builtin") => SecurityMeaning::SeccompBuiltin,
        ("seccomp", profile) => SecurityMeaning::SeccompProfile(profile.into()),
        ("apparmor", "unconfined") => SecurityMeaning::AppArmorUnconfined,
        ("apparmor", profile) => SecurityMeaning::AppArmorProfile(profile.into()),
        ("label", "disable") => SecurityMeaning::LabelDisable,
        ("label", label) => SecurityMeaning::Label(label.into()),
        ("no-new-privileges", "true") => SecurityMeaning::NoNewPrivileges,
        ("no-new-privileges", "false") => SecurityMeaning::NewPrivilegesAllowed,
        ("writable-cgroups", "true") => SecurityMeaning::WritableCgroups(true),
        ("writable-cgroups", "false") => SecurityMeaning::WritableCgroups(false),
        ("systempaths", "unconfined") => SecurityMeaning::SystemPathsUnconfined,
        _ => return None,
    })
}

impl TryFrom<String> for SecurityOption {
    type Error = EngineError;
    fn try_from(text: String) -> Result<Self, EngineError> {
        Self::parse(&text)
    }
}

impl From<SecurityOption> for String {
    fn from(option: SecurityOption) -> String {
        option.text
    }
}

/// One `--cap-add` or `--cap-drop`: a known capability or `ALL`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Capability {
    /// Every capability.
    All,
    /// One, in the kernel's spelling: `CAP_NET_ADMIN`.
    One(String),
}

impl Capability {
    /// Reads `ALL`, `net_admin`, `NET_ADMIN`, `CAP_NET_ADMIN`.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        let upper = text.trim().to_ascii_uppercase();
        if upper == "ALL" {
            return Ok(Self::All);
        }
        let name = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        if CAPABILITIES.contains(&name.as_str()) {
            Ok(Self::One(name))
        } else {
            Err(EngineError::invalid(format!("invalid CapAdd: unknown capability: \"{name}\"")))
        }
    }

    /// Docker's normalised text: `ALL` or `CAP_NET_ADMIN`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::All => "ALL",
            Self::One(name) => name,
        }
    }
}

impl TryFrom<String> for Capability {
    type Error = EngineError;
    fn try_from(text: String) -> Result<Self, EngineError> {
        Self::parse(&text)
    }
}

impl From<Capability> for String {
    fn from(capability: Capability) -> String {
        capability.as_str().into()
    }
}

/// Every capability of Linux 5.9 and newer, by number.
pub(crate) const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

#[cfg(test)]
mod tests {
    use super::{Capability, SecurityMeaning, SecurityOption};

    #[test]
    fn options_are_understood() {
        for (text, meaning) in [
            ("no-new-privileges", SecurityMeaning::NoNewPrivileges),
            ("no-new-privileges:true", SecurityMeaning::NoNewPrivileges),
            ("seccomp=unconfined", SecurityMeaning::SeccompUnconfined),
            ("systempaths=unconfined", SecurityMeaning::SystemPathsUnconfined),
            ("label:disable", SecurityMeaning::LabelDisable),
            ("apparmor=web", SecurityMeaning::AppArmorProfile("web".into())),
        ] {
            assert_eq!(SecurityOption::parse(text).unwrap().meaning, meaning, "{text}");
        }
        assert!(SecurityOption::parse("what").is_err());
        assert!(SecurityOption::parse("systempaths=some").is_err());
    }

    #[test]
    fn capabilities_are_normalised() {
        assert_eq!(Capability::parse("net_admin").unwrap().as_str(), "CAP_NET_ADMIN");
        assert_eq!(Capability::parse("all").unwrap(), Capability::All);
        assert!(Capability::parse("CAP_NOT").unwrap_err().message().contains("unknown capability"));
    }
}
