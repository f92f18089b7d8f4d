//! A candidate beside the live model: scores the same windows in a host of its own, and is
//! compared. Nothing it says goes anywhere but into its [`ShadowReport`].

use crate::error::Error;
use crate::isolation::Worker;
use crate::runner::Answer;
use serde::Serialize;
use skerry_store::WallNanos;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// Windows that wait for the shadow. It must never hold up the live model, so what comes while so
/// many wait is passed over.
const WINDOWS_MAX: usize = 64;
/// Run times kept for quantiles.
const RUNS_KEPT: usize = 1_023;

/// What a shadow came to so far; since the node started, or it was chosen.
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
    /// Windows in which one was at or above the threshold and the other below.
    pub disagreements_total: u64,
    pub live_above_total: u64,
    pub shadow_above_total: u64,
    pub live_p50_us: Option<f64>,
    pub live_p99_us: Option<f64>,
    pub shadow_p50_us: Option<f64>,
    pub shadow_p99_us: Option<f64>,
    /// Why it is not run any more.
    pub failed: Option<String>,
}

/// A window that the live model has scored.
#[derive(Debug)]
pub(crate) struct Scored {
    pub(crate) window: Vec<f32>,
    pub(crate) live: Answer,
    pub(crate) time: WallNanos,
}

#[derive(Debug)]
pub(crate) struct Shadow {
    windows: mpsc::Sender<Scored>,
    figures: Arc<Mutex<Figures>>,
}

#[derive(Debug)]
struct Figures {
    report: ShadowReport,
    difference_sum: f64,
    live: heapless::HistoryBuf<Duration, RUNS_KEPT>,
    shadow: heapless::HistoryBuf<Duration, RUNS_KEPT>,
}

impl Shadow {
    /// Ends, with its worker, when dropped.
    pub(crate) fn start(worker: Worker, version: String, sha256: String, threshold: f32) -> Self {
        let (windows, queue) = mpsc::channel(WINDOWS_MAX);
        let report = ShadowReport {
            version,
            sha256,
            since_ms: WallNanos::now().millis(),
            ..ShadowReport::default()
        };
        let figures = Arc::new(Mutex::new(Figures {
            report,
            difference_sum: 0.0,
            live: heapless::HistoryBuf::new(),
            shadow: heapless::HistoryBuf::new(),
        }));
        tokio::spawn(compare(worker, threshold, queue, Arc::clone(&figures)));
        Self { windows, figures }
    }

    /// Never waits.
    pub(crate) fn offer(&self, scored: Scored) {
        if self.windows.try_send(scored).is_err() {
            lock(&self.figures).report.windows_skipped_total += 1;
        }
    }

    pub(crate) fn report(&self) -> ShadowReport {
        let figures = lock(&self.figures);
        let mut report = figures.report.clone();
        (report.live_p50_us, report.live_p99_us) = quantiles(figures.live.to_vec());
        (report.shadow_p50_us, report.shadow_p99_us) = quantiles(figures.shadow.to_vec());
        report
    }
}

async fn compare(
    worker: Worker,
    threshold: f32,
    mut queue: mpsc::Receiver<Scored>,
    figures: Arc<Mutex<Figures>>,
) {
    while let Some(Scored { window, live, time }) = queue.recv().await {
        match worker.run(window).await {
            Ok(shadow) => lock(&figures).take(&live, &shadow, threshold, time),
            // The box was short of something; the window is as good as passed over.
            Err(Error::Host { .. }) => lock(&figures).report.windows_skipped_total += 1,
            Err(error) => {
                tracing::warn!("a shadow is dropped, the live model goes on: {error}");
                lock(&figures).report.failed = Some(error.to_string());
                return;
            }
        }
    }
}

impl Figures {
    fn take(&mut self, live: &Answer, shadow: &Answer, threshold: f32, time: WallNanos) {
        self.live.write(live.took);
        self.shadow.write(shadow.took);
        let (one, other) = (live.score.value, shadow.score.value);
        let difference = (f64::from(one) - f64::from(other)).abs();
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
        let (live_above, shadow_above) = (one >= threshold, other >= threshold);
        report.live_above_total += u64::from(live_above);
        report.shadow_above_total += u64::from(shadow_above);
        report.disagreements_total += u64::from(live_above != shadow_above);
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
