//! A model's state machine: records in, windows to score out, and what to write for the scores.
//! Pure: no clock, no disk, no thread.
//!
//! **Once and only once.** Everything this machine knows (held values, windows, alert states)
//! is in the catalog as of the model's cursors, because state and cursors change in the same
//! append as the scores they led to. After a crash the machine is back at the last such append,
//! reads on from its cursors, and comes to no score twice: none was written since. Streams may
//! interleave differently the second time, which no reader can tell, for the same reason.
//!
//! Alerts live in another stream than scores, and one append writes one stream. So an alert is
//! first posted in the catalog, with the score that tipped it, and taken out of there by the
//! append that writes it to its stream (see [`Outcome`]).

use crate::alert::AlertState;
use crate::asset::{Asset, Hole, Skip, Taken};
use crate::binding::{Bindings, Payload};
use crate::config::{ASSETS_MAX, Model};
use crate::derived::{Due, alert_record, score_record};
use crate::runner::Score;
use crate::state::{self, Posted, STATE_BYTES_MAX};
use crate::window::{CHUNK_BYTES_MAX, Mark};
use bytes::Bytes;
use skerry_store::{Change, Offset, Record, WallNanos};

/// Values taken in between two appends: bounds what one append holds.
const TOUCHES_MAX: usize = 500;
/// Records that may be read again after a crash when none of them led to a score.
const UNSAVED_RECORDS_MAX: usize = 4_096;

/// A derived record: names of 64 bytes, a hash in hex, numbers, and JSON around them.
const DERIVED_BYTES_MAX: usize = 900;
/// Each touched value may change a state and one chunk, and tip a score and an alert.
const TOUCH_BYTES_MAX: usize = STATE_BYTES_MAX + CHUNK_BYTES_MAX + 2 * DERIVED_BYTES_MAX;
// The last record of a round may feed every asset.
const _: () =
    assert!((TOUCHES_MAX + ASSETS_MAX) * TOUCH_BYTES_MAX <= skerry_store::APPEND_BYTES_MAX);

/// What a round of records came to, for the status.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) records: u64,
    pub(crate) rows: u64,
    pub(crate) holes: u64,
    pub(crate) no_value: u64,
    pub(crate) bad_status: u64,
    pub(crate) not_finite: u64,
    pub(crate) unreadable: u64,
    pub(crate) stale: u64,
}

/// What is to be written after a round: first `scores` and `changes` in one append, then the
/// `alerts` in another, which also takes them out of the outbox.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) scores: Vec<Record>,
    pub(crate) changes: Vec<Change>,
    pub(crate) alerts: Vec<Posted>,
}

#[derive(Debug)]
pub(crate) struct Engine {
    model: Model,
    sha256: String,
    fingerprint: u64,
    bindings: Bindings,
    assets: Vec<Asset>,
    /// Per input stream, the first offset not taken in yet.
    next: Vec<Offset>,
    saved_next: Vec<Offset>,
    unsaved_records: usize,
    touches: usize,
    due: Vec<Due>,
    outcome: Outcome,
    tally: Tally,
}

impl Engine {
    /// Starts from what the catalog holds: `cursors` by input stream, `entries` of the model.
    /// Also returns the changes that remove what no longer means anything, which must be made
    /// before anything else is written.
    pub(crate) fn new(
        model: Model,
        sha256: String,
        cursors: Vec<Offset>,
        entries: &[(Bytes, Bytes)],
    ) -> (Self, Vec<Change>) {
        let fingerprint = state::fingerprint(&model);
        let mut assets: Vec<Asset> = model.assets.iter().map(|_| Asset::new(&model)).collect();
        let obsolete = state::restore(&model, fingerprint, &mut assets, entries);
        let engine = Self {
            bindings: Bindings::new(&model),
            fingerprint,
            sha256,
            assets,
            saved_next: cursors.clone(),
            next: cursors,
            unsaved_records: 0,
            touches: 0,
            due: Vec::new(),
            outcome: Outcome::default(),
            tally: Tally::default(),
            model,
        };
        (engine, obsolete)
    }

