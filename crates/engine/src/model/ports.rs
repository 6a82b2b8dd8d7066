//! Exposed and published ports.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBinding {
    /// The host's address; none is every address.
    pub host_ip: Option<IpAddr>,
    /// The host's port.
    pub host_port: HostPortSpec,
}

/// The port of the host that is wanted for one of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostPortSpec {
    /// Any that is free; nothing is said.
    #[default]
    Any,
    /// This one; 0 is any.
    One(u16),
    /// The first free one from the one to the other.
    Between(u16, u16),
}

impl HostPortSpec {
    /// Reads nothing, `8080`, or `8000-8010`.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        let wrong = || EngineError::invalid(format!("invalid port specification: \"{text}\""));
        let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
        match text.split_once('-') {
            None if text.is_empty() => Ok(Self::Any),
            None => Ok(Self::One(number(text)?)),
            Some((first, last)) => match (number(first)?, number(last)?) {
                (first, last) if first > last || (first == 0 && last > 0) => Err(wrong()),
                (first, last) => Ok(Self::Between(first, last)),
            },
        }
    }
}

impl fmt::Display for HostPortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::One(port) => write!(f, "{port}"),
            Self::Between(first, last) => write!(f, "{first}-{last}"),
        }
    }
}

impl TryFrom<String> for HostPortSpec {
    type Error = EngineError;
    fn try_from(text: String) -> Result<Self, EngineError> {
        Self::parse(&text)
    }
}

impl From<HostPortSpec> for String {
    fn from(port: HostPortSpec) -> String {
        port.to_string()
    }
}

/// What there is of ports of a container, in their order, in one piece that all copies share: there may be fifty thousand of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortTable<T>(Arc<[(Port, T)]>);

/// Where ports are to be published; `None` for a port of which nothing more is said.
pub type PortBindings = PortTable<Option<PortBinding>>;

impl<T> PortTable<T> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything, port by port.
    pub fn iter(&self) -> impl Iterator<Item = (Port, &T)> {
        self.0.iter().map(|(port, one)| (*port, one))
    }

    /// What there is of each port, at least one thing.
    pub fn by_port(&self) -> impl Iterator<Item = (Port, impl Iterator<Item = &T>)> {
        let chunks = self.0.chunk_by(|(one, _), (other, _)| one == other);
        chunks.filter_map(|chunk| Some((chunk.first()?.0, chunk.iter().map(|(_, one)| one))))
    }

    /// What there is of one port.
    pub fn of(&self, port: Port) -> impl Iterator<Item = &T> {
        let first = self.0.partition_point(|(other, _)| *other < port);
        self.0[first..].iter().take_while(move |(other, _)| *other == port).map(|(_, one)| one)
    }
}

impl<T> Default for PortTable<T> {
    fn default() -> Self {
        Self(Arc::from([]))
    }
}

/// What there is of one port keeps its order.
impl<T> FromIterator<(Port, T)> for PortTable<T> {
    fn from_iter<I: IntoIterator<Item = (Port, T)>>(all: I) -> Self {
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_by_key(|(port, _)| *port);
        Self(all.into())
    }
}

/// Bindings as records have them: lists by port.
pub(crate) mod bindings_by_port {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Port, PortBinding, PortBindings};

    pub(crate) fn serialize<S: Serializer>(bindings: &PortBindings, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(bindings.by_port().map(|(port, list)| (port, list.flatten().collect::<Vec<_>>())))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PortBindings, D::Error> {
        let lists = BTreeMap::<Port, Vec<PortBinding>>::deserialize(deserializer)?;
        Ok(lists.into_iter().flat_map(|(port, list)| super::bindings_of(port, list)).collect())
    }
}

/// The entries of one port with these bindings, of which there may be none.
pub fn bindings_of(
    port: Port,
    bindings: impl IntoIterator<Item = PortBinding>,
) -> impl Iterator<Item = (Port, Option<PortBinding>)> {
    let mut bindings = bindings.into_iter().peekable();
    let nothing = bindings.peek().is_none().then_some((port, None));
    nothing.into_iter().chain(bindings.map(move |binding| (port, Some(binding))))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_are_recorded_as_lists_by_port() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Record(#[serde(with = "bindings_by_port")] PortBindings);
        let at = |host_port: &str| PortBinding { host_ip: None, host_port: HostPortSpec::parse(host_port).unwrap() };
        let (web, dns) = (Port::parse("80").unwrap(), Port::parse("53/udp").unwrap());
        let all = bindings_of(web, [at("8080"), at("80")]).chain(bindings_of(dns, []));
        let record = Record(all.collect());
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(
            text,
            r#"{"53/udp":[],"80/tcp":[{"host_ip":null,"host_port":"8080"},{"host_ip":null,"host_port":"80"}]}"#
        );
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        let found: Vec<_> = record.0.of(web).flatten().map(|binding| binding.host_port.to_string()).collect();
        assert_eq!(found, ["8080", "80"]);
        assert_eq!(record.0.of(Port::parse("81").unwrap()).count(), 0);
        assert_eq!(
            record.0.by_port().map(|(port, list)| (port, list.count())).collect::<Vec<_>>(),
            [(dns, 1), (web, 2)]
        );
    }

    #[test]
    fn host_ports_are_shown_as_they_were_given() {
        for text in ["", "0", "8080", "8000-8010", "80-80"] {
            assert_eq!(HostPortSpec::parse(text).unwrap().to_string(), text);
        }
        for text in ["x", "0-1", "9-8", "70000", "1-", "-", "80/tcp"] {
            assert_eq!(
                HostPortSpec::parse(text).unwrap_err().message(),
                format!("invalid port specification: \"{text}\"")
            );
        }
    }
}
