use super::*;
use crate::config::ModelOptions;
use crate::fixture;
use crate::runner::{Runner, Score};
use crate::status::ModelSnapshot;
use skerry_store::{Kind, Options, StreamOptions};
use std::path::Path;
use std::time::Instant;

/// Once all are taken in, a stop waits for the scores they led to.
const RECORDS: u64 = 400;
const STREAMS: [&str; 4] = ["machines", "telemetry", "scores", "alerts"];

fn open(directory: &Path) -> Log {
    let mut options = Options::new(directory);
    options.commit_delay_max = Duration::ZERO;
    options.allow_volatile = true;
    let stream = |name| StreamOptions::new(fixture::stream(name), 64 * 1024 * 1024);
    options.streams = STREAMS.map(stream).to_vec();
    Log::open(options).unwrap().0
}

fn small() -> ModelOptions {
    let mut options = fixture::options();
    options.assets = vec!["a".to_owned(), "b".to_owned()];
    (options.rows, options.step) = (6, 2);
    options
}

/// Values of two assets, on two streams, taken in 100 ms apart.
async fn fill(log: &Log) {
    for (stream, kind) in [("machines", Kind::Opcua), ("telemetry", Kind::Mqtt)] {
        let mut records = Vec::new();
        for n in 0..RECORDS as u32 {
            let asset = ["a", "b"][n as usize % 2];
            let slow = n % 10 < 2;
            if slow != (kind == Kind::Mqtt) {
                continue;
            }
            let source = match kind {
                Kind::Mqtt => format!("plant/{asset}/temperature"),
                _ => format!("{asset}/vibration"),
            };
            let swing = (f64::from(n) / 20.0).sin().abs();
            let mut record = Record::new(kind, source, format!(r#"{{"value":{swing}}}"#));
            record.ingest_time = WallNanos(i64::from(n) * 100_000_000);
            records.push(record);
        }
        let stream = fixture::stream(stream);
        log.append(Append {
            stream,
            records,
            changes: Vec::new(),
        })
        .await
        .unwrap();
    }
}

/// Makes the model begin at the first record, as if it had been there before them.
async fn begin_at_the_first(log: &Log) {
    let advance = |stream: &str| Change::Advance {
        cursor: "model:bearing".to_owned(),
        stream: stream.to_owned(),
        next: Offset::ZERO,
    };
    let changes = vec![advance("machines"), advance("telemetry")];
    let stream = StreamName::catalog();
    log.append(Append {
        stream,
        records: Vec::new(),
        changes,
    })
    .await
    .unwrap();
}

struct Mean;

impl Runner for Mean {
    fn run(&mut self, window: &[f32]) -> Result<Score, String> {
        let mean = window.iter().sum::<f32>() / window.len() as f32;
        Ok(Score::from(mean))
    }
}

struct Panics;

impl Runner for Panics {
    fn run(&mut self, _: &[f32]) -> Result<Score, String> {
        panic!("operator not implemented")
    }
}

struct Node {
    status: Arc<Status>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), Error>>,
}

impl Node {
    fn snapshot(&self) -> ModelSnapshot {
        self.status.snapshot().models.swap_remove(0)
    }

    async fn until(&self, holds: impl Fn(&ModelSnapshot) -> bool) -> ModelSnapshot {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let snapshot = self.snapshot();
            if holds(&snapshot) {
                return snapshot;
            }
            assert!(Instant::now() < deadline, "never came: {snapshot:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

async fn start(log: &Log, runner: impl Runner + Send + 'static) -> Node {
    let (status, stop) = (Arc::new(Status::default()), CancellationToken::new());
    let model = Model::new(small()).unwrap();
    let entry = status.entry(&model);
    let worker = Worker::scripted(runner);
    let (log, ended) = (log.clone(), stop.clone());
    let following = async move {
        let package = Package {
            provenance: Provenance {
                sha256: "5ha".to_owned(),
                version: None,
            },
            reference: None,
        };
        let failed = follow(&model, &log, &entry, &worker, &package, &ended).await?;
        if let Some(error) = failed {
            disable(&model, &entry, &error);
        }
        Ok(())
    };
    Node {
        status,
        stop,
        task: tokio::spawn(following),
    }
}

/// The payloads of a stream, in the order per source, which is the order that is promised.
fn payloads(log: &Log, stream: &str) -> Vec<String> {
    let mut reader = log.reader(&fixture::stream(stream), Offset::ZERO).unwrap();
    let mut all = Vec::new();
    loop {
        let batch = reader.next(1024 * 1024).unwrap();
        if batch.records.is_empty() {
            break;
        }
        all.extend(batch.records.into_iter().map(|(_, record)| record));
    }
    all.sort_by(|one: &Record, other| one.source.cmp(&other.source));
    let text = |record: &Record| String::from_utf8(record.payload.to_vec()).unwrap();
    all.iter().map(text).collect()
}

/// Everything that one life without a crash writes.
async fn undisturbed() -> (Vec<String>, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    begin_at_the_first(&log).await;
    fill(&log).await;
    let node = start(&log, Mean).await;
    node.until(|model| model.records_total == RECORDS).await;
    node.stop().await;
    (payloads(&log, "scores"), payloads(&log, "alerts"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_point_it_writes_the_same_scores_and_alerts() {
    let (scores, alerts) = undisturbed().await;
    assert!(
        scores.len() > 100 && alerts.len() > 2,
        "{} {}",
        scores.len(),
        alerts.len()
    );

    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path());
    begin_at_the_first(&log).await;
    fill(&log).await;
    for life in 0..40_u64 {
        let node = start(&log, Mean).await;
        // From "not even begun" to "some rounds done".
        tokio::time::sleep(Duration::from_micros(life * life * 20)).await;
        node.task.abort();
        assert!(node.task.await.is_err() || life > 0);
        if life % 8 == 7 {
            log.close().await.unwrap();
            log = open(directory.path());
        }
    }
    let node = start(&log, Mean).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while payloads(&log, "scores").len() < scores.len() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    node.stop().await;
    let (again, alerts_again) = (payloads(&log, "scores"), payloads(&log, "alerts"));
    assert_eq!(
        (again.len(), alerts_again.len()),
        (scores.len(), alerts.len())
    );
    assert!(
        again == scores && alerts_again == alerts,
        "as many, but others"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_panics_is_disabled_with_its_reason() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    begin_at_the_first(&log).await;
    fill(&log).await;
    let node = start(&log, Panics).await;
    let model = node.until(|model| model.state == State::Disabled).await;
    let reason = model.reason.unwrap();
    assert!(
        reason.contains("panicked") && reason.contains("operator not implemented"),
        "{reason}"
    );
    node.stop().await;
    // Nothing was written and nothing was given up: the same windows wait for the next start.
    assert_eq!(payloads(&log, "scores"), Vec::<String>::new());
    let node = start(&log, Mean).await;
    node.until(|model| model.records_total == RECORDS).await;
    node.stop().await;
    assert!(payloads(&log, "scores") == undisturbed().await.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_model_does_not_touch_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let garbage = directory.path().join("garbage.onnx");
    std::fs::write(&garbage, b"not a model").unwrap();
    let mut bad = fixture::pumps();
    (bad.name, bad.file) = ("bad".to_owned(), garbage);
    let mut absent = fixture::pumps();
    (absent.name, absent.file) = ("absent".to_owned(), directory.path().join("absent.onnx"));
    let models = [bad, absent, fixture::pumps()].map(|options| Model::new(options).unwrap());
    let (status, stop) = (Arc::new(Status::default()), CancellationToken::new());
    let config = Config {
        models: models.to_vec(),
        host: fixture::host(),
        ..Config::default()
    };
    let task = tokio::spawn(run(config, log.clone(), Arc::clone(&status), stop.clone()));

    let states = || {
        status
            .snapshot()
            .models
            .iter()
            .map(|model| model.state)
            .collect::<Vec<_>>()
    };
    let expected = [State::Disabled, State::Disabled, State::Running];
    let deadline = Instant::now() + Duration::from_secs(30);
    while states() != expected && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(states(), expected);
    let snapshot = status.snapshot();
    for (model, word) in snapshot.models.iter().zip(["garbage.onnx", "absent.onnx"]) {
        assert!(
            model.reason.as_deref().unwrap_or_default().contains(word),
            "{model:?}"
        );
    }
    assert!(snapshot.models[2].sha256.is_some() && snapshot.models[2].memory_bytes > 0);
    assert!(!task.is_finished(), "a disabled model ends nothing");
    stop.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_model_begins_with_what_comes_from_now_on() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    fill(&log).await;
    let node = start(&log, Mean).await;
    node.until(|model| model.state == State::Running).await;
    node.stop().await;
    let machines = fixture::stream("machines");
    let head = *log.head(&machines).unwrap().borrow();
    assert_eq!(log.cursor("model:bearing", &machines).unwrap(), Some(head));
    assert_eq!(payloads(&log, "scores"), Vec::<String>::new());
}
