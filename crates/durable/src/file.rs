//! Files that appear whole or not at all.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Operation, PathError};

/// What the names of unfinished files start with.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

/// Records may hold secrets (environments, passwords in labels): nobody but the owner reads them.
const FILE_MODE: u32 = 0o600;

/// Writes a file so that it survives a power failure: temporary name, fsync, rename, fsync of the directory.
pub fn write_atomic(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), PathError> {
    let mut file = StagedFile::create(dir)?;
    file.write_all(bytes).map_err(PathError::with(Operation::Write, file.path()))?;
    file.commit(name)
}

/// Writes a file so that readers never see half of it, but leaves it to the kernel when it reaches the disk.
///
/// It survives the end of the process, not that of the machine: right for what means nothing after a reboot.
pub fn write_volatile(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), PathError> {
    let mut file = StagedFile::create(dir)?;
    file.write_all(bytes).map_err(PathError::with(Operation::Write, file.path()))?;
    file.commit_volatile(name)
}

/// Reads a whole file.
pub fn read(path: &Path) -> Result<Vec<u8>, PathError> {
    fs::read(path).map_err(PathError::with(Operation::Read, path))
}

/// Removes a file for good; that it is not there is no error.
pub fn remove(dir: &Path, name: &str) -> Result<(), PathError> {
    let path = dir.join(name);
    match fs::remove_file(&path) {
        Ok(()) => sync_dir(dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(PathError::new(Operation::Remove, &path, error)),
    }
}

/// Renames a file or directory for good: both directories are synced.
///
/// The content must have been synced before, or a crash can leave the new name with no bytes.
pub fn rename(from: &Path, to: &Path) -> Result<(), PathError> {
    fs::rename(from, to).map_err(PathError::with(Operation::Rename, to))?;
    let (from_dir, to_dir) = (parent(from), parent(to));
    sync_dir(to_dir)?;
    if from_dir == to_dir { Ok(()) } else { sync_dir(from_dir) }
}

/// Makes a directory for good, with its parents; that it exists is no error.
pub fn create_dir(path: &Path, mode: u32) -> Result<(), PathError> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => sync_dir(parent(path)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && parent(path) != path => {
            create_dir(parent(path), mode)?;
            create_dir(path, mode)
        }
        Err(error) => Err(PathError::new(Operation::Create, path, error)),
    }
}

/// Waits until the names in a directory are on the disk.
pub fn sync_dir(dir: &Path) -> Result<(), PathError> {
    let file = File::open(dir).map_err(PathError::with(Operation::Open, dir))?;
    file.sync_all().map_err(PathError::with(Operation::Sync, dir))
}

