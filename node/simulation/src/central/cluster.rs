//! The stand-in's state: partitions, producers and transactions, with the rules of Kafka's
//! brokers and of its transaction coordinator (before KIP-890), and no input or output.

use super::batch::{Batch, Flaw};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

/// A broker takes batches up to this size by default (`message.max.bytes`).
const BATCH_BYTES_MAX: usize = 1_048_588;
/// Partitions of a topic that somebody just uses.
const PARTITIONS_DEFAULT: usize = 3;
/// How many batches per producer a broker remembers to recognise a repeat.
const REMEMBERED_BATCHES: usize = 5;

/// Error codes of the protocol, as far as they are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub(super) enum Code {
    OffsetOutOfRange = 1,
    CorruptMessage = 2,
    UnknownTopicOrPartition = 3,
    MessageTooLarge = 10,
    InvalidTopic = 17,
    UnsupportedVersion = 35,
    TopicAlreadyExists = 36,
    InvalidRequest = 42,
    OutOfOrderSequence = 45,
    InvalidProducerEpoch = 47,
    InvalidTxnState = 48,
    InvalidProducerIdMapping = 49,
    UnsupportedCompression = 76,
    ProducerFenced = 90,
}

/// A producer's name: an id, and an epoch that grows whenever somebody takes the id over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: i64,
    pub(super) epoch: i16,
}

#[derive(Debug, Default)]
pub(super) struct Cluster {
    /// None is the default.
    pub(super) batch_bytes_max: Option<usize>,
    topics: BTreeMap<String, Vec<Partition>>,
    transactions: HashMap<String, Transaction>,
    /// Only for the producers with a transactional id.
    epochs: HashMap<i64, i16>,
    producers: i64,
    pub(super) counts: Counts,
}

/// Running totals, cheap to ask for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Records that a `read_committed` consumer gets, positions included.
    pub records_committed: u64,
    pub transactions_committed: u64,
    pub transactions_aborted: u64,
    /// Batches that came a second time and were recognised.
    pub batches_repeated: u64,
    /// Requests of producers that somebody newer had replaced.
    pub producers_fenced: u64,
}

#[derive(Debug, Default)]
pub(super) struct Partition {
    stored: Vec<Stored>,
    next: i64,
    /// First offset of each open transaction, by producer id.
    open: BTreeMap<i64, i64>,
    aborted: Vec<Aborted>,
    sequences: HashMap<i64, Sequence>,
}

#[derive(Debug)]
struct Stored {
    base: i64,
    batch: Batch,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Committed,
    Aborted,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Aborted {
    pub(super) producer_id: i64,
    pub(super) first: i64,
    last: i64,
}

#[derive(Debug)]
struct Sequence {
    epoch: i16,
    recent: VecDeque<(i32, i32, i64)>,
}

#[derive(Debug)]
struct Transaction {
    identity: Identity,
    timeout: Duration,
    state: State,
    partitions: BTreeSet<(String, i32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Empty,
    Ongoing { since: Instant },
    Ended { committed: bool },
}

/// What a fetch finds.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    pub(super) high_watermark: i64,
    pub(super) last_stable: i64,
    pub(super) aborted: Vec<Aborted>,
    pub(super) records: Bytes,
}

impl Cluster {
    /// `max.message.bytes`, of every topic.
    pub(super) fn batch_bytes_max(&self) -> usize {
        self.batch_bytes_max.unwrap_or(BATCH_BYTES_MAX)
    }

    pub(super) fn topics(&self) -> impl Iterator<Item = (&String, usize)> {
        self.topics
            .iter()
            .map(|(name, partitions)| (name, partitions.len()))
    }

    pub(super) fn partitions(&self, topic: &str) -> Option<usize> {
        self.topics.get(topic).map(Vec::len)
    }

    pub(super) fn create(&mut self, topic: &str, partitions: Option<usize>) -> Result<(), Code> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if topic.is_empty() || topic.len() > 249 || !topic.chars().all(legal) {
            return Err(Code::InvalidTopic);
        }
        if self.topics.contains_key(topic) {
            return Err(Code::TopicAlreadyExists);
        }
        let count = partitions.unwrap_or(PARTITIONS_DEFAULT);
        let partitions = std::iter::repeat_with(Partition::default)
            .take(count)
            .collect();
        self.topics.insert(topic.to_owned(), partitions);
        Ok(())
    }

