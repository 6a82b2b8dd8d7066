//! `docker history`: how an image came to be.

use jiff::Timestamp;

use crate::catalogue::{Catalogue, ResolveError};
use crate::{ErrorKind, Image, ImageId, time};

/// One step, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The image that the step made, where it is here; Docker shows `<missing>` for none.
    pub id: Option<ImageId>,
    /// When.
    pub created: Option<Timestamp>,
    /// By which instruction.
    pub created_by: String,
    /// With which message.
    pub comment: String,
    /// How much it added.
    pub size_bytes: u64,
    /// Names of the image, familiar, with tags.
    pub tags: Vec<String>,
}

/// Why there is no history.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// There is no such image.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The configuration disagrees with itself.
    #[error("too many non-empty layers in History section")]
    TooManyLayers,
}

impl HistoryError {
    /// What it means to a caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            HistoryError::Resolve(error) => error.kind(),
            HistoryError::TooManyLayers => ErrorKind::Internal,
        }
    }
}

/// The history of the image called `name`.
pub(crate) fn history(catalogue: &Catalogue, name: &str) -> Result<Vec<HistoryEntry>, HistoryError> {
    let image = catalogue.resolve(name)?;
    let mut entries = steps_of(image)?;
    let mut current = Some(image);
    for entry in &mut entries {
        let Some(image) = current else { break };
        entry.id = Some(image.id);
        entry.tags = image.tags.iter().map(|tag| tag.familiar()).collect();
        current = image.parent.and_then(|parent| catalogue.get(&parent));
    }
    Ok(entries)
}

fn steps_of(image: &Image) -> Result<Vec<HistoryEntry>, HistoryError> {
    let mut sizes = image.layer_sizes.iter();
    let mut entries = Vec::new();
    for step in &image.config.history {
        let size_bytes = if step.empty_layer { 0 } else { *sizes.next().ok_or(HistoryError::TooManyLayers)? };
        entries.push(HistoryEntry {
            id: None,
            created: time::parse_created(step.created.as_deref()),
            created_by: step.created_by.clone(),
            comment: step.comment.clone(),
            size_bytes,
            tags: Vec::new(),
        });
    }
    entries.reverse();
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use oci::image::History;

    use super::*;
    use crate::testing::{catalogue, id, image};

    fn step(created_by: &str, empty_layer: bool) -> History {
        History { created_by: created_by.to_owned(), empty_layer, ..History::default() }
    }

    #[test]
    fn steps_have_sizes_ids_and_tags() {
        let mut top = image("top", Some("base"), "xy", 0);
        Arc::make_mut(&mut top.config).history = vec![step("ADD", false), step("ENV", true), step("RUN", false)];
        let catalogue = catalogue(vec![image("base", None, "x", 0), top], &[("app:1", "top"), ("base:1", "base")]);
        let entries = history(&catalogue, "app:1").unwrap();
        let shown: Vec<_> = entries.iter().map(|entry| (entry.created_by.as_str(), entry.size_bytes)).collect();
        assert_eq!(shown, [("RUN", 10), ("ENV", 0), ("ADD", 10)]);
        let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
        assert_eq!(ids, [Some(id("top")), Some(id("base")), None]);
        assert_eq!((entries[0].tags.clone(), entries[1].tags.clone()), (vec!["app:1".into()], vec!["base:1".into()]));
    }

    #[test]
    fn more_steps_than_layers_is_an_error() {
        let mut image = image("a", None, "x", 0);
        Arc::make_mut(&mut image.config).history = vec![step("1", false), step("2", false)];
        let error = history(&catalogue(vec![image], &[("a:1", "a")]), "a:1").unwrap_err();
        assert_eq!(error.to_string(), "too many non-empty layers in History section");
    }
}
