//! The files that tell a container who and where it is: `/etc/resolv.conf`, `/etc/hosts`, `/etc/hostname`.
//!
//! Pure but for [`read_host_resolv_conf`]. The rules are Docker's.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use thiserror::Error;

use crate::resolver::RESOLVER;

/// What `--dns`, `--dns-search` and `--dns-option` say; each list replaces the host's when it is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// Name servers.
    pub servers: Vec<IpAddr>,
    /// Domains to try; a lone `.` means none at all.
    pub search: Vec<String>,
    /// Resolver options, such as `ndots:2`.
    pub options: Vec<String>,
}

/// Which of the host's name servers a container's network lets it reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of them: it shares the host's network, or has none.
    Everything,
    /// None of them: it has a name server of its own, which asks them.
    Resolver,
    /// Those outside: on a bridge the host's loopback is not there, and without IPv6 neither are IPv6 servers.
    OutsideIpv4,
    /// Those outside, of both families.
    Outside,
}

/// Used where a host names only servers on its own loopback, as Docker does.
const FALLBACK_SERVERS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)), IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4))];

/// The text of the host's resolver configuration.
///
/// Where `/etc/resolv.conf` names only systemd-resolved's stub on loopback, the file is read that lists the servers behind it.
pub fn read_host_resolv_conf() -> std::io::Result<String> {
    let text = read_or_empty(Path::new("/etc/resolv.conf"))?;
    if servers_of(&text) != [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53))] {
        return Ok(text);
    }
    let behind = read_or_empty(Path::new("/run/systemd/resolve/resolv.conf"))?;
    Ok(if behind.is_empty() { text } else { behind })
}

/// The host's name servers.
pub fn host_servers() -> Vec<IpAddr> {
    servers_of(&read_host_resolv_conf().unwrap_or_default())
}

fn read_or_empty(path: &Path) -> std::io::Result<String> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// A container's `/etc/resolv.conf`, from the host's text and the user's wishes.
pub fn resolv_conf(host: &str, wishes: &Dns, reach: Reach) -> String {
    let mut text =
        String::from("# Made by Conex from the host's resolver configuration and the container's options.\n");
    for server in servers_for(host, wishes, reach) {
        let _ = writeln!(text, "nameserver {server}");
    }
    let search =
        if wishes.search.is_empty() { words_after(host, &["search", "domain"]) } else { wishes.search.clone() };
    let search: Vec<String> = search.into_iter().filter(|domain| domain != ".").collect();
    write_list(&mut text, "search", &search);
    let mut options = if wishes.options.is_empty() { words_after(host, &["options"]) } else { wishes.options.clone() };
    if reach == Reach::Resolver && !options.iter().any(|option| option.starts_with("ndots:")) {
        // Names of containers have no dots: they are asked for as they are first.
        options.push("ndots:0".to_owned());
    }
    write_list(&mut text, "options", &options);
    text
}

fn write_list(text: &mut String, keyword: &str, words: &[String]) {
    if !words.is_empty() {
        let _ = writeln!(text, "{keyword} {}", words.join(" "));
    }
}

fn servers_for(host: &str, wishes: &Dns, reach: Reach) -> Vec<IpAddr> {
    if reach == Reach::Resolver {
        return vec![RESOLVER.into()];
    }
    if !wishes.servers.is_empty() {
        return wishes.servers.clone();
    }
    let mut servers = servers_of(host);
    if reach == Reach::Everything {
        return servers;
    }
    servers.retain(|server| (server.is_ipv4() || reach == Reach::Outside) && !server.is_loopback());
    if servers.is_empty() { FALLBACK_SERVERS.to_vec() } else { servers }
}

/// The name servers of a resolver configuration. Scoped IPv6 addresses (`fe80::1%eth0`) mean nothing in another namespace and
/// are left out.
pub(crate) fn servers_of(text: &str) -> Vec<IpAddr> {
    lines_of(text)
        .filter_map(|(keyword, rest)| {
            (keyword == "nameserver").then(|| rest.split_whitespace().next()?.parse().ok())?
        })
        .collect()
}

/// The words of the last line that starts with one of `keywords`: as in resolv.conf(5), the last instance wins.
fn words_after(text: &str, keywords: &[&str]) -> Vec<String> {
    let last = lines_of(text).filter(|(keyword, _)| keywords.contains(keyword)).last();
    last.map(|(_, rest)| rest.split_whitespace().map(str::to_owned).collect()).unwrap_or_default()
}

fn lines_of(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with(['#', ';']))
        .filter_map(|line| line.split_once(char::is_whitespace))
}

/// One `--add-host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// What it stands for.
    pub address: HostAddress,
}

