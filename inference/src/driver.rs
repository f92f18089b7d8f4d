//! One task per model: follows the log, has windows scored, writes what comes of them.
//!
//! ```text
//!   log ──► merge ──► engine ──► host  ───► engine ──► append scores + state + cursors
//!                     (rows)     (child)    (alerts)   append alerts, emptying the outbox
//! ```

use crate::config::{Config, Model};
use crate::derived::{Due, EventKind, Provenance};
use crate::drift::Reference;
use crate::engine::{Engine, Outcome};
use crate::error::Error;
use crate::isolation::{Host, Loaded, Worker};
use crate::lifecycle::{Life, Surroundings};
use crate::merge::{Heads, Merge};
use crate::shadow::Scored;
use crate::state::{self, OUTBOX_BUCKET, Posted, WINDOW_BUCKET};
use crate::status::{Entry, State, Status};
use skerry_store::{Append, Change, Class, Log, Offset, Record, StreamName, WallNanos};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) const RETRY_DELAY_MIN: Duration = Duration::from_millis(100);
pub(crate) const RETRY_DELAY_MAX: Duration = Duration::from_secs(10);
/// Deletions in one append: their keys take at most 150 bytes each.
const CHANGES_MAX: usize = 1_000;

/// Runs all models until `stop`. Returns early only when the log can no longer be used; what is
/// wrong with one model disables that model, visibly, and touches nothing else.
pub fn run(
    config: Config,
    log: Log,
    status: Arc<Status>,
    stop: CancellationToken,
) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> {
    // Boxed, so that it is compiled once and not anew by each crate that polls it.
    Box::pin(run_all(config, log, status, stop))
}

async fn run_all(
    config: Config,
    log: Log,
    status: Arc<Status>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let mut tasks = JoinSet::new();
    let around = Surroundings {
        log,
        host: Host::new(config.host.clone()),
        command: config.host,
        versions: config.versions,
        events: config.events,
    };
    for model in config.models {
        let life = Life {
            entry: status.entry(&model),
            model,
            around: around.clone(),
            stop: stop.clone(),
        };
        tasks.spawn(life.run());
    }
    drop(around);
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(result) => result?,
            Err(join) => match join.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => break,
            },
        }
    }
    stop.cancelled().await;
    Ok(())
}

/// What a version's package tells of it besides the model.
#[derive(Debug, Clone, Default)]
pub(crate) struct Package {
    pub(crate) provenance: Provenance,
    /// What its inputs looked like in training.
    pub(crate) reference: Option<Reference>,
}

impl Package {
    /// Holds what was loaded against the binding.
    pub(crate) fn of(model: &Model, loaded: &Loaded) -> Result<Self, Error> {
        let reference = loaded.reference.as_deref().map(|text| {
            let read = Reference::parse(text, model.columns());
            read.map_err(|reason| Error::Manifest {
                path: model.file.clone(),
                reason: format!("reference: {reason}"),
            })
        });
        Ok(Self {
            provenance: Provenance {
                sha256: loaded.sha256.clone(),
                version: loaded.version.clone(),
            },
            reference: reference.transpose()?,
        })
    }
}

/// One loaded model until `stop`, or with what it cannot go on after. An error is the log's, and
/// final.
pub(crate) async fn follow(
    model: &Model,
    log: &Log,
    entry: &Entry,
    worker: &Worker,
    package: &Package,
    stop: &CancellationToken,
) -> Result<Option<Error>, Error> {
    let session = Session {
        model,
        log,
        entry,
        worker,
        package,
    };
    let mut delay = RETRY_DELAY_MIN;
    loop {
        let Err(error) = session.run(stop, &mut delay).await else {
            return Ok(None);
        };
        match cure(&error) {
            Cure::None => return Err(error),
            Cure::Restart => return Ok(Some(error)),
            Cure::Time => retry_after(model, entry, &error, delay),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(jittered(delay)) => {}
        }
        delay = (delay * 2).min(RETRY_DELAY_MAX);
    }
}

/// What helps against an error.
pub(crate) enum Cure {
    /// It passes by itself.
    Time,
    /// Something has to be changed first.
    Restart,
    /// The log is gone, and every model with it.
    None,
}

