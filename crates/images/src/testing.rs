//! Images without a store, for the tests of decisions.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use oci::image::ImageConfig;
use oci::{DiffId, Digest, Reference};

use crate::{Catalogue, ContainerUse, Image, ImageId, Running};

pub(crate) fn id(name: &str) -> ImageId {
    ImageId::new(Digest::of(format!("image {name}").as_bytes()))
}

pub(crate) fn layer(name: &str) -> DiffId {
    DiffId(Digest::of(format!("layer {name}").as_bytes()))
}

/// An image whose layers, each of 10 bytes, are named by single letters.
pub(crate) fn image(name: &str, parent: Option<&str>, layers: &str, created: i64) -> Image {
    let layers: Vec<DiffId> = layers.chars().map(|letter| layer(&letter.to_string())).collect();
    Image {
        layer_sizes: vec![10; layers.len()],
        parent: parent.map(id),
        created: Some(Timestamp::from_second(created).unwrap()),
        ..Image::unnamed(id(name), ImageConfig::default(), Arc::from([]), layers)
    }
}

/// A catalogue of `images` and names for them.
pub(crate) fn catalogue(images: Vec<Image>, names: &[(&str, &str)]) -> Catalogue {
    let references: BTreeMap<Reference, ImageId> =
        names.iter().map(|(name, image)| (Reference::parse(name).unwrap(), id(image))).collect();
    let with_names = images.into_iter().map(|mut image| {
        let own = references.iter().filter(|(_, id)| **id == image.id).map(|(reference, _)| reference.clone());
        (image.digests, image.tags) = own.partition(|reference| reference.digest().is_some());
        Arc::new(image)
    });
    Catalogue::new(with_names, references.clone(), BTreeMap::new())
}

pub(crate) fn container(letter: char, image: &Image, running: Running) -> ContainerUse {
    ContainerUse { container: letter.to_string().repeat(64), image: image.id, layers: image.layers.clone(), running }
}

/// A name with a digest.
pub(crate) fn canonical(repository: &str) -> String {
    format!("{repository}@{}", Digest::of(repository.as_bytes()))
}
