//! How each model fares, for the status page and metrics.

use crate::alert::Severity;
use crate::config::Model;
use crate::derived::EventKind;
use crate::engine::Tally;
use crate::package::ModelInfo;
use crate::shadow::{Shadow, ShadowReport};
use crate::versions::{Asked, Choice, Command, Refused};
use serde::Serialize;
use skerry_store::WallNanos;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Run times kept for the median.
const RUNS_KEPT: usize = 255;

/// The state of all models. Empty until [`run`](crate::run) starts.
#[derive(Debug, Default)]
pub struct Status {
    models: Mutex<Vec<Arc<Entry>>>,
}

/// [`Status`] at one instant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Snapshot {
    pub models: Vec<ModelSnapshot>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Loading the file.
    Starting,
    Running,
    /// The log refused or failed; tried again by itself.
    Retrying,
    /// Will not score any more until another version is activated, or the node started again.
    Disabled,
}

/// One model. Totals count since the process started.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelSnapshot {
    pub name: String,
    pub file: String,
    pub state: State,
    /// Why it is disabled or retrying.
    pub reason: Option<String>,
    pub sha256: Option<String>,
    /// The activated version, or that of the configured package.
    pub version: Option<String>,
    /// What `rollback` goes back to, in words.
    pub previous: Option<String>,
    /// Why the version before it runs again, if it does.
    pub rolled_back: Option<String>,
    /// What the model took of its host's memory when it was loaded.
    pub held_bytes: Option<u64>,
    pub golden_cases: Option<usize>,
    /// See [`Model::memory_bytes`].
    pub memory_bytes: usize,
    pub records_total: u64,
    /// Records that were gone before the model read them.
    pub records_missing_total: u64,
    pub rows_total: u64,
    pub rows_skipped_total: RowsSkipped,
    /// Windows that started over because nothing came for longer than `stale_after`.
    pub holes_total: u64,
    pub scores_total: u64,
    /// Alerts raised.
    pub alerts_total: u64,
    pub alerts_cleared_total: u64,
    /// Assets whose inputs were found to have drifted.
    pub drifts_total: u64,
    pub values_left_out_total: ValuesLeftOut,
    pub windows_unfit_total: WindowsUnfit,
    /// Times that the node's clock was found to have been set back.
    pub clock_set_back_total: u64,
    pub run_p50_us: Option<f64>,
    pub run_max_us: Option<f64>,
    /// The version that runs beside it, if one does.
    pub shadow: Option<ShadowReport>,
    /// The version before, while the live one is on trial against it.
    pub canary: Option<ShadowReport>,
    pub assets: Vec<AssetSnapshot>,
}

/// Values that did not get as far as a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ValuesLeftOut {
    /// Not good, not finite, or no number.
    pub bad: u64,
    /// On a grid: came after the rows they belong to were made.
    pub late: u64,
    /// On a grid: dated ahead of the node's own clock by more than `stale_after`.
    pub ahead: u64,
}

/// Windows that were due and not scored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct WindowsUnfit {
    /// A feature has no value, as the kurtosis of equal values.
    pub undefined: u64,
    /// More rows came in the window's time than it may have.
    pub overflow: u64,
}

/// Rows that were not made, by the first reason found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RowsSkipped {
    pub no_value: u64,
    pub bad_status: u64,
    pub not_finite: u64,
    pub unreadable: u64,
    pub stale: u64,
    pub no_successor: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AssetSnapshot {
    pub asset: String,
    pub last_score: Option<f32>,
    /// Event time of the last row of the window that was scored last.
    pub last_score_time_ms: Option<i64>,
    pub alert: bool,
    /// Of the alert that stands.
    pub severity: Option<Severity>,
    /// Whether its inputs look other than in training.
    pub drift: bool,
}

