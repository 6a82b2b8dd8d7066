//! Whether everything is still as it was stored.

use std::collections::{BTreeMap, BTreeSet};

use oci::{DiffId, Reference};

use crate::disk::describe;
use crate::{Catalogue, ImageId, ImageStore};

/// What to do about what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Only say it.
    No,
    /// Make again what can be made from what is whole.
    Yes,
}

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifySubject {
    /// An image's configuration and record.
    Image(ImageId),
    /// A layer's tar and index.
    Layer(DiffId),
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is as it was stored.
    Whole,
    /// It was not, and is again.
    Repaired(String),
    /// It is not: why.
    Damaged(String),
}

/// One result of [`ImageStore::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What was looked at.
    pub subject: VerifySubject,
    /// The images that need it, by name where they have one.
    pub images: Vec<String>,
    /// What was found.
    pub verdict: Verdict,
}

impl ImageStore {
    /// Looks at every image and every layer: configurations and layers are hashed against their names, indexes compared with their
    /// tars. A layer that is corrupt counts as missing from then on, so that the next pull or load of an image that needs it
    /// replaces it. Ends early where `tell` says that nobody listens any more.
    pub fn verify(&self, repair: Repair, tell: &mut dyn FnMut(Verified) -> bool) {
        // What is looked at must not go meanwhile.
        let _lease = self.lease();
        let catalogue = self.catalogue();
        let damaged = catalogue.damaged().iter().map(|(id, reason)| Verified {
            subject: VerifySubject::Image(*id),
            images: vec![id.to_string()],
            verdict: Verdict::Damaged(reason.clone()),
        });
        let whole = catalogue.images().map(|image| Verified {
            subject: VerifySubject::Image(image.id),
            images: vec![name(image)],
            verdict: self.verify_image(&image.id, repair),
        });
        let layers = layers(&catalogue).into_iter().map(|(layer, images)| Verified {
            subject: VerifySubject::Layer(layer),
            images: images.into_iter().collect(),
            verdict: self.verify_layer(&layer, repair),
        });
        let _ = damaged.chain(whole).chain(layers).all(tell);
        linux::allocator::give_back();
    }

    /// What is in memory was whole when it was read, so the files can be written again from it.
    fn verify_image(&self, id: &ImageId, repair: Repair) -> Verdict {
        match self.stored_config(id) {
            Ok(()) => Verdict::Whole,
            Err(reason) if repair == Repair::Yes => match self.write_again(id) {
                Ok(()) => Verdict::Repaired(reason),
                Err(failure) => Verdict::Damaged(format!("{reason}, and {}", describe(&failure))),
            },
            Err(reason) => Verdict::Damaged(reason),
        }
    }

    fn verify_layer(&self, layer: &DiffId, repair: Repair) -> Verdict {
        match self.snapshotter.verify(layer) {
            Ok(()) => Verdict::Whole,
            Err(error @ snapshots::Error::DamagedIndex { .. }) if repair == Repair::Yes => {
                match self.snapshotter.rebuild_index(layer) {
                    Ok(()) => Verdict::Repaired(error.to_string()),
                    Err(failure) => Verdict::Damaged(format!("{error}, and {}", describe(&failure))),
                }
            }
            Err(error) => Verdict::Damaged(describe(&error)),
        }
    }
}

/// Every layer once, with the images that need it.
fn layers(catalogue: &Catalogue) -> BTreeMap<DiffId, BTreeSet<String>> {
    let mut layers: BTreeMap<DiffId, BTreeSet<String>> = BTreeMap::new();
    for image in catalogue.images() {
        for layer in &image.layers {
            layers.entry(*layer).or_default().insert(name(image));
        }
    }
    layers
}

fn name(image: &crate::Image) -> String {
    image.references().next().map_or_else(|| image.id.to_string(), Reference::familiar)
}
