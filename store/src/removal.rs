//! Which segments have to go, and what has to be journalled for it: those that are in the way of
//! an append, and those that are too old.

use crate::frame::{self, Encoded};
use crate::give_up::{self, Reason};
use crate::queue::Queued;
use crate::retention::{Claim, Held, Room, make_room, relieve};
use crate::segment::{HEADER_BYTES, Segment};
use crate::writer::{Note, Writer};
use crate::{Error, WhenFull};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

impl Writer {
    /// Lets in what fits. Returns notes of what has to go, and the appends let in.
    pub(crate) fn admit(&mut self, batch: Vec<Queued>) -> (Vec<Note>, Vec<Queued>) {
        let mut notes = Vec::new();
        let mut needed: BTreeMap<usize, Result<u64, Error>> = BTreeMap::new();
        let mut let_in: BTreeMap<usize, u64> = BTreeMap::new();
        let held = self.shared.weight();
        let mut admitted = Vec::with_capacity(batch.len());
        let all_fit = self.all_fit(&batch);
        for queued in batch {
            if let Some(failure) = queued.behind() {
                queued.answer(Err(failure));
                continue;
            }
            if all_fit {
                admitted.push(queued);
                continue;
            }
            let stream = queued.carrier;
            let before = needed.remove(&stream).unwrap_or(Ok(0));
            // Once one is refused, all later ones are: a stream keeps its order.
            let after = before.and_then(|before| {
                let bytes = queued.append.bytes() + frame::HEADER_BYTES;
                let needed = before + bytes as u64;
                notes.extend(self.make_room(stream, needed)?);
                notes.extend(self.make_room_in_all(stream, needed, held, &let_in)?);
                let_in.insert(stream, needed);
                Ok(needed)
            });
            match &after {
                Ok(_) => admitted.push(queued),
                Err(full) => {
                    self.figures().full += 1;
                    queued.answer(Err(full.clone()));
                }
            }
            needed.insert(stream, after);
        }
        (notes, admitted)
    }

    /// Whether nothing has to go for a whole batch: so it is nearly always, and then none of its
    /// appends needs to be looked at alone.
    fn all_fit(&self, batch: &[Queued]) -> bool {
        let mut needed: BTreeMap<usize, u64> = BTreeMap::new();
        for queued in batch {
            let bytes = queued.append.bytes() + frame::HEADER_BYTES;
            *needed.entry(queued.carrier).or_default() += bytes as u64;
        }
        let fits = |(&stream, needed): (&usize, &u64)| {
            let stream = &self.shared.streams[stream];
            stream.bytes() + needed <= stream.options.bytes_max
        };
        // Each may begin a segment.
        let coming = needed.values().map(|bytes| bytes + HEADER_BYTES as u64);
        let most = self.shared.weight() + coming.sum::<u64>();
        let bytes_max_total = self.shared.bytes_max_total.unwrap_or(u64::MAX);
        needed.iter().all(fits) && most <= bytes_max_total
    }

    /// Marks segments for removal so that `needed` bytes fit, and journals what is lost by it.
    fn make_room(&mut self, index: usize, needed: u64) -> Result<Option<Note>, Error> {
        let segments = self.kept(index);
        let held: Vec<Held> = segments.iter().map(|segment| segment.held()).collect();
        let stream = &self.shared.streams[index];
        let confirmed = self.shared.confirmed(stream);
        let options = &stream.options;
        let room = make_room(
            &held,
            needed,
            options.bytes_max,
            confirmed,
            options.when_full,
        );
        match room {
            Room::Enough => Ok(None),
            Room::Reclaim(count) | Room::Drop(count) => {
                Ok(self.give_up(index, &segments[..count], Reason::StreamFull))
            }
            Room::Full => Err(Error::Full {
                stream: options.name.to_string(),
                bytes: held.iter().map(|segment| segment.bytes).sum(),
                bytes_max: options.bytes_max,
            }),
        }
    }

