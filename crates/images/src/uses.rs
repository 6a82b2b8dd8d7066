//! When images were used last, and which are pinned: what decides whether an image may go by itself.

use std::collections::HashMap;

use jiff::Timestamp;
use oci::Reference;

use crate::catalogue::looked_up;
use crate::store::StoreError;
use crate::{Image, ImageId, ImageStore, LabelFilter, ResolveError};

/// What the users of images remember about them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UseRecord {
    /// When each was used last.
    pub last_uses: HashMap<ImageId, Timestamp>,
    /// Labels that pin the images that have them.
    pub pin_labels: Vec<LabelFilter>,
}

/// Why an image does not go by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pin {
    /// It was pinned by its id.
    Image,
    /// This name of it was pinned, and pins whatever it names.
    Name(Reference),
    /// It has a label that pins.
    Label(String),
}

/// Whether something is to be pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pinning {
    /// It is.
    On,
    /// It is no longer.
    Off,
}

/// Why an image cannot be pinned or unpinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// There is no such image.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// There is nothing to undo.
    #[error("image {0} is not pinned by that name: {1}")]
    NotPinned(String, String),
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PinError {
    /// What it means to a caller.
    pub fn kind(&self) -> crate::ErrorKind {
        match self {
            PinError::Resolve(error) => error.kind(),
            PinError::NotPinned(..) => crate::ErrorKind::Conflict,
            PinError::Store(_) => crate::ErrorKind::Internal,
        }
    }
}

impl UseRecord {
    /// When the image was used last; coming here is a use.
    pub fn last_use(&self, image: &Image) -> Timestamp {
        let used = self.last_uses.get(&image.id).copied();
        used.map_or(image.loaded, |used| used.max(image.loaded))
    }

    /// Everything that pins the image.
    pub fn pins(&self, image: &Image) -> Vec<Pin> {
        let labels = self.pin_labels.iter().filter(|label| image.has_label(label));
        image.pins.iter().cloned().chain(labels.map(|label| Pin::Label(label.key.clone()))).collect()
    }

    pub(crate) fn is_pinned(&self, image: &Image) -> bool {
        !image.pins.is_empty() || self.pin_labels.iter().any(|label| image.has_label(label))
    }
}

impl std::fmt::Display for Pin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Pin::Image => formatter.write_str("id"),
            Pin::Name(name) => write!(formatter, "name {}", name.familiar()),
            Pin::Label(key) => write!(formatter, "label {key}"),
        }
    }
}

impl ImageStore {
    /// Pins what `name` names, or lets go of it: by an id the image, else that name, whichever image has it.
    pub fn pin(&self, name: &str, pinning: Pinning) -> Result<std::sync::Arc<Image>, PinError> {
        let mut state = self.lock();
        let image = self.resolve(name)?;
        let wanted = pinning == Pinning::On;
        let by_id = image.id.has_prefix(name);
        let reference = Reference::parse(name).ok().map(|reference| looked_up(&reference));
        let pin = match reference.filter(|_| !by_id) {
            None => Pin::Image,
            Some(reference) => Pin::Name(reference),
        };
        if image.pins.contains(&pin) == wanted {
            return if wanted { Ok(image) } else { Err(not_pinned(name, &image, &self.use_record())) };
        }
        match pin {
            Pin::Name(reference) => self.write_name_pin(&mut state, &reference, wanted)?,
            _ => self.write_image_pin(&mut state, &image.id, wanted)?,
        }
        Ok(self.publish(&state, &image.id))
    }
}

fn not_pinned(name: &str, image: &Image, uses: &UseRecord) -> PinError {
    let pins: Vec<String> = uses.pins(image).iter().map(Pin::to_string).collect();
    let why = if pins.is_empty() { "nothing pins it".to_owned() } else { format!("{} does", pins.join(", ")) };
    PinError::NotPinned(name.to_owned(), why)
}
