//! The one host of a node's healthy models, and its keeper, who finds the culprit when it ends.

use super::process::{End, HostCommand, Process, Trouble};
use super::protocol::{Loaded, Order, Reply, Request, Slot};
use crate::error::{Error, RunFault};
use crate::runner::Answer;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// What a window may take beyond its model's `time_max` before the host is killed: on a busy box
/// the child waits for the processor too. Answers that come after `time_max` count as late.
const STALL_GRACE: Duration = Duration::from_secs(1);
/// Freeing memory, on a busy box.
const UNLOAD_TIME_MAX: Duration = Duration::from_secs(5);
/// Late answers in a row that disable a model: one may be the box's fault.
const LATE_MAX: u32 = 3;

/// Jobs that wait for the keeper: a task has one under way at most.
const JOBS_MAX: usize = 16;

/// The way to the keeper. The host ends when the last of these and of the workers is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    command: HostCommand,
    jobs: mpsc::Sender<Job>,
    slots: Arc<AtomicU32>,
}

#[derive(Debug)]
enum Job {
    Load {
        slot: Slot,
        order: Order,
        reply: oneshot::Sender<Result<Loaded, Error>>,
    },
    Run {
        slot: Slot,
        window: Vec<f32>,
        reply: oneshot::Sender<Result<Answer, Error>>,
    },
    Unload {
        slot: Slot,
    },
}

impl Host {
    /// Starts the keeper; a child only when there is something to load.
    pub(crate) fn new(command: HostCommand) -> Self {
        let (jobs, queue) = mpsc::channel(JOBS_MAX);
        let keeper = Keeper {
            command: command.clone(),
            process: None,
            seats: BTreeMap::new(),
        };
        tokio::spawn(keeper.keep(queue));
        Self {
            command,
            jobs,
            slots: Arc::default(),
        }
    }

    /// Loads a model in a child of its own first, and only what came through that in the host.
    pub(crate) async fn load(&self, mut order: Order) -> Result<(Worker, Loaded), Error> {
        let probed = probe(&self.command, order.clone()).await?;
        // What was looked at is what is run.
        order.sha256 = Some(probed.sha256);
        order.time_max = probed.time_max;
        order.memory_max_bytes = probed.memory_max_bytes;
        let slot = Slot(self.slots.fetch_add(1, Ordering::Relaxed));
        let worker = Worker {
            slot,
            jobs: self.jobs.clone(),
        };
        let (reply, answer) = oneshot::channel();
        worker.send(Job::Load { slot, order, reply }).await;
        let loaded = answer.await.unwrap_or_else(|_| Err(keeper_gone()))?;
        Ok((worker, loaded))
    }
}

/// Reads a model as the host would, in a child that lives for nothing else.
pub(crate) async fn probe(command: &HostCommand, order: Order) -> Result<Loaded, Error> {
    let mut process = start(command).await?;
    let (file, limit) = (order.file.clone(), order.load_time_max);
    match process.ask(&Request::Probe { order }, limit).await {
        Ok(Reply::Loaded(loaded)) => {
            process.kill();
            loaded
        }
        Ok(other) => unreachable!("a load is answered with {other:?}"),
        Err(trouble) => Err(load_trouble(file, limit, trouble, process).await),
    }
}

async fn start(command: &HostCommand) -> Result<Process, Error> {
    Process::start(command).await.map_err(|error| Error::Host {
        program: command.program.clone(),
        reason: error.to_string(),
    })
}

async fn load_trouble(path: PathBuf, limit: Duration, trouble: Trouble, process: Process) -> Error {
    match trouble {
        Trouble::Late => {
            process.kill();
            Error::LoadStalled { path, limit }
        }
        Trouble::Lost => {
            let how = process.end().await.how;
            Error::LoadDied { path, how }
        }
    }
}

fn keeper_gone() -> Error {
    Error::Host {
        program: PathBuf::new(),
        reason: "its keeper has ended".to_owned(),
    }
}

/// A loaded model. Unloads it when dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    slot: Slot,
    jobs: mpsc::Sender<Job>,
}

impl Worker {
    /// Scores one window.
    pub(crate) async fn run(&self, window: Vec<f32>) -> Result<Answer, Error> {
        let (reply, answer) = oneshot::channel();
        let slot = self.slot;
        let job = Job::Run {
            slot,
            window,
            reply,
        };
        self.send(job).await;
        answer.await.unwrap_or_else(|_| Err(keeper_gone()))
    }

    async fn send(&self, job: Job) {
        // Fails only if the keeper is gone, which the missing answer tells.
        let _ = self.jobs.send(job).await;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Where the queue is full it stays loaded and idle, until the next host.
        let _ = self.jobs.try_send(Job::Unload { slot: self.slot });
    }
}

/// Owns the host. Takes one job at a time, so that whatever happens happens to that job's model.
struct Keeper {
    command: HostCommand,
    process: Option<Process>,
    seats: BTreeMap<Slot, Seat>,
}

/// A model that is in the host, or has to be in the next one.
struct Seat {
    order: Order,
    late_in_a_row: u32,
    /// Set when it turned out to be the end of a host.
    fault: Option<RunFault>,
}

impl Keeper {
    async fn keep(mut self, mut queue: mpsc::Receiver<Job>) {
        loop {
            let job = match &mut self.process {
                Some(process) => tokio::select! {
                    job = queue.recv() => job,
                    () = process.ended() => {
                        self.ended_idle().await;
                        continue;
                    }
                },
                None => queue.recv().await,
            };
            let Some(job) = job else {
                return;
            };
            // Whoever asked may be gone when it is stopped; then there is nobody to tell.
            match job {
                Job::Load { slot, order, reply } => drop(reply.send(self.load(slot, order).await)),
                Job::Run {
                    slot,
                    window,
                    reply,
                } => drop(reply.send(self.run(slot, window).await)),
                Job::Unload { slot } => self.unload(slot).await,
            }
        }
    }

