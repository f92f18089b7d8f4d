//! Into the log, and nothing forgotten while it refuses.

use super::config::{Config, Node};
use super::error::{Error, status};
use super::status::Status;
use super::value::{Sample, Value};
use super::wire::{SESSION_TIMEOUT, Session};
use skerry_store::{
    Append, Change, Class, Committed, Fresh, Gap, Kind, Log, Offset, Record, Records, WallNanos,
};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a refusing log is left alone: short at first, since readers may just be behind.
const REFUSED_WAIT_MIN: Duration = Duration::from_millis(100);
const REFUSED_WAIT_MAX: Duration = Duration::from_secs(2);
/// While nothing is asked of the server, it must still see that the session is alive.
const PING_INTERVAL: Duration = SESSION_TIMEOUT.checked_div(3).expect("three is not zero");

/// One append carries about this much; a notification above it is taken in pieces.
pub(crate) const APPEND_BYTES: usize = 1024 * 1024;
/// A single value beyond this is not stored but replaced by a gap that says so.
const RECORD_BYTES_MAX: usize = 2 * 1024 * 1024;
const _: () = assert!(APPEND_BYTES + RECORD_BYTES_MAX < skerry_store::APPEND_BYTES_MAX);

/// Attribute of a record, `true`: the value a node had when the subscription to it was made, at
/// the first start and after an outage that the server did not bridge. It need not be a change.
pub const INITIAL: &str = "opcua-initial";
pub(crate) const AS_INITIAL: (&str, &[u8]) = (INITIAL, b"true");

/// Attribute of a record: the unit that its value is in, as the server writes it, such as `°C`.
pub const UNIT: &str = "unit";
/// Attribute of a record that was read from the server's history after an outage: `true`, or
/// `late` where it comes behind newer values of its node.
pub const BACKFILL: &str = "opcua-backfill";
pub(crate) const LATE: &[u8] = b"late";

/// Whether an append is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Taken {
    Durable,
    /// The node is stopping and the log did not take it: it was not acknowledged, so the server
    /// has it still.
    Stopped,
}

/// Records of an append in the making, and room to write a value down in.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) records: Records,
    payload: Vec<u8>,
}

impl Draft {
    /// With room for about so many values.
    pub(crate) fn for_values(count: usize) -> Self {
        const VALUE_BYTES: usize = 80;
        let bytes = count.saturating_mul(VALUE_BYTES).min(APPEND_BYTES);
        Self {
            records: Records::with_capacity(bytes),
            payload: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, record: &Record) {
        self.records.push(record);
    }
}

/// The way into the log for one endpoint.
pub(crate) struct Ingest {
    pub(crate) config: Arc<Config>,
    pub(crate) log: Log,
    pub(crate) status: Arc<Status>,
    pub(crate) stop: CancellationToken,
}

impl Ingest {
    /// Resolves once the append is on disk. A log that refuses is asked again for as long as it
    /// takes; meanwhile nothing more is asked of the server, which keeps the values in its own
    /// queues, and `session` is kept from expiring.
    pub(crate) async fn append(
        &self,
        records: Vec<Record>,
        changes: impl IntoIterator<Item = Change> + Send,
        session: Option<&Session>,
    ) -> Result<Taken, Error> {
        let changes = changes.into_iter().collect();
        let append = Append {
            stream: self.config.stream.clone(),
            records,
            changes,
        };
        self.persist(|| self.log.append_kept(&append), session)
            .await
    }

    /// The same of a draft.
    pub(crate) async fn append_draft(
        &self,
        draft: &Draft,
        changes: &[Change],
        session: &Session,
    ) -> Result<Taken, Error> {
        let (stream, records) = (&self.config.stream, &draft.records);
        let append = || self.log.append_records(stream, records, changes);
        self.persist(append, Some(session)).await
    }

