//! Looking for damage before anybody reads it: every frame of every segment, beside the writer.
//!
//! ```text
//! walk (a thread of its own) ── one segment at a time ──► scrub() ── damaged ──► writer
//!                                                          ▲                      │ quarantine,
//!                                                          └── commit is over ◄───┘ gap record
//! ```
//!
//! The writer is told of damage the way readers tell it, so what is noted, and that it is noted
//! once, is the same whoever comes upon it.

use crate::recovery::{Damage, Survey, unnoted};
use crate::segment::Segment;
use crate::stream::Shared;
use crate::{Error, Offset, append, ranges};
use serde::{Deserialize, Serialize};
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use tokio::sync::mpsc;

/// What [`Log::scrub`] read and found.
///
/// [`Log::scrub`]: crate::Log::scrub
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Scrub {
    pub segments: u64,
    pub frames: u64,
    pub records: u64,
    pub bytes: u64,
    /// Every damaged place there is, known before or not.
    pub places: Vec<Place>,
}

impl Scrub {
    /// How many of the places came to this end.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> usize {
        let places = self.places.iter();
        places.filter(|place| place.outcome == outcome).count()
    }
}

/// A place in a segment that does not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub stream: String,
    pub file: PathBuf,
    /// Where in the file, in bytes, and how many bytes are damaged.
    pub position: u64,
    pub bytes: u64,
    pub what: String,
    /// The offsets that do not read because of it: first, one past last.
    pub missing: Option<(Offset, Offset)>,
    /// Where the damaged bytes are kept, if they could be copied.
    pub quarantine: Option<PathBuf>,
    pub outcome: Outcome,
}

/// What became of a damaged place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A gap record told of it before.
    KnownBefore,
    /// A gap record tells of it from now on.
    Noted,
    /// It was in the journal of the catalog, which was written anew elsewhere.
    Replaced,
    /// No record is missing because of it.
    Harmless,
    /// It could not be noted: the log tells why in its messages.
    Open,
}

/// One segment, read in full.
struct Walked {
    stream: usize,
    segment: Arc<Segment>,
    /// Where its records end.
    end: Offset,
    survey: Survey,
}

impl Shared {
    pub(crate) async fn scrub(self: &Arc<Self>) -> Result<Scrub, Error> {
        // The catalog knows what was noted before; one that is out of order is mended first.
        self.commit_nothing().await?;
        self.catalog.mark()?;
        let (found, mut coming) = mpsc::channel(1);
        let shared = Arc::clone(self);
        let walk = std::thread::Builder::new()
            .name("log-scrub".to_owned())
            .spawn(move || shared.walk(&found))
            .map_err(Error::storage("start a scrub of", &self.directory))?;
        let mut scrub = Scrub::default();
        while let Some(walked) = coming.recv().await {
            let walked = walked?;
            scrub.segments += 1;
            scrub.frames += walked.survey.frames;
            scrub.records += walked.survey.records;
            scrub.bytes += walked.segment.bytes();
            if !walked.survey.damage.is_empty() {
                scrub.places.extend(self.settle(&walked).await?);
            }
        }
        // Its end is the end of what it sends.
        walk.join().unwrap_or_else(|panic| resume_unwind(panic));
        Ok(scrub)
    }

    /// Reads all segments there are now, until nobody listens any more.
    fn walk(&self, found: &mpsc::Sender<Result<Walked, Error>>) {
        for (index, stream) in self.streams.iter().enumerate() {
            // Before the list of segments: later, it may be that of a segment not in the list.
            let head = stream.head();
            let segments = stream.segments();
            let ends = segments.iter().skip(1).map(|next| next.name.base);
            for (segment, end) in segments.iter().zip(ends.chain([head])) {
                let listed = || {
                    let listed = stream.segments();
                    listed.iter().any(|other| Arc::ptr_eq(other, segment))
                };
                let given_up = index != self.journal && end <= stream.tail();
                if given_up || !listed() {
                    continue;
                }
                let walked = match Survey::up_to(segment, end) {
                    Ok(survey) => Ok(Walked {
                        stream: index,
                        segment: Arc::clone(segment),
                        end,
                        survey,
                    }),
                    // Retired since we looked.
                    Err(_) if !listed() => continue,
                    Err(error) => Err(error),
                };
                if found.blocking_send(walked).is_err() {
                    return;
                }
            }
        }
    }

    /// Has the writer note what is new in a segment, and tells what became of each place.
    async fn settle(&self, walked: &Walked) -> Result<Vec<Place>, Error> {
        let stream = &self.streams[walked.stream];
        let name = stream.options.name.as_str();
        let in_journal = walked.stream == self.journal;
        let is_new = |damage: &Damage| match damage.records() {
            0 => !damage.quarantine_path(&self.directory, name).exists(),
            _ => !unnoted(&self.catalog, name, (damage.first, damage.next)).is_empty(),
        };
        let damage = &walked.survey.damage;
        let new: Vec<bool> = damage.iter().map(is_new).collect();
        if in_journal || new.contains(&true) {
            let report = (walked.stream, Arc::clone(&walked.segment), walked.end);
            let damaged = self.damaged.lock();
            damaged.unwrap_or_else(PoisonError::into_inner).push(report);
            self.commit_nothing().await?;
            // The journal is written anew after the commit that answers, and before the next.
            self.commit_nothing().await?;
        }
        let replaced = || {
            let segments = stream.segments();
            !segments.iter().any(|s| Arc::ptr_eq(s, &walked.segment))
        };
        let place = |(damage, new): (&Damage, bool)| {
            let quarantine = damage.quarantine_path(&self.directory, name);
            Place {
                stream: name.to_owned(),
                file: walked.segment.path.clone(),
                position: damage.at,
                bytes: damage.until.saturating_sub(damage.at),
                what: damage.flaw.to_string(),
                missing: ranges::between(damage.first, damage.next),
                quarantine: quarantine.exists().then_some(quarantine),
                outcome: match (in_journal, is_new(damage), new) {
                    (true, ..) if replaced() => Outcome::Replaced,
                    (true, ..) | (_, true, _) => Outcome::Open,
                    _ if damage.records() == 0 => Outcome::Harmless,
                    (_, false, true) => Outcome::Noted,
                    (_, false, false) => Outcome::KnownBefore,
                },
            }
        };
        Ok(damage.iter().zip(new).map(place).collect())
    }

    /// Resolves after a commit that began later than now.
    async fn commit_nothing(&self) -> Result<(), Error> {
        self.check()?;
        let (journal, nothing) = (self.journal, append::nothing());
        let answer = self.queue.push(journal, journal, nothing, <_>::default());
        match answer.await?.await {
            Ok(committed) => committed.map(|_| ()),
            Err(_) => Err(self.check().err().unwrap_or(Error::Closed)),
        }
    }
}
