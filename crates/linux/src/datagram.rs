//! Datagrams of IPv6 with the address at which they arrived, so that an answer comes from where the caller sent to.

use std::mem::{MaybeUninit, zeroed};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::raw::check;
use crate::{Errno, Result};

/// Between whom a datagram went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Passage {
    /// The caller.
    pub caller: SocketAddrV6,
    /// The address of this host that was called.
    pub called: Ipv6Addr,
    /// The index of the interface by which it came, where the address says nothing without; else 0.
    pub interface: u32,
}

impl Passage {
    /// A link's own address means something on its link alone; by any other the kernel finds the way.
    fn new(caller: SocketAddrV6, called: Ipv6Addr, interface: u32) -> Self {
        let needed = called.is_unicast_link_local() || called.is_multicast();
        Self { caller, called, interface: if needed { interface } else { 0 } }
    }

    /// What the kernel is told of an answer's sender. Who was called by a group's address answers under whichever is his own.
    fn sender(&self) -> libc::in6_pktinfo {
        let called = if self.called.is_multicast() { Ipv6Addr::UNSPECIFIED } else { self.called };
        libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: called.octets() }, ipi6_ifindex: self.interface }
    }
}

/// Room for one `IPV6_PKTINFO`, aligned as control messages are.
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// More than the 40 bytes that it takes, so that the kernel has no reason to cut.
const CONTROL_BYTES: usize = 64;

/// Has datagrams of an IPv6 socket come with the address at which they arrive (`IPV6_RECVPKTINFO`).
pub fn tell_passages(socket: BorrowedFd<'_>) -> Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: pointer and length of one integer that lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_RECVPKTINFO,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    check(result.into()).map(drop)
}

/// Receives a datagram into `bytes` without waiting; returns how long it is and between whom it went. What does not fit is cut off.
///
/// The socket is one of IPv6 to which [`tell_passages`] was applied; without that [`Errno::NOMSG`] is returned.
pub fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<(usize, Passage)> {
    let mut name = MaybeUninit::<libc::sockaddr_in6>::zeroed();
    let mut control = Control([0; CONTROL_BYTES]);
    let mut piece = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut message = message(&raw mut piece, name.as_mut_ptr(), &raw mut control, CONTROL_BYTES);
    // SAFETY: every pointer of the message is to memory of this frame (or the caller's `bytes`) of the length that stands beside it.
    let result = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let length = check(result as libc::c_long)?;
    // SAFETY: it was zeroed, which is a valid address, and the kernel wrote at most one of this kind over it.
    let name = unsafe { name.assume_init() };
    let arrived = arrived(&message).ok_or(Errno::NOMSG)?;
    let (address, port) = (Ipv6Addr::from(name.sin6_addr.s6_addr), u16::from_be(name.sin6_port));
    // A caller's flow label is none of who he is.
    let caller = SocketAddrV6::new(address, port, 0, name.sin6_scope_id);
    let called = Ipv6Addr::from(arrived.ipi6_addr.s6_addr);
    Ok((length as usize, Passage::new(caller, called, arrived.ipi6_ifindex)))
}

/// Sends a datagram back the way that one came, without waiting.
pub fn answer(socket: BorrowedFd<'_>, bytes: &[u8], passage: &Passage) -> Result<()> {
    let mut name = address(&passage.caller);
    let mut control = Control([0; CONTROL_BYTES]);
    let mut piece = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let message = message(&raw mut piece, &raw mut name, &raw mut control, control_space());
    put(&message, passage.sender());
    // SAFETY: every pointer of the message is to memory of this frame (or the caller's `bytes`, which sending only reads) of the length
    // that stands beside it, and the control message in it is whole.
    let result =
        unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    check(result as libc::c_long).map(drop)
}

/// The space of the control message that carries an address and its interface.
fn control_space() -> usize {
    // SAFETY: arithmetic on a length.
    unsafe { libc::CMSG_SPACE(size_of::<libc::in6_pktinfo>() as u32) as usize }
}

