//! Moving network interfaces of the host into the container (`netDevices`).
//!
//! A handful of rtnetlink messages, so they are written here by hand: read the interface's addresses, move and rename it, then inside the
//! container's namespace give it its permanent global addresses again and set it up, as runc does.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use linux::{Errno, namespace};
use oci::runtime::LinuxNetDevice;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
use rustix::process::Pid;

use crate::error::{Context, Error, Result, Stage};
use crate::namespaces;

const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const FLAG_REQUEST: u16 = 1;
const FLAG_ACK: u16 = 4;
const FLAG_DUMP: u16 = 0x300;
const FLAG_CREATE_EXCLUSIVELY: u16 = 0x600;
const ATTRIBUTE_NAME: u16 = 3;
const ATTRIBUTE_NAMESPACE: u16 = 28;
const ADDRESS_FLAG_PERMANENT: u8 = 0x80;
const SCOPE_UNIVERSE: u8 = 0;
const INTERFACE_UP: u32 = 1;
const HEADER_BYTES: usize = 16;
const LINK_BYTES: usize = 16;
const ADDRESS_BYTES: usize = 8;
/// The kernel's limit with the NUL.
const MAX_NAME_BYTES: usize = 16;
/// The kernel's dumps come in pieces of at most this.
const MAX_DUMP_BYTES: usize = 32 * 1024;
/// One interface with all its attributes.
const MAX_ANSWER_BYTES: usize = 8 * 1024;

/// Refuses names that no interface can have.
pub(crate) fn check(devices: &BTreeMap<String, LinuxNetDevice>) -> Result<()> {
    for (host, device) in devices {
        for name in [host, &device.name].into_iter().filter(|name| !name.is_empty() || *name == host) {
            let fits = !name.is_empty() && name.len() < MAX_NAME_BYTES && name != "." && name != "..";
            if !fits || name.contains(['/', ':', '\0', '%']) || name.contains(char::is_whitespace) {
                return Err(Error::new(Stage::Spec, format!("invalid network interface name {name:?}")));
            }
        }
    }
    Ok(())
}

/// Moves every interface into the network namespace of process `pid`.
pub(crate) fn move_all(devices: &BTreeMap<String, LinuxNetDevice>, pid: Pid) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let path = format!("/proc/{}/ns/net", pid.as_raw_nonzero());
    let target = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .context(Stage::Properties, || format!("cannot open {path}"))?;
    let host = Netlink::open()?;
    let inside = open_inside(target.as_fd())?;
    for (name, device) in devices {
        let new_name = if device.name.is_empty() { name } else { &device.name };
        move_one(&host, &inside, name, new_name, target.as_fd())
            .context(Stage::Properties, || format!("cannot move network interface {name:?}"))?;
    }
    Ok(())
}

/// Sets the loopback interface of this process's network namespace up.
pub(crate) fn set_loopback_up() -> Result<()> {
    /// It is the first interface of every network namespace.
    const LOOPBACK: u32 = 1;
    let up = Netlink::open()?.set_link(LOOPBACK, INTERFACE_UP, INTERFACE_UP, &[]);
    up.context(Stage::Properties, || "cannot set the loopback interface up")
}

/// A socket that belongs to another network namespace: sockets stay in the one they were made in.
fn open_inside(target: BorrowedFd<'_>) -> Result<Netlink> {
    let own = namespaces::current("net")?;
    let failed = || "cannot enter the container's network namespace";
    namespace::join(target, namespace::NETWORK).context(Stage::Properties, failed)?;
    let inside = Netlink::open();
    namespace::join(own.as_fd(), namespace::NETWORK)
        .context(Stage::Properties, || "cannot return to the own network namespace")?;
    inside
}

fn move_one(host: &Netlink, inside: &Netlink, name: &str, new_name: &str, target: BorrowedFd<'_>) -> linux::Result<()> {
    let index = host.index_of(name)?;
    let addresses = host.addresses_of(index)?;
    host.set_link(
        index,
        0,
        0,
        &[attribute(ATTRIBUTE_NAMESPACE, &target.as_raw_fd().to_ne_bytes()), name_attribute(new_name)],
    )?;
    let index = inside.index_of(new_name)?;
    for address in addresses {
        inside.add_address(index, address)?;
    }
    inside.set_link(index, INTERFACE_UP, INTERFACE_UP, &[])
}

