//! All images at one moment, and how a name finds one of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use oci::{Digest, Reference, ReferenceError};

use crate::{ErrorKind, Image, ImageId};

/// All images at one moment. It never changes; the store publishes a new one after each change.
#[derive(Debug, Default)]
pub struct Catalogue {
    images: BTreeMap<ImageId, Arc<Image>>,
    references: BTreeMap<Reference, ImageId>,
    children: HashMap<ImageId, usize>,
    damaged: BTreeMap<ImageId, String>,
}

/// Something on the disk that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The image or file.
    pub subject: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Why a name finds no image; the messages are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// It is no name.
    #[error(transparent)]
    Invalid(#[from] ReferenceError),
    /// It names nothing.
    #[error("No such image: {0}")]
    NotFound(String),
    /// It names an image that the disk has lost a part of.
    #[error("image {name} is damaged: {reason}; load it again, or remove it")]
    Damaged {
        /// The name.
        name: String,
        /// The image.
        image: ImageId,
        /// What is lost.
        reason: String,
    },
}

impl ResolveError {
    /// What it means to a caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ResolveError::Invalid(_) => ErrorKind::InvalidParameter,
            ResolveError::NotFound(_) => ErrorKind::NotFound,
            ResolveError::Damaged { .. } => ErrorKind::Internal,
        }
    }
}

/// What a user may write where an image is meant.
enum Name {
    Id(ImageId),
    Reference(Reference),
}

impl Catalogue {
    pub(crate) fn new(
        images: impl Iterator<Item = Arc<Image>>,
        references: BTreeMap<Reference, ImageId>,
        damaged: BTreeMap<ImageId, String>,
    ) -> Catalogue {
        let images: BTreeMap<ImageId, Arc<Image>> = images.map(|image| (image.id, image)).collect();
        let mut children = HashMap::new();
        for parent in images.values().flat_map(|image| image.needs()) {
            *children.entry(parent).or_default() += 1;
        }
        Catalogue { images, references, children, damaged }
    }

    /// Images that were found damaged, and why.
    pub(crate) fn damaged(&self) -> &BTreeMap<ImageId, String> {
        &self.damaged
    }

    /// Every whole image, in the order of their ids.
    pub fn images(&self) -> impl Iterator<Item = &Arc<Image>> {
        self.images.values()
    }

    /// The names with digests under which registries have an image, damaged or not.
    pub fn digests_of(&self, id: &ImageId) -> Vec<Reference> {
        let named = self.references.iter().filter(|(reference, image)| *image == id && reference.digest().is_some());
        named.map(|(reference, _)| reference.clone()).collect()
    }

    /// The image with exactly this id.
    pub fn get(&self, id: &ImageId) -> Option<&Arc<Image>> {
        self.images.get(id)
    }

    /// The image that a name, a digest, an id or a unique beginning of an id means, in this order.
    pub fn resolve(&self, text: &str) -> Result<&Arc<Image>, ResolveError> {
        match parse_name(text)? {
            Name::Id(id) => self.whole(id, text).unwrap_or_else(|| Err(ResolveError::NotFound(id.to_string()))),
            Name::Reference(reference) => self
                .find_reference(&reference)
                .or_else(|| self.find_prefix(text))
                .and_then(|id| self.whole(id, text))
                .unwrap_or_else(|| Err(ResolveError::NotFound(reference.with_default_tag().familiar()))),
        }
    }

    /// What this exact name means, with `latest` for a missing tag; a digest counts more than a tag beside it.
    pub fn find_reference(&self, reference: &Reference) -> Option<ImageId> {
        self.references.get(&looked_up(reference)).copied()
    }

    /// All names of one repository, with tags and with digests.
    pub(crate) fn in_repository(&self, repository: &Reference) -> impl Iterator<Item = (&Reference, &ImageId)> {
        let name = repository.canonical_name();
        self.references.iter().filter(move |(reference, _)| reference.canonical_name() == name)
    }

