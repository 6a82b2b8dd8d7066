//! Published ports in few words: ports in a row that lead to ports in a row take one entry, as fifty thousand of one container do.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound::{Excluded, Unbounded};

use serde::{Deserialize, Serialize};

use crate::ports::{Published, Transport};

/// Where a published port is looked up; an unspecified address stands for every address of the host in its family.
pub(crate) type PortPlace = (IpAddr, Transport, u16);
/// Where it leads.
pub(crate) type PortTarget = (IpAddr, u16);

/// What stands beside a port, where ports in a row may have things in a row.
pub trait InRow: Copy + PartialEq {
    /// What stands beside the port that is so much further on in the same row; may begin at 0 again past the last number.
    #[must_use]
    fn further(self, offset: u16) -> Self;
}

impl InRow for () {
    fn further(self, _: u16) {}
}

impl<T: InRow> InRow for Option<T> {
    fn further(self, offset: u16) -> Self {
        self.map(|one| one.further(offset))
    }
}

impl InRow for PortTarget {
    fn further(self, offset: u16) -> Self {
        (self.0, self.1.wrapping_add(offset))
    }
}

/// What stands beside each of some ports. Rows are as long as they can be, so equal maps have equal rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortMap<V> {
    /// By the first port of each.
    rows: BTreeMap<PortPlace, Row<V>>,
}

/// Ports in a row with things in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row<V> {
    /// The number of the last port.
    last: u16,
    /// What stands beside the first.
    value: V,
}

impl<V> Default for PortMap<V> {
    fn default() -> Self {
        Self { rows: BTreeMap::new() }
    }
}

impl<V: InRow> PortMap<V> {
    /// What stands beside a port.
    pub(crate) fn get(&self, place: PortPlace) -> Option<V> {
        let (first, row) = self.row_of(place)?;
        Some(row.value.further(place.2 - first))
    }

    /// Puts something beside a port, in the place of what was there.
    pub(crate) fn insert(&mut self, place: PortPlace, value: V) {
        self.remove(place);
        let (address, transport, port) = place;
        let mut new = (port, Row { last: port, value });
        if let Some(before) = port.checked_sub(1)
            && let Some((first, row)) = self.row_of((address, transport, before))
            && row.value.further(port - first) == value
        {
            new = (first, Row { last: port, value: row.value });
        }
        if let Some(after) = port.checked_add(1)
            && let Some(row) = self.rows.get(&(address, transport, after)).copied()
            && value.further(1) == row.value
        {
            self.rows.remove(&(address, transport, after));
            new.1.last = row.last;
        }
        self.rows.insert((address, transport, new.0), new.1);
    }

    /// Takes a port out, with what stood beside it.
    pub(crate) fn remove(&mut self, place: PortPlace) -> Option<V> {
        let (first, row) = self.row_of(place)?;
        let (address, transport, port) = place;
        let value = row.value.further(port - first);
        self.rows.remove(&(address, transport, first));
        if first < port {
            self.rows.insert((address, transport, first), Row { last: port - 1, value: row.value });
        }
        if port < row.last {
            self.rows.insert((address, transport, port + 1), Row { last: row.last, value: value.further(1) });
        }
        Some(value)
    }

    /// Every port with what stands beside it, in the order of their places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PortPlace, V)> {
        self.rows.iter().flat_map(|(&(address, transport, first), &row)| {
            (first..=row.last).map(move |port| ((address, transport, port), row.value.further(port - first)))
        })
    }

    /// The addresses that ports are at, each once.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let next = |after: &IpAddr| {
            let beyond = (Excluded((*after, Transport::Sctp, u16::MAX)), Unbounded);
            self.rows.range(beyond).next().map(|((address, ..), _)| *address)
        };
        std::iter::successors(self.rows.keys().next().map(|(address, ..)| *address), next)
    }

    /// The row that a port is in, and the number of its first port.
    fn row_of(&self, place: PortPlace) -> Option<(u16, Row<V>)> {
        let (&(address, transport, first), &row) = self.rows.range(..=place).next_back()?;
        ((address, transport) == (place.0, place.1) && place.2 <= row.last).then_some((first, row))
    }
}

/// The ports that are published for a container, by address of the host, protocol and port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<RecordedRow>", into = "Vec<RecordedRow>")]
pub struct PublishedPorts(PortMap<PortTarget>);

/// Published ports in a row, as records have them.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct RecordedRow {
    #[serde(flatten)]
    first: Published,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    count: u32,
}

fn one() -> u32 {
    1
}

fn is_one(count: &u32) -> bool {
    *count == 1
}

impl PublishedPorts {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.rows.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.rows.iter().map(|((.., first), row)| usize::from(row.last - first) + 1).sum()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Published> {
        self.0.iter().map(|(place, target)| published(place, target))
    }
}

