//! One model over its versions: loads the one that was chosen, follows the log with it, and
//! changes over when told to, or back when it fails.
//!
//! ```text
//!        ┌────────── load ◄──────────────┐
//!        ▼                               │
//!     follow ── fault ──► a version before? ── no ──► disabled, until a command or the next start
//!        │ ▲                             ▲
//!  Activate│ refused: golden cases,      │ automatic, once
//!  Rollback│ shape, hash, time, memory   │
//!   on trial and differs, see `beside`   │
//!        ▼ │                             │
//!   candidate, loaded beside ── choice + event in one append ── swap between two windows
//! ```
//!
//! The candidate is loaded while the live version goes on. Only when it stands, golden cases and
//! all, the live one stops between two rounds; what it knows is in the catalog, and the candidate
//! goes on from there: with the same binding, which is the configuration's, windows, cursors and
//! alerts stay as they are.

mod beside;

use crate::config::Model;
use crate::driver::{
    self, Cure, Package, RETRY_DELAY_MAX, RETRY_DELAY_MIN, blocking, cure, jittered,
};
use crate::error::Error;
use crate::isolation::{Host, HostCommand, Loaded, Worker};
use crate::package::ModelInfo;
use crate::status::Entry;
use crate::versions::{Asked, Choice, Command, Refused, Version, event, label, order_of};
use skerry_store::{Append, Change, Log, Record, StreamName};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// What all models of a node share.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) log: Log,
    pub(crate) host: Host,
    /// What the host of a shadow is started with.
    pub(crate) command: HostCommand,
    pub(crate) versions: Option<PathBuf>,
    pub(crate) events: Option<StreamName>,
}

pub(crate) struct Life {
    pub(crate) model: Model,
    pub(crate) around: Surroundings,
    pub(crate) entry: Arc<Entry>,
    pub(crate) stop: CancellationToken,
}

/// A version that can score.
struct Live {
    worker: Worker,
    loaded: Loaded,
    package: Package,
}

/// What made a version the last one for now.
enum Next {
    Stopped,
    /// This one takes over; whoever asked for it is to be told.
    Swap(Box<Swap>),
    Failed(Error),
}

struct Swap {
    live: Live,
    choice: Choice,
    what: &'static str,
    /// If nobody asked for it.
    why: Option<String>,
    reply: Option<oneshot::Sender<Result<String, Refused>>>,
}

impl Swap {
    fn answer(
        reply: Option<oneshot::Sender<Result<String, Refused>>>,
        done: Result<String, Refused>,
    ) {
        if let Some(reply) = reply {
            let _ = reply.send(done);
        }
    }
}

impl Life {
    /// Until `stop`. An error is the log's, and final.
    pub(crate) async fn run(self) -> Result<(), Error> {
        let mut commands = self.entry.open_desk();
        let (log, model) = (self.around.log.clone(), self.model.clone());
        let mut choice = blocking(move || Choice::read(&log, &model)).await?;
        // Of the task before, if it had to begin again.
        self.entry.set_shadow(None);
        self.entry.set_canary(None);
        let mut ready = None;
        loop {
            let live = match ready.take() {
                Some(live) => Ok(live),
                None => self.load_patiently(&choice.active).await,
            };
            let next = match live {
                Ok(Some(live)) => self.follow(&live, &mut choice, &mut commands).await?,
                Ok(None) => Next::Stopped,
                Err(error) => Next::Failed(error),
            };
            let swap = match next {
                Next::Stopped => return Ok(()),
                Next::Swap(swap) => swap,
                Next::Failed(error) => {
                    if let Some(before) = choice.rolled_back() {
                        self.roll_back(&mut choice, before, &error).await;
                        continue;
                    }
                    driver::disable(&self.model, &self.entry, &error);
                    match self.revived(&mut choice, &mut commands).await {
                        Some(swap) => swap,
                        None => return Ok(()),
                    }
                }
            };
            let Swap {
                live,
                choice: chosen,
                what,
                why,
                reply,
            } = *swap;
            match self.record(&chosen, what, why.as_deref()).await {
                Ok(()) => {
                    let done = format!("{} runs {}", self.model.name, chosen.active);
                    match why {
                        Some(why) => self.went_back(&choice, &chosen, why),
                        None => tracing::info!(model = self.model.name, "{done}"),
                    }
                    self.entry.set_canary(None);
                    choice = chosen;
                    ready = Some(Some(live));
                    Swap::answer(reply, Ok(done));
                }
                // As before; what ran is loaded again.
                Err(error) => Swap::answer(reply, Err(error.into())),
            }
        }
    }

    /// The version that is to run, as soon as the box lets it; `None` once stopped.
    async fn load_patiently(&self, version: &Version) -> Result<Option<Live>, Error> {
        let mut delay = RETRY_DELAY_MIN;
        loop {
            let error = match self.load(version).await {
                Ok(live) => return Ok(Some(live)),
                Err(Refused::Model(error)) => error,
                Err(refused) => Error::Manifest {
                    path: self.model.file.clone(),
                    reason: refused.to_string(),
                },
            };
            if !matches!(cure(&error), Cure::Time) {
                return Err(error);
            }
            driver::retry_after(&self.model, &self.entry, &error, delay);
            tokio::select! {
                () = self.stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(jittered(delay)) => {}
            }
            delay = (delay * 2).min(RETRY_DELAY_MAX);
        }
    }

