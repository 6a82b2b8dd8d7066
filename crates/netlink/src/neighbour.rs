//! Neighbours: which hardware address an IP address is at.

use std::net::IpAddr;

use crate::address::{family, octets};
use crate::request::{CREATE, DUMP, REPLACE, Request};
use crate::socket::{Reply, RequestError, Socket};

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

const HEADER_BYTES: usize = 12;

/// An entry of a link's neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The link's index.
    pub link: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Its hardware address; `None` while it is being looked for.
    pub mac: Option<[u8; 6]>,
}

impl Neighbour {
    /// `struct ndmsg`.
    fn header(&self, state: u16) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = family(self.address);
        bytes[4..8].copy_from_slice(&self.link.to_ne_bytes());
        bytes[8..10].copy_from_slice(&state.to_ne_bytes());
        bytes
    }

    /// The request that sets it for good.
    pub fn set(&self) -> Request {
        let purpose = format!("set neighbour {} of link {}", self.address, self.link);
        let mut request = Request::new(RTM_NEWNEIGH, CREATE | REPLACE, &self.header(NUD_PERMANENT), purpose);
        request.attribute(NDA_DST, &octets(self.address));
        if let Some(mac) = self.mac {
            request.attribute(NDA_LLADDR, &mac);
        }
        request
    }

    /// The request that removes it.
    pub fn remove(&self) -> Request {
        let purpose = format!("remove neighbour {} of link {}", self.address, self.link);
        let mut request = Request::new(RTM_DELNEIGH, 0, &self.header(0), purpose);
        request.attribute(NDA_DST, &octets(self.address));
        request
    }

    fn read(reply: &Reply) -> Option<Self> {
        let head = reply.payload.first_chunk::<HEADER_BYTES>()?;
        let of_kind = |kind| reply.attributes(HEADER_BYTES).find(|attribute| attribute.kind == kind);
        Some(Self {
            link: u32::from_ne_bytes([head[4], head[5], head[6], head[7]]),
            address: of_kind(NDA_DST)?.ip()?,
            mac: of_kind(NDA_LLADDR).and_then(|attribute| attribute.mac()),
        })
    }
}

impl Socket {
    /// The neighbours of all links.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>, RequestError> {
        let request = Request::new(RTM_GETNEIGH, DUMP, &[0; HEADER_BYTES], "list neighbours");
        let replies = self.dump(&request)?;
        Ok(replies.iter().filter(|reply| reply.kind == RTM_NEWNEIGH).filter_map(Neighbour::read).collect())
    }
}
