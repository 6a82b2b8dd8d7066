//! The image policy, kept at pull, build and run.
//!
//! What is judged is how an image came, with the signatures that were found then, by the policy of now: an image that another policy
//! admitted may come to be refused, and a name that it got here changes nothing.

use std::path::Path;

use images::{Image, ImageId, Source};
use oci::{Digest, Reference};
use trust::{Admitted, Origin, Policy, Refused, Signed, Transport};

use crate::containers::ContainerRecord;
use crate::engine::Inner;
use crate::model::{EngineError, ErrorKind, PolicyView, chain};

/// Reads the policy, if there is one. A policy that cannot be read admits nothing, so the engine does not start with it.
pub(crate) fn load(path: Option<&Path>) -> Result<Option<Policy>, EngineError> {
    path.map(|path| Policy::load(path).map_err(|error| EngineError::invalid(chain(&error)))).transpose()
}

/// Judges one way of coming.
pub(crate) fn judge(policy: &Policy, source: &Source, signatures: &[images::Signature]) -> Result<Admitted, Refused> {
    let (transport, reference, digests) = match source {
        Source::Registry { reference, digest, manifest, .. } => {
            (Transport::Registry, Reference::parse(reference).ok(), vec![*digest, *manifest])
        }
        Source::Archive => (Transport::Archive, None, Vec::new()),
        Source::Import => (Transport::Import, None, Vec::new()),
        Source::Build => (Transport::Build, None, Vec::new()),
    };
    let origin = Origin { transport, reference: reference.as_ref(), digests: &digests };
    let signed = signatures
        .iter()
        .map(|signature| Signed { payload: signature.payload.as_bytes(), signature: &signature.signature });
    policy.judge(&origin, &signed.collect::<Vec<_>>())
}

/// Judges an image: one way of coming that is admitted is enough. What came before that was noted counts as loaded from an archive.
fn judge_image(policy: &Policy, origins: &[images::Origin]) -> Result<Admitted, Refused> {
    let mut refused = None;
    for origin in origins {
        match judge(policy, &origin.source, &origin.signatures) {
            Ok(admitted) => return Ok(admitted),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    match refused {
        Some(refused) => Err(refused),
        None => judge(policy, &Source::Archive, &[]),
    }
}

impl Inner {
    /// Refuses an image that the policy does not admit; `name` is what the user called it.
    pub(crate) fn check_policy(&self, image: &Image, name: &str) -> Result<(), EngineError> {
        let Some(policy) = &self.policy else { return Ok(()) };
        judge_image(policy, image.origins())
            .map(drop)
            .map_err(|refused| not_admitted(name, image.id.digest(), &refused))
    }

    /// Whether an image needs nothing more to be admitted.
    pub(crate) fn is_admitted(&self, image: &Image) -> bool {
        self.policy.as_ref().is_none_or(|policy| judge_image(policy, image.origins()).is_ok())
    }

    /// Refuses to start a container whose image the policy of now does not admit.
    pub(crate) fn check_policy_of_container(&self, record: &ContainerRecord) -> Result<(), EngineError> {
        let Some(policy) = &self.policy else { return Ok(()) };
        let id = ImageId::new(record.image_id);
        match self.images.catalogue().get(&id) {
            Some(image) => self.check_policy(image, &record.spec.image),
            // The base of a build was looked at when the build began.
            None if crate::builds::is_of_build(&id, &record.layers) => Ok(()),
            None => judge_image(policy, &[])
                .map(drop)
                .map_err(|refused| not_admitted(&record.spec.image, &record.image_id, &refused)),
        }
    }

    /// What the policy says about an image; nothing without a policy.
    pub(crate) fn policy_view(&self, image: &Image) -> Option<PolicyView> {
        let verdict = judge_image(self.policy.as_ref()?, image.origins());
        Some(match verdict {
            Ok(Admitted { rule, signed_by }) => PolicyView { allowed: true, rule, signed_by, reason: String::new() },
            Err(Refused { rule, reason }) => PolicyView { allowed: false, rule, signed_by: None, reason },
        })
    }
}

/// The refusal names image, digest and rule.
pub(crate) fn not_admitted(name: &str, digest: &Digest, refused: &Refused) -> EngineError {
    EngineError::new(
        ErrorKind::Forbidden,
        format!("image {name} ({digest}) is not admitted by the image policy: {refused}"),
    )
}