    /// `InitProducerId`: a new producer, or the next epoch of a transactional id. What its
    /// predecessor left open is aborted first. `known` is the identity the caller believes in.
    pub(super) fn init_producer(
        &mut self,
        id: Option<&str>,
        timeout: Duration,
        known: Option<Identity>,
    ) -> Result<Identity, Code> {
        let Some(id) = id else {
            self.producers += 1;
            return Ok(Identity {
                id: self.producers,
                epoch: 0,
            });
        };
        let Some(current) = self
            .transactions
            .get(id)
            .map(|transaction| transaction.identity)
        else {
            self.producers += 1;
            let identity = Identity {
                id: self.producers,
                epoch: 0,
            };
            self.epochs.insert(identity.id, 0);
            let (state, partitions) = (State::Empty, BTreeSet::new());
            let transaction = Transaction {
                identity,
                timeout,
                state,
                partitions,
            };
            self.transactions.insert(id.to_owned(), transaction);
            return Ok(identity);
        };
        if known.is_some_and(|known| known != current) {
            self.counts.producers_fenced += 1;
            return Err(Code::ProducerFenced);
        }
        // The bump comes first: the marker carries it, and nothing older is taken afterwards.
        let next = if current.epoch == i16::MAX - 1 {
            self.producers += 1;
            Identity {
                id: self.producers,
                epoch: 0,
            }
        } else {
            Identity {
                id: current.id,
                epoch: current.epoch + 1,
            }
        };
        self.finish(id, false);
        self.epochs.insert(current.id, current.epoch + 1);
        self.epochs.insert(next.id, next.epoch);
        let transaction = self.transactions.get_mut(id).expect("looked up above");
        (transaction.identity, transaction.timeout) = (next, timeout);
        transaction.state = State::Empty;
        Ok(next)
    }

    /// `AddPartitionsToTxn`, one partition.
    pub(super) fn add_partition(
        &mut self,
        id: &str,
        identity: Identity,
        topic: &str,
        partition: i32,
        now: Instant,
    ) -> Result<(), Code> {
        self.authorise(id, identity)?;
        self.partition(topic, partition)?;
        let transaction = self.transactions.get_mut(id).expect("authorised above");
        if !matches!(transaction.state, State::Ongoing { .. }) {
            transaction.partitions.clear();
            transaction.state = State::Ongoing { since: now };
        }
        transaction.partitions.insert((topic.to_owned(), partition));
        Ok(())
    }

    /// `Produce`, one partition. Returns the first offset.
    pub(super) fn produce(
        &mut self,
        id: Option<&str>,
        topic: &str,
        partition: i32,
        bytes: Bytes,
    ) -> Result<i64, Code> {
        let batches = Batch::split(bytes).map_err(|flaw| match flaw {
            Flaw::Truncated | Flaw::Checksum => Code::CorruptMessage,
            Flaw::Magic => Code::UnsupportedVersion,
        })?;
        // Since v3 a request carries one batch per partition.
        let [batch] = <[Batch; 1]>::try_from(batches).map_err(|_| Code::InvalidRequest)?;
        if batch.len() > self.batch_bytes_max() {
            return Err(Code::MessageTooLarge);
        }
        if !batch.is_readable() {
            return Err(Code::UnsupportedCompression);
        }
        if batch.is_control() || batch.is_transactional() != id.is_some() {
            return Err(Code::InvalidRequest);
        }
        if let Some(id) = id {
            let identity = Identity {
                id: batch.producer_id,
                epoch: batch.producer_epoch,
            };
            self.authorise(id, identity).map_err(|code| match code {
                Code::ProducerFenced => Code::InvalidProducerEpoch,
                other => other,
            })?;
            let transaction = &self.transactions[id];
            let added = transaction
                .partitions
                .contains(&(topic.to_owned(), partition));
            if !added || !matches!(transaction.state, State::Ongoing { .. }) {
                return Err(Code::InvalidTxnState);
            }
        }
        let stored = self.partition(topic, partition)?.append(batch)?;
        match stored {
            Appended::New { base, committed } => {
                self.counts.records_committed += committed;
                Ok(base)
            }
            Appended::Repeated { base } => {
                self.counts.batches_repeated += 1;
                Ok(base)
            }
        }
    }

