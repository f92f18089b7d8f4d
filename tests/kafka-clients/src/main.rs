//! Which Kafka client is the uplink to stand on? Runs the candidates in interleaved pairs, each in
//! a process of its own, against a real broker, and prints one JSON object a line.
//!
//! Both send 200-byte records with a key, lz4, in batches of at most 128 KiB: once idempotent, as
//! fast as the client takes them, and once in transactions of 2,600 records (about 512 KiB), one
//! at a time, as the uplink does. What they do when the broker goes away: see [`outage`]. For
//! `tests/bench uplink` it is the peer: see [`load`].

mod broker;
mod load;
mod outage;

use rdkafka::producer::Producer as _;
use std::collections::VecDeque;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const RECORD_BYTES: usize = 200;
const KEYS: u64 = 50;
const PER_TRANSACTION: u64 = 2_600;
const BATCH_BYTES: usize = 128 * 1024;
const BUFFER_BYTES: usize = 8 * 1024 * 1024;
const PAIRS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        [brokers] => compare(brokers, 500_000),
        [brokers, "--quick"] => compare(brokers, 100_000),
        ["child", client, mode, brokers, records] => child(client, mode, brokers, records),
        ["outage", jars, folder] => outage::compare(Path::new(jars), Path::new(folder)),
        ["produce", brokers, topic, lines, ref rest @ ..] => produce(brokers, topic, lines, rest),
        ["read", brokers, topic] => load::read(brokers, topic),
        _ => Err("usage: kafka-clients HOST:PORT [--quick] | outage JARS FOLDER | \
                  produce BROKERS TOPIC LINES RECORDS BATCH_BYTES BATCH_RECORDS SETTLE_S STEADY_S | \
                  read BROKERS TOPIC"
            .into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kafka-clients: {error}");
            ExitCode::FAILURE
        }
    }
}

fn produce(brokers: &str, topic: &str, lines: &str, rest: &[&str]) -> Result<(), Failure> {
    let [records, batch_bytes, batch_records, settle, steady] = rest[..] else {
        return Err("produce: wants RECORDS BATCH_BYTES BATCH_RECORDS SETTLE_S STEADY_S".into());
    };
    let seconds = |text: &str| -> Result<Duration, Failure> {
        Ok(Duration::try_from_secs_f64(text.parse()?)?)
    };
    let produce = load::Produce {
        brokers,
        topic,
        lines,
        records: records.parse()?,
        batch_bytes,
        batch_records: batch_records.parse()?,
        settle: seconds(settle)?,
        steady: seconds(steady)?,
    };
    produce.run()
}

/// What one run of a client cost.
#[derive(Clone, Copy)]
struct Cost {
    records_per_second: f64,
    cpu_us_per_record: f64,
    peak_mib: f64,
}

type Figure = (&'static str, &'static str, fn(&Cost) -> f64);

const FIGURES: [Figure; 3] = [
    ("records per second", "1/s", |cost| cost.records_per_second),
    ("CPU per record", "us", |cost| cost.cpu_us_per_record),
    ("peak memory", "MiB", |cost| cost.peak_mib),
];

fn compare(brokers: &str, records: u64) -> Result<(), Failure> {
    for mode in ["idempotent", "transactional"] {
        let mut runs = Vec::new();
        for _ in 0..PAIRS {
            let ours = run("krafka", mode, brokers, records)?;
            runs.push((ours, run("rdkafka", mode, brokers, records)?));
        }
        for (figure, unit, of) in FIGURES {
            let pairs: Vec<_> = runs.iter().map(|(a, b)| (of(a), of(b))).collect();
            print_figure(mode, figure, unit, &pairs);
        }
    }
    Ok(())
}

