//! `conex-runtime init`: the first process of a container that was started with `--init`.
//!
//! It starts the real program, hands every signal on to it, reaps what the container's processes leave, and ends with the
//! program's exit code. In the container it is `/sbin/docker-init`, called as Docker calls tini: `docker-init -- PROGRAM ARG…`.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use linux::fork::{Forked, fork};
use linux::signal::{self, SignalSet};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

/// Docker's exit code for a program that is not there.
const NOT_FOUND: u8 = 127;
/// Docker's exit code for a program that may not be run.
const NOT_EXECUTABLE: u8 = 126;
/// The exit code for what goes wrong here.
const FAILED: u8 = 125;
/// Signals that tell of this process's own faults, or of its being in the background: they are not handed on.
const OWN_SIGNALS: [Signal; 9] = [
    Signal::FPE,
    Signal::ILL,
    Signal::SEGV,
    Signal::BUS,
    Signal::ABORT,
    Signal::TRAP,
    Signal::SYS,
    Signal::TTIN,
    Signal::TTOU,
];

/// Runs the program in `args` (a `--` before it is skipped) and returns its exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut words: Vec<OsString> = args.into_iter().collect();
    if words.first().is_some_and(|word| word == "--") {
        words.remove(0);
    }
    match words.split_first() {
        None => fail("init: no program is given"),
        Some((program, arguments)) => match start_and_wait(program, arguments) {
            Ok(code) => ExitCode::from(code),
            Err(errno) => fail(&format!("init: {}", io::Error::from(errno))),
        },
    }
}

fn fail(message: &str) -> ExitCode {
    complain(message);
    ExitCode::from(FAILED)
}

/// Tells the user; a closed standard error is no reason to end differently.
fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}

fn start_and_wait(program: &OsString, arguments: &[OsString]) -> Result<u8, Errno> {
    // Everything is blocked from here on, so that no signal falls between the start and the loop.
    let old_mask = signal::set_mask(SignalSet::ALL)?;
    let signals = signal::descriptor(handed_on())?;
    match fork()? {
        Forked::Child => become_program(program, arguments, old_mask),
        Forked::Parent(child) => attend(child, &signals),
    }
}

/// The signals that are handed on, SIGCHLD among them because it is read the same way.
fn handed_on() -> SignalSet {
    (1..=signal::COUNT)
        .filter(|number| !OWN_SIGNALS.iter().any(|own| own.as_raw() == *number))
        .fold(SignalSet::NONE, SignalSet::with)
}

fn become_program(program: &OsString, arguments: &[OsString], mask: SignalSet) -> ! {
    // A group of its own, in the foreground: then Ctrl-C reaches the program once, from the terminal, and not from us again.
    // Without a terminal there is no foreground to be in.
    let _ = rustix::process::setpgid(None, None);
    let _ = rustix::termios::tcsetpgrp(io::stdin(), rustix::process::getpid());
    let _ = signal::set_mask(mask);
    // This also gives SIGPIPE, which Rust ignores, its meaning back.
    let error = Command::new(program).args(arguments).exec();
    complain(&format!("exec {}: {error}", program.display()));
    linux::clone::exit_now(i32::from(match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    }))
}

/// Hands signals on and reaps until the program has ended.
fn attend(program: Pid, signals: &impl std::os::fd::AsFd) -> Result<u8, Errno> {
    loop {
        match poll(&mut [PollFd::new(signals, PollFlags::IN)], None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        while let Some(number) = signal::read_descriptor(signals.as_fd())? {
            if number == Signal::CHILD.as_raw() {
                if let Some(status) = reap(program)? {
                    return Ok(exit_code(status));
                }
            } else {
                // It may just have ended; then SIGCHLD is next.
                let _ = signal::send(program, number);
            }
        }
    }
}

/// Reaps all who have ended; returns the status of the program if it is among them.
fn reap(program: Pid) -> Result<Option<WaitStatus>, Errno> {
    let mut of_program = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == program => of_program = Some(status),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(Errno::CHILD) => return Ok(of_program),
            Err(errno) => return Err(errno),
        }
    }
}

fn exit_code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|number| 128 + number));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_own_faults_are_not_handed_on() {
        let set = handed_on();
        for (signal, handed) in
            [(Signal::TERM, true), (Signal::CHILD, true), (Signal::SEGV, false), (Signal::TTOU, false)]
        {
            assert_eq!(set.0 & 1 << (signal.as_raw() - 1) != 0, handed, "{signal:?}");
        }
    }
}
