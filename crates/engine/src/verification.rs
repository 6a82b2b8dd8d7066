//! Looking at every image and layer again, and fetching what is wrong from where it came.
//!
//! ```text
//! images::verify (a thread) ─▶ whole, or made again from what is whole ─▶ the client
//!                          └─▶ damaged ─▶ the blob of a layer, from each repository that is known to have had it
//!                                         a whole image, by a digest under which a registry had it
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use images::{ImageId, Repair, Verdict, Verified, VerifySubject};
use oci::DiffId;
use registry::Credentials;
use tokio::sync::mpsc;

use crate::engine::Engine;
use crate::model::{CheckVerdict, CheckedKind, ImageCheck};

/// Results of a verification as they come; ends with it.
pub type CheckStream = mpsc::Receiver<ImageCheck>;

/// Results that may wait for the client.
const CHECK_QUEUE: usize = 16;

/// Whether [`Engine::verify_images`] repairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageRepair {
    /// It only looks.
    No,
    /// It makes again what can be made, and fetches what cannot.
    Yes(Logins),
}

/// Who asks at which registry; nobody in particular where it is not said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Logins(BTreeMap<String, Credentials>);

impl Logins {
    /// Adds what is known for a registry, `host[:port]`.
    pub fn insert(&mut self, domain: String, credentials: Credentials) {
        self.0.insert(domain, credentials);
    }

    /// Who asks at this one.
    pub(crate) fn of(&self, domain: &str) -> Credentials {
        self.0.get(domain).cloned().unwrap_or_default()
    }
}

impl Engine {
    /// Hashes every image's configuration and every layer against their names, and compares indexes with their layers. Repairs make
    /// again what can be made from what is whole, and fetch the rest from where it came; what nobody has any more is reported.
    pub fn verify_images(&self, repair: ImageRepair) -> CheckStream {
        let (sink, stream) = mpsc::channel(CHECK_QUEUE);
        let (found, verified) = mpsc::channel(CHECK_QUEUE);
        let images = Arc::clone(&self.inner.images);
        let wanted = if repair == ImageRepair::No { Repair::No } else { Repair::Yes };
        tokio::task::spawn_blocking(move || {
            // A client that has gone wants no more; what is being looked at is looked at to its end.
            images.verify(wanted, &mut |verified| found.blocking_send(verified).is_ok());
        });
        let engine = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = engine.pass_on(verified, repair, &sink) => {}
                () = sink.closed() => {}
            }
        });
        stream
    }

    async fn pass_on(
        &self,
        mut verified: mpsc::Receiver<Verified>,
        repair: ImageRepair,
        sink: &mpsc::Sender<ImageCheck>,
    ) {
        // An image may be damaged because a layer of it is, so what cannot be healed at once may be later.
        while let Some(mut found) = verified.recv().await {
            if let (Verdict::Damaged(reason), ImageRepair::Yes(logins)) = (&found.verdict, &repair) {
                found.verdict = self.heal(&found.subject, reason, logins).await;
            }
            if sink.send(check(found)).await.is_err() {
                return;
            }
        }
    }

    async fn heal(&self, subject: &VerifySubject, reason: &str, logins: &Logins) -> Verdict {
        let healed = match subject {
            VerifySubject::Layer(layer) => self.fetch_layer_again(layer, logins).await,
            VerifySubject::Image(image) => self.fetch_image_again(image, logins).await,
        };
        match healed {
            Ok(origin) => Verdict::Repaired(format!("{reason}; fetched again from {origin}")),
            Err(failures) if failures.is_empty() => {
                Verdict::Damaged(format!("{reason}; no registry is known to have it"))
            }
            Err(failures) => Verdict::Damaged(format!("{reason}; {}", failures.join("; "))),
        }
    }

    /// Tries every place from which the layer may have come. Gives the one that had it, or why none did.
    async fn fetch_layer_again(&self, layer: &DiffId, logins: &Logins) -> Result<String, Vec<String>> {
        let mut failures = Vec::new();
        for origin in self.origins_of_layer(*layer).await {
            let name = origin.repository.canonical_name();
            match self.fetch_from(&origin, logins.of(origin.repository.domain())).await {
                Ok(()) => return Ok(name),
                Err(error) => failures.push(format!("{name}: {error}")),
            }
        }
        Err(failures)
    }

    async fn fetch_image_again(&self, image: &ImageId, logins: &Logins) -> Result<String, Vec<String>> {
        let mut failures = Vec::new();
        for reference in self.inner.images.catalogue().digests_of(image) {
            match self.pull_exactly(&reference, *image, logins.of(reference.domain())).await {
                Ok(()) => return Ok(reference.familiar()),
                Err(error) => failures.push(format!("{}: {error}", reference.familiar())),
            }
        }
        Err(failures)
    }
}

fn check(verified: Verified) -> ImageCheck {
    let (kind, digest) = match verified.subject {
        VerifySubject::Image(id) => (CheckedKind::Image, *id.digest()),
        VerifySubject::Layer(layer) => (CheckedKind::Layer, *layer.digest()),
    };
    let verdict = match verified.verdict {
        Verdict::Whole => CheckVerdict::Whole,
        Verdict::Repaired(reason) => CheckVerdict::Repaired(reason),
        Verdict::Damaged(reason) => CheckVerdict::Damaged(reason),
    };
    ImageCheck { kind, digest, images: verified.images, verdict }
}
