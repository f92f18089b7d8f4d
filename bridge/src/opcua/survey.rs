//! Looking where paths lead and what is in folders, and bringing the subscription to it.
//!
//! ```text
//!  new subscription:  look ─► number the nodes ─► monitor all of them (link.rs, nodes.rs)
//!  while it runs:     look, beside the values ─► compare ─► release, monitor ─► log
//! ```
//!
//! A change while it runs is two appends: the first says that the subscription must not be carried
//! on, the second that it may be again, and with which nodes. A crash in between costs a gap, never
//! a value under a wrong name.

use super::address::NodeAddress;
use super::config::{Config, Node};
use super::error::{Error, status};
use super::find::locate;
use super::flow::BAD_RETRY;
use super::ingest::Taken;
use super::link::Link;
use super::roster::{Changes, Roster};
use super::value::Value;
use super::walk::{Bounds, Cut, Sight, walk};
use super::wire::{Class, Session, status_name};
use futures_util::future::BoxFuture;
use skerry_store::{Change, Kind, Record};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Of a folder's problems, so many are told one by one in the program's own log.
const COMPLAINTS_LOGGED_MAX: usize = 20;

/// What was seen at the server.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Of nodes with a path, by handle: their id by namespace URI, or why there is none.
    pub(super) located: Vec<(u32, Result<NodeAddress, u32>)>,
    pub(super) folders: Vec<FolderSeen>,
}

#[derive(Debug, Default)]
pub(super) struct FolderSeen {
    /// Its place in the configuration.
    pub(super) folder: usize,
    /// Names and ids of the variables that are to be subscribed to.
    pub(super) nodes: Vec<(String, NodeAddress)>,
    /// Names that several variables have; none of them is in `nodes`.
    pub(super) doubled: Vec<String>,
    /// Why there may be more than was seen.
    pub(super) incomplete: Option<String>,
    /// Why the folder itself could not be looked into.
    pub(super) refused: Option<u32>,
}

/// The looks of one connection, one at a time, beside everything else.
pub(super) struct Looks<'s> {
    session: &'s Session,
    due: Instant,
    running: Option<BoxFuture<'s, Result<Look, Error>>>,
    /// When everything is looked at again; in between only what was not found.
    whole_due: Instant,
}

impl<'s> Looks<'s> {
    /// Where the nodes were looked for just now, a second look comes soon all the same: a server
    /// that has just started may not have all of its nodes yet.
    pub(super) fn new(session: &'s Session, roster: &mut Roster) -> Self {
        let pause = match std::mem::take(&mut roster.fresh) {
            true => BAD_RETRY.min(roster.written.browse_interval),
            false => Duration::ZERO,
        };
        let due = Instant::now() + pause;
        Self {
            session,
            due,
            running: None,
            whole_due: due,
        }
    }

    /// There is a reason to look.
    pub(super) fn now(&mut self) {
        self.due = Instant::now();
        self.whole_due = self.due;
    }

    /// The next look, when it is due and done. May be dropped and asked again.
    pub(super) async fn next(&mut self, roster: &Roster) -> Result<Look, Error> {
        if !roster.looks() {
            return std::future::pending().await;
        }
        let running = match &mut self.running {
            Some(running) => running,
            None => {
                tokio::time::sleep_until(self.due).await;
                let whole = Instant::now() >= self.whole_due;
                let (nodes, folders) = match whole {
                    true => everything(&roster.written),
                    false => roster.unsettled(),
                };
                if whole {
                    self.whole_due = Instant::now() + roster.written.browse_interval;
                }
                let written = Arc::clone(&roster.written);
                let session = self.session;
                self.running
                    .insert(Box::pin(look(session, written, nodes, folders)))
            }
        };
        let looked = running.await;
        self.running = None;
        self.due = self.whole_due.min(Instant::now() + BAD_RETRY);
        looked
    }
}

impl Look {
    /// The server does not let itself be looked at.
    fn refused(written: &Config, code: u32) -> Self {
        let (nodes, folders) = everything(written);
        let folder = |folder| FolderSeen {
            folder,
            refused: Some(code),
            ..FolderSeen::default()
        };
        Self {
            located: nodes
                .into_iter()
                .map(|handle| (handle, Err(code)))
                .collect(),
            folders: folders.into_iter().map(folder).collect(),
        }
    }
}

fn everything(written: &Config) -> (Vec<u32>, Vec<usize>) {
    let by_path = (0..)
        .zip(&written.nodes)
        .filter(|(_, node)| node.id.path().is_some());
    let nodes = by_path.map(|(handle, _)| handle).collect();
    (nodes, (0..written.folders.len()).collect())
}

