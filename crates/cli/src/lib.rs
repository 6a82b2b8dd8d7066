//! The conex command: arguments to API calls to Docker's output.
//!
//! ```text
//! arguments ─▶ commands (one entry each) ─▶ api-client ─▶ output (tables, templates, JSON) or session (streams)
//! ```

mod commands;
mod context;
mod contexts;
mod credentials;
mod error;
mod flags;
mod output;
mod run;
mod session;
mod terminal;

use std::process::ExitCode;

use commands::Detail;

/// Runs the command line, the program's name left out; messages go to standard error.
pub fn main(words: &[String]) -> ExitCode {
    let tree = commands::tree(Detail::Named(words)).no_binary_name(true);
    let matches = match tree.try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) => return usage_error(&error, words),
    };
    let code = commands::dispatch(&matches).unwrap_or_else(|failure| {
        if !failure.message.is_empty() {
            commands::complain(&failure.message);
        }
        failure.code
    });
    ExitCode::from(code)
}

/// Docker's exit codes: 125 for `run`'s own failures, 1 for the other commands', 0 for help.
fn usage_error(error: &clap::Error, words: &[String]) -> ExitCode {
    // Nobody to tell where the stream is closed.
    let _ = error.print();
    match error.use_stderr() {
        false => ExitCode::SUCCESS,
        true => ExitCode::from(words.iter().map(|word| commands::usage_code(word)).max().unwrap_or(1)),
    }
}
