//! What has to go so that the next append fits. Pure: no files, no clock.

use crate::{Offset, WhenFull};

/// A segment, as far as retention cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) bytes: u64,
    /// One past its last record.
    pub(crate) next: Offset,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> Vec<Held> {
        let held = |next| Held {
            bytes: 100,
            next: Offset(next),
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
}
