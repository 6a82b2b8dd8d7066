//! What was built, for those who want it elsewhere than among the engine's images.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use images::{Image, ImageId};
use oci::Reference;

use super::BuildResult;
use crate::engine::Engine;
use crate::model::EngineError;

/// The files of a build, merged and read-only.
#[derive(Debug)]
pub struct BuiltFiles {
    view: OwnedFd,
}

impl BuiltFiles {
    /// The root directory.
    pub fn root(&self) -> std::os::fd::BorrowedFd<'_> {
        self.view.as_fd()
    }

    /// Writes all of them as a tar, in which the root has no entry, as BuildKit has it.
    pub fn write_tar(&self, output: &mut dyn Write) -> std::io::Result<()> {
        archive::export::contents(self.view.as_fd(), &archive::ids::Ids::default(), output)
    }
}

impl Engine {
    /// Makes an image of what was built, with these names, and gives its id; blocks.
    pub fn store_build(&self, result: &BuildResult, names: &[String]) -> Result<oci::Digest, EngineError> {
        let tags = super::parse_tags(names)?;
        self.name_build(result, &tags).map_err(|error| EngineError::system("cannot store the image", error))
    }

    /// What this engine is called: the same as long as its root lives.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// The digest and the bytes of an image's configuration.
    pub fn image_config(&self, reference: &str) -> Result<(oci::Digest, Vec<u8>), EngineError> {
        let image = self.resolve_image(reference)?;
        Ok((*image.id.digest(), image.config_bytes.to_vec()))
    }

    /// The files of what was built; blocks.
    pub fn built_files(&self, result: &BuildResult) -> Result<BuiltFiles, EngineError> {
        let wrong = |error| EngineError::system("cannot look into what was built", error);
        let layers = &result.config.rootfs.diff_ids;
        let lower = self.inner.snapshotter.lower_dirs(layers);
        let lower = lower.map_err(|error| EngineError::system("cannot mount what was built", error))?;
        Ok(BuiltFiles { view: crate::rootfs::view(&lower).map_err(wrong)? })
    }

    /// Writes what was built as `docker save` would, under these names; blocks.
    pub fn save_build(
        &self,
        result: &BuildResult,
        names: &[String],
        output: &mut dyn Write,
    ) -> Result<(), EngineError> {
        let tags = super::parse_tags(names)?;
        let image = self.as_image(result, &tags)?;
        self.inner
            .images
            .save_unnamed(Arc::new(image), tags, output)
            .map_err(|error| EngineError::system("cannot write the image", error))
    }

    fn as_image(&self, result: &BuildResult, tags: &[Reference]) -> Result<Image, EngineError> {
        let layers = result.config.rootfs.diff_ids.clone();
        let sizes = layers.iter().map(|layer| self.inner.snapshotter.size(layer)).collect::<Result<Vec<_>, _>>();
        let bytes = &result.built.bytes;
        Ok(Image {
            layer_sizes: sizes.map_err(|error| EngineError::system("cannot read what was built", error))?,
            tags: tags.to_vec(),
            loaded: jiff::Timestamp::now(),
            ..Image::unnamed(ImageId::of_config(bytes), result.config.clone(), bytes.clone().into(), layers)
        })
    }
}
