//! Which node has which handle: the configured ones, in their order, and after them what was found
//! in folders.
//!
//! A subscription's values come by handle. So a handle keeps its node for as long as the
//! subscription lives, also when the node is gone from the server, and the whole list is in the
//! catalog, written together with the progress it belongs to: the next run knows it before it
//! connects, and its fingerprint tells whether the two still fit. A new subscription numbers
//! anew, without what is gone.

use super::address::NodeAddress;
use super::config::{Config, Node};
use super::error::status;
use super::ingest::APPEND_BYTES;
use super::nodes::words;
use super::status::BadNode;
use super::survey::{FolderSeen, Look};
use super::value::Sample;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use skerry_store::{Change, Log};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

const BUCKET: &str = "opcua-nodes";
/// A list beyond this is not kept: after a restart, the subscription is made anew.
const SAVED_BYTES_MAX: usize = 2 * 1024 * 1024;
const _: () = assert!(SAVED_BYTES_MAX + 2 * APPEND_BYTES < skerry_store::APPEND_BYTES_MAX + 1);
/// Handles of one subscription, also of what is long gone; beyond it a new one is made.
const HANDLES_MAX: usize = 200_000;

pub(super) struct Roster {
    /// The configuration as written, with paths where paths are written.
    pub(super) written: Arc<Config>,
    /// The folder of each node after the written ones, by its place in the configuration.
    found: Vec<usize>,
    /// Handles of found nodes that are not at the server any more.
    gone: BTreeSet<u32>,
    /// The server's ids of what it monitors, by handle, as far as they are known.
    items: BTreeMap<u32, u32>,
    /// Why there is no id for a node with a path.
    astray: BTreeMap<u32, u32>,
    /// Folders that could not be looked into.
    closed: BTreeSet<usize>,
    /// Handles whose nodes are gone by the server's own word, which is in the log.
    lost: BTreeSet<u32>,
    /// Whether everything was looked for just now.
    pub(super) fresh: bool,
}

/// What a look changes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// All nodes, by handle.
    pub(super) nodes: Vec<Node>,
    /// To be monitored from now on.
    pub(super) create: Vec<u32>,
    /// Not any more, or at another place.
    pub(super) release: Vec<u32>,
    /// Found nodes that are gone.
    pub(super) vanished: Vec<u32>,
    /// Nodes with a path that leads nowhere, newly so.
    pub(super) refused: BTreeMap<u32, u32>,
    /// What is to be told in words, by folder: what in it cannot be followed.
    pub(super) complaints: BTreeMap<usize, Vec<BadNode>>,
    /// The folders of what is found, by handle.
    found: Vec<usize>,
}

/// In the catalog.
#[derive(Default, Serialize, Deserialize)]
struct Saved {
    /// Ids of nodes that are configured by a path, by name.
    located: BTreeMap<String, String>,
    /// Folder, name and id, in the order of the handles.
    found: Vec<(usize, String, String)>,
    gone: BTreeSet<u32>,
    items: BTreeMap<u32, u32>,
}

impl Roster {
    /// What an earlier run knew, and the configuration with it, which is the written one where
    /// nothing is looked for; blocks.
    pub(super) fn load(
        log: &Log,
        written: Arc<Config>,
    ) -> Result<(Self, Arc<Config>), skerry_store::Error> {
        let mut roster = Self {
            written: Arc::clone(&written),
            found: Vec::new(),
            gone: BTreeSet::new(),
            items: BTreeMap::new(),
            astray: BTreeMap::new(),
            closed: BTreeSet::new(),
            lost: BTreeSet::new(),
            fresh: false,
        };
        if !roster.looks() {
            return Ok((roster, written));
        }
        let mut config = (*written).clone();
        let stored = log.get(BUCKET, config.name.as_bytes())?;
        // What another version wrote differently, or was written for other folders, is as good
        // as nothing: the fingerprint does not match, and the subscription is made anew.
        let saved: Saved = stored
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        for node in &mut config.nodes {
            let id = saved
                .located
                .get(&node.name)
                .filter(|_| node.id.path().is_some());
            if let Some(id) = id.and_then(|id| id.parse().ok()) {
                node.id = id;
            }
        }
        let found: Option<Vec<(usize, Node)>> = saved
            .found
            .into_iter()
            .map(|(index, name, id)| {
                let folder = config.folders.get(index)?;
                let id = id.parse().ok()?;
                folder
                    .may_name(&name)
                    .then(|| (index, folder.node(name, id)))
            })
            .collect();
        if let Some(found) = found {
            let (folders, nodes): (Vec<usize>, Vec<Node>) = found.into_iter().unzip();
            roster.found = folders;
            roster.gone = saved.gone;
            config.nodes.extend(nodes);
        }
        roster.items = saved.items;
        Ok((roster, Arc::new(config)))
    }

