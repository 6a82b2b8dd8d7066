//! Which images a list or a prune is about.

use jiff::Timestamp;

use crate::catalogue::{Catalogue, ResolveError};
use crate::path_match::path_match;
use crate::{Image, Intermediate, ListedImage};

/// A label that must be there, with this value if one is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelFilter {
    /// The label.
    pub key: String,
    /// Its value.
    pub value: Option<String>,
}

/// Filters of `docker images`. All must hold; of references, one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListFilters {
    /// `dangling`: only images without a tag, or (false) only such with a name.
    pub dangling: Option<bool>,
    /// `label`
    pub labels: Vec<LabelFilter>,
    /// `reference`: patterns of Go's `path.Match` for familiar names.
    pub references: Vec<String>,
    /// `before`: created before this image.
    pub before: Option<String>,
    /// `since`: created after this image.
    pub since: Option<String>,
    /// `until`: created before this moment.
    pub until: Option<Timestamp>,
}

/// Why a list cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// `before` or `since` names no image.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A `reference` that is no pattern.
    #[error("invalid filter 'reference={pattern}': syntax error in pattern")]
    Pattern {
        /// The pattern.
        pattern: String,
    },
}

impl ListError {
    /// What it means to a caller.
    pub fn kind(&self) -> crate::ErrorKind {
        match self {
            ListError::Resolve(error) => error.kind(),
            ListError::Pattern { .. } => crate::ErrorKind::InvalidParameter,
        }
    }
}

/// Lists images, newest first.
pub(crate) fn list(
    catalogue: &Catalogue,
    filters: &ListFilters,
    intermediate: Intermediate,
) -> Result<Vec<ListedImage>, ListError> {
    let window = Window::of(catalogue, filters)?;
    let mut listed = Vec::new();
    for image in catalogue.images() {
        if window.contains(image) && image.has_labels(&filters.labels) {
            listed.extend(listed_image(catalogue, image, filters, intermediate)?);
        }
    }
    listed.sort_by(|a, b| b.image.created.cmp(&a.image.created).then_with(|| a.image.id.cmp(&b.image.id)));
    Ok(listed)
}

/// The span of creation times that the filters leave. An image without a time is older than all others.
struct Window {
    after: Option<Timestamp>,
    before: Option<Timestamp>,
    has_since: bool,
}

impl Window {
    fn of(catalogue: &Catalogue, filters: &ListFilters) -> Result<Window, ResolveError> {
        let created = |name: &Option<String>| -> Result<Option<Timestamp>, ResolveError> {
            let image = name.as_deref().map(|name| catalogue.resolve(name)).transpose()?;
            Ok(image.map(|image| image.created.unwrap_or(Timestamp::MIN)))
        };
        let before = [created(&filters.before)?, filters.until].into_iter().flatten().min();
        Ok(Window { after: created(&filters.since)?, before, has_since: filters.since.is_some() })
    }

    fn contains(&self, image: &Image) -> bool {
        let created = image.created.unwrap_or(Timestamp::MIN);
        let late_enough = !self.has_since || self.after.is_some_and(|after| created > after);
        late_enough && self.before.is_none_or(|before| created < before)
    }
}

fn listed_image(
    catalogue: &Catalogue,
    image: &std::sync::Arc<Image>,
    filters: &ListFilters,
    intermediate: Intermediate,
) -> Result<Option<ListedImage>, ListError> {
    let mut listed = ListedImage { image: image.clone(), tags: Vec::new(), digests: Vec::new() };
    for reference in image.references() {
        if matches_any(&filters.references, reference)? {
            let names = if reference.digest().is_some() { &mut listed.digests } else { &mut listed.tags };
            names.push(reference.clone());
        }
    }
    let has_name = !listed.tags.is_empty() || !listed.digests.is_empty();
    let is_shown = if has_name {
        filters.dangling != Some(true) || listed.tags.is_empty()
    } else {
        let is_top = intermediate == Intermediate::Shown || !catalogue.has_children(&image.id);
        is_top && filters.dangling != Some(false) && filters.references.is_empty()
    };
    Ok(is_shown.then_some(listed))
}

fn matches_any(patterns: &[String], reference: &oci::Reference) -> Result<bool, ListError> {
    let mut found = patterns.is_empty();
    for pattern in patterns {
        let matches =
            |name: &str| path_match(pattern, name).map_err(|_| ListError::Pattern { pattern: pattern.clone() });
        found |= matches(&reference.familiar())? || matches(&reference.familiar_name())?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
