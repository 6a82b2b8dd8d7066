//! Who has sent datagrams, and for how long that is remembered; without a socket.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How long a caller without an answer is remembered: as long as the kernel remembers one whose packets it translates
/// (`nf_conntrack_udp_timeout`).
const UNANSWERED: Duration = Duration::from_secs(30);
/// The same once he has had an answer (`nf_conntrack_udp_timeout_stream`).
const ANSWERED: Duration = Duration::from_secs(120);

/// Callers, each with what was opened for him; never more than a limit.
///
/// When there is no room for another one, the one who was silent for longest goes, first among those who never had an answer: a
/// flood of callers who do not exist displaces nobody who is talked with.
#[derive(Debug)]
pub(super) struct Callers<K, T> {
    limit: usize,
    places: HashMap<K, usize>,
    all: Vec<Caller<K, T>>,
    /// Nobody is forgotten before.
    look_at: Option<Instant>,
}

#[derive(Debug)]
struct Caller<K, T> {
    key: K,
    way: T,
    last: Instant,
    is_answered: bool,
}

impl<K, T> Caller<K, T> {
    fn forgotten_at(&self) -> Instant {
        self.last + if self.is_answered { ANSWERED } else { UNANSWERED }
    }
}

impl<K: Copy + Eq + Hash, T> Callers<K, T> {
    /// Nobody yet, and at most `limit`, which is not 0.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, places: HashMap::new(), all: Vec::new(), look_at: None }
    }

    /// A caller has sent something: what was opened for him, now by `open` if he is new.
    pub(super) fn called<E>(&mut self, key: K, now: Instant, open: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        let place = match self.places.get(&key) {
            Some(place) => *place,
            None => {
                let way = open()?;
                self.make_room();
                self.places.insert(key, self.all.len());
                self.all.push(Caller { key, way, last: now, is_answered: false });
                self.look_at = Some(self.look_at.map_or(now + UNANSWERED, |look| look.min(now + UNANSWERED)));
                self.all.len() - 1
            }
        };
        self.all[place].last = now;
        Ok(&self.all[place].way)
    }

    /// The caller at this place is answered.
    pub(super) fn answered(&mut self, place: usize, now: Instant) {
        if let Some(caller) = self.all.get_mut(place) {
            (caller.last, caller.is_answered) = (now, true);
        }
    }

    /// The caller at a place, which holds until one is forgotten.
    pub(super) fn at(&self, place: usize) -> Option<(K, &T)> {
        self.all.get(place).map(|caller| (caller.key, &caller.way))
    }

    /// Everybody, in the order of their places.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.all.iter().map(|caller| &caller.way)
    }

    /// When to look for those who can be forgotten.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.look_at
    }

    /// Forgets who was silent for too long.
    pub(super) fn forget(&mut self, now: Instant) {
        if self.look_at.is_none_or(|look| now < look) {
            return;
        }
        for place in (0..self.all.len()).rev() {
            if self.all[place].forgotten_at() <= now {
                self.remove(place);
            }
        }
        self.look_at = self.all.iter().map(Caller::forgotten_at).min();
    }

    fn make_room(&mut self) {
        if self.all.len() < self.limit {
            return;
        }
        let silent = self.all.iter().enumerate().min_by_key(|(_, caller)| (caller.is_answered, caller.last));
        if let Some(place) = silent.map(|(place, _)| place) {
            self.remove(place);
        }
    }

    /// The last one takes the place of the one who goes.
    fn remove(&mut self, place: usize) {
        let gone = self.all.swap_remove(place);
        self.places.remove(&gone.key);
        if let Some(moved) = self.all.get(place) {
            self.places.insert(moved.key, place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Callers by number, each with the number of times that something was opened before.
    struct Scene {
        callers: Callers<u8, u32>,
        opened: Cell<u32>,
        now: Instant,
    }

    impl Scene {
        fn new(limit: usize) -> Self {
            Self { callers: Callers::new(limit), opened: Cell::new(0), now: Instant::now() }
        }

        fn call(&mut self, key: u8) -> u32 {
            let open = || {
                self.opened.set(self.opened.get() + 1);
                Ok::<_, Infallible>(self.opened.get())
            };
            let Ok(way) = self.callers.called(key, self.now, open);
            *way
        }

        fn answer(&mut self, key: u8) {
            let place = (0..self.callers.all.len()).find(|place| self.callers.at(*place).unwrap().0 == key).unwrap();
            self.callers.answered(place, self.now);
        }

        fn wait(&mut self, time: Duration) {
            self.now += time;
            self.callers.forget(self.now);
        }

        fn remembered(&self) -> Vec<u8> {
            let mut all: Vec<u8> = self.callers.all.iter().map(|caller| caller.key).collect();
            all.sort_unstable();
            all
        }
    }

    #[test]
    fn who_is_silent_is_forgotten_and_who_was_answered_later() {
        let mut scene = Scene::new(8);
        assert_eq!(scene.callers.deadline(), None);
        assert_eq!((scene.call(1), scene.call(2), scene.call(1)), (1, 2, 1));
        scene.answer(2);
        scene.wait(UNANSWERED - SECOND);
        assert_eq!(scene.remembered(), [1, 2]);
        assert_eq!(scene.call(1), 1);
        scene.wait(UNANSWERED - SECOND);
        assert_eq!(scene.remembered(), [1, 2], "he has called again");
        scene.wait(SECOND);
        assert_eq!(scene.remembered(), [2]);
        scene.wait(ANSWERED - 2 * UNANSWERED);
        assert_eq!(scene.remembered(), [2]);
        scene.wait(SECOND);
        assert!(scene.remembered().is_empty());
        assert_eq!(scene.callers.deadline(), None);
        assert_eq!(scene.call(2), 3);
    }

    #[test]
    fn a_flood_displaces_nobody_who_is_talked_with() {
        let mut scene = Scene::new(4);
        for friend in 0..2 {
            scene.call(friend);
            scene.answer(friend);
        }
        for stranger in 10..=255 {
            scene.now += SECOND / 1000;
            scene.call(stranger);
            assert!(scene.remembered().len() <= 4);
        }
        assert_eq!(scene.remembered(), [0, 1, 254, 255]);
        // Where all are talked with, the one who was silent for longest goes: the next one gets his answer.
        scene.answer(254);
        scene.answer(255);
        scene.now += SECOND;
        scene.call(0);
        scene.call(9);
        assert_eq!(scene.remembered(), [0, 9, 254, 255]);
    }

    #[test]
    fn what_cannot_be_opened_leaves_nothing() {
        let mut callers: Callers<u8, ()> = Callers::new(1);
        assert_eq!(callers.called(1, Instant::now(), || Err("no")), Err("no"));
        assert_eq!((callers.iter().count(), callers.deadline()), (0, None));
        callers.called(1, Instant::now(), || Ok::<_, &str>(())).unwrap();
        assert_eq!(callers.called(2, Instant::now(), || Err("no")), Err("no"));
        assert_eq!(callers.at(0), Some((1, &())), "nor does it displace anybody");
    }

    proptest! {
        /// Against a plain map: the same callers keep what was opened for them, the limit holds, and nobody is waited for in vain.
        #[test]
        fn everybody_keeps_his_own_way(steps in proptest::collection::vec((0..12_u8, 0..3_u8, 0..40_u64), 0..200)) {
            let mut scene = Scene::new(6);
            let mut ways = BTreeMap::new();
            for (key, step, seconds) in steps {
                match step {
                    0 => {
                        let before = scene.opened.get();
                        let way = scene.call(key);
                        prop_assert!(way == before + 1 || ways.get(&key) == Some(&way));
                        ways.insert(key, way);
                    }
                    1 if scene.remembered().contains(&key) => scene.answer(key),
                    _ => scene.wait(SECOND * seconds as u32),
                }
                let remembered = scene.remembered();
                prop_assert!(remembered.len() <= 6);
                for (place, caller) in scene.callers.all.iter().enumerate() {
                    prop_assert_eq!(scene.callers.places.get(&caller.key), Some(&place));
                    prop_assert_eq!(ways.get(&caller.key), Some(&caller.way));
                    prop_assert!(scene.callers.deadline().unwrap() <= caller.forgotten_at());
                }
                prop_assert_eq!(scene.callers.places.len(), remembered.len());
                prop_assert_eq!(scene.callers.deadline().is_some(), !remembered.is_empty());
            }
        }
    }
}