    /// Says whether an image was built upon this one.
    pub(crate) fn has_children(&self, id: &ImageId) -> bool {
        self.children.contains_key(id)
    }

    pub(crate) fn references(&self) -> &BTreeMap<Reference, ImageId> {
        &self.references
    }

    fn whole(&self, id: ImageId, name: &str) -> Option<Result<&Arc<Image>, ResolveError>> {
        if let Some(reason) = self.damaged.get(&id) {
            let (name, reason) = (name.to_owned(), reason.clone());
            return Some(Err(ResolveError::Damaged { name, image: id, reason }));
        }
        self.images.get(&id).map(Ok)
    }

    /// The one image whose id starts with `text`. Two are none, as for Docker.
    fn find_prefix(&self, text: &str) -> Option<ImageId> {
        let known = self.images.keys().chain(self.damaged.keys());
        let mut found = known.filter(|id| id.has_prefix(text));
        match (found.next(), found.next()) {
            (Some(id), None) => Some(*id),
            _ => None,
        }
    }
}

fn parse_name(text: &str) -> Result<Name, ReferenceError> {
    match Digest::from_hex(text).or_else(|_| Digest::parse(text)) {
        Ok(digest) => Ok(Name::Id(ImageId::new(digest))),
        Err(_) => Reference::parse(text).map(Name::Reference),
    }
}

/// The form in which names are kept: either a tag or a digest.
pub(crate) fn looked_up(reference: &Reference) -> Reference {
    match reference.digest() {
        Some(digest) => reference.with_digest(*digest),
        None => reference.clone().with_default_tag(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{canonical, catalogue, id, image};

    fn check(catalogue: &Catalogue, name: &str, expected: Result<&str, &str>) {
        let found = catalogue.resolve(name).map(|image| image.id).map_err(|error| error.to_string());
        assert_eq!(found, expected.map(id).map_err(str::to_owned), "{name}");
    }

    #[test]
    fn names_are_found_as_docker_finds_them() {
        let digest = canonical("web");
        let only_digest = digest.split_once('@').unwrap().1;
        let images = vec![image("a", None, "", 0), image("b", None, "", 0)];
        let catalogue = catalogue(images, &[("web:latest", "a"), ("web:2", "b"), (&digest, "b")]);
        let (whole, unknown) = (id("a"), id("c").hex());
        check(&catalogue, "web", Ok("a"));
        check(&catalogue, "docker.io/library/web:latest", Ok("a"));
        check(&catalogue, "web:2", Ok("b"));
        check(&catalogue, &digest, Ok("b"));
        check(&catalogue, &format!("web:latest@{only_digest}"), Ok("b"));
        check(&catalogue, &whole.to_string(), Ok("a"));
        check(&catalogue, &whole.hex(), Ok("a"));
        check(&catalogue, &whole.short(), Ok("a"));
        check(&catalogue, &format!("sha256:{}", whole.short()), Ok("a"));
        check(&catalogue, "nope", Err("No such image: nope:latest"));
        check(&catalogue, "example.org/nope:1", Err("No such image: example.org/nope:1"));
        check(&catalogue, &unknown, Err(&format!("No such image: sha256:{unknown}")));
        check(&catalogue, "ABC", Err("invalid reference format: repository name (library/ABC) must be lowercase"));
        check(&catalogue, "", Err("invalid reference format"));
    }

    #[test]
    fn an_ambiguous_beginning_finds_nothing() {
        let images: Vec<_> = (0..40).map(|number| image(&number.to_string(), None, "", 0)).collect();
        let catalogue = catalogue(images, &[]);
        let mut first: Vec<char> = catalogue.images().map(|image| image.id.hex().remove(0)).collect();
        first.sort_unstable();
        let twice = first.windows(2).find(|pair| pair[0] == pair[1]).unwrap()[0].to_string();
        check(&catalogue, &twice, Err(&format!("No such image: {twice}:latest")));
    }
}