/// The medians of pairs of runs: krafka's value and rdkafka's.
fn print_figure(mode: &str, figure: &str, unit: &str, pairs: &[(f64, f64)]) {
    let ours = median(pairs.iter().map(|(ours, _)| *ours));
    let theirs = median(pairs.iter().map(|(_, theirs)| *theirs));
    let ratio = median(pairs.iter().map(|(ours, theirs)| ours / theirs));
    println!(
        "{{\"bench\":\"kafka-clients\",\"figure\":\"krafka, {mode}: {figure}\",\
         \"unit\":\"{unit}\",\"ours\":{ours:.2},\"peer\":\"rdkafka\",\
         \"theirs\":{theirs:.2},\"ratio\":{ratio:.2},\"aim\":null,\"aim_met\":null,\
         \"runs\":{},\"commit\":null}}",
        pairs.len()
    );
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn run(client: &str, mode: &str, brokers: &str, records: u64) -> Result<Cost, Failure> {
    let output = Command::new(std::env::current_exe()?)
        .args(["child", client, mode, brokers, &records.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let numbers = text
        .split_whitespace()
        .map(str::parse::<f64>)
        .collect::<Result<Vec<_>, _>>()?;
    match (output.status.success(), &numbers[..]) {
        (true, &[records_per_second, cpu_us_per_record, peak_mib]) => Ok(Cost {
            records_per_second,
            cpu_us_per_record,
            peak_mib,
        }),
        _ => Err(format!("{client} {mode} failed: {text}").into()),
    }
}

fn child(client: &str, mode: &str, brokers: &str, records: &str) -> Result<(), Failure> {
    let records: u64 = records.parse()?;
    let topic = format!("bench-{client}-{mode}");
    let started = Instant::now();
    match (client, mode) {
        ("krafka", "transactional") => block_on(krafka_transactional(brokers, &topic, records))?,
        ("krafka", _) => block_on(krafka_idempotent(brokers, &topic, records))?,
        (_, "transactional") => rdkafka_transactional(brokers, &topic, records)?,
        _ => rdkafka_idempotent(brokers, &topic, records)?,
    }
    let seconds = started.elapsed().as_secs_f64();
    let (cpu_us, peak_kib) = (own_cpu_us()?, own_peak_kib()?);
    println!(
        "{} {} {}",
        records as f64 / seconds,
        cpu_us / records as f64,
        peak_kib / 1024.0
    );
    Ok(())
}

fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(work)
}

fn key(n: u64) -> String {
    format!("plant/pump{}/vibration", n % KEYS)
}

/// JSON as telemetry has it, of a constant length.
fn value(n: u64) -> String {
    let reading = n.wrapping_mul(6_364_136_223_846_793_005) >> 40;
    let mut text = format!("{{\"n\":{n},\"value\":{reading},\"unit\":\"mm/s\",\"note\":\"");
    while text.len() < RECORD_BYTES - 2 {
        text.push(char::from(
            b'a' + (n.wrapping_add(text.len() as u64) % 23) as u8,
        ));
    }
    text + "\"}"
}

async fn krafka(brokers: &str) -> Result<krafka::producer::ProducerBuilder, Failure> {
    let kafka = krafka::Kafka::builder(brokers).allow_auto_create_topics(true);
    let kafka = kafka.connect().await?;
    let builder = kafka.producer().compression(krafka::Compression::Lz4);
    Ok(builder
        .batch_size(BATCH_BYTES)
        .buffer_memory(BUFFER_BYTES)
        .metrics_push(false))
}

async fn krafka_idempotent(brokers: &str, topic: &str, records: u64) -> Result<(), Failure> {
    let producer = krafka(brokers).await?.build().await?;
    let mut outcomes = VecDeque::new();
    for n in 0..records {
        let record = krafka::Record::new(topic, value(n)).key(key(n));
        outcomes.push_back(producer.enqueue(record).await?);
        if outcomes.len() >= 20_000 {
            drop(outcomes.pop_front().expect("just counted").await?);
        }
    }
    producer.flush().await?;
    for outcome in outcomes {
        drop(outcome.await?);
    }
    Ok(producer.close().await?)
}

async fn krafka_transactional(brokers: &str, topic: &str, records: u64) -> Result<(), Failure> {
    let builder = krafka(brokers).await?.delivery_timeout(PATIENCE);
    let producer = builder.build_transactional(topic).await?;
    for first in (0..records).step_by(PER_TRANSACTION as usize) {
        producer.begin()?;
        let mut outcomes = Vec::new();
        for n in first..records.min(first + PER_TRANSACTION) {
            let record = krafka::Record::new(topic, value(n)).key(key(n));
            outcomes.push(producer.enqueue(record).await?);
        }
        producer.flush().await?;
        for outcome in outcomes {
            drop(outcome.await?);
        }
        producer.commit().await?;
    }
    Ok(producer.close().await?)
}

/// Served from the sending thread; with a thread of its own the figures were the same.
type Librdkafka = rdkafka::producer::BaseProducer;

fn rdkafka(brokers: &str, transactional_id: Option<&str>) -> Result<Librdkafka, Failure> {
    let mut config = rdkafka::config::ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("compression.codec", "lz4")
        .set("linger.ms", "5")
        .set("batch.size", BATCH_BYTES.to_string())
        .set(
            "queue.buffering.max.kbytes",
            (BUFFER_BYTES / 1024).to_string(),
        );
    if let Some(id) = transactional_id {
        config.set("transactional.id", id);
    }
    Ok(config.create()?)
}

fn rdkafka_send(producer: &Librdkafka, topic: &str, n: u64) -> Result<(), Failure> {
    use rdkafka::error::{KafkaError, RDKafkaErrorCode};
    let (key, value) = (key(n), value(n));
    let mut record = rdkafka::producer::BaseRecord::to(topic)
        .key(&key)
        .payload(&value);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

fn rdkafka_idempotent(brokers: &str, topic: &str, records: u64) -> Result<(), Failure> {
    let producer = rdkafka(brokers, None)?;
    (0..records).try_for_each(|n| rdkafka_send(&producer, topic, n))?;
    Ok(producer.flush(PATIENCE)?)
}

fn rdkafka_transactional(brokers: &str, topic: &str, records: u64) -> Result<(), Failure> {
    let producer = rdkafka(brokers, Some(topic))?;
    producer.init_transactions(PATIENCE)?;
    for first in (0..records).step_by(PER_TRANSACTION as usize) {
        producer.begin_transaction()?;
        let slice = first..records.min(first + PER_TRANSACTION);
        slice
            .into_iter()
            .try_for_each(|n| rdkafka_send(&producer, topic, n))?;
        producer.flush(PATIENCE)?;
        // Fails if one record failed.
        producer.commit_transaction(PATIENCE)?;
    }
    Ok(())
}

/// User and system time of this process; the kernel counts in hundredths of a second.
fn own_cpu_us() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(')').next().ok_or("no name in stat")?;
    let mut fields = after_name.split_whitespace().skip(11);
    let mut next = || -> Result<f64, Failure> { Ok(fields.next().ok_or("short stat")?.parse()?) };
    Ok((next()? + next()?) * 10_000.0)
}

fn own_peak_kib() -> Result<f64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .ok_or("no VmHWM")?;
    Ok(line
        .split_whitespace()
        .next()
        .ok_or("empty VmHWM")?
        .parse()?)
}
