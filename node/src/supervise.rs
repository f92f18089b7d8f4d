//! Keeping the parts of the node running, and knowing whether the whole still gets anywhere.

use serde::Serialize;
use skerry_store::Log;
use std::fmt::Display;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const RESTART_DELAY_MIN: Duration = Duration::from_secs(1);
const RESTART_DELAY_MAX: Duration = Duration::from_secs(60);
/// A part that ran this long has recovered: its next restart is quick again.
const RESTART_DELAY_RESET: Duration = Duration::from_secs(300);

/// How one part of the node fares.
#[derive(Debug)]
pub struct Part {
    name: String,
    running: AtomicBool,
    restarts_total: AtomicU64,
    last_error: Mutex<Option<String>>,
}

#[derive(Debug, Clone, Serialize)]
pub struct PartSnapshot {
    pub name: String,
    pub running: bool,
    pub restarts_total: u64,
    pub last_error: Option<String>,
}

impl Part {
    pub fn snapshot(&self) -> PartSnapshot {
        PartSnapshot {
            name: self.name.clone(),
            running: self.running.load(Ordering::Relaxed),
            restarts_total: self.restarts_total.load(Ordering::Relaxed),
            last_error: self.last_error().clone(),
        }
    }

    fn last_error(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a part fares, and the task that it runs in.
pub type Supervised = (Arc<Part>, JoinHandle<()>);

/// A supervised part: what `run` makes of the log and the stop signal, again after each failure.
pub fn part<F, E>(
    name: impl Into<String>,
    log: &Log,
    stop: &CancellationToken,
    mut run: impl FnMut(Log, CancellationToken) -> F + Send + 'static,
) -> Supervised
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Display + Send + 'static,
{
    let (log, stop_inside) = (log.clone(), stop.clone());
    supervise(name, stop.clone(), move || {
        run(log.clone(), stop_inside.clone())
    })
}

/// Runs what `start` makes until `stop`, and again after an error or a panic, with a pause that
/// doubles from one second to a minute. One part's trouble never ends another.
fn supervise<F, E>(
    name: impl Into<String>,
    stop: CancellationToken,
    mut start: impl FnMut() -> F + Send + 'static,
) -> Supervised
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Display + Send + 'static,
{
    let part = Arc::new(Part {
        name: name.into(),
        running: AtomicBool::new(true),
        restarts_total: AtomicU64::new(0),
        last_error: Mutex::new(None),
    });
    let watched = Arc::clone(&part);
    let task = tokio::spawn(async move {
        let mut delay = RESTART_DELAY_MIN;
        loop {
            let started = Instant::now();
            let why = match tokio::spawn(start()).await {
                Ok(Ok(())) if stop.is_cancelled() => break,
                Ok(Ok(())) => "ended without being asked to".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(join) => format!("panicked: {join}"),
            };
            watched.running.store(false, Ordering::Relaxed);
            tracing::error!(
                part = watched.name,
                "stopped: {why}; starting it again in {delay:?}"
            );
            *watched.last_error() = Some(why);
            if started.elapsed() >= RESTART_DELAY_RESET {
                delay = RESTART_DELAY_MIN;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(delay) => {}
            }
            delay = (delay * 2).min(RESTART_DELAY_MAX);
            watched.restarts_total.fetch_add(1, Ordering::Relaxed);
            watched.running.store(true, Ordering::Relaxed);
        }
        watched.running.store(false, Ordering::Relaxed);
    });
    (part, task)
}

/// Decides whether the log still gets anywhere: work that waits while no commit happens, for
/// longer than [`Progress::STALL_AFTER`], is a stall.
#[derive(Debug)]
pub struct Progress {
    commits_total: u64,
    since: Instant,
}

impl Progress {
    pub const STALL_AFTER: Duration = Duration::from_secs(30);

    pub fn new(now: Instant) -> Self {
        Self {
            commits_total: 0,
            since: now,
        }
    }

    /// True while there is progress, or nothing to do.
    pub fn observe(&mut self, now: Instant, commits_total: u64, queued: bool) -> bool {
        if !queued || commits_total != self.commits_total {
            self.commits_total = commits_total;
            self.since = now;
        }
        now.duration_since(self.since) < Self::STALL_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_is_healthy_and_a_stuck_queue_is_not() {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        let later = start + Progress::STALL_AFTER;
        assert!(
            progress.observe(later, 0, false),
            "nothing to do is no stall"
        );
        assert!(
            progress.observe(later, 0, true),
            "work that just came is no stall"
        );
        let stuck = later + Progress::STALL_AFTER;
        assert!(!progress.observe(stuck, 0, true));
        assert!(progress.observe(stuck, 1, true), "a commit is progress");
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_fails_or_panics_is_started_again() {
        let stop = CancellationToken::new();
        let runs = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&runs);
        let ended = stop.clone();
        let (part, task) = supervise("test", stop.clone(), move || {
            let run = counted.fetch_add(1, Ordering::Relaxed);
            let ended = ended.clone();
            async move {
                match run {
                    0 => Err("a fault"),
                    1 => panic!("a bug"),
                    _ => {
                        ended.cancelled().await;
                        Ok(())
                    }
                }
            }
        });
        while runs.load(Ordering::Relaxed) < 3 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(part.snapshot().restarts_total, 2);
        assert!(
            part.snapshot()
                .last_error
                .is_some_and(|why| why.contains("panicked"))
        );
        stop.cancel();
        task.await.unwrap();
        assert!(!part.snapshot().running);
    }
}
