//! Memory that large work leaves behind: the allocator keeps it for a next time that may be days away.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::engine::{Engine, blocking};

/// Work that has been quiet for so long is done.
const QUIET: Duration = Duration::from_secs(1);
/// A container with more ports than this is worth tidying up after.
const MANY_PORTS: usize = 1000;

/// How often it was asked for since memory was given back.
#[derive(Debug, Default)]
pub(crate) struct Tidying(AtomicU64);

impl Engine {
    /// Gives back what so many ports of a container took, once they are dealt with, if they are many.
    pub fn tidy_after_ports(&self, count: usize) {
        if count > MANY_PORTS {
            self.tidy_soon();
        }
    }

    /// Gives free memory back to the kernel once nobody has asked for it for a moment. For who deals with a large document.
    pub fn tidy_soon(&self) {
        if self.inner.tidying.0.fetch_add(1, Ordering::Relaxed) > 0 {
            return;
        }
        let engine = self.clone();
        tokio::spawn(async move {
            let asked = &engine.inner.tidying.0;
            let mut seen = asked.load(Ordering::Relaxed);
            loop {
                tokio::time::sleep(QUIET).await;
                match asked.compare_exchange(seen, 0, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => break,
                    Err(more) => seen = more,
                }
            }
            let _ = blocking(|| {
                linux::allocator::give_back();
                Ok(())
            })
            .await;
        });
    }
}
