//! What went wrong, where, and of which kind: one value that also travels from a container's init to its creator.

use linux::Errno;

/// The step of a container's life in which an error arose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Reading the configuration.
    Spec = 0,
    /// The state directory.
    State = 1,
    /// The cgroup.
    Cgroup = 2,
    /// Creating processes and namespaces.
    Namespaces = 3,
    /// Making the container's root file system.
    Rootfs = 4,
    /// The mounts inside it.
    Mounts = 5,
    /// Devices.
    Devices = 6,
    /// The terminal.
    Console = 7,
    /// A hook.
    Hook = 8,
    /// Host name, sysctls, limits, scheduling and other properties.
    Properties = 9,
    /// Looking up or becoming the user.
    User = 10,
    /// Going to the working directory.
    WorkingDirectory = 11,
    /// Capabilities.
    Capabilities = 12,
    /// seccomp.
    Seccomp = 13,
    /// Finding or running the program.
    Exec = 14,
    /// Signalling, pausing, deleting: operations on a container that exists.
    Operate = 15,
}

impl Stage {
    const ALL: [Stage; 16] = [
        Stage::Spec,
        Stage::State,
        Stage::Cgroup,
        Stage::Namespaces,
        Stage::Rootfs,
        Stage::Mounts,
        Stage::Devices,
        Stage::Console,
        Stage::Hook,
        Stage::Properties,
        Stage::User,
        Stage::WorkingDirectory,
        Stage::Capabilities,
        Stage::Seccomp,
        Stage::Exec,
        Stage::Operate,
    ];
}

/// What a caller may want to tell apart: Docker's exit codes 127, 126 and 125 come from these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The program (or container) does not exist.
    NotFound = 0,
    /// The program may not be run.
    PermissionDenied = 1,
    /// The program is a directory.
    IsDirectory = 2,
    /// Anything else.
    Other = 3,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::NotFound, Kind::PermissionDenied, Kind::IsDirectory, Kind::Other];
}

/// An operation on a container failed.
///
/// The message has runc's wording wherever clients are known to read it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Where it arose.
    pub stage: Stage,
    /// Of which kind it is.
    pub kind: Kind,
    /// The whole message, with subject and cause.
    pub message: String,
}

/// The result of this crate's operations.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of no special kind.
    pub fn new(stage: Stage, message: impl Into<String>) -> Error {
        Error { stage, kind: Kind::Other, message: message.into() }
    }

    /// An error of a kind.
    pub fn of_kind(stage: Stage, kind: Kind, message: impl Into<String>) -> Error {
        Error { stage, kind, message: message.into() }
    }

    /// `what` failed with an error number.
    pub fn os(stage: Stage, what: impl std::fmt::Display, errno: Errno) -> Error {
        Error::new(stage, format!("{what}: {}", errno_text(errno)))
    }

    /// `what` failed with an I/O error.
    pub fn io(stage: Stage, what: impl std::fmt::Display, error: &std::io::Error) -> Error {
        match error.raw_os_error() {
            Some(code) => Error::os(stage, what, Errno::from_raw_os_error(code)),
            None => Error::new(stage, format!("{what}: {error}")),
        }
    }

    /// The form in which it goes from init to creator.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.stage as u8, self.kind as u8];
        bytes.extend_from_slice(self.message.as_bytes());
        bytes
    }

    /// Reads [`Error::to_bytes`].
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Error> {
        let [stage, kind, message @ ..] = bytes else { return None };
        Some(Error {
            stage: *Stage::ALL.get(usize::from(*stage))?,
            kind: *Kind::ALL.get(usize::from(*kind))?,
            message: String::from_utf8_lossy(message).into_owned(),
        })
    }
}

/// An error number in the words of Go's `syscall` package, which Docker's clients know: lower case, no number.
pub fn errno_text(errno: Errno) -> String {
    let text = std::io::Error::from_raw_os_error(errno.raw_os_error()).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    // Only the first letter: "Invalid cross-device link", but also "RFS specific error".
    let mut letters = text.chars();
    match (letters.next(), text.chars().nth(1)) {
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().chain(letters).collect(),
        _ => text.to_owned(),
    }
}

/// Gives the error number of a system call its stage and subject.
pub(crate) trait Context<T> {
    /// `what` is only computed for an error.
    fn context<D: std::fmt::Display>(self, stage: Stage, what: impl FnOnce() -> D) -> Result<T>;
}

impl<T> Context<T> for std::result::Result<T, Errno> {
    fn context<D: std::fmt::Display>(self, stage: Stage, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|errno| Error::os(stage, what(), errno))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn context<D: std::fmt::Display>(self, stage: Stage, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| Error::io(stage, what(), &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_way_to_the_creator() {
        for stage in Stage::ALL {
            for kind in Kind::ALL {
                let error = Error::of_kind(stage, kind, "exec: \"x\": ü");
                assert_eq!(Error::from_bytes(&error.to_bytes()), Some(error));
            }
        }
    }

    #[test]
    fn broken_reports_are_refused() {
        assert_eq!(Error::from_bytes(b""), None);
        assert_eq!(Error::from_bytes(&[16, 0, b'x']), None);
        assert_eq!(Error::from_bytes(&[0, 4, b'x']), None);
    }

    #[test]
    fn error_numbers_read_as_in_go() {
        assert_eq!(errno_text(Errno::NOENT), "no such file or directory");
        assert_eq!(errno_text(Errno::PERM), "operation not permitted");
        assert_eq!(errno_text(Errno::NOEXEC), "exec format error");
    }
}
