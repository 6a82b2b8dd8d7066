//! Stores in temporary directories, and archives made by hand.

use std::io::{Cursor, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use archive::compression::{Compression, Compressor};
use archive::tar::{Metadata, Writer};
use images::{ContainerUse, ImageStore, ImageUsers, LoadError, LoadEvent, LoadRequest, Loaded};
use oci::image::{ANNOTATION_IMAGE_NAME, media_type};
use oci::{DiffId, Digest};
use serde_json::{Value, json};
use snapshots::{Choice, Snapshotter};
use tempfile::TempDir;

/// A store and the directory that it lives in.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) store: ImageStore,
    pub(crate) snapshotter: Arc<dyn Snapshotter>,
    pub(crate) directory: Arc<TempDir>,
}

impl Site {
    pub(crate) fn new() -> Site {
        Site::open(Arc::new(tempfile::tempdir().unwrap()))
    }

    pub(crate) fn open(directory: Arc<TempDir>) -> Site {
        Site::open_with(directory, Choice::Automatic)
    }

    pub(crate) fn open_with(directory: Arc<TempDir>, choice: Choice) -> Site {
        let (root, run) = (directory.path().join("root"), directory.path().join("run"));
        let snapshotter = snapshots::open(&root, &run, choice).unwrap();
        let store = ImageStore::open(&root, snapshotter.clone()).unwrap();
        Site { store, snapshotter, directory }
    }

    /// Closes the store and opens it again, as a new daemon would.
    pub(crate) fn reopened(self) -> Site {
        let directory = self.directory.clone();
        drop(self);
        Site::open(directory)
    }

    pub(crate) fn root(&self) -> std::path::PathBuf {
        self.directory.path().join("root")
    }

    /// Loads `archive` and gives the lines that a user sees beside the progress.
    pub(crate) fn load(&self, archive: &[u8]) -> Result<(Vec<Loaded>, Vec<String>), LoadError> {
        let lines = Mutex::new(Vec::new());
        let on_event = |event: LoadEvent| {
            if !matches!(event, LoadEvent::Layer { .. }) {
                lines.lock().unwrap().push(event.to_string());
            }
        };
        let input: Box<dyn Read + Send> = Box::new(Cursor::new(archive.to_vec()));
        let loaded = self.store.load(input, &LoadRequest::default(), &on_event)?;
        Ok((loaded, lines.into_inner().unwrap()))
    }

    /// The error of a load, with its causes.
    pub(crate) fn load_error(&self, archive: &[u8]) -> String {
        describe(&self.load(archive).unwrap_err())
    }

    pub(crate) fn layers(&self) -> Vec<DiffId> {
        self.snapshotter.list().unwrap().into_iter().map(|layer| layer.diff_id).collect()
    }

    pub(crate) fn tar_of(&self, layer: &DiffId) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.snapshotter.open_tar(layer).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    pub(crate) fn set_no_users(&self) {
        self.store.set_users(Arc::new(Users::default())).unwrap();
    }

    /// Nothing is there: no image, no layer, no half-written file.
    pub(crate) fn assert_empty(&self) {
        assert_eq!(self.store.catalogue().images().count(), 0);
        assert_eq!(self.layers(), []);
        let files = files_below(&self.root());
        let known = ["/lock", "references.json"];
        let left: Vec<_> = files.iter().filter(|file| !known.iter().any(|known| file.ends_with(known))).collect();
        assert_eq!(left, [] as [&String; 0]);
    }
}

/// Containers as a test wants them.
#[derive(Debug, Default)]
pub(crate) struct Users(pub(crate) Mutex<Vec<ContainerUse>>);

impl ImageUsers for Users {
    fn containers(&self) -> Vec<ContainerUse> {
        self.0.lock().unwrap().clone()
    }
}

pub(crate) fn files_below(directory: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path.display().to_string());
        }
    }
    files
}

pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}

/// A tar of regular files.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, contents) in files {
        writer.file(name.as_bytes(), &Metadata { mode: 0o644, ..Metadata::default() }, contents).unwrap();
    }
    writer.finish().unwrap()
}

/// A layer of one file whose contents depend on `seed`, with `size_bytes` bytes that do not compress.
pub(crate) fn layer(seed: &str, size_bytes: usize) -> Vec<u8> {
    let mut state =
        Digest::of(seed.as_bytes()).as_bytes().iter().fold(1u64, |a, b| a.wrapping_mul(257) + u64::from(*b));
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(size_bytes)
    .collect();
    tar(&[(&format!("file-{seed}"), &noise)])
}

pub(crate) fn compressed(bytes: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::Xz => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Bzip2 => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        other => {
            let mut encoder = Compressor::new(Vec::new(), other).unwrap();
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
    }
}

/// An image as a test describes it.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    pub(crate) config: Vec<u8>,
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) tags: Vec<&'static str>,
}

