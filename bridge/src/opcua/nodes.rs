//! The nodes of a subscription: what the server monitors, what it refuses, and asking again.

use super::error::{Error, status};
use super::ingest::Taken;
use super::link::Link;
use super::wire::{Granted, Item, Portion, Session, status_name};
use skerry_store::Record;
use std::collections::BTreeMap;

/// Nodes the server refuses, by handle, with its StatusCode.
pub(super) type Refused = BTreeMap<u32, u32>;

impl Link {
    /// Asks again for the nodes the server refused: they may exist by now.
    pub(super) async fn retry_bad(
        &mut self,
        session: &Session,
        granted: Granted,
    ) -> Result<Taken, Error> {
        let handles: Vec<u32> = self.bad.keys().copied().collect();
        let (items, mut refused) = self.items(session, &handles).await?;
        let mut monitored = self
            .monitor(session, granted.id, &items, &mut refused)
            .await;
        if monitored.is_ok() {
            monitored = self
                .monitor_events(session, granted.id, &handles, &mut refused)
                .await;
        }
        if let Err(error) = monitored {
            // Which of them the server monitors by now is unknown, and a node that is monitored
            // twice sends every value twice: rather a new subscription, after a gap.
            self.abandon_subscription();
            return Err(error);
        }
        if refused == self.bad {
            return Ok(Taken::Durable);
        }
        let before = std::mem::replace(&mut self.bad, refused);
        self.ingest.status.bad_nodes(&self.bad);
        let monitored = before
            .keys()
            .filter(|handle| !self.bad.contains_key(handle));
        for handle in monitored {
            if let Some(progress) = &mut self.progress {
                progress.initial.insert(*handle);
            }
            let named = self.ingest.config.named(*handle);
            tracing::info!(
                endpoint = self.ingest.config.name,
                node = named.map(|(name, _)| name),
                "the server monitors this node now"
            );
        }
        let records = self.newly_bad(&before);
        self.resume(records, session).await
    }

    /// The nodes with these handles as the server names them today, and those whose namespace
    /// it does not know.
    pub(super) async fn items(
        &self,
        session: &Session,
        handles: &[u32],
    ) -> Result<(Vec<Item>, Refused), Error> {
        let namespaces = session.namespaces().await?;
        let sampling_min = session.limits().await?.sampling_min;
        let mut items = Vec::with_capacity(handles.len());
        let mut refused = Refused::new();
        for &handle in handles {
            let Some(node) = self.ingest.config.nodes.get(handle as usize) else {
                continue;
            };
            match node.id.resolve(&namespaces) {
                Some(id) => {
                    let mut node = node.clone();
                    // 0 is "by exception", and faster than any.
                    if !node.sampling.is_zero() {
                        node.sampling = node.sampling.max(sampling_min);
                    }
                    items.push(Item {
                        handle,
                        node: id,
                        sampling: node.sampling,
                        queue_values: node.queue_values(self.ingest.config.outage_budget),
                        deadband: node.deadband,
                    });
                }
                None => {
                    refused.insert(handle, self.roster.why(handle));
                }
            }
        }
        Ok((items, refused))
    }

    /// Has the server monitor `items`, and adds those it will not to `refused`.
    pub(super) async fn monitor(
        &mut self,
        session: &Session,
        subscription: u32,
        items: &[Item],
        refused: &mut Refused,
    ) -> Result<(), Error> {
        let most = self.ingest.config.profile.operations_max();
        let mut portion = Portion::new(session.limits().await?.items.min(most));
        let mut rest = items;
        while !rest.is_empty() {
            let (now, later) = portion.split(rest);
            match session.monitor(subscription, now).await {
                Ok(results) => {
                    for (item, result) in now.iter().zip(results) {
                        match result {
                            Ok(kept) => {
                                self.ingest.status.kept(item.handle, kept);
                                self.roster.kept(item.handle, kept.item);
                            }
                            Err(code) => {
                                refused.insert(item.handle, code);
                            }
                        }
                    }
                    rest = later;
                }
                Err(error) if portion.halved(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Says of each node that turned bad that it did: in the log of the program and in the data.
    pub(super) fn newly_bad(&self, before: &Refused) -> Vec<Record> {
        let fresh = self
            .bad
            .iter()
            .filter(|(handle, code)| before.get(handle) != Some(code));
        fresh
            .filter_map(|(handle, code)| {
                let (node, id) = self.ingest.config.named(*handle)?;
                tracing::warn!(
                    endpoint = self.ingest.config.name, node, %id,
                    reason = words(*code),
                    "the server does not monitor this node; asking again every ten seconds"
                );
                self.ingest.without_value(*handle, *code)
            })
            .collect()
    }
}

/// A StatusCode by its name, with what it means for a node where the name alone does not tell.
pub(super) fn words(code: u32) -> String {
    let name = status_name(code);
    let meaning = match code {
        status::BAD_NO_MATCH => "no node has this path",
        status::BAD_TOO_MANY_MATCHES => {
            "more than one node has this path; name the namespace, as in 2:Speed, or use the id"
        }
        _ => return name,
    };
    format!("{name}: {meaning}")
}