impl FromIterator<Published> for PublishedPorts {
    fn from_iter<I: IntoIterator<Item = Published>>(all: I) -> Self {
        let mut ports = PortMap::default();
        for one in all {
            ports.insert((one.address, one.transport, one.port), (one.target, one.container_port));
        }
        Self(ports)
    }
}

impl From<Vec<RecordedRow>> for PublishedPorts {
    fn from(rows: Vec<RecordedRow>) -> Self {
        let ports_of = |RecordedRow { first, count }: RecordedRow| {
            // What a record that somebody has changed counts past the last port is no port.
            let last = first.port.saturating_add(u16::try_from(count.saturating_sub(1)).unwrap_or(u16::MAX));
            (first.port..=last).map(move |port| {
                let target = (first.target, first.container_port).further(port - first.port);
                published((first.address, first.transport, port), target)
            })
        };
        rows.into_iter().flat_map(ports_of).collect()
    }
}

impl From<PublishedPorts> for Vec<RecordedRow> {
    fn from(ports: PublishedPorts) -> Self {
        let recorded = |(&(address, transport, port), row): (&PortPlace, &Row<PortTarget>)| RecordedRow {
            first: published((address, transport, port), row.value),
            count: u32::from(row.last - port) + 1,
        };
        ports.0.rows.iter().map(recorded).collect()
    }
}

fn published((address, transport, port): PortPlace, (target, container_port): PortTarget) -> Published {
    Published { transport, address, port, target, container_port }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn at(address: &str, port: u16) -> PortPlace {
        (address.parse().unwrap(), Transport::Tcp, port)
    }

    fn to(port: u16) -> PortTarget {
        ("172.17.0.2".parse().unwrap(), port)
    }

    #[test]
    fn a_container_with_many_ports_takes_one_row() {
        let ports: PublishedPorts =
            (10_000..60_000).map(|port| published(at("0.0.0.0", port), to(port - 9_000))).collect();
        assert_eq!((ports.len(), ports.0.rows.len()), (50_000, 1));
        let text = serde_json::to_string(&ports).unwrap();
        assert_eq!(
            text,
            r#"[{"transport":"tcp","address":"0.0.0.0","port":10000,"target":"172.17.0.2","container_port":1000,"count":50000}]"#
        );
        assert_eq!(serde_json::from_str::<PublishedPorts>(&text).unwrap(), ports);
    }

    #[test]
    fn records_of_single_ports_are_read_and_counts_end_with_the_last_port() {
        let one = |port: u16, count: &str| {
            format!(
                r#"[{{"transport":"udp","address":"::","port":{port},"target":"fd00::2","container_port":{port}{count}}}]"#
            )
        };
        let read = |text: &str| serde_json::from_str::<PublishedPorts>(text).unwrap();
        let single = read(&one(53, ""));
        assert_eq!(single.iter().map(|one| (one.port, one.container_port)).collect::<Vec<_>>(), [(53, 53)]);
        assert_eq!(serde_json::to_string(&single).unwrap(), one(53, ""));
        assert_eq!(read(&one(65_530, r#","count":4294967295"#)).len(), 6);
        assert_eq!(read(&one(7, r#","count":0"#)).len(), 1);
    }

    proptest! {
        /// Against a plain map; and rows are as long as they can be.
        #[test]
        fn it_is_a_map(steps in proptest::collection::vec((0..3_usize, 0..12_u16, 0..3_u16, any::<bool>()), 0..200)) {
            let addresses = ["0.0.0.0", "127.0.0.1", "::"];
            let (mut found, mut expected) = (PortMap::default(), BTreeMap::new());
            for (address, number, shift, is_put) in steps {
                // Both ends of what there is.
                let port = if number < 6 { number } else { u16::MAX - 11 + number };
                let place = at(addresses[address], port);
                if is_put {
                    let target = to(port.wrapping_add(shift / 2));
                    found.insert(place, target);
                    expected.insert(place, target);
                } else {
                    prop_assert_eq!(found.remove(place), expected.remove(&place));
                }
                prop_assert!(found.iter().eq(expected.iter().map(|(place, target)| (*place, *target))));
                prop_assert_eq!(found.get(place), expected.get(&place).copied());
                let there: BTreeSet<IpAddr> = expected.keys().map(|(address, ..)| *address).collect();
                prop_assert!(found.addresses().eq(there));
                for (&(address, transport, first), row) in &found.rows {
                    let next = row.last.checked_add(1).and_then(|port| found.get((address, transport, port)));
                    prop_assert_ne!(next, Some(row.value.further(row.last - first).further(1)));
                }
            }
        }
    }
}
