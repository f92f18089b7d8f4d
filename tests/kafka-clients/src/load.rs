//! One end of a load for others to measure with: a producer of given lines that says what it
//! cost, and a reader that says when things came.

use crate::{Failure, PATIENCE, own_cpu_us, own_peak_kib};
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Sources, as many as the lines are in turn of.
const KEYS: usize = 50;
const BUFFER_KIB: usize = 8 * 1024;
const LINGER_MS: &str = "50";
/// Waits for room, and for records; long enough not to spin.
const NAP: Duration = Duration::from_millis(100);

/// `produce BROKERS TOPIC LINES RECORDS BATCH_BYTES BATCH_RECORDS SETTLE_S STEADY_S`
pub(crate) struct Produce<'a> {
    pub(crate) brokers: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) lines: &'a str,
    pub(crate) records: u64,
    pub(crate) batch_bytes: &'a str,
    /// 0 for as many as fit.
    pub(crate) batch_records: u32,
    pub(crate) settle: Duration,
    /// None: until all is delivered.
    pub(crate) steady: Duration,
}

/// Counts what the brokers have confirmed.
#[derive(Clone, Default)]
struct Confirmed(Arc<Counts>);

#[derive(Default)]
struct Counts {
    delivered: AtomicU64,
    failed: AtomicU64,
}

impl ClientContext for Confirmed {}

impl ProducerContext for Confirmed {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let Counts { delivered, failed } = &*self.0;
        let count = if result.is_ok() { delivered } else { failed };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// What it has done and cost at a moment.
struct Mark {
    at: Instant,
    delivered: u64,
    cpu_us: f64,
}

impl Produce<'_> {
    /// The lines over and over, idempotent, lz4, the key that each line's place gives it.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let text = std::fs::read_to_string(self.lines)?;
        let lines: Vec<&str> = text.lines().collect();
        let keys: Vec<String> = (0..KEYS)
            .map(|number| format!("plant/hall-1/press-{number:02}"))
            .collect();
        let confirmed = Confirmed::default();
        let producer = self.producer(confirmed.clone())?;
        let mark = || -> Result<Mark, Failure> {
            Ok(Mark {
                at: Instant::now(),
                delivered: confirmed.0.delivered.load(Ordering::Relaxed),
                cpu_us: own_cpu_us()?,
            })
        };
        let mut from = mark()?;
        let bounded = !self.steady.is_zero();
        let (started, mut settled) = (from.at, !bounded);
        for (line, key) in
            (0..self.records as usize).map(|n| (lines[n % lines.len()], &keys[n % KEYS]))
        {
            let elapsed = started.elapsed();
            if !settled && elapsed >= self.settle {
                (from, settled) = (mark()?, true);
            }
            if bounded && elapsed >= self.settle + self.steady {
                break;
            }
            self.send(&producer, key, line)?;
        }
        if !bounded {
            producer.flush(PATIENCE)?;
        }
        let to = mark()?;
        let failed = confirmed.0.failed.load(Ordering::Relaxed);
        if failed > 0 || to.delivered == from.delivered {
            return Err(format!("{failed} records failed of {} delivered", to.delivered).into());
        }
        println!(
            "{{\"records\":{},\"seconds\":{},\"cpu_seconds\":{},\"peak_kib\":{}}}",
            to.delivered - from.delivered,
            (to.at - from.at).as_secs_f64(),
            (to.cpu_us - from.cpu_us) / 1e6,
            own_peak_kib()?
        );
        // What is still in the queue of a bounded run is nobody's.
        std::process::exit(0)
    }

    fn producer(&self, context: Confirmed) -> Result<BaseProducer<Confirmed>, Failure> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.brokers)
            .set("enable.idempotence", "true")
            .set("compression.codec", "lz4")
            .set("linger.ms", LINGER_MS)
            .set("batch.size", self.batch_bytes)
            .set("message.timeout.ms", "0")
            .set("queue.buffering.max.kbytes", BUFFER_KIB.to_string());
        if self.batch_records > 0 {
            config.set("batch.num.messages", self.batch_records.to_string());
        }
        Ok(config.create_with_context(context)?)
    }

    fn send(
        &self,
        producer: &BaseProducer<Confirmed>,
        key: &str,
        line: &str,
    ) -> Result<(), Failure> {
        let mut record = BaseRecord::to(self.topic).key(key).payload(line);
        loop {
            match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    producer.poll(NAP);
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
}

/// `read BROKERS TOPIC`: a line for each committed record, the moment it came at in nanoseconds
/// and its value, until the standard input closes.
pub(crate) fn read(brokers: &str, topic: &str) -> Result<(), Failure> {
    let asked_to_stop = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&asked_to_stop);
    std::thread::spawn(move || {
        // Whatever comes of it, there is nobody left to read for.
        let _ended = std::io::stdin().read_to_end(&mut Vec::new());
        stop.store(true, Ordering::Relaxed);
    });
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("group.id", "kafka-clients")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed");
    let consumer: BaseConsumer = config.create()?;
    while !assign(&consumer, topic)? {
        if asked_to_stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        std::thread::sleep(NAP);
    }
    let mut out = std::io::stdout().lock();
    while !asked_to_stop.load(Ordering::Relaxed) {
        let Some(message) = consumer.poll(NAP) else {
            continue;
        };
        let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let message = message?;
        let value = String::from_utf8_lossy(message.payload().unwrap_or_default());
        writeln!(out, "{at} {value}")?;
        out.flush()?;
    }
    Ok(())
}

/// Every partition from its beginning; false while the topic is not there.
fn assign(consumer: &BaseConsumer, topic: &str) -> Result<bool, Failure> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let mut all = TopicPartitionList::new();
    for found in metadata
        .topics()
        .iter()
        .filter(|found| found.error().is_none())
    {
        for partition in found.partitions() {
            all.add_partition_offset(found.name(), partition.id(), Offset::Beginning)?;
        }
    }
    if all.count() == 0 {
        return Ok(false);
    }
    consumer.assign(&all)?;
    Ok(true)
}