async fn look(
    session: &Session,
    written: Arc<Config>,
    nodes: Vec<u32>,
    folders: Vec<usize>,
) -> Result<Look, Error> {
    let of_nodes = nodes
        .iter()
        .map(|handle| &written.nodes[*handle as usize].id);
    let of_folders = folders.iter().map(|folder| &written.folders[*folder].at);
    let addresses: Vec<&NodeAddress> = of_nodes.chain(of_folders).collect();
    if addresses.is_empty() {
        return Ok(Look::default());
    }
    let namespaces = session.namespaces().await?;
    let mut located = locate(session, &addresses).await?.into_iter();
    let mut seen = Look::default();
    for handle in nodes {
        let id = located.next().unwrap_or(Err(status::BAD_NO_MATCH));
        let id = id.and_then(|id| {
            NodeAddress::lasting(&id, &namespaces).ok_or(status::BAD_NODE_ID_UNKNOWN)
        });
        seen.located.push((handle, id));
    }
    for (folder, start) in folders.into_iter().zip(located) {
        let folder_seen = match start {
            Ok(start) => look_into(session, &written, folder, &start, &namespaces).await?,
            Err(code) => FolderSeen {
                folder,
                refused: Some(code),
                ..FolderSeen::default()
            },
        };
        seen.folders.push(folder_seen);
    }
    Ok(seen)
}

async fn look_into(
    session: &Session,
    written: &Config,
    index: usize,
    start: &str,
    namespaces: &[String],
) -> Result<FolderSeen, Error> {
    let folder = &written.folders[index];
    let bounds = Bounds {
        depth_max: folder.depth,
        kept_max: folder.nodes_max,
    };
    let sight = |path: &str, class| {
        if folder.leaves_out(path) {
            return Sight::Skip;
        }
        match class == Class::Variable && folder.takes(path) {
            true => Sight::Keep,
            false => Sight::Pass,
        }
    };
    let walked = walk(session, start, &bounds, sight).await?;
    let mut seen = FolderSeen {
        folder: index,
        ..FolderSeen::default()
    };
    let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for found in walked.found {
        let name = format!("{}/{}", folder.name, found.path);
        by_name.entry(name).or_default().push(found.node);
    }
    for (name, mut nodes) in by_name {
        match (nodes.pop(), nodes.is_empty()) {
            (Some(node), true) => {
                // An id that cannot be written down cannot be configured either.
                if let Some(id) = NodeAddress::lasting(&node, namespaces) {
                    seen.nodes.push((name, id));
                }
            }
            _ => seen.doubled.push(name),
        }
    }
    for (path, code) in walked.refused {
        if path.is_empty() {
            seen.refused = Some(code);
        } else {
            let code = status_name(code);
            seen.incomplete = Some(format!(
                "the server does not tell what is below {path}: {code}"
            ));
        }
    }
    seen.incomplete = match walked.cut {
        // So deep and no deeper is what was asked for.
        None | Some(Cut::Depth(_)) => seen.incomplete,
        Some(Cut::Kept(most)) => Some(format!(
            "only {most} of its variables are subscribed to: raise nodes_max, or exclude some"
        )),
        Some(cut @ (Cut::Seen | Cut::List)) => Some(format!(
            "{cut}: name a folder further down, or exclude what is not needed"
        )),
    };
    Ok(seen)
}

impl Link {
    /// Before a new subscription: what it is to be made of. The records of what is gone since
    /// the last one.
    pub(super) async fn survey(&mut self, session: &Session) -> Result<Vec<Record>, Error> {
        if !self.roster.looks() {
            return Ok(Vec::new());
        }
        let written = Arc::clone(&self.roster.written);
        let (nodes, folders) = everything(&written);
        let look = match look(session, Arc::clone(&written), nodes, folders).await {
            Err(error) if error.is_broken_connection() => return Err(error),
            // Nodes with an id are read all the same.
            Err(error) => Look::refused(&written, error.status().unwrap_or(status::BAD_NO_MATCH)),
            Ok(look) => look,
        };
        let bad_names = self.bad.iter().filter_map(|(handle, code)| {
            let node = self.ingest.config.nodes.get(*handle as usize)?;
            Some((node.name.clone(), *code))
        });
        let bad_names: BTreeMap<String, u32> = bad_names.collect();
        let mut nodes = self.ingest.config.nodes.clone();
        let told = self.told_gone();
        self.roster.renumber(&mut nodes);
        let mut changes = self.roster.compare(&nodes, &look, true);
        let mut records = Vec::new();
        for handle in &changes.vanished {
            let node = &changes.nodes[*handle as usize];
            if !told.contains(&node.name) {
                records.push(self.farewell(node));
            }
        }
        self.roster.settle(&changes, &look);
        self.roster.renumber(&mut changes.nodes);
        self.complain(&changes);
        self.appoint(changes.nodes);
        // What is bad is so under its new number.
        let numbered = (0..).zip(&self.ingest.config.nodes);
        let bad = numbered.filter_map(|(handle, node)| Some((handle, *bad_names.get(&node.name)?)));
        self.bad = bad.collect();
        self.roster.fresh = true;
        Ok(records)
    }

