//! Memory for the trees of layers that come side by side.
//!
//! A layer of some ten thousand files needs little; one of hundreds of thousands needs much, and of those one at a time is enough. The
//! others wait, and with them whatever they come from.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// A tree that is larger waits until no other is.
const SMALL_BYTES: u64 = 8 << 20;

/// Whether a large tree is being made.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    is_taken: Mutex<bool>,
    free: Condvar,
}

/// Leave for a large tree, until it is dropped.
#[derive(Debug)]
pub(crate) struct Leave(Arc<Crowd>);

impl Crowd {
    /// Gives leave to a tree of this size, if it needs one and has none; waits for it as long as another has it.
    pub(crate) fn admit(self: &Arc<Self>, tree_bytes: u64, leave: &mut Option<Leave>) {
        if tree_bytes > SMALL_BYTES && leave.is_none() {
            let is_taken = self.is_taken.lock().unwrap_or_else(PoisonError::into_inner);
            let mut is_taken =
                self.free.wait_while(is_taken, |is_taken| *is_taken).unwrap_or_else(PoisonError::into_inner);
            *is_taken = true;
            *leave = Some(Leave(Arc::clone(self)));
        }
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        // The next tree is another thread's, which has its memory from elsewhere.
        linux::allocator::give_back();
        *self.0.is_taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.free.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn of_large_trees_one_comes_at_a_time() {
        let crowd = Arc::new(Crowd::default());
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut leave = None;
                    crowd.admit(SMALL_BYTES, &mut leave);
                    assert!(leave.is_none());
                    crowd.admit(SMALL_BYTES + 1, &mut leave);
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    // It does not wait for itself.
                    crowd.admit(SMALL_BYTES * 2, &mut leave);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!((inside.into_inner(), most.into_inner()), (0, 1));
    }
}
