//! How far each node with history at its server has come into the log: where a back-fill starts.
//!
//! ```text
//! bucket opcua-history
//!   ENDPOINT              the stream, and an offset: what is below is true of the log up to there
//!   ENDPOINT 0 CHUNK      32 bytes a node: key, time of its last value, and of a hole that is
//!                         still being filled its start and end; the smallest number is "none"
//! ```
//!
//! The log itself is the checkpoint: at a start the records behind the offset are read and the
//! times move on with them. The table only bounds how many that are.

use super::config::{Config, Node};
use super::ingest::{BACKFILL, LATE};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use skerry_store::{Change, Kind, Log, Offset, Record, WallNanos};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use tokio::time::Instant;

const BUCKET: &str = "opcua-history";
const ENTRY_BYTES: usize = 32;
/// The catalog likes small values.
const CHUNK_ENTRIES: usize = 120;
const _: () = assert!(CHUNK_ENTRIES * ENTRY_BYTES <= 4096);
/// A table this old is read up in moments, and writing it costs nothing next to the values.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);
/// Records read at a start, at most; with more behind the table it is not believed, and a gap
/// record says what a back-fill would have.
const REPLAYED_MAX: u64 = 20_000_000;
const READ_BYTES: usize = 4 * 1024 * 1024;

/// Whether outages are filled from the server's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum History {
    /// For the nodes whose history the server lets us read.
    #[default]
    Auto,
    Off,
}

/// Between two values of a node in the log, both of which are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) from: WallNanos,
    pub(crate) to: WallNanos,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Mark {
    last: Option<WallNanos>,
    /// Still being filled, while newer values come in already.
    late: Option<Hole>,
}

/// The nodes with history, by handle.
#[derive(Debug)]
pub(crate) struct Marks {
    endpoint: String,
    stream: String,
    keys: Vec<u64>,
    marks: Vec<Option<Mark>>,
    /// How many of them are not `None`.
    count: usize,
    /// Chunks to be written.
    changed: BTreeSet<usize>,
    /// Chunks in the catalog that a shorter configuration has no use for.
    surplus: Vec<usize>,
    saved: Option<Instant>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    stream: String,
    offset: Offset,
}

