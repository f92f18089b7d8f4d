//! Who goes next on a link that cannot take all at once. Pure: time is an argument.
//!
//! Strict between priorities: while something of priority 0 waits, nothing else goes. Inside a
//! priority by weight, as start-time fair queuing: each lane has a clock that its bytes, divided
//! by its weight, move on, and whose clock is furthest behind goes next. Deficit round robin
//! would forget what a lane is owed whenever it has nothing waiting, and a connection that sends
//! chunk after chunk has nothing waiting in between.

use super::bucket::{BitRate, Bucket};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

/// How urgent: 0 before all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(pub u8);

impl Priority {
    pub const FIRST: Self = Self(0);
    /// Of streams that say nothing of it.
    pub const NORMAL: Self = Self(5);
}

/// A share among those of the same priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) id: u64,
    pub(super) priority: Priority,
    pub(super) weight: NonZeroU32,
}

/// Bytes per unit of weight, in 1/1024, so that a light write moves a heavy lane's clock too.
type Clock = u64;

/// More lanes than a node has; a ticket that is issued anew is another lane.
const LANES_KEPT: usize = 64;

/// What waits, in the order it goes: by priority, by clock, by arrival.
type Place = (Priority, Clock, u64);

#[derive(Debug)]
pub(super) struct Queue<T> {
    bucket: Bucket,
    waiting: BTreeMap<Place, (u64, T)>,
    /// Where the clock of a lane stands, which may be in the past.
    lanes: BTreeMap<u64, (Priority, Clock)>,
    /// The clock of what went last.
    reached: BTreeMap<Priority, Clock>,
    arrivals: u64,
}

/// What a [`Queue`] wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<T> {
    /// This may go now, and is paid for.
    Go(T),
    /// Something waits, and the link is free then.
    At(Duration),
    Idle,
}

impl<T> Queue<T> {
    pub(super) fn new(rate: Option<BitRate>) -> Self {
        Self {
            bucket: Bucket::new(rate),
            waiting: BTreeMap::new(),
            lanes: BTreeMap::new(),
            reached: BTreeMap::new(),
            arrivals: 0,
        }
    }

    pub(super) fn rate(&self) -> Option<BitRate> {
        self.bucket.rate()
    }

    pub(super) fn set_rate(&mut self, rate: Option<BitRate>, now: Duration) {
        self.bucket.set_rate(rate, now);
    }

    /// `lane` wants to send so many bytes.
    pub(super) fn ask(&mut self, lane: Lane, bytes: u64, request: T) {
        if self.lanes.len() >= LANES_KEPT {
            self.forget();
        }
        let clock = self.lanes.get(&lane.id).map_or(0, |(_, clock)| *clock);
        let start = clock.max(self.reached(lane.priority));
        let end = start + (bytes << 10) / u64::from(lane.weight.get());
        self.lanes.insert(lane.id, (lane.priority, end));
        self.arrivals += 1;
        let place = (lane.priority, start, self.arrivals);
        self.waiting.insert(place, (bytes, request));
    }

    /// What goes next. Those that nobody waits for any more are forgotten, unpaid.
    pub(super) fn next(&mut self, now: Duration, awaited: impl Fn(&T) -> bool) -> Next<T> {
        while let Some(first) = self.waiting.first_entry() {
            if !awaited(&first.get().1) {
                first.remove();
                continue;
            }
            if self.bucket.ready_at() > now {
                return Next::At(self.bucket.ready_at());
            }
            let (priority, clock, _) = *first.key();
            let (bytes, request) = first.remove();
            self.reached.insert(priority, clock);
            self.bucket.charge(bytes, now);
            return Next::Go(request);
        }
        Next::Idle
    }

    /// `bytes` went without asking.
    pub(super) fn charge(&mut self, bytes: u64, now: Duration) {
        self.bucket.charge(bytes, now);
    }

    /// A lane whose clock is in the past is as good as a new one.
    fn forget(&mut self) {
        let reached = std::mem::take(&mut self.reached);
        self.lanes
            .retain(|_, (priority, clock)| reached.get(priority).is_some_and(|it| *clock > *it));
        self.reached = reached;
    }

