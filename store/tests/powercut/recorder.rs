//! Writes down what the log does to its files, in order, between what it was asked and answered.

use crate::disk::Op;
use crate::history::{Asked, Fate, History};
use skerry_store::{Done, Fault, Operation};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// The files of a folder, by name.
pub(crate) type Tree = Vec<(PathBuf, Vec<u8>)>;

#[derive(Debug, Clone)]
pub(crate) enum Event {
    Op(Op),
    /// What sled had in its files by now, which nobody promised to keep.
    Catalog(Arc<Tree>),
    Asked(Asked),
    Answered(usize, Fate),
    /// The log was read from end to end.
    Checked(Box<History>),
}

pub(crate) struct Recorder {
    root: PathBuf,
    boot: u128,
    /// Whether anybody wants the journal.
    recording: bool,
    journal: Mutex<Vec<Event>>,
    full: AtomicBool,
    gate: Mutex<Gate>,
    moved: Condvar,
}

/// Holds the writer back while more appends are queued, so that the next commit takes them all.
#[derive(Debug, Default)]
struct Gate {
    closed: bool,
    waiting: bool,
}

impl Recorder {
    pub(crate) fn new(root: &Path, boot: u128, recording: bool) -> Arc<Self> {
        Arc::new(Self {
            root: root.to_owned(),
            boot,
            recording,
            journal: Mutex::default(),
            full: AtomicBool::new(false),
            gate: Mutex::default(),
            moved: Condvar::new(),
        })
    }

    pub(crate) fn record(&self, event: Event) {
        if !self.recording {
            return;
        }
        self.journal.lock().unwrap().push(event);
    }

    pub(crate) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.journal.lock().unwrap())
    }

    pub(crate) fn close_gate(&self) {
        self.gate.lock().unwrap().closed = true;
    }

    pub(crate) fn open_gate(&self) {
        self.gate.lock().unwrap().closed = false;
        self.moved.notify_all();
    }

    /// Whether somebody stands before the closed gate.
    pub(crate) fn holds_the_writer(&self) -> bool {
        self.gate.lock().unwrap().waiting
    }

    /// Whether the disk takes nothing more.
    pub(crate) fn fill(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    fn below_root(&self, path: &Path) -> PathBuf {
        let below = path.strip_prefix(&self.root);
        below.expect("the log stays in its directory").to_owned()
    }
}

impl Fault for Recorder {
    fn before(&self, operation: Operation, _: &Path) -> io::Result<()> {
        let mut gate = self.gate.lock().unwrap();
        while gate.closed {
            gate.waiting = true;
            gate = self.moved.wait(gate).unwrap();
        }
        gate.waiting = false;
        // A full disk has room for a name, and for nothing under it.
        if operation == Operation::Write && self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn after(&self, done: Done<'_>) {
        if !self.recording {
            return;
        }
        let below = |path: &Path| self.below_root(path);
        let op = match done {
            Done::Created(path) => Op::Create(below(path)),
            Done::Wrote { path, bytes, at } => Op::Write {
                path: below(path),
                bytes: bytes.to_vec(),
                at,
            },
            Done::Truncated { path, bytes } => Op::Truncate {
                path: below(path),
                bytes,
            },
            Done::Removed(path) => Op::Remove(below(path)),
            Done::Renamed { from, to } => Op::Rename {
                from: below(from),
                to: below(to),
            },
            Done::DirectoryCreated(path) => Op::CreateDirectory(below(path)),
            Done::Synced(path) => {
                // An answer that was given before this is noted before it.
                std::thread::sleep(std::time::Duration::from_micros(50));
                Op::Sync(below(path))
            }
            Done::DirectorySynced(path) => Op::SyncDirectory(below(path)),
        };
        self.record(Event::Op(op));
    }

    fn boot_id(&self) -> Option<u128> {
        Some(self.boot)
    }
}

/// Reads a folder in which somebody may be writing.
pub(crate) fn tree(folder: &Path) -> Tree {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(below) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(folder.join(&below)) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = below.join(entry.file_name());
            if entry.path().is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = std::fs::read(entry.path()) {
                files.push((path, bytes));
            }
        }
    }
    files.sort();
    files
}