/// Removes the unfinished files that a crash left in a directory and says how many there were.
///
/// Only the directory's single owner may call this, and before it writes anything.
pub fn sweep_temporaries(dir: &Path) -> Result<usize, PathError> {
    let mut removed = 0;
    for entry in fs::read_dir(dir).map_err(PathError::with(Operation::List, dir))? {
        let entry = entry.map_err(PathError::with(Operation::List, dir))?;
        if is_temporary(&entry.file_name()) {
            fs::remove_file(entry.path()).map_err(PathError::with(Operation::Remove, &entry.path()))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// A file that is being written and has no name yet; dropped without a commit, it is removed.
#[derive(Debug)]
pub struct StagedFile {
    file: File,
    dir: PathBuf,
    path: PathBuf,
    is_committed: bool,
}

impl StagedFile {
    /// Makes an empty file under a temporary name in `dir`, readable by its owner alone.
    pub fn create(dir: &Path) -> Result<Self, PathError> {
        let path = dir.join(temporary_name());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(PathError::with(Operation::Create, &path))?;
        Ok(Self { file, dir: dir.to_owned(), path, is_committed: false })
    }

    /// The file itself, for what `Write` does not offer.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The temporary name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until the bytes are on the disk, so that several files can be synced before any of them is named.
    pub fn sync(&self) -> Result<(), PathError> {
        self.file.sync_all().map_err(PathError::with(Operation::Sync, &self.path))
    }

    /// Syncs the bytes, gives the file its name and syncs the directory.
    pub fn commit(self, name: &str) -> Result<(), PathError> {
        self.sync()?;
        let dir = self.dir.clone();
        self.commit_volatile(name)?;
        sync_dir(&dir)
    }

    /// Gives the file its name without waiting for the disk.
    pub fn commit_volatile(mut self, name: &str) -> Result<(), PathError> {
        let target = self.dir.join(name);
        fs::rename(&self.path, &target).map_err(PathError::with(Operation::Rename, &target))?;
        self.is_committed = true;
        Ok(())
    }
}

impl Write for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.is_committed {
            // Nothing can be done about a failure here; the next start sweeps the file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A name that no other thread or process uses: the counter is for threads, the pid for processes.
fn temporary_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_nanos());
    format!("{TEMPORARY_PREFIX}{}-{number}-{now:x}", std::process::id())
}

fn is_temporary(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(TEMPORARY_PREFIX.as_bytes())
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if dir.as_os_str().is_empty() => Path::new("."),
        Some(dir) => dir,
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_whole_files_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        write_atomic(dir.path(), "a", b"old and long").unwrap();
        write_atomic(dir.path(), "a", b"new").unwrap();
        write_volatile(dir.path(), "b", b"b").unwrap();
        assert_eq!(read(&dir.path().join("a")).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["a", "b"]);
        let mode = fs::metadata(dir.path().join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("taken")).unwrap();
        let error = write_atomic(dir.path(), "taken", b"x").unwrap_err();
        assert_eq!(error.operation, Operation::Rename);
        assert_eq!(names(dir.path()), ["taken"]);
        let error = write_atomic(&dir.path().join("absent"), "x", b"x").unwrap_err();
        assert!(error.is_not_found() && error.to_string().starts_with("cannot create "), "{error}");
    }

    #[test]
    fn a_staged_file_is_removed_unless_committed() {
        let dir = tempfile::tempdir().unwrap();
        let mut staged = StagedFile::create(dir.path()).unwrap();
        staged.write_all(b"x").unwrap();
        assert_eq!(names(dir.path()).len(), 1);
        drop(staged);
        assert!(names(dir.path()).is_empty());
        StagedFile::create(dir.path()).unwrap().commit("kept").unwrap();
        assert_eq!(names(dir.path()), ["kept"]);
    }

    #[test]
    fn sweeps_only_what_a_crash_left() {
        let dir = tempfile::tempdir().unwrap();
        write_atomic(dir.path(), "kept", b"x").unwrap();
        let staged = StagedFile::create(dir.path()).unwrap();
        assert_eq!(sweep_temporaries(dir.path()).unwrap(), 1);
        assert_eq!(names(dir.path()), ["kept"]);
        drop(staged);
    }

    #[test]
    fn directories_removals_and_renames() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x/y/z");
        create_dir(&deep, 0o700).unwrap();
        create_dir(&deep, 0o700).unwrap();
        write_atomic(&deep, "f", b"x").unwrap();
        rename(&deep.join("f"), &dir.path().join("g")).unwrap();
        assert_eq!(names(dir.path()), ["g", "x"]);
        remove(dir.path(), "g").unwrap();
        remove(dir.path(), "g").unwrap();
        assert_eq!(names(dir.path()), ["x"]);
        assert!(create_dir(&dir.path().join("x/y/z"), 0o700).is_ok());
    }

    #[test]
    fn many_writers_never_collide() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let dir = dir.path();
                scope.spawn(move || {
                    for _ in 0..50 {
                        write_volatile(dir, "f", &[thread; 4096]).unwrap();
                        let bytes = read(&dir.join("f")).unwrap();
                        assert!(bytes.len() == 4096 && bytes.iter().all(|byte| *byte == bytes[0]));
                    }
                });
            }
        });
        assert_eq!(names(dir.path()), ["f"]);
    }
}
