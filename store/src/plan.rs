//! Which frames one commit writes, and in which order. Pure: no files.
//!
//! One frame per stream touched, records in the order they were appended. Changes are replayed
//! in the order of the frames' sequence numbers, so where changes of one commit alternate
//! between streams, frames are cut such that this is also the order they were appended in.

use crate::frame::{Builder, Encoded};
use crate::{Committed, Offset};
use std::collections::BTreeMap;

#[derive(Debug)]
pub(crate) struct Plan<'a> {
    frames: Vec<Planned<'a>>,
    /// The frame of each stream that still takes appends.
    open: BTreeMap<usize, usize>,
    /// The frame that took the latest change.
    changed: Option<usize>,
    next_sequence: u64,
}

#[derive(Debug)]
pub(crate) struct Planned<'a> {
    pub(crate) stream: usize,
    pub(crate) builder: Builder<'a>,
    sequence: Option<u64>,
}

impl Planned<'_> {
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
            .expect("a finished plan has numbered its frames")
    }
}

impl<'a> Plan<'a> {
    pub(crate) const fn new(next_sequence: u64) -> Self {
        Self {
            frames: Vec::new(),
            open: BTreeMap::new(),
            changed: None,
            next_sequence,
        }
    }

    /// Adds an append to `stream`, whose head before this commit is `head`.
    pub(crate) fn push(&mut self, stream: usize, head: Offset, append: &'a Encoded) -> Committed {
        let changes = !append.decoded.is_empty();
        let index = self.frame_for(stream, head, changes);
        let first = self.frames[index].builder.next();
        self.frames[index].builder.push(append);
        if changes {
            self.number(index);
            self.changed = Some(index);
        }
        let next = self.frames[index].builder.next();
        Committed { first, next }
    }

    /// The frames, and the sequence number after theirs.
    pub(crate) fn finish(mut self) -> (Vec<Planned<'a>>, u64) {
        for index in 0..self.frames.len() {
            self.number(index);
        }
        self.frames.sort_by_key(Planned::sequence);
        (self.frames, self.next_sequence)
    }

    fn frame_for(&mut self, stream: usize, head: Offset, changes: bool) -> usize {
        let mut base = head;
        if let Some(&index) = self.open.get(&stream) {
            let builder = &self.frames[index].builder;
            let overtaken = changes && builder.has_changes() && self.changed != Some(index);
            if !builder.is_large() && !overtaken {
                return index;
            }
            base = builder.next();
            self.number(index);
        }
        self.frames.push(Planned {
            stream,
            builder: Builder::new(base),
            sequence: None,
        });
        self.open.insert(stream, self.frames.len() - 1);
        self.frames.len() - 1
    }

    fn number(&mut self, index: usize) {
        let frame = &mut self.frames[index];
        if frame.sequence.is_none() {
            frame.sequence = Some(self.next_sequence);
            self.next_sequence += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Change, Kind, Record};

    fn append(records: usize, change: Option<u8>) -> Encoded {
        let put = |key: u8| Change::Put {
            bucket: "b".into(),
            key: vec![key].into(),
            value: vec![].into(),
        };
        let records = vec![Record::new(Kind::Mqtt, "s", "p"); records];
        Encoded::new(&records, change.map(put).into_iter().collect())
    }

    #[test]
    fn one_frame_per_stream() {
        let appends = [append(2, None), append(1, Some(1)), append(1, None)];
        let mut plan = Plan::new(5);
        plan.push(0, Offset(10), &appends[0]);
        plan.push(1, Offset(0), &appends[1]);
        let third = plan.push(0, Offset(10), &appends[2]);
        assert_eq!((third.first, third.next), (Offset(12), Offset(13)));
        let (frames, next) = plan.finish();
        assert_eq!(frames.len(), 2);
        assert_eq!(next, 7);
    }

    #[test]
    fn changes_keep_their_order_across_streams() {
        let appends = [1, 2, 3, 4].map(|key| append(1, Some(key)));
        let mut plan = Plan::new(0);
        for (stream, append) in [0, 1, 0, 0].into_iter().zip(&appends) {
            plan.push(stream, Offset(0), append);
        }
        let (frames, _) = plan.finish();
        let order: Vec<_> = frames
            .iter()
            .map(|frame| (frame.stream, frame.builder.base.0, frame.builder.count))
            .collect();
        assert_eq!(order, [(0, 0, 1), (1, 0, 1), (0, 1, 2)]);
    }
}
