//! The stream through rdkafka, and the reader that audits both.

use super::{
    CONNECT_TIMEOUT, Client, DELIVERY_TIMEOUT, Names, POSITIONS_PARTITION, REQUEST_TIMEOUT,
    TRANSACTION_TIMEOUT,
};
use crate::broker::PARTITIONS;
use crate::{BATCH_BYTES, BUFFER_BYTES, Failure, key, value};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub(super) struct Rdkafka {
    producer: BaseProducer,
    brokers: String,
    names: Names,
}

impl Client for Rdkafka {
    const NAME: &'static str = "rdkafka";

    fn open(brokers: &str, names: &Names) -> Result<Self, Failure> {
        let millis = |duration: Duration| duration.as_millis().to_string();
        let producer: BaseProducer = connection(brokers)
            .set("transactional.id", &names.id)
            .set("transaction.timeout.ms", millis(TRANSACTION_TIMEOUT))
            .set("message.timeout.ms", millis(DELIVERY_TIMEOUT))
            .set("request.timeout.ms", millis(REQUEST_TIMEOUT))
            .set("compression.codec", "lz4")
            .set("linger.ms", "5")
            .set("batch.size", BATCH_BYTES.to_string())
            .set(
                "queue.buffering.max.kbytes",
                (BUFFER_BYTES / 1024).to_string(),
            )
            .create()?;
        producer
            .init_transactions(DELIVERY_TIMEOUT)
            .map_err(at("open"))?;
        Ok(Self {
            producer,
            brokers: brokers.to_owned(),
            names: names.clone(),
        })
    }

    fn position(&self) -> Result<u64, Failure> {
        let mut newest = 0;
        let partitions = POSITIONS_PARTITION..POSITIONS_PARTITION + 1;
        read(&self.brokers, &self.names.positions, partitions, |value| {
            newest = std::str::from_utf8(value)?.parse()?;
            Ok(())
        })
        .map_err(|error| format!("position: {error}"))?;
        Ok(newest)
    }

    fn transact(&self, numbers: Range<u64>) -> Result<(), Failure> {
        let producer = &self.producer;
        producer.begin_transaction().map_err(at("begin"))?;
        for n in numbers.clone() {
            let (key, value) = (key(n), value(n));
            let record = BaseRecord::to(&self.names.topic);
            self.send(record.key(key.as_str()).payload(value.as_str()))?;
        }
        let next = numbers.end.to_string();
        let position = BaseRecord::to(&self.names.positions)
            .partition(POSITIONS_PARTITION)
            .key("next")
            .payload(next.as_str());
        self.send(position)?;
        producer.flush(DELIVERY_TIMEOUT).map_err(at("flush"))?;
        // Fails if one record failed.
        producer
            .commit_transaction(DELIVERY_TIMEOUT)
            .map_err(at("commit"))?;
        Ok(())
    }

    fn abort(&self) -> Result<(), Failure> {
        // It waits for delivery reports, which somebody else has to serve meanwhile.
        let ended = AtomicBool::new(false);
        let aborted = thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    self.producer.poll(Duration::from_millis(10));
                }
            });
            let aborted = self.producer.abort_transaction(DELIVERY_TIMEOUT);
            ended.store(true, Ordering::Relaxed);
            aborted
        });
        Ok(aborted.map_err(at("abort"))?)
    }

    fn close(self) {
        drop(self);
    }
}

impl Rdkafka {
    /// A transaction is smaller than the queue, so that a full one is an error as any other.
    fn send(&self, record: BaseRecord<'_, str, str>) -> Result<(), Failure> {
        let sent = self.producer.send(record);
        sent.map_err(|(error, _)| at("send")(error))?;
        self.producer.poll(Duration::ZERO);
        Ok(())
    }
}

/// Hands every committed value of the topic to `take`.
pub(super) fn read_all(
    brokers: &str,
    topic: &str,
    take: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    read(brokers, topic, 0..PARTITIONS, take)
}

/// Reads to the end of each partition. No transaction may be open, or the end is before it.
fn read(
    brokers: &str,
    topic: &str,
    partitions: Range<i32>,
    mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let consumer: BaseConsumer = connection(brokers)
        .set("group.id", "nobody")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()?;
    let mut wanted = TopicPartitionList::new();
    for partition in partitions.clone() {
        wanted.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&wanted)?;
    let mut unfinished: BTreeSet<i32> = partitions.collect();
    let mut moved = Instant::now();
    while !unfinished.is_empty() {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(record)) => {
                take(record.payload().ok_or("a record without a value")?)?;
                moved = Instant::now();
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                unfinished.remove(&partition);
            }
            Some(Err(error)) => return Err(error.into()),
            None if moved.elapsed() > REQUEST_TIMEOUT => {
                return Err(format!("no end of partitions {unfinished:?}").into());
            }
            None => {}
        }
    }
    Ok(())
}

fn connection(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("socket.timeout.ms", REQUEST_TIMEOUT.as_millis().to_string())
        .set(
            "socket.connection.setup.timeout.ms",
            CONNECT_TIMEOUT.as_millis().to_string(),
        );
    config
}

/// Names the step that failed, and what librdkafka thinks of the error.
fn at(step: &'static str) -> impl FnOnce(KafkaError) -> String {
    move |error| match &error {
        KafkaError::Transaction(of) => format!(
            "{step}: {} ({}{}{}{})",
            of.string(),
            of.name(),
            if of.is_retriable() { ", retriable" } else { "" },
            if of.txn_requires_abort() {
                ", abortable"
            } else {
                ""
            },
            if of.is_fatal() { ", fatal" } else { "" },
        ),
        _ => format!("{step}: {error}"),
    }
}
