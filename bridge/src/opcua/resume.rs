//! Going on with an earlier subscription, and leaving none behind that nobody goes on with.
//!
//! A subscription that is given up costs the server a queue for every node until its lifetime
//! ends, and small PLCs have only a few. Each one is therefore noted before anything is asked of
//! it, and deleted at the next contact with its server when it is of no use any more.

use super::error::Error;
use super::flow::Acknowledgements;
use super::ingest::Taken;
use super::link::Link;
use super::progress::Progress;
use super::wire::{Granted, Session};
use serde::{Deserialize, Serialize};

/// Connections that carried an earlier subscription on and broke before its first message,
/// after which it is given up: something in it may be what breaks them.
const UNPROVEN_MAX: u32 = 2;
/// Subscriptions to be deleted that are remembered; older ones end by themselves.
pub(super) const UNUSED_MAX: usize = 16;

/// A subscription at a server that is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unused {
    pub(crate) endpoint: String,
    pub(crate) subscription: u32,
    server_start: Option<String>,
}

impl Link {
    /// The earlier subscription, if it is ours to go on with.
    pub(super) async fn carry_on(&mut self, session: &Session) -> Result<Option<Granted>, Error> {
        let here = self.endpoint().to_string();
        let Some(progress) = self
            .progress
            .as_mut()
            .filter(|progress| progress.subscription != 0)
        else {
            return Ok(None);
        };
        let granted = progress.granted();
        let there = progress.endpoint.as_ref();
        if there.is_some_and(|there| *there != here) {
            self.abandon_subscription();
            return Ok(None);
        }
        let same = progress.fingerprint == self.ingest.config.fingerprint();
        if same && self.unproven >= UNPROVEN_MAX {
            tracing::warn!(
                endpoint = self.ingest.config.name,
                "the earlier subscription brings nothing; making a new one"
            );
            self.abandon_subscription();
            return Ok(None);
        }
        let owned = if progress.server_start != session.server_start().await? {
            tracing::info!(
                endpoint = self.ingest.config.name,
                "the server was restarted"
            );
            self.forget_subscription();
            return Ok(None);
        } else if session.revived {
            // A revived session owns its subscriptions already.
            Ok(())
        } else {
            session.transfer(granted.id).await
        };
        match owned {
            Ok(()) if same => {
                self.unproven += 1;
                progress.session.clone_from(&self.session);
                tracing::info!(
                    endpoint = self.ingest.config.name,
                    subscription = granted.id,
                    "connected; the earlier subscription goes on"
                );
                Ok(Some(granted))
            }
            Ok(()) => {
                // Another configuration made it: it would only cost the server.
                self.abandon_subscription();
                Ok(None)
            }
            Err(error) if error.is_broken_connection() => {
                self.unproven += 1;
                Err(error)
            }
            Err(error) => {
                tracing::info!(
                    endpoint = self.ingest.config.name, %error,
                    "the earlier subscription cannot be carried on"
                );
                self.forget_subscription();
                Ok(None)
            }
        }
    }

    /// Fetches what the server sent into the connection that broke: otherwise its next message
    /// would tell that something is missing, and that may be a while.
    pub(super) async fn catch_up(
        &mut self,
        session: &Session,
        granted: Granted,
        acknowledgements: &mut Acknowledgements,
    ) -> Result<Taken, Error> {
        loop {
            let number = self.sequence().next();
            let found = match self.fetch(session, granted.id, number, &[]).await {
                Ok(Some(found)) => found,
                Err(error) if error.is_broken_connection() => return Err(error),
                Ok(None) | Err(_) => return Ok(Taken::Durable),
            };
            self.unproven = 0;
            self.ingest.status.republished();
            if self.take(session, found).await? == Taken::Stopped {
                return Ok(Taken::Stopped);
            }
            acknowledgements.append(&mut self.untold);
            acknowledgements.push((granted.id, number));
        }
    }

    /// The server has it no more, or will not let us have it.
    pub(super) fn forget_subscription(&mut self) {
        self.unproven = 0;
        self.suspect = None;
        self.untold.clear();
        if let Some(progress) = &mut self.progress {
            progress.subscription = 0;
        }
    }

    /// It is still there, and of no use.
    pub(super) fn abandon_subscription(&mut self) {
        if let Some(progress) = &mut self.progress
            && progress.subscription != 0
        {
            let first = || self.ingest.config.endpoint.to_string();
            let unused = Unused {
                endpoint: progress.endpoint.clone().unwrap_or_else(first),
                subscription: progress.subscription,
                server_start: progress.server_start.clone(),
            };
            progress.note_unused(unused);
        }
        self.forget_subscription();
    }

    /// Notes a subscription that was just made, until it is in use: a crash or a broken
    /// connection on the way there must not leave it to itself.
    pub(super) async fn note_subscription(
        &mut self,
        session: &Session,
        subscription: u32,
        server_start: Option<String>,
    ) -> Result<Taken, Error> {
        let unused = Unused {
            endpoint: self.endpoint().to_string(),
            subscription,
            server_start,
        };
        let progress = self.progress.get_or_insert_with(Progress::nothing);
        progress.note_unused(unused);
        let change = progress.change(&self.ingest.config.name);
        self.ingest
            .append(Vec::new(), Some(change), Some(session))
            .await
    }

    /// Deletes what was given up at this server. What cannot be deleted is left alone: it may be
    /// gone, or belong to a session that the server does not let us take it from.
    pub(super) async fn delete_unused(&mut self, session: &Session) -> Result<(), Error> {
        let here = self.endpoint().to_string();
        let Some(progress) = &mut self.progress else {
            return Ok(());
        };
        let unused = progress.take_unused(&here);
        if unused.is_empty() {
            return Ok(());
        }
        let server_start = session.server_start().await?;
        for unused in unused {
            if unused.server_start != server_start {
                continue;
            }
            let id = unused.subscription;
            tracing::info!(
                endpoint = self.ingest.config.name,
                subscription = id,
                "deleting a subscription that is not used any more"
            );
            let mut deleted = session.unsubscribe(id).await;
            if deleted.is_err() && session.transfer(id).await.is_ok() {
                // It belonged to an earlier session.
                deleted = session.unsubscribe(id).await;
            }
            match deleted {
                Err(error) if error.is_broken_connection() => return Err(error),
                Err(error) => tracing::debug!(%error, "it may be gone already"),
                Ok(()) => {}
            }
        }
        Ok(())
    }
}
