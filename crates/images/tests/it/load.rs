//! What an archive must look like to become images.

use std::io::Cursor;
use std::sync::Mutex;

use archive::compression::Compression;
use images::{AbsentLayers, LoadEvent, LoadRequest};
use oci::image::media_type;
use oci::{DiffId, Digest};
use serde_json::json;

use crate::fixtures::{Picture, Site, archive_of, compressed, describe, layer};

fn two_pictures() -> [Picture; 2] {
    let (base, top) = (layer("base", 300_000), layer("top", 10));
    [Picture::new(&[base.clone(), top], &["web:1", "example.org/web:latest"]), Picture::new(&[base], &[])]
}

/// Loads `archive` of [`two_pictures`] into a fresh store and looks at everything.
fn check(what: &str, archive: &[u8]) {
    let site = Site::new();
    let pictures = two_pictures();
    let (loaded, lines) = site.load(archive).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let untagged = format!("Loaded image ID: {}", pictures[1].id());
    assert_eq!(lines, ["Loaded image: web:1", "Loaded image: example.org/web:latest", &untagged], "{what}");
    let ids: Vec<String> = loaded.iter().map(|loaded| loaded.image.to_string()).collect();
    assert_eq!(ids, [pictures[0].id(), pictures[1].id()], "{what}");

    let image = site.store.resolve("web:1").unwrap();
    assert_eq!(image.id.to_string(), pictures[0].id(), "{what}");
    assert_eq!(*image.config_bytes, *pictures[0].config, "{what}: the configuration's bytes");
    for (layer, tar) in image.layers.iter().zip(&pictures[0].layers) {
        assert!(site.tar_of(layer) == *tar, "{what}: the layer's bytes");
    }
    let sizes: Vec<u64> = pictures[0].layers.iter().map(|layer| layer.len() as u64).collect();
    assert_eq!(image.layer_sizes, sizes, "{what}");
    assert_eq!(site.layers().len(), 2, "{what}: the shared layer is there once");
}

#[test]
fn every_layout_in_every_compression() {
    use Compression::{Bzip2, Gzip, None, Xz, Zstd};
    let pictures = two_pictures();
    let old = Picture::old_archive(&pictures);
    for outer in [None, Gzip, Zstd, Xz, Bzip2] {
        check(&format!("old, {outer:?}"), &compressed(&old, outer));
    }
    for inner in [None, Gzip, Zstd, Xz, Bzip2] {
        check(&format!("new, {inner:?} layers"), &Picture::new_archive(&pictures, inner));
    }
    for inner in [None, Gzip, Zstd] {
        check(&format!("OCI, {inner:?} layers"), &Picture::oci_archive(&pictures, inner));
    }
    check("OCI in gzip", &compressed(&Picture::oci_archive(&pictures, Zstd), Gzip));
}

#[test]
fn old_archives_link_equal_layers() {
    let tar = layer("linked", 100);
    let picture = Picture::new(&[tar.clone(), tar.clone()], &["linked:1"]);
    let files = [
        ("one/layer.tar".to_owned(), tar),
        ("c.json".to_owned(), picture.config.clone()),
        (
            "manifest.json".to_owned(),
            json!([{"Config": "c.json", "RepoTags": ["linked:1"], "Layers": ["one/layer.tar", "two/layer.tar"]}])
                .to_string()
                .into_bytes(),
        ),
    ];
    let mut archive = archive_of(&files);
    archive.truncate(archive.len() - 1024);
    archive.extend(symlink("two/layer.tar", "../one/layer.tar"));
    archive.extend([0; 1024]);
    let site = Site::new();
    site.load(&archive).unwrap();
    assert_eq!(site.store.resolve("linked:1").unwrap().layers.len(), 2);
}

fn symlink(name: &str, target: &str) -> Vec<u8> {
    use archive::tar::{EntryKind, Header, Metadata, Writer};
    let kind = EntryKind::Symlink { target: target.as_bytes().to_vec() };
    let mut writer = Writer::new(Vec::new());
    writer.start(&Header { path: name.as_bytes(), metadata: &Metadata::default(), kind: &kind }).unwrap();
    let mut bytes = writer.finish().unwrap();
    bytes.truncate(512);
    bytes
}

#[test]
fn a_nested_index_with_a_name() {
    let mine = Picture::new(&[layer("nested", 1000)], &[]);
    let mut files = Vec::new();
    let mut manifest = mine.add_oci(&mut files, Compression::Zstd);
    let host = oci::image::Platform::host();
    manifest["platform"] = json!({"os": "linux", "architecture": host.architecture});
    let attestation = json!({"mediaType": media_type::OCI_MANIFEST, "digest": Digest::of(b"x"), "size": 1,
        "platform": {"os": "unknown", "architecture": "unknown"}});
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [manifest, attestation]});
    let index = index.to_string().into_bytes();
    let digest = Digest::of(&index);
    let top = json!({"schemaVersion": 2, "manifests": [{"mediaType": media_type::OCI_INDEX, "digest": digest,
        "size": index.len(), "annotations": {"org.opencontainers.image.ref.name": "nested:v1"}}]});
    files.push((crate::fixtures::blob_path(&digest), index));
    files.push(("index.json".to_owned(), top.to_string().into_bytes()));
    let site = Site::new();
    let (_, lines) = site.load(&archive_of(&files)).unwrap();
    assert_eq!(lines, ["Loaded image: nested:v1"]);
}

#[test]
fn a_platform_can_be_asked_for() {
    let site = Site::new();
    let archive = Picture::old_archive(&two_pictures());
    let request =
        LoadRequest { platform: Some(images::parse_platform("linux/s390x").unwrap()), ..LoadRequest::default() };
    let error = site.store.load(Box::new(Cursor::new(archive)), &request, &|_| {}).unwrap_err();
    assert!(error.to_string().starts_with("no image for linux/s390x in the archive"), "{error}");
}

