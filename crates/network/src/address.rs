//! Addresses as values: subnets and hardware addresses.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An IPv4 network: its first address and prefix length, written `172.17.0.0/16`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    first: Ipv4Addr,
    prefix: u8,
}

/// Why a text is no subnet.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SubnetError {
    /// It is not of the form `ADDRESS/PREFIX`.
    #[error("invalid subnet {0:?}: expected ADDRESS/PREFIX, such as 172.17.0.0/16")]
    Malformed(String),
    /// The address has bits set behind the prefix.
    #[error("invalid subnet {text:?}: the network itself is {network}")]
    HostBits {
        /// What was given.
        text: String,
        /// The network that it lies in.
        network: Subnet,
    },
    /// No address is left for a container.
    #[error("subnet {0} is too small: it needs room for a gateway and one container")]
    TooSmall(String),
}

impl Subnet {
    /// The network of `prefix` bits that `address` lies in; `None` when the prefix is longer than an address.
    pub fn containing(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        (prefix <= 32).then(|| Self { first: Ipv4Addr::from_bits(address.to_bits() & mask(prefix)), prefix })
    }

    /// The network's own address.
    pub fn network(self) -> Ipv4Addr {
        self.first
    }

    /// The number of leading bits that all its addresses share.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The last address, which means everybody.
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits() | !mask(self.prefix))
    }

    /// The first usable address, which the bridge takes.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits() + 1)
    }

    /// How many addresses it has, network and broadcast address included.
    pub fn size(self) -> u64 {
        1 << (32 - u32::from(self.prefix))
    }

    /// Whether `address` is one of its addresses.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.first.to_bits()
    }

    /// Whether the two share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let malformed = || SubnetError::Malformed(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(malformed)?;
        let address: Ipv4Addr = address.parse().map_err(|_| malformed())?;
        let prefix: u8 = prefix.parse().map_err(|_| malformed())?;
        let network = Self::containing(address, prefix).ok_or_else(malformed)?;
        if network.first != address {
            return Err(SubnetError::HostBits { text: text.to_owned(), network });
        }
        if prefix > 30 {
            return Err(SubnetError::TooSmall(text.to_owned()));
        }
        Ok(network)
    }
}

impl TryFrom<String> for Subnet {
    type Error = SubnetError;

    fn try_from(text: String) -> Result<Self, SubnetError> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A hardware address, written `02:42:ac:11:00:02`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

/// Why a text is no hardware address that an interface can have.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MacError {
    /// It is not six hexadecimal bytes.
    #[error("{0} is not a valid mac address")]
    Malformed(String),
    /// It is a group's address or zero.
    #[error("{0} is not a valid mac address: it must belong to a single interface")]
    NotUnicast(String),
}

impl Mac {
    /// The address that belongs to an IPv4 address: `02:42` and its four bytes.
    ///
    /// As with Docker, so that a neighbour's ARP entry stays right when another container gets the address.
    pub fn of_address(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }

    /// Its six bytes.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let malformed = || MacError::Malformed(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(malformed)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| malformed())?;
        }
        if parts.next().is_some() {
            return Err(malformed());
        }
        if octets[0] & 1 == 1 || octets == [0; 6] {
            return Err(MacError::NotUnicast(text.to_owned()));
        }
        Ok(Self(octets))
    }
}

impl TryFrom<String> for Mac {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_knows_its_edges() {
        let subnet: Subnet = "172.20.0.0/14".parse().unwrap();
        assert_eq!(subnet.gateway(), Ipv4Addr::new(172, 20, 0, 1));
        assert_eq!(subnet.broadcast(), Ipv4Addr::new(172, 23, 255, 255));
        assert!(subnet.contains(Ipv4Addr::new(172, 23, 1, 1)));
        assert!(!subnet.contains(Ipv4Addr::new(172, 24, 0, 0)));
        assert_eq!(subnet.size(), 4 * 65536);
    }

    #[test]
    fn overlap_is_containment_either_way() {
        let overlaps = |a: &str, b: &str| a.parse::<Subnet>().unwrap().overlaps(b.parse().unwrap());
        assert!(overlaps("10.0.0.0/8", "10.1.0.0/16"));
        assert!(overlaps("10.1.0.0/16", "10.0.0.0/8"));
        assert!(overlaps("0.0.0.0/0", "10.0.0.0/8"));
        assert!(!overlaps("10.1.0.0/16", "10.2.0.0/16"));
    }

    #[test]
    fn what_is_no_subnet_is_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/-1", "fd00::/64"] {
            assert_eq!(text.parse::<Subnet>(), Err(SubnetError::Malformed(text.to_owned())), "{text}");
        }
        assert!(matches!("10.0.0.1/8".parse::<Subnet>(), Err(SubnetError::HostBits { .. })));
        assert!(matches!("10.0.0.0/31".parse::<Subnet>(), Err(SubnetError::TooSmall(_))));
    }

    #[test]
    fn a_mac_follows_from_the_address() {
        let mac = Mac::of_address(Ipv4Addr::new(172, 17, 0, 2));
        assert_eq!(mac.to_string(), "02:42:ac:11:00:02");
        assert_eq!("02-42-AC-11-00-02".parse(), Ok(mac));
    }

    #[test]
    fn what_no_interface_can_have_is_refused() {
        for text in ["", "02:42:ac:11:00", "02:42:ac:11:00:02:03", "2:42:ac:11:0:2", "zz:42:ac:11:00:02"] {
            assert!(matches!(text.parse::<Mac>(), Err(MacError::Malformed(_))), "{text}");
        }
        assert!(matches!("01:42:ac:11:00:02".parse::<Mac>(), Err(MacError::NotUnicast(_))));
    }
}
