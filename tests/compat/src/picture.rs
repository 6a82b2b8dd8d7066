//! Images made by hand, as a registry or an archive has them.

use std::process::Command;

use oci::Digest;
use oci::image::media_type::{OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST};
use serde_json::{Value, json};

use crate::fake_server::{Reply, Request};

/// How a registry keeps a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dress {
    Plain,
    Gzip,
    Zstd,
    /// Several frames, and a table of contents in one that decoders skip.
    ZstdChunked,
}

/// An image: its layers as tars and as blobs, and its documents.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) blobs: Vec<Vec<u8>>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
}

impl Picture {
    pub(crate) fn new(layers: &[(Vec<u8>, Dress)]) -> Self {
        let dress = |(tar, dress): &(Vec<u8>, Dress)| (*dress, dressed(tar, *dress), tar.clone());
        Self::of_blobs(&layers.iter().map(dress).collect::<Vec<_>>())
    }

    /// One whose blobs need not be what its layers become: dress, blob and tar of each.
    pub(crate) fn of_blobs(layers: &[(Dress, Vec<u8>, Vec<u8>)]) -> Self {
        let diff_ids: Vec<Digest> = layers.iter().map(|(_, _, tar)| Digest::of(tar)).collect();
        let config = json!({"architecture": oci::image::Platform::host().architecture, "os": "linux",
            "config": {"Env": ["PATH=/bin"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = config.to_string().into_bytes();
        let described: Vec<Value> =
            layers.iter().map(|(dress, blob, _)| descriptor(media_type(*dress), blob)).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(OCI_CONFIG, &config),
            "layers": described});
        Self {
            layers: layers.iter().map(|(_, _, tar)| tar.clone()).collect(),
            blobs: layers.iter().map(|(_, blob, _)| blob.clone()).collect(),
            config,
            manifest: manifest.to_string().into_bytes(),
        }
    }

    /// What a registry answers that has this image under every name.
    pub(crate) fn answer(&self, request: &Request) -> Reply {
        if request.target.contains("/manifests/") {
            return Reply::Whole(200, OCI_MANIFEST, self.manifest.clone());
        }
        let wanted = request.target.rsplit('/').next().unwrap_or_default();
        match self.blobs.iter().chain([&self.config]).find(|blob| Digest::of(blob).to_string() == wanted) {
            Some(blob) => Reply::Whole(200, "application/octet-stream", blob.clone()),
            None => Reply::json(if request.target == "/v2/" { 200 } else { 404 }, "{}"),
        }
    }

    /// The same for `load`.
    pub(crate) fn archive(&self, name: &str) -> Vec<u8> {
        let paths: Vec<String> = (0..self.blobs.len()).map(|number| format!("{number}.tar")).collect();
        let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": paths}]).to_string();
        let mut files: Vec<(&str, &[u8])> =
            paths.iter().map(String::as_str).zip(self.blobs.iter().map(Vec::as_slice)).collect();
        files.extend([("config.json", self.config.as_slice()), ("manifest.json", manifest.as_bytes())]);
        tar_of(&files)
    }
}

pub(crate) fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len()})
}

fn media_type(dress: Dress) -> &'static str {
    match dress {
        Dress::Plain => OCI_LAYER,
        Dress::Gzip => OCI_LAYER_GZIP,
        Dress::Zstd | Dress::ZstdChunked => OCI_LAYER_ZSTD,
    }
}

fn dressed(tar: &[u8], dress: Dress) -> Vec<u8> {
    let zstd = |bytes: &[u8]| filter("zstd", &["-q", "-1", "-c"], bytes);
    match dress {
        Dress::Plain => tar.to_vec(),
        Dress::Gzip => filter("gzip", &["-1"], tar),
        Dress::Zstd => zstd(tar),
        Dress::ZstdChunked => {
            let (one, two) = tar.split_at(tar.len() / 2);
            let contents = b"{\"version\":1,\"entries\":[]}";
            let skipped =
                [&0x184d_2a50_u32.to_le_bytes()[..], &(contents.len() as u32).to_le_bytes(), contents].concat();
            [zstd(one), zstd(two), skipped].concat()
        }
    }
}

/// What a program makes of its standard input.
pub(crate) fn filter(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("input"), input).unwrap();
    let stdin = std::fs::File::open(folder.path().join("input")).unwrap();
    let output = Command::new(program).args(arguments).stdin(stdin).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A tar of files, in this order.
pub(crate) fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let mut arguments =
        vec!["--numeric-owner", "--mtime=@1700000000", "-C", folder.path().to_str().unwrap(), "-cf", "-"];
    arguments.extend(files.iter().map(|(name, _)| *name));
    filter("tar", &arguments, b"")
}

/// Bytes that do not compress, the same each time.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}