/// A routing socket.
struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    fn open() -> Result<Netlink> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None);
        socket.map(|socket| Netlink { socket }).context(Stage::Properties, || "cannot open a netlink socket")
    }

    fn index_of(&self, name: &str) -> linux::Result<u32> {
        let mut body = vec![0; LINK_BYTES];
        body.extend(name_attribute(name));
        let replies = self.ask(GET_LINK, FLAG_REQUEST, &body)?;
        let link = replies.first().ok_or(Errno::NODEV)?;
        let index = link.get(4..8).and_then(|bytes| bytes.try_into().ok()).ok_or(Errno::PROTO)?;
        Ok(u32::from_ne_bytes(index))
    }

    /// The permanent global addresses of an interface, as messages to give them again.
    fn addresses_of(&self, index: u32) -> linux::Result<Vec<Vec<u8>>> {
        let replies = self.ask(GET_ADDRESS, FLAG_REQUEST | FLAG_DUMP, &[0; ADDRESS_BYTES])?;
        let wanted = |message: &Vec<u8>| {
            let ours = message.get(4..8) == Some(&index.to_ne_bytes()[..]);
            ours && message[2] & ADDRESS_FLAG_PERMANENT != 0 && message[3] == SCOPE_UNIVERSE
        };
        Ok(replies.into_iter().filter(wanted).collect())
    }

    fn add_address(&self, index: u32, mut message: Vec<u8>) -> linux::Result<()> {
        message[4..8].copy_from_slice(&index.to_ne_bytes());
        match self.ask(NEW_ADDRESS, FLAG_REQUEST | FLAG_ACK | FLAG_CREATE_EXCLUSIVELY, &message) {
            Err(Errno::EXIST) => Ok(()),
            other => other.map(drop),
        }
    }

    fn set_link(&self, index: u32, flags: u32, change: u32, attributes: &[Vec<u8>]) -> linux::Result<()> {
        let mut body = vec![0; LINK_BYTES];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        body[8..12].copy_from_slice(&flags.to_ne_bytes());
        body[12..16].copy_from_slice(&change.to_ne_bytes());
        attributes.iter().for_each(|attribute| body.extend(attribute));
        self.ask(NEW_LINK, FLAG_REQUEST | FLAG_ACK, &body).map(drop)
    }

    /// Sends one request and collects the bodies of the answers.
    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> linux::Result<Vec<Vec<u8>>> {
        let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
        message.extend(((HEADER_BYTES + body.len()) as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        send(&self.socket, &message, SendFlags::empty())?;
        let (mut answers, mut buffer) =
            (Vec::new(), vec![0; if flags & FLAG_DUMP == FLAG_DUMP { MAX_DUMP_BYTES } else { MAX_ANSWER_BYTES }]);
        loop {
            let (count, _) = recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
            match parse(&buffer[..count], &mut answers)? {
                Progress::Ended => return Ok(answers),
                Progress::More if flags & (FLAG_DUMP | FLAG_ACK) == 0 => return Ok(answers),
                Progress::More => {}
            }
        }
    }
}

enum Progress {
    More,
    Ended,
}

/// Splits what was received into the bodies of its messages.
fn parse(mut bytes: &[u8], answers: &mut Vec<Vec<u8>>) -> linux::Result<Progress> {
    while let Some((header, _)) = bytes.split_first_chunk::<HEADER_BYTES>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let body = bytes.get(HEADER_BYTES..length).ok_or(Errno::PROTO)?;
        match u16::from_ne_bytes([header[4], header[5]]) {
            ERROR => {
                let code = body.first_chunk::<4>().map(|code| i32::from_ne_bytes(*code)).ok_or(Errno::PROTO)?;
                return if code == 0 { Ok(Progress::Ended) } else { Err(Errno::from_raw_os_error(-code)) };
            }
            DONE => return Ok(Progress::Ended),
            _ => answers.push(body.to_vec()),
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Progress::More)
}

fn name_attribute(name: &str) -> Vec<u8> {
    attribute(ATTRIBUTE_NAME, &[name.as_bytes(), &[0]].concat())
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.len() + 7);
    bytes.extend(((value.len() + 4) as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(host: &str, inside: &str) -> BTreeMap<String, LinuxNetDevice> {
        BTreeMap::from([(host.to_owned(), LinuxNetDevice { name: inside.to_owned() })])
    }

    #[test]
    fn names_are_those_an_interface_can_have() {
        check(&devices("eth0", "")).unwrap();
        check(&devices("eth0", "net1")).unwrap();
        for (host, inside) in
            [("", "x"), ("a/b", ""), ("..", ""), ("eth0", "sixteen-letters-"), ("eth0", "a b"), ("eth%d", "")]
        {
            assert!(check(&devices(host, inside)).is_err(), "{host:?} {inside:?}");
        }
    }

    #[test]
    fn the_loopback_is_found_and_a_missing_one_told() {
        let netlink = Netlink::open().unwrap();
        assert_eq!(netlink.index_of("lo").unwrap(), 1);
        assert_eq!(netlink.index_of("nosuch").unwrap_err(), Errno::NODEV);
        assert!(netlink.addresses_of(1).is_ok());
    }

    #[test]
    fn broken_answers_are_errors() {
        let mut answers = Vec::new();
        let truncated = [[40, 0, 0, 0, 16, 0, 0, 0].as_slice(), &[0; 8]].concat();
        assert!(parse(&truncated, &mut answers).is_err());
        let shorter_than_a_header = [[3, 0, 0, 0, 16, 0, 0, 0].as_slice(), &[0; 8]].concat();
        assert!(parse(&shorter_than_a_header, &mut answers).is_err());
    }
}
