//! `conex`: the command line, and the engine as `conex daemon` (also when called as `conexd`).
//!
//! The role is chosen before anything else, so that a command pays for no runtime that only the daemon needs.

mod daemon;

use std::path::Path;
use std::process::ExitCode;

/// SIGPIPE's number on every Linux.
const SIGPIPE: i32 = 13;

fn main() -> ExitCode {
    let mut words = std::env::args();
    let called_as = words.next().unwrap_or_default();
    let words: Vec<String> = words.collect();
    let is_daemon = Path::new(&called_as).file_name().is_some_and(|name| name == "conexd");
    match words.first().map(String::as_str) {
        _ if is_daemon => daemon::main(&words),
        Some("daemon") => daemon::main(&words[1..]),
        _ => {
            // `conex logs x | head` ends quietly. The daemon keeps Rust's way: a client that hangs up must not end it.
            let _ = linux::signal::set_default(SIGPIPE);
            cli::main(&words)
        }
    }
}
