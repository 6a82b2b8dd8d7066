//! Finding a container of the command line, and the small files that commands write for their callers.

use std::path::Path;

use oci::ContainerId;
use oci::runtime::Status;
use runtime::{Saved, StateDirectory};

use super::arguments::{Arguments, only_id, required_id};
use super::{CommandError, Global};

/// A container that exists.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) directory: StateDirectory,
    pub(crate) saved: Saved,
    pub(crate) status: Status,
}

/// Parses an identifier.
pub(crate) fn parse_id(text: &str) -> Result<ContainerId, CommandError> {
    ContainerId::parse(text).map_err(|error| CommandError::Refused(error.to_string()))
}

/// Finds a container by its identifier.
pub(crate) fn find(global: &Global, id: &str) -> Result<Found, CommandError> {
    let directory = StateDirectory::find(&global.root, &parse_id(id)?)?;
    let saved = directory.load()?;
    let status = directory.status(&saved)?;
    Ok(Found { directory, saved, status })
}

/// Parses the command line of a command that takes an identifier and nothing else.
pub(crate) fn id_alone(mut arguments: Arguments) -> Result<String, CommandError> {
    let mut id = None;
    while let Some(word) = arguments.next()? {
        if word.starts_with('-') {
            return Err(arguments.unknown(&word).into());
        }
        only_id(&mut id, &word)?;
    }
    Ok(required_id(id)?)
}

/// Writes a pid where a caller wants it, whole or not at all.
pub(crate) fn write_pid_file(path: &str, pid: i32) -> Result<(), CommandError> {
    let path = Path::new(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| CommandError::Refused("invalid pid-file".to_owned()))?;
    durable::write_volatile(folder, name, pid.to_string().as_bytes())
        .map_err(|error| CommandError::Refused(error.to_string()))
}

/// The word for a status.
pub(crate) fn status_word(status: Status) -> &'static str {
    match status {
        Status::Creating => "creating",
        Status::Created => "created",
        Status::Running => "running",
        Status::Stopped => "stopped",
        Status::Paused => "paused",
    }
}
