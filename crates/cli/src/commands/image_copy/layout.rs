//! An OCI layout on this disk that grows: blobs come first, the index that names them last.
//!
//! ```text
//! DIR/oci-layout, DIR/index.json, DIR/blobs/sha256/<hex>
//! ```

use std::collections::HashSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use archive::tar::{EntryKind, Reader};
use durable::{PathError, StagedFile};
use oci::image::{ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, Descriptor, ImageLayout, Index, Manifest, media_type};
use oci::{DiffId, Digest, Digester};

const BLOBS: &str = "blobs/sha256";
const INDEX: &str = "index.json";
const LAYOUT: &str = "oci-layout";
/// The largest document that is read.
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
const PIECE_BYTES: usize = 1 << 20;

/// Why a layout is not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum LayoutError {
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("cannot read what the engine sends")]
    Input(#[source] io::Error),
    #[error("cannot write a blob")]
    Write(#[source] io::Error),
    #[error("{name} is not valid")]
    Json { name: String, source: serde_json::Error },
    #[error("it is a layout of version {0:?}, not {version}", version = ImageLayout::VERSION)]
    Version(String),
    #[error("{0} is larger than {DOCUMENT_BYTES_MAX} bytes")]
    TooLarge(String),
    #[error("the engine sent no OCI layout")]
    NoLayout,
    #[error("blob {expected} hashes to {actual}")]
    Digest { expected: Digest, actual: Digest },
    #[error("blob {0} is named, but neither here nor sent")]
    Missing(Digest),
}

/// A layout.
#[derive(Debug)]
pub(super) struct Layout {
    folder: PathBuf,
    blobs: PathBuf,
}

impl Layout {
    /// Opens a layout, or makes its folders.
    pub(super) fn open(folder: &Path) -> Result<Layout, LayoutError> {
        let blobs = folder.join(BLOBS);
        fs::create_dir_all(&blobs).map_err(PathError::with(durable::Operation::Create, &blobs))?;
        durable::sweep_temporaries(&blobs)?;
        let layout = Layout { folder: folder.to_owned(), blobs };
        if let Some(bytes) = layout.read(LAYOUT)? {
            let version = parse::<ImageLayout>(LAYOUT, &bytes)?.image_layout_version;
            if version != ImageLayout::VERSION {
                return Err(LayoutError::Version(version));
            }
        }
        Ok(layout)
    }

    /// Those of these layers that are here whole, not compressed.
    pub(super) fn present(&self, layers: &[DiffId]) -> Result<Vec<DiffId>, LayoutError> {
        let mut present = Vec::new();
        for layer in layers {
            if self.has(layer.digest())? {
                present.push(*layer);
            }
        }
        Ok(present)
    }

    /// Whether a blob is here and is what its name says.
    fn has(&self, digest: &Digest) -> Result<bool, LayoutError> {
        let path = self.blobs.join(digest.hex());
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            result => result.map_err(PathError::with(durable::Operation::Read, &path))?,
        };
        let mut hash = Digester::new();
        io::copy(&mut io::BufReader::with_capacity(PIECE_BYTES, file), &mut hash)
            .map_err(PathError::with(durable::Operation::Read, &path))?;
        Ok(hash.finish() == *digest)
    }

    /// Takes the blobs of an archive that are not here, then its images into the index, under `name` or their own.
    pub(super) fn take(&self, archive: impl Read, name: Option<&str>) -> Result<(), LayoutError> {
        let mut tar = Reader::new(archive);
        let (mut index, mut taken) = (None, HashSet::new());
        while let Some(entry) = tar.next_entry().map_err(LayoutError::Input)? {
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            let EntryKind::File { sparse: None, .. } = entry.kind else { continue };
            let blob = path.strip_prefix("blobs/sha256/").and_then(|hex| Digest::from_hex(hex).ok());
            match blob {
                Some(digest) => {
                    self.blob(&mut tar, &digest)?;
                    taken.insert(digest);
                }
                None if path == INDEX => index = Some(document(&mut tar, INDEX)?),
                None => {}
            }
        }
        let index: Index = parse(INDEX, &index.ok_or(LayoutError::NoLayout)?)?;
        for descriptor in &index.manifests {
            self.check(descriptor, &taken)?;
        }
        durable::sync_dir(&self.blobs)?;
        self.publish(index, name)
    }

    fn blob(&self, input: &mut impl Read, digest: &Digest) -> Result<(), LayoutError> {
        let mut staged = StagedFile::create(&self.blobs)?;
        let (mut hash, mut piece) = (Digester::new(), vec![0; PIECE_BYTES]);
        loop {
            let length = input.read(&mut piece).map_err(LayoutError::Input)?;
            if length == 0 {
                break;
            }
            hash.update(&piece[..length]);
            staged.write_all(&piece[..length]).map_err(LayoutError::Write)?;
        }
        let actual = hash.finish();
        if actual != *digest {
            return Err(LayoutError::Digest { expected: *digest, actual });
        }
        // Other tools, and other users, read layouts.
        staged.file().set_permissions(Permissions::from_mode(0o644)).map_err(LayoutError::Write)?;
        Ok(staged.commit(&digest.hex())?)
    }

    /// Everything that a manifest names must be here.
    fn check(&self, descriptor: &Descriptor, taken: &HashSet<Digest>) -> Result<(), LayoutError> {
        let is_here = |digest: &Digest| taken.contains(digest) || self.blobs.join(digest.hex()).is_file();
        let name = format!("{BLOBS}/{}", descriptor.digest.hex());
        let bytes = self.read(&name)?.ok_or(LayoutError::Missing(descriptor.digest))?;
        let manifest: Manifest = parse(&name, &bytes)?;
        let named = std::iter::once(&manifest.config).chain(&manifest.layers).map(|named| named.digest);
        match named.into_iter().find(|digest| !is_here(digest)) {
            Some(digest) => Err(LayoutError::Missing(digest)),
            None => Ok(()),
        }
    }

    /// Adds the entries to the index that is here; what had the same name loses it.
    fn publish(&self, new: Index, name: Option<&str>) -> Result<(), LayoutError> {
        let layout = ImageLayout::default();
        let mut index = match self.read(INDEX)? {
            Some(bytes) => parse::<Index>(INDEX, &bytes)?,
            None => Index { manifests: Vec::new(), ..new.clone() },
        };
        for entry in named(new.manifests, name) {
            let same = |known: &Descriptor| {
                let key = |entry: &Descriptor| entry.annotations.get(ANNOTATION_REF_NAME).cloned();
                key(known) == key(&entry) && (key(&entry).is_some() || known.digest == entry.digest)
            };
            index.manifests.retain(|known| !same(known));
            index.manifests.push(entry);
        }
        if index.media_type.is_empty() {
            media_type::OCI_INDEX.clone_into(&mut index.media_type);
        }
        self.write(LAYOUT, &layout)?;
        self.write(INDEX, &index)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, LayoutError> {
        let path = self.folder.join(name);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.map_err(PathError::with(durable::Operation::Read, &path))?,
        };
        document(&mut io::BufReader::new(file), name).map(Some)
    }

    fn write<T: serde::Serialize>(&self, name: &str, value: &T) -> Result<(), LayoutError> {
        let bytes = serde_json::to_vec(value).map_err(|source| LayoutError::Json { name: name.to_owned(), source })?;
        let mut staged = StagedFile::create(&self.folder)?;
        staged.write_all(&bytes).map_err(LayoutError::Write)?;
        staged.file().set_permissions(Permissions::from_mode(0o644)).map_err(LayoutError::Write)?;
        Ok(staged.commit(name)?)
    }
}

