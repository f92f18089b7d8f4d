//! A model by itself, without a node: what it is, what it takes, and what it would have said.

use crate::config::{Budget, Config, Model};
use crate::driver::Package;
use crate::engine::{Engine, Outcome};
use crate::error::Error;
use crate::isolation::{Host, HostCommand, Order, probe};
use crate::output::Output;
use crate::package::ModelInfo;
use crate::shadow::quantiles;
use crate::versions::{Refused, Version, order_of};
use serde::Serialize;
use skerry_store::{Offset, Record, StreamName};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A model file or package to be looked at.
#[derive(Debug, Clone)]
pub struct Trial {
    pub file: PathBuf,
    /// Rows and columns of a window; a package, or a golden file beside the model, tells them too.
    pub shape: Option<(usize, usize)>,
    pub output: Output,
    pub budget: Budget,
}

/// What windows took, in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bench {
    pub windows: usize,
    /// In the model.
    pub run_p50_us: Option<f64>,
    pub run_p99_us: Option<f64>,
    /// To its process and back.
    pub whole_p50_us: Option<f64>,
    pub whole_p99_us: Option<f64>,
}

impl Trial {
    /// Loads it as a running node would, golden cases and all. Blocks until that is done; works
    /// inside and outside of an async runtime.
    pub fn check(&self, host: &HostCommand) -> Result<ModelInfo, Error> {
        let loaded = block_on(host, probe(host, self.order()))??;
        Ok(ModelInfo::from(loaded))
    }

    /// The same, and scores that many windows. Blocks.
    pub fn bench(&self, host: &HostCommand, windows: usize) -> Result<(ModelInfo, Bench), Error> {
        let benching = async {
            let (worker, loaded) = Host::new(host.clone()).load(self.order()).await?;
            let values = loaded.rows * loaded.columns;
            let (mut runs, mut wholes) = (Vec::new(), Vec::new());
            for number in 0..windows {
                let window = some_values(number, values);
                let started = Instant::now();
                let answer = worker.run(window).await?;
                wholes.push(started.elapsed());
                runs.push(answer.took);
            }
            let (run_p50_us, run_p99_us) = quantiles(runs);
            let (whole_p50_us, whole_p99_us) = quantiles(wholes);
            let bench = Bench {
                windows,
                run_p50_us,
                run_p99_us,
                whole_p50_us,
                whole_p99_us,
            };
            Ok((ModelInfo::from(loaded), bench))
        };
        block_on(host, benching)?
    }

    pub(crate) fn order(&self) -> Order {
        Order {
            file: self.file.clone(),
            shape: self.shape,
            output: self.output.clone(),
            ..Order::of(self.budget)
        }
    }
}

/// Between 0 and 1, others in each window: no model is as quick with zeros as with values.
#[expect(clippy::cast_precision_loss, reason = "any values do")]
fn some_values(number: usize, count: usize) -> Vec<f32> {
    let value = |at: usize| ((number * 31 + at * 7) % 101) as f32 / 100.0;
    (0..count).map(value).collect()
}

/// What a model would have written, record by record.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// In this stream.
    pub stream: StreamName,
    pub record: Record,
}

impl Config {
    /// Reads the version that is to run beside a model, if one is, as a running node would. Blocks.
    pub fn check_shadow(&self, model: &Model) -> Result<(), Refused> {
        let Some(shadow) = &model.shadow else {
            return Ok(());
        };
        let version = Version::Named(shadow.clone());
        let order = order_of(model, self.versions.as_deref(), &version)?;
        let loaded = block_on(&self.host, probe(&self.host, order))??;
        version.expect(&loaded)
    }
}

impl Model {
    /// Runs it over `records` of its input streams, by index in [`Model::streams`], in the order
    /// in which they were taken in; starts with empty windows, writes nothing. `file` is run in
    /// place of the configured one. Blocks.
    pub fn replay<E: From<Error> + Send>(
        &self,
        file: Option<PathBuf>,
        host: &HostCommand,
        records: impl Iterator<Item = Result<(usize, Offset, Record), E>> + Send,
        mut each: impl FnMut(Said) -> Result<(), E> + Send,
    ) -> Result<ModelInfo, E> {
        let mut order = self.order();
        order.file = file.unwrap_or(order.file);
        let replaying = async {
            let (worker, loaded) = Host::new(host.clone()).load(order).await?;
            let Package {
                provenance,
                reference,
            } = Package::of(self, &loaded)?;
            let start = vec![Offset::ZERO; self.streams().len()];
            let (mut engine, _) = Engine::new(self.clone(), provenance, reference, start, &[]);
            for next in records {
                let (stream, offset, record) = next?;
                engine.take(stream, offset, &record);
                loop {
                    for mut due in engine.take_due() {
                        let window = std::mem::take(&mut due.window);
                        let answer = worker.run(window).await?;
                        // As if it had been scored when the last record was taken in.
                        engine.judge(&due, &answer.score, record.ingest_time);
                    }
                    if let Some(outcome) = engine.finish_round(false) {
                        self.say(outcome, &mut each)?;
                    }
                    if !engine.has_left() {
                        break;
                    }
                    engine.resume();
                }
            }
            if let Some(outcome) = engine.finish_round(true) {
                self.say(outcome, &mut each)?;
            }
            Ok(ModelInfo::from(loaded))
        };
        block_on(host, replaying)?
    }

    fn say<E>(
        &self,
        outcome: Outcome,
        each: &mut impl FnMut(Said) -> Result<(), E>,
    ) -> Result<(), E> {
        let scores = outcome.scores.into_iter();
        let scores = scores.map(|record| (&self.scores, record));
        let events = outcome.events.into_iter();
        let events = events.map(|event| (&self.alerts, event.record));
        for (stream, record) in scores.chain(events) {
            let stream = stream.clone();
            each(Said { stream, record })?;
        }
        Ok(())
    }
}

/// Runs a future to its end on a thread and a runtime of its own.
fn block_on<T: Send>(
    host: &HostCommand,
    future: impl Future<Output = T> + Send,
) -> Result<T, Error> {
    let failed = |source: std::io::Error| Error::Host {
        program: host.program.clone(),
        reason: source.to_string(),
    };
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().map_err(failed)?;
    std::thread::scope(|scope| {
        // A runtime must not be entered from within another one's thread.
        let thread = std::thread::Builder::new().name("model-trial".to_owned());
        let running = thread.spawn_scoped(scope, move || {
            let done = runtime.block_on(future);
            // Nobody waits for what a child says last.
            runtime.shutdown_timeout(Duration::from_millis(100));
            done
        });
        let done = running.map_err(failed)?.join();
        Ok(done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
