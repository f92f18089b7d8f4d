//! The nodes of a subscription: what the server monitors, what it refuses, and asking again.

use super::error::{Error, status};
use super::groups::GroupId;
use super::ingest::Taken;
use super::link::Link;
use super::wire::{Item, Monitored, Portion, Session, status_name};
use skerry_store::Record;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Nodes the server refuses, by handle, with its StatusCode.
pub(super) type Refused = BTreeMap<u32, u32>;

impl Link {
    /// Asks again for the nodes the server refused: they may exist by now.
    ///
    /// What is not there is only looked for. Anything else may be monitored from now on, and a
    /// crash between that and the log would have the next run ask for it a second time, and get
    /// every value twice: so the subscription is not to be carried on meanwhile.
    pub(super) async fn retry_bad(&mut self, session: &Session) -> Result<Taken, Error> {
        let handles: Vec<u32> = self.bad.keys().copied().collect();
        let (items, mut refused) = self.items(session, &handles).await?;
        let items = self.found(session, items, &mut refused).await?;
        let config = Arc::clone(&self.ingest.config);
        let events = handles
            .iter()
            .any(|handle| config.event_source(*handle).is_some());
        let asks = events || !items.is_empty();
        if !asks && refused == self.bad {
            return Ok(Taken::Durable);
        }
        if asks {
            if self.suspend(Vec::new(), session).await? == Taken::Stopped {
                return Ok(Taken::Stopped);
            }
            let mut monitored = self.monitor(session, items, &mut refused).await;
            if monitored.is_ok() {
                monitored = self.monitor_events(session, &handles, &mut refused).await;
            }
            if let Err(error) = monitored {
                // Which of them the server monitors by now is unknown: rather a new
                // subscription, after a gap.
                self.abandon_subscriptions();
                return Err(error);
            }
        }
        let before = std::mem::replace(&mut self.bad, refused);
        self.ingest.status.bad_nodes(&self.bad);
        let monitored = before.keys().copied();
        let monitored: Vec<u32> = monitored
            .filter(|handle| !self.bad.contains_key(handle))
            .collect();
        self.await_first(&monitored);
        for handle in monitored {
            let named = config.named(handle);
            tracing::info!(
                endpoint = config.name,
                node = named.map(|(name, _)| name),
                "the server monitors this node now"
            );
        }
        let records = self.newly_bad(&before);
        self.resume(records, session).await
    }

    /// Those of `items` that are there by now; the others stay as bad as they are.
    async fn found(
        &self,
        session: &Session,
        items: Vec<Item>,
        refused: &mut Refused,
    ) -> Result<Vec<Item>, Error> {
        let nodes: Vec<String> = items.iter().map(|item| item.node.clone()).collect();
        let there = session.are_there(&nodes).await?;
        let (found, missing): (Vec<_>, Vec<_>) =
            items.into_iter().zip(there).partition(|(_, there)| *there);
        for (item, _) in missing {
            let why = self.bad.get(&item.handle).copied();
            refused.insert(item.handle, why.unwrap_or(status::BAD_NODE_ID_UNKNOWN));
        }
        Ok(found.into_iter().map(|(item, _)| item).collect())
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

    /// Has the server monitor `items`, each in its group's subscription, and adds those it will
    /// not to `refused`.
    pub(super) async fn monitor(
        &mut self,
        session: &Session,
        items: Vec<Item>,
        refused: &mut Refused,
    ) -> Result<(), Error> {
        let config = Arc::clone(&self.ingest.config);
        let mut by_group: BTreeMap<Option<GroupId>, Vec<Item>> = BTreeMap::new();
        for item in items {
            let group = config.group_of(item.handle);
            by_group.entry(group).or_default().push(item);
        }
        let most = config.profile.operations_max();
        let mut portion = Portion::new(session.limits().await?.items.min(most));
        for strand in 0..self.strands.len() {
            let (group, subscription) = self.strands[strand].at_server();
            let items = by_group.remove(&group).unwrap_or_default();
            let mut rest = items.as_slice();
            while !rest.is_empty() {
                let (now, later) = portion.split(rest);
                match session.monitor(subscription, now).await {
                    Ok(results) => {
                        self.monitored(now, results, refused);
                        rest = later;
                    }
                    Err(error) if portion.halved(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn monitored(&mut self, items: &[Item], results: Vec<Monitored>, refused: &mut Refused) {
        for (item, result) in items.iter().zip(results) {
            match result {
                Ok(kept) => {
                    self.ingest.status.kept(item.handle, kept);
                    self.roster.kept(item.handle, kept.item);
                }
                Err(code) => drop(refused.insert(item.handle, code)),
            }
        }
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
