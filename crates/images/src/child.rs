//! The configuration of an image that is one step further than another: `commit`, or an instruction of a Dockerfile.

use jiff::Timestamp;
use oci::DiffId;
use oci::image::{ContainerConfig, History, ImageConfig, Platform};

/// What a step makes of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// How containers of the result run.
    pub config: ContainerConfig,
    /// The layer that the step added, if it changed any file.
    pub layer: Option<DiffId>,
    /// When it was made.
    pub created: Timestamp,
    /// The command or instruction that made it.
    pub created_by: String,
    /// Who made it.
    pub author: String,
    /// A message.
    pub comment: String,
}

/// The configuration after `step` on top of `parent`; without a parent, of an image of this step alone for this machine.
pub fn child(parent: Option<&ImageConfig>, step: Step) -> ImageConfig {
    let platform = parent.map_or_else(Platform::host, ImageConfig::platform);
    let mut rootfs = parent.map(|parent| parent.rootfs.clone()).unwrap_or_default();
    let mut history = parent.map(|parent| parent.history.clone()).unwrap_or_default();
    let created = Some(step.created.to_string());
    history.push(History {
        created: created.clone(),
        created_by: step.created_by,
        author: step.author.clone(),
        comment: step.comment.clone(),
        empty_layer: step.layer.is_none(),
    });
    rootfs.diff_ids.extend(step.layer);
    ImageConfig {
        created,
        author: step.author,
        architecture: platform.architecture,
        variant: platform.variant,
        os: platform.os,
        os_version: platform.os_version,
        os_features: platform.os_features,
        config: step.config,
        rootfs,
        history,
        comment: step.comment,
        ..ImageConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(layer: Option<&str>, by: &str) -> Step {
        Step {
            config: ContainerConfig { user: by.to_owned(), ..ContainerConfig::default() },
            layer: layer.map(|text| DiffId(oci::Digest::of(text.as_bytes()))),
            created: Timestamp::UNIX_EPOCH,
            created_by: by.to_owned(),
            author: "me".to_owned(),
            comment: "why".to_owned(),
        }
    }

    #[test]
    fn a_step_adds_its_layer_and_its_line_of_history() {
        let first = child(None, step(Some("a"), "one"));
        let parent = ImageConfig { architecture: "arm64".into(), variant: "v8".into(), ..first };
        let second = child(Some(&parent), step(None, "two"));
        let third = child(Some(&second), step(Some("b"), "three"));
        assert_eq!(third.rootfs.diff_ids, [DiffId(oci::Digest::of(b"a")), DiffId(oci::Digest::of(b"b"))]);
        let lines: Vec<_> = third.history.iter().map(|line| (line.created_by.as_str(), line.empty_layer)).collect();
        assert_eq!(lines, [("one", false), ("two", true), ("three", false)]);
        assert_eq!((third.architecture.as_str(), third.variant.as_str()), ("arm64", "v8"));
        assert_eq!((third.config.user.as_str(), third.author.as_str(), third.comment.as_str()), ("three", "me", "why"));
        assert_eq!(third.created.as_deref(), Some("1970-01-01T00:00:00Z"));
    }
}
