//! What went wrong, as the user reads it, and the exit code that says so to scripts.

use std::error::Error as _;

/// A command that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The whole message; empty where everything has been said already.
    pub(crate) message: String,
    /// The exit code.
    pub(crate) code: u8,
}

/// A command's result: its exit code.
pub(crate) type Outcome = Result<u8, Failure>;

impl Failure {
    /// A mistake in the arguments.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }

    /// An exit code about which all has been said.
    pub(crate) fn silent(code: u8) -> Self {
        Self { message: String::new(), code }
    }
}

/// The sentence for an API error: the daemon's own words, or what was tried and every cause below it.
pub(crate) fn describe(error: &api_client::Error) -> String {
    if error.status().is_some() {
        return format!("Error response from daemon: {error}");
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(&format!(": {next}"));
        cause = next.source();
    }
    match error.is_connect() {
        true => format!("{text}. Is the engine running? `conex daemon` starts one"),
        false => text,
    }
}

impl From<api_client::Error> for Failure {
    fn from(error: api_client::Error) -> Self {
        Self { message: describe(&error), code: 1 }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        // Who closed our output has seen enough.
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::silent(141),
            _ => Self { message: error.to_string(), code: 1 },
        }
    }
}

impl From<crate::output::template::FormatError> for Failure {
    fn from(error: crate::output::template::FormatError) -> Self {
        Self { message: error.to_string(), code: 64 }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self { message: format!("cannot read the engine's answer: {error}"), code: 1 }
    }
}
