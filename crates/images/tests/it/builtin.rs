//! The image that needs no file.

use images::HELLO;
use oci::Reference;

use crate::fixtures::{Picture, Site, files_of, layer};

#[test]
fn hello_is_there_when_asked_for() {
    let site = Site::new();
    assert_eq!(site.store.resolve("hello").unwrap_err().to_string(), "No such image: hello:latest");
    let image = site.store.ensure_builtin().unwrap();
    assert_eq!(site.store.resolve("hello").unwrap(), image);
    assert_eq!(image.tags, [Reference::parse(HELLO).unwrap()]);
    assert_eq!(image.config.config.cmd, Some(vec!["/hello".to_owned()]));
    let files = files_of(&site.tar_of(&image.layers[0]));
    assert_eq!(files[0].0, "hello");
    assert!(files[0].1.starts_with(b"\x7fELF"));
    assert!(files[0].1.len() < 1024, "{} bytes", files[0].1.len());
    assert_eq!(site.store.ensure_builtin().unwrap().id, image.id);
    assert_eq!(Site::new().store.ensure_builtin().unwrap().id, image.id, "it is the same everywhere");
}

#[test]
fn an_image_of_the_users_keeps_the_name() {
    let site = Site::new();
    let own = Picture::new(&[layer("own", 10)], &["hello:latest"]);
    site.load(&Picture::old_archive(std::slice::from_ref(&own))).unwrap();
    assert_eq!(site.store.ensure_builtin().unwrap().id.to_string(), own.id());
}
