//! A model's state machine: records in, windows to score out, and what to write for the scores.
//! Pure: no clock, no disk, no thread.
//!
//! **Once and only once.** Everything this machine knows (held values, windows, alert states)
//! is in the catalog as of the model's cursors, because state and cursors change in the same
//! append as the scores they led to. After a crash the machine is back at the last such append,
//! reads on from its cursors, and comes to no score twice: none was written since. Streams may
//! interleave differently the second time, which no reader can tell, for the same reason.
//!
//! Alerts and other events live in another stream than scores, and one append writes one stream.
//! So an event is first posted in the catalog, with the score that tipped it, and taken out of there by the
//! append that writes it to its stream (see [`Outcome`]).

use crate::alert::Severity;
use crate::asset::{Asset, LateValues, Skip, Taken, Unfit, Values};
use crate::binding::{Bindings, Payload};
use crate::config::Model;
use crate::derived::{
    Due, EventKind, Provenance, alert_record, drift_record, late_record, score_record,
};
use crate::drift::{Drift, Reference};
use crate::feature::Features;
use crate::runner::Score;
use crate::state::{self, Posted};
use crate::window::Mark;
use bytes::Bytes;
use skerry_store::{Change, Offset, Record, WallNanos};
use std::collections::VecDeque;

/// Records that may be read again after a crash when none of them led to a score.
const UNSAVED_RECORDS_MAX: usize = 4_096;

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
    pub(crate) no_successor: u64,
    pub(crate) late: u64,
    pub(crate) ahead: u64,
    pub(crate) set_back: u64,
    pub(crate) undefined: u64,
    pub(crate) overflow: u64,
    /// Values that were not good, whether they cost a row or not.
    pub(crate) bad_values: u64,
}

/// What is to be written after a round: first `scores` and `changes` in one append, then the
/// `events` in another, which also takes them out of the outbox.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) scores: Vec<Record>,
    pub(crate) changes: Vec<Change>,
    pub(crate) events: Vec<Posted>,
}

