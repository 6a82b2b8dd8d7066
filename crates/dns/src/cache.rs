//! Answers that were given a moment ago.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::message;

/// Answers that are kept; when there are more, the stale go first and then the oldest half.
const ENTRIES: usize = 2048;
/// Larger answers are not kept.
const ANSWER_BYTES: usize = 4096;
/// Nothing is kept for longer, whatever it says of itself.
const LONGEST: Duration = Duration::from_secs(3600);

/// Answers of upstream servers, by what was asked of whom.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    entries: Mutex<HashMap<Vec<u8>, Entry>>,
}

#[derive(Debug)]
struct Entry {
    answer: Vec<u8>,
    since: Instant,
    until: Instant,
}

impl Cache {
    /// The answer to this, with its lifetime counted down, under the client's id.
    pub(crate) fn get(&self, key: &[u8], id: [u8; 2], now: Instant) -> Option<Vec<u8>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(key).filter(|entry| now < entry.until)?;
        let mut answer = entry.answer.clone();
        let age = now.saturating_duration_since(entry.since).as_secs();
        message::grow_old(&mut answer, u32::try_from(age).unwrap_or(u32::MAX));
        answer[..2].copy_from_slice(&id);
        Some(answer)
    }

    /// Keeps an answer for as long as it may be kept.
    pub(crate) fn put(&self, key: Vec<u8>, answer: &[u8], now: Instant) {
        let keeps = matches!(message::code(answer), message::NO_ERROR | message::NO_SUCH_NAME);
        let lifetime = message::lifetime(answer).filter(|seconds| *seconds > 0 && keeps);
        let Some(seconds) = lifetime.filter(|_| !message::is_truncated(answer) && answer.len() <= ANSWER_BYTES) else {
            return;
        };
        let until = now + Duration::from_secs(seconds.into()).min(LONGEST);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= ENTRIES {
            make_room(&mut entries, now);
        }
        entries.insert(key, Entry { answer: answer.to_vec(), since: now, until });
    }
}

fn make_room(entries: &mut HashMap<Vec<u8>, Entry>, now: Instant) {
    entries.retain(|_, entry| now < entry.until);
    if entries.len() >= ENTRIES {
        let mut moments: Vec<Instant> = entries.values().map(|entry| entry.since).collect();
        moments.sort_unstable();
        let middle = moments[moments.len() / 2];
        entries.retain(|_, entry| entry.since > middle);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::message::tests::{addresses, query};
    use crate::message::{A, Data, NO_SUCH_NAME, Query, SERVER_FAILURE, answer, lifetime, refusal};

    #[test]
    fn answers_are_kept_for_their_lifetime_and_no_longer() {
        let (cache, now) = (Cache::default(), Instant::now());
        let bytes = query(7, "a.example", A, false);
        let asked = Query::parse(&bytes).unwrap();
        cache.put(asked.key(), &answer(&asked, &[Data::Address(Ipv4Addr::LOCALHOST.into())], 512), now);
        let later = cache.get(&asked.key(), [1, 2], now + Duration::from_secs(100)).unwrap();
        assert_eq!((&later[..2], lifetime(&later)), (&[1, 2][..], Some(500)));
        assert_eq!(addresses(&later), [Ipv4Addr::LOCALHOST]);
        assert_eq!(cache.get(&asked.key(), [1, 2], now + Duration::from_secs(600)), None);
    }

    #[test]
    fn failures_and_what_has_no_lifetime_are_not_kept() {
        let (cache, now) = (Cache::default(), Instant::now());
        let bytes = query(7, "a.example", A, false);
        let asked = Query::parse(&bytes).unwrap();
        for code in [SERVER_FAILURE, NO_SUCH_NAME] {
            cache.put(asked.key(), &refusal(&asked, code), now);
            assert_eq!(cache.get(&asked.key(), [1, 2], now), None);
        }
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let (cache, now) = (Cache::default(), Instant::now());
        for number in 0..3 * ENTRIES {
            let bytes = query(7, &format!("n{number}.example"), A, false);
            let asked = Query::parse(&bytes).unwrap();
            let given = answer(&asked, &[Data::Address(Ipv4Addr::LOCALHOST.into())], 512);
            cache.put(asked.key(), &given, now + Duration::from_millis(number as u64));
        }
        assert!(cache.entries.lock().unwrap().len() <= ENTRIES);
    }
}
