//! Running a model where it can hurt nobody: on a thread of its own, watched.
//!
//! ```text
//!   async task of the model                 thread `model-<name>`
//!   ───────────────────────                 ─────────────────────
//!   Worker::start ──────── load ──────────► reads, checks, optimises, runs golden cases
//!            ◄──────────── ready ───────────
//!   Worker::run ────────── window ────────► Runner::run, panics caught
//!            ◄──────────── score ───────────
//! ```
//!
//! A model that panics or answers nonsense gives a [`RunFault`]. One that never answers leaves its
//! thread behind, spinning: Rust cannot stop a thread. What a thread cannot contain, such as an
//! allocation without bound, needs a process of its own and is not contained here.

use crate::error::{Error, RunFault};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Long enough for a large model on a slow board; a file that takes longer is most likely one
/// that never finishes (one changed byte is enough for that).
pub(crate) const LOAD_TIME_MAX: Duration = Duration::from_secs(30);
/// For one window. Ten thousand times what the shipped model takes.
pub(crate) const RUN_TIME_MAX: Duration = Duration::from_secs(5);

/// Something that turns a window, row by row, into a score.
pub(crate) trait Runner {
    fn run(&mut self, window: &[f32]) -> Result<Score, String>;
}

/// What a model says of a window.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Score {
    pub(crate) value: f32,
    /// The label that a classifier gives beside it.
    pub(crate) class: Option<Arc<str>>,
}

impl From<f32> for Score {
    fn from(value: f32) -> Self {
        Self { value, class: None }
    }
}

struct Job {
    window: Vec<f32>,
    reply: oneshot::Sender<Result<Answer, RunFault>>,
}

/// A score and what it took.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) score: Score,
    pub(crate) took: Duration,
}

/// A loaded model on its thread. Ends the thread when dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    path: PathBuf,
    jobs: mpsc::Sender<Job>,
    run_time_max: Duration,
}

impl Worker {
    /// Loads on the new thread, so that nothing a file does can panic or stall the caller.
    /// `load` gives what else the caller wants to know beside the runner.
    pub(crate) async fn start<T: Send + 'static>(
        name: &str,
        path: &Path,
        load: impl FnOnce() -> Result<(Box<dyn Runner>, T), Error> + Send + 'static,
    ) -> Result<(Self, T), Error> {
        let (jobs, queue) = mpsc::channel(1);
        let (ready, loaded) = oneshot::channel();
        let file = path.to_owned();
        let thread = std::thread::Builder::new().name(format!("model-{name}"));
        let spawned = thread.spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|panic| {
                let reason = format!("loading it panicked: {}", words(&*panic));
                Err(Error::NotAModel { path: file, reason })
            });
            match result {
                Ok((runner, known)) => {
                    if ready.send(Ok(known)).is_ok() {
                        serve(runner, queue);
                    }
                }
                // The caller may have given up on us; then there is nobody to tell.
                Err(error) => drop(ready.send(Err(error))),
            }
        });
        spawned.map_err(|source| Error::Thread {
            model: name.to_owned(),
            source: Arc::new(source),
        })?;
        let known = tokio::time::timeout(LOAD_TIME_MAX, loaded)
            .await
            .map_err(|_| Error::LoadStalled {
                path: path.to_owned(),
                limit: LOAD_TIME_MAX,
            })?
            .expect("the thread always answers, it catches its panics")?;
        Ok((
            Self {
                path: path.to_owned(),
                jobs,
                run_time_max: RUN_TIME_MAX,
            },
            known,
        ))
    }

    /// Scores one window.
    pub(crate) async fn run(&self, window: Vec<f32>) -> Result<Answer, Error> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            // Both fail only if the thread is gone, which its last job then caused.
            self.jobs.send(Job { window, reply }).await.ok()?;
            answer.await.ok()
        };
        let answered = tokio::time::timeout(self.run_time_max, asked).await;
        let result = match answered {
            Ok(Some(result)) => result,
            Ok(None) => Err(RunFault::Failed("its thread has ended".to_owned())),
            Err(_) => Err(RunFault::Stalled(self.run_time_max)),
        };
        result.map_err(|fault| Error::Run {
            path: self.path.clone(),
            fault,
        })
    }
}