    /// While a subscription runs: brings it to what was seen.
    pub(super) async fn adapt(
        &mut self,
        session: &Session,
        look: Result<Look, Error>,
    ) -> Result<Taken, Error> {
        let look = match look {
            Ok(look) => look,
            Err(error) if error.is_broken_connection() => return Err(error),
            Err(error) => {
                // The values flow all the same.
                tracing::warn!(
                    endpoint = self.ingest.config.name, %error,
                    "the server cannot be looked around in; trying again"
                );
                return Ok(Taken::Durable);
            }
        };
        let changes = self.roster.compare(&self.ingest.config.nodes, &look, false);
        self.complain(&changes);
        if changes.is_none() {
            self.roster.settle(&changes, &look);
            return Ok(Taken::Durable);
        }
        if Roster::is_worn(&changes) {
            self.abandon_subscriptions();
            return Err(Error::Service {
                step: "following the folders",
                status: 0,
                detail: "too many nodes have come and gone; numbering them anew".to_owned(),
            });
        }
        let told = self.told_gone();
        let mut records: Vec<Record> = Vec::new();
        for handle in &changes.vanished {
            let node = &changes.nodes[*handle as usize];
            if !told.contains(&node.name) {
                records.push(self.farewell(node));
            }
        }
        if self.suspend(records, session).await? == Taken::Stopped {
            return Ok(Taken::Stopped);
        }
        let mut before = self.bad.clone();
        for (handle, code) in &changes.refused {
            // The server said that the node is gone; that its path leads nowhere adds nothing.
            if before.get(handle) == Some(&status::BAD_NODE_ID_UNKNOWN) {
                before.insert(*handle, *code);
            }
        }
        self.roster.settle(&changes, &look);
        for handle in changes.vanished.iter().chain(&changes.create) {
            self.bad.remove(handle);
        }
        self.bad.extend(&changes.refused);
        let Changes {
            nodes,
            create,
            release,
            ..
        } = changes;
        let appeared = create.len();
        self.appoint(nodes);
        if let Err(error) = self.exchange(session, &release, &create).await {
            // What the server monitors by now is unknown: rather a new subscription, after a gap.
            self.abandon_subscriptions();
            return Err(error);
        }
        tracing::info!(
            endpoint = self.ingest.config.name,
            monitored = appeared,
            gone = self.roster.gone(),
            "followed the server: its nodes have changed"
        );
        let records = self.newly_bad(&before);
        self.await_first(&create);
        self.resume(records, session).await
    }

    /// Nodes that the server said are gone, in values that are in the log: not monitored any
    /// more, but asked for again as other bad nodes are.
    pub(super) async fn release_lost(
        &mut self,
        session: &Session,
        looks: &mut Looks<'_>,
    ) -> Result<Taken, Error> {
        let lost = self.roster.take_lost();
        if lost.is_empty() {
            return Ok(Taken::Durable);
        }
        looks.now();
        if self.suspend(Vec::new(), session).await? == Taken::Stopped {
            return Ok(Taken::Stopped);
        }
        for handle in &lost {
            self.bad.insert(*handle, status::BAD_NODE_ID_UNKNOWN);
        }
        if let Err(error) = self.exchange(session, &lost, &[]).await {
            self.abandon_subscriptions();
            return Err(error);
        }
        tracing::warn!(
            endpoint = self.ingest.config.name,
            nodes = lost.len(),
            "nodes are gone from the server; asking again every ten seconds"
        );
        self.resume(Vec::new(), session).await
    }