#[test]
fn a_name_moves_to_the_newer_image() {
    let site = Site::new();
    let old = Picture::new(&[layer("old", 10)], &["app:1"]);
    let new = Picture::new(&[layer("new", 10)], &["app:1"]);
    site.load(&Picture::old_archive(std::slice::from_ref(&old))).unwrap();
    let (_, lines) = site.load(&Picture::old_archive(std::slice::from_ref(&new))).unwrap();
    let renamed = format!("The image app:1 already exists, renaming the old one with ID {} to empty string", old.id());
    assert_eq!(lines, [&renamed, "Loaded image: app:1"]);
    assert_eq!(site.store.resolve("app:1").unwrap().id.to_string(), new.id());
    assert!(site.store.resolve(&old.id()).unwrap().tags.is_empty());
    // The same again is no change.
    let (_, lines) = site.load(&Picture::old_archive(std::slice::from_ref(&new))).unwrap();
    assert_eq!(lines, ["Loaded image: app:1"]);
}

#[test]
fn layers_that_no_image_names_are_dropped() {
    let picture = Picture::new(&[layer("named", 10)], &["app:1"]);
    let mut files = crate::fixtures::files_of(&Picture::old_archive(std::slice::from_ref(&picture)));
    files.insert(0, ("stray/layer.tar".to_owned(), layer("stray", 5000)));
    files.insert(
        1,
        ("damaged/layer.tar".to_owned(), compressed(&layer("damaged", 5000), Compression::Gzip)[..900].to_vec()),
    );
    let site = Site::new();
    site.set_no_users();
    site.load(&archive_of(&files)).unwrap();
    assert_eq!(site.layers(), [DiffId(Digest::of(&picture.layers[0]))]);
}

#[test]
fn progress_ends_with_the_whole() {
    let picture = Picture::new(&[layer("big", 3_000_000), layer("small", 10)], &["app:1"]);
    let archive = Picture::new_archive(std::slice::from_ref(&picture), Compression::None);
    let events = Mutex::new(Vec::new());
    let site = Site::new();
    let on_event = |event| {
        if let LoadEvent::Layer { id, current_bytes, total_bytes } = event {
            events.lock().unwrap().push((id, current_bytes, total_bytes));
        }
    };
    site.store.load(Box::new(Cursor::new(archive)), &LoadRequest::default(), &on_event).unwrap();
    let events = events.into_inner().unwrap();
    for layer in &picture.layers {
        let (id, size) = (Digest::of(layer).short(), layer.len() as u64);
        let of_layer: Vec<_> = events.iter().filter(|event| event.0 == id).collect();
        assert_eq!(of_layer.last().map(|event| (event.1, event.2)), Some((size, size)));
        assert!(of_layer.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{of_layer:?}");
    }
}

#[test]
fn the_same_layers_can_be_loaded_at_the_same_time() {
    let site = Site::new();
    site.set_no_users();
    let shared: Vec<Vec<u8>> = (0..4).map(|number| layer(&number.to_string(), 400_000)).collect();
    let archives: Vec<Vec<u8>> = ["one:1", "two:1", "three:1", "four:1"]
        .map(|tag| {
            let mut layers = shared.clone();
            layers.push(layer(tag, 1000));
            Picture::oci_archive(&[Picture::new(&layers, &[tag])], Compression::Gzip)
        })
        .into();
    std::thread::scope(|scope| {
        for archive in &archives {
            scope.spawn(|| site.load(archive).unwrap());
        }
    });
    assert_eq!(site.store.catalogue().images().count(), 4);
    assert_eq!(site.layers().len(), 8);
    let usage = site.store.usage();
    let sizes = shared.iter().map(|layer| layer.len() as u64).sum::<u64>();
    assert!(usage.images.values().all(|image| image.shared_bytes == sizes));
}

#[test]
fn layers_that_are_left_out_must_be_here_and_be_asked_for() {
    let site = Site::new();
    site.set_no_users();
    let (base, top) = (layer("base", 1000), layer("top", 10));
    site.load(&Picture::old_archive(&[Picture::new(std::slice::from_ref(&base), &["base:1"])])).unwrap();
    site.load(&Picture::old_archive(&[Picture::new(&[base, top], &["app:1"])])).unwrap();
    let app = site.store.resolve("app:1").unwrap();
    let mut archive = Vec::new();
    let without = app.layers.iter().copied().collect();
    site.store.save_without(&["app:1".to_owned()], &without, &mut archive).unwrap();
    assert!(archive.len() < 20_000);
    let load = |absent| {
        let request = LoadRequest { absent, ..LoadRequest::default() };
        let input = Box::new(Cursor::new(archive.clone()));
        site.store.load(input, &request, &|_| {}).map_err(|error| describe(&error))
    };
    assert!(load(AbsentLayers::Missing).unwrap_err().contains("missing from the archive"));
    site.store
        .remove("app:1", &images::RemoveRequest { force: images::Force::No, parents: images::ParentImages::Remove })
        .unwrap();
    // One of the two went with its image.
    assert!(load(AbsentLayers::Taken).unwrap_err().contains("missing from the archive"));
    assert!(site.store.resolve("app:1").is_err());
    site.load(&Picture::old_archive(&[Picture::new(&[layer("base", 1000), layer("top", 10)], &["other:1"])])).unwrap();
    assert_eq!(load(AbsentLayers::Taken).unwrap().len(), 1);
    assert_eq!(site.store.resolve("app:1").unwrap().id, app.id);
}