pub(crate) fn cure(error: &Error) -> Cure {
    match error {
        Error::Log(cause) => match cause.class() {
            Class::Retry | Class::Full => Cure::Time,
            Class::Reject => Cure::Restart,
            Class::Fatal => Cure::None,
        },
        // The box is short of memory or processes, which the models do not outlast alone.
        Error::Host { .. } => Cure::Time,
        _ => Cure::Restart,
    }
}

pub(crate) fn retry_after(model: &Model, entry: &Entry, error: &Error, delay: Duration) {
    tracing::warn!(model = model.name, "{error}; trying again in {delay:?}");
    entry.set(State::Retrying, Some(error.to_string()));
}

/// The model's cursors stay where they are: the next start goes on from there.
pub(crate) fn disable(model: &Model, entry: &Entry, error: &Error) {
    tracing::error!(
        model = model.name,
        "{error}; the model is disabled until another version is activated, or the next start"
    );
    entry.set(State::Disabled, Some(error.to_string()));
}

/// Models that fail together should not try again together.
pub(crate) fn jittered(delay: Duration) -> Duration {
    let noise = WallNanos::now().0.rem_euclid(1_000) as u32;
    delay.mul_f64(0.75) + delay.mul_f64(0.5) * noise / 1_000
}

/// From what the catalog holds to the first error. After one, the next session starts from the
/// catalog again: whether an append that failed took effect or not, that is the truth.
struct Session<'a> {
    model: &'a Model,
    log: &'a Log,
    entry: &'a Entry,
    worker: &'a Worker,
    package: &'a Package,
}

