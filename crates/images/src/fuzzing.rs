//! A door for the fuzz targets, which see nothing private otherwise.

use oci::Digest;

use crate::Change;
use crate::load::layout::{Archive, Member, normalised, plan};

/// Plans the images of an archive whose documents are the parts of `data`, separated by `\n---\n`.
///
/// The first part is the manifest (a list) or index (anything else). Each other part is there as a blob under its digest and
/// under its number. `@1` in a part stands for the digest of part 1, so that a fuzzer can write documents that name each
/// other; a part can only name later ones.
pub fn layout(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut archive: Archive<()> = Archive::new();
    archive.insert("layer.tar".to_owned(), Member::Layer(()));
    let mut parts: Vec<String> = text.split("\n---\n").take(10).map(str::to_owned).collect();
    for at in (1..parts.len()).rev() {
        let digest = Digest::of(parts[at].as_bytes());
        for part in &mut parts[..at] {
            *part = part.replace(&format!("@{at}"), &digest.to_string());
        }
        let document = || Member::Document(parts[at].clone().into_bytes());
        archive.insert(format!("blobs/sha256/{}", digest.hex()), document());
        archive.insert(at.to_string(), document());
    }
    let name = if parts[0].starts_with('[') { "manifest.json" } else { "index.json" };
    archive.insert(name.to_owned(), Member::Document(parts.swap_remove(0).into_bytes()));
    if let Ok(images) = plan(&archive, None) {
        let names = images.iter().flat_map(|image| &image.layers).map(|layer| layer.member.as_str());
        assert!(names.clone().all(|name| normalised(name).as_deref() == Some(name)), "a layer outside of the archive");
    }
}

/// Parses and applies `data` as Dockerfile instructions.
pub fn changes(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(changes) = Change::parse_all(text) {
        // Whatever is wrong with them is an error and no panic.
        let _ = Change::apply_all(&changes, &mut oci::image::ContainerConfig::default());
    }
}