    async fn persist<F>(
        &self,
        append: impl Fn() -> F,
        session: Option<&Session>,
    ) -> Result<Taken, Error>
    where
        F: Future<Output = Result<Committed, skerry_store::Error>>,
    {
        let mut wait = REFUSED_WAIT_MIN;
        let mut pinged = tokio::time::Instant::now();
        let mut refused = false;
        loop {
            match append().await {
                Ok(_) => {
                    if refused {
                        self.status.log_takes();
                        tracing::info!(endpoint = self.config.name, "the log takes values again");
                    }
                    return Ok(Taken::Durable);
                }
                Err(error) if error.class() == Class::Fatal => return Err(error.into()),
                Err(error) => {
                    self.status.log_refused(&error.to_string());
                    if !refused {
                        refused = true;
                        tracing::warn!(
                            endpoint = self.config.name, %error,
                            "the log refuses values; they stay unacknowledged at the server"
                        );
                    }
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return Ok(Taken::Stopped),
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(REFUSED_WAIT_MAX);
            if let Some(session) = session.filter(|_| pinged.elapsed() >= PING_INTERVAL) {
                pinged = tokio::time::Instant::now();
                // A dead session shows at the next publish; here it only must not be forgotten.
                if let Err(error) = session.ping().await {
                    tracing::debug!(%error, "ping");
                }
            }
        }
    }

    /// Like [`Ingest::append`], of records that need not be in one append: of very many, the
    /// first ones come before, and the changes with the last ones.
    pub(crate) async fn append_many(
        &self,
        mut records: Vec<Record>,
        changes: Vec<Change>,
        session: Option<&Session>,
    ) -> Result<Taken, Error> {
        let mut bytes = 0;
        let fitting = records.iter().rev().take_while(|record| {
            bytes += bytes_of(record);
            bytes < APPEND_BYTES
        });
        let last = records.len() - fitting.count().max(1).min(records.len());
        if last > 0 {
            let rest = records.split_off(last);
            if self.append_all(records).await? == Taken::Stopped {
                return Ok(Taken::Stopped);
            }
            records = rest;
        }
        self.append(records, changes, session).await
    }

    /// Where the next append starts, at the earliest.
    pub(crate) fn head(&self) -> Result<Offset, Error> {
        Ok(*self.log.head(&self.config.stream)?.borrow())
    }

    /// Records that need not be in one append, without a session to keep.
    pub(crate) async fn append_all(&self, records: Vec<Record>) -> Result<Taken, Error> {
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() {
            let mut batch = Vec::new();
            let mut bytes = 0;
            while let Some(record) = records.next_if(|_| bytes < APPEND_BYTES) {
                bytes += bytes_of(&record);
                batch.push(record);
            }
            if self.append(batch, None, None).await? == Taken::Stopped {
                return Ok(Taken::Stopped);
            }
        }
        Ok(Taken::Durable)
    }

    /// Adds the records a sample becomes: its value, after a gap where the server's queue
    /// overflowed before it and nothing `bridged` that. The value gets `mark` as an attribute.
    pub(crate) fn put(
        &self,
        records: &mut Draft,
        sample: &Sample,
        news: WallNanos,
        bridged: bool,
        mark: Option<(&str, &[u8])>,
    ) {
        let Some(node) = self.node_of(sample) else {
            return;
        };
        if status::overflowed(sample.status) && !bridged {
            records.push(&self.gap(
                &node.name,
                None,
                sample.source_time.or(sample.server_time),
                "the server's queue for this node overflowed".to_owned(),
            ));
        }
        let Draft { records, payload } = records;
        payload.clear();
        sample.value.write_payload(payload);
        if is_too_large(&node.name, payload) {
            let time = sample.source_time.or(Some(news));
            records.push(&self.too_large(&node.name, payload, time));
            // One such value is no reason to keep that much memory.
            *payload = Vec::new();
            return;
        }
        let value = Fresh {
            kind: Kind::Opcua,
            source: &node.name,
            payload,
            source_time: sample.source_time,
            server_time: sample.server_time,
            ingest_time: news,
            status: sample.status,
        };
        let unit = sample.unit.as_ref().map(|unit| (UNIT, &unit[..]));
        records.add(value, [unit, mark].into_iter().flatten());
    }

    /// A sample as a record of its own, for where there are few.
    pub(crate) fn record(&self, sample: Sample, news: WallNanos) -> Option<Record> {
        let node = self.node_of(&sample)?;
        let time = sample.source_time.or(Some(news));
        let mut record = self.sized(&node.name, sample.value.into_payload(), time);
        if record.kind == Kind::Opcua {
            record.source_time = sample.source_time;
            record.server_time = sample.server_time;
            record.status = sample.status;
            let unit = sample.unit.map(|unit| (UNIT.to_owned(), unit));
            record.attributes.extend(unit);
        }
        Some(record)
    }

    fn node_of(&self, sample: &Sample) -> Option<&Node> {
        let node = self.config.nodes.get(sample.handle as usize);
        // async-opcua's server sends the attribute once whose events are monitored.
        if node.is_none() && self.config.event_source(sample.handle).is_none() {
            tracing::warn!(
                handle = sample.handle,
                "a value for a node nobody asked for"
            );
        }
        node
    }

    /// The payload as a record, or a gap record where it is larger than what is stored.
    pub(super) fn sized(&self, name: &str, payload: Vec<u8>, time: Option<WallNanos>) -> Record {
        match is_too_large(name, &payload) {
            false => Record::new(Kind::Opcua, name, payload),
            true => self.too_large(name, &payload, time),
        }
    }

    fn too_large(&self, name: &str, payload: &[u8], time: Option<WallNanos>) -> Record {
        let reason = format!(
            "a value of {} bytes is larger than the {RECORD_BYTES_MAX} that are stored",
            payload.len()
        );
        self.gap(name, time, time, reason)
    }

    /// A record that says that a node has no value, and why.
    pub(crate) fn without_value(&self, handle: u32, status: u32) -> Option<Record> {
        let (name, _) = self.config.named(handle)?;
        let mut record = Record::new(Kind::Opcua, name, Value::Null.into_payload());
        record.status = status;
        Some(record)
    }

    pub(crate) fn gap(
        &self,
        subject: &str,
        from: Option<WallNanos>,
        to: Option<WallNanos>,
        reason: String,
    ) -> Record {
        self.status.gaps(1);
        let gap = Gap {
            subject: subject.to_owned(),
            offsets: None,
            from,
            to,
            count: None,
            reason,
        };
        gap.into_record()
    }
}

const fn is_too_large(name: &str, payload: &[u8]) -> bool {
    payload.len() + name.len() > RECORD_BYTES_MAX
}

/// About what a record takes in an append.
pub(crate) fn bytes_of(record: &Record) -> usize {
    const FIXED: usize = 64;
    let attributes = record
        .attributes
        .iter()
        .map(|(name, value)| name.len() + value.len());
    record.payload.len() + record.source.len() + attributes.sum::<usize>() + FIXED
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use skerry_store::{Options, StreamName, StreamOptions};

    /// DataValue, with the overflow bit.
    const OVERFLOWED: u32 = 0x0480;

    #[test]
    fn a_draft_holds_what_the_samples_mean() {
        let directory = tempfile::tempdir().unwrap();
        let stream = StreamName::new("machines").unwrap();
        let mut options = Options::new(directory.path().to_owned());
        options.allow_volatile = true;
        options.streams = vec![StreamOptions::new(stream.clone(), 1 << 24)];
        let (log, _) = Log::open(options).unwrap();
        let endpoint = "opc.tcp://plc".parse().unwrap();
        let mut config = Config::new("plc", endpoint, stream.clone(), "pki".into());
        config.nodes = vec![Node::new("pump", "i=1".parse().unwrap(), Duration::ZERO)];
        let ingest = Ingest {
            status: Arc::new(Status::new(&config)),
            config: Arc::new(config),
            log,
            stop: CancellationToken::new(),
        };

        let sample = Sample {
            value: Value::Double(0.5),
            status: OVERFLOWED,
            source_time: Some(WallNanos(7)),
            unit: Some(Bytes::from_static(b"bar")),
            ..Sample::empty(0)
        };
        let mut draft = Draft::for_values(4);
        let mut put = |sample: &Sample, bridged, mark| {
            ingest.put(&mut draft, sample, WallNanos(9), bridged, mark);
        };
        put(&sample, false, Some(AS_INITIAL));
        put(&sample, true, None);
        put(&Sample::empty(1), false, None);
        let large = Sample {
            value: Value::Text("x".repeat(RECORD_BYTES_MAX)),
            ..sample.clone()
        };
        put(&large, true, Some(AS_INITIAL));

        let runtime = tokio::runtime::Runtime::new().unwrap();
        let append = ingest.log.append_records(&stream, &draft.records, &[]);
        runtime.block_on(append).unwrap();
        let mut reader = ingest.log.reader(&stream, Offset::ZERO).unwrap();
        let records = reader.next(1 << 20).unwrap().records;
        let told: Vec<_> = records
            .iter()
            .map(|(_, record)| (record.kind, record.attributes.len()))
            .collect();
        let (gap, one, two) = ((Kind::Gap, 0), (Kind::Opcua, 1), (Kind::Opcua, 2));
        assert_eq!(told, [gap, two, one, gap]);
        let large = ingest.record(large, WallNanos(9)).unwrap();
        assert_eq!(large.payload, records[3].1.payload);
        let mut alone = ingest.record(sample, WallNanos(9)).unwrap();
        alone.ingest_time = WallNanos(9);
        assert_eq!(alone, records[2].1);
    }
}
