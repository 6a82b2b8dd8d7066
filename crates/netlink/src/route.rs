//! Routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::{AF_UNSPEC, Version, family, octets};
use crate::request::{CREATE, DUMP, EXCLUSIVE, Request};
use crate::socket::{Reply, RequestError, Socket};

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTA_TABLE: u16 = 15;

const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;

const HEADER_BYTES: usize = 12;

/// The number of the main routing table.
pub const MAIN_TABLE: u32 = RT_TABLE_MAIN as u32;

/// A unicast route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The first address of what it leads to.
    pub destination: IpAddr,
    /// The prefix length of what it leads to; 0 is the default route.
    pub prefix: u8,
    /// The next hop; `None` when the link leads there directly.
    pub gateway: Option<IpAddr>,
    /// The index of the link; `None` for routes with several.
    pub link: Option<u32>,
    /// The table that it is in.
    pub table: u32,
    /// The address that the host speaks from when it uses it; `None` for the kernel's choice.
    pub source: Option<IpAddr>,
}

impl Route {
    /// The default route by `gateway` on `link`, in the main table.
    pub fn default_by(gateway: IpAddr, link: u32) -> Self {
        let destination = match gateway {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self { destination, prefix: 0, gateway: Some(gateway), link: Some(link), table: MAIN_TABLE, source: None }
    }

    /// The route to all of a network by a link, in the main table.
    pub fn by_link(destination: IpAddr, prefix: u8, link: u32) -> Self {
        Self { destination, prefix, gateway: None, link: Some(link), table: MAIN_TABLE, source: None }
    }

    /// The request that adds it.
    pub fn add(&self) -> Request {
        self.request(RTM_NEWROUTE, CREATE | EXCLUSIVE, "add")
    }

    /// The request that removes it.
    pub fn remove(&self) -> Request {
        self.request(RTM_DELROUTE, 0, "remove")
    }

    fn request(&self, kind: u16, flags: u16, verb: &str) -> Request {
        let scope = if self.gateway.is_some() { RT_SCOPE_UNIVERSE } else { RT_SCOPE_LINK };
        let table = u8::try_from(self.table).unwrap_or(0);
        let body = [family(self.destination), self.prefix, 0, 0, table, RTPROT_BOOT, scope, RTN_UNICAST, 0, 0, 0, 0];
        let purpose = format!("{verb} route to {}/{}", self.destination, self.prefix);
        let mut request = Request::new(kind, flags, &body, purpose);
        request.number(RTA_TABLE, self.table);
        if self.prefix > 0 {
            request.attribute(RTA_DST, &octets(self.destination));
        }
        if let Some(gateway) = self.gateway {
            request.attribute(RTA_GATEWAY, &octets(gateway));
        }
        if let Some(link) = self.link {
            request.number(RTA_OIF, link);
        }
        if let Some(source) = self.source {
            request.attribute(RTA_PREFSRC, &octets(source));
        }
        request
    }

    fn read(reply: &Reply) -> Option<Self> {
        let head = reply.payload.first_chunk::<HEADER_BYTES>()?;
        if head[7] != RTN_UNICAST {
            return None;
        }
        let destination = match head[0] {
            2 => Ipv4Addr::UNSPECIFIED.into(),
            10 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let mut route =
            Self { destination, prefix: head[1], gateway: None, link: None, table: head[4].into(), source: None };
        for attribute in reply.attributes(HEADER_BYTES) {
            match attribute.kind {
                RTA_DST => route.destination = attribute.ip()?,
                RTA_GATEWAY => route.gateway = attribute.ip(),
                RTA_OIF => route.link = attribute.number(),
                RTA_PREFSRC => route.source = attribute.ip(),
                RTA_TABLE => route.table = attribute.number()?,
                _ => {}
            }
        }
        Some(route)
    }
}

impl Socket {
    /// The unicast routes of all tables.
    pub fn routes(&mut self) -> Result<Vec<Route>, RequestError> {
        self.list_routes(AF_UNSPEC)
    }

    /// Those of one version of IP.
    pub fn routes_of(&mut self, version: Version) -> Result<Vec<Route>, RequestError> {
        self.list_routes(version.family())
    }

    fn list_routes(&mut self, family: u8) -> Result<Vec<Route>, RequestError> {
        let mut filter = [0; HEADER_BYTES];
        // Every address has three more routes that are not looked at here.
        (filter[0], filter[7]) = (family, RTN_UNICAST);
        let request = Request::new(RTM_GETROUTE, DUMP, &filter, "list routes");
        let replies = self.dump(&request)?;
        Ok(replies.iter().filter(|reply| reply.kind == RTM_NEWROUTE).filter_map(Route::read).collect())
    }
}
