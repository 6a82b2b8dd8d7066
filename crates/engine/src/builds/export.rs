//! What was built, for those who want it elsewhere than among the engine's images.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use builder::BuildError;
use images::{Image, ImageId, Member, NewImage};
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
}

impl Engine {
    /// Makes an image of what was built, with these names, and gives its id: that of this machine's, where there are several. Blocks.
    pub fn store_build(&self, results: &[Arc<BuildResult>], names: &[String]) -> Result<oci::Digest, EngineError> {
        let tags = super::parse_tags(names)?;
        self.name_build(results, &tags).map_err(|error| EngineError::system("cannot store the image", error))
    }

    /// The same for names that were read. Several images, or one of which something is attested, become an index: one of them has the
    /// names, and the others stay as long as it does.
    pub(super) fn name_build(
        &self,
        results: &[Arc<BuildResult>],
        tags: &[Reference],
    ) -> Result<oci::Digest, BuildError> {
        let own = |result: &Arc<BuildResult>, references: &[Reference]| NewImage {
            config: result.built.bytes.clone(),
            references: references.to_vec(),
            parent: None,
        };
        let images = &self.inner.images;
        let image = match results {
            [only] if !only.is_attested() => images.create(own(only, tags))?,
            several => {
                let (members, bundle) = self.bundle(several, tags)?;
                let first = primary(several);
                let mut others = Vec::new();
                for (_, result) in several.iter().enumerate().filter(|(at, _)| *at != first) {
                    others.push(images.create(own(result, &[]))?.id);
                }
                let manifest = members[first].manifest.clone();
                images.create_bundled(own(&several[first], tags), manifest, bundle, others)?
            }
        };
        for tag in tags {
            self.tell_image("tag", &image.id.to_string(), &tag.familiar());
        }
        Ok(*image.id.digest())
    }

    fn bundle(
        &self,
        results: &[Arc<BuildResult>],
        tags: &[Reference],
    ) -> Result<(Vec<Member>, images::Bundle), snapshots::Error> {
        let mut members = Vec::new();
        for result in results {
            let image = self.as_image(result, tags)?;
            let (platform, predicates) = (image.config.platform(), result.predicates());
            members.push(Member { manifest: image.own_manifest(), platform, predicates });
        }
        let bundle = images::bundle(&members, tags);
        Ok((members, bundle))
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

    /// Writes what was built as `docker save` would, under these names: an index in OCI's layout where there are several images, or
    /// something is attested. Blocks.
    pub fn save_build(
        &self,
        results: &[Arc<BuildResult>],
        names: &[String],
        output: &mut dyn Write,
    ) -> Result<(), EngineError> {
        let tags = super::parse_tags(names)?;
        let failed = |error| EngineError::system("cannot read what was built", error);
        let images = results.iter().map(|result| self.as_image(result, &tags).map(Arc::new));
        let images = images.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let saved = match results {
            [only] if !only.is_attested() => self.inner.images.save_unnamed(Arc::clone(&images[0]), tags, output),
            several => {
                let (_, bundle) = self.bundle(several, &tags).map_err(failed)?;
                self.inner.images.save_bundle(&images, &bundle, &tags, output)
            }
        };
        saved.map_err(|error| EngineError::system("cannot write the image", error))
    }

    fn as_image(&self, result: &BuildResult, tags: &[Reference]) -> Result<Image, snapshots::Error> {
        let layers = result.config.rootfs.diff_ids.clone();
        let sizes = layers.iter().map(|layer| self.inner.snapshotter.size(layer)).collect::<Result<Vec<_>, _>>();
        let bytes = &result.built.bytes;
        Ok(Image {
            layer_sizes: sizes?,
            tags: tags.to_vec(),
            loaded: jiff::Timestamp::now(),
            ..Image::unnamed(ImageId::of_config(bytes), result.config.clone(), bytes.clone().into(), layers)
        })
    }
}

/// Which of several images has the names: this machine's, or the first.
fn primary(results: &[Arc<BuildResult>]) -> usize {
    let host = oci::image::Platform::host();
    results.iter().position(|result| images::is_platform(&host, &result.config.platform())).unwrap_or(0)
}

impl BuildResult {
    /// The image's id.
    pub(super) fn image(&self) -> oci::Digest {
        oci::Digest::of(&self.built.bytes)
    }

    /// What it is for, as `linux/amd64`.
    pub fn platform(&self) -> String {
        images::platform_name(&self.config.platform())
    }

    /// Whether something is attested about it.
    pub fn is_attested(&self) -> bool {
        !self.attested.is_empty()
    }

    fn predicates(&self) -> Vec<images::Predicate> {
        self.attested.iter().map(|attested| attested.predicate.clone()).collect()
    }
}
