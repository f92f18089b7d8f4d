//! A fleet in one process: many nodes' uplinks, each over a log of its own, at one cluster.
//!
//! ```text
//! cargo run --release -p skerry-bridge --example fleet -- HOST:PORT NODES FOLDER
//! ```
//!
//! A line of JSON a second tells how many links are up and how many records are confirmed. When
//! the standard input closes the nodes append no more and end once everything is confirmed; a line
//! for each tells what it had appended.

use skerry_bridge::uplink::{self, Config, LinkState, NewTopics, NodeName, Status};
use skerry_store::{Append, Kind, Log, Options, Record, StreamName, StreamOptions};
use std::error::Error;
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn Error + Send + Sync>;

const STREAM: &str = "telemetry";
/// Of each node: a little all the time, and so few syncs that hundreds share a disk.
const BURST: u64 = 10;
const BURST_INTERVAL: Duration = Duration::from_secs(5);
const STREAM_BYTES_MAX: u64 = 16 * 1024 * 1024;
const RECENT_BYTES_MAX: usize = 64 * 1024;
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [brokers, nodes, folder] = &arguments[..] else {
        eprintln!("usage: fleet HOST:PORT NODES FOLDER");
        return ExitCode::from(2);
    };
    let outcome = nodes.parse().map_err(Failure::from).and_then(|nodes| {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build()?;
        runtime.block_on(sail(brokers, nodes, Path::new(folder)))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleet: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A node with an open log that does nothing yet.
struct Moored {
    name: String,
    log: Log,
    /// Before its first records: the disk is shared, so not all write at once.
    begin: Duration,
}

struct Node {
    name: String,
    log: Log,
    status: Arc<Status>,
    uplink: JoinHandle<Result<(), uplink::Error>>,
    appending: JoinHandle<Result<(), Failure>>,
}

async fn sail(brokers: &str, count: u32, folder: &Path) -> Result<(), Failure> {
    let (ashore, stop) = (told_to_end(), CancellationToken::new());
    // All of them cast off in one moment: who comes back in step began in step.
    let moored = (0..count).map(|number| Moored::open(number, count, folder));
    let moored = moored.collect::<Result<Vec<_>, _>>()?;
    let cast_off = |node: Moored| node.cast_off(brokers, &ashore, &stop);
    let nodes = moored
        .into_iter()
        .map(cast_off)
        .collect::<Result<Vec<_>, _>>()?;
    loop {
        let (mut up, mut appended, mut confirmed) = (0, 0, 0);
        for node in &nodes {
            let snapshot = node.status.snapshot();
            up += u32::from(snapshot.link.state == LinkState::Up);
            appended += node.appended()?;
            confirmed += snapshot
                .streams
                .first()
                .map_or(0, |stream| stream.position.0);
        }
        println!(r#"{{"event":"fleet","up":{up},"appended":{appended},"confirmed":{confirmed}}}"#);
        let quiet = nodes.iter().all(|node| node.appending.is_finished());
        if quiet && confirmed == appended {
            break;
        }
        sleep(REPORT_INTERVAL).await;
    }
    stop.cancel();
    for node in nodes {
        let (name, appended) = (node.name.clone(), node.appended()?);
        node.appending.await??;
        node.uplink.await??;
        println!(r#"{{"event":"node","node":"{name}","appended":{appended}}}"#);
    }
    Ok(())
}

/// Cancelled once the standard input closes.
fn told_to_end() -> CancellationToken {
    let told = CancellationToken::new();
    let teller = told.clone();
    std::thread::spawn(move || {
        // An input that cannot be read is one that has ended.
        let _read = std::io::stdin().read_to_end(&mut Vec::new());
        teller.cancel();
    });
    told
}

impl Moored {
    fn open(number: u32, count: u32, folder: &Path) -> Result<Self, Failure> {
        let name = format!("node-{number:03}");
        let mut options = Options::new(folder.join(&name));
        options.streams = vec![StreamOptions::new(stream()?, STREAM_BYTES_MAX)];
        options.recent_bytes_max = RECENT_BYTES_MAX;
        let (log, _) = Log::open(options)?;
        let begin = BURST_INTERVAL * number / count;
        Ok(Self { name, log, begin })
    }

    fn cast_off(
        self,
        brokers: &str,
        ashore: &CancellationToken,
        stop: &CancellationToken,
    ) -> Result<Node, Failure> {
        let Self { name, log, begin } = self;
        let mut config = Config::new(NodeName::new(&name)?, vec![brokers.to_owned()]);
        config.create_topics = Some(NewTopics::default());
        let status = Arc::new(Status::default());
        let uplink = uplink::run(config, log.clone(), Arc::clone(&status), stop.clone());
        Ok(Node {
            name,
            uplink: tokio::spawn(uplink),
            appending: tokio::spawn(append(log.clone(), begin, ashore.clone())),
            log,
            status,
        })
    }
}

impl Node {
    fn appended(&self) -> Result<u64, Failure> {
        Ok(self.log.head(&stream()?)?.borrow().0)
    }
}

fn stream() -> Result<StreamName, skerry_store::Error> {
    StreamName::new(STREAM)
}

async fn append(log: Log, begin: Duration, ashore: CancellationToken) -> Result<(), Failure> {
    let (mut next, mut number) = (Instant::now() + begin, 0);
    loop {
        tokio::select! {
            () = sleep_until(next) => next += BURST_INTERVAL,
            () = ashore.cancelled() => return Ok(()),
        }
        let record = |number| {
            let payload = format!(r#"{{"n":{number},"value":{}}}"#, number * 7 % 1_000);
            Record::new(Kind::Mqtt, format!("plant/press-{}", number % 3), payload)
        };
        let records = (number..number + BURST).map(record).collect();
        number += BURST;
        let (stream, changes) = (stream()?, Vec::new());
        let append = Append {
            stream,
            records,
            changes,
        };
        log.append(append).await?;
    }
}