fn serve(mut runner: Box<dyn Runner>, mut queue: mpsc::Receiver<Job>) {
    while let Some(Job { window, reply }) = queue.blocking_recv() {
        let answer = run_caught(&mut *runner, &window);
        let panicked = matches!(answer, Err(RunFault::Panicked(_)));
        // Nobody waits any more if the node is stopping or gave up on this window.
        drop(reply.send(answer));
        if panicked {
            // What a panic left behind must not score anything else.
            return;
        }
    }
}

/// One score, whatever the model does short of never returning.
pub(crate) fn run_caught(runner: &mut dyn Runner, window: &[f32]) -> Result<Answer, RunFault> {
    let started = Instant::now();
    let score = catch_unwind(AssertUnwindSafe(|| runner.run(window)))
        .map_err(|panic| RunFault::Panicked(words(&*panic)))?
        .map_err(RunFault::Failed)?;
    if !score.value.is_finite() {
        return Err(RunFault::NotFinite(score.value));
    }
    Ok(Answer {
        score,
        took: started.elapsed(),
    })
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scripted<F>(F);

    impl<F: FnMut(&[f32]) -> Result<f32, String>> Runner for Scripted<F> {
        fn run(&mut self, window: &[f32]) -> Result<Score, String> {
            (self.0)(window).map(Score::from)
        }
    }

    async fn worker(run: impl FnMut(&[f32]) -> Result<f32, String> + Send + 'static) -> Worker {
        let load = || Ok((Box::new(Scripted(run)) as Box<dyn Runner>, ()));
        let (mut worker, ()) = Worker::start("test", Path::new("test.onnx"), load)
            .await
            .unwrap();
        worker.run_time_max = Duration::from_millis(200);
        worker
    }

    async fn fault(worker: &Worker) -> RunFault {
        match worker.run(vec![1.0]).await {
            Err(Error::Run { fault, .. }) => fault,
            other => panic!("expected a fault, got {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_score_comes_back() {
        let worker = worker(|window| Ok(window.iter().sum())).await;
        let answer = worker.run(vec![0.25, 0.5]).await.unwrap();
        assert_eq!(answer.score, Score::from(0.75));
    }

    #[tokio::test]
    async fn a_panic_is_a_fault_and_the_end_of_that_runner() {
        let worker = worker(|_| panic!("index out of range")).await;
        assert_eq!(
            fault(&worker).await,
            RunFault::Panicked("index out of range".to_owned())
        );
        assert!(matches!(fault(&worker).await, RunFault::Failed(_)));
    }

    #[tokio::test]
    async fn nonsense_and_refusals_are_faults() {
        let nan = worker(|_| Ok(f32::NAN)).await;
        assert!(matches!(fault(&nan).await, RunFault::NotFinite(_)));
        let refusing = worker(|_| Err("no".to_owned())).await;
        assert_eq!(fault(&refusing).await, RunFault::Failed("no".to_owned()));
    }

    #[tokio::test]
    async fn a_stall_is_a_fault_while_the_caller_goes_on() {
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let worker = worker(move |_| {
            let _ = wait.recv();
            Ok(0.0)
        })
        .await;
        assert!(matches!(fault(&worker).await, RunFault::Stalled(_)));
        drop(release);
    }

    #[tokio::test]
    async fn a_panic_while_loading_is_an_error() {
        let load = || -> Result<(Box<dyn Runner>, ()), Error> { panic!("bad graph") };
        let error = Worker::start("test", Path::new("bad.onnx"), load)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("bad.onnx"), "{error}");
        assert!(error.to_string().contains("bad graph"), "{error}");
    }
}
