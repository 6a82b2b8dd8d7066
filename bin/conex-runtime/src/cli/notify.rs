//! Passing on what a container tells its service manager (`sd_notify`): `READY=1`, and whom to watch.
//!
//! A runtime that systemd starts with `NOTIFY_SOCKET` gives the container a socket of its own at `/run/notify/notify.sock`. What comes
//! in there that says `READY=` goes on to systemd; the rest stays, because pids and descriptors of the container mean nothing outside.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use linux::{Errno, scm};
use oci::runtime::{Mount, Spec};
use runtime::StateDirectory;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

use super::CommandError;

const VARIABLE: &str = "NOTIFY_SOCKET";
const FOLDER_INSIDE: &str = "/run/notify";
const SOCKET: &str = "notify.sock";
/// How long the manager may take to say that it has heard.
const BARRIER_TIMEOUT_S: i64 = 30;
const MAX_MESSAGE_BYTES: usize = 4096;

fn manager() -> Option<OsString> {
    std::env::var_os(VARIABLE).filter(|address| !address.is_empty())
}

/// Gives the container its socket's folder and tells it where that is, when there is a manager to tell.
pub(crate) fn prepare(directory: &StateDirectory, spec: &mut Spec) -> Result<(), CommandError> {
    if manager().is_none() {
        return Ok(());
    }
    let folder = directory.make_notify_directory()?;
    spec.mounts.push(Mount {
        destination: FOLDER_INSIDE.to_owned(),
        source: folder.display().to_string(),
        options: ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec(),
        ..Mount::default()
    });
    if let Some(process) = &mut spec.process {
        process.env.push(format!("{VARIABLE}={FOLDER_INSIDE}/{SOCKET}"));
    }
    Ok(())
}

/// The container's socket, listened to.
#[derive(Debug)]
pub(crate) struct NotifyListener {
    socket: UnixDatagram,
    manager: OsString,
}

impl NotifyListener {
    /// Listens, when there is a manager to tell and the container was made with a socket's folder.
    pub(crate) fn open(directory: &StateDirectory) -> Result<Option<NotifyListener>, CommandError> {
        let (Some(manager), folder) = (manager(), directory.notify_directory()) else { return Ok(None) };
        let subject = || format!("cannot listen in {}", folder.display());
        let place = match rustix::fs::open(&folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.map_err(CommandError::system(subject()))?,
        };
        // By a short name: a socket's path has 108 bytes.
        let path = format!("/proc/self/fd/{}/{SOCKET}", place.as_raw_fd());
        let socket = UnixDatagram::bind(&path).map_err(CommandError::file(subject()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))
            .map_err(CommandError::file(subject()))?;
        Ok(Some(NotifyListener { socket, manager }))
    }

    /// Waits until the container is ready, or gone, and passes it on; `main_pid` is whom the manager has to watch.
    pub(crate) fn wait(self, init: &OwnedFd, main_pid: i32) -> Result<(), CommandError> {
        let mut listener = Some(self);
        while let Some(listening) = listener.take() {
            let mut fds = [PollFd::new(init, PollFlags::IN), PollFd::new(&listening.socket, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(Errno::INTR) => listener = Some(listening),
                Err(errno) => return Err(CommandError::system("poll")(errno)),
                Ok(_) if !fds[1].revents().is_empty() => listener = listening.take_one(main_pid)?,
                Ok(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Takes one message; gives itself back unless that was the one that was waited for.
    pub(crate) fn take_one(self, main_pid: i32) -> Result<Option<NotifyListener>, CommandError> {
        let mut bytes = [0; MAX_MESSAGE_BYTES];
        let count = self.socket.recv(&mut bytes).map_err(CommandError::file("cannot hear from the container"))?;
        match ready_line(&bytes[..count]) {
            None => Ok(Some(self)),
            Some(line) => tell(&self.manager, line, main_pid)
                .map(|()| None)
                .map_err(CommandError::file(format!("cannot tell {}", self.manager.display()))),
        }
    }
}

impl AsFd for NotifyListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The line of a message that says so.
fn ready_line(message: &[u8]) -> Option<&[u8]> {
    message.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"READY="))
}

fn tell(manager: &OsString, line: &[u8], main_pid: i32) -> std::io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    match manager.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(Path::new(manager))?,
    }
    socket.send(&[line, b"\n"].concat())?;
    socket.send(format!("MAINPID={main_pid}\n").as_bytes())?;
    wait_until_heard(&socket)
}

/// The manager closes the descriptor that comes with `BARRIER=1` once it has handled what came before; one that does not know
/// the word costs the timeout.
fn wait_until_heard(socket: &UnixDatagram) -> std::io::Result<()> {
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    scm::send_fds(socket.as_fd(), b"BARRIER=1", &[theirs.as_fd()])?;
    drop(theirs);
    let limit = Timespec { tv_sec: BARRIER_TIMEOUT_S, tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(&ours, PollFlags::IN)], Some(&limit)) {
            Err(Errno::INTR) => {}
            other => return Ok(other.map(drop)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_readiness_is_passed_on() {
        assert_eq!(ready_line(b"STATUS=up\nREADY=1\nMAINPID=1"), Some(&b"READY=1"[..]));
        assert_eq!(ready_line(b"MAINPID=1\nNOTREADY=1\n"), None);
    }
}
