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
    match daemon_words(&words) {
        _ if is_daemon => daemon::main(&words),
        Some(words) => daemon::main(&words),
        None => {
            // `conex logs x | head` ends quietly. The daemon keeps Rust's way: a client that hangs up must not end it.
            let _ = linux::signal::set_default(SIGPIPE);
            cli::main(&words)
        }
    }
}

/// The daemon's words when they are for it: `daemon …`, also behind the address that every command takes (`-H ADDRESS daemon …`).
fn daemon_words(words: &[String]) -> Option<Vec<String>> {
    let place = match words.first().map(String::as_str) {
        Some("-H" | "--host") => 2,
        Some(first) if first.starts_with("--host=") => 1,
        _ => 0,
    };
    let (address, rest) = words.split_at_checked(place)?;
    match rest.split_first() {
        Some((command, options)) if command == "daemon" => Some([address, options].concat()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::daemon_words;

    #[test]
    fn the_role_is_chosen_by_the_command() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let of = |text: &str| daemon_words(&words(text)).map(|words| words.join(" "));
        assert_eq!(of("daemon --root /x").unwrap(), "--root /x");
        assert_eq!(of("-H unix:///s daemon --root /x").unwrap(), "-H unix:///s --root /x");
        assert_eq!(of("--host=unix:///s daemon").unwrap(), "--host=unix:///s");
        assert_eq!((of("run daemon"), of("-H"), of("")), (None, None, None));
    }
}
