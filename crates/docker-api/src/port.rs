//! `80/tcp`, `8000-8010/udp`: ports as keys of `ExposedPorts` and `PortBindings`.

use std::fmt;
use std::str::FromStr;

/// The protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// The default.
    Tcp,
    /// Datagrams.
    Udp,
    /// Stream control transmission.
    Sctp,
}

impl Protocol {
    /// The lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl FromStr for Protocol {
    type Err = PortParseError;

    fn from_str(text: &str) -> Result<Self, PortParseError> {
        match text.to_ascii_lowercase().as_str() {
            "" | "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(PortParseError::Protocol(text.to_owned())),
        }
    }
}

/// A port, or a range of them, with its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortSpec {
    /// The first port.
    pub first: u16,
    /// The last port; the same for a single one.
    pub last: u16,
    /// The protocol.
    pub protocol: Protocol,
}

impl PortSpec {
    /// Every port of the range, first to last.
    pub fn ports(self) -> std::ops::RangeInclusive<u16> {
        self.first..=self.last
    }
}

impl FromStr for PortSpec {
    type Err = PortParseError;

    fn from_str(text: &str) -> Result<Self, PortParseError> {
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let invalid = || PortParseError::Port(text.to_owned());
        let number = |text: &str| text.parse::<u16>().map_err(|_| invalid());
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(range)?, number(range)?),
        };
        if last < first {
            return Err(invalid());
        }
        Ok(Self { first, last, protocol: protocol.parse()? })
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.last != self.first {
            write!(f, "-{}", self.last)?;
        }
        write!(f, "/{}", self.protocol.name())
    }
}

/// A port that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortParseError {
    /// Not a number from 0 to 65535, or a range that goes down.
    #[error("invalid port specification: {0:?}")]
    Port(String),
    /// Not tcp, udp or sctp.
    #[error("invalid proto: {0}")]
    Protocol(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges_are_read_and_written() {
        for (text, canonical) in [("80", "80/tcp"), ("53/UDP", "53/udp"), ("1-3/sctp", "1-3/sctp"), ("7-7", "7/tcp")] {
            assert_eq!(text.parse::<PortSpec>().unwrap().to_string(), canonical);
        }
        for wrong in ["", "x", "70000", "3-1", "80/icmp", "-1"] {
            assert!(wrong.parse::<PortSpec>().is_err(), "{wrong}");
        }
    }
}
