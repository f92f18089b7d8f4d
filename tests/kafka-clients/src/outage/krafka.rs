//! The stream through krafka.

use super::{
    CONNECT_TIMEOUT, Client, DELIVERY_TIMEOUT, Names, POSITIONS_PARTITION, REQUEST_TIMEOUT,
    TRANSACTION_TIMEOUT,
};
use crate::broker::PARTITIONS;
use crate::{BATCH_BYTES, BUFFER_BYTES, Failure, key, value};
use krafka::admin::{CreateTopicsOptions, ListOffsetsOptions, NewTopic, OffsetSpec};
use krafka::consumer::{AutoOffsetReset, Consumer, IsolationLevel};
use krafka::producer::TransactionalProducer;
use krafka::{CloseOptions, Compression, Kafka, Record};
use std::ops::Range;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

pub(super) struct Krafka {
    runtime: Runtime,
    kafka: Kafka,
    producer: TransactionalProducer,
    names: Names,
}

impl Client for Krafka {
    const NAME: &'static str = "krafka";

    fn open(brokers: &str, names: &Names) -> Result<Self, Failure> {
        let runtime = runtime()?;
        let (kafka, producer) = runtime.block_on(async {
            let kafka = connect(brokers).await?;
            let producer = kafka
                .producer()
                .compression(Compression::Lz4)
                .batch_size(BATCH_BYTES)
                .buffer_memory(BUFFER_BYTES)
                .max_block(DELIVERY_TIMEOUT)
                .delivery_timeout(DELIVERY_TIMEOUT)
                .transaction_timeout(TRANSACTION_TIMEOUT)
                .metrics_push(false)
                .build_transactional(&names.id)
                .await
                .map_err(|error| format!("open: {error}"))?;
            Ok::<_, Failure>((kafka, producer))
        })?;
        Ok(Self {
            runtime,
            kafka,
            producer,
            names: names.clone(),
        })
    }

    fn position(&self) -> Result<u64, Failure> {
        self.runtime
            .block_on(self.read_position())
            .map_err(|error| format!("position: {error}").into())
    }

    fn transact(&self, numbers: Range<u64>) -> Result<(), Failure> {
        self.runtime.block_on(self.write(numbers))
    }

    fn abort(&self) -> Result<(), Failure> {
        self.runtime
            .block_on(self.producer.abort())
            .map_err(|error| format!("abort: {error}").into())
    }

    fn close(self) {
        let options = CloseOptions::new().timeout(Duration::from_millis(500));
        if let Err(error) = self.runtime.block_on(self.producer.close_with(options)) {
            eprintln!("krafka: close: {error}");
        }
    }
}

impl Krafka {
    async fn write(&self, numbers: Range<u64>) -> Result<(), Failure> {
        let at = |step: &'static str| move |error| format!("{step}: {error}");
        self.producer.begin().map_err(at("begin"))?;
        let records = numbers
            .clone()
            .map(|n| Record::new(&self.names.topic, value(n)).key(key(n)));
        let mut position = Record::new(&self.names.positions, numbers.end.to_string()).key("next");
        position.partition = Some(POSITIONS_PARTITION);
        let mut outcomes = Vec::new();
        for record in records.chain([position]) {
            outcomes.push(self.producer.enqueue(record).await.map_err(at("enqueue"))?);
        }
        self.producer.flush().await.map_err(at("flush"))?;
        for outcome in outcomes {
            drop(outcome.await.map_err(at("record"))?);
        }
        self.producer.commit().await.map_err(at("commit"))?;
        Ok(())
    }

    async fn read_position(&self) -> Result<u64, Failure> {
        let topic = &self.names.positions;
        let partition = krafka::admin::TopicPartition::new(topic, POSITIONS_PARTITION);
        let ends = self
            .kafka
            .admin()
            .list_offsets(
                [(partition, OffsetSpec::Latest)],
                ListOffsetsOptions::default(),
            )
            .await?;
        let end = ends.into_values().next().ok_or("no end")??.offset;
        let consumer = self
            .kafka
            .consumer_without_group()
            .isolation_level(IsolationLevel::ReadCommitted)
            .auto_offset_reset(AutoOffsetReset::Earliest)
            .fetch_max_wait(Duration::from_millis(100))
            .metrics_push(false)
            .build()
            .await?;
        let newest = newest(&consumer, topic, end).await;
        consumer.close().await?;
        newest
    }
}

/// The last number before `end`; 0 when there is none.
async fn newest(consumer: &Consumer, topic: &str, end: i64) -> Result<u64, Failure> {
    consumer.assign(topic, vec![POSITIONS_PARTITION]).await?;
    consumer.seek(topic, POSITIONS_PARTITION, 0).await?;
    let (mut newest, mut reached, mut moved) = (0, 0, Instant::now());
    while reached < end {
        for record in consumer.poll(Duration::from_millis(200)).await? {
            let value = record.value.ok_or("a position without a value")?;
            newest = std::str::from_utf8(&value)?.parse()?;
        }
        let position = consumer.position(topic, POSITIONS_PARTITION).await;
        let position = position.unwrap_or(reached);
        if position > reached {
            (reached, moved) = (position, Instant::now());
        } else if moved.elapsed() > REQUEST_TIMEOUT {
            return Err(format!("stands at {reached} of {end}").into());
        }
    }
    Ok(newest)
}

pub(super) fn create_topics(brokers: &str, topics: &[&str]) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let kafka = connect(brokers).await?;
        let wanted = topics
            .iter()
            .map(|topic| NewTopic::new(*topic, PARTITIONS, 1))
            .collect::<Result<Vec<_>, _>>()?;
        let created = kafka
            .admin()
            .create_topics(wanted, CreateTopicsOptions::default())
            .await?;
        for outcome in created.into_values() {
            outcome?;
        }
        Ok(())
    })
}

async fn connect(brokers: &str) -> Result<Kafka, Failure> {
    Kafka::builder(brokers)
        .request_timeout(REQUEST_TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .connect()
        .await
        .map_err(|error| format!("connect: {error}").into())
}

fn runtime() -> Result<Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}
