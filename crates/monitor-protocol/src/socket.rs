//! The system calls under the frames. They work on blocking and non-blocking sockets.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{Mode, OFlags, fchmod};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, recvmsg, sendmsg, socket_with,
};

use crate::frame::{Decoder, MAX_FDS, READ_BYTES};

/// Whether a call may wait for the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// It waits, unless the socket itself is non-blocking.
    Block,
    /// It fails with `WouldBlock` instead.
    DontWait,
}

/// How many daemons may wait to be accepted.
const BACKLOG: i32 = 16;

/// A non-blocking listening socket at `path`, which only this user may connect to.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The file gets the socket's mode at once; a chmod afterwards would leave a moment in between.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    with_address(path, |address| bind(&socket, address))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Connects to the socket at `path`.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    with_address(path, |address| rustix::net::connect(&socket, address))?;
    Ok(UnixStream::from(socket))
}

/// Calls `act` with an address for `path`. The kernel takes 107 bytes; a longer path is reached through its folder's
/// descriptor.
fn with_address(path: &Path, act: impl FnOnce(&SocketAddrUnix) -> rustix::io::Result<()>) -> io::Result<()> {
    if let Ok(address) = SocketAddrUnix::new(path) {
        return Ok(act(&address)?);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no file name"));
    };
    let folder = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    Ok(act(&SocketAddrUnix::new(&short)?)?)
}

/// Sends some bytes, and the descriptors with the first of them. Returns how many bytes went.
///
/// A peer that is gone is an error (`BrokenPipe`), never a signal.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>], waiting: Waiting) -> io::Result<usize> {
    let mut flags = SendFlags::NOSIGNAL;
    flags.set(SendFlags::DONTWAIT, waiting == Waiting::DontWait);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    retry(|| sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags))
}

/// Receives some bytes and descriptors into `decoder`. Returns how many bytes came; 0 is the end.
///
/// The descriptors are close-on-exec.
pub fn receive(socket: BorrowedFd<'_>, decoder: &mut Decoder, waiting: Waiting) -> io::Result<usize> {
    let mut flags = RecvFlags::CMSG_CLOEXEC;
    flags.set(RecvFlags::DONTWAIT, waiting == Waiting::DontWait);
    let mut bytes = vec![0; READ_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = retry(|| recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags))?;
    let fds = received_fds(&mut control);
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the peer sent more descriptors than fit, or this process is at its limit",
        ));
    }
    decoder.receive(&bytes[..message.bytes], fds);
    Ok(message.bytes)
}

/// Receives descriptors that come with a message nobody needs to read, as OCI runtimes send terminals.
pub fn receive_fds(socket: BorrowedFd<'_>, waiting: Waiting) -> io::Result<Vec<OwnedFd>> {
    let mut flags = RecvFlags::CMSG_CLOEXEC;
    flags.set(RecvFlags::DONTWAIT, waiting == Waiting::DontWait);
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    retry(|| recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags))?;
    Ok(received_fds(&mut control))
}

fn received_fds(control: &mut RecvAncillaryBuffer<'_>) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    fds
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn check_listening_below(folder: &Path) {
        let path = folder.join("container.sock");
        let listener = listen(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let client = connect(&path).unwrap();
        let server = rustix::net::accept(&listener).unwrap();
        assert_eq!(send(client.as_fd(), b"x", &[], Waiting::Block).unwrap(), 1);
        let mut decoder = Decoder::new();
        assert_eq!(receive(server.as_fd(), &mut decoder, Waiting::Block).unwrap(), 1);
    }

    #[test]
    fn sockets_are_private_and_paths_may_be_long() {
        let folder = std::env::temp_dir().join(format!("monitor-protocol-{}", std::process::id()));
        let long = folder.join("a".repeat(100)).join("b".repeat(100));
        std::fs::create_dir_all(&long).unwrap();
        check_listening_below(&folder);
        check_listening_below(&long);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