    /// `EndTxn`: everything of the transaction becomes readable, or nothing ever will.
    pub(super) fn end(&mut self, id: &str, identity: Identity, commit: bool) -> Result<(), Code> {
        self.authorise(id, identity)?;
        match self.transactions[id].state {
            State::Ongoing { .. } => {
                self.finish(id, commit);
                Ok(())
            }
            // The answer to the first request was lost, and the client asks again.
            State::Ended { committed } if committed == commit => Ok(()),
            State::Ended { .. } | State::Empty => Err(Code::InvalidTxnState),
        }
    }

    /// Aborts what is open for longer than its producer asked for.
    pub(super) fn expire(&mut self, now: Instant) {
        let late = |t: &Transaction| match t.state {
            State::Ongoing { since } => now.duration_since(since) > t.timeout,
            State::Empty | State::Ended { .. } => false,
        };
        let late = self
            .transactions
            .iter()
            .filter(|(_, t)| late(t))
            .map(|(id, _)| id.clone());
        for id in late.collect::<Vec<_>>() {
            self.finish(&id, false);
            let transaction = self.transactions.get_mut(&id).expect("listed above");
            transaction.identity.epoch += 1;
            self.epochs
                .insert(transaction.identity.id, transaction.identity.epoch);
        }
    }

    pub(super) fn partition(
        &mut self,
        topic: &str,
        partition: i32,
    ) -> Result<&mut Partition, Code> {
        let index = usize::try_from(partition).map_err(|_| Code::UnknownTopicOrPartition)?;
        let partitions = self
            .topics
            .get_mut(topic)
            .ok_or(Code::UnknownTopicOrPartition)?;
        partitions
            .get_mut(index)
            .ok_or(Code::UnknownTopicOrPartition)
    }

    /// Every committed batch with its place.
    pub(super) fn committed(&self) -> impl Iterator<Item = (&str, i32, i64, &Batch)> {
        self.topics.iter().flat_map(|(topic, partitions)| {
            (0..).zip(partitions).flat_map(move |(index, partition)| {
                let readable =
                    |stored: &&Stored| stored.fate == Fate::Committed && !stored.batch.is_control();
                let stored = partition.stored.iter().filter(readable);
                stored.map(move |stored| (topic.as_str(), index, stored.base, &stored.batch))
            })
        })
    }

    fn authorise(&mut self, id: &str, identity: Identity) -> Result<(), Code> {
        let current = self
            .transactions
            .get(id)
            .map(|transaction| transaction.identity);
        match current {
            Some(current) if current == identity => Ok(()),
            _ => match self.epochs.get(&identity.id) {
                Some(epoch) if identity.epoch < *epoch => {
                    self.counts.producers_fenced += 1;
                    Err(Code::ProducerFenced)
                }
                _ => Err(Code::InvalidProducerIdMapping),
            },
        }
    }

    /// Writes the markers of an ongoing transaction.
    fn finish(&mut self, id: &str, commit: bool) {
        let Some(transaction) = self.transactions.get_mut(id) else {
            return;
        };
        if !matches!(transaction.state, State::Ongoing { .. }) {
            return;
        }
        transaction.state = State::Ended { committed: commit };
        let identity = transaction.identity;
        for (topic, partition) in std::mem::take(&mut transaction.partitions) {
            if let Ok(partition) = self.partition(&topic, partition) {
                let committed = partition.mark(identity, commit);
                self.counts.records_committed += committed;
            }
        }
        if commit {
            self.counts.transactions_committed += 1;
        } else {
            self.counts.transactions_aborted += 1;
        }
    }
}

enum Appended {
    New { base: i64, committed: u64 },
    Repeated { base: i64 },
}

impl Partition {
    pub(super) fn high_watermark(&self) -> i64 {
        self.next
    }

