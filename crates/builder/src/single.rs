//! Work that several threads want and one does.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

type Slot<V> = Arc<Mutex<Option<V>>>;

/// Results by key. Who asks for one that is being made waits for it; one that failed is made again by the next who asks.
#[derive(Debug)]
pub struct Single<K, V> {
    slots: Mutex<HashMap<K, Slot<V>>>,
}

impl<K, V> Default for Single<K, V> {
    fn default() -> Self {
        Single { slots: Mutex::default() }
    }
}

impl<K: Hash + Eq, V: Clone> Single<K, V> {
    /// The result for this key, which `make` makes where there is none.
    pub fn get<E>(&self, key: K, make: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        let slot = Arc::clone(self.slots.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default());
        let mut result = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*result {
            return Ok(made.clone());
        }
        let made = make()?;
        *result = Some(made.clone());
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn one_makes_and_all_have_it() {
        let (single, made) = (Single::<&str, u32>::default(), AtomicU32::new(0));
        let make = || Ok::<_, ()>(made.fetch_add(1, Ordering::Relaxed));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(single.get("a", make), Ok(0)));
            }
        });
        assert_eq!(single.get("b", || Err(7)), Err(7));
        assert_eq!(single.get("b", || Ok::<_, ()>(3)), Ok(3));
    }
}