    /// Takes the next record of an input stream.
    pub(crate) fn take(&mut self, stream: usize, offset: Offset, record: &Record) {
        debug_assert!(offset >= self.next[stream], "records come in order");
        self.next[stream] = offset.plus(1);
        self.unsaved_records += 1;
        self.tally.records += 1;
        let targets = self.bindings.targets(stream, record);
        if targets.is_empty() {
            return;
        }
        let payload = Payload::of(record);
        let mark = Mark {
            offset,
            time: record.event_time(),
        };
        for target in targets {
            let value = payload.column(&self.model, target.column);
            let asset = &mut self.assets[target.asset];
            let (taken, Hole(hole)) =
                asset.take(&self.model, target.column, value, mark, record.ingest_time);
            self.touches += 1;
            self.tally.count(taken, hole);
            if taken == Taken::Due {
                let window = asset.window();
                self.due.push(Due {
                    asset: target.asset,
                    sequence: asset.sequence,
                    window: window.tensor(),
                    oldest: window.oldest(),
                    newest: window.newest(),
                });
                asset.sequence += 1;
            }
        }
    }

    /// Whether this round has taken in what one append can hold.
    pub(crate) fn is_round_full(&self) -> bool {
        self.touches >= TOUCHES_MAX
    }

    /// The windows to score, in the order their scores are to be [`judged`](Self::judge).
    pub(crate) fn take_due(&mut self) -> Vec<Due> {
        std::mem::take(&mut self.due)
    }

    /// Takes the score of a window.
    pub(crate) fn judge(&mut self, due: &Due, score: &Score, now: WallNanos) {
        let Self {
            model,
            sha256,
            outcome,
            ..
        } = self;
        outcome
            .scores
            .push(score_record(model, sha256, due, score, now));
        let alert = &mut self.assets[due.asset].alert;
        if let Some(transition) = alert.observe(score.value, &model.thresholds) {
            let record = alert_record(model, sha256, due, score.value, transition, now);
            let posted = Posted::new(model, due.asset, due.sequence, transition, record);
            outcome.changes.push(posted.post());
            outcome.alerts.push(posted);
        }
    }

    /// Ends a round in which every due window was judged: what to write, if it is time to.
    /// `stopping` writes whatever there is.
    pub(crate) fn finish_round(&mut self, stopping: bool) -> Option<Outcome> {
        debug_assert!(
            self.due.is_empty(),
            "a window that was not judged would be lost"
        );
        let must = !self.outcome.scores.is_empty()
            || self.touches >= TOUCHES_MAX
            || self.unsaved_records >= UNSAVED_RECORDS_MAX;
        let may = stopping && self.unsaved_records > 0;
        if !(must || may) {
            return None;
        }
        let mut outcome = std::mem::take(&mut self.outcome);
        for (index, asset) in self.assets.iter_mut().enumerate() {
            if asset.changed {
                outcome
                    .changes
                    .extend(state::save(&self.model, self.fingerprint, index, asset));
            }
        }
        let cursor = state::cursor(&self.model);
        for (stream, name) in self.model.streams().iter().enumerate() {
            if self.next[stream] != self.saved_next[stream] {
                outcome.changes.push(Change::Advance {
                    cursor: cursor.clone(),
                    stream: name.as_str().to_owned(),
                    next: self.next[stream],
                });
            }
        }
        self.saved_next.clone_from(&self.next);
        self.unsaved_records = 0;
        self.touches = 0;
        Some(outcome)
    }

    pub(crate) fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    pub(crate) fn alert(&self, asset: usize) -> AlertState {
        self.assets[asset].alert
    }
}

impl Tally {
    fn count(&mut self, taken: Taken, hole: bool) {
        self.holes += u64::from(hole);
        let counter = match taken {
            Taken::Held => return,
            Taken::Row | Taken::Due => &mut self.rows,
            Taken::Skipped(Skip::NoValue) => &mut self.no_value,
            Taken::Skipped(Skip::BadStatus) => &mut self.bad_status,
            Taken::Skipped(Skip::NotFinite) => &mut self.not_finite,
            Taken::Skipped(Skip::Unreadable) => &mut self.unreadable,
            Taken::Skipped(Skip::Stale) => &mut self.stale,
        };
        *counter += 1;
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