    /// The list for the catalog, where there is one.
    pub(super) fn change(&self, nodes: &[Node]) -> Option<Change> {
        if !self.looks() {
            return None;
        }
        let written = self.written.nodes.len();
        let located = self.written.nodes.iter().zip(nodes);
        let saved = Saved {
            located: located
                .filter(|(written, now)| written.id.path().is_some() && now.id.path().is_none())
                .map(|(_, now)| (now.name.clone(), now.id.to_string()))
                .collect(),
            found: self
                .found
                .iter()
                .zip(nodes.iter().skip(written))
                .map(|(folder, node)| (*folder, node.name.clone(), node.id.to_string()))
                .collect(),
            gone: self.gone.clone(),
            items: self.items.clone(),
        };
        let bucket = BUCKET.to_owned();
        let key = Bytes::copy_from_slice(self.written.name.as_bytes());
        let value = serde_json::to_vec(&saved).expect("plain numbers and strings");
        Some(match value.len() <= SAVED_BYTES_MAX {
            true => Change::Put {
                bucket,
                key,
                value: value.into(),
            },
            false => Change::Delete { bucket, key },
        })
    }

    /// Whether anything is to be looked for at the server at all.
    pub(super) fn looks(&self) -> bool {
        let paths = self
            .written
            .nodes
            .iter()
            .any(|node| node.id.path().is_some());
        paths || !self.written.folders.is_empty()
    }

    pub(super) fn is_gone(&self, handle: u32) -> bool {
        self.gone.contains(&handle)
    }

    pub(super) fn gone(&self) -> usize {
        self.gone.len()
    }

    /// Why a node has no id; that the server does not know its namespace is the last guess.
    pub(super) fn why(&self, handle: u32) -> u32 {
        let why = self.astray.get(&handle).copied();
        why.unwrap_or(status::BAD_NODE_ID_UNKNOWN)
    }

    /// Nodes and folders that were not found when they were looked for last.
    pub(super) fn unsettled(&self) -> (Vec<u32>, Vec<usize>) {
        let nodes = self.astray.keys().copied().collect();
        (nodes, self.closed.iter().copied().collect())
    }

    pub(super) fn kept(&mut self, handle: u32, item: u32) {
        self.items.insert(handle, item);
    }

    /// The server's ids of what it monitors for these handles; they are forgotten here.
    pub(super) fn take_items(&mut self, handles: &[u32]) -> Vec<u32> {
        let ids = handles
            .iter()
            .filter_map(|handle| self.items.remove(handle));
        ids.collect()
    }

    /// Whether a value tells anything: a server may say once more that a node is gone.
    pub(super) fn hears(&mut self, sample: &Sample) -> bool {
        if sample.status != status::BAD_NODE_ID_UNKNOWN {
            return true;
        }
        if self.gone.contains(&sample.handle) {
            return false;
        }
        if self.items.contains_key(&sample.handle) {
            self.lost.insert(sample.handle);
        }
        true
    }

