//! Layers as they came: the tar, and beside it its EROFS index.
//!
//! ```text
//! <root>/layers/
//!   lock                   held by the engine that uses this root
//!   sha256/.tmp-…          on their way
//!   sha256/<hex>.erofs     the index, named before the tar
//!   sha256/<hex>.tar       the layer; it is here when this is here
//! <run>/layers/
//!   <32 hex digits>/       where the layer is mounted
//!   empty/                 the lower layer of images without layers
//! ```
//!
//! An index can always be made again from its tar, so losing one loses nothing.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use durable::{Lock, PathError, StagedFile};
use oci::{DiffId, Digest};

use crate::corrupt::Corrupt;
use crate::crowd::Crowd;
use crate::layer_writer::{Commit, StagedLayer};
use crate::{
    Backend, Change, Error, LayerUsage, LayerWriter, OpenError, OverlayXattrs, Selection, Snapshotter, Upper, index,
    mount, upper,
};

/// Directories hold set-user-ID files of strangers: nobody but root may pass (CVE-2021-41091).
const DIR_MODE: u32 = 0o700;
/// So many hexadecimal digits of the diff-id name a mount: 128 bits.
const SHORT_DIGITS: usize = 32;

/// The EROFS back ends.
#[derive(Debug)]
pub(crate) struct ErofsStore {
    files: Arc<Files>,
    mounts: PathBuf,
    backend: Backend,
    /// Held while mounting or unmounting, so that two threads do not mount one layer twice.
    mounting: Mutex<()>,
    crowd: Arc<Crowd>,
    _lock: Lock,
}

/// The files of the layers.
#[derive(Debug)]
struct Files {
    dir: PathBuf,
    corrupt: Corrupt,
}

impl ErofsStore {
    pub(crate) fn open(layers: &Path, mounts: &Path, backend: Backend, lock: Lock) -> Result<Self, OpenError> {
        let dir = layers.join("sha256");
        let made = durable::create_dir(&dir, DIR_MODE).and_then(|()| durable::sweep_temporaries(&dir)).map(drop);
        made.and_then(|()| crate::upper::make_empty(&mounts.join("empty")))?;
        let files = Files { dir, corrupt: Corrupt::default() };
        files.remove_lone_indexes()?;
        let files = Arc::new(files);
        Ok(ErofsStore {
            files,
            mounts: mounts.to_owned(),
            backend,
            mounting: Mutex::new(()),
            crowd: Arc::default(),
            _lock: lock,
        })
    }

    fn place(&self, layer: &DiffId) -> PathBuf {
        self.mounts.join(&layer.hex()[..SHORT_DIGITS])
    }

    /// Where the layer is mounted; mounts it if it is not.
    fn mounted(&self, layer: &DiffId) -> Result<PathBuf, Error> {
        let place = self.place(layer);
        if mount::is_mounted(&place) {
            return Ok(place);
        }
        let _mounting = self.mounting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !mount::is_mounted(&place) {
            self.mount(layer, &place)?;
        }
        Ok(place)
    }

    fn mount(&self, layer: &DiffId, place: &Path) -> Result<(), Error> {
        let tar = self.files.open_tar(layer)?;
        let index = self.files.open_index(layer, &tar)?;
        let mounted = match mount::mount_detached(self.backend, &index, &tar) {
            Ok(mounted) => mounted,
            // A damaged index is refused by the kernel; the tar has everything to make it again.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
                let index = self.files.rebuild_index(layer, &tar)?;
                mount::mount_detached(self.backend, &index, &tar).map_err(Error::io("mount", place))?
            }
            Err(error) => return Err(Error::io("mount", place)(error)),
        };
        make_dir(place)?;
        mount::attach(&mounted, place).map_err(Error::io("mount", place))
    }

    fn unmount(&self, place: &Path) -> Result<(), Error> {
        mount::detach(place).map_err(Error::io("unmount", place))?;
        match fs::remove_dir(place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", place)(error)),
            _ => Ok(()),
        }
    }
}

