//! Finding out by trying which back ends work here.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use archive::layer::LayerTree;
use archive::tar::{Metadata, Reader, Writer};
use durable::StagedFile;
use oci::{DiffId, Digest};
use rustix::fs::{Mode, OFlags};

use crate::{Backend, index, mount};

const NAME: &str = "probe";
const CONTENTS: &[u8] = b"read through the index";

/// What this machine can do, and why not.
#[derive(Debug, Clone)]
pub struct Probe {
    /// File-backed EROFS: `Err` has the reason.
    pub erofs_file: Result<(), String>,
    /// EROFS through loop devices.
    pub erofs_loop: Result<(), String>,
    /// Unpacked directories: needs only a file system.
    pub directories: Result<(), String>,
}

impl Probe {
    /// The back end that [`Choice::Automatic`](crate::Choice::Automatic) takes.
    pub fn best(&self) -> Backend {
        match (&self.erofs_file, &self.erofs_loop) {
            (Ok(()), _) => Backend::ErofsFile,
            (_, Ok(())) => Backend::ErofsLoop,
            _ => Backend::Directories,
        }
    }

    /// Whether one back end works, or why not.
    pub fn of(&self, backend: Backend) -> &Result<(), String> {
        match backend {
            Backend::ErofsFile => &self.erofs_file,
            Backend::ErofsLoop => &self.erofs_loop,
            Backend::Directories => &self.directories,
        }
    }
}

/// Finds out by trying (a tiny layer, mounted nowhere, read, and gone again) which back ends work with files in `<root>/layers`.
pub fn probe(root: &Path) -> Probe {
    let layers = root.join("layers");
    let directories = durable::create_dir(&layers, 0o700).map_err(|error| explain(&error));
    let try_one =
        |backend| directories.clone().and_then(|()| try_mount(backend, &layers).map_err(|error| explain(&error)));
    Probe { erofs_file: try_one(Backend::ErofsFile), erofs_loop: try_one(Backend::ErofsLoop), directories }
}

fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn try_mount(backend: Backend, dir: &Path) -> io::Result<()> {
    let mut tar = Writer::new(Vec::new());
    tar.file(NAME.as_bytes(), &Metadata { mode: 0o644, ..Metadata::default() }, CONTENTS)?;
    let tar = tar.finish()?;
    let mut tree = LayerTree::new();
    let mut reader = Reader::new(tar.as_slice());
    while let Some(entry) = reader.next_entry()? {
        tree.apply(entry)?;
    }
    let create = || StagedFile::create(dir).map_err(io::Error::other);
    let (mut tar_file, index_file) = (create()?, create()?);
    tar_file.write_all(&tar)?;
    let diff_id = DiffId(Digest::of(&tar));
    index::write(&tree, &diff_id, tar_file.file(), tar.len() as u64, index_file.file()).map_err(io::Error::other)?;
    // Opened again for reading: a loop device keeps the right to write that its file came with.
    let (index_file, tar_file) = (File::open(index_file.path())?, File::open(tar_file.path())?);
    let mounted = mount::mount_detached(backend, &index_file, &tar_file)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(mounted.as_fd(), NAME, flags, Mode::empty())?;
    let mut found = Vec::new();
    File::from(file).read_to_end(&mut found)?;
    if found == CONTENTS {
        Ok(())
    } else {
        Err(io::Error::other("the mounted index shows other bytes than the tar has"))
    }
}