/// A message of one piece, with room for a name and control messages.
fn message(
    piece: *mut libc::iovec,
    name: *mut libc::sockaddr_in6,
    control: *mut Control,
    control_bytes: usize,
) -> libc::msghdr {
    // SAFETY: zeroes are a valid header; some C libraries have padding in it that cannot be named.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = name.cast();
    message.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
    message.msg_iov = piece;
    message.msg_iovlen = 1;
    message.msg_control = control.cast();
    message.msg_controllen = control_bytes as _;
    message
}

/// Writes the sender of an answer as the one control message of `message`, whose control buffer has room for it.
fn put(message: &libc::msghdr, sender: libc::in6_pktinfo) {
    // SAFETY: the buffer is aligned for the header and as long as `msg_controllen` says, which is the space of exactly this message.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(message);
        (*header).cmsg_level = libc::IPPROTO_IPV6;
        (*header).cmsg_type = libc::IPV6_PKTINFO;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<libc::in6_pktinfo>() as u32) as _;
        libc::CMSG_DATA(header).cast::<libc::in6_pktinfo>().write_unaligned(sender);
    }
}

/// The address and interface among the control messages that the kernel wrote.
fn arrived(message: &libc::msghdr) -> Option<libc::in6_pktinfo> {
    // SAFETY: the kernel has set `msg_controllen` to what it wrote into the buffer, and the macros stay within it; data is read as
    // long as the header's own kind says it is.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::IPPROTO_IPV6 && (*header).cmsg_type == libc::IPV6_PKTINFO {
                return Some(libc::CMSG_DATA(header).cast::<libc::in6_pktinfo>().read_unaligned());
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    None
}

fn address(of: &SocketAddrV6) -> libc::sockaddr_in6 {
    libc::sockaddr_in6 {
        sin6_family: libc::AF_INET6 as libc::sa_family_t,
        sin6_port: of.port().to_be(),
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: of.ip().octets() },
        sin6_scope_id: of.scope_id(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn an_answer_comes_from_where_the_caller_sent_to() {
        let (socket, caller) = (UdpSocket::bind("[::]:0").unwrap(), UdpSocket::bind("[::1]:0").unwrap());
        let mut bytes = [0; 16];
        assert_eq!(receive(socket.as_fd(), &mut bytes), Err(Errno::AGAIN));
        tell_passages(socket.as_fd()).unwrap();
        // Connected, it hears nobody else.
        caller.connect(("::1", socket.local_addr().unwrap().port())).unwrap();
        for sent in [&b"question"[..], b"", b"one of more than sixteen bytes"] {
            caller.send(sent).unwrap();
            let (length, passage) = receive(socket.as_fd(), &mut bytes).unwrap();
            assert_eq!(bytes[..length], sent[..sent.len().min(bytes.len())]);
            assert_eq!(passage.called, Ipv6Addr::LOCALHOST);
            assert_eq!(std::net::SocketAddr::V6(passage.caller), caller.local_addr().unwrap());
            answer(socket.as_fd(), b"answer", &passage).unwrap();
            let mut answered = [0; 16];
            assert_eq!(caller.recv(&mut answered).unwrap(), 6);
        }
        let nowhere = Passage { called: "2001:db8::77".parse().unwrap(), ..receive_one(&socket, &caller) };
        assert_eq!(answer(socket.as_fd(), b"answer", &nowhere), Err(Errno::INVAL));
    }

    #[test]
    fn without_the_option_nothing_is_guessed() {
        let (socket, caller) = (UdpSocket::bind("[::1]:0").unwrap(), UdpSocket::bind("[::1]:0").unwrap());
        caller.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        assert_eq!(receive(socket.as_fd(), &mut [0; 4]), Err(Errno::NOMSG));
    }

    fn receive_one(socket: &UdpSocket, caller: &UdpSocket) -> Passage {
        caller.send(b"x").unwrap();
        receive(socket.as_fd(), &mut [0; 4]).unwrap().1
    }
}
