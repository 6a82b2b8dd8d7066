//! What is saved can be loaded, and is always the same.

use archive::compression::Compression;
use images::{ErrorKind, SaveError};
use serde_json::Value;
use snapshots::{Backend, Choice};

use crate::fixtures::{Picture, Site, files_of, layer};

fn pictures() -> [Picture; 2] {
    let base = layer("base", 50_000);
    [Picture::new(&[base.clone(), layer("top", 10)], &["web:1", "web:2"]), Picture::new(&[base], &["db:1"])]
}

fn saved(site: &Site, names: &[&str]) -> Vec<u8> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut bytes = Vec::new();
    site.store.check_saveable(&names).unwrap();
    site.store.save(&names, &mut bytes).unwrap();
    bytes
}

fn document(files: &[(String, Vec<u8>)], name: &str) -> Value {
    let (_, bytes) = files.iter().find(|(other, _)| other == name).unwrap_or_else(|| panic!("no {name}"));
    serde_json::from_slice(bytes).unwrap()
}

fn site() -> Site {
    let site = Site::new();
    site.load(&Picture::oci_archive(&pictures(), Compression::Gzip)).unwrap();
    site
}

#[test]
fn there_and_back() {
    let (from, to) = (site(), Site::new());
    let archive = saved(&from, &["web:1", "web:2", "db:1"]);
    let (_, lines) = to.load(&archive).unwrap();
    assert_eq!(lines, ["Loaded image: web:1", "Loaded image: web:2", "Loaded image: db:1"]);
    for name in ["web:1", "web:2", "db:1"] {
        let (a, b) = (from.store.resolve(name).unwrap(), to.store.resolve(name).unwrap());
        assert_eq!((a.id, &a.config_bytes, &a.layers), (b.id, &b.config_bytes, &b.layers));
    }
    assert!(archive == saved(&to, &["web:1", "web:2", "db:1"]), "the same images give the same bytes");
}

#[test]
fn unpacked_layers_are_saved_byte_for_byte_too() {
    let from = site();
    let directory = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let unpacked = Site::open_with(directory, Choice::Only(Backend::Directories));
    let archive = saved(&from, &["web", "db"]);
    unpacked.load(&archive).unwrap();
    assert!(archive == saved(&unpacked, &["web", "db"]));
}

#[test]
fn the_index_alone_says_the_same() {
    let mut files = files_of(&saved(&site(), &["web:1", "web:2", "db:1"]));
    files.retain(|(name, bytes)| !bytes.is_empty() && name != "manifest.json");
    let (_, lines) = Site::new().load(&crate::fixtures::archive_of(&files)).unwrap();
    assert_eq!(lines, ["Loaded image: web:1", "Loaded image: web:2", "Loaded image: db:1"]);
}

#[test]
fn the_layout_is_dockers() {
    let site = site();
    let files = files_of(&saved(&site, &["web"]));
    let image = site.store.resolve("web:1").unwrap();
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(&names[..6], ["oci-layout", "index.json", "manifest.json", "repositories", "blobs", "blobs/sha256"]);
    assert_eq!(names.len(), 6 + 2 + 2, "a manifest, a configuration and two layers");

    let manifest = document(&files, "manifest.json");
    assert_eq!(manifest.as_array().unwrap().len(), 1);
    assert_eq!(manifest[0]["RepoTags"], serde_json::json!(["web:1", "web:2"]));
    assert_eq!(manifest[0]["Config"], format!("blobs/sha256/{}", image.id.hex()));
    let top = image.layers[1];
    assert_eq!(manifest[0]["Layers"][1], format!("blobs/sha256/{}", top.hex()));
    let source = &manifest[0]["LayerSources"][top.to_string()];
    assert_eq!(source["mediaType"], "application/vnd.oci.image.layer.v1.tar");
    assert_eq!(source["size"], image.layer_sizes[1]);

    let index = document(&files, "index.json");
    let annotations = |at: usize| index["manifests"][at]["annotations"].clone();
    assert_eq!(annotations(0)["io.containerd.image.name"], "docker.io/library/web:1");
    assert_eq!(annotations(1)["org.opencontainers.image.ref.name"], "2");
    assert_eq!(document(&files, "repositories")["web"]["1"], top.hex());
    assert_eq!(document(&files, "oci-layout")["imageLayoutVersion"], "1.0.0");
}

#[test]
fn an_id_saves_no_name() {
    let site = site();
    let id = site.store.resolve("db:1").unwrap().id;
    let files = files_of(&saved(&site, &[&id.short()]));
    assert_eq!(document(&files, "manifest.json")[0]["RepoTags"], Value::Null);
    assert!(!files.iter().any(|(name, _)| name == "repositories"));
    let other = Site::new();
    let (_, lines) = other.load(&saved(&site, &[&id.hex()])).unwrap();
    assert_eq!(lines, [format!("Loaded image ID: {id}")]);
}

#[test]
fn what_is_not_there_is_named() {
    let site = site();
    let check = |names: &[&str], message: &str| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let error: SaveError = site.store.check_saveable(&names).unwrap_err();
        assert_eq!(error.to_string(), message);
        error.kind()
    };
    assert_eq!(check(&["web:1", "nope"], "No such image: nope"), ErrorKind::NotFound);
    assert_eq!(check(&["web:3"], "No such image: web:3"), ErrorKind::NotFound);
    assert_eq!(check(&[], "no image to save was named"), ErrorKind::InvalidParameter);
}