impl Marks {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            endpoint: config.name.clone(),
            stream: config.stream.as_str().to_owned(),
            keys: config.nodes.iter().map(Node::key).collect(),
            marks: vec![None; config.nodes.len()],
            count: 0,
            changed: BTreeSet::new(),
            surplus: Vec::new(),
            saved: None,
        }
    }

    /// The nodes are these from now on; what is known of one goes along.
    pub(crate) fn renumber(&mut self, nodes: &[Node]) {
        let known: HashMap<u64, Mark> = self
            .keys
            .iter()
            .zip(&self.marks)
            .filter_map(|(key, mark)| Some((*key, (*mark)?)))
            .collect();
        let chunks = self.keys.len().div_ceil(CHUNK_ENTRIES);
        self.keys = nodes.iter().map(Node::key).collect();
        self.marks = self
            .keys
            .iter()
            .map(|key| known.get(key).copied())
            .collect();
        self.count = self.marks.iter().flatten().count();
        let needed = self.keys.len().div_ceil(CHUNK_ENTRIES);
        self.changed = (0..needed).collect();
        self.surplus.retain(|chunk| *chunk >= needed);
        self.surplus.extend(needed..chunks);
    }

    /// As the catalog and the log have them; blocks.
    pub(crate) fn load(log: &Log, config: &Config) -> Result<Self, skerry_store::Error> {
        let mut marks = Self::new(config);
        let header = log.get(BUCKET, marks.endpoint.as_bytes())?;
        let header = header.and_then(|bytes| serde_json::from_slice::<Header>(&bytes).ok());
        let Some(header) = header.filter(|header| header.stream == marks.stream) else {
            return Ok(marks);
        };
        let chunks = log.scan(BUCKET, &marks.chunk_key(None))?;
        let known: HashMap<u64, Mark> = chunks
            .iter()
            .flat_map(|(_, chunk)| chunk.chunks_exact(ENTRY_BYTES).map(decode))
            .collect();
        for (mark, key) in marks.marks.iter_mut().zip(&marks.keys) {
            *mark = known.get(key).copied();
        }
        marks.count = marks.marks.iter().flatten().count();
        // Nodes may have other numbers by now.
        let needed = marks.keys.len().div_ceil(CHUNK_ENTRIES);
        marks.changed = (0..needed).collect();
        marks.surplus = (needed..chunks.len()).collect();
        let from = header.offset.max(log.tail(&config.stream)?);
        let behind = log.head(&config.stream)?.borrow().0.saturating_sub(from.0);
        if behind > REPLAYED_MAX {
            tracing::warn!(
                endpoint = marks.endpoint,
                records = behind,
                "too much was written since the nodes' last values were noted; an outage up to \
                 now is a gap instead of a back-fill"
            );
            marks.marks.fill(None);
            marks.count = 0;
            return Ok(marks);
        }
        marks.replay(log, config, from)?;
        Ok(marks)
    }

    fn replay(
        &mut self,
        log: &Log,
        config: &Config,
        from: Offset,
    ) -> Result<(), skerry_store::Error> {
        let handles: HashMap<&str, u32> = (0..)
            .zip(&config.nodes)
            .map(|(handle, node)| (node.name.as_str(), handle))
            .collect();
        let mut reader = log.reader(&config.stream, from)?;
        loop {
            let batch = reader.next(READ_BYTES)?;
            if batch.records.is_empty() {
                return Ok(());
            }
            for (_, record) in &batch.records {
                if let Some(handle) = handles.get(record.source.as_str()) {
                    self.record(*handle, record);
                }
            }
        }
    }

    fn record(&mut self, handle: u32, record: &Record) {
        let Some(time) = record.source_time.or(record.server_time) else {
            return;
        };
        if record.kind != Kind::Opcua {
            return;
        }
        let mut attributes = record.attributes.iter();
        if !attributes.any(|(name, value)| name == BACKFILL && value == LATE) {
            self.value(handle, Some(time));
        } else if let Some(late) = self.late(handle).filter(|late| late.from < time) {
            let rest = Hole { from: time, ..late };
            self.set_late(handle, Some(rest));
        }
    }

    /// Whether any node has history.
    pub(crate) const fn in_use(&self) -> bool {
        self.count > 0
    }

    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// Whether the server offers the node's history.
    pub(crate) fn offered(&mut self, handle: u32, offered: bool) {
        if let Some(mark) = self.marks.get_mut(handle as usize)
            && mark.is_some() != offered
        {
            *mark = offered.then(Mark::default);
            self.count = if offered {
                self.count + 1
            } else {
                self.count - 1
            };
            self.change(handle);
        }
    }

    /// The time of the node's last value in the log, where it has both history and a value.
    pub(crate) fn last(&self, handle: u32) -> Option<WallNanos> {
        self.mark(handle)?.last
    }

    /// Nodes with history that have a value in the log.
    pub(crate) fn with_values(&self) -> impl Iterator<Item = u32> {
        let all = (0..).zip(&self.marks);
        all.filter_map(|(handle, mark)| mark.as_ref()?.last.map(|_| handle))
    }

    /// A value of the node is in the log, or is in the append that these marks go with.
    pub(crate) fn value(&mut self, handle: u32, time: Option<WallNanos>) {
        if let (Some(Some(mark)), Some(time)) = (self.marks.get_mut(handle as usize), time) {
            mark.last = Some(time);
            self.change(handle);
        }
    }

    pub(crate) fn late(&self, handle: u32) -> Option<Hole> {
        self.mark(handle)?.late
    }

    pub(crate) fn late_holes(&self) -> impl Iterator<Item = (u32, Hole)> {
        let all = (0..).zip(&self.marks);
        all.filter_map(|(handle, mark)| Some((handle, mark.as_ref()?.late?)))
    }

    pub(crate) fn set_late(&mut self, handle: u32, late: Option<Hole>) {
        if let Some(Some(mark)) = self.marks.get_mut(handle as usize) {
            mark.late = late;
            self.change(handle);
        }
    }

    /// The next append is to carry them.
    pub(crate) fn save_next(&mut self) {
        self.saved = None;
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let due = |saved: Instant| now.duration_since(saved) >= SAVE_INTERVAL;
        (self.in_use() || !self.changed.is_empty()) && self.saved.is_none_or(due)
    }

    /// Everything that changed; `head` is the log's before the append that carries it.
    pub(crate) fn changes(&mut self, head: Offset, now: Instant) -> Vec<Change> {
        self.saved = Some(now);
        let header = Header {
            stream: self.stream.clone(),
            offset: head,
        };
        let header = serde_json::to_vec(&header).expect("a string and a number");
        let mut changes = vec![put(self.endpoint.clone().into(), header)];
        for chunk in std::mem::take(&mut self.surplus) {
            changes.push(Change::Delete {
                bucket: BUCKET.to_owned(),
                key: self.chunk_key(Some(chunk)).into(),
            });
        }
        let changed = std::mem::take(&mut self.changed);
        changes.extend(changed.into_iter().map(|chunk| self.put_chunk(chunk)));
        changes
    }

    /// What is noted of these nodes, between two of [`Marks::changes`].
    pub(crate) fn changes_of(&self, handles: impl Iterator<Item = u32>) -> Vec<Change> {
        let chunks: BTreeSet<usize> = handles.map(chunk_of).collect();
        chunks.into_iter().map(|it| self.put_chunk(it)).collect()
    }

    fn mark(&self, handle: u32) -> Option<&Mark> {
        self.marks.get(handle as usize)?.as_ref()
    }

    fn change(&mut self, handle: u32) {
        self.changed.insert(chunk_of(handle));
    }

    fn put_chunk(&self, chunk: usize) -> Change {
        let range = chunk * CHUNK_ENTRIES..self.marks.len().min((chunk + 1) * CHUNK_ENTRIES);
        let all = self.keys[range.clone()].iter().zip(&self.marks[range]);
        let entries = all.filter_map(|(key, mark)| Some(encode(*key, mark.as_ref()?)));
        put(self.chunk_key(Some(chunk)), entries.flatten().collect())
    }

    fn chunk_key(&self, chunk: Option<usize>) -> Vec<u8> {
        let mut key = self.endpoint.clone().into_bytes();
        key.push(0);
        if let Some(chunk) = chunk {
            key.extend(u32::try_from(chunk).unwrap_or(u32::MAX).to_be_bytes());
        }
        key
    }
}

