//! Sequence numbers of notifications (Part 4, 7.22): 1 after 4,294,967,295, never 0.

use std::collections::VecDeque;

/// Missing numbers asked for one by one. A longer hole is a server that counts anew, not a
/// server that lost so many messages. Nor does a server keep more than so many to send again: what
/// is further behind is another numbering too, and not to be taken for known.
const MISSING_MAX: u32 = 1_000;

/// The number of the notification that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sequence {
    next: u32,
}

/// How a number relates to what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Arrival {
    Expected,
    /// Handled before: delivered twice, or late.
    Repeated,
    /// These were skipped, oldest first.
    Ahead(VecDeque<u32>),
    /// So far ahead that the numbering itself must have changed.
    Restarted,
}

impl Sequence {
    pub(crate) const START: Self = Self { next: 1 };

    pub(crate) const fn from_next(next: u32) -> Self {
        Self {
            next: if next == 0 { 1 } else { next },
        }
    }

    pub(crate) const fn next(self) -> u32 {
        self.next
    }

    pub(crate) fn arrival(self, number: u32) -> Arrival {
        // Numbers run on a circle of 2^32 - 1 values.
        let distance = if number >= self.next {
            number - self.next
        } else {
            (u32::MAX - self.next) + number
        };
        match distance {
            0 => Arrival::Expected,
            1..=MISSING_MAX => {
                let mut missing = VecDeque::new();
                let mut at = self;
                while at.next != number {
                    missing.push_back(at.next);
                    at = at.after(at.next);
                }
                Arrival::Ahead(missing)
            }
            far if far < u32::MAX - MISSING_MAX => Arrival::Restarted,
            _ => Arrival::Repeated,
        }
    }

    /// What is expected once `number` was handled.
    pub(crate) const fn after(self, number: u32) -> Self {
        Self {
            next: if number == u32::MAX { 1 } else { number + 1 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_named_and_repeats_are_known() {
        let five = Sequence::from_next(5);
        assert_eq!(five.arrival(5), Arrival::Expected);
        assert_eq!(five.arrival(4), Arrival::Repeated);
        assert_eq!(five.arrival(8), Arrival::Ahead([5, 6, 7].into()));
        assert_eq!(five.arrival(50_000), Arrival::Restarted);
        let high = Sequence::from_next(3_000_000_000);
        assert_eq!(high.arrival(2_999_999_500), Arrival::Repeated);
        assert_eq!(high.arrival(5), Arrival::Restarted);
    }

    #[test]
    fn zero_is_skipped_at_the_turn() {
        let last = Sequence::from_next(u32::MAX);
        assert_eq!(last.after(u32::MAX).next(), 1);
        assert_eq!(last.arrival(2), Arrival::Ahead([u32::MAX, 1].into()));
        assert_eq!(Sequence::START.arrival(u32::MAX), Arrival::Repeated);
    }
}
