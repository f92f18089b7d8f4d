//! Another version beside the live one: scores the same windows in a host of its own, and is
//! compared. Nothing it says goes anywhere but into its [`ShadowReport`], and, where it ran before
//! the live one, into the verdict on that, see `canary`.

use crate::alert::Alerting;
use crate::canary::{CanaryReport, Phase, Progress, Verdict, labels_differ};
use crate::error::Error;
use crate::isolation::Worker;
use crate::runner::Answer;
use serde::Serialize;
use skerry_store::WallNanos;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Windows that wait for the shadow. It must never hold up the live model, so what comes while so
/// many wait is passed over.
const WINDOWS_MAX: usize = 64;
/// Run times kept for quantiles.
const RUNS_KEPT: usize = 1_023;

/// What a shadow came to so far; since the node started, or it was chosen. Of a version on trial
/// the shadow is the version before.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ShadowReport {
    pub version: String,
    pub sha256: String,
    pub since_ms: i64,
    /// Windows that both scored.
    pub windows_total: u64,
    /// Windows that it was not asked about, because it was behind.
    pub windows_skipped_total: u64,
    pub difference_mean: f64,
    pub difference_max: f64,
    /// Event time of the end of the window where they differed most.
    pub difference_max_time_ms: Option<i64>,
    /// Windows in which one was at or beyond the threshold and the other was not.
    pub disagreements_total: u64,
    /// Windows in which both gave a label, and not the same.
    pub classes_differing_total: u64,
    pub live_above_total: u64,
    pub shadow_above_total: u64,
    pub live_p50_us: Option<f64>,
    pub live_p99_us: Option<f64>,
    pub shadow_p50_us: Option<f64>,
    pub shadow_p99_us: Option<f64>,
    /// Why it is not run, or not any more.
    pub failed: Option<String>,
    /// If the live version is on trial against it.
    pub canary: Option<CanaryReport>,
}

/// A window that the live model has scored.
#[derive(Debug)]
pub(crate) struct Scored {
    pub(crate) window: Vec<f32>,
    pub(crate) live: Answer,
    pub(crate) time: WallNanos,
}

/// What is to run beside the live version, and why.
#[derive(Debug)]
pub(crate) struct Beside {
    pub(crate) version: String,
    pub(crate) sha256: String,
    pub(crate) alerting: Alerting,
    /// Where the live version is on trial against it.
    pub(crate) phase: Option<Phase>,
}

#[derive(Debug)]
pub(crate) struct Shadow {
    windows: mpsc::Sender<Scored>,
    figures: Arc<Mutex<Figures>>,
    verdict: watch::Receiver<Option<Verdict>>,
}

#[derive(Debug)]
struct Figures {
    report: ShadowReport,
    difference_sum: f64,
    live: heapless::HistoryBuf<Duration, RUNS_KEPT>,
    shadow: heapless::HistoryBuf<Duration, RUNS_KEPT>,
    alerting: Alerting,
    started: Instant,
    phase: Option<Phase>,
}

impl Shadow {
    /// Ends, with its worker, when dropped, or with the verdict.
    pub(crate) fn start(worker: Worker, beside: Beside) -> Self {
        let (windows, queue) = mpsc::channel(WINDOWS_MAX);
        let (told, verdict) = watch::channel(None);
        let figures = Arc::new(Mutex::new(Figures::new(beside)));
        tokio::spawn(compare(worker, queue, Arc::clone(&figures), told));
        Self {
            windows,
            figures,
            verdict,
        }
    }

    /// One that is wanted and cannot run.
    pub(crate) fn refused(beside: Beside, reason: String) -> Self {
        let mut figures = Figures::new(beside);
        figures.report.failed = Some(reason);
        Self {
            windows: mpsc::channel(1).0,
            figures: Arc::new(Mutex::new(figures)),
            verdict: watch::channel(None).1,
        }
    }

    /// Never waits.
    pub(crate) fn offer(&self, scored: Scored) {
        if self.windows.try_send(scored).is_err() {
            lock(&self.figures).report.windows_skipped_total += 1;
        }
    }

    /// What the trial of the live version came to, once it has.
    pub(crate) async fn verdict(&self) -> Verdict {
        let mut verdict = self.verdict.clone();
        let told = verdict.wait_for(Option::is_some).await;
        let told = told.ok().and_then(|told| (*told).clone());
        match told {
            Some(verdict) => verdict,
            None => std::future::pending().await,
        }
    }

    /// How far the trial of the live version is.
    pub(crate) fn progress(&self) -> Option<Progress> {
        let figures = lock(&self.figures);
        figures.progress()
    }