    /// What a `read_committed` consumer may read up to.
    pub(super) fn last_stable(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.next)
    }

    /// The first offset with a record at or after the time.
    pub(super) fn offset_at(&self, timestamp_ms: i64) -> Option<i64> {
        let found = self
            .stored
            .iter()
            .find(|stored| stored.batch.max_timestamp >= timestamp_ms);
        found.map(|stored| stored.base)
    }

    pub(super) fn fetch(&self, from: i64, committed: bool, bytes: usize) -> Result<Fetched, Code> {
        if from < 0 || from > self.next {
            return Err(Code::OffsetOutOfRange);
        }
        let end = if committed {
            self.last_stable()
        } else {
            self.next
        };
        let start = self
            .stored
            .partition_point(|stored| stored.base + stored.batch.offsets() <= from);
        let mut records = BytesMut::new();
        let mut reached = from;
        for stored in self.stored[start..]
            .iter()
            .take_while(|stored| stored.base < end)
        {
            if !records.is_empty() && records.len() + stored.batch.len() > bytes {
                break;
            }
            records.extend_from_slice(&stored.batch.at(stored.base));
            reached = stored.base + stored.batch.offsets();
        }
        let overlaps = |aborted: &&Aborted| aborted.last >= from && aborted.first < reached;
        Ok(Fetched {
            high_watermark: self.next,
            last_stable: self.last_stable(),
            aborted: self.aborted.iter().filter(overlaps).copied().collect(),
            records: records.freeze(),
        })
    }

    fn append(&mut self, batch: Batch) -> Result<Appended, Code> {
        if batch.producer_id >= 0 {
            if let Some(base) = self.repeat(&batch)? {
                return Ok(Appended::Repeated { base });
            }
            self.remember(&batch);
        }
        let base = self.next;
        self.next += batch.offsets();
        let (fate, committed) = if batch.is_transactional() {
            self.open.entry(batch.producer_id).or_insert(base);
            (Fate::Open, 0)
        } else {
            (Fate::Committed, batch.records())
        };
        self.stored.push(Stored { base, batch, fate });
        Ok(Appended::New { base, committed })
    }

    /// Where the batch is already, if it came before. An error if one before it is missing.
    fn repeat(&self, batch: &Batch) -> Result<Option<i64>, Code> {
        let first = batch.base_sequence;
        let Some(sequence) = self.sequences.get(&batch.producer_id) else {
            return if first == 0 {
                Ok(None)
            } else {
                Err(Code::OutOfOrderSequence)
            };
        };
        if batch.producer_epoch < sequence.epoch {
            return Err(Code::InvalidProducerEpoch);
        }
        if batch.producer_epoch > sequence.epoch {
            return if first == 0 {
                Ok(None)
            } else {
                Err(Code::OutOfOrderSequence)
            };
        }
        let same = |(a, b, _): &&(i32, i32, i64)| (*a, *b) == (first, batch.last_sequence());
        if let Some((_, _, base)) = sequence.recent.iter().find(same) {
            return Ok(Some(*base));
        }
        let last = sequence.recent.back().map_or(-1, |(_, last, _)| *last);
        let expected = if last == i32::MAX { 0 } else { last + 1 };
        if first == expected {
            Ok(None)
        } else {
            Err(Code::OutOfOrderSequence)
        }
    }

    fn remember(&mut self, batch: &Batch) {
        let fresh = || Sequence {
            epoch: batch.producer_epoch,
            recent: VecDeque::new(),
        };
        let sequence = self
            .sequences
            .entry(batch.producer_id)
            .or_insert_with(fresh);
        if sequence.epoch != batch.producer_epoch {
            *sequence = fresh();
        }
        if sequence.recent.len() == REMEMBERED_BATCHES {
            sequence.recent.pop_front();
        }
        let entry = (batch.base_sequence, batch.last_sequence(), self.next);
        sequence.recent.push_back(entry);
    }

    /// Ends the producer's transaction here. Returns how many records became readable.
    fn mark(&mut self, identity: Identity, commit: bool) -> u64 {
        let now_ms = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
        let marker = Batch::marker(identity.id, identity.epoch, commit, now_ms);
        let last = self.next;
        let first = self.open.remove(&identity.id);
        let mut committed = 0;
        if let Some(first) = first {
            let start = self.stored.partition_point(|stored| stored.base < first);
            for stored in &mut self.stored[start..] {
                if stored.fate == Fate::Open && stored.batch.producer_id == identity.id {
                    stored.fate = if commit {
                        Fate::Committed
                    } else {
                        Fate::Aborted
                    };
                    committed += if commit { stored.batch.records() } else { 0 };
                }
            }
            if !commit {
                self.aborted.push(Aborted {
                    producer_id: identity.id,
                    first,
                    last,
                });
            }
        }
        self.stored.push(Stored {
            base: last,
            batch: marker,
            fate: Fate::Committed,
        });
        self.next += 1;
        committed
    }
}
