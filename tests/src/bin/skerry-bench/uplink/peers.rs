//! Who is compared with: programs of their own, on the same broker, with the same reports.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use skerry_tests::process::{self, Output};
use skerry_tests::{Context as _, Result, ensure, workspace};

use super::Maybe;
use super::site::Work;

pub(super) const PERF_TEST: &str = "kafka-producer-perf-test, idempotent, lz4";
pub(super) const RDKAFKA: &str = "librdkafka, idempotent, lz4";

/// As the node's uplink has them.
const BATCH_BYTES: usize = 128 * 1024;
const LINGER_MS: u32 = 50;
/// Nobody is so slow beside the broker.
const RECORDS_PER_SECOND_MIN: u64 = 2_000;
const START: Duration = Duration::from_secs(60);

fn patience(records: u64) -> Duration {
    START + Duration::from_secs(records / RECORDS_PER_SECOND_MIN)
}

/// Records per second by its own account, from its first record on. It has no keys and no order,
/// and draws from the reports at random.
pub(super) fn perf_test(brokers: &str, topic: &str, reports: &Path, records: u64) -> Result<f64> {
    let mut command = Command::new("java");
    command
        .arg("-Xmx512m")
        .arg("-cp")
        .arg(workspace::kafka_jars().join("*"));
    command.arg("org.apache.kafka.tools.ProducerPerformance");
    command.args(["--topic", topic, "--num-records", &records.to_string()]);
    command
        .args(["--throughput", "-1", "--payload-file"])
        .arg(reports);
    command.arg("--producer-props").args([
        format!("bootstrap.servers={brokers}"),
        "acks=all".to_owned(),
        "enable.idempotence=true".to_owned(),
        "compression.type=lz4".to_owned(),
        format!("batch.size={BATCH_BYTES}"),
        format!("linger.ms={LINGER_MS}"),
    ]);
    let text = succeeds(process::run(&mut command, patience(records))?)?;
    rate(&text, records).with_context(|| format!("no rate in {text:?}"))
}

/// Of the last line, which is about all of them.
fn rate(text: &str, records: u64) -> Option<f64> {
    let line = text.lines().rfind(|line| line.contains("records sent"))?;
    let sent = line.strip_prefix(&format!("{records} records sent, "))?;
    sent.split_whitespace().next()?.parse().ok()
}

/// A producer on librdkafka: what it is to send and for how long.
pub(super) struct Producer<'a> {
    pub(super) brokers: &'a str,
    pub(super) topic: &'a str,
    pub(super) reports: &'a Path,
    pub(super) records: u64,
    /// Most records in a batch; none for as many as its bytes allow.
    pub(super) batch_records: Option<u32>,
    /// Looked at after the first while for the second one; none for all of it.
    pub(super) window: Option<[Duration; 2]>,
}

impl Producer<'_> {
    pub(super) fn run(&self) -> Result<Maybe<Work>> {
        let program = program();
        if !program.exists() {
            let why = "kafka-clients is not built; `tests/bench uplink` builds it";
            return Ok(Err(why.to_owned()));
        }
        let [settle, steady] = self
            .window
            .unwrap_or_default()
            .map(|time| time.as_secs_f64());
        let mut command = Command::new(program);
        command
            .args(["produce", self.brokers, self.topic])
            .arg(self.reports);
        command.args([
            self.records.to_string(),
            BATCH_BYTES.to_string(),
            self.batch_records.unwrap_or_default().to_string(),
            settle.to_string(),
            steady.to_string(),
        ]);
        let longest = match self.window {
            Some([settle, steady]) => START + settle + steady,
            None => patience(self.records),
        };
        let text = succeeds(process::run(&mut command, longest)?)?;
        let line: Value =
            serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))?;
        let number = |name: &str| {
            line[name]
                .as_f64()
                .with_context(|| format!("no {name}: {line}"))
        };
        Ok(Ok(Work {
            records: number("records")?,
            seconds: number("seconds")?,
            cpu_seconds: number("cpu_seconds")?,
        }))
    }
}

/// The program of `tests/kafka-clients`, which `tests/bench` builds next to this one.
pub(super) fn program() -> PathBuf {
    workspace::built("kafka-clients")
}

fn succeeds(output: Output) -> Result<String> {
    ensure!(output.code == Some(0), "a peer failed: {}", output.text());
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_all_records() {
        let text = "412 records sent, 80.1 records/sec (0.02 MB/sec), 1 ms avg latency.\n\
                    1000 records sent, 212314.2 records/sec (40.5 MB/sec), 5.0 ms avg latency, \
                    9.0 ms max latency, 1 ms 50th.\n";
        assert_eq!(rate(text, 1_000), Some(212_314.2));
        assert_eq!(rate("412 records sent, 80.1 records/sec\n", 1_000), None);
    }
}
