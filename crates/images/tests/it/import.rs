//! `import` from tars of all kinds.

use std::io::Cursor;

use archive::compression::Compression;
use images::{Change, ErrorKind, ImportRequest};
use oci::Reference;

use crate::fixtures::{Site, compressed, describe, layer};

#[test]
fn a_root_file_system_becomes_an_image() {
    let tar = layer("rootfs", 300_000);
    let changes = Change::parse_all("CMD [\"sh\"]\nENV A=1\nLABEL x=y").unwrap();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd, Compression::Xz, Compression::Bzip2] {
        let site = Site::new();
        let request = ImportRequest {
            reference: Some(Reference::parse("root:1").unwrap()),
            changes: changes.clone(),
            message: "Imported from -".to_owned(),
            platform: Some(images::parse_platform("linux/arm/v7").unwrap()),
        };
        let image = site.store.import(Box::new(Cursor::new(compressed(&tar, compression))), request).unwrap();
        assert!(site.tar_of(&image.layers[0]) == tar, "{compression:?}");
        assert_eq!(site.store.resolve("root:1").unwrap().id, image.id);
        assert_eq!((image.config.architecture.as_str(), image.config.variant.as_str()), ("arm", "v7"));
        assert_eq!(image.config.config.cmd, Some(vec!["sh".to_owned()]));
        assert_eq!(image.config.config.env, Some(vec!["A=1".to_owned()]));
        let history = site.store.history("root:1").unwrap();
        assert_eq!((history[0].comment.as_str(), history[0].size_bytes), ("Imported from -", tar.len() as u64));
        assert!(history[0].created.is_some());
    }
}

#[test]
fn a_name_is_not_needed() {
    let site = Site::new();
    let input = Box::new(Cursor::new(layer("x", 10)));
    let image = site.store.import(input, ImportRequest::default()).unwrap();
    assert!(image.tags.is_empty());
    assert_eq!(image.config.platform(), oci::image::Platform::host());
}

#[test]
fn what_is_no_tar_is_refused() {
    let site = Site::new();
    site.set_no_users();
    for junk in [
        &b"junk"[..],
        &[0xff; 2048],
        &layer("x", 5000)[..3000],
        &compressed(&layer("x", 5000), Compression::Gzip)[..3000],
    ] {
        let error = site.store.import(Box::new(Cursor::new(junk.to_vec())), ImportRequest::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{}", describe(&error));
        site.assert_empty();
    }
    let windows =
        ImportRequest { platform: Some(images::parse_platform("windows/amd64").unwrap()), ..ImportRequest::default() };
    let error = site.store.import(Box::new(Cursor::new(layer("x", 10))), windows).unwrap_err();
    assert_eq!(error.to_string(), "operating system is not supported: windows/amd64");
}