    /// Handles of nodes that the server said are gone, since this was asked last.
    pub(super) fn take_lost(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.lost).into_iter().collect()
    }

    /// Numbers anew for a new subscription: what is gone has no handle any more, and nothing is
    /// monitored yet.
    pub(super) fn renumber(&mut self, nodes: &mut Vec<Node>) {
        let written = self.written.nodes.len();
        let mut handle = 0_u32;
        nodes.retain(|_| {
            handle += 1;
            !self.gone.contains(&(handle - 1))
        });
        let mut index = written as u32;
        self.found.retain(|_| {
            index += 1;
            !self.gone.contains(&(index - 1))
        });
        self.gone.clear();
        self.items.clear();
        self.lost.clear();
    }

    /// Whether more nodes have come and gone than one subscription can number.
    pub(super) fn is_worn(changes: &Changes) -> bool {
        changes.nodes.len() > HANDLES_MAX
    }

    /// What is different from `nodes` after a look. For a new subscription (`anew`), what was not
    /// seen is not asked for, be it gone or only out of sight: its id may be another's by now.
    pub(super) fn compare(&self, nodes: &[Node], look: &Look, anew: bool) -> Changes {
        let mut changes = Changes {
            nodes: nodes.to_vec(),
            found: self.found.clone(),
            ..Changes::default()
        };
        for (handle, located) in &look.located {
            self.compare_path(&mut changes, *handle, located);
        }
        let handles: HashMap<String, u32> = (0_u32..)
            .zip(nodes)
            .map(|(handle, node)| (node.name.clone(), handle))
            .collect();
        let mut by_name = handles;
        for seen in &look.folders {
            self.compare_folder(&mut changes, &mut by_name, seen, anew);
        }
        changes
    }

    fn compare_path(&self, changes: &mut Changes, handle: u32, located: &Result<NodeAddress, u32>) {
        let Some(node) = changes.nodes.get_mut(handle as usize) else {
            return;
        };
        match located {
            Ok(id) => {
                if node.id != *id || self.astray.contains_key(&handle) {
                    changes.release.push(handle);
                    changes.create.push(handle);
                    node.id = id.clone();
                }
            }
            Err(code) => {
                if self.astray.get(&handle) != Some(code) {
                    changes.release.push(handle);
                    changes.refused.insert(handle, *code);
                }
                node.id.clone_from(&self.written.nodes[handle as usize].id);
            }
        }
    }

    fn compare_folder(
        &self,
        changes: &mut Changes,
        by_name: &mut HashMap<String, u32>,
        seen: &FolderSeen,
        anew: bool,
    ) {
        let written = self.written.nodes.len();
        let folder = &self.written.folders[seen.folder];
        changes.complaints.insert(seen.folder, Vec::new());
        let complain = |changes: &mut Changes, name: &str, id: String, error: String| {
            let name = name.to_owned();
            let complaints = changes.complaints.entry(seen.folder).or_default();
            complaints.push(BadNode { name, id, error });
        };
        let mine = |changes: &Changes, handle: u32| {
            let index = (handle as usize).checked_sub(written);
            index.and_then(|index| changes.found.get(index)) == Some(&seen.folder)
        };
        for name in &seen.doubled {
            let error =
                "BadBrowseNameDuplicated: several variables have this path; configure them by id";
            complain(changes, name, folder.at.to_string(), error.to_owned());
        }
        let mut there = BTreeSet::new();
        let mut left_over = 0;
        let mut live = (0_u32..)
            .zip(&changes.found)
            .filter(|(index, of)| {
                **of == seen.folder && !self.gone.contains(&(written as u32 + index))
            })
            .count();
        for (name, id) in &seen.nodes {
            match by_name.get(name).copied() {
                Some(handle) if mine(changes, handle) => {
                    there.insert(handle);
                    let gone = self.gone.contains(&handle);
                    let node = &mut changes.nodes[handle as usize];
                    if gone || node.id != *id {
                        node.id = id.clone();
                        changes.release.push(handle);
                        changes.create.push(handle);
                    }
                    live += usize::from(gone);
                }
                Some(handle) => {
                    // Configured by itself as well, for another sampling: that one counts.
                    let other = &changes.nodes[handle as usize];
                    if other.id != *id {
                        let error = format!(
                            "BadBrowseNameDuplicated: {} has this name already; it is the key in the cluster, \
                             so rename one of them",
                            other.id
                        );
                        complain(changes, name, id.to_string(), error);
                    }
                }
                None if live >= folder.nodes_max => left_over += 1,
                None => {
                    let handle = changes.nodes.len() as u32;
                    changes.nodes.push(folder.node(name.clone(), id.clone()));
                    changes.found.push(seen.folder);
                    changes.create.push(handle);
                    by_name.insert(name.clone(), handle);
                    there.insert(handle);
                    live += 1;
                }
            }
        }
        if left_over > 0 {
            let most = folder.nodes_max;
            let error = format!(
                "only {most} of its variables are subscribed to: raise nodes_max, or exclude some"
            );
            complain(changes, &folder.name, folder.at.to_string(), error);
        }
        if let Some(why) = &seen.incomplete {
            complain(changes, &folder.name, folder.at.to_string(), why.clone());
        }
        let without_folder = match seen.refused {
            Some(code) => {
                complain(changes, &folder.name, folder.at.to_string(), words(code));
                matches!(code, status::BAD_NO_MATCH | status::BAD_NODE_ID_UNKNOWN)
            }
            None => seen.incomplete.is_none(),
        };
        if anew || without_folder {
            let missing = (written as u32..changes.nodes.len() as u32).filter(|handle| {
                mine(changes, *handle) && !self.gone.contains(handle) && !there.contains(handle)
            });
            let missing: Vec<u32> = missing.collect();
            changes.release.extend(&missing);
            changes.vanished.extend(missing);
        }
    }

    /// From now on it is so. The caller does what is to be done at the server.
    pub(super) fn settle(&mut self, changes: &Changes, look: &Look) {
        self.found.clone_from(&changes.found);
        self.gone.extend(&changes.vanished);
        for handle in &changes.create {
            self.gone.remove(handle);
        }
        for (handle, located) in &look.located {
            match located {
                Ok(_) => self.astray.remove(handle),
                Err(code) => self.astray.insert(*handle, *code),
            };
        }
        for seen in &look.folders {
            match seen.refused {
                Some(_) => self.closed.insert(seen.folder),
                None => self.closed.remove(&seen.folder),
            };
        }
    }
}

impl Changes {
    pub(super) fn is_none(&self) -> bool {
        self.create.is_empty() && self.release.is_empty() && self.refused.is_empty()
    }
}

#[cfg(test)]
mod tests;
