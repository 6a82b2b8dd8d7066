//! Which namespaces a container shares, as Docker spells them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::EngineError;

/// `HostConfig.NetworkMode`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NetworkMode {
    /// The default bridge (`default`, `bridge`, or nothing).
    #[default]
    Bridge,
    /// Only a loopback interface.
    None,
    /// The host's own network.
    Host,
    /// The network of another container, by id or name as given.
    Container(String),
    /// A network that a user made, by name or id.
    Named(String),
}

/// `HostConfig.IpcMode`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum IpcMode {
    /// Its own namespace and its own /dev/shm.
    #[default]
    Private,
    /// Its own namespace, without a /dev/shm.
    None,
    /// Its own namespace, which other containers may join.
    Shareable,
    /// The host's.
    Host,
    /// Another container's.
    Container(String),
}

/// `HostConfig.PidMode`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PidMode {
    /// Its own namespace.
    #[default]
    Private,
    /// The host's.
    Host,
    /// Another container's.
    Container(String),
}

/// `HostConfig.UTSMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum UtsMode {
    /// Its own host name.
    #[default]
    Private,
    /// The host's.
    Host,
}

/// `HostConfig.CgroupnsMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CgroupnsMode {
    /// Private on cgroup v2, the host's on v1, as Docker chooses.
    #[default]
    Default,
    /// Its own.
    Private,
    /// The host's.
    Host,
}

/// `HostConfig.UsernsMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum UsernsMode {
    /// As the daemon is configured: the host's, or with `--userns-remap` its own.
    #[default]
    Default,
    /// The host's, said so.
    Host,
    /// Its own, said so; Podman's word.
    Private,
    /// Its own, with ids that no other container has; Podman's word.
    Auto {
        /// How many.
        size: u32,
    },
}

/// How many ids a container gets that does not say: all that files of images have.
const AUTO_SIZE: u32 = 65_536;

impl NetworkMode {
    /// Reads `""`, `default`, `bridge`, `none`, `host`, `container:X` or a network's name.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        Ok(match text {
            "" | "default" | "bridge" => Self::Bridge,
            "none" => Self::None,
            "host" => Self::Host,
            _ => match text.strip_prefix("container:") {
                Some("") => {
                    return Err(EngineError::invalid(
                        "Invalid network mode: invalid container format container:<name|id>",
                    ));
                }
                Some(other) => Self::Container(other.into()),
                None => Self::Named(text.into()),
            },
        })
    }

    /// Whether the container has a network of its own (a bridge or `none`).
    pub fn is_private(&self) -> bool {
        !matches!(self, Self::Host | Self::Container(_))
    }
}

impl IpcMode {
    /// Reads `""`, `none`, `private`, `shareable`, `host` or `container:X`.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        Ok(match text {
            "" | "private" => Self::Private,
            "none" => Self::None,
            "shareable" => Self::Shareable,
            "host" => Self::Host,
            _ => Self::Container(
                container_part(text).ok_or_else(|| EngineError::invalid(format!("invalid IPC mode: {text}")))?,
            ),
        })
    }
}

impl PidMode {
    /// Reads `""`, `private`, `host` or `container:X`.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        Ok(match text {
            "" | "private" => Self::Private,
            "host" => Self::Host,
            _ => Self::Container(
                container_part(text).ok_or_else(|| EngineError::invalid(format!("invalid PID mode: {text}")))?,
            ),
        })
    }
}

impl UtsMode {
    /// Reads `""` or `host`.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        match text {
            "" => Ok(Self::Private),
            "host" => Ok(Self::Host),
            _ => Err(EngineError::invalid(format!("invalid UTS mode: {text}"))),
        }
    }
}

impl CgroupnsMode {
    /// Reads `""`, `private` or `host`.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        match text {
            "" => Ok(Self::Default),
            "private" => Ok(Self::Private),
            "host" => Ok(Self::Host),
            _ => Err(EngineError::invalid(format!("invalid cgroup namespace mode: {text}"))),
        }
    }
}

impl UsernsMode {
    /// Reads `""`, `host`, `private`, `auto` or `auto:size=N`.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        match text {
            "" => Ok(Self::Default),
            "host" => Ok(Self::Host),
            "private" => Ok(Self::Private),
            "auto" => Ok(Self::Auto { size: AUTO_SIZE }),
            _ => {
                let size = text.strip_prefix("auto:size=").and_then(|size| size.parse().ok()).filter(|size| *size > 0);
                size.map(|size| Self::Auto { size })
                    .ok_or_else(|| EngineError::invalid(format!("invalid USER mode: {text}")))
            }
        }
    }
}

fn container_part(text: &str) -> Option<String> {
    text.strip_prefix("container:").filter(|id| !id.is_empty()).map(str::to_owned)
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge => f.write_str("bridge"),
            Self::None => f.write_str("none"),
            Self::Host => f.write_str("host"),
            Self::Container(id) => write!(f, "container:{id}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for IpcMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Private => f.write_str("private"),
            Self::None => f.write_str("none"),
            Self::Shareable => f.write_str("shareable"),
            Self::Host => f.write_str("host"),
            Self::Container(id) => write!(f, "container:{id}"),
        }
    }
}

impl fmt::Display for PidMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Private => Ok(()),
            Self::Host => f.write_str("host"),
            Self::Container(id) => write!(f, "container:{id}"),
        }
    }
}

impl fmt::Display for UtsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Host) { "host" } else { "" })
    }
}

impl fmt::Display for CgroupnsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "",
            Self::Private => "private",
            Self::Host => "host",
        })
    }
}

impl fmt::Display for UsernsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => Ok(()),
            Self::Host => f.write_str("host"),
            Self::Private => f.write_str("private"),
            Self::Auto { size: AUTO_SIZE } => f.write_str("auto"),
            Self::Auto { size } => write!(f, "auto:size={size}"),
        }
    }
}

/// Lets serde store a mode as Docker's text.
macro_rules! stored_as_text {
    ($($mode:ty),*) => {$(
        impl TryFrom<String> for $mode {
            type Error = EngineError;
            fn try_from(text: String) -> Result<Self, EngineError> {
                Self::parse(&text)
            }
        }
        impl From<$mode> for String {
            fn from(mode: $mode) -> String {
                mode.to_string()
            }
        }
    )*};
}
stored_as_text!(NetworkMode, IpcMode, PidMode, UtsMode, CgroupnsMode, UsernsMode);

#[cfg(test)]
mod tests {
    use super::{CgroupnsMode, IpcMode, NetworkMode, PidMode, UtsMode};

    #[test]
    fn modes_survive_a_round_trip_and_normalise() {
        for (text, shown) in
            [("", "bridge"), ("default", "bridge"), ("none", "none"), ("container:x", "container:x"), ("web", "web")]
        {
            assert_eq!(NetworkMode::parse(text).unwrap().to_string(), shown);
        }
        assert_eq!(IpcMode::parse("").unwrap().to_string(), "private");
        assert_eq!(PidMode::parse("host").unwrap().to_string(), "host");
    }

    #[test]
    fn unknown_modes_are_refused() {
        assert!(NetworkMode::parse("container:").is_err());
        assert_eq!(IpcMode::parse("foo").unwrap_err().message(), "invalid IPC mode: foo");
        assert_eq!(PidMode::parse("container:").unwrap_err().message(), "invalid PID mode: container:");
        assert!(UtsMode::parse("private").is_err());
        assert!(CgroupnsMode::parse("x").is_err());
    }
}