    /// The same for `needed` bytes of a stream in the quota over all streams, of which they hold
    /// `held` and take what was let in before. Within its reserve a stream is never refused; nor
    /// are cursors, that free space.
    fn make_room_in_all(
        &mut self,
        index: usize,
        needed: u64,
        held: u64,
        let_in: &BTreeMap<usize, u64>,
    ) -> Result<Vec<Note>, Error> {
        let others = let_in.iter().filter(|(stream, _)| **stream != index);
        let coming = others.chain([(&index, &needed)]);
        // Each may begin a segment.
        let coming = coming.map(|(&stream, bytes)| (stream, bytes + HEADER_BYTES as u64));
        let coming: Vec<_> = coming.collect();
        let most = held + coming.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let Some(bytes_max) = self.shared.bytes_max_total.filter(|max| most > *max) else {
            return Ok(Vec::new());
        };
        let mut claims: Vec<_> = (0..self.tracks.len())
            .map(|index| self.claim(index))
            .collect();
        for (stream, bytes) in coming {
            claims[stream].bytes += bytes;
        }
        let exempt =
            index == self.shared.journal || claims[index].bytes <= claims[index].reserve_bytes;
        let bytes: u64 = claims.iter().map(Claim::weight).sum();
        let Some(excess) = bytes.checked_sub(bytes_max).filter(|_| !exempt) else {
            return Ok(Vec::new());
        };
        let Some(going) = relieve(claims, excess) else {
            return Err(Error::QuotaFull {
                stream: self.name(index).to_owned(),
                bytes,
                bytes_max,
            });
        };
        let mut notes = Vec::new();
        for (index, count) in going.into_iter().enumerate() {
            let segments = self.kept(index);
            notes.extend(self.give_up(index, &segments[..count], Reason::QuotaFull));
        }
        Ok(notes)
    }

    /// The segments of a stream that the commit under way leaves, oldest first. The journal's hold
    /// no records that could be given up, so it leaves them all.
    pub(crate) fn kept(&self, index: usize) -> Vec<Arc<Segment>> {
        let track = &self.tracks[index];
        let mut segments = track.stream.segments();
        let all = index == self.shared.journal;
        segments.retain(|segment| all || segment.next() > track.kept_from());
        segments
    }

    /// Has the commit under way do without `segments`, the oldest of those a stream has kept.
    /// Returns what is to be journalled: a gap record in the stream if some of it is not confirmed,
    /// else its new tail, which would only take the place of what goes, in `_catalog`.
    pub(crate) fn give_up(
        &mut self,
        index: usize,
        segments: &[Arc<Segment>],
        reason: Reason,
    ) -> Option<Note> {
        let (first, last) = (segments.first()?, segments.last()?);
        let track = &mut self.tracks[index];
        let confirmed = self.shared.confirmed(&track.stream);
        // The newest segment can only go once there is a newer one.
        let newest = track.stream.segments().pop();
        track.rotate |= newest.is_some_and(|newest| Arc::ptr_eq(&newest, last));
        let next = last.next();
        track.give_up(next);
        let name = track.stream.options.name.as_str();
        if next <= confirmed {
            return Some((self.shared.journal, give_up::reclaim(name, next)));
        }
        let lost = (first.name.base.max(confirmed), next);
        Some((index, give_up::journal(name, segments, lost, reason)))
    }

    /// Marks what is too old for removal. Returns notes of what goes, and of how far the clock has
    /// come.
    pub(crate) fn expire(&mut self) -> Vec<Note> {
        let now = self.ages.clock.now() + self.disk.skipped();
        let tracks = &self.tracks;
        let held = |index: usize| (tracks[index].stream.tail(), tracks[index].next());
        if !self.ages.tick(now, held) {
            return Vec::new();
        }
        let mut notes = Vec::new();
        for index in 0..self.tracks.len() {
            notes.extend(self.expire_stream(index, now));
        }
        let ages = self.ages.note(now, |index| self.name(index));
        notes.push((self.shared.journal, Encoded::new(&[], vec![ages])));
        notes
    }

    fn expire_stream(&mut self, index: usize, now: Duration) -> Option<Note> {
        let expired = self.ages.expired(index, now);
        let segments = self.kept(index);
        if let Some(newest) = segments.last() {
            let track = &mut self.tracks[index];
            track.rotate |= self.ages.is_to_close(index, newest.name.base, now);
        }
        let stream = &self.shared.streams[index];
        let limit = match stream.options.when_full {
            WhenFull::Block => expired.min(self.shared.confirmed(stream)),
            WhenFull::DropOldest => expired,
        };
        let count = segments
            .iter()
            .take_while(|segment| holds_records(segment) && segment.next() <= limit)
            .count();
        self.give_up(index, &segments[..count], Reason::TooOld)
    }
}

fn holds_records(segment: &Arc<Segment>) -> bool {
    segment.name.base < segment.next()
}