    fn reached(&self, priority: Priority) -> Clock {
        self.reached.get(&priority).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = 1500;

    fn lane(id: u64, priority: u8, weight: u32) -> Lane {
        Lane {
            id,
            priority: Priority(priority),
            weight: NonZeroU32::new(weight).unwrap(),
        }
    }

    /// Lets `lanes` send chunks for ever, each asking again once it went, as a connection does.
    /// `at` is called before each step and may ask for more.
    fn saturate(
        kbit: u64,
        lanes: &[Lane],
        seconds: u64,
        mut at: impl FnMut(Duration, &mut Queue<u64>),
    ) -> Vec<(Duration, u64)> {
        let mut queue = Queue::new(BitRate::new(kbit * 1_000));
        for lane in lanes {
            queue.ask(*lane, CHUNK, lane.id);
        }
        let (mut now, mut went) = (Duration::ZERO, Vec::new());
        while now < Duration::from_secs(seconds) {
            at(now, &mut queue);
            match queue.next(now, |_| true) {
                Next::Go(id) => {
                    went.push((now, id));
                    if let Some(lane) = lanes.iter().find(|lane| lane.id == id) {
                        queue.ask(*lane, CHUNK, id);
                    }
                }
                Next::At(then) => now = then.min(now + Duration::from_millis(1)),
                Next::Idle => now += Duration::from_millis(1),
            }
        }
        went
    }

    #[test]
    fn an_alert_waits_for_one_chunk_of_bulk_at_most() {
        let (alert, mut asked) = (lane(9, 0, 1), None);
        let went = saturate(256, &[lane(1, 2, 1), lane(2, 1, 4)], 10, |now, queue| {
            if asked.is_none() && now >= Duration::from_millis(5_013) {
                asked = Some(now);
                queue.ask(alert, 252, alert.id);
            }
        });
        let asked = asked.unwrap();
        let ahead = went.iter().skip_while(|(at, _)| *at < asked);
        let ahead = ahead.take_while(|(_, id)| *id != alert.id).count();
        let (gone, _) = went.iter().find(|(_, id)| *id == alert.id).unwrap();
        assert_eq!(ahead, 0, "bulk went between the alert and the link");
        // The chunk that was on the wire already: 1,500 bytes at 32,000 a second.
        assert!(
            *gone - asked <= Duration::from_millis(47),
            "{:?}",
            *gone - asked
        );
    }

    #[test]
    fn a_lower_priority_has_what_is_left_and_no_more() {
        let went = saturate(256, &[lane(1, 1, 1), lane(2, 0, 1)], 5, |_, _| ());
        assert!(went.iter().all(|(_, id)| *id == 2));
    }

    #[test]
    fn weights_are_shares_of_the_bytes() {
        for kbit in [256, 8_000] {
            let went = saturate(kbit, &[lane(1, 1, 3), lane(2, 1, 1)], 20, |_, _| ());
            let heavy = went.iter().filter(|(_, id)| *id == 1).count();
            let light = went.len() - heavy;
            assert!(heavy.abs_diff(3 * light) <= 4, "{heavy} : {light}");
        }
    }

    /// A lane that was silent for an hour has not saved up the right to be alone for as long.
    #[test]
    fn silence_earns_nothing() {
        let mut started = false;
        let late = lane(2, 1, 1);
        let went = saturate(256, &[lane(1, 1, 1), late], 20, |_, queue| {
            if !started {
                queue.waiting.retain(|_, (_, id)| *id != late.id);
                started = true;
            } else if queue.arrivals == 200 {
                queue.ask(late, CHUNK, late.id);
            }
        });
        let first = went.iter().position(|(_, id)| *id == late.id).unwrap();
        let after = &went[first..first + 100];
        let share = after.iter().filter(|(_, id)| *id == late.id).count();
        assert!((49..=51).contains(&share), "{share} of 100");
    }

    #[test]
    fn whoever_went_away_costs_nothing() {
        let mut queue = Queue::new(BitRate::new(8_000));
        let now = Duration::from_secs(1);
        queue.ask(lane(1, 0, 1), 1_000_000, "gone");
        queue.ask(lane(2, 1, 1), 100, "here");
        assert_eq!(queue.next(now, |who| *who != "gone"), Next::Go("here"));
        assert_eq!(queue.next(now, |_| true), Next::Idle);
        assert!(queue.bucket.ready_at() < now + Duration::from_secs(1));
    }
}