    /// Releases first: a node at another place has one handle, and must not come twice.
    async fn exchange(
        &mut self,
        session: &Session,
        release: &[u32],
        create: &[u32],
    ) -> Result<(), Error> {
        let config = Arc::clone(&self.ingest.config);
        for strand in 0..self.strands.len() {
            let (group, subscription) = self.strands[strand].at_server();
            let mine = release.iter().copied();
            let mine: Vec<u32> = mine.filter(|it| config.group_of(*it) == group).collect();
            let items = self.roster.take_items(&mine);
            session.unmonitor(subscription, &items).await?;
        }
        let (items, mut refused) = self.items(session, create).await?;
        self.monitor(session, items.clone(), &mut refused).await?;
        self.bad.extend(refused);
        self.ask_history(session, &items).await?;
        self.ingest.status.bad_nodes(&self.bad);
        Ok(())
    }

    /// The next value of each of these nodes, where it is monitored now, is its first.
    pub(super) fn await_first(&mut self, handles: &[u32]) {
        for handle in handles {
            if self.bad.contains_key(handle) {
                continue;
            }
            let strand = self.strand_of(*handle);
            if let Some(progress) = strand.and_then(|strand| strand.progress.as_mut()) {
                progress.initial.insert(*handle);
            }
        }
    }

    /// Takes `records`, and says that a crash from here on ends the subscriptions.
    pub(super) async fn suspend(
        &mut self,
        records: Vec<Record>,
        session: &Session,
    ) -> Result<Taken, Error> {
        let group = self.first().group;
        let key = self.ingest.config.progress_key(group);
        // One that is not carried on takes the others along.
        let Some(progress) = &mut self.first().progress else {
            return Ok(Taken::Durable);
        };
        progress.fingerprint = 0;
        let change = progress.change(&key);
        self.ingest
            .append_many(records, vec![change], Some(session))
            .await
    }

    /// Takes `records`, and says which nodes the subscriptions have now.
    pub(super) async fn resume(
        &mut self,
        records: Vec<Record>,
        session: &Session,
    ) -> Result<Taken, Error> {
        let fingerprint = self.ingest.config.fingerprint();
        for progress in self
            .strands
            .iter_mut()
            .filter_map(|it| it.progress.as_mut())
        {
            progress.fingerprint = fingerprint;
        }
        let bad = std::mem::take(&mut self.bad);
        if let Some(progress) = &mut self.first().progress {
            progress.set_bad(&bad);
        }
        self.bad = bad;
        let mut changes = self.progress_changes();
        changes.extend(self.roster.change(&self.ingest.config.nodes));
        self.ingest
            .append_many(records, changes, Some(session))
            .await
    }

    /// The progress of all subscriptions, for the catalog.
    pub(super) fn progress_changes(&self) -> Vec<Change> {
        let strands = self.strands.iter();
        strands
            .filter_map(|strand| {
                let key = self.ingest.config.progress_key(strand.group);
                Some(strand.progress.as_ref()?.change(&key))
            })
            .collect()
    }

    /// Names of nodes that are gone or were never there, which the log says already.
    fn told_gone(&self) -> BTreeSet<String> {
        let gone = self
            .bad
            .iter()
            .filter(|(_, code)| **code == status::BAD_NODE_ID_UNKNOWN);
        let names = gone.filter_map(|(handle, _)| self.ingest.config.nodes.get(*handle as usize));
        names.map(|node| node.name.clone()).collect()
    }

    fn farewell(&self, node: &Node) -> Record {
        tracing::warn!(
            endpoint = self.ingest.config.name, node = node.name, id = %node.id,
            "this node is gone from the server"
        );
        let mut record = Record::new(Kind::Opcua, node.name.clone(), Value::Null.into_payload());
        record.status = status::BAD_NODE_ID_UNKNOWN;
        record
    }

    /// The nodes are these from now on.
    fn appoint(&mut self, nodes: Vec<Node>) {
        let mut config = (*self.ingest.config).clone();
        config.nodes = nodes;
        self.ingest.config = Arc::new(config);
        self.marks.renumber(&self.ingest.config.nodes);
        let gone = self.roster.gone();
        self.ingest.status.roster(&self.ingest.config, gone);
    }

    fn complain(&self, changes: &Changes) {
        for (folder, complaints) in &changes.complaints {
            let new = self.ingest.status.complain(*folder, complaints);
            for one in new.iter().take(COMPLAINTS_LOGGED_MAX) {
                tracing::warn!(
                    endpoint = self.ingest.config.name,
                    name = one.name,
                    id = one.id,
                    reason = one.error,
                    "cannot be followed"
                );
            }
            if new.len() > COMPLAINTS_LOGGED_MAX {
                tracing::warn!(
                    endpoint = self.ingest.config.name,
                    more = new.len() - COMPLAINTS_LOGGED_MAX,
                    "cannot be followed; `skerry status` lists them"
                );
            }
        }
    }
}
