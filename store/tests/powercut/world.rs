//! A node's disk and all that was said about it, at one moment.

use crate::common::rng::Rng;
use crate::disk::Disk;
use crate::history::{Encrypted, History};
use crate::recorder::{Event, Tree};
use std::path::Path;
use std::sync::Arc;

const CATALOG: &str = "data/catalog";
const SECTOR: usize = 512;

#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) disk: Disk,
    pub(crate) history: History,
    pub(crate) boot: u128,
    pub(crate) encrypted: Encrypted,
    /// The database as it was at some moments, oldest first.
    catalogs: Vec<Arc<Tree>>,
    /// Which of them is there.
    catalog: Option<Arc<Tree>>,
}

impl World {
    pub(crate) fn new(encrypted: Encrypted) -> Self {
        Self {
            encrypted,
            disk: Disk::new(),
            history: History::default(),
            boot: 1,
            catalogs: Vec::new(),
            catalog: None,
        }
    }

    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::Op(op) => self.disk.apply(op),
            Event::Catalog(tree) => self.catalogs.push(Arc::clone(tree)),
            Event::Asked(asked) => {
                self.history.ask(asked.clone());
            }
            Event::Answered(number, fate) => self.history.answer(*number, *fate),
            Event::Checked(history) => self.history = (**history).clone(),
        }
    }

    /// The power goes, and comes back.
    pub(crate) fn cut(&self, rng: &mut Rng) -> Self {
        let mut catalog = self.any_catalog(rng);
        if rng.one_in(2)
            && let Some(tree) = &mut catalog
        {
            let other = self.any_catalog(rng).unwrap_or_default();
            tear(Arc::make_mut(tree), &other, rng);
        }
        Self {
            disk: self.disk.cut(rng),
            history: self.history.clone(),
            boot: self.boot + 1,
            encrypted: self.encrypted.after_cut(),
            catalogs: catalog.iter().cloned().collect(),
            catalog,
        }
    }

    /// The process dies, and the kernel lives on: all that was written is there, synced or not.
    pub(crate) fn kill(&self, rng: &mut Rng) -> Self {
        let mut world = self.clone();
        world.catalog = self.any_catalog(rng);
        world
    }

    fn any_catalog(&self, rng: &mut Rng) -> Option<Arc<Tree>> {
        let newest = self.catalogs.last().cloned();
        match rng.below(4) {
            0 => None,
            1 if !self.catalogs.is_empty() => {
                Some(Arc::clone(&self.catalogs[rng.below(self.catalogs.len())]))
            }
            _ => newest,
        }
    }

    pub(crate) fn write_to(&self, root: &Path) {
        self.disk.write_to(root);
        if self.disk.find(Path::new("data")).is_none() {
            return;
        }
        for (path, bytes) in self.catalog.iter().flat_map(|tree| tree.iter()) {
            let path = root.join(CATALOG).join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
}

/// Some sectors are zeros, or as they were at another time, or the file is short.
fn tear(tree: &mut Tree, other: &Tree, rng: &mut Rng) {
    for (path, bytes) in tree {
        let other = other.iter().find(|(other, _)| other == path);
        let other = other.map_or(&[][..], |(_, bytes)| bytes);
        for _ in 0..rng.below(6) {
            let sectors = bytes.len().div_ceil(SECTOR).max(1);
            // Most of the file was never written to.
            let busy = if rng.one_in(2) {
                sectors.min(32)
            } else {
                sectors
            };
            let from = rng.below(busy) * SECTOR;
            let until = (from + SECTOR * (1 + rng.below(4))).min(bytes.len());
            let from = from.min(until);
            match other.get(from..until) {
                Some(other) if rng.one_in(2) => bytes[from..until].copy_from_slice(other),
                _ => bytes[from..until].fill(0),
            }
        }
        if rng.one_in(6) {
            bytes.truncate(rng.below(bytes.len() + 1));
        }
    }
}