impl Session<'_> {
    async fn run(&self, stop: &CancellationToken, delay: &mut Duration) -> Result<(), Error> {
        let streams = self.model.streams();
        let mut heads = Heads::open(self.log, &streams)?;
        self.settle().await?;
        self.deliver_posted().await?;
        let cursors = self.cursors(&streams, &heads).await?;
        let mut merge = Merge::open(self.log, &streams, &cursors)?;
        let model = self.model.clone();
        let entries = self.scan(WINDOW_BUCKET).await?;
        let Package {
            provenance,
            reference,
        } = self.package.clone();
        let (mut engine, obsolete) = Engine::new(model, provenance, reference, cursors, &entries);
        for changes in obsolete.chunks(CHANGES_MAX) {
            self.append(&StreamName::catalog(), Vec::new(), changes.to_vec())
                .await?;
        }
        for asset in 0..self.model.assets.len() {
            let (severity, drifted) = engine.standing(asset);
            self.entry.standing(asset, severity, drifted);
        }
        self.entry.set(State::Running, None);
        loop {
            heads.mark();
            merge = blocking(move || merge.fill().map(|()| merge)).await?;
            while !merge.is_drained() || engine.has_left() {
                self.round(&mut engine, &mut merge, stop.is_cancelled())
                    .await?;
                *delay = RETRY_DELAY_MIN;
            }
            if stop.is_cancelled() {
                return self.round(&mut engine, &mut merge, true).await;
            }
            if merge.is_at_head() {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = heads.moved() => {}
                }
            }
        }
    }

    /// Takes in what one append can hold, scores what is due, and writes what came of it.
    async fn round(
        &self,
        engine: &mut Engine,
        merge: &mut Merge,
        stopping: bool,
    ) -> Result<(), Error> {
        engine.resume();
        while !engine.is_round_full()
            && let Some((stream, offset, record)) = merge.pop()
        {
            engine.take(stream, offset, &record);
        }
        self.entry.count(&engine.take_tally(), merge.take_missing());
        let mut scored = Vec::new();
        let beside = self.entry.beside();
        for mut due in engine.take_due() {
            let window = std::mem::take(&mut due.window);
            let copies: Vec<_> = beside.iter().map(|_| window.clone()).collect();
            let answer = self.worker.run(window).await?;
            for (shadow, window) in beside.iter().zip(copies) {
                shadow.offer(Scored {
                    window,
                    live: answer.clone(),
                    time: due.newest.time,
                });
            }
            self.entry.took(answer.took);
            engine.judge(&due, &answer.score, WallNanos::now());
            scored.push((due, answer.score.value));
        }
        if let Some(outcome) = engine.finish_round(stopping) {
            let Outcome {
                scores,
                changes,
                events,
            } = outcome;
            self.append(&self.model.scores, scores, changes).await?;
            self.show(engine, &scored);
            if !events.is_empty() {
                self.deliver(events).await?;
            }
        }
        Ok(())
    }

    fn show(&self, engine: &Engine, scored: &[(Due, f32)]) {
        for (due, score) in scored {
            self.entry.scored(due.asset, *score, due.newest.time);
        }
        for asset in 0..self.model.assets.len() {
            let (severity, drifted) = engine.standing(asset);
            self.entry.standing(asset, severity, drifted);
        }
    }

    /// Writes events to the stream of alerts and takes them out of the outbox.
    async fn deliver(&self, events: Vec<Posted>) -> Result<(), Error> {
        let changes = events.iter().map(Posted::delivered).collect();
        let kinds: Vec<EventKind> = events.iter().map(|event| event.kind).collect();
        let records = events.into_iter().map(|event| event.record).collect();
        self.append(&self.model.alerts, records, changes).await?;
        self.entry.told(&kinds);
        Ok(())
    }

    /// Waits for what is queued. A task that was cancelled may have left an append behind that
    /// is not committed yet, and the catalog must not be read before it is.
    async fn settle(&self) -> Result<(), Error> {
        let nothing = Change::Delete {
            bucket: WINDOW_BUCKET.to_owned(),
            key: state::prefix(self.model).into(),
        };
        self.append(&StreamName::catalog(), Vec::new(), vec![nothing])
            .await
    }

    /// What a crash left between a score and its alert.
    async fn deliver_posted(&self) -> Result<(), Error> {
        let entries = self.scan(OUTBOX_BUCKET).await?;
        let posted = entries
            .into_iter()
            .filter_map(|(key, value)| Posted::read(key, &value));
        let posted: Vec<_> = posted.collect();
        if posted.is_empty() {
            Ok(())
        } else {
            self.deliver(posted).await
        }
    }

    /// Where the model goes on in each stream. A new model begins with what comes from now on,
    /// and holds that place from its first moment, so that a crash before its first score
    /// skips nothing.
    async fn cursors(&self, streams: &[StreamName], heads: &Heads) -> Result<Vec<Offset>, Error> {
        let (log, cursor) = (self.log.clone(), state::cursor(self.model));
        let (names, name) = (streams.to_vec(), cursor.clone());
        let kept = blocking(move || {
            names
                .iter()
                .map(|stream| log.cursor(&name, stream))
                .collect::<Result<Vec<_>, _>>()
        })
        .await?;
        let mut changes = Vec::new();
        let mut offsets = Vec::new();
        for ((stream, kept), head) in streams.iter().zip(kept).zip(heads.offsets()) {
            offsets.push(kept.unwrap_or(head));
            if kept.is_none() {
                changes.push(Change::Advance {
                    cursor: cursor.clone(),
                    stream: stream.as_str().to_owned(),
                    next: head,
                });
            }
        }
        if !changes.is_empty() {
            self.append(&StreamName::catalog(), Vec::new(), changes)
                .await?;
        }
        Ok(offsets)
    }

    /// This model's entries of a bucket.
    async fn scan(&self, bucket: &'static str) -> Result<Vec<(bytes::Bytes, bytes::Bytes)>, Error> {
        let (log, prefix) = (self.log.clone(), state::prefix(self.model));
        blocking(move || log.scan(bucket, &prefix)).await
    }

    async fn append(
        &self,
        stream: &StreamName,
        records: Vec<Record>,
        changes: Vec<Change>,
    ) -> Result<(), Error> {
        // A stream of records takes them only with records.
        let stream = if records.is_empty() {
            StreamName::catalog()
        } else {
            stream.clone()
        };
        self.log
            .append(Append {
                stream,
                records,
                changes,
            })
            .await?;
        Ok(())
    }
}

/// Reads the disk off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, skerry_store::Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.expect("the log's readers do not panic")?)
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
