//! Bringing the catalog and the log together: what the catalog lacks is replayed from frames it
//! has not seen, and what cannot be trusted is made anew.

use crate::catalog::{Catalog, Mark, Reached};
use crate::frame::{Flaw, flags};
use crate::segment::{Check, HEADER_BYTES, Segment, Step, Walk};
use crate::stream::Stream;
use crate::{Change, Error, Offset};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Changes applied to the catalog in one batch while it is rebuilt.
const BATCH_CHANGES: usize = 1_000;

/// How the catalog and the log were brought together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Synchronised {
    pub(crate) rebuilt: bool,
    /// The journal has lost frames, and the catalog may be the last to know their changes.
    pub(crate) ahead: bool,
    /// Last sequence number of the newest complete snapshot, and its size.
    pub(crate) snapshot: u64,
    pub(crate) snapshot_bytes: u64,
    /// Newest frame that is known to carry changes.
    pub(crate) last_change: u64,
}

/// The log as it was found, for the catalog to follow.
#[derive(Clone, Copy)]
pub(crate) struct Truth<'a> {
    pub(crate) streams: &'a [Arc<Stream>],
    /// Index of `_catalog` in them.
    pub(crate) journal: usize,
    pub(crate) mark: Mark,
    /// Heads as far as they are known, be it only from a note of them. The catalog is to know
    /// them too: it must not hold the changes of a frame and not know of the frame's records.
    pub(crate) heads: &'a [(&'a str, Offset)],
}

/// Where the catalog has changes of a frame that its stream has no more.
#[derive(Debug, Clone, Copy)]
struct Ahead {
    of_records: bool,
    of_journal: bool,
}

impl Ahead {
    /// `last_frames` are the sequence numbers of the streams' newest frames.
    fn find(catalog: &Catalog, truth: Truth<'_>, last_frames: &[u64]) -> Result<Self, Error> {
        let changed = catalog.changed()?;
        let mut ahead = Self {
            of_records: false,
            of_journal: false,
        };
        for (index, (stream, last_frame)) in truth.streams.iter().zip(last_frames).enumerate() {
            let seen = changed.get(stream.options.name.as_str());
            // What is older than the oldest segment was removed, and a snapshot has its changes.
            let kept = stream.first().map_or(0, |oldest| oldest.name.sequence);
            if seen.is_some_and(|seen| seen > last_frame && *seen >= kept) {
                ahead.of_journal |= index == truth.journal;
                ahead.of_records |= index != truth.journal;
            }
        }
        Ok(ahead)
    }
}

/// Epoch of a catalog whose rebuild has not come to its end: not the log's, so that it is not taken for whole.
const fn unfinished(epoch: u64) -> u64 {
    !epoch
}

/// Heads that the catalog remembers, if it is of this data directory.
pub(crate) fn remembered_heads(catalog: &Catalog, epoch: u64) -> BTreeMap<String, Offset> {
    let mark = catalog.mark().ok().flatten();
    if mark.is_none_or(|mark| mark.epoch != epoch && mark.epoch != unfinished(epoch)) {
        return BTreeMap::new();
    }
    catalog.heads().unwrap_or_default()
}

