//! What has to go so that the next append fits. Pure: no files, no clock.

use crate::{Offset, WhenFull};

/// A segment, as far as retention cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) bytes: u64,
    /// One past its last record.
    pub(crate) next: Offset,
    /// Smaller than that of every younger segment, of any stream.
    pub(crate) sequence: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// The append fits as things are.
    Enough,
    /// This many of the oldest segments are confirmed and make room.
    Reclaim(usize),
    /// This many of the oldest segments must be given up, confirmed or not.
    Drop(usize),
    /// The append is to be refused.
    Full,
}

/// Decides for a stream that holds `held` (oldest first) and is to take `needed` bytes more.
pub(crate) fn make_room(
    held: &[Held],
    needed: u64,
    bytes_max: u64,
    confirmed: Offset,
    when_full: WhenFull,
) -> Room {
    let total: u64 = held.iter().map(|segment| segment.bytes).sum();
    let Some(excess) = (total + needed).checked_sub(bytes_max).filter(|e| *e > 0) else {
        return Room::Enough;
    };
    if needed > bytes_max {
        return Room::Full;
    }
    let mut freed = 0;
    let going = held.iter().take_while(|segment| {
        let short = freed < excess;
        freed += segment.bytes;
        short
    });
    let count = going.count();
    let confirmed = held[..count]
        .iter()
        .all(|segment| segment.next <= confirmed);
    match when_full {
        _ if confirmed => Room::Reclaim(count),
        WhenFull::Block => Room::Full,
        WhenFull::DropOldest => Room::Drop(count),
    }
}

/// A stream, as the quota over all streams and a full disk see it.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) bytes: u64,
    pub(crate) bytes_max: u64,
    pub(crate) reserve_bytes: u64,
    pub(crate) when_full: WhenFull,
    pub(crate) confirmed: Offset,
    /// The segments that could go, oldest first: all but the newest.
    pub(crate) older: Vec<Held>,
}

impl Claim {
    /// What the stream takes of the quota: what it holds, and its reserve in any case.
    pub(crate) fn weight(&self) -> u64 {
        self.bytes.max(self.reserve_bytes)
    }

    fn confirmed(&self) -> bool {
        let oldest = self.older.first();
        oldest.is_some_and(|segment| segment.next <= self.confirmed)
    }

    /// A stream gives nothing up for others while it holds no more than its reserve.
    fn may_give_up(&self) -> bool {
        let oldest = self.older.first();
        self.when_full == WhenFull::DropOldest
            && oldest.is_some_and(|segment| self.bytes - segment.bytes >= self.reserve_bytes)
    }

    fn has_larger_share_than(&self, other: &Self) -> bool {
        let share = |a: &Self, b: &Self| u128::from(a.bytes) * u128::from(b.bytes_max);
        share(self, other) > share(other, self)
    }

    fn remove_oldest(&mut self) -> u64 {
        let before = self.weight();
        self.bytes -= self.older.remove(0).bytes;
        before - self.weight()
    }
}

/// Which segments go so that all streams together weigh `excess` less: how many of each stream.
/// Confirmed ones first, the oldest of all streams first; then the oldest of whichever stream
/// fills most of its own limit, and may give up. `None` if that is not enough.
pub(crate) fn relieve(mut claims: Vec<Claim>, excess: u64) -> Option<Vec<usize>> {
    let mut going = vec![0; claims.len()];
    let mut left = excess;
    while left > 0 {
        let index = oldest_confirmed(&claims).or_else(|| largest_share(&claims))?;
        left = left.saturating_sub(claims[index].remove_oldest());
        going[index] += 1;
    }
    Some(going)
}

fn oldest_confirmed(claims: &[Claim]) -> Option<usize> {
    let gains = |claim: &Claim| claim.confirmed() && claim.bytes > claim.reserve_bytes;
    let candidates = (0..claims.len()).filter(|&index| gains(&claims[index]));
    candidates.min_by_key(|&index| claims[index].older[0].sequence)
}

/// The stream that is to give up its oldest segment next.
pub(crate) fn largest_share(claims: &[Claim]) -> Option<usize> {
    let candidates = (0..claims.len()).filter(|&index| claims[index].may_give_up());
    candidates.reduce(
        |best, index| match claims[index].has_larger_share_than(&claims[best]) {
            true => index,
            false => best,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> Vec<Held> {
        let held = |next| Held {
            bytes: 100,
            next: Offset(next),
            sequence: next,
        };
        vec![held(10), held(20), held(30)]
    }

    #[test]
    fn room_is_made_from_the_oldest_and_confirmed_first() {
        use WhenFull::{Block, DropOldest};
        let room =
            |needed, confirmed, when| make_room(&held(), needed, 350, Offset(confirmed), when);
        assert_eq!(room(50, 0, Block), Room::Enough);
        assert_eq!(room(51, 10, Block), Room::Reclaim(1));
        assert_eq!(room(51, 9, Block), Room::Full);
        assert_eq!(room(51, 9, DropOldest), Room::Drop(1));
        assert_eq!(room(151, 10, DropOldest), Room::Drop(2));
        assert_eq!(room(151, 20, DropOldest), Room::Reclaim(2));
        assert_eq!(room(350, 30, Block), Room::Reclaim(3));
        assert_eq!(room(351, 30, DropOldest), Room::Full);
    }

    /// A stream of three segments besides its newest one, with every sequence number shifted.
    fn claim(sequence: u64, when_full: WhenFull, confirmed: u64) -> Claim {
        let older = held().into_iter().map(|segment| Held {
            sequence: segment.sequence + sequence,
            ..segment
        });
        Claim {
            bytes: 310,
            bytes_max: 1000,
            reserve_bytes: 0,
            when_full,
            confirmed: Offset(confirmed),
            older: older.collect(),
        }
    }

    #[test]
    fn the_oldest_confirmed_of_all_streams_go_first() {
        use WhenFull::{Block, DropOldest};
        let claims = vec![
            claim(5, Block, 20),
            claim(0, DropOldest, 10),
            claim(1, Block, 0),
        ];
        assert_eq!(relieve(claims.clone(), 100), Some(vec![0, 1, 0]));
        assert_eq!(relieve(claims.clone(), 101), Some(vec![1, 1, 0]));
        assert_eq!(relieve(claims.clone(), 300), Some(vec![2, 1, 0]));
        assert_eq!(relieve(claims.clone(), 301), Some(vec![2, 2, 0]));
        assert_eq!(relieve(claims, 501), None, "what blocks is not given up");
    }

    #[test]
    fn the_fullest_gives_up_first_and_nobody_its_reserve() {
        let mut claims = vec![
            claim(0, WhenFull::DropOldest, 0),
            claim(9, WhenFull::DropOldest, 0),
        ];
        claims[1].bytes_max = 500;
        assert_eq!(relieve(claims.clone(), 100), Some(vec![0, 1]));
        assert_eq!(relieve(claims.clone(), 300), Some(vec![1, 2]));
        claims[1].reserve_bytes = 200;
        assert_eq!(relieve(claims.clone(), 300), Some(vec![2, 1]));
        assert_eq!(relieve(claims.clone(), 401), None);
        // Nothing is won by taking from a stream that would only get it back.
        claims[0].when_full = WhenFull::Block;
        claims[0].confirmed = Offset(30);
        claims[0].reserve_bytes = 400;
        claims[1].reserve_bytes = 400;
        assert_eq!(relieve(claims, 1), None);
    }
}
