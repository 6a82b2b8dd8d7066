//! Images, through crate `images`, whose blocking calls are made in one place.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::engine::{Engine, unwritten};
use crate::model::{
    EngineError, HistoryView, ImageProgress, ImagePruneReport, ImageQuery, ImageRemoval, ImageSummary, ImageView,
    ImportRequest, PruneFilters,
};

/// Bytes on their way out: a tar. An error ends it.
pub type ByteStream = mpsc::Receiver<Result<Bytes, EngineError>>;

/// What a load or an import tells while it works; ends with the work. An error ends it.
pub type ProgressStream = mpsc::Receiver<Result<ImageProgress, EngineError>>;

impl Engine {
    /// Images, newest first.
    pub fn images(&self, query: &ImageQuery) -> Result<Vec<ImageSummary>, EngineError> {
        let _ = query;
        Err(unwritten())
    }

    /// An image by name, digest or id.
    pub fn image(&self, reference: &str) -> Result<ImageView, EngineError> {
        let _ = reference;
        Err(unwritten())
    }

    /// An image's history, newest first.
    pub fn image_history(&self, reference: &str) -> Result<Vec<HistoryView>, EngineError> {
        let _ = reference;
        Err(unwritten())
    }

    /// Gives an image another name.
    pub async fn tag_image(&self, reference: &str, repository: &str, tag: &str) -> Result<(), EngineError> {
        let _ = (reference, repository, tag);
        Err(unwritten())
    }

    /// Removes a name, and the image with its last one.
    pub async fn remove_image(
        &self,
        reference: &str,
        force: bool,
        prune_parents: bool,
    ) -> Result<Vec<ImageRemoval>, EngineError> {
        let _ = (reference, force, prune_parents);
        Err(unwritten())
    }

    /// Removes unused images.
    pub async fn prune_images(&self, filters: PruneFilters) -> Result<ImagePruneReport, EngineError> {
        let _ = filters;
        Err(unwritten())
    }

    /// Reads images from a tar that arrives on `input`.
    pub fn load_images(
        &self,
        input: mpsc::Receiver<std::io::Result<Bytes>>,
        platform: Option<String>,
    ) -> ProgressStream {
        let _ = (input, platform);
        mpsc::channel(1).1
    }

    /// Writes images as a tar. Errors about names come at once.
    pub async fn save_images(&self, references: Vec<String>) -> Result<ByteStream, EngineError> {
        let _ = references;
        Err(unwritten())
    }

    /// Makes an image of one layer from the tar that arrives on `input`.
    pub fn import_image(
        &self,
        input: mpsc::Receiver<std::io::Result<Bytes>>,
        request: ImportRequest,
    ) -> Result<ProgressStream, EngineError> {
        let _ = (input, request);
        Err(unwritten())
    }
}
