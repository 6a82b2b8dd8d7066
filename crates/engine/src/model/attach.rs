//! Connecting a client's socket to a container's or an exec's streams.

use std::os::fd::OwnedFd;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::EngineError;

/// Whether a stream's bytes carry which output they are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamFraming {
    /// They do not.
    Raw,
    /// In frames with a header of eight bytes.
    Multiplexed,
}

/// A client's hijacked connection.
///
/// For plain unix and TCP connections `socket` is the client's own; where the bytes are wrapped (TLS, websocket) the face makes a socket pair,
/// gives one end and pumps the other.
#[derive(Debug)]
pub struct AttachTarget {
    /// A connected stream socket, read for stdin and written for output; half-closed for end of input.
    pub socket: OwnedFd,
    /// Bytes of stdin that arrived behind the request's header, before the hijack.
    pub early_input: Bytes,
}

/// What to attach.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AttachRequest {
    /// `stdin`
    pub stdin: bool,
    /// `stdout`
    pub stdout: bool,
    /// `stderr`
    pub stderr: bool,
    /// `stream`: follow the live output (and accept input).
    pub stream: bool,
    /// `logs`: first what the log already holds.
    pub logs: bool,
    /// `detachKeys`; none is the default `ctrl-p,ctrl-q`.
    pub detach_keys: Option<DetachKeys>,
}

/// A key sequence that detaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DetachKeys(monitor_protocol::DetachKeys);

impl DetachKeys {
    /// Reads `ctrl-p,ctrl-q`, `ctrl-@,a`, `DEL`; empty is the default, `ctrl-p,ctrl-q`.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        monitor_protocol::DetachKeys::parse(text)
            .map(Self)
            .map_err(|why| EngineError::invalid(format!("Invalid detach keys ({text}) provided: {why}")))
    }

    /// As the monitor takes them.
    pub(crate) fn into_protocol(self) -> monitor_protocol::DetachKeys {
        self.0
    }
}

impl Default for DetachKeys {
    fn default() -> Self {
        Self(monitor_protocol::DetachKeys::standard())
    }
}

/// What `exec create` asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    /// `Cmd`, never empty.
    pub command: Vec<String>,
    /// `Env`, added to the container's.
    pub env: Vec<String>,
    /// `User`; empty is the container's.
    pub user: String,
    /// `WorkingDir`; empty is the container's.
    pub working_dir: String,
    /// `Privileged`
    pub privileged: bool,
    /// `Tty`
    pub tty: bool,
    /// `AttachStdin`
    pub attach_stdin: bool,
    /// `AttachStdout`
    pub attach_stdout: bool,
    /// `AttachStderr`
    pub attach_stderr: bool,
    /// `DetachKeys`
    pub detach_keys: Option<DetachKeys>,
    /// `DetachKeys` as given, which inspect shows.
    pub detach_keys_text: String,
    /// `ConsoleSize`
    pub console_size: Option<super::TerminalSize>,
}

#[cfg(test)]
mod tests {
    use super::DetachKeys;

    #[test]
    fn detach_keys_are_those_of_docker() {
        assert_eq!(DetachKeys::parse("ctrl-p,ctrl-q").unwrap(), DetachKeys::default());
        assert_eq!(DetachKeys::parse("").unwrap(), DetachKeys::default());
        assert!(
            DetachKeys::parse("ctrl-1").unwrap_err().message().starts_with("Invalid detach keys (ctrl-1) provided")
        );
    }
}