impl Status {
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            models: lock(&self.models)
                .iter()
                .map(|entry| entry.snapshot())
                .collect(),
        }
    }

    /// Has a model's task follow a command. Says what it did, once that holds over a restart.
    pub async fn command(&self, model: &str, command: Command) -> Result<String, Refused> {
        let entry = lock(&self.models)
            .iter()
            .find(|entry| entry.name == model)
            .cloned();
        let entry = entry.ok_or_else(|| Refused::UnknownModel(model.to_owned()))?;
        let desk = lock(&entry.desk).clone().ok_or(Refused::NotNow)?;
        let (reply, answer) = oneshot::channel();
        let asked = Asked { command, reply };
        desk.send(asked).await.map_err(|_| Refused::NotNow)?;
        answer.await.map_err(|_| Refused::NotNow)?
    }

    /// The entry of a model: a new one, or the one it had before a restart of its task.
    pub(crate) fn entry(&self, model: &Model) -> Arc<Entry> {
        let mut models = lock(&self.models);
        if let Some(entry) = models.iter().find(|entry| entry.name == model.name) {
            return Arc::clone(entry);
        }
        let entry = Arc::new(Entry::new(model));
        models.push(Arc::clone(&entry));
        entry
    }
}

/// One model's part of the status; written by its task alone.
#[derive(Debug)]
pub(crate) struct Entry {
    name: String,
    inner: Mutex<Inner>,
    shadow: Mutex<Option<Arc<Shadow>>>,
    canary: Mutex<Option<Arc<Shadow>>>,
    /// Where commands are taken, while the model's task runs.
    desk: Mutex<Option<mpsc::Sender<Asked>>>,
}

#[derive(Debug)]
struct Inner {
    snapshot: ModelSnapshot,
    runs: heapless::HistoryBuf<Duration, RUNS_KEPT>,
    run_max: Duration,
}

impl Entry {
    fn new(model: &Model) -> Self {
        let assets = model.assets.iter().map(|asset| AssetSnapshot {
            asset: asset.clone(),
            last_score: None,
            last_score_time_ms: None,
            alert: false,
            severity: None,
            drift: false,
        });
        let snapshot = ModelSnapshot {
            name: model.name.clone(),
            file: model.file.display().to_string(),
            state: State::Starting,
            reason: None,
            sha256: None,
            version: None,
            previous: None,
            rolled_back: None,
            held_bytes: None,
            shadow: None,
            canary: None,
            golden_cases: None,
            memory_bytes: model.memory_bytes(),
            records_total: 0,
            records_missing_total: 0,
            rows_total: 0,
            rows_skipped_total: RowsSkipped::default(),
            holes_total: 0,
            scores_total: 0,
            alerts_total: 0,
            alerts_cleared_total: 0,
            drifts_total: 0,
            values_left_out_total: ValuesLeftOut::default(),
            windows_unfit_total: WindowsUnfit::default(),
            clock_set_back_total: 0,
            run_p50_us: None,
            run_max_us: None,
            assets: assets.collect(),
        };
        let runs = heapless::HistoryBuf::new();
        let inner = Inner {
            snapshot,
            runs,
            run_max: Duration::ZERO,
        };
        Self {
            name: model.name.clone(),
            inner: Mutex::new(inner),
            shadow: Mutex::default(),
            canary: Mutex::default(),
            desk: Mutex::default(),
        }
    }

    pub(crate) fn loaded(&self, info: &ModelInfo, choice: &Choice) {
        let mut inner = lock(&self.inner);
        let snapshot = &mut inner.snapshot;
        snapshot.sha256 = Some(info.sha256.clone());
        snapshot.version.clone_from(&info.version);
        snapshot.previous = choice.previous.as_ref().map(ToString::to_string);
        snapshot.held_bytes = Some(info.held_bytes);
        snapshot.golden_cases = info.golden_cases;
        if choice.previous.is_some() {
            snapshot.rolled_back = None;
        }
    }

    pub(crate) fn rolled_back(&self, reason: String) {
        lock(&self.inner).snapshot.rolled_back = Some(reason);
    }

    /// Commands for this model go to whom this is given.
    pub(crate) fn open_desk(&self) -> mpsc::Receiver<Asked> {
        let (desk, asked) = mpsc::channel(1);
        *lock(&self.desk) = Some(desk);
        asked
    }

    /// All that are to score what the live version scores.
    pub(crate) fn beside(&self) -> Vec<Arc<Shadow>> {
        [self.shadow(), self.canary()]
            .into_iter()
            .flatten()
            .collect()
    }