fn make_dir(place: &Path) -> Result<(), Error> {
    match fs::create_dir(place) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Error::io("create", place)(error)),
        _ => Ok(()),
    }
}

impl Files {
    fn tar(&self, layer: &DiffId) -> PathBuf {
        self.dir.join(format!("{}.tar", layer.hex()))
    }

    fn index(&self, layer: &DiffId) -> PathBuf {
        self.dir.join(format!("{}.erofs", layer.hex()))
    }

    /// Removes indexes without their tars: a crash came between the two.
    fn remove_lone_indexes(&self) -> Result<(), PathError> {
        let list = |error| PathError::new(durable::Operation::List, &self.dir, error);
        for entry in fs::read_dir(&self.dir).map_err(list)? {
            let name = entry.map_err(list)?.file_name();
            let layer = name.to_str().and_then(|name| parse_hex(name.strip_suffix(".erofs")?));
            if layer.is_some_and(|layer| !self.tar(&layer).exists()) {
                let path = self.dir.join(&name);
                fs::remove_file(&path).map_err(PathError::with(durable::Operation::Remove, &path))?;
            }
        }
        Ok(())
    }

    fn open_tar(&self, layer: &DiffId) -> Result<File, Error> {
        let path = self.tar(layer);
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NotFound { layer: *layer },
            _ => Error::io("open", &path)(error),
        })
    }

    fn open_index(&self, layer: &DiffId, tar: &File) -> Result<File, Error> {
        let path = self.index(layer);
        match File::open(&path) {
            Ok(index) => Ok(index),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.rebuild_index(layer, tar),
            Err(error) => Err(Error::io("open", &path)(error)),
        }
    }

    /// Makes an index from the stored tar alone, and names it.
    fn rebuild_index(&self, layer: &DiffId, tar: &File) -> Result<File, Error> {
        self.stage_index(layer, tar)?.commit(&format!("{}.erofs", layer.hex()))?;
        let path = self.index(layer);
        File::open(&path).map_err(Error::io("open", &path))
    }

    fn stage_index(&self, layer: &DiffId, tar: &File) -> Result<StagedFile, Error> {
        let path = self.tar(layer);
        let tree = index::read_tree(tar).map_err(|error| match archive::Refusal::of(&error) {
            Some(refusal) => Error::Refused(refusal.clone()),
            None => Error::io("read", &path)(error),
        })?;
        let tar_bytes = tar.metadata().map_err(Error::io("inspect", &path))?.len();
        let staged = StagedFile::create(&self.dir)?;
        index::write(&tree, layer, tar, tar_bytes, staged.file())?;
        Ok(staged)
    }

    /// Removes the tar first: an index alone is no layer.
    fn remove(&self, layer: &DiffId) -> Result<(), PathError> {
        for path in [self.tar(layer), self.index(layer)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result.map_err(PathError::with(durable::Operation::Remove, &path))?,
            }
        }
        durable::sync_dir(&self.dir)
    }

    /// Hashes the tar again, and compares the index with one made from it now.
    fn verify(&self, layer: &DiffId) -> Result<(), Error> {
        let tar = self.open_tar(layer)?;
        index::verify_tar(layer, &tar, &self.tar(layer))?;
        let (kept, made) = (self.index(layer), self.stage_index(layer, &tar)?);
        let same = match File::open(&kept) {
            Ok(kept) => index::same_bytes(&kept, made.file()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        };
        match same.map_err(Error::io("read", &kept))? {
            true => Ok(()),
            false => Err(Error::DamagedIndex { layer: *layer }),
        }
    }

    fn usage(&self, layer: DiffId) -> Result<LayerUsage, Error> {
        let path = self.tar(&layer);
        let tar = fs::metadata(&path).map_err(Error::io("inspect", &path))?;
        let index_blocks = fs::metadata(self.index(&layer)).map_or(0, |index| index.blocks());
        Ok(LayerUsage { diff_id: layer, tar_bytes: tar.len(), disk_bytes: (tar.blocks() + index_blocks) * 512 })
    }

    fn layers(&self) -> Result<Vec<DiffId>, Error> {
        let entries = fs::read_dir(&self.dir).map_err(Error::io("list", &self.dir))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut layers: Vec<DiffId> = names.filter_map(|name| parse_hex(name.strip_suffix(".tar")?)).collect();
        layers.sort_unstable();
        Ok(layers)
    }
}

