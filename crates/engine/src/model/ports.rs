//! Exposed and published ports.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::EngineError;

/// A container's port: `80/tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Port {
    /// 1–65535.
    pub number: u16,
    /// tcp, udp or sctp.
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// `tcp`
    Tcp,
    /// `udp`
    Udp,
    /// `sctp`
    Sctp,
}

/// Where on the host a port is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBinding {
    /// The host's address; none is every address.
    pub host_ip: Option<IpAddr>,
    /// The host's port as given: empty, one, or a range `8000-8010`.
    pub host_port: String,
}

impl Protocol {
    /// Docker's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl Port {
    /// Reads `80`, `80/tcp`, `53/udp`.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(EngineError::invalid(format!("invalid proto: {protocol}"))),
        };
        let number =
            number.parse().map_err(|_| EngineError::invalid(format!("invalid port specification: \"{text}\"")))?;
        Ok(Self { number, protocol })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol.as_str())
    }
}

impl TryFrom<String> for Port {
    type Error = EngineError;
    fn try_from(text: String) -> Result<Self, EngineError> {
        Self::parse(&text)
    }
}

impl From<Port> for String {
    fn from(port: Port) -> String {
        port.to_string()
    }
}
