//! What `--network` asks for.

use std::fmt;

/// The network of a container, as `HostConfig.NetworkMode` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The default bridge (`bridge`, `default` or nothing).
    Bridge,
    /// A namespace with nothing but loopback.
    None,
    /// The host's own namespace.
    Host,
    /// The namespace of another container, by name or id.
    Container(String),
    /// A network that a user made, by name or id.
    Named(String),
}

impl Mode {
    /// Reads Docker's text for it.
    pub fn parse(text: &str) -> Self {
        match text {
            "" | "default" | "bridge" => Self::Bridge,
            "none" => Self::None,
            "host" => Self::Host,
            other => match other.strip_prefix("container:") {
                Some(container) => Self::Container(container.to_owned()),
                None => Self::Named(other.to_owned()),
            },
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge => f.write_str("bridge"),
            Self::None => f.write_str("none"),
            Self::Host => f.write_str("host"),
            Self::Container(container) => write!(f, "container:{container}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_back_as_written() {
        for text in ["bridge", "none", "host", "container:web", "backend"] {
            assert_eq!(Mode::parse(text).to_string(), text);
        }
        assert_eq!(Mode::parse("default"), Mode::Bridge);
    }
}
