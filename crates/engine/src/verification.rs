//! Looking at every image and layer again.

use images::{Repair, Verdict, Verified, VerifySubject};
use tokio::sync::mpsc;

use crate::engine::Engine;
use crate::model::{CheckVerdict, CheckedKind, ImageCheck};

/// Results of a verification as they come; ends with it.
pub type CheckStream = mpsc::Receiver<ImageCheck>;

/// Results that may wait for the client.
const CHECK_QUEUE: usize = 16;

impl Engine {
    /// Hashes every image's configuration and every layer against their names, and compares indexes with their layers; with
    /// [`Repair::Yes`] makes again what can be made from what is whole. What is corrupt is fetched again by the next pull or load.
    pub fn verify_images(&self, repair: ImageRepair) -> CheckStream {
        let (sink, stream) = mpsc::channel(CHECK_QUEUE);
        let inner = std::sync::Arc::clone(&self.inner);
        let repair = match repair {
            ImageRepair::No => Repair::No,
            ImageRepair::Yes => Repair::Yes,
        };
        tokio::task::spawn_blocking(move || {
            // A client that has gone wants no more; what is being looked at is looked at to its end.
            inner.images.verify(repair, &mut |verified| sink.blocking_send(check(verified)).is_ok());
        });
        stream
    }
}

/// Whether [`Engine::verify_images`] repairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageRepair {
    /// It only looks.
    No,
    /// It makes indexes again.
    Yes,
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
