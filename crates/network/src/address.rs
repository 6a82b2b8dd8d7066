//! Addresses as values: subnets and hardware addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use netlink::address::Version;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An address of one family, as a number where that is easier.
pub trait Ip: Copy + Ord + std::hash::Hash + fmt::Debug + fmt::Display + FromStr + Into<IpAddr> {
    /// How many bits it has.
    const BITS: u8;
    /// A network of this family, as an example in messages.
    const EXAMPLE: &str;
    /// Which version of IP it is of.
    const VERSION: Version;

    /// Its number.
    fn number(self) -> u128;

    /// The address of this number, whose higher bits are nobody's.
    fn of_number(number: u128) -> Self;

    /// The address, if it is of this family.
    fn of(address: IpAddr) -> Option<Self>;
}

impl Ip for Ipv4Addr {
    const BITS: u8 = 32;
    const EXAMPLE: &str = "172.17.0.0/16";
    const VERSION: Version = Version::V4;

    fn number(self) -> u128 {
        self.to_bits().into()
    }

    fn of_number(number: u128) -> Self {
        Self::from_bits(number as u32)
    }

    fn of(address: IpAddr) -> Option<Self> {
        if let IpAddr::V4(address) = address { Some(address) } else { None }
    }
}

impl Ip for Ipv6Addr {
    const BITS: u8 = 128;
    const EXAMPLE: &str = "fd00:1::/64";
    const VERSION: Version = Version::V6;

    fn number(self) -> u128 {
        self.to_bits()
    }

    fn of_number(number: u128) -> Self {
        Self::from_bits(number)
    }

    fn of(address: IpAddr) -> Option<Self> {
        if let IpAddr::V6(address) = address { Some(address) } else { None }
    }
}

/// A network: its first address and prefix length, written `172.17.0.0/16` or `fd00:1::/64`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String", bound = "A: Ip")]
pub struct Subnet<A: Ip = Ipv4Addr> {
    first: A,
    prefix: u8,
}

/// Why a text is no subnet.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SubnetError {
    /// It is not of the form `ADDRESS/PREFIX`.
    #[error("invalid subnet {text:?}: expected ADDRESS/PREFIX, such as {example}")]
    Malformed {
        /// What was given.
        text: String,
        /// What would have been right.
        example: &'static str,
    },
    /// The address has bits set behind the prefix.
    #[error("invalid subnet {text:?}: the network itself is {network}")]
    HostBits {
        /// What was given.
        text: String,
        /// The network that it lies in.
        network: String,
    },
    /// No address is left for a container.
    #[error("subnet {0} is too small: it needs room for a gateway and one container")]
    TooSmall(String),
}

impl<A: Ip> Subnet<A> {
    /// The network of `prefix` bits that `address` lies in; `None` when the prefix is longer than an address.
    pub fn containing(address: A, prefix: u8) -> Option<Self> {
        (prefix <= A::BITS).then(|| Self { first: A::of_number(address.number() & mask::<A>(prefix)), prefix })
    }

    /// The network's own address.
    pub fn network(self) -> A {
        self.first
    }

    /// The number of leading bits that all its addresses share.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The last address, which in IPv4 means everybody.
    pub fn last(self) -> A {
        A::of_number(self.first.number() | !mask::<A>(self.prefix))
    }

    /// The first usable address, which the bridge takes.
    pub fn gateway(self) -> A {
        A::of_number(self.first.number() + 1)
    }

    /// Whether `address` is one of its addresses.
    pub fn contains(self, address: A) -> bool {
        address.number() & mask::<A>(self.prefix) == self.first.number()
    }

    /// Whether the two share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// First address and prefix length, of whichever family.
    pub(crate) fn parts(self) -> (IpAddr, u8) {
        (self.first.into(), self.prefix)
    }
}

fn mask<A: Ip>(prefix: u8) -> u128 {
    let all = u128::MAX >> (128 - u32::from(A::BITS));
    all & all.checked_shl(u32::from(A::BITS - prefix)).unwrap_or(0)
}

impl<A: Ip> FromStr for Subnet<A> {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let malformed = || SubnetError::Malformed { text: text.to_owned(), example: A::EXAMPLE };
        let (address, prefix) = text.split_once('/').ok_or_else(malformed)?;
        let address: A = address.parse().map_err(|_| malformed())?;
        let prefix: u8 = prefix.parse().map_err(|_| malformed())?;
        let network = Self::containing(address, prefix).ok_or_else(malformed)?;
        if network.first != address {
            return Err(SubnetError::HostBits { text: text.to_owned(), network: network.to_string() });
        }
        if prefix > A::BITS - 2 {
            return Err(SubnetError::TooSmall(text.to_owned()));
        }
        Ok(network)
    }
}

impl<A: Ip> TryFrom<String> for Subnet<A> {
    type Error = SubnetError;

    fn try_from(text: String) -> Result<Self, SubnetError> {
        text.parse()
    }
}

impl<A: Ip> From<Subnet<A>> for String {
    fn from(subnet: Subnet<A>) -> Self {
        subnet.to_string()
    }
}

impl<A: Ip> fmt::Display for Subnet<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl<A: Ip> fmt::Debug for Subnet<A> {
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
    /// The address that belongs to an IP address: `02:42` and the four bytes of IPv4, or a hash of IPv6.
    ///
    /// As with Docker, so that a neighbour's ARP entry stays right when another container gets the address.
    pub fn of_address(address: IpAddr) -> Self {
        let [a, b, c, d] = match address {
            IpAddr::V4(address) => address.octets(),
            IpAddr::V6(address) => crate::names::fnv(&address.octets()).to_be_bytes(),
        };
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
        assert_eq!(subnet.last(), Ipv4Addr::new(172, 23, 255, 255));
        assert!(subnet.contains(Ipv4Addr::new(172, 23, 1, 1)));
        assert!(!subnet.contains(Ipv4Addr::new(172, 24, 0, 0)));
        let subnet: Subnet<Ipv6Addr> = "fd00:1:2:3::/64".parse().unwrap();
        assert_eq!(subnet.gateway().to_string(), "fd00:1:2:3::1");
        assert_eq!(subnet.last().to_string(), "fd00:1:2:3:ffff:ffff:ffff:ffff");
        assert_eq!(Subnet::containing(Ipv6Addr::LOCALHOST, 0).unwrap().to_string(), "::/0");
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
            assert!(matches!(text.parse::<Subnet>(), Err(SubnetError::Malformed { .. })), "{text}");
        }
        for text in ["10.0.0.0/8", "fd00::/129", "fd00::1"] {
            assert!(matches!(text.parse::<Subnet<Ipv6Addr>>(), Err(SubnetError::Malformed { .. })), "{text}");
        }
        assert!(matches!("10.0.0.1/8".parse::<Subnet>(), Err(SubnetError::HostBits { .. })));
        assert!(matches!("10.0.0.0/31".parse::<Subnet>(), Err(SubnetError::TooSmall(_))));
    }

    #[test]
    fn a_mac_follows_from_the_address() {
        let mac = Mac::of_address([172, 17, 0, 2].into());
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
