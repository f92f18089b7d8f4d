//! A plant, its clients and the line between them.

use skerry_bridge::opcua::{self, Config, Node, Snapshot, State, Status};
use skerry_simulation::opcua_server::{OpcuaServer, TagValue};
use skerry_store::{
    Append, Change, Gap, Kind, Log, Offset, Options, Record, StreamName, StreamOptions, WallNanos,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longer than the server samples, so that it sees every value that is set.
pub(crate) const TICK: Duration = Duration::from_millis(130);
/// Generous, for a loaded machine and a key made without optimisation; a good run needs little.
const PATIENCE: Duration = Duration::from_secs(120);

/// A directory with a log in it.
pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) log: Log,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_limit(64 * 1024 * 1024)
    }

    pub(crate) fn with_limit(bytes_max: u64) -> Self {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_test_writer()
            .try_init();
        let directory = tempfile::tempdir().unwrap();
        let mut stream = StreamOptions::new(stream(), bytes_max);
        stream.readers = vec!["reader".to_owned()];
        let mut options = Options::new(directory.path().join("log"));
        let others = ["commands", "audit"].map(|name| StreamName::new(name).unwrap());
        let others = others.map(|name| {
            let mut options = StreamOptions::new(name, 1024 * 1024);
            options.readers = vec!["reader".to_owned()];
            options
        });
        options.streams = [vec![stream], others.into()].concat();
        options.allow_volatile = true;
        let (log, _) = Log::open(options).unwrap();
        Self { directory, log }
    }

    pub(crate) async fn plant(&self, port: u16) -> OpcuaServer {
        let tags = vec![
            ("count".to_owned(), TagValue::Count(0)),
            ("pump1/vibration".to_owned(), TagValue::Number(1.5)),
            (
                "pump1/spectrum".to_owned(),
                TagValue::Numbers(vec![1.0, 2.5]),
            ),
        ];
        OpcuaServer::start(port, self.directory.path(), tags)
            .await
            .unwrap()
    }

    pub(crate) fn config(&self, url: &str, tags: &[&str]) -> Config {
        let endpoint = url.parse().unwrap();
        let pki = self.directory.path().join("pki");
        let mut config = Config::new("plant", endpoint, stream(), pki);
        config.publishing_interval = Duration::from_millis(100);
        let nodes = tags.iter().map(|tag| {
            let id = OpcuaServer::node_id(tag).parse().unwrap();
            Node::new(format!("plant/{tag}"), id, Duration::from_millis(100))
        });
        config.nodes = nodes.collect();
        config
    }

    /// What the clients wrote.
    pub(crate) fn records(&self) -> Vec<Record> {
        let from = self.log.tail(&stream()).unwrap();
        let mut reader = self.log.reader(&stream(), from).unwrap();
        let mut records = Vec::new();
        loop {
            let batch = reader.next(1 << 20).unwrap();
            if batch.records.is_empty() {
                return records;
            }
            let fresh = batch.records.into_iter().map(|(_, record)| record);
            records.extend(fresh.filter(|record| record.source != "filler"));
        }
    }

    pub(crate) async fn until(&self, what: &str, done: impl Fn(&[Record]) -> bool) {
        wait(what, || done(&self.records())).await;
    }

    /// Appends until the clients' stream takes nothing more.
    pub(crate) async fn fill(&self) {
        self.fill_stream(&stream()).await;
    }

    pub(crate) async fn fill_stream(&self, stream: &StreamName) {
        // Large ones first, then ones smaller than any value's record.
        for payload in [noise(), Vec::new()] {
            loop {
                let filler = Record::new(Kind::Node, "filler", payload.clone());
                let append = Append {
                    stream: stream.clone(),
                    records: vec![filler],
                    changes: Vec::new(),
                };
                if self.log.append(append).await.is_err() {
                    break;
                }
            }
        }
    }

    /// Confirms everything, so that it may be reclaimed.
    pub(crate) async fn free(&self) {
        self.free_stream(&stream()).await;
    }

    pub(crate) async fn free_stream(&self, stream: &StreamName) {
        let next = *self.log.head(stream).unwrap().borrow();
        assert!(next > Offset::ZERO);
        let advance = Change::Advance {
            cursor: "reader".to_owned(),
            stream: stream.as_str().to_owned(),
            next,
        };
        let append = Append {
            stream: StreamName::catalog(),
            records: Vec::new(),
            changes: vec![advance],
        };
        self.log.append(append).await.unwrap();
    }
}

