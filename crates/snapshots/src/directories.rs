//! Layers unpacked into directories, for kernels and user namespaces that cannot mount EROFS.
//!
//! ```text
//! <root>/layers/unpacked/
//!   .tmp-…              a tar on its way
//!   .work-<hex>-<n>/    being unpacked, or being removed
//!   <hex>/root/         the layer's files, whiteouts as overlayfs wants them
//!   <hex>/skeleton      everything of the tar that is not in the files
//! <run>/layers/empty/   the lower layer of images without layers
//! ```
//!
//! The tree is resolved in memory first and unpacked from the staged tar, so both back ends give a tar the same meaning, and no name
//! of a stranger is ever resolved on a disk.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use archive::unpack::{Privileges, unpack};
use durable::Lock;
use oci::{DiffId, Digest};

use crate::corrupt::Corrupt;
use crate::crowd::Crowd;
use crate::layer_writer::{Commit, StagedLayer};
use crate::skeleton::{self, Skeleton};
use crate::{
    Backend, Change, Error, LayerUsage, LayerWriter, OpenError, OverlayXattrs, Selection, Snapshotter, Upper, index,
    upper,
};

const DIR_MODE: u32 = 0o700;
const WORK_PREFIX: &str = ".work-";

/// The back end of unpacked directories.
#[derive(Debug)]
pub(crate) struct Directories {
    trees: Arc<Trees>,
    empty: PathBuf,
    crowd: Arc<Crowd>,
    _lock: Lock,
}

#[derive(Debug)]
struct Trees {
    dir: PathBuf,
    privileges: Privileges,
    next_work: AtomicU64,
    corrupt: Corrupt,
}

impl Directories {
    pub(crate) fn open(layers: &Path, mounts: &Path, lock: Lock) -> Result<Self, OpenError> {
        let (dir, empty) = (layers.join("unpacked"), mounts.join("empty"));
        durable::create_dir(&dir, DIR_MODE)?;
        crate::upper::make_empty(&empty)?;
        let trees = Trees { dir, privileges: privileges(), next_work: AtomicU64::new(0), corrupt: Corrupt::default() };
        trees.sweep()?;
        Ok(Directories { trees: Arc::new(trees), empty, crowd: Arc::default(), _lock: lock })
    }
}

/// Whether root here is root everywhere.
fn privileges() -> Privileges {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole: Vec<&str> = map.split_whitespace().collect();
    if whole == ["0", "0", "4294967295"] { Privileges::Full } else { Privileges::UserNamespace }
}

impl Trees {
    /// Removes what a crash left.
    fn sweep(&self) -> Result<(), durable::PathError> {
        let listed = durable::PathError::with(durable::Operation::List, &self.dir);
        for entry in fs::read_dir(&self.dir).map_err(listed)?.filter_map(|entry| entry.ok()) {
            if entry.file_name().as_encoded_bytes().starts_with(WORK_PREFIX.as_bytes()) {
                let path = entry.path();
                fs::remove_dir_all(&path).map_err(durable::PathError::with(durable::Operation::Remove, &path))?;
            }
        }
        durable::sweep_temporaries(&self.dir).map(drop)
    }

    fn layer(&self, layer: &DiffId) -> PathBuf {
        self.dir.join(layer.hex())
    }

    fn work(&self, layer: &DiffId) -> PathBuf {
        let number = self.next_work.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{WORK_PREFIX}{}-{number}", layer.hex()))
    }

    fn skeleton(&self, layer: &DiffId) -> Result<Skeleton, Error> {
        let path = self.layer(layer).join("skeleton");
        Skeleton::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NotFound { layer: *layer },
            _ => Error::io("read", &path)(error),
        })
    }

    fn tar(&self, layer: &DiffId) -> Result<impl Read + Send + use<>, Error> {
        let root = self.layer(layer).join("root");
        let skeleton = self.skeleton(layer)?;
        let dir = File::open(&root).map_err(Error::io("open", &root))?;
        skeleton.tar(dir).map_err(Error::io("start a thread for", &root))
    }

    /// Takes the layer away; its name goes first and at once.
    fn discard(&self, layer: &DiffId) -> Result<(), Error> {
        let (place, work) = (self.layer(layer), self.work(layer));
        match durable::rename(&place, &work) {
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
            Ok(()) => fs::remove_dir_all(&work).map_err(Error::io("remove", &work)),
        }?;
        self.corrupt.forget(layer);
        Ok(())
    }

    fn build(&self, layer: &StagedLayer, work: &Path) -> Result<(), Error> {
        let (root, skeleton) = (work.join("root"), work.join("skeleton"));
        for dir in [work, &root] {
            DirBuilder::new().mode(DIR_MODE).create(dir).map_err(Error::io("create", dir))?;
        }
        let dir = File::open(&root).map_err(Error::io("open", &root))?;
        unpack(&layer.tree, layer.file.file(), dir.as_fd(), self.privileges)
            .map_err(Error::io("unpack into", &root))?;
        skeleton::write(&layer.tree, layer.file.file(), layer.tar_bytes, &skeleton)
            .map_err(Error::io("write", &skeleton))?;
        // One step for thousands of files; syncing each would take minutes.
        rustix::fs::syncfs(dir.as_fd()).map_err(Error::io("sync", &root))
    }
}