/// The entries under a name of the user's choice: one of them, because they are the same image.
fn named(entries: Vec<Descriptor>, name: Option<&str>) -> Vec<Descriptor> {
    let Some(name) = name else { return entries };
    let mut entries: Vec<Descriptor> = entries.into_iter().take(1).collect();
    for entry in &mut entries {
        entry.annotations.remove(ANNOTATION_IMAGE_NAME);
        entry.annotations.insert(ANNOTATION_REF_NAME.to_owned(), name.to_owned());
    }
    entries
}

fn document(input: &mut impl Read, name: &str) -> Result<Vec<u8>, LayoutError> {
    let mut bytes = Vec::new();
    input.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(LayoutError::Input)?;
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX { Err(LayoutError::TooLarge(name.to_owned())) } else { Ok(bytes) }
}

fn parse<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, LayoutError> {
    serde_json::from_slice(bytes).map_err(|source| LayoutError::Json { name: name.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use archive::tar::{Metadata, Writer};
    use serde_json::json;

    use super::*;

    /// An archive of one image of these layers; `lie` changes the bytes of its last layer.
    fn archive(layers: &[&str], without: &[&str], tag: &str, lie: bool) -> Vec<u8> {
        let descriptor =
            |bytes: &[u8], kind: &str| json!({ "mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len() });
        let config = b"{}".to_vec();
        let named: Vec<_> = layers.iter().map(|layer| descriptor(layer.as_bytes(), media_type::OCI_LAYER)).collect();
        let manifest = json!({ "schemaVersion": 2, "config": descriptor(&config, "c"), "layers": named }).to_string();
        let mut entry = descriptor(manifest.as_bytes(), media_type::OCI_MANIFEST);
        entry["annotations"] = json!({ ANNOTATION_REF_NAME: tag });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
        let mut tar = Writer::new(Vec::new());
        let metadata = Metadata { mode: 0o644, ..Metadata::default() };
        let mut add = |name: &str, bytes: &[u8]| tar.file(name.as_bytes(), &metadata, bytes).unwrap();
        let blob = |bytes: &[u8]| format!("{BLOBS}/{}", Digest::of(bytes).hex());
        add(INDEX, index.as_bytes());
        add(&blob(manifest.as_bytes()), manifest.as_bytes());
        add(&blob(&config), &config);
        for layer in layers.iter().filter(|layer| !without.contains(layer)) {
            let bytes = if lie { b"lie".to_vec() } else { layer.as_bytes().to_vec() };
            add(&blob(layer.as_bytes()), &bytes);
        }
        tar.finish().unwrap()
    }

    fn tags(folder: &Path) -> Vec<String> {
        let index: Index = serde_json::from_slice(&fs::read(folder.join(INDEX)).unwrap()).unwrap();
        index.manifests.iter().map(|entry| entry.annotations[ANNOTATION_REF_NAME].clone()).collect()
    }

    #[test]
    fn a_layout_grows_by_what_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::open(folder.path()).unwrap();
        let layer = |text: &str| DiffId(Digest::of(text.as_bytes()));
        let layers = [layer("one"), layer("two")];
        assert_eq!(layout.present(&layers).unwrap(), []);
        layout.take(archive(&["one"], &[], "v1", false).as_slice(), None).unwrap();
        assert_eq!(layout.present(&layers).unwrap(), [layer("one")]);
        layout.take(archive(&["one", "two"], &["one"], "v2", false).as_slice(), None).unwrap();
        layout.take(archive(&["one", "two"], &["one", "two"], "v2", false).as_slice(), Some("mine")).unwrap();
        assert_eq!(tags(folder.path()), ["v1", "v2", "mine"]);
        layout.take(archive(&["one"], &["one"], "v2", false).as_slice(), None).unwrap();
        assert_eq!(tags(folder.path()), ["v1", "mine", "v2"]);
        fs::write(folder.path().join(BLOBS).join(layer("one").hex()), "damaged").unwrap();
        assert_eq!(layout.present(&layers).unwrap(), [layer("two")]);
    }

    #[test]
    fn what_is_wrong_is_refused_and_not_named() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::open(folder.path()).unwrap();
        let refused = |archive: Vec<u8>| layout.take(archive.as_slice(), None).unwrap_err().to_string();
        assert!(refused(archive(&["one"], &[], "v1", true)).contains("hashes to"));
        assert!(refused(archive(&["one"], &["one"], "v1", false)).contains("neither here nor sent"));
        assert!(refused(Writer::new(Vec::new()).finish().unwrap()).contains("no OCI layout"));
        assert!(!folder.path().join(INDEX).exists());
        fs::write(folder.path().join(LAYOUT), r#"{"imageLayoutVersion":"9"}"#).unwrap();
        assert!(Layout::open(folder.path()).unwrap_err().to_string().contains("version \"9\""));
    }
}