    async fn load(&self, version: &Version) -> Result<Live, Refused> {
        let host = &self.around.host;
        let (worker, loaded) = self.load_in(host, version).await?;
        let package = Package::of(&self.model, &loaded)?;
        Ok(Live {
            worker,
            loaded,
            package,
        })
    }

    async fn load_in(&self, host: &Host, version: &Version) -> Result<(Worker, Loaded), Refused> {
        let order = order_of(&self.model, self.around.versions.as_deref(), version)?;
        let (worker, loaded) = host.load(order).await?;
        version.expect(&loaded)?;
        Ok((worker, loaded))
    }

    /// Follows the log with one version, and takes commands meanwhile.
    async fn follow(
        &self,
        live: &Live,
        choice: &mut Choice,
        commands: &mut mpsc::Receiver<Asked>,
    ) -> Result<Next, Error> {
        let info = ModelInfo::from(live.loaded.clone());
        self.entry.loaded(&info, choice);
        let sha256 = &info.sha256;
        tracing::info!(
            model = self.model.name,
            sha256,
            version = label(&choice.active),
            "model loaded"
        );
        let pause = self.stop.child_token();
        let (model, log, entry) = (&self.model, &self.around.log, &self.entry);
        let (ended, swap) = {
            let following = driver::follow(model, log, entry, &live.worker, &live.package, &pause);
            let swapping = self.candidate(choice, commands);
            tokio::pin!(following, swapping);
            tokio::select! {
                ended = &mut following => (ended?, None),
                swap = &mut swapping => {
                    pause.cancel();
                    (following.await?, Some(swap))
                }
            }
        };
        Ok(match (ended, swap) {
            (_, Some(swap)) => Next::Swap(Box::new(swap)),
            (Some(error), None) => Next::Failed(error),
            (None, None) => {
                self.keep_canary(choice).await;
                Next::Stopped
            }
        })
    }

    /// A disabled model waits for a version that runs.
    async fn revived(
        &self,
        choice: &mut Choice,
        commands: &mut mpsc::Receiver<Asked>,
    ) -> Option<Box<Swap>> {
        let mut swap = tokio::select! {
            () = self.stop.cancelled() => return None,
            swap = self.candidate(choice, commands) => swap,
        };
        // What did not run is nothing to be measured by.
        swap.choice.canary = None;
        Some(Box::new(swap))
    }

    /// Follows commands, and what runs beside, until one leads to a version that stands ready to
    /// take over.
    async fn candidate(&self, choice: &mut Choice, commands: &mut mpsc::Receiver<Asked>) -> Swap {
        self.run_beside(choice).await;
        loop {
            let swap = tokio::select! {
                asked = commands.recv() => match asked {
                    Some(asked) => self.obey(choice, asked).await,
                    None => return std::future::pending().await,
                },
                news = self.news_of_canary(choice) => self.heed(choice, news).await,
            };
            if let Some(swap) = swap {
                return swap;
            }
        }
    }

    async fn obey(&self, choice: &mut Choice, Asked { command, reply }: Asked) -> Option<Swap> {
        let (chosen, what) = match command {
            Command::Activate { version } => {
                let on_trial = self.model.canary.is_some();
                let chosen = choice.activated(Version::Named(version), on_trial);
                (chosen, "model_activated")
            }
            Command::Rollback => match choice.rolled_back() {
                Some(before) => (before, "model_rolled_back"),
                None => {
                    let _ = reply.send(Err(Refused::NothingBefore));
                    return None;
                }
            },
            Command::Shadow { version } => {
                let _ = reply.send(self.choose_shadow(choice, version).await);
                return None;
            }
        };
        match self.load(&chosen.active).await {
            Ok(live) => Some(Swap {
                live,
                choice: chosen,
                what,
                why: None,
                reply: Some(reply),
            }),
            Err(refused) => {
                tracing::warn!(
                    model = self.model.name,
                    "{} is refused: {refused}",
                    chosen.active
                );
                let _ = reply.send(Err(refused));
                None
            }
        }
    }

    /// The active version failed in its work, and another one ran before it.
    async fn roll_back(&self, choice: &mut Choice, before: Choice, error: &Error) {
        let reason = error.to_string();
        // If it cannot be written the next start finds the same fault, and comes here again.
        if let Err(error) = self
            .record(&before, "model_rolled_back", Some(&reason))
            .await
        {
            tracing::warn!(
                model = self.model.name,
                "the rollback could not be recorded: {error}"
            );
        }
        self.went_back(choice, &before, reason);
        self.entry.set_canary(None);
        *choice = before;
    }

    fn went_back(&self, from: &Choice, to: &Choice, reason: String) {
        tracing::error!(
            model = self.model.name,
            "{reason}; back from {} to {}",
            from.active,
            to.active
        );
        self.entry.rolled_back(reason);
    }

    /// The choice and the record of it, in one append.
    async fn record(&self, choice: &Choice, what: &str, why: Option<&str>) -> Result<(), Error> {
        let records = match &self.around.events {
            Some(_) => vec![event(&self.model, what, choice, why)],
            None => Vec::new(),
        };
        self.append(records, choice.changes(&self.model)).await
    }

    async fn append(&self, records: Vec<Record>, changes: Vec<Change>) -> Result<(), Error> {
        let stream = match &self.around.events {
            Some(stream) if !records.is_empty() => stream.clone(),
            _ => StreamName::catalog(),
        };
        let append = Append {
            stream,
            records,
            changes,
        };
        self.around.log.append(append).await?;
        Ok(())
    }
}
