//! The process that owns one container: its streams, log, exec sessions and exit status.
//!
//! `conex-runtime monitor --fd 3` starts, sets itself up and waits on descriptor 3 for a
//! [`Launch`](monitor_protocol::Launch). From then on it is the container's parent, and ends after it. It needs no daemon:
//! what a daemon must know is on disk, and the next one connects to the monitor's socket.
//!
//! ```text
//!   monitor    the loop: poll, one enum of events, connections to daemons
//!   container  the container, its exec sessions, the order of its end
//!   process    one process: its streams and how far it is
//!   streams    pipes, terminal and attached clients
//!   log        the json-file log
//!   backend    who makes the container: the runtime library, or another OCI runtime as a program
//!   records    what a daemon finds that was away
//! ```
//!
//! What this crate must not know: images, networks, names, Docker's HTTP. It allocates buffers of fixed size, makes no
//! thread, and waits for nothing but `poll`.

mod backend;
mod clock;
mod connection;
mod container;
mod failure;
mod gzip;
mod identity;
pub mod init;
mod listener;
mod log;
mod monitor;
mod passed;
mod process;
mod records;
mod relay;
mod stdio;
mod streams;

use std::error::Error;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd, RawFd};
use std::process::ExitCode;

/// The arguments cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("usage: conex-runtime monitor --fd N")]
struct UsageError;

/// The `monitor` role: `args` is what follows the word `monitor`.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<String> = args.into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
    match run_role(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conex-monitor: {}", failure::other("", error.as_ref()).message);
            ExitCode::FAILURE
        }
    }
}

fn run_role(words: &[String]) -> Result<(), Box<dyn Error>> {
    match words {
        [flag, number] if flag == "--fd" => run_monitor(number.parse()?),
        [flag, rest @ ..] => run_helper(flag, rest),
        [] => Err(UsageError.into()),
    }
}

/// What the monitor starts its own program for: std's `Command` leaves blocked signals blocked, so each begins by unblocking.
fn run_helper(flag: &str, rest: &[String]) -> Result<(), Box<dyn Error>> {
    identity::become_helper();
    match flag {
        gzip::FLAG => Ok(gzip::run()?),
        log::WRITER_FLAG => Ok(log::run_writer(rest)?),
        backend::RUN_FLAG => Err(backend::run_program(rest).into()),
        _ => Err(UsageError.into()),
    }
}

fn run_monitor(number: RawFd) -> Result<(), Box<dyn Error>> {
    let socket = take_socket(number)?;
    identity::become_monitor();
    Ok(monitor::Monitor::new(socket)?.run()?)
}

/// Where the socket is put.
const SOCKET: RawFd = 3;

/// Takes the socket, and nothing else that was inherited: a monitor lives long, and would hold other people's pipes open.
///
/// The socket may be one of the standard streams; then `/dev/null` takes its place, because somebody may write to it.
fn take_socket(number: RawFd) -> Result<OwnedFd, Box<dyn Error>> {
    let inherited = linux::fds::take_inherited(number).ok_or(UsageError)?;
    linux::fds::duplicate_onto(inherited.as_fd(), SOCKET)?;
    // From here on the number belongs to what is put there, or to nobody.
    let _ = inherited.into_raw_fd();
    if number < SOCKET {
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        linux::fds::duplicate_onto(null.as_fd(), number)?;
    }
    linux::fds::close_from(SOCKET + 1)?;
    linux::fds::close_on_exec_from(SOCKET)?;
    linux::fds::take_inherited(SOCKET).ok_or_else(|| UsageError.into())
}
