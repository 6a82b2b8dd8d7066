//! `EXPOSE`.

/// A container's port with its protocol.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// 0 to 65535.
    pub number: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// What else one word said, for the lint rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortForm {
    /// A protocol that is not in lower case.
    pub upper_case: bool,
    /// An address or a host's port.
    pub mapping: bool,
}

/// A word that is no port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Not a number, or not a range.
    #[error("invalid containerPort: {0}")]
    Container(String),
    /// The same on the host's side.
    #[error("invalid hostPort: {0}")]
    Host(String),
    /// No protocol that exists.
    #[error("invalid port: {port:?}: invalid proto: {protocol}")]
    Protocol {
        /// The word.
        port: String,
        /// Its protocol.
        protocol: String,
    },
    /// No port at all.
    #[error("invalid port: {0:?}: no port specified: {0}")]
    Empty(String),
    /// An address that is none.
    #[error("invalid IP address: {0}")]
    Address(String),
    /// Two ranges of different length.
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    Ranges {
        /// In the container.
        container: String,
        /// On the host.
        host: String,
    },
}

/// `[address:][host port:]port[-port][/protocol]`: the container's ports, and how it was written.
pub fn parse_ports(word: &str) -> Result<(Vec<Port>, PortForm), PortError> {
    let (address, host, container) = split_parts(word);
    let (ports, protocol) = container.split_once('/').unwrap_or((container, "tcp"));
    if ports.is_empty() {
        return Err(PortError::Empty(word.to_owned()));
    }
    let lower = protocol.to_ascii_lowercase();
    if !matches!(lower.as_str(), "tcp" | "udp" | "sctp") {
        return Err(PortError::Protocol { port: word.to_owned(), protocol: protocol.to_owned() });
    }
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    if !bare.is_empty() && bare.parse::<std::net::IpAddr>().is_err() {
        return Err(PortError::Address(bare.to_owned()));
    }
    let (first, last) = parse_range(ports).ok_or_else(|| PortError::Container(ports.to_owned()))?;
    if !host.is_empty() {
        let (from, to) = parse_range(host).ok_or_else(|| PortError::Host(host.to_owned()))?;
        if last - first != to - from && first != last {
            return Err(PortError::Ranges { container: ports.to_owned(), host: host.to_owned() });
        }
    }
    let form = PortForm { upper_case: lower != protocol, mapping: !address.is_empty() || !host.is_empty() };
    Ok(((first..=last).map(|number| Port { number, protocol: lower.clone() }).collect(), form))
}

fn split_parts(word: &str) -> (&str, &str, &str) {
    match word.rsplit_once(':') {
        None => ("", "", word),
        Some((before, container)) => match before.rsplit_once(':') {
            None => ("", before, container),
            Some((address, host)) => (address, host, container),
        },
    }
}

fn parse_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

impl std::fmt::Display for Port {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.number, self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_ranges_and_mappings() {
        let text = |word: &str| {
            parse_ports(word).map(|(ports, _)| ports.iter().map(Port::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(text("80").unwrap(), "80/tcp");
        assert_eq!(text("53/UDP").unwrap(), "53/udp");
        assert_eq!(text("8000-8002/sctp").unwrap(), "8000/sctp 8001/sctp 8002/sctp");
        assert_eq!(text("127.0.0.1:8080:80").unwrap(), "80/tcp");
        assert_eq!(text("[::1]:8080:80").unwrap(), "80/tcp");
        assert!(parse_ports("8080:80").unwrap().1.mapping);
        assert!(parse_ports("80/TCP").unwrap().1.upper_case);
        for (word, message) in [
            ("x", "invalid containerPort: x"),
            ("90-80", "invalid containerPort: 90-80"),
            ("70000", "invalid containerPort: 70000"),
            ("80/icmp", "invalid port: \"80/icmp\": invalid proto: icmp"),
            ("x:1:2", "invalid IP address: x"),
        ] {
            assert_eq!(text(word).unwrap_err().to_string(), message);
        }
    }
}
