//! Connection tracking: what the kernel remembers of flows of packets, and so where it sends the next one.

use std::net::IpAddr;

use crate::attribute::Attribute;
use crate::request::{DUMP, Request};
use crate::socket::{Errno, Reply, RequestError, Socket};

const SUBSYSTEM: u16 = 1;
const NEW: u16 = 0;
const GET: u16 = 1;
const DELETE: u16 = 2;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;

/// `struct nfgenmsg`.
const HEADER_BYTES: usize = 4;

/// A flow that the kernel remembers, as its first packet began it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The protocol's number (`IPPROTO_UDP`).
    pub protocol: u8,
    /// Where the first packet was sent to.
    pub destination: IpAddr,
    /// The port that it was sent to; 0 where the protocol has none.
    pub port: u16,
    family: u8,
    /// What the kernel finds it by: attributes as it sent them.
    key: Vec<(u16, Vec<u8>)>,
}

impl Flow {
    fn read(reply: &Reply) -> Option<Self> {
        let original = reply.attributes(HEADER_BYTES).find(|attribute| attribute.kind == CTA_TUPLE_ORIG)?;
        let part = |kind| original.nested().find(|attribute| attribute.kind == kind);
        let of_protocol = |kind| part(CTA_TUPLE_PROTO)?.nested().find(|attribute| attribute.kind == kind);
        let destination = |attribute: &Attribute<'_>| matches!(attribute.kind, CTA_IP_V4_DST | CTA_IP_V6_DST);
        let port = of_protocol(CTA_PROTO_DST_PORT).and_then(|port| port.value.try_into().ok());
        let is_key = |attribute: &Attribute<'_>| matches!(attribute.kind, CTA_TUPLE_ORIG | CTA_ID | CTA_ZONE);
        Some(Self {
            protocol: *of_protocol(CTA_PROTO_NUM)?.value.first()?,
            destination: part(CTA_TUPLE_IP)?.nested().find(destination)?.ip()?,
            port: port.map(u16::from_be_bytes).unwrap_or_default(),
            family: *reply.payload.first()?,
            key: reply
                .attributes(HEADER_BYTES)
                .filter(is_key)
                .map(|attribute| (attribute.kind, attribute.value.to_vec()))
                .collect(),
        })
    }

    fn forget(&self) -> Request {
        const NESTED: u16 = 1 << 15;
        let purpose = format!("forget a flow to {} port {}", self.destination, self.port);
        let mut request = Request::new((SUBSYSTEM << 8) | DELETE, 0, &[self.family, 0, 0, 0], purpose);
        for (kind, value) in &self.key {
            let flags = if *kind == CTA_TUPLE_ORIG { NESTED } else { 0 };
            request.attribute(kind | flags, value);
        }
        request
    }
}

impl Socket {
    /// All flows of the network namespace, on a socket of [`Family::Netfilter`](crate::Family::Netfilter).
    pub fn flows(&mut self) -> Result<Vec<Flow>, RequestError> {
        let request = Request::new((SUBSYSTEM << 8) | GET, DUMP, &[0; HEADER_BYTES], "list flows");
        let replies = self.dump(&request)?;
        Ok(replies.iter().filter(|reply| reply.kind == (SUBSYSTEM << 8) | NEW).filter_map(Flow::read).collect())
    }

    /// Has the kernel forget a flow: its next packet is looked at as if it were the first.
    pub fn forget(&mut self, flow: &Flow) -> Result<(), RequestError> {
        match self.ask(flow.forget()) {
            // It ended meanwhile.
            Err(error) if error.errno() == Some(Errno::NOENT) => Ok(()),
            result => result.map(drop),
        }
    }
}