/// Brings the catalog up to the log's mark. It is rebuilt unless it is of this log, not ahead of
/// it, of the key that seals now, and not from before a power cut (sled is never synced, so only
/// then is it what was written).
///
/// Records and changes of one append are true together: when a stream has lost its end, the
/// changes that went with the records are taken back. The journal's frames have changes only;
/// what it has lost the catalog may be the last to know, and is kept to be journalled anew.
pub(crate) fn synchronise(
    catalog: &Catalog,
    truth: Truth<'_>,
    last_frames: &[u64],
    clean_stop: bool,
) -> Result<Synchronised, Error> {
    let snapshot = Snapshot::newest(&truth.streams[truth.journal])?;
    let mark = truth.mark;
    let usable = catalog.mark().ok().flatten().filter(|found| {
        found.epoch == mark.epoch
            && found.applied <= mark.applied
            && found.applied >= snapshot.last
            && (clean_stop || found.boot == mark.boot)
            && catalog.opens().unwrap_or(false)
    });
    let ahead = Ahead::find(catalog, truth, last_frames).ok();
    let usable = usable.zip(ahead).filter(|(_, ahead)| !ahead.of_records);
    let replayed = usable.map(|(found, ahead)| {
        replay(catalog, truth, found.applied).map(|last_change| (last_change, ahead))
    });
    match replayed {
        Some(Ok((last_change, ahead))) => Ok(Synchronised {
            rebuilt: false,
            ahead: ahead.of_journal || snapshot.damaged,
            snapshot: snapshot.last,
            snapshot_bytes: snapshot.bytes,
            last_change,
        }),
        _ => {
            catalog.forget_cursors();
            rebuild(catalog, truth)
        }
    }
}

/// What is known without a catalog: any frame may hold a change that no snapshot has.
pub(crate) fn unsynchronised(truth: Truth<'_>) -> Result<Synchronised, Error> {
    let snapshot = Snapshot::newest(&truth.streams[truth.journal])?;
    Ok(Synchronised {
        rebuilt: false,
        ahead: false,
        snapshot: snapshot.last,
        snapshot_bytes: snapshot.bytes,
        last_change: truth.mark.applied,
    })
}

/// Makes the catalog anew: the newest snapshot, then all changes after it.
pub(crate) fn rebuild(catalog: &Catalog, truth: Truth<'_>) -> Result<Synchronised, Error> {
    let journal = &truth.streams[truth.journal];
    let snapshot = Snapshot::newest(journal)?;
    catalog.wipe()?;
    let so_far = Reached {
        mark: Mark {
            applied: 0,
            epoch: unfinished(truth.mark.epoch),
            ..truth.mark
        },
        heads: truth.heads,
        changed: &[(journal.options.name.as_str(), snapshot.last)],
    };
    let parts = Changes::new(journal, snapshot.first, true);
    for part in parts {
        let (sequence, changes) = part?;
        if sequence > snapshot.last {
            break;
        }
        catalog.apply(&changes, so_far)?;
    }
    let last_change = replay(catalog, truth, snapshot.last)?;
    catalog.finish();
    Ok(Synchronised {
        rebuilt: true,
        ahead: false,
        snapshot: snapshot.last,
        snapshot_bytes: snapshot.bytes,
        last_change,
    })
}

/// Applies the changes of all frames after `applied`, in the order of their sequence numbers.
fn replay(catalog: &Catalog, truth: Truth<'_>, applied: u64) -> Result<u64, Error> {
    let mut sources: Vec<_> = truth
        .streams
        .iter()
        .map(|stream| Changes::new(stream, applied + 1, false).peekable())
        .collect();
    let mut pending: Vec<Change> = Vec::new();
    let mut changed: BTreeMap<usize, u64> = BTreeMap::new();
    let apply = |pending: &[Change], changed: &BTreeMap<usize, u64>, applied| {
        let name = |stream: usize| truth.streams[stream].options.name.as_str();
        let changed = changed.iter();
        let changed: Vec<_> = changed.map(|(&index, &at)| (name(index), at)).collect();
        let reached = Reached {
            mark: Mark {
                applied,
                ..truth.mark
            },
            heads: truth.heads,
            changed: &changed,
        };
        catalog.apply(pending, reached)
    };
    let mut last_change = applied;
    loop {
        let mut earliest: Option<(u64, usize)> = None;
        for (index, source) in sources.iter_mut().enumerate() {
            let sequence = match source.peek() {
                Some(Ok((sequence, _))) => *sequence,
                Some(Err(error)) => return Err(error.clone()),
                None => continue,
            };
            if earliest.is_none_or(|(least, _)| sequence < least) {
                earliest = Some((sequence, index));
            }
        }
        let next = earliest.and_then(|(_, index)| Some((index, sources[index].next()?)));
        let Some((index, frame)) = next else {
            apply(&pending, &changed, truth.mark.applied)?;
            return Ok(last_change);
        };
        let (sequence, changes) = frame?;
        pending.extend(changes);
        changed.insert(index, sequence);
        last_change = sequence;
        if pending.len() >= BATCH_CHANGES {
            apply(&pending, &changed, sequence)?;
            pending.clear();
        }
    }
}

