//! The user's terminal: raw mode and size.

use std::io::IsTerminal;
use std::os::fd::BorrowedFd;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// A terminal in raw mode; dropped, it is as it was.
#[derive(Debug)]
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Makes standard input raw, if it is a terminal. Output processing stays on, as Docker's command line has it.
    pub(crate) fn enter() -> Option<Self> {
        let stdin = rustix::stdio::stdin();
        if !std::io::stdin().is_terminal() {
            return None;
        }
        let before = tcgetattr(stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin, OptionalActions::Now, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs no mending.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Reads a line from standard input without showing it, where that is a terminal.
pub(crate) fn read_hidden_line() -> std::io::Result<String> {
    let stdin = rustix::stdio::stdin();
    let before = tcgetattr(stdin).ok();
    if let Some(before) = &before {
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        // A terminal that cannot hide it shows it.
        let _ = tcsetattr(stdin, OptionalActions::Flush, &hidden);
    }
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    if let Some(before) = &before {
        let _ = tcsetattr(stdin, OptionalActions::Now, before);
    }
    read.map(|_| line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Rows and columns of the terminal behind standard output or input.
pub(crate) fn size() -> Option<(u16, u16)> {
    let streams: [BorrowedFd<'_>; 2] = [rustix::stdio::stdout(), rustix::stdio::stdin()];
    streams.into_iter().find_map(|fd| tcgetwinsize(fd).ok()).map(|size| (size.ws_row, size.ws_col))
}
