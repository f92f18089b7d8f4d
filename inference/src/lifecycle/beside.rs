//! What runs beside the live version, and is heard by nobody: a shadow, and for a while after an
//! activation the version before, against which the new one is on trial.
//!
//! Each has a host of its own: what it does to that, the live models do not notice. They are
//! started while the live version scores already; a window that it scores until they stand, or
//! while they are behind, is not compared.
//!
//! **A trial is in the catalog** from the append that activates to the one that ends it, and how
//! far it is, every ten seconds and when the node stops. After a kill -9 it goes on from there: up
//! to ten seconds of comparisons are forgotten, and made up for with later windows. No window is
//! scored again for it.

use super::{Life, Swap};
use crate::canary::{Phase, Verdict};
use crate::driver::{Cure, RETRY_DELAY_MAX, cure};
use crate::isolation::Host;
use crate::shadow::{Beside, Shadow};
use crate::versions::{Choice, Refused, Version, label};
use std::time::Duration;

/// How often it is kept how far a trial is.
const KEEP_EVERY: Duration = Duration::from_secs(10);

impl Life {
    /// After a start or a swap.
    pub(super) async fn run_beside(&self, choice: &mut Choice) {
        let wanted = choice.wanted_shadow(&self.model);
        let running = self.entry.shadow().map(|shadow| shadow.report().version);
        if running != wanted {
            let shadow = match wanted {
                Some(version) => Some(self.shadow_or_why_not(version).await),
                None => None,
            };
            self.entry.set_shadow(shadow);
        }
        if choice.canary.is_some() && self.entry.canary().is_none() {
            self.start_canary(choice).await;
        }
    }

    pub(super) async fn choose_shadow(
        &self,
        choice: &mut Choice,
        version: Option<String>,
    ) -> Result<String, Refused> {
        let name = &self.model.name;
        let shadow = match &version {
            Some(version) => Some(self.start(&Version::Named(version.clone()), None).await?),
            None => None,
        };
        let chosen = Choice {
            shadow: version.clone(),
            is_shadow_off: version.is_none(),
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

    async fn shadow_or_why_not(&self, version: String) -> Shadow {
        match self.start(&Version::Named(version.clone()), None).await {
            Ok(shadow) => shadow,
            Err(refused) => {
                tracing::warn!(model = self.model.name, "no shadow: {refused}");
                Shadow::refused(
                    self.beside(version, String::new(), None),
                    refused.to_string(),
                )
            }
        }
    }

    async fn start(&self, version: &Version, phase: Option<Phase>) -> Result<Shadow, Refused> {
        let host = Host::new(self.around.command.clone());
        let (worker, loaded) = self.load_in(&host, version).await?;
        let name = label(version).map(str::to_owned).or(loaded.version);
        let name = name.unwrap_or_else(|| version.to_string());
        Ok(Shadow::start(
            worker,
            self.beside(name, loaded.sha256, phase),
        ))
    }

    fn beside(&self, version: String, sha256: String, phase: Option<Phase>) -> Beside {
        Beside {
            version,
            sha256,
            alerting: self.model.alerting.clone(),
            phase,
        }
    }

    /// The version before, as far as the trial is.
    async fn start_canary(&self, choice: &mut Choice) {
        let (Some(canary), Some(progress)) = (self.model.canary, choice.canary) else {
            return;
        };
        let Some(before) = choice.previous.clone() else {
            return;
        };
        let phase = Phase {
            before: before.to_string(),
            canary,
            progress,
        };
        match self.start(&before, Some(phase)).await {
            Ok(reference) => self.entry.set_canary(Some(reference)),
            Err(refused) if is_cured_by_time(&refused) => {
                tracing::warn!(
                    model = self.model.name,
                    "the version before is still to be started: {refused}"
                );
            }
            Err(refused) => self.end_canary(choice, VOID, &refused.to_string()).await,
        }
    }

    /// Waits for what the trial comes to; `None` when it is time to keep how far it is.
    pub(super) async fn news_of_canary(&self, choice: &Choice) -> Option<Verdict> {
        if choice.canary.is_none() {
            return std::future::pending().await;
        }
        let reference = self.entry.canary();
        let verdict = async {
            match &reference {
                Some(reference) => reference.verdict().await,
                None => std::future::pending().await,
            }
        };
        tokio::time::timeout(KEEP_EVERY, verdict).await.ok()
    }

    pub(super) async fn heed(&self, choice: &mut Choice, news: Option<Verdict>) -> Option<Swap> {
        match news {
            None if self.entry.canary().is_none() => self.start_canary(choice).await,
            None => self.keep_canary(choice).await,
            Some(Verdict::Passed(figures)) => self.end_canary(choice, PASSED, &figures).await,
            Some(Verdict::Void(why)) => self.end_canary(choice, VOID, &why).await,
            Some(Verdict::Differs(why)) => return self.go_back(choice, why).await,
        }
        None
    }

    /// The version before, loaded while the one that differs goes on: no score is late for it.
    async fn go_back(&self, choice: &mut Choice, why: String) -> Option<Swap> {
        let before = choice.rolled_back()?;
        match self.load(&before.active).await {
            Ok(live) => Some(Swap {
                live,
                choice: before,
                what: "model_rolled_back",
                why: Some(why),
                reply: None,
            }),
            Err(refused) if is_cured_by_time(&refused) => {
                tracing::warn!(
                    model = self.model.name,
                    "{why}; the way back is tried again: {refused}"
                );
                // The verdict stands, and is heard again.
                tokio::time::sleep(RETRY_DELAY_MAX).await;
                None
            }
            Err(refused) => {
                tracing::error!(
                    model = self.model.name,
                    "{why}; {} cannot run again, so {} goes on: {refused}",
                    before.active,
                    choice.active
                );
                let why = format!("{why}; there is no way back: {refused}");
                self.end_canary(choice, VOID, &why).await;
                None
            }
        }
    }

    /// The version stays; nothing is compared any more.
    async fn end_canary(&self, choice: &mut Choice, what: &str, figures: &str) {
        let ended = Choice {
            canary: None,
            ..choice.clone()
        };
        if let Err(error) = self.record(&ended, what, Some(figures)).await {
            tracing::warn!(
                model = self.model.name,
                "the end of a trial is tried again to be kept: {error}"
            );
            return tokio::time::sleep(RETRY_DELAY_MAX).await;
        }
        tracing::info!(model = self.model.name, "{what}: {figures}");
        *choice = ended;
        self.entry.set_canary(None);
    }

    pub(super) async fn keep_canary(&self, choice: &mut Choice) {
        let progress = self.entry.canary().and_then(|it| it.progress());
        if choice.canary.is_none() || progress.is_none() || progress == choice.canary {
            return;
        }
        choice.canary = progress;
        let change = choice.canary_change(&self.model);
        if let Err(error) = self.append(Vec::new(), vec![change]).await {
            tracing::debug!(
                model = self.model.name,
                "how far the trial is was not kept: {error}"
            );
        }
    }
}

const PASSED: &str = "model_canary_passed";
const VOID: &str = "model_canary_void";

fn is_cured_by_time(refused: &Refused) -> bool {
    matches!(refused, Refused::Model(error) if matches!(cure(error), Cure::Time))
}