/// The newest complete snapshot in the journal; sequence numbers of its first and last frame.
#[derive(Debug, Clone, Copy, Default)]
struct Snapshot {
    first: u64,
    last: u64,
    bytes: u64,
    /// Something in the journal does not read.
    damaged: bool,
}

impl Snapshot {
    fn newest(journal: &Stream) -> Result<Self, Error> {
        let mut newest = Self::default();
        let mut begun: Option<Self> = None;
        let mut damaged = false;
        for segment in journal.segments() {
            let mut walk = segment.walk(HEADER_BYTES as u64)?;
            loop {
                let header = match walk.step(Check::Payload)? {
                    Step::Frame { header, .. } => header,
                    Step::Damage { .. } => {
                        (begun, damaged) = (None, true);
                        continue;
                    }
                    Step::Torn { .. } => {
                        (begun, damaged) = (None, true);
                        break;
                    }
                    Step::End { .. } => break,
                };
                if header.has(flags::SNAPSHOT_FIRST) {
                    begun = Some(Self {
                        first: header.sequence,
                        ..Self::default()
                    });
                }
                if !header.has(flags::SNAPSHOT) {
                    begun = None;
                }
                if let Some(part) = &mut begun {
                    part.bytes += header.frame_bytes();
                    part.last = header.sequence;
                    if header.has(flags::SNAPSHOT_LAST) {
                        newest = *part;
                        begun = None;
                    }
                }
            }
        }
        Ok(Self { damaged, ..newest })
    }
}

/// The changes in a stream's frames from one sequence number on.
struct Changes {
    segments: std::vec::IntoIter<Arc<Segment>>,
    walk: Option<Walk>,
    /// The body of the frame looked at last.
    body: Vec<u8>,
    from: u64,
    /// Whether to look at frames of snapshots, or at all others.
    snapshots: bool,
}

impl Changes {
    fn new(stream: &Stream, from: u64, snapshots: bool) -> Self {
        let mut segments = stream.segments();
        let newer = |segment: &Arc<Segment>| segment.name.sequence > from;
        let skip = segments.iter().position(newer).unwrap_or(segments.len());
        segments.drain(..skip.saturating_sub(1));
        Self {
            segments: segments.into_iter(),
            walk: None,
            body: Vec::new(),
            from,
            snapshots,
        }
    }

    fn advance(&mut self) -> Result<Option<(u64, Vec<Change>)>, Error> {
        loop {
            let Some(walk) = &mut self.walk else {
                let Some(segment) = self.segments.next() else {
                    return Ok(None);
                };
                self.walk = Some(segment.walk(HEADER_BYTES as u64)?);
                continue;
            };
            match walk.step(Check::Header)? {
                Step::Frame { at, header } => {
                    let wanted = header.sequence >= self.from
                        && header.has(flags::CHANGES)
                        && header.has(flags::SNAPSHOT) == self.snapshots;
                    if !wanted {
                        continue;
                    }
                    let seed = walk.seed();
                    match header.open(walk.payload(at, &header)?, &seed, &mut self.body) {
                        Ok(body) => return Ok(Some((header.sequence, body.changes))),
                        Err(Flaw::Locked) => return Err(walk.locked()),
                        Err(flaw) => tracing::error!(
                            sequence = header.sequence, %flaw,
                            "a damaged frame held catalog changes"
                        ),
                    }
                }
                Step::Damage { .. } => {}
                Step::Torn { .. } | Step::End { .. } => self.walk = None,
            }
        }
    }
}

impl Iterator for Changes {
    type Item = Result<(u64, Vec<Change>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}
