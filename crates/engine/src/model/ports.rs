//! Exposed and published ports.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use network::InRow;
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

/// What there is of ports of a container, protocol by protocol in their order, in one piece that all copies share. Ports in a row with things in a row take
/// one entry: there may be fifty thousand of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortTable<T>(Arc<[Row<T>]>);

/// Ports in a row that have as many things each, those of one following those of the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row<T> {
    first: Port,
    /// The number of the last port.
    last: u16,
    /// What there is of the first.
    things: Box<[T]>,
}

/// Where ports are to be published; `None` for a port of which nothing more is said.
pub type PortBindings = PortTable<Option<PortBinding>>;

impl<T: InRow> Row<T> {
    fn ports(&self) -> impl Iterator<Item = Port> {
        (self.first.number..=self.last).map(|number| Port { number, ..self.first })
    }

    fn of(&self, port: Port) -> impl Iterator<Item = T> {
        let offset = port.number - self.first.number;
        self.things.iter().map(move |thing| thing.further(offset))
    }

    /// Takes a port in that goes on where this ends.
    fn takes(&mut self, port: Port, things: &[(Port, T)]) -> bool {
        let follows = port.protocol == self.first.protocol && self.last.checked_add(1) == Some(port.number);
        let fits = follows && self.of(port).eq(things.iter().map(|(_, thing)| *thing));
        if fits {
            self.last = port.number;
        }
        fits
    }
}

impl<T: InRow> PortTable<T> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|row| (usize::from(row.last - row.first.number) + 1) * row.things.len()).sum()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything, port by port.
    pub fn iter(&self) -> impl Iterator<Item = (Port, T)> {
        self.by_port().flat_map(|(port, things)| things.map(move |thing| (port, thing)))
    }

    /// What there is of each port, at least one thing.
    pub fn by_port(&self) -> impl Iterator<Item = (Port, impl Iterator<Item = T>)> {
        self.0.iter().flat_map(|row| row.ports().map(|port| (port, row.of(port))))
    }

    /// What there is of one port.
    pub fn of(&self, port: Port) -> impl Iterator<Item = T> {
        let place = |number| (port.protocol, number);
        let before = self.0.partition_point(|row| (row.first.protocol, row.last) < place(port.number));
        let row = self.0.get(before).filter(|row| (row.first.protocol, row.first.number) <= place(port.number));
        row.into_iter().flat_map(move |row| row.of(port))
    }
}

impl<T> Default for PortTable<T> {
    fn default() -> Self {
        Self(Arc::from([]))
    }
}

/// What there is of one port keeps its order.
impl<T: InRow> FromIterator<(Port, T)> for PortTable<T> {
    fn from_iter<I: IntoIterator<Item = (Port, T)>>(all: I) -> Self {
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_by_key(|(port, _)| (port.protocol, port.number));
        let mut rows: Vec<Row<T>> = Vec::new();
        for things in all.chunk_by(|(one, _), (other, _)| one == other) {
            let port = things[0].0;
            if !rows.last_mut().is_some_and(|row| row.takes(port, things)) {
                let things = things.iter().map(|(_, thing)| *thing).collect();
                rows.push(Row { first: port, last: port.number, things });
            }
        }
        Self(rows.into())
    }
}

impl InRow for PortBinding {
    fn further(self, offset: u16) -> Self {
        Self { host_port: self.host_port.further(offset), ..self }
    }
}

impl InRow for HostPortSpec {
    /// Who may take several takes the same ones for each of his ports.
    fn further(self, offset: u16) -> Self {
        match self {
            Self::One(port) => Self::One(port.wrapping_add(offset)),
            Self::Any | Self::Between(..) => self,
        }
    }
}

/// A set of ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeSet<Port>", into = "BTreeSet<Port>")]
pub struct PortSet(PortTable<()>);

impl PortSet {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a port is one of them.
    pub fn contains(&self, port: Port) -> bool {
        self.0.of(port).next().is_some()
    }

    /// All of them, protocol by protocol.
    pub fn iter(&self) -> impl Iterator<Item = Port> {
        self.0.by_port().map(|(port, _)| port)
    }
}

impl FromIterator<Port> for PortSet {
    fn from_iter<I: IntoIterator<Item = Port>>(all: I) -> Self {
        all.into_iter().collect::<BTreeSet<_>>().into()
    }
}

impl From<BTreeSet<Port>> for PortSet {
    fn from(all: BTreeSet<Port>) -> Self {
        Self(all.into_iter().map(|port| (port, ())).collect())
    }
}

impl From<PortSet> for BTreeSet<Port> {
    fn from(ports: PortSet) -> Self {
        ports.iter().collect()
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
    use proptest::prelude::*;

    use super::*;
    use crate::model::HostPort;

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
            r#"{"80/tcp":[{"host_ip":null,"host_port":"8080"},{"host_ip":null,"host_port":"80"}],"53/udp":[]}"#
        );
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        let found: Vec<_> = record.0.of(web).flatten().map(|binding| binding.host_port.to_string()).collect();
        assert_eq!(found, ["8080", "80"]);
        assert_eq!(record.0.of(Port::parse("81").unwrap()).count(), 0);
        assert_eq!(
            record.0.by_port().map(|(port, list)| (port, list.count())).collect::<Vec<_>>(),
            [(web, 2), (dns, 1)]
        );
    }

    #[test]
    fn many_ports_of_one_container_take_one_entry() {
        let port = |number| Port { number, protocol: Protocol::Tcp };
        let at = |address: [u8; 4], number| HostPort { address: IpAddr::from(address), number };
        let both = (10_000..60_000).flat_map(|number| {
            [[0, 0, 0, 0], [10, 0, 0, 1]].map(|address| (port(number), at(address, number - 9_000)))
        });
        let table: PortTable<HostPort> = both.clone().collect();
        assert_eq!((table.0.len(), table.len()), (1, 100_000));
        assert!(table.iter().eq(both));
        assert!(table.of(port(59_999)).eq([at([0, 0, 0, 0], 50_999), at([10, 0, 0, 1], 50_999)]));
        assert_eq!((table.of(port(9_999)).count(), table.of(port(60_000)).count()), (0, 0));
    }

    proptest! {
        /// Against plain lists.
        #[test]
        fn a_table_holds_what_it_was_made_of(
            all in proptest::collection::vec((0..8_u16, any::<bool>(), 0..3_u16), 0..40),
        ) {
            let entry = |(number, is_udp, shift): &(u16, bool, u16)| {
                // Both ends of what there is.
                let number = if *number < 4 { *number } else { u16::MAX - 7 + *number };
                let protocol = if *is_udp { Protocol::Udp } else { Protocol::Tcp };
                let host_port = HostPortSpec::One(number.wrapping_add(*shift));
                (Port { number, protocol }, Some(PortBinding { host_ip: None, host_port }))
            };
            let mut entries: Vec<_> = all.iter().map(entry).collect();
            let table: PortBindings = entries.iter().copied().collect();
            entries.sort_by_key(|(port, _)| (port.protocol, port.number));
            prop_assert!(table.iter().eq(entries.iter().copied()));
            prop_assert_eq!(table.len(), entries.len());
            for number in [0, 1, 2, 3, 4, u16::MAX - 1, u16::MAX] {
                for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                    let port = Port { number, protocol };
                    let of = entries.iter().filter(|(other, _)| *other == port).map(|(_, binding)| *binding);
                    prop_assert!(table.of(port).eq(of));
                }
            }
        }
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
