//! Going on with an earlier subscription, and leaving none behind that nobody goes on with.
//!
//! A subscription that is given up costs the server a queue for every node until its lifetime
//! ends, and small PLCs have only a few. Each one is therefore noted before anything is asked of
//! it, and deleted at the next contact with its server when it is of no use any more.

use super::error::Error;
use super::flow::Acknowledgements;
use super::groups::GROUPS_MAX;
use super::ingest::Taken;
use super::link::Link;
use super::progress::Progress;
use super::strand::Strand;
use super::wire::Session;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Connections that carried an earlier subscription on and broke before its first message,
/// after which it is given up: something in it may be what breaks them.
const UNPROVEN_MAX: u32 = 2;
/// Subscriptions to be deleted that are remembered; older ones end by themselves.
pub(super) const UNUSED_MAX: usize = 32;
// Those of this connection are noted before the ones of the last one are deleted.
const _: () = assert!(2 * (GROUPS_MAX + 1) <= UNUSED_MAX);

/// A subscription at a server that is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unused {
    pub(crate) endpoint: String,
    pub(crate) subscription: u32,
    pub(super) server_start: Option<String>,
}

impl Link {
    /// Whether the earlier subscriptions are ours to go on with, all of them. Otherwise none is.
    pub(super) async fn carry_on(&mut self, session: &Session) -> Result<bool, Error> {
        let here = self.endpoint().to_string();
        let config = Arc::clone(&self.ingest.config);
        let fingerprint = config.fingerprint();
        let mut earlier = self.strands.iter().map(Strand::going);
        let (same, there) = match earlier.try_fold((true, true), |(same, there), progress| {
            let progress = progress?;
            let endpoint = progress.endpoint.as_ref();
            Some((
                same && progress.fingerprint == fingerprint,
                there && endpoint.is_none_or(|there| *there == here),
            ))
        }) {
            Some(earlier) => earlier,
            None => {
                self.abandon_subscriptions();
                return Ok(false);
            }
        };
        if !there {
            self.abandon_subscriptions();
            return Ok(false);
        }
        let failed = |strand: &Strand| strand.unproven >= UNPROVEN_MAX;
        if same && self.strands.iter().any(failed) {
            tracing::warn!(
                endpoint = config.name,
                "the earlier subscription brings nothing; making a new one"
            );
            self.abandon_subscriptions();
            return Ok(false);
        }
        let server_start = session.server_start().await?;
        let made_by = |strand: &Strand| {
            let progress = strand.progress.as_ref();
            progress.is_some_and(|progress| progress.server_start == server_start)
        };
        if !self.strands.iter().all(made_by) {
            tracing::info!(endpoint = config.name, "the server was restarted");
            self.strands.iter_mut().for_each(Strand::forget);
            return Ok(false);
        }
        for strand in 0..self.strands.len() {
            if !self.take_over(session, strand).await? {
                // One without the others would take a list of nodes of its own.
                self.abandon_subscriptions();
                return Ok(false);
            }
        }
        if !same {
            // Another configuration made it: it would only cost the server.
            self.abandon_subscriptions();
            return Ok(false);
        }
        for strand in &mut self.strands {
            strand.unproven += 1;
            if let Some(progress) = &mut strand.progress {
                progress.session.clone_from(&self.session);
                tracing::info!(
                    endpoint = config.name,
                    subscription = progress.subscription,
                    "connected; the earlier subscription goes on"
                );
            }
        }
        Ok(true)
    }

    /// Makes an earlier subscription one of this session; `false` if the server will not.
    async fn take_over(&mut self, session: &Session, strand: usize) -> Result<bool, Error> {
        let strand = &mut self.strands[strand];
        let Some(granted) = strand.progress.as_ref().map(Progress::granted) else {
            return Ok(false);
        };
        strand.granted = granted;
        // A revived session owns its subscriptions already.
        let owned = match session.revived {
            true => Ok(()),
            false => session.transfer(granted.id).await,
        };
        match owned {
            Ok(()) => Ok(true),
            Err(error) if error.is_broken_connection() => {
                strand.unproven += 1;
                Err(error)
            }
            Err(error) => {
                tracing::info!(
                    endpoint = self.ingest.config.name, %error,
                    "the earlier subscription cannot be carried on"
                );
                strand.forget();
                Ok(false)
            }
        }
    }

    /// Fetches what the server sent into the connection that broke: otherwise its next message
    /// would tell that something is missing, and that may be a while.
    pub(super) async fn catch_up(
        &mut self,
        session: &Session,
        strand: usize,
        acknowledgements: &mut Acknowledgements,
    ) -> Result<Taken, Error> {
        loop {
            let number = self.strands[strand].sequence().next();
            let found = match self.fetch(session, strand, number, &[]).await {
                Ok(Some(found)) => found,
                Err(error) if error.is_broken_connection() => return Err(error),
                Ok(None) | Err(_) => return Ok(Taken::Durable),
            };
            self.strands[strand].unproven = 0;
            self.ingest.status.republished();
            if self.take(session, strand, found).await? == Taken::Stopped {
                return Ok(Taken::Stopped);
            }
            let strand = &mut self.strands[strand];
            acknowledgements.append(&mut strand.untold);
            acknowledgements.push((strand.granted.id, number));
        }
    }

    /// They are still there, and of no use.
    pub(super) fn abandon_subscriptions(&mut self) {
        let first = &self.ingest.config.endpoint;
        let strands = self.strands.iter();
        let unused: Vec<Unused> = strands
            .filter_map(|strand| strand.progress.as_ref()?.as_unused(first))
            .collect();
        if let Some(progress) = &mut self.first().progress {
            unused.into_iter().for_each(|it| progress.note_unused(it));
        }
        self.strands.iter_mut().for_each(Strand::forget);
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
        let group = self.first().group;
        let key = self.ingest.config.progress_key(group);
        let progress = &mut self.first().progress;
        let progress = progress.get_or_insert_with(Progress::nothing);
        progress.note_unused(unused);
        let change = progress.change(&key);
        self.ingest
            .append(Vec::new(), Some(change), Some(session))
            .await
    }

    /// Deletes what was given up at this server. What cannot be deleted is left alone: it may be
    /// gone, or belong to a session that the server does not let us take it from.
    pub(super) async fn delete_unused(&mut self, session: &Session) -> Result<(), Error> {
        let here = self.endpoint().to_string();
        let Some(progress) = &mut self.first().progress else {
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
