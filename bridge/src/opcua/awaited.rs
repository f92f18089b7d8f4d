//! Nodes whose next value is awaited because it means something else than a change.
//!
//! Handles as ranges: the server sends first values about in the order in which the nodes were
//! asked for, so that ten thousand of them are a range or two.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Ranges that are written to the catalog, which likes small values.
const KEPT_MAX: usize = 100;

/// A set of handles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Awaited {
    /// First handle of a range, and its last.
    ranges: BTreeMap<u32, u32>,
}

impl Awaited {
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(crate) fn contains(&self, handle: u32) -> bool {
        let at_or_before = self.ranges.range(..=handle).next_back();
        at_or_before.is_some_and(|(_, last)| *last >= handle)
    }

    pub(crate) fn insert(&mut self, handle: u32) {
        if self.contains(handle) {
            return;
        }
        let last = handle
            .checked_add(1)
            .and_then(|next| self.ranges.remove(&next));
        let last = last.unwrap_or(handle);
        let before = self.ranges.range_mut(..handle).next_back();
        match before.filter(|(_, before)| before.checked_add(1) == Some(handle)) {
            Some((_, before)) => *before = last,
            None => drop(self.ranges.insert(handle, last)),
        }
    }

    /// Whether it was awaited.
    pub(crate) fn remove(&mut self, handle: u32) -> bool {
        let at_or_before = self.ranges.range(..=handle).next_back();
        let Some((first, last)) = at_or_before.map(|(first, last)| (*first, *last)) else {
            return false;
        };
        if last < handle {
            return false;
        }
        self.ranges.remove(&first);
        if first < handle {
            self.ranges.insert(first, handle - 1);
        }
        if handle < last {
            self.ranges.insert(handle + 1, last);
        }
        true
    }

    /// The ranges to be kept: all, or with the smallest holes between them closed. Better that
    /// after a crash in a first second the odd change counts as a first value than the reverse.
    fn kept(&self) -> Vec<(u32, u32)> {
        let mut kept: Vec<(u32, u32)> = self.ranges.iter().map(|(a, b)| (*a, *b)).collect();
        if kept.len() <= KEPT_MAX {
            return kept;
        }
        let mut holes: Vec<u32> = kept.windows(2).map(|two| two[1].0 - two[0].1).collect();
        holes.sort_unstable();
        let closed = holes[kept.len() - KEPT_MAX - 1];
        kept.dedup_by(|later, earlier| {
            let close = later.0 - earlier.1 <= closed;
            if close {
                earlier.1 = later.1;
            }
            close
        });
        kept
    }
}

impl FromIterator<u32> for Awaited {
    fn from_iter<T: IntoIterator<Item = u32>>(handles: T) -> Self {
        let mut awaited = Self::default();
        handles
            .into_iter()
            .for_each(|handle| awaited.insert(handle));
        awaited
    }
}

impl Serialize for Awaited {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.kept().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Awaited {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ranges = Vec::<(u32, u32)>::deserialize(deserializer)?;
        Ok(Self {
            ranges: ranges.into_iter().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_set_is_a_set() {
        let mut awaited: Awaited = [1, 3, 2, 7, 0].into_iter().collect();
        assert_eq!(awaited.kept(), [(0, 3), (7, 7)]);
        let mut model = BTreeSet::from([0, 1, 2, 3, 7]);
        // Every number below eleven, in an order without order.
        for step in 0..11_u32 {
            let handle = step * 7 % 11;
            assert_eq!(
                awaited.contains(handle),
                model.contains(&handle),
                "{handle}"
            );
            assert_eq!(awaited.remove(handle), model.remove(&handle), "{handle}");
        }
        assert!(awaited.is_empty());
    }

    #[test]
    fn what_is_kept_is_small_and_holds_every_handle() {
        let handles = || (0..1_000).map(|number| number * number);
        let awaited: Awaited = handles().collect();
        let text = serde_json::to_string(&awaited).unwrap();
        assert!(text.len() < 2_048, "{}", text.len());
        let back: Awaited = serde_json::from_str(&text).unwrap();
        assert!(handles().all(|handle| back.contains(handle)));
        assert!(!back.contains(999 * 999 - 1), "the widest hole stays open");
    }
}
