//! The socket, and the strict reading of answers.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use linux::netlink::NetlinkOption;
use rustix::net::netlink::{self as protocols, SocketAddrNetlink};
use rustix::net::sockopt::Timeout;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use thiserror::Error;

use crate::attribute::Attributes;
use crate::request::{HEADER_BYTES, Request};

pub use rustix::io::Errno;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;

const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// The kernel's largest error number.
const ERRNO_MAX: i32 = 4095;

/// The kernel answers before the sending call returns; this is for answers that it lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The kernel fills at most 32 KiB per answer when a dump offers more.
const RECEIVE_BYTES: usize = 64 * 1024;

/// Room for the answers to a large transaction: each takes under a kilobyte of the kernel's accounting.
const RECEIVE_BUFFER_BYTES: usize = 1024 * 1024;

/// What every socket may send at once; beyond it the buffer is made larger first.
const SEND_BYTES: usize = 96 * 1024;

/// A dump that changes under the reader is asked for again, this often.
const DUMP_ATTEMPTS: usize = 10;

/// Whom a socket talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses, routes, neighbours.
    Route,
    /// nf_tables and connection tracking.
    Netfilter,
}

/// What a socket can be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Changes to nf_tables.
    Rules,
    /// Changes to routes of either version of IP.
    Routes,
}

impl Group {
    fn mask(self) -> u32 {
        match self {
            Self::Rules => 1 << (7 - 1),
            Self::Routes => 1 << (7 - 1) | 1 << (11 - 1),
        }
    }
}

/// Why there is no socket.
#[derive(Debug, Error)]
#[error("cannot open a netlink socket: {source}")]
pub struct OpenError {
    /// The kernel's answer.
    pub source: Errno,
}

impl From<Errno> for OpenError {
    fn from(source: Errno) -> Self {
        Self { source }
    }
}

/// Why a request was not done.
#[derive(Debug, Error)]
pub enum RequestError {
    /// The kernel refused it.
    #[error("cannot {purpose}: {errno}{}", explained(.explanation))]
    Refused {
        /// What was asked.
        purpose: String,
        /// The kernel's answer.
        errno: Errno,
        /// The kernel's own words, where it has some.
        explanation: Option<String>,
    },
    /// The socket failed.
    #[error("cannot {purpose}: netlink socket: {source}")]
    Socket {
        /// What was asked.
        purpose: String,
        /// The failure.
        source: Errno,
    },
    /// The answer makes no sense.
    #[error("cannot {purpose}: malformed answer of the kernel")]
    Malformed {
        /// What was asked.
        purpose: String,
    },
    /// The objects changed faster than they could be listed.
    #[error("cannot {purpose}: the list kept changing")]
    Unstable {
        /// What was asked.
        purpose: String,
    },
}

fn explained(explanation: &Option<String>) -> String {
    explanation.as_ref().map(|text| format!(" ({text})")).unwrap_or_default()
}

impl RequestError {
    /// The kernel's error number, if it is what failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } | Self::Socket { source: errno, .. } => Some(*errno),
            Self::Malformed { .. } | Self::Unstable { .. } => None,
        }
    }
}

/// One message of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The message's kind.
    pub kind: u16,
    /// What follows the netlink header.
    pub payload: Vec<u8>,
}

impl Reply {
    /// The attributes behind a fixed part of `fixed` bytes.
    pub fn attributes(&self, fixed: usize) -> Attributes<'_> {
        Attributes::new(self.payload.get(fixed..).unwrap_or_default())
    }
}