fn parse_hex(hex: &str) -> Option<DiffId> {
    Digest::from_hex(hex).ok().map(DiffId)
}

impl Commit for Files {
    /// Both files reach the disk before either is named, and the tar is named last: whoever finds it finds everything.
    fn commit(&self, layer: StagedLayer) -> Result<(), Error> {
        if self.tar(&layer.diff_id).exists() && !self.corrupt.contains(&layer.diff_id) {
            return Ok(());
        }
        let staged_index = StagedFile::create(&self.dir)?;
        index::write(&layer.tree, &layer.diff_id, layer.file.file(), layer.tar_bytes, staged_index.file())?;
        drop((layer.tree, layer.leave));
        layer.file.sync()?;
        staged_index.sync()?;
        staged_index.commit_volatile(&format!("{}.erofs", layer.diff_id.hex()))?;
        layer.file.commit_volatile(&format!("{}.tar", layer.diff_id.hex()))?;
        durable::sync_dir(&self.dir)?;
        self.corrupt.forget(&layer.diff_id);
        Ok(())
    }
}

impl Snapshotter for ErofsStore {
    fn backend(&self) -> Backend {
        self.backend
    }

    fn overlay_xattrs(&self) -> OverlayXattrs {
        OverlayXattrs::Trusted
    }

    fn stage(&self) -> Result<LayerWriter, Error> {
        LayerWriter::new(self.files.clone(), &self.files.dir, &self.crowd)
    }

    fn has(&self, layer: &DiffId) -> bool {
        self.files.tar(layer).exists() && !self.files.corrupt.contains(layer)
    }

    fn size(&self, layer: &DiffId) -> Result<u64, Error> {
        let tar = self.files.open_tar(layer)?;
        tar.metadata().map(|metadata| metadata.len()).map_err(Error::io("inspect", &self.files.tar(layer)))
    }

    fn list(&self) -> Result<Vec<LayerUsage>, Error> {
        self.files.layers()?.into_iter().map(|layer| self.files.usage(layer)).collect()
    }

    fn open_tar(&self, layer: &DiffId) -> Result<Box<dyn Read + Send>, Error> {
        Ok(Box::new(self.files.open_tar(layer)?))
    }

    fn verify(&self, layer: &DiffId) -> Result<(), Error> {
        let found = self.files.verify(layer);
        self.files.corrupt.note(layer, &found);
        found
    }

    fn rebuild_index(&self, layer: &DiffId) -> Result<(), Error> {
        let tar = self.files.open_tar(layer)?;
        self.files.rebuild_index(layer, &tar).map(drop)
    }

    fn remove(&self, layer: &DiffId) -> Result<(), Error> {
        let _mounting = self.mounting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.unmount(&self.place(layer))?;
        self.files.remove(layer)?;
        self.files.corrupt.forget(layer);
        Ok(())
    }

    fn lower_dirs(&self, layers: &[DiffId]) -> Result<Vec<PathBuf>, Error> {
        upper::lower_dirs(layers, &self.mounts.join("empty"), |layer| self.mounted(layer))
    }

    fn unmount_except(&self, keep: &[DiffId]) -> Result<(), Error> {
        let keep: Vec<PathBuf> =
            keep.iter().map(|layer| self.place(layer)).chain([self.mounts.join("empty")]).collect();
        let _mounting = self.mounting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let places = fs::read_dir(&self.mounts).map_err(Error::io("list", &self.mounts))?;
        let places = places.filter_map(|place| place.ok()).map(|place| place.path());
        places.filter(|place| !keep.contains(place)).try_for_each(|place| self.unmount(&place))
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