#[derive(Debug)]
pub(crate) struct Engine {
    model: Model,
    provenance: Provenance,
    /// Without one, nothing is watched for drift.
    reference: Option<Reference>,
    fingerprint: u64,
    touches_max: usize,
    bindings: Bindings,
    features: Features,
    assets: Vec<Asset>,
    /// On a grid, those that may have points to close.
    pending: VecDeque<usize>,
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
        provenance: Provenance,
        reference: Option<Reference>,
        cursors: Vec<Offset>,
        entries: &[(Bytes, Bytes)],
    ) -> (Self, Vec<Change>) {
        let fingerprint = state::fingerprint(&model);
        let reference = reference.filter(|_| model.drift.is_some());
        let mut assets: Vec<Asset> = model.assets.iter().map(|_| Asset::new(&model)).collect();
        for asset in &mut assets {
            asset.drift = reference.as_ref().map(Drift::new);
        }
        let obsolete = state::restore(&model, fingerprint, &mut assets, entries);
        let pending = |index: &usize| assets[*index].is_pending();
        let engine = Self {
            bindings: Bindings::new(&model),
            features: Features::default(),
            pending: (0..assets.len()).filter(pending).collect(),
            touches_max: state::touches_max(&model).expect("a checked model fits an append"),
            fingerprint,
            provenance,
            reference,
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

    /// Takes the next record of an input stream; not while something [is left](Self::has_left).
    pub(crate) fn take(&mut self, stream: usize, offset: Offset, record: &Record) {
        debug_assert!(offset >= self.next[stream], "records come in order");
        debug_assert!(!self.has_left(), "points are closed in the order of time");
        self.next[stream] = offset.plus(1);
        self.unsaved_records += 1;
        self.tally.records += 1;
        let targets = self.bindings.targets(stream, record).to_vec();
        if targets.is_empty() {
            return;
        }
        let payload = Payload::of(record);
        let mark = Mark {
            offset,
            time: record.event_time(),
        };
        let mut values = Vec::new();
        for target in targets {
            values.clear();
            let read = payload.read(&self.model, target.input, &mut self.features, &mut values);
            self.tally.bad_values += u64::from(read.is_err());
            let asset = &mut self.assets[target.asset];
            if self.pending.back() != Some(&target.asset) {
                let set_back = asset.arrived(&self.model, record.ingest_time);
                self.tally.set_back += u64::from(set_back);
                self.touches += 1;
                self.pending.push_back(target.asset);
            }
            let new = Values {
                columns: target.columns,
                values: read.map(|()| &values[..]),
                mark,
                taken_in: record.ingest_time,
            };
            let taken = asset.take(&self.model, &new);
            self.note(target.asset, taken);
        }
        self.resume();
    }

    /// Closes the points of the grid that can be, as far as one append holds what comes of them.
    pub(crate) fn resume(&mut self) {
        while let Some(&asset) = self.pending.front() {
            if self.is_round_full() {
                return;
            }
            match self.assets[asset].close(&self.model) {
                Some(taken) => {
                    self.touches += 1;
                    self.note(asset, taken);
                }
                None => drop(self.pending.pop_front()),
            }
        }
    }

    /// Whether points of the grid are still to be closed, by [`Engine::resume`].
    pub(crate) fn has_left(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether this round has taken in what one append can hold.
    pub(crate) fn is_round_full(&self) -> bool {
        self.touches >= self.touches_max
    }

    /// Follows up on what came of an asset's values.
    fn note(&mut self, index: usize, taken: Taken) {
        self.tally.count(taken);
        let Taken::Row { due, .. } = taken else {
            return;
        };
        self.watch(index);
        if !due {
            return;
        }
        let reports = self.model.grid().is_some_and(|grid| grid.report_late);
        let asset = &mut self.assets[index];
        match asset.tensor(&self.model, &mut self.features) {
            Ok(tensor) => {
                self.due.push(Due {
                    asset: index,
                    sequence: asset.sequence,
                    window: tensor.values,
                    oldest: tensor.oldest,
                    newest: tensor.newest,
                    late: match reports {
                        true => std::mem::take(&mut asset.late),
                        false => LateValues::default(),
                    },
                });
                asset.sequence += 1;
            }
            Err(Unfit::Undefined) => self.tally.undefined += 1,
            Err(Unfit::Overflow) => self.tally.overflow += 1,
        }
    }

    /// Takes a new row as to drift.
    fn watch(&mut self, index: usize) {
        let Some(reference) = &self.reference else {
            return;
        };
        let asset = &mut self.assets[index];
        let Some(shift) = asset.drifts(&self.model, reference) else {
            return;
        };
        let (model, window) = (&self.model, asset.window());
        let rows = window.total().min(model.rows as u64) as usize;
        let marks = (window.mark(rows), window.mark(1));
        // Dated by its last row: what is read again after a crash must not differ.
        let now = window.mark(1).time;
        let record = drift_record(model, &self.provenance, index, &shift, marks, now);
        let kind = EventKind::Drift {
            raised: shift.raised,
        };
        let posted = Posted::new(model, index, window.total(), kind, record);
        self.outcome.post(posted);
    }

    /// The windows to score, in the order their scores are to be [`judged`](Self::judge).
    pub(crate) fn take_due(&mut self) -> Vec<Due> {
        std::mem::take(&mut self.due)
    }

    /// Takes the score of a window.
    pub(crate) fn judge(&mut self, due: &Due, score: &Score, now: WallNanos) {
        let Self {
            model,
            provenance,
            outcome,
            ..
        } = self;
        outcome
            .scores
            .push(score_record(model, provenance, due, score, now));
        let (alerting, at) = (&model.alerting, due.newest.time);
        let others = alerting.rate_all.map_or(0, |limit| {
            let others = self.assets.iter().enumerate();
            let others = others.filter(|(asset, _)| *asset != due.asset);
            others
                .map(|(_, asset)| asset.alert.told_near(at, limit.per))
                .sum()
        });
        let alert = &mut self.assets[due.asset].alert;
        let judged = alerting.judged(score.value, score.class.as_deref());
        if let Some(transition) = alert.observe(judged, at, alerting, others) {
            let record = alert_record(model, provenance, due, score, transition, now);
            let kind = EventKind::Alert(transition.change);
            outcome.post(Posted::new(model, due.asset, due.sequence, kind, record));
        }
        if due.late.count > 0 {
            let record = late_record(model, provenance, due, now);
            let posted = Posted::new(model, due.asset, due.sequence, EventKind::Late, record);
            outcome.post(posted);
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
            || !self.outcome.events.is_empty()
            || self.is_round_full()
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

    /// The severity of the asset's alert that stands, and whether its inputs have drifted.
    pub(crate) fn standing(&self, asset: usize) -> (Option<Severity>, bool) {
        let asset = &self.assets[asset];
        let drifted = asset.drift.as_ref().is_some_and(Drift::is_raised);
        (asset.alert.severity(&self.model.alerting), drifted)
    }
}

impl Outcome {
    fn post(&mut self, posted: Posted) {
        self.changes.push(posted.post());
        self.events.push(posted);
    }
}

impl Tally {
    fn count(&mut self, taken: Taken) {
        let (counter, count) = match taken {
            Taken::Held => return,
            Taken::Row { hole, .. } => {
                self.holes += u64::from(hole);
                (&mut self.rows, 1)
            }
            Taken::Late => (&mut self.late, 1),
            Taken::Ahead => (&mut self.ahead, 1),
            Taken::Skipped(skip, rows) => (self.skipped(skip), rows),
        };
        *counter += count;
    }

    fn skipped(&mut self, skip: Skip) -> &mut u64 {
        match skip {
            Skip::NoValue => &mut self.no_value,
            Skip::BadStatus => &mut self.bad_status,
            Skip::NotFinite => &mut self.not_finite,
            Skip::Unreadable => &mut self.unreadable,
            Skip::Stale => &mut self.stale,
            Skip::NoSuccessor => &mut self.no_successor,
        }
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