/// A netlink socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket here.
    pub fn open(family: Family) -> Result<Self, OpenError> {
        Self::open_in_groups(family, 0)
    }

    fn open_in_groups(family: Family, groups: u32) -> Result<Self, OpenError> {
        let protocol = match family {
            Family::Route => None,
            Family::Netfilter => Some(protocols::NETFILTER),
        };
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        linux::netlink::enable(fd.as_fd(), NetlinkOption::CapAck)?;
        linux::netlink::enable(fd.as_fd(), NetlinkOption::ExtAck)?;
        if family == Family::Route {
            linux::netlink::enable(fd.as_fd(), NetlinkOption::StrictCheck)?;
        }
        // Beyond the limit of an unprivileged process the kernel takes what it allows; that is enough for all but huge batches.
        rustix::net::sockopt::set_socket_recv_buffer_size(&fd, RECEIVE_BUFFER_BYTES)?;
        rustix::net::sockopt::set_socket_timeout(&fd, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; RECEIVE_BYTES] })
    }

    /// Opens a socket that the kernel tells of changes. It is only good for [`Socket::discard`] and for waiting on.
    pub fn subscribe(family: Family, group: Group) -> Result<Self, OpenError> {
        Self::open_in_groups(family, group.mask())
    }

    /// Throws away what has come in unasked, without waiting for more.
    pub fn discard(&mut self) {
        // An overrun is reported once, as an error, and then cleared: read on until there really is nothing.
        loop {
            match rustix::net::recv(&self.fd, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok(_) | Err(Errno::NOBUFS | Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// Carries out `requests` in order, all sent at once. The kernel goes on after a failed one; the first failure is returned.
    pub fn execute(&mut self, requests: &mut [Request]) -> Result<(), RequestError> {
        self.exchange(requests).map(drop)
    }

    /// Carries out `requests` as one netfilter transaction: the first opens it, the last ends it, and all between happen or none.
    ///
    /// Kernels before 6.10 do not confirm the end, so the message before it is the one whose confirmation is waited for. A
    /// transaction that fails as a whole is reported against the message that opens it.
    pub fn transact(&mut self, requests: &mut [Request]) -> Result<(), RequestError> {
        let confirmed = requests.len().saturating_sub(2);
        self.exchange_until(requests, confirmed, Opening::FailsAll).map(drop)
    }

    /// Carries out one request and returns what the kernel answers.
    pub fn ask(&mut self, request: Request) -> Result<Vec<Reply>, RequestError> {
        self.exchange(&mut [request])
    }

    /// Lists objects; `request` has the dump flag.
    pub fn dump(&mut self, request: &Request) -> Result<Vec<Reply>, RequestError> {
        for _ in 0..DUMP_ATTEMPTS {
            match self.exchange(&mut [request.clone()]) {
                Err(RequestError::Unstable { .. }) => {}
                result => return result,
            }
        }
        Err(RequestError::Unstable { purpose: request.purpose().to_owned() })
    }

    fn exchange(&mut self, requests: &mut [Request]) -> Result<Vec<Reply>, RequestError> {
        self.exchange_until(requests, requests.len().saturating_sub(1), Opening::IsLikeTheRest)
    }

    /// Sends everything in one message and reads until the request at index `last` is answered.
    fn exchange_until(
        &mut self,
        requests: &mut [Request],
        last: usize,
        opening: Opening,
    ) -> Result<Vec<Reply>, RequestError> {
        let Some(confirmed) = requests.get_mut(last) else { return Ok(Vec::new()) };
        confirmed.acknowledge();
        let first_sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(requests.len() * 128);
        for request in requests.iter_mut() {
            self.sequence = self.sequence.wrapping_add(1);
            bytes.extend_from_slice(request.finish(self.sequence));
        }
        let requests: &[Request] = requests;
        let purpose = |index: usize| requests[index.min(requests.len() - 1)].purpose().to_owned();
        self.send(&bytes).map_err(|source| RequestError::Socket { purpose: purpose(0), source })?;
        let mut answers = Answers::expect(requests, first_sequence, last, opening);
        while !self.receive_into(&mut answers)? {}
        match (answers.failure, answers.interrupted) {
            (Some(failure), _) => Err(failure),
            (None, true) => Err(RequestError::Unstable { purpose: purpose(0) }),
            (None, false) => Ok(answers.replies),
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.len() > SEND_BYTES {
            // A transaction is one message, and the kernel takes none that its buffer has no room for. Doubled for its accounting.
            let room = bytes.len() * 2;
            rustix::net::sockopt::set_socket_send_buffer_size_force(&self.fd, room)
                .or_else(|_| rustix::net::sockopt::set_socket_send_buffer_size(&self.fd, room))?;
        }
        rustix::io::retry_on_intr(|| rustix::net::send(&self.fd, bytes, SendFlags::empty())).map(drop)
    }

    /// Reads one datagram; true when everything is answered.
    fn receive_into(&mut self, answers: &mut Answers<'_>) -> Result<bool, RequestError> {
        let purpose = || answers.requests[0].purpose().to_owned();
        let fd = &self.fd;
        let buffer = &mut self.buffer;
        let (_, length, from) =
            rustix::io::retry_on_intr(|| rustix::net::recvfrom(fd, buffer.as_mut_slice(), RecvFlags::TRUNC))
                .map_err(|source| RequestError::Socket { purpose: purpose(), source })?;
        let from_kernel =
            from.and_then(|from| SocketAddrNetlink::try_from(from).ok()).is_some_and(|from| from.pid() == 0);
        if !from_kernel {
            return Ok(false);
        }
        let datagram = buffer.get(..length).ok_or_else(|| RequestError::Malformed { purpose: purpose() })?;
        answers.take(datagram)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What an error against the first request means for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    /// Nothing.
    IsLikeTheRest,
    /// None of them will be answered.
    FailsAll,
}

/// What came back so far for a series of requests with consecutive sequence numbers.
struct Answers<'a> {
    first_sequence: u32,
    requests: &'a [Request],
    last: usize,
    opening: Opening,
    replies: Vec<Reply>,
    failure: Option<RequestError>,
    interrupted: bool,
}

/// The header and payload of one received message.
struct Received<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl<'a> Answers<'a> {
    fn expect(requests: &'a [Request], first_sequence: u32, last: usize, opening: Opening) -> Self {
        Self { first_sequence, requests, last, opening, replies: Vec::new(), failure: None, interrupted: false }
    }

    /// Takes in the messages of one datagram; true when the last request is answered.
    fn take(&mut self, mut datagram: &[u8]) -> Result<bool, RequestError> {
        let mut complete = false;
        while !datagram.is_empty() {
            let (message, rest) = split_message(datagram).ok_or_else(|| self.malformed())?;
            datagram = rest;
            // Answers to an earlier exchange that was given up are skipped.
            let index = message.sequence.wrapping_sub(self.first_sequence) as usize;
            if index < self.requests.len() {
                complete |= self.take_one(index, &message)?;
            }
        }
        Ok(complete)
    }

    fn take_one(&mut self, index: usize, message: &Received<'_>) -> Result<bool, RequestError> {
        self.interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
        match message.kind {
            NLMSG_ERROR | NLMSG_DONE => {
                self.take_verdict(index, message)?;
                Ok(index == self.last || (index == 0 && self.opening == Opening::FailsAll))
            }
            NLMSG_OVERRUN => Err(self.malformed()),
            kind => {
                self.replies.push(Reply { kind, payload: message.payload.to_vec() });
                Ok(false)
            }
        }
    }

    /// Reads the error number that an acknowledgement or the end of a dump carries.
    fn take_verdict(&mut self, index: usize, message: &Received<'_>) -> Result<(), RequestError> {
        let code = match message.payload.split_first_chunk::<4>() {
            Some((code, _)) => i32::from_ne_bytes(*code),
            None if message.kind == NLMSG_DONE => 0,
            None => return Err(self.malformed()),
        };
        if !(-ERRNO_MAX..=0).contains(&code) {
            return Err(self.malformed());
        }
        if code < 0 && self.failure.is_none() {
            self.failure = Some(RequestError::Refused {
                purpose: self.requests[index].purpose().to_owned(),
                errno: Errno::from_raw_os_error(-code),
                explanation: explanation(message),
            });
        }
        Ok(())
    }

    fn malformed(&self) -> RequestError {
        RequestError::Malformed { purpose: self.requests[0].purpose().to_owned() }
    }
}

/// The kernel's words, behind the error number and the (repeated) request.
fn explanation(message: &Received<'_>) -> Option<String> {
    if message.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let offset = match message.kind {
        NLMSG_DONE => 4,
        _ if message.flags & NLM_F_CAPPED != 0 => 4 + HEADER_BYTES,
        _ => 4 + u32::from_ne_bytes(*message.payload.get(4..)?.first_chunk()?) as usize,
    };
    let mut attributes = Attributes::new(message.payload.get(offset.next_multiple_of(4)..)?);
    attributes.find(|attribute| attribute.kind == NLMSGERR_ATTR_MSG)?.text().map(str::to_owned)
}

fn split_message(bytes: &[u8]) -> Option<(Received<'_>, &[u8])> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let payload = bytes.get(HEADER_BYTES..length)?;
    let message = Received {
        kind: u16::from_ne_bytes([header[4], header[5]]),
        flags: u16::from_ne_bytes([header[6], header[7]]),
        sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
        payload,
    };
    Some((message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&(16 + payload.len() as u32).to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(payload);
        bytes
    }

    fn requests(count: usize) -> Vec<Request> {
        (0..count).map(|index| Request::new(16, 0, &[], format!("do thing {index}"))).collect()
    }

    fn answers(requests: &[Request]) -> Answers<'_> {
        Answers::expect(requests, 10, requests.len() - 1, Opening::IsLikeTheRest)
    }

    #[test]
    fn the_first_failure_is_told_with_the_kernels_words() {
        let requests = requests(3);
        let mut answers = answers(&requests);
        let mut refused = (-17_i32).to_ne_bytes().to_vec();
        refused.extend_from_slice(&[0; 16]);
        refused.extend_from_slice(&[9, 0, 1, 0, b't', b'a', b'k', b'e', b'n', 0, 0, 0]);
        let first = message(NLMSG_ERROR, NLM_F_CAPPED | NLM_F_ACK_TLVS, 11, &refused);
        assert!(!answers.take(&first).unwrap());
        assert!(answers.take(&message(NLMSG_ERROR, NLM_F_CAPPED, 12, &(-1_i32).to_ne_bytes())).unwrap());
        let failure = answers.failure.unwrap();
        assert_eq!(failure.errno(), Some(Errno::EXIST));
        assert!(failure.to_string().starts_with("cannot do thing 1: "), "{failure}");
        assert!(failure.to_string().ends_with("(taken)"), "{failure}");
    }

    #[test]
    fn answers_to_others_are_skipped() {
        let requests = requests(1);
        let mut answers = answers(&requests);
        assert!(!answers.take(&message(NLMSG_ERROR, 0, 9, &[0; 20])).unwrap());
        assert!(!answers.take(&message(16, 0, 11, &[0; 20])).unwrap());
        assert!(answers.replies.is_empty());
        assert!(answers.take(&message(NLMSG_ERROR, 0, 10, &[0; 20])).unwrap());
    }

    #[test]
    fn a_dump_ends_with_done_and_may_fail_there() {
        let requests = requests(1);
        let mut good = answers(&requests);
        let mut datagram = message(16, 2, 10, &[1, 2, 3, 4]);
        datagram.extend(message(NLMSG_DONE, 2, 10, &[0; 4]));
        assert!(good.take(&datagram).unwrap());
        assert_eq!(good.replies, [Reply { kind: 16, payload: vec![1, 2, 3, 4] }]);
        let mut bad = answers(&requests);
        assert!(bad.take(&message(NLMSG_DONE, 2, 10, &(-22_i32).to_ne_bytes())).unwrap());
        assert_eq!(bad.failure.unwrap().errno(), Some(Errno::INVAL));
    }

    proptest! {
        #[test]
        fn any_datagram_is_taken_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let requests = requests(2);
            let _ = answers(&requests).take(&bytes);
        }

        #[test]
        fn any_error_payload_is_taken_without_panic(flags in any::<u16>(), bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let requests = requests(1);
            let _ = answers(&requests).take(&message(NLMSG_ERROR, flags, 10, &bytes));
        }
    }
}
