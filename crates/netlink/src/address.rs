//! Addresses of links.

use std::net::IpAddr;

use crate::request::{CREATE, DUMP, EXCLUSIVE, Request};
use crate::socket::{Reply, RequestError, Socket};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_F_NODAD: u8 = 2;

const HEADER_BYTES: usize = 8;

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkAddress {
    /// The link's index.
    pub link: u32,
    /// The address.
    pub address: IpAddr,
    /// The length of the prefix that is directly reachable.
    pub prefix: u8,
}

/// A version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// All families.
pub(crate) const AF_UNSPEC: u8 = 0;

impl Version {
    /// The family number.
    pub(crate) fn family(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }
}

/// The family number of an address.
pub(crate) fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { Version::V4.family() } else { Version::V6.family() }
}

/// The bytes of an address.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

impl LinkAddress {
    /// `struct ifaddrmsg`.
    fn header(&self) -> [u8; HEADER_BYTES] {
        // A container's address is ours alone: duplicate address detection would only delay it.
        let flags = if self.address.is_ipv6() { IFA_F_NODAD } else { 0 };
        let link = self.link.to_ne_bytes();
        [family(self.address), self.prefix, flags, 0, link[0], link[1], link[2], link[3]]
    }

    /// The request that gives the link this address.
    pub fn add(&self) -> Request {
        let purpose = format!("add address {}/{} to link {}", self.address, self.prefix, self.link);
        let mut request = Request::new(RTM_NEWADDR, CREATE | EXCLUSIVE, &self.header(), purpose);
        let bytes = octets(self.address);
        request.attribute(IFA_LOCAL, &bytes).attribute(IFA_ADDRESS, &bytes);
        if let (IpAddr::V4(address), 1..=30) = (self.address, self.prefix) {
            let broadcast = address.to_bits() | (u32::MAX >> self.prefix);
            request.attribute(IFA_BROADCAST, &broadcast.to_be_bytes());
        }
        request
    }

    /// The request that takes this address from the link.
    pub fn remove(&self) -> Request {
        let purpose = format!("remove address {}/{} from link {}", self.address, self.prefix, self.link);
        let mut request = Request::new(RTM_DELADDR, 0, &self.header(), purpose);
        request.attribute(IFA_LOCAL, &octets(self.address));
        request
    }

    fn read(reply: &Reply) -> Option<Self> {
        let head = reply.payload.first_chunk::<HEADER_BYTES>()?;
        // On point-to-point links IFA_ADDRESS is the other end; IFA_LOCAL, where it is there, is always ours.
        let of_kind = |kind| reply.attributes(HEADER_BYTES).find(|attribute| attribute.kind == kind)?.ip();
        Some(Self {
            link: u32::from_ne_bytes([head[4], head[5], head[6], head[7]]),
            address: of_kind(IFA_LOCAL).or_else(|| of_kind(IFA_ADDRESS))?,
            prefix: head[1],
        })
    }
}

impl Socket {
    /// All addresses of all links.
    pub fn addresses(&mut self) -> Result<Vec<LinkAddress>, RequestError> {
        self.list_addresses(AF_UNSPEC)
    }

    /// Those of one version of IP.
    pub fn addresses_of(&mut self, version: Version) -> Result<Vec<LinkAddress>, RequestError> {
        self.list_addresses(version.family())
    }

    fn list_addresses(&mut self, family: u8) -> Result<Vec<LinkAddress>, RequestError> {
        let mut filter = [0; HEADER_BYTES];
        filter[0] = family;
        let request = Request::new(RTM_GETADDR, DUMP, &filter, "list addresses");
        let replies = self.dump(&request)?;
        Ok(replies.iter().filter(|reply| reply.kind == RTM_NEWADDR).filter_map(LinkAddress::read).collect())
    }
}