    pub(crate) fn report(&self) -> ShadowReport {
        let figures = lock(&self.figures);
        let mut report = figures.report.clone();
        (report.live_p50_us, report.live_p99_us) = quantiles(figures.live.to_vec());
        (report.shadow_p50_us, report.shadow_p99_us) = quantiles(figures.shadow.to_vec());
        report.canary = figures.phase.as_ref().map(Phase::report);
        report
    }
}

async fn compare(
    worker: Worker,
    mut queue: mpsc::Receiver<Scored>,
    figures: Arc<Mutex<Figures>>,
    told: watch::Sender<Option<Verdict>>,
) {
    let verdict = loop {
        // Before the first window too: a trial that goes on after a restart may allow less now.
        let left = {
            let figures = lock(&figures);
            if let Some(verdict) = figures.verdict() {
                break verdict;
            }
            figures.left()
        };
        let Ok(scored) = tokio::time::timeout(left, queue.recv()).await else {
            continue;
        };
        let Some(Scored { window, live, time }) = scored else {
            return;
        };
        match worker.run(window).await {
            Ok(shadow) => lock(&figures).take(&live, &shadow, time),
            // The box was short of something; the window is as good as passed over.
            Err(Error::Host { .. }) => lock(&figures).report.windows_skipped_total += 1,
            Err(error) => {
                tracing::warn!("a shadow is dropped, the live model goes on: {error}");
                lock(&figures).report.failed = Some(error.to_string());
                break Verdict::Void(error.to_string());
            }
        }
    };
    // Without a trial nobody waits for it.
    let _ = told.send(Some(verdict));
}

impl Figures {
    fn new(beside: Beside) -> Self {
        Self {
            report: ShadowReport {
                version: beside.version,
                sha256: beside.sha256,
                since_ms: WallNanos::now().millis(),
                ..ShadowReport::default()
            },
            difference_sum: 0.0,
            live: heapless::HistoryBuf::new(),
            shadow: heapless::HistoryBuf::new(),
            alerting: beside.alerting,
            started: Instant::now(),
            phase: beside.phase,
        }
    }

    fn take(&mut self, live: &Answer, shadow: &Answer, time: WallNanos) {
        self.live.write(live.took);
        self.shadow.write(shadow.took);
        let (one, other) = (&live.score, &shadow.score);
        let difference = (f64::from(one.value) - f64::from(other.value)).abs();
        let report = &mut self.report;
        report.windows_total += 1;
        self.difference_sum += difference;
        #[expect(clippy::cast_precision_loss, reason = "no node scores 2^52 windows")]
        let windows = report.windows_total as f64;
        report.difference_mean = self.difference_sum / windows;
        if difference >= report.difference_max {
            report.difference_max = difference;
            report.difference_max_time_ms = Some(time.millis());
        }
        let (live_above, shadow_above) = (self.alerting.alarms(one), self.alerting.alarms(other));
        report.live_above_total += u64::from(live_above);
        report.shadow_above_total += u64::from(shadow_above);
        report.disagreements_total += u64::from(live_above != shadow_above);
        report.classes_differing_total += u64::from(labels_differ(one, other));
        if let Some(phase) = &mut self.phase {
            phase.take(one, other, &self.alerting, time);
        }
    }

    fn verdict(&self) -> Option<Verdict> {
        let phase = self.phase.as_ref()?;
        let verdict = phase.verdict(&self.alerting);
        verdict.or_else(|| self.left().is_zero().then(|| phase.expired()))
    }

    /// Of the time of a trial; forever without one.
    fn left(&self) -> Duration {
        let time_max = self.phase.as_ref().map(|phase| phase.canary.time_max);
        let spent = self.progress().map(|progress| progress.spent);
        time_max
            .unwrap_or(Duration::MAX)
            .saturating_sub(spent.unwrap_or_default())
    }

    fn progress(&self) -> Option<Progress> {
        let mut progress = self.phase.as_ref()?.progress;
        progress.spent += self.started.elapsed();
        Some(progress)
    }
}

/// The median and the 99th of a hundred, in microseconds.
pub(crate) fn quantiles(mut times: Vec<Duration>) -> (Option<f64>, Option<f64>) {
    times.sort_unstable();
    let at = |share: usize| {
        let last = times.len().checked_sub(1)?;
        Some((times[(times.len() * share / 100).min(last)].as_secs_f64() * 1e7).round() / 10.0)
    };
    (at(50), at(99))
}

/// Figures are only numbers: whatever a panicking writer left is still worth showing.
fn lock(figures: &Mutex<Figures>) -> MutexGuard<'_, Figures> {
    figures.lock().unwrap_or_else(PoisonError::into_inner)
}