impl Picture {
    pub(crate) fn new(layers: &[Vec<u8>], tags: &[&'static str]) -> Picture {
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
        let history: Vec<Value> = diff_ids.iter().map(|_| json!({"created_by": "test"})).collect();
        let config = json!({"architecture": oci::image::Platform::host().architecture, "os": "linux",
            "created": "2024-01-02T03:04:05Z", "config": {"Cmd": ["sh"], "Labels": {"a": "b"}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": history, "unknown": {"kept": true}});
        Picture { config: config.to_string().into_bytes(), layers: layers.to_vec(), tags: tags.to_vec() }
    }

    pub(crate) fn id(&self) -> String {
        Digest::of(&self.config).to_string()
    }

    /// As Docker before 25 saved it.
    pub(crate) fn old_archive(pictures: &[Picture]) -> Vec<u8> {
        let mut files = Vec::new();
        let mut items = Vec::new();
        for picture in pictures {
            let config = format!("{}.json", Digest::of(&picture.config).hex());
            let paths: Vec<String> =
                picture.layers.iter().map(|layer| format!("{}/layer.tar", Digest::of(layer).hex())).collect();
            items.push(json!({"Config": config, "RepoTags": picture.tags, "Layers": paths}));
            files.push((config, picture.config.clone()));
            for (path, layer) in paths.iter().zip(&picture.layers) {
                files.push((path.replace("layer.tar", "VERSION"), b"1.0".to_vec()));
                files.push((path.replace("layer.tar", "json"), b"{\"id\":\"x\"}".to_vec()));
                files.push((path.clone(), layer.clone()));
            }
        }
        files.push(("manifest.json".to_owned(), json!(items).to_string().into_bytes()));
        files.push(("repositories".to_owned(), b"{}".to_vec()));
        archive_of(&files)
    }

    /// As Docker since 25 saves it, but for the index.
    pub(crate) fn new_archive(pictures: &[Picture], compression: Compression) -> Vec<u8> {
        let mut files = Vec::new();
        let mut items = Vec::new();
        for picture in pictures {
            let config = add_blob(&mut files, picture.config.clone());
            let layers: Vec<String> = picture
                .layers
                .iter()
                .map(|layer| blob_path(&add_blob(&mut files, compressed(layer, compression))))
                .collect();
            items.push(json!({"Config": blob_path(&config), "RepoTags": picture.tags, "Layers": layers}));
        }
        files.push(("manifest.json".to_owned(), json!(items).to_string().into_bytes()));
        archive_of(&files)
    }

    /// As skopeo and buildx write it.
    pub(crate) fn oci_archive(pictures: &[Picture], compression: Compression) -> Vec<u8> {
        let mut files = vec![("oci-layout".to_owned(), b"{\"imageLayoutVersion\":\"1.0.0\"}".to_vec())];
        let mut manifests = Vec::new();
        for picture in pictures {
            let manifest = picture.add_oci(&mut files, compression);
            if picture.tags.is_empty() {
                manifests.push(manifest.clone());
            }
            for tag in &picture.tags {
                let mut named = manifest.clone();
                let tag = oci::Reference::parse(tag).unwrap().canonical();
                named["annotations"] = json!({ANNOTATION_IMAGE_NAME: tag});
                manifests.push(named);
            }
        }
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        files.push(("index.json".to_owned(), index.to_string().into_bytes()));
        archive_of(&files)
    }

    /// Adds the blobs of an OCI image and gives its manifest's descriptor.
    pub(crate) fn add_oci(&self, files: &mut Vec<(String, Vec<u8>)>, compression: Compression) -> Value {
        let config = add_blob(files, self.config.clone());
        let layer_type = match compression {
            Compression::Gzip => media_type::OCI_LAYER_GZIP,
            Compression::Zstd => media_type::OCI_LAYER_ZSTD,
            _ => media_type::OCI_LAYER,
        };
        let descriptor =
            |kind: &str, digest: Digest, size: usize| json!({"mediaType": kind, "digest": digest, "size": size});
        let mut layers = Vec::new();
        for layer in &self.layers {
            let blob = compressed(layer, compression);
            let size = blob.len();
            layers.push(descriptor(layer_type, add_blob(files, blob), size));
        }
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": descriptor(media_type::OCI_CONFIG, config, self.config.len()), "layers": layers})
        .to_string()
        .into_bytes();
        let size = manifest.len();
        descriptor(media_type::OCI_MANIFEST, add_blob(files, manifest), size)
    }
}

pub(crate) fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn add_blob(files: &mut Vec<(String, Vec<u8>)>, bytes: Vec<u8>) -> Digest {
    let digest = Digest::of(&bytes);
    files.push((blob_path(&digest), bytes));
    digest
}

pub(crate) fn archive_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    tar(&files)
}

/// The files of a tar by their names.
pub(crate) fn files_of(tar: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut reader = archive::tar::Reader::new(tar);
    let mut files = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        files.push((String::from_utf8(entry.path).unwrap(), bytes));
    }
    files
}
