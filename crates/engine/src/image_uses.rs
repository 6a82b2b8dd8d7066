//! When each image was used last: by a container that was made, started or removed, by a build, or by a pull that found it here.
//!
//! What is known is in memory. It reaches the database behind the back of whoever uses an image, and not more often than once a
//! minute an image, so that a container's start pays for it with one lock.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use images::ImageId;
use jiff::Timestamp;
use oci::Digest;

use crate::engine::Inner;
use crate::store::Change;

/// Uses that lie closer together are one, as far as the database is concerned.
const GRAIN_S: i64 = 60;

/// The last uses of all images.
#[derive(Debug, Default)]
pub(crate) struct LastUses(Mutex<HashMap<ImageId, LastUse>>);

#[derive(Debug, Clone, Copy)]
struct LastUse {
    used_s: i64,
    written_s: i64,
}

impl LastUses {
    /// What the database knows.
    pub(crate) fn restored(rows: &[(String, i64)]) -> LastUses {
        let known = rows.iter().filter_map(|(id, used_s)| {
            let digest = Digest::parse(id).ok()?;
            Some((ImageId::new(digest), LastUse { used_s: *used_s, written_s: *used_s }))
        });
        LastUses(Mutex::new(known.collect()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ImageId, LastUse>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them.
    pub(crate) fn all(&self) -> HashMap<ImageId, Timestamp> {
        let time = |use_: &LastUse| Timestamp::from_second(use_.used_s).unwrap_or_default();
        self.lock().iter().map(|(id, last)| (*id, time(last))).collect()
    }

    /// Notes a use; says whether the database must hear of it.
    fn note(&self, image: ImageId, now_s: i64) -> bool {
        let mut all = self.lock();
        let last = all.entry(image).or_insert(LastUse { used_s: now_s, written_s: i64::MIN });
        last.used_s = last.used_s.max(now_s);
        let due = now_s.saturating_sub(last.written_s) >= GRAIN_S;
        if due {
            last.written_s = now_s;
        }
        due
    }

    fn forget(&self, image: &ImageId) {
        self.lock().remove(image);
    }
}

impl Inner {
    /// Notes that an image is used now.
    pub(crate) fn image_used(&self, image: &Digest) {
        let now_s = Timestamp::now().as_second();
        if self.last_uses.note(ImageId::new(*image), now_s) {
            self.store.write_behind(Change::PutImageUse { image: image.to_string(), used_s: now_s });
        }
    }

    /// Forgets an image that is gone.
    pub(crate) fn image_gone(&self, image: &ImageId) {
        self.last_uses.forget(image);
        self.store.write_behind(Change::RemoveImageUse { image: image.to_string() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_written_once_a_minute_and_restored() {
        let id = |text: &str| ImageId::new(Digest::of(text.as_bytes()));
        let uses = LastUses::restored(&[(id("a").to_string(), 100), ("junk".to_owned(), 1)]);
        assert!(!uses.note(id("a"), 159), "the database knows about this minute");
        assert!(uses.note(id("a"), 160) && !uses.note(id("a"), 161));
        assert!(uses.note(id("b"), 5));
        let second = |name: &str| uses.all()[&id(name)].as_second();
        assert_eq!((second("a"), second("b"), uses.all().len()), (161, 5, 2));
        assert!(!uses.note(id("a"), 90));
        assert_eq!(uses.all()[&id("a")].as_second(), 161, "a clock that goes back takes nothing away");
        uses.forget(&id("a"));
        assert_eq!(uses.all().len(), 1);
    }
}
