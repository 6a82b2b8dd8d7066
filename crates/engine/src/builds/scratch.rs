//! Folders that are needed only while a build works with them.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use durable::{Operation, PathError};

/// A folder that is gone with the value. What a dead engine left of them is swept by who chose where they are.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes a folder in `dir` that only this engine may enter, whose name begins with `prefix`.
    pub(super) fn create(dir: &Path, prefix: &str) -> Result<Scratch, PathError> {
        let path = dir.join(format!("{prefix}{}", crate::random_name::<8>()));
        durable::create_dir(&path, 0o700)?;
        Ok(Scratch(path))
    }

    /// Lets this user and group enter it instead.
    pub(super) fn give_to(&self, id: u32) -> Result<(), PathError> {
        chown(&self.0, Some(id), Some(id)).map_err(PathError::with(Operation::Create, &self.0))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing can be done about a failure here; the next start sweeps the folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_with_its_value() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::create(dir.path(), "x-").unwrap();
        std::fs::create_dir(scratch.path().join("below")).unwrap();
        let name = scratch.path().file_name().unwrap().to_string_lossy().into_owned();
        assert!(name.starts_with("x-") && scratch.path().is_dir());
        drop(scratch);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