    /// Nobody's window was in it.
    async fn ended_idle(&mut self) {
        if let Some(process) = self.process.take() {
            let how = process.end().await.how;
            tracing::warn!("the model host ended while it had nothing to do: {how}");
        }
    }

    async fn load(&mut self, slot: Slot, order: Order) -> Result<Loaded, Error> {
        let mut process = self.host().await?;
        let (file, limit) = (order.file.clone(), order.load_time_max);
        let seat = Seat {
            order: order.clone(),
            late_in_a_row: 0,
            fault: None,
        };
        match process.ask(&Request::Load { slot, order }, limit).await {
            Ok(Reply::Loaded(loaded)) => {
                self.process = Some(process);
                let loaded = loaded?;
                self.seats.insert(slot, seat);
                Ok(loaded)
            }
            Ok(other) => unreachable!("a load is answered with {other:?}"),
            Err(trouble) => Err(load_trouble(file, limit, trouble, process).await),
        }
    }

    async fn run(&mut self, slot: Slot, window: Vec<f32>) -> Result<Answer, Error> {
        let request = Request::Run { slot, window };
        let mut killed_from_outside = false;
        loop {
            let mut process = self.host().await?;
            let Some(seat) = self.seats.get_mut(&slot) else {
                self.process = Some(process);
                return Err(keeper_gone());
            };
            let time_max = seat.order.time_max;
            let failed = |seat: &Seat, fault| Error::Run {
                path: seat.order.file.clone(),
                fault,
            };
            if let Some(fault) = seat.fault.clone() {
                self.process = Some(process);
                return Err(failed(seat, fault));
            }
            let fault = match process.ask(&request, time_max + STALL_GRACE).await {
                Ok(Reply::Scored(scored)) => {
                    self.process = Some(process);
                    let answer = scored
                        .map(Answer::from)
                        .and_then(|answer| seat.timed(answer));
                    return answer.map_err(|fault| failed(seat, fault));
                }
                Ok(other) => unreachable!("a window is answered with {other:?}"),
                Err(Trouble::Late) => {
                    process.kill();
                    RunFault::Stalled(time_max)
                }
                Err(Trouble::Lost) => {
                    let End { how, from_outside } = process.end().await;
                    if from_outside && !killed_from_outside {
                        tracing::warn!("the model host was ended from outside: {how}");
                        killed_from_outside = true;
                        continue;
                    }
                    RunFault::Died(how)
                }
            };
            tracing::warn!(file = %seat.order.file.display(), "{fault}; the model host starts again without it");
            seat.fault = Some(fault.clone());
            return Err(failed(seat, fault));
        }
    }

    async fn unload(&mut self, slot: Slot) {
        self.seats.remove(&slot);
        if let Some(mut process) = self.process.take() {
            match process
                .ask(&Request::Unload { slot }, UNLOAD_TIME_MAX)
                .await
            {
                Ok(_) if !self.seats.is_empty() => self.process = Some(process),
                // Nothing is left to run in it, or it is no use.
                _ => process.kill(),
            }
        }
    }

    /// The host with every healthy model in it. A model that ends it while being loaded is
    /// healthy no more, and the next one is started.
    async fn host(&mut self) -> Result<Process, Error> {
        if let Some(process) = self.process.take() {
            return Ok(process);
        }
        'start: loop {
            let mut process = start(&self.command).await?;
            for (slot, seat) in self
                .seats
                .iter_mut()
                .filter(|(_, seat)| seat.fault.is_none())
            {
                let (slot, order) = (*slot, seat.order.clone());
                let (file, limit) = (order.file.clone(), order.load_time_max);
                let request = Request::Load { slot, order };
                let error = match process.ask(&request, limit).await {
                    Ok(Reply::Loaded(Ok(_))) => continue,
                    Ok(Reply::Loaded(Err(error))) => {
                        seat.fault = Some(RunFault::Failed(error.to_string()));
                        continue;
                    }
                    Ok(other) => unreachable!("a load is answered with {other:?}"),
                    Err(trouble) => load_trouble(file, limit, trouble, process).await,
                };
                seat.fault = Some(RunFault::Failed(error.to_string()));
                continue 'start;
            }
            return Ok(process);
        }
    }
}

impl Seat {
    /// Holds an answer against the model's time.
    fn timed(&mut self, answer: Answer) -> Result<Answer, RunFault> {
        if answer.took <= self.order.time_max {
            self.late_in_a_row = 0;
            return Ok(answer);
        }
        self.late_in_a_row += 1;
        if self.late_in_a_row < LATE_MAX {
            return Ok(answer);
        }
        Err(RunFault::Slow {
            took: answer.took,
            time_max: self.order.time_max,
        })
    }
}

#[cfg(test)]
impl Worker {
    /// A worker without a child, for tests of what is around it.
    pub(crate) fn scripted(mut runner: impl crate::runner::Runner + Send + 'static) -> Self {
        let (jobs, mut queue) = mpsc::channel(1);
        let path = PathBuf::from("test.onnx");
        std::thread::spawn(move || {
            while let Some(Job::Run { window, reply, .. }) = queue.blocking_recv() {
                let answer = crate::runner::run_caught(&mut runner, &window);
                let path = path.clone();
                drop(reply.send(answer.map_err(|fault| Error::Run { path, fault })));
            }
        });
        Self {
            slot: Slot(0),
            jobs,
        }
    }
}
