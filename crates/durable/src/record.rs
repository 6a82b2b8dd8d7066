//! Values on disk with the version of their form.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::PathError;
use crate::file;

/// What a type must say to be kept on disk.
///
/// Types on disk are neither API types nor engine types: a new field with a serde default needs no new version; anything else does,
/// and then [`Versioned::upgrade`] takes the old forms.
pub trait Versioned: Serialize + DeserializeOwned {
    /// The version that is written.
    const VERSION: u32;

    /// Turns the form of an older version into today's; `None` where the version is not known any more.
    fn upgrade(_version: u32, _value: serde_json::Value) -> Option<Result<Self, serde_json::Error>> {
        None
    }
}

/// The form of every record on disk: `{"version":1,"value":{…}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<T> {
    /// The version of the value's form.
    pub version: u32,
    /// The value.
    pub value: T,
}

/// Why a record cannot be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The bytes are not the record that is expected.
    #[error("malformed record {}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A newer engine wrote it, or one so old that its form is forgotten.
    #[error("record {} has version {found}, this program knows {known}", path.display())]
    Version {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that this program writes.
        known: u32,
    },
}

impl RecordError {
    /// Says whether the record's file does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Path(error) if error.is_not_found())
    }
}

/// Saves a record so that it survives a power failure.
pub fn save<T: Versioned>(dir: &Path, name: &str, value: &T) -> Result<(), RecordError> {
    Ok(file::write_atomic(dir, name, &encode(&dir.join(name), value)?)?)
}

/// Saves a record that need only survive the process.
pub fn save_volatile<T: Versioned>(dir: &Path, name: &str, value: &T) -> Result<(), RecordError> {
    Ok(file::write_volatile(dir, name, &encode(&dir.join(name), value)?)?)
}

/// Loads a record.
pub fn load<T: Versioned>(path: &Path) -> Result<T, RecordError> {
    decode(path, &file::read(path)?)
}

/// Loads a record if there is one.
pub fn load_if_exists<T: Versioned>(path: &Path) -> Result<Option<T>, RecordError> {
    match load(path) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn encode<T: Versioned>(path: &Path, value: &T) -> Result<Vec<u8>, RecordError> {
    serde_json::to_vec(&Record { version: T::VERSION, value })
        .map_err(|source| RecordError::Malformed { path: path.to_owned(), source })
}

fn decode<T: Versioned>(path: &Path, bytes: &[u8]) -> Result<T, RecordError> {
    #[derive(Deserialize)]
    struct VersionOnly {
        version: u32,
    }
    let malformed = |source| RecordError::Malformed { path: path.to_owned(), source };
    // The version is read first, because the value of another version may not have today's form.
    let VersionOnly { version } = serde_json::from_slice(bytes).map_err(malformed)?;
    if version == T::VERSION {
        return Ok(serde_json::from_slice::<Record<T>>(bytes).map_err(malformed)?.value);
    }
    let old: Record<serde_json::Value> = serde_json::from_slice(bytes).map_err(malformed)?;
    match T::upgrade(version, old.value) {
        Some(upgraded) => upgraded.map_err(malformed),
        None => Err(RecordError::Version { path: path.to_owned(), found: version, known: T::VERSION }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Point {
        x: i32,
        y: i32,
    }

    impl Versioned for Point {
        const VERSION: u32 = 2;

        fn upgrade(version: u32, value: serde_json::Value) -> Option<Result<Self, serde_json::Error>> {
            // Version 1 was a pair.
            (version == 1).then(|| serde_json::from_value(value).map(|(x, y)| Self { x, y }))
        }
    }

    fn load_text(text: &str) -> Result<Point, RecordError> {
        decode(Path::new("p"), text.as_bytes())
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        assert_eq!(load_if_exists::<Point>(&path).unwrap(), None);
        assert!(load::<Point>(&path).unwrap_err().is_not_found());
        save(dir.path(), "p", &Point { x: 1, y: 2 }).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), r#"{"version":2,"value":{"x":1,"y":2}}"#);
        save_volatile(dir.path(), "p", &Point { x: 3, y: 4 }).unwrap();
        assert_eq!(load::<Point>(&path).unwrap(), Point { x: 3, y: 4 });
    }

    #[test]
    fn old_versions_are_upgraded_and_others_refused() {
        assert_eq!(load_text(r#"{"version":1,"value":[5,6]}"#).unwrap(), Point { x: 5, y: 6 });
        assert!(matches!(
            load_text(r#"{"version":3,"value":{}}"#),
            Err(RecordError::Version { found: 3, known: 2, .. })
        ));
    }

    #[test]
    fn malformed_records_are_named() {
        for text in ["", "{", "{}", r#"{"version":2}"#, r#"{"version":2,"value":7}"#, r#"{"version":1,"value":{}}"#] {
            let error = load_text(text).unwrap_err();
            assert!(matches!(error, RecordError::Malformed { .. }), "{text}: {error}");
        }
    }
}