/// What a name in `--add-host` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostAddress {
    /// This address.
    Ip(IpAddr),
    /// The host, as the container reaches it (`host-gateway`).
    Gateway,
}

/// Why an `--add-host` is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ExtraHostError {
    /// It is not `NAME:ADDRESS`.
    #[error("bad format for add-host: \"{0}\"")]
    Malformed(String),
    /// The address is none.
    #[error("invalid IP address in add-host: \"{0}\"")]
    Address(String),
}

impl ExtraHost {
    /// Reads `NAME:ADDRESS` or `NAME=ADDRESS`; the address may be in brackets or `host-gateway`.
    pub fn parse(text: &str) -> Result<Self, ExtraHostError> {
        let split = text.split_once('=').or_else(|| text.split_once(':'));
        let (name, address) = split.ok_or_else(|| ExtraHostError::Malformed(text.to_owned()))?;
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(ExtraHostError::Malformed(text.to_owned()));
        }
        Ok(Self { name: name.to_owned(), address: HostAddress::parse(address)? })
    }
}

impl HostAddress {
    fn parse(text: &str) -> Result<Self, ExtraHostError> {
        if text == "host-gateway" {
            return Ok(Self::Gateway);
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        bare.parse().map(Self::Ip).map_err(|_| ExtraHostError::Address(text.to_owned()))
    }
}

const LOCAL_NAMES: [(IpAddr, &str); 6] = [
    (IpAddr::V4(Ipv4Addr::LOCALHOST), "localhost"),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), "localhost ip6-localhost ip6-loopback"),
    (IpAddr::V6(Ipv6Addr::new(0xfe00, 0, 0, 0, 0, 0, 0, 0)), "ip6-localnet"),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), "ip6-mcastprefix"),
    (IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)), "ip6-allnodes"),
    (IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2)), "ip6-allrouters"),
];

/// A container's `/etc/hosts`: the local names, `extra`, then each of `addresses` with `hostname` (and `hostname.domain`).
/// `gateway` is what `host-gateway` becomes.
pub fn hosts_file(
    hostname: &str,
    domain: &str,
    addresses: &[IpAddr],
    extra: &[ExtraHost],
    gateway: Option<IpAddr>,
) -> String {
    let mut text = String::new();
    for (address, names) in LOCAL_NAMES {
        let _ = writeln!(text, "{address}\t{names}");
    }
    for host in extra {
        let target = match host.address {
            HostAddress::Ip(address) => Some(address),
            HostAddress::Gateway => gateway,
        };
        if let Some(target) = target {
            let _ = writeln!(text, "{target}\t{}", host.name);
        }
    }
    addresses.iter().for_each(|address| text.push_str(&own_line(*address, hostname, domain)));
    text
}

fn own_line(address: IpAddr, hostname: &str, domain: &str) -> String {
    match domain {
        "" => format!("{address}\t{hostname}\n"),
        domain => format!("{address}\t{hostname}.{domain} {hostname}\n"),
    }
}

/// A container's `/etc/hosts` after it has other addresses: the lines of [`hosts_file`] for those that it lost are gone, those for new
/// ones are at the end, and everything else is as it was, also where the container wrote it. `names` are host name and domain.
pub fn change_hosts(text: &str, names: (&str, &str), before: &[IpAddr], after: &[IpAddr]) -> String {
    let line = |address: &IpAddr| own_line(*address, names.0, names.1);
    let lost: Vec<String> = before.iter().filter(|address| !after.contains(address)).map(line).collect();
    let mut changed: String = text.split_inclusive('\n').filter(|line| !lost.iter().any(|lost| lost == line)).collect();
    let new = after.iter().filter(|address| !before.contains(address));
    new.for_each(|address| {
        if !changed.is_empty() && !changed.ends_with('\n') {
            changed.push('\n');
        }
        changed.push_str(&line(address));
    });
    changed
}