    pub(crate) fn shadow(&self) -> Option<Arc<Shadow>> {
        lock(&self.shadow).clone()
    }

    /// What the live version is on trial against.
    pub(crate) fn canary(&self) -> Option<Arc<Shadow>> {
        lock(&self.canary).clone()
    }

    pub(crate) fn set_shadow(&self, shadow: Option<Shadow>) {
        *lock(&self.shadow) = shadow.map(Arc::new);
    }

    pub(crate) fn set_canary(&self, reference: Option<Shadow>) {
        *lock(&self.canary) = reference.map(Arc::new);
    }

    pub(crate) fn set(&self, state: State, reason: Option<String>) {
        let mut inner = lock(&self.inner);
        inner.snapshot.state = state;
        inner.snapshot.reason = reason;
    }

    pub(crate) fn took(&self, run: Duration) {
        let mut inner = lock(&self.inner);
        inner.runs.write(run);
        inner.run_max = inner.run_max.max(run);
    }

    pub(crate) fn count(&self, tally: &Tally, missing: u64) {
        let mut inner = lock(&self.inner);
        let snapshot = &mut inner.snapshot;
        snapshot.records_total += tally.records;
        snapshot.records_missing_total += missing;
        snapshot.rows_total += tally.rows;
        snapshot.holes_total += tally.holes;
        let skipped = &mut snapshot.rows_skipped_total;
        skipped.no_value += tally.no_value;
        skipped.bad_status += tally.bad_status;
        skipped.not_finite += tally.not_finite;
        skipped.unreadable += tally.unreadable;
        skipped.stale += tally.stale;
        skipped.no_successor += tally.no_successor;
        let left_out = &mut snapshot.values_left_out_total;
        left_out.bad += tally.bad_values;
        left_out.late += tally.late;
        left_out.ahead += tally.ahead;
        let unfit = &mut snapshot.windows_unfit_total;
        unfit.undefined += tally.undefined;
        unfit.overflow += tally.overflow;
        snapshot.clock_set_back_total += tally.set_back;
    }

    /// A score is in its stream.
    pub(crate) fn scored(&self, asset: usize, score: f32, time: WallNanos) {
        let mut inner = lock(&self.inner);
        inner.snapshot.scores_total += 1;
        let asset = &mut inner.snapshot.assets[asset];
        asset.last_score = Some(score);
        asset.last_score_time_ms = Some(time.millis());
    }

    /// What stands of an asset, as a restart or a score left it.
    pub(crate) fn standing(&self, asset: usize, severity: Option<Severity>, drift: bool) {
        let asset = &mut lock(&self.inner).snapshot.assets[asset];
        (asset.alert, asset.severity, asset.drift) = (severity.is_some(), severity, drift);
    }

    /// Events are in their stream.
    pub(crate) fn told(&self, events: &[EventKind]) {
        let mut inner = lock(&self.inner);
        let snapshot = &mut inner.snapshot;
        for event in events {
            match event {
                EventKind::Alert(change) if change.is_alarm() => snapshot.alerts_total += 1,
                EventKind::Alert(_) => snapshot.alerts_cleared_total += 1,
                EventKind::Drift { raised: true } => snapshot.drifts_total += 1,
                EventKind::Drift { raised: false } | EventKind::Late => {}
            }
        }
    }

    fn snapshot(&self) -> ModelSnapshot {
        let inner = lock(&self.inner);
        let mut snapshot = inner.snapshot.clone();
        let mut runs = inner.runs.to_vec();
        drop(inner);
        runs.sort_unstable();
        snapshot.run_p50_us = runs.get(runs.len() / 2).map(micros);
        let inner = lock(&self.inner);
        snapshot.shadow = self.shadow().map(|shadow| shadow.report());
        snapshot.canary = self.canary().map(|reference| reference.report());
        snapshot.run_max_us = (!runs.is_empty()).then(|| micros(&inner.run_max));
        snapshot
    }
}

fn micros(duration: &Duration) -> f64 {
    (duration.as_secs_f64() * 1e7).round() / 10.0
}

/// A status is only numbers: whatever a panicking writer left is still worth showing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
