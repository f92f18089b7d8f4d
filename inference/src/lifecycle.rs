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
//!        ▼ │                             │
//!   candidate, loaded beside ── choice + event in one append ── swap between two windows
//! ```
//!
//! The candidate is loaded while the live version goes on. Only when it stands, golden cases and
//! all, the live one stops between two rounds; what it knows is in the catalog, and the candidate
//! goes on from there: with the same binding, which is the configuration's, windows, cursors and
//! alerts stay as they are.

use crate::config::Model;
use crate::driver::{
    self, Cure, Package, RETRY_DELAY_MAX, RETRY_DELAY_MIN, blocking, cure, jittered,
};
use crate::error::Error;
use crate::isolation::{Host, HostCommand, Loaded, Worker};
use crate::package::ModelInfo;
use crate::shadow::Shadow;
use crate::status::Entry;
use crate::versions::{Asked, Choice, Command, Refused, Version, event, label, order_of};
use skerry_store::{Append, Log, StreamName};
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
    reply: oneshot::Sender<Result<String, Refused>>,
}

impl Life {
    /// Until `stop`. An error is the log's, and final.
    pub(crate) async fn run(self) -> Result<(), Error> {
        let mut commands = self.entry.open_desk();
        let (log, model) = (self.around.log.clone(), self.model.clone());
        let mut choice = blocking(move || Choice::read(&log, &model)).await?;
        self.shadow_as_chosen(&choice).await;
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
                reply,
            } = *swap;
            match self.record(&chosen, what, None).await {
                Ok(()) => {
                    choice = chosen;
                    ready = Some(Some(live));
                    let done = format!("{} runs {}", self.model.name, choice.active);
                    tracing::info!(model = self.model.name, "{done}");
                    let _ = reply.send(Ok(done));
                    self.shadow_as_chosen(&choice).await;
                }
                Err(error) => {
                    // As before; what ran is loaded again.
                    let _ = reply.send(Err(error.into()));
                }
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
        if let Version::Named(wanted) = version
            && loaded.version.as_ref() != Some(wanted)
        {
            let found = loaded.version.unwrap_or_else(|| "no package".to_owned());
            let wanted = wanted.clone();
            return Err(Refused::OtherVersion { wanted, found });
        }
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
        let following = driver::follow(model, log, entry, &live.worker, &live.package, &pause);
        let swapping = self.candidate(choice, commands);
        tokio::pin!(following, swapping);
        let (ended, swap) = tokio::select! {
            ended = &mut following => (ended?, None),
            swap = &mut swapping => {
                pause.cancel();
                (following.await?, Some(swap))
            }
        };
        Ok(match (ended, swap) {
            (_, Some(swap)) => Next::Swap(Box::new(swap)),
            (Some(error), None) => Next::Failed(error),
            (None, None) => Next::Stopped,
        })
    }

    /// A disabled model waits for a version that runs.
    async fn revived(
        &self,
        choice: &mut Choice,
        commands: &mut mpsc::Receiver<Asked>,
    ) -> Option<Box<Swap>> {
        tokio::select! {
            () = self.stop.cancelled() => None,
            swap = self.candidate(choice, commands) => Some(Box::new(swap)),
        }
    }

    /// Follows commands until one leads to a version that stands ready to take over.
    async fn candidate(&self, choice: &mut Choice, commands: &mut mpsc::Receiver<Asked>) -> Swap {
        loop {
            let Some(Asked { command, reply }) = commands.recv().await else {
                return std::future::pending().await;
            };
            let (chosen, what) = match command {
                Command::Activate { version } => {
                    (choice.activated(Version::Named(version)), "model_activated")
                }
                Command::Rollback => match choice.rolled_back() {
                    Some(before) => (before, "model_rolled_back"),
                    None => {
                        let _ = reply.send(Err(Refused::NothingBefore));
                        continue;
                    }
                },
                Command::Shadow { version } => {
                    let _ = reply.send(self.choose_shadow(choice, version).await);
                    continue;
                }
            };
            match self.load(&chosen.active).await {
                Ok(live) => {
                    return Swap {
                        live,
                        choice: chosen,
                        what,
                        reply,
                    };
                }
                Err(refused) => {
                    tracing::warn!(
                        model = self.model.name,
                        "{} is refused: {refused}",
                        chosen.active
                    );
                    let _ = reply.send(Err(refused));
                }
            }
        }
    }

    /// The active version failed in its work, and another one ran before it.
    async fn roll_back(&self, choice: &mut Choice, before: Choice, error: &Error) {
        let reason = error.to_string();
        tracing::error!(
            model = self.model.name,
            "{reason}; back from {} to {}",
            choice.active,
            before.active
        );
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
        *choice = before;
        self.entry.rolled_back(reason);
    }

    async fn choose_shadow(
        &self,
        choice: &mut Choice,
        version: Option<String>,
    ) -> Result<String, Refused> {
        let name = &self.model.name;
        let shadow = match &version {
            Some(version) => Some(self.start_shadow(version).await?),
            None => None,
        };
        let chosen = Choice {
            shadow: version.clone(),
            ..choice.clone()
        };
        self.record(&chosen, "model_shadow", None).await?;
        *choice = chosen;
        self.entry.set_shadow(shadow);
        Ok(match version {
            Some(version) => format!("version {version} runs beside {name}, for comparison only"),
            None => format!("nothing runs beside {name} any more"),
        })
    }

    /// In a host of its own: what a candidate does to that, the live models do not notice.
    async fn start_shadow(&self, version: &str) -> Result<Shadow, Refused> {
        let host = Host::new(self.around.command.clone());
        let named = Version::Named(version.to_owned());
        let (worker, loaded) = self.load_in(&host, &named).await?;
        // That of the mildest level: where somebody would first be told.
        let threshold = self.model.alerting.levels[0].raise;
        Ok(Shadow::start(
            worker,
            version.to_owned(),
            loaded.sha256,
            threshold,
        ))
    }

    /// After a start or a swap.
    async fn shadow_as_chosen(&self, choice: &Choice) {
        let running = self.entry.shadow_version();
        if running == choice.shadow {
            return;
        }
        let shadow = match &choice.shadow {
            None => None,
            Some(version) => match self.start_shadow(version).await {
                Ok(shadow) => Some(shadow),
                Err(refused) => {
                    tracing::warn!(model = self.model.name, "no shadow: {refused}");
                    None
                }
            },
        };
        self.entry.set_shadow(shadow);
    }

    /// The choice and the record of it, in one append.
    async fn record(&self, choice: &Choice, what: &str, why: Option<&str>) -> Result<(), Error> {
        let changes = vec![choice.change(&self.model)];
        let (stream, records) = match &self.around.events {
            Some(stream) => (stream.clone(), vec![event(&self.model, what, choice, why)]),
            None => (StreamName::catalog(), Vec::new()),
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