fn put(key: Vec<u8>, value: Vec<u8>) -> Change {
    Change::Put {
        bucket: BUCKET.to_owned(),
        key: key.into(),
        value: Bytes::from(value),
    }
}

const fn chunk_of(handle: u32) -> usize {
    handle as usize / CHUNK_ENTRIES
}

const NONE: i64 = i64::MIN;

fn encode(key: u64, mark: &Mark) -> [u8; ENTRY_BYTES] {
    let of = |time: Option<WallNanos>| time.map_or(NONE, |time| time.0).to_le_bytes();
    let (from, to) = (
        mark.late.map(|late| late.from),
        mark.late.map(|late| late.to),
    );
    let fields = [key.to_le_bytes(), of(mark.last), of(from), of(to)];
    let mut entry = [0; ENTRY_BYTES];
    entry.copy_from_slice(fields.as_flattened());
    entry
}

/// Of exactly [`ENTRY_BYTES`].
fn decode(entry: &[u8]) -> (u64, Mark) {
    let field = |index: usize| {
        let bytes = &entry[index * 8..(index + 1) * 8];
        i64::from_le_bytes(bytes.try_into().expect("eight bytes"))
    };
    let time = |index| Some(field(index)).filter(|it| *it != NONE).map(WallNanos);
    let late = time(2).zip(time(3)).map(|(from, to)| Hole { from, to });
    let last = time(1);
    (field(0).cast_unsigned(), Mark { last, late })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_as_it_was_written() {
        let hole = Hole {
            from: WallNanos(-5),
            to: WallNanos(7),
        };
        for mark in [
            Mark::default(),
            Mark {
                last: Some(WallNanos(0)),
                late: Some(hole),
            },
        ] {
            assert_eq!(decode(&encode(u64::MAX - 1, &mark)), (u64::MAX - 1, mark));
        }
    }
}