impl Commit for Trees {
    fn commit(&self, layer: StagedLayer) -> Result<(), Error> {
        let place = self.layer(&layer.diff_id);
        let is_corrupt = self.corrupt.contains(&layer.diff_id);
        if place.exists() && !is_corrupt {
            return Ok(());
        }
        let work = self.work(&layer.diff_id);
        let ready =
            self.build(&layer, &work).and_then(|()| if is_corrupt { self.discard(&layer.diff_id) } else { Ok(()) });
        let built = ready.and_then(|()| match durable::rename(&work, &place) {
            // Somebody else was faster with the same layer.
            Err(_) if place.exists() => Ok(()),
            result => result.map_err(Error::from),
        });
        if work.exists() {
            // What cannot be removed now is removed at the next start.
            let _ = fs::remove_dir_all(&work);
        }
        built
    }
}

impl Snapshotter for Directories {
    fn backend(&self) -> Backend {
        Backend::Directories
    }

    fn overlay_xattrs(&self) -> OverlayXattrs {
        match self.trees.privileges {
            Privileges::Full => OverlayXattrs::Trusted,
            Privileges::UserNamespace => OverlayXattrs::User,
        }
    }

    fn stage(&self) -> Result<LayerWriter, Error> {
        LayerWriter::new(self.trees.clone(), &self.trees.dir, &self.crowd)
    }

    fn has(&self, layer: &DiffId) -> bool {
        self.trees.layer(layer).exists() && !self.trees.corrupt.contains(layer)
    }

    fn size(&self, layer: &DiffId) -> Result<u64, Error> {
        self.trees.skeleton(layer).map(|skeleton| skeleton.tar_bytes())
    }

    fn list(&self) -> Result<Vec<LayerUsage>, Error> {
        let entries = fs::read_dir(&self.trees.dir).map_err(Error::io("list", &self.trees.dir))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut layers: Vec<DiffId> = names.filter_map(|name| Digest::from_hex(&name).ok().map(DiffId)).collect();
        layers.sort_unstable();
        let usage = |diff_id| {
            let skeleton = self.trees.skeleton(&diff_id)?;
            Ok(LayerUsage { diff_id, tar_bytes: skeleton.tar_bytes(), disk_bytes: skeleton.disk_bytes() })
        };
        layers.into_iter().map(usage).collect()
    }

    fn open_tar(&self, layer: &DiffId) -> Result<Box<dyn Read + Send>, Error> {
        Ok(Box::new(self.trees.tar(layer)?))
    }

    fn verify(&self, layer: &DiffId) -> Result<(), Error> {
        let actual = index::hash(&mut self.trees.tar(layer)?).map_err(Error::io("read", &self.trees.layer(layer)))?;
        let found = if actual == *layer { Ok(()) } else { Err(Error::Corrupt { layer: *layer, actual }) };
        self.trees.corrupt.note(layer, &found);
        found
    }

    fn rebuild_index(&self, layer: &DiffId) -> Result<(), Error> {
        // Unpacked files need none.
        self.trees.skeleton(layer).map(drop)
    }

    fn remove(&self, layer: &DiffId) -> Result<(), Error> {
        self.trees.discard(layer)
    }

    fn lower_dirs(&self, layers: &[DiffId]) -> Result<Vec<PathBuf>, Error> {
        upper::lower_dirs(layers, &self.empty, |layer| match self.trees.layer(layer).exists() {
            true => Ok(self.trees.layer(layer).join("root")),
            false => Err(Error::NotFound { layer: *layer }),
        })
    }

    fn unmount_except(&self, _keep: &[DiffId]) -> Result<(), Error> {
        // Nothing is ever mounted.
        Ok(())
    }

    fn create_upper(&self, container_dir: &Path, layers: &[DiffId]) -> Result<Upper, Error> {
        let topmost = self.lower_dirs(layers.last().map_or(&[], std::slice::from_ref))?;
        upper::create(container_dir, &topmost[0])
    }

    fn diff(&self, upper: &Path, selection: Selection) -> Result<Box<dyn Read + Send>, Error> {
        upper::diff(upper, selection)
    }

    fn changes(&self, upper: &Path, layers: &[DiffId]) -> Result<Vec<Change>, Error> {
        upper::changes(upper, &self.lower_dirs(layers)?)
    }
}
