//! Finding the frame of a record in a segment: by halving, and by what was learnt before.
//!
//! Headers say where the next frame begins, so a segment reads from front to back only. But bytes
//! anywhere in it lead to the next frame, which says what its records are. One that lies in a
//! payload, copied there by whoever wrote it, can pass for a frame of the segment; so whoever began
//! in the middle and does not find a record has to look again from the front.

use crate::segment::{HEADER_BYTES, Segment, Walk};
use crate::{Error, Offset};
use std::sync::{Mutex, PoisonError};

/// One mark stands for at least this many bytes, and where there are none for twice as many, one
/// is made: to walk over those takes less than to look for a frame in the middle.
const MARK_BYTES: u64 = 128 * 1024;

/// Offset of a frame's first record, and where the frame starts.
type Mark = (Offset, u64);

/// Sparse index, in order of both.
#[derive(Debug, Default)]
pub(crate) struct Marks(Mutex<Vec<Mark>>);

impl Marks {
    fn add(&self, base: Offset, at: u64) {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let after = marks.partition_point(|(_, mark)| *mark < at);
        let (before, behind) = marks.split_at(after);
        let follows = before
            .last()
            .is_none_or(|(last, mark)| *last <= base && at - mark >= MARK_BYTES);
        let precedes = behind
            .first()
            .is_none_or(|(next, mark)| base <= *next && mark - at >= MARK_BYTES);
        if follows && precedes {
            marks.insert(after, (base, at));
        }
    }

    /// The marks around `offset`, where there are any.
    fn around(&self, offset: Offset) -> (Option<Mark>, Option<Mark>) {
        let marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let after = marks.partition_point(|(base, _)| *base <= offset);
        let before = after.checked_sub(1).map(|before| marks[before]);
        (before, marks.get(after).copied())
    }
}

impl Segment {
    /// Notes where a frame is, if the sparse index lacks one thereabouts.
    pub(crate) fn mark(&self, base: Offset, at: u64) {
        self.marks.add(base, at);
    }

    /// A walk that begins not far before the frame that holds `offset`.
    pub(crate) fn walk_to(&self, offset: Offset) -> Result<Walk, Error> {
        let (from, until) = self.marks.around(offset);
        let mut from = from.map_or(HEADER_BYTES as u64, |(_, at)| at);
        let mut until = until.map_or_else(|| self.bytes(), |(_, at)| at);
        let mut walk = self.walk(from)?;
        while until.saturating_sub(from) > 2 * MARK_BYTES {
            let middle = from + (until - from) / 2;
            let found = walk.frame_after(middle)?;
            if let Some((at, header)) = found {
                self.mark(header.base, at);
            }
            match found {
                Some((at, header)) if at < until && header.base <= offset => from = at,
                _ => until = middle,
            }
        }
        walk.go_on_at(from);
        Ok(walk)
    }

    /// About how many of its bytes hold the records from `offset` on. Reads nothing: between two
    /// marks, or the ends of the segment where there are none, it goes by the number of records.
    pub(crate) fn bytes_from(&self, offset: Offset) -> u64 {
        let (end, next) = (self.bytes(), self.next());
        if offset <= self.name.base {
            return end;
        }
        if offset >= next {
            return 0;
        }
        let (before, behind) = self.marks.around(offset);
        let (first, from) = before.unwrap_or((self.name.base, HEADER_BYTES as u64));
        let (last, until) = behind.unwrap_or((next, end));
        let share = |part: u64, whole: u64, of: u64| {
            let share = u128::from(part) * u128::from(of) / u128::from(whole.max(1));
            u64::try_from(share).unwrap_or(u64::MAX)
        };
        let (records, bytes) = (last.0 - first.0, until.saturating_sub(from));
        let passed = from.saturating_add(share(offset.0 - first.0, records, bytes));
        end.saturating_sub(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Builder, Encoded};
    use crate::segment::{Check, Name, Step};
    use crate::{Codec, Kind, Record};

    /// Frames of one record and `payload` bytes each, in a segment that nobody knows yet.
    fn segment(directory: &std::path::Path, frames: u64, payload: usize) -> Segment {
        let name = Name {
            base: Offset(0),
            sequence: 1,
        };
        let seed = Segment::new(directory, 1, name, 0, name.base).seed;
        let record = Record::new(Kind::Mqtt, "a", vec![7; payload]);
        let append = Encoded::new(&[record], Vec::new());
        let mut bytes = vec![0; HEADER_BYTES];
        for number in 0..frames {
            let mut builder = Builder::new(Offset(number));
            builder.push(&append);
            builder.finish(number, &seed, Codec::None, &mut Vec::new(), &mut bytes);
        }
        let segment = Segment::new(directory, 1, name, bytes.len() as u64, Offset(frames));
        std::fs::write(&segment.path, bytes).expect("written");
        segment
    }

    #[test]
    fn bytes_are_told_from_marks_or_else_by_the_number_of_records() {
        let directory = tempfile::tempdir().expect("a directory");
        let segment = segment(directory.path(), 1_000, 1_000);
        let (end, rough) = (segment.bytes(), segment.bytes_from(Offset(250)));
        assert_eq!(segment.bytes_from(Offset(0)), end);
        assert_eq!(segment.bytes_from(Offset(1_000)), 0);
        assert!(rough.abs_diff(end / 4 * 3) < 2_000, "{rough} of {end}");
        // Where the first half is known to take a tenth of the bytes.
        segment.mark(Offset(500), end / 10);
        assert_eq!(segment.bytes_from(Offset(500)), end - end / 10);
        let early = segment.bytes_from(Offset(250));
        assert!(early.abs_diff(end / 20 * 19) < 2_000, "{early} of {end}");
    }

    #[test]
    fn a_walk_begins_close_before_what_it_is_for() {
        let directory = tempfile::tempdir().expect("a directory");
        for (frames, payload) in [(20_000, 100), (100, 40_000), (5, 1_000_000), (1, 3_000_000)] {
            let segment = segment(directory.path(), frames, payload);
            for step in 0..50 {
                let wanted = Offset(step * 7_919 % frames);
                let mut walk = segment.walk_to(wanted).expect("it opens");
                let mut walked = 0;
                loop {
                    let Step::Frame { header, .. } = walk.step(Check::Header).expect("it reads")
                    else {
                        panic!("{wanted} is not found");
                    };
                    if header.base == wanted {
                        break;
                    }
                    walked += header.frame_bytes();
                }
                assert!(walked <= 2 * MARK_BYTES, "{walked} before {wanted}");
            }
        }
    }
}