/// A running client.
pub(crate) struct Client {
    pub(crate) status: Arc<Status>,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), opcua::Error>>,
}

impl Client {
    pub(crate) fn start(world: &World, url: &str, tags: &[&str]) -> Self {
        Self::run(world, world.config(url, tags))
    }

    pub(crate) fn run(world: &World, config: Config) -> Self {
        let status = Arc::new(Status::new(&config));
        let stop = CancellationToken::new();
        let run = opcua::run(config, world.log.clone(), Arc::clone(&status), stop.clone());
        Self {
            status,
            stop,
            task: tokio::spawn(run),
        }
    }

    pub(crate) async fn until(&self, what: &str, done: impl Fn(&Snapshot) -> bool) {
        let last = || format!("{what}: {:?}", self.status.snapshot());
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !done(&self.status.snapshot()) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "waited too long for {}",
                last()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn stop(self) -> Snapshot {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        let snapshot = self.status.snapshot();
        assert_eq!(snapshot.state, State::Stopped);
        snapshot
    }

    /// Ends as a killed process does: without a word to the server.
    pub(crate) async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
        // The log lives on here, and may be writing still what it was given; a killed process
        // takes it along.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A TCP proxy that can be cut, as a cable is.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    pub(crate) cut: Arc<AtomicBool>,
    pub(crate) task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&cut);
        let task = tokio::spawn(async move {
            loop {
                let Ok((mut near, _)) = listener.accept().await else {
                    return;
                };
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(("127.0.0.1", target)).await else {
                        return;
                    };
                    let broken = async {
                        while !seen.load(Ordering::Relaxed) {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    };
                    tokio::select! {
                        () = broken => {}
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    }
                });
            }
        });
        Self { port, cut, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("opc.tcp://127.0.0.1:{}/", self.port)
    }

    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    pub(crate) fn open(&self) {
        self.cut.store(false, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Something that listens and does `behave` with every connection; its URL.
pub(crate) async fn peer<F>(behave: impl Fn(TcpStream) -> F + Send + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("opc.tcp://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(behave(stream));
        }
    });
    url
}

pub(crate) async fn wait(what: &str, done: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !done() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited too long for {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sets the counter and waits a tick; the source time that was given.
pub(crate) async fn set(plant: &OpcuaServer, count: i64) -> WallNanos {
    // OPC-UA counts in steps of 100 ns.
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos()
        / 100
        * 100;
    let time = UNIX_EPOCH + Duration::from_nanos(u64::try_from(nanos).unwrap());
    plant.set("count", TagValue::Count(count), time).unwrap();
    tokio::time::sleep(TICK).await;
    WallNanos(i64::try_from(nanos).unwrap())
}

/// The counter's good values in the order of the log.
pub(crate) fn counts(records: &[Record]) -> Vec<i64> {
    records
        .iter()
        .filter(|record| record.kind == Kind::Opcua && record.source == "plant/count")
        .filter(|record| record.status == 0)
        .map(|record| {
            let payload: serde_json::Value = serde_json::from_slice(&record.payload).unwrap();
            payload["value"].as_i64().unwrap()
        })
        .collect()
}

pub(crate) fn gaps(records: &[Record]) -> Vec<Gap> {
    let of = records.iter().filter(|record| record.kind == Kind::Gap);
    of.map(|record| serde_json::from_slice(&record.payload).unwrap())
        .collect()
}

pub(crate) fn stream() -> StreamName {
    StreamName::new("machines").unwrap()
}

/// A payload that does not compress.
pub(crate) fn noise() -> Vec<u8> {
    use std::hash::{BuildHasher, RandomState};
    (0..128_u64)
        .flat_map(|i| RandomState::new().hash_one(i).to_le_bytes())
        .collect()
}