/// A container's `/etc/hostname`.
pub fn hostname_file(hostname: &str) -> String {
    format!("{hostname}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(host: &str, wishes: &Dns, reach: Reach) -> String {
        resolv_conf(host, wishes, reach).split_once('\n').unwrap().1.to_owned()
    }

    #[test]
    fn loopback_and_ipv6_servers_stay_at_home() {
        let host = "nameserver 127.0.0.1\nnameserver ::1\nnameserver fd00::53\nnameserver 192.0.2.53 # the real one\n";
        assert_eq!(body(host, &Dns::default(), Reach::OutsideIpv4), "nameserver 192.0.2.53\n");
        assert_eq!(body(host, &Dns::default(), Reach::Outside), "nameserver fd00::53\nnameserver 192.0.2.53\n");
        assert_eq!(
            body(host, &Dns::default(), Reach::Everything),
            "nameserver 127.0.0.1\nnameserver ::1\nnameserver fd00::53\nnameserver 192.0.2.53\n"
        );
    }

    #[test]
    fn a_container_with_a_name_server_of_its_own_asks_that() {
        let host = "nameserver 192.0.2.53\nsearch example.org\noptions edns0\n";
        let wishes = Dns { servers: vec!["192.0.2.1".parse().unwrap()], ..Dns::default() };
        let expected = "nameserver 127.0.0.11\nsearch example.org\noptions edns0 ndots:0\n";
        assert_eq!(body(host, &wishes, Reach::Resolver), expected);
        let wishes = Dns { options: vec!["ndots:2".to_owned()], ..Dns::default() };
        assert!(body(host, &wishes, Reach::Resolver).ends_with("options ndots:2\n"));
    }

    #[test]
    fn a_host_with_only_a_local_resolver_falls_back() {
        let fallback = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n";
        assert_eq!(body("nameserver 127.0.0.53\n", &Dns::default(), Reach::OutsideIpv4), fallback);
        assert_eq!(body("", &Dns::default(), Reach::OutsideIpv4), fallback);
        assert_eq!(body("", &Dns::default(), Reach::Everything), "");
    }

    #[test]
    fn search_and_options_are_carried_over() {
        let host = "; old\nsearch a.example\n#search no\nsearch b.example c.example\noptions ndots:2 edns0\nnameserver 192.0.2.1\n";
        assert_eq!(
            body(host, &Dns::default(), Reach::OutsideIpv4),
            "nameserver 192.0.2.1\nsearch b.example c.example\noptions ndots:2 edns0\n"
        );
        assert_eq!(
            body("domain d.example\nnameserver 192.0.2.1", &Dns::default(), Reach::OutsideIpv4),
            "nameserver 192.0.2.1\nsearch d.example\n"
        );
    }

    #[test]
    fn wishes_replace_list_by_list() {
        let host = "search a.example\noptions ndots:2\nnameserver 192.0.2.1\n";
        let wishes = Dns {
            servers: vec!["127.0.0.1".parse().unwrap()],
            search: vec![".".to_owned()],
            options: vec!["rotate".to_owned()],
        };
        assert_eq!(body(host, &wishes, Reach::OutsideIpv4), "nameserver 127.0.0.1\noptions rotate\n");
    }

    #[test]
    fn extra_hosts_are_read_in_all_spellings() {
        let ip = |text: &str| HostAddress::Ip(text.parse().unwrap());
        for (text, name, address) in [
            ("db:10.0.0.1", "db", ip("10.0.0.1")),
            ("db=10.0.0.1", "db", ip("10.0.0.1")),
            ("six:fd00::1", "six", ip("fd00::1")),
            ("six=[fd00::1]", "six", ip("fd00::1")),
            ("host.docker.internal:host-gateway", "host.docker.internal", HostAddress::Gateway),
        ] {
            assert_eq!(ExtraHost::parse(text), Ok(ExtraHost { name: name.to_owned(), address }), "{text}");
        }
        for text in ["db", "db:", "db:nonsense", ":10.0.0.1", "a b:10.0.0.1", "x\ty=10.0.0.1"] {
            assert!(ExtraHost::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_ones_own_lines_change() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let text = "172.17.0.2\tweb\n10.0.0.1\tdb\n172.17.0.2\tmine";
        let changed = change_hosts(text, ("web", ""), &[ip("172.17.0.2")], &[ip("172.18.0.2"), ip("fd00::2")]);
        assert_eq!(changed, "10.0.0.1\tdb\n172.17.0.2\tmine\n172.18.0.2\tweb\nfd00::2\tweb\n");
        assert_eq!(change_hosts(text, ("web", ""), &[ip("172.17.0.2")], &[ip("172.17.0.2")]), text);
    }

    #[test]
    fn hosts_are_in_dockers_order() {
        let extra = [ExtraHost::parse("db:10.0.0.1").unwrap(), ExtraHost::parse("up:host-gateway").unwrap()];
        let own = ["172.17.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let text = hosts_file("web", "example.org", &own, &extra, Some("172.17.0.1".parse().unwrap()));
        assert_eq!(
            text,
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
             ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n10.0.0.1\tdb\n172.17.0.1\tup\n172.17.0.2\tweb.example.org web\n\
             fd00::2\tweb.example.org web\n"
        );
        assert!(hosts_file("web", "", &own[..1], &[], None).ends_with("172.17.0.2\tweb\n"));
    }
}
