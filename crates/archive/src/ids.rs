//! Owners inside a user namespace, and where they lie outside.

use crate::tar::Metadata;

/// Whoever has no number inside.
const NOBODY: u32 = 65_534;

/// Consecutive numbers of a user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first of them inside.
    pub inside: u32,
    /// What that one is outside.
    pub outside: u32,
    /// How many there are.
    pub size: u32,
}

/// The users and groups of a user namespace. Without any ranges all are what they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids {
    /// The users.
    pub uids: Vec<IdRange>,
    /// The groups.
    pub gids: Vec<IdRange>,
}

impl Ids {
    /// The owner as the namespace's own processes see it.
    pub fn inside(&self, (uid, gid): (u32, u32)) -> (u32, u32) {
        let look =
            |ranges: &[IdRange], id| translate(ranges, id, |range| (range.outside, range.inside)).unwrap_or(NOBODY);
        (look(&self.uids, uid), look(&self.gids, gid))
    }

    /// The owner as the host sees it; none if the namespace has no such user or group.
    pub fn outside(&self, (uid, gid): (u32, u32)) -> Option<(u32, u32)> {
        let look = |ranges: &[IdRange], id| translate(ranges, id, |range| (range.inside, range.outside));
        look(&self.uids, uid).zip(look(&self.gids, gid))
    }

    pub(crate) fn bring_inside(&self, metadata: Metadata) -> Metadata {
        let (uid, gid) = self.inside((metadata.uid, metadata.gid));
        Metadata { uid, gid, ..metadata }
    }
}

fn translate(ranges: &[IdRange], id: u32, ends: impl Fn(&IdRange) -> (u32, u32)) -> Option<u32> {
    if ranges.is_empty() {
        return Some(id);
    }
    ranges.iter().find_map(|range| {
        let (from, to) = ends(range);
        let offset = id.checked_sub(from).filter(|offset| *offset < range.size)?;
        to.checked_add(offset)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_translated_both_ways() {
        let range = |inside, outside, size| IdRange { inside, outside, size };
        let ids = Ids { uids: vec![range(0, 1000, 1), range(1, 200_000, 10)], gids: vec![range(0, 300_000, 5)] };
        for (inside, outside) in [((0, 0), (1000, 300_000)), ((10, 4), (200_009, 300_004))] {
            assert_eq!(ids.outside(inside), Some(outside));
            assert_eq!(ids.inside(outside), inside);
        }
        assert_eq!((ids.outside((11, 0)), ids.outside((0, 5))), (None, None));
        assert_eq!(ids.inside((0, 0)), (NOBODY, NOBODY));
        assert_eq!((Ids::default().outside((7, 8)), Ids::default().inside((7, 8))), (Some((7, 8)), (7, 8)));
        let high = Ids { uids: vec![range(0, u32::MAX, 2)], gids: vec![] };
        assert_eq!(high.outside((1, 0)), None);
    }
}
