//! Versions of a model over a running log: swaps, what is refused, the way back, shadows.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "common/onnx.rs"]
mod onnx;

use onnx::{bomb, mean_then, package, write_manifest};
use serde_json::{Value, json};
use skerry_inference::{
    Canary, Command, Config, Difference, HostCommand, Input, Model, ModelOptions, ModelSnapshot,
    Source, State, Status, run,
};
use skerry_store::{
    Append, Kind, Log, Offset, Options, Record, StreamName, StreamOptions, WallNanos,
};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const ROWS: usize = 4;

/// What [`host`] starts.
#[test]
#[ignore = "other tests start it"]
fn child() {
    skerry_inference::serve_host().unwrap();
}

/// This test program as the child that models run in.
fn host() -> HostCommand {
    HostCommand::this_program(["--exact", "child", "--ignored", "--nocapture"])
}

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

/// A node's models over a log of its own, in a folder with packages.
struct Site {
    folder: tempfile::TempDir,
    log: Log,
    status: Arc<Status>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    seconds: i64,
    change: Change,
}

/// What a test has otherwise than [`start`].
type Change = fn(&mut ModelOptions);

impl Site {
    async fn new(packages: impl FnOnce(&Path)) -> Self {
        Self::with(packages, |_| ()).await
    }

    async fn with(packages: impl FnOnce(&Path), change: Change) -> Self {
        let folder = tempfile::tempdir().unwrap();
        packages(&folder.path().join("models/mean"));
        let first = mean_then(&[], ROWS as u64);
        std::fs::write(folder.path().join("first.onnx"), first).unwrap();
        let mut options = Options::new(folder.path().join("data"));
        options.commit_delay_max = Duration::ZERO;
        options.allow_volatile = true;
        let streams = ["telemetry", "scores", "alerts", "node"];
        let sized = |name| StreamOptions::new(stream(name), 16 * 1024 * 1024);
        options.streams = streams.map(sized).to_vec();
        let (log, _) = Log::open(options).unwrap();
        let (status, stop, task) = start(&log, folder.path(), change);
        let site = Self {
            folder,
            log,
            status,
            stop,
            task,
            seconds: 0,
            change,
        };
        site.until(|model| model.state == State::Running).await;
        site
    }

    async fn restart(&mut self) {
        self.stop.cancel();
        (&mut self.task).await.unwrap();
        (self.status, self.stop, self.task) = start(&self.log, self.folder.path(), self.change);
        self.until(|model| model.state == State::Running).await;
    }

    fn model(&self) -> ModelSnapshot {
        self.status.snapshot().models.swap_remove(0)
    }

    async fn until(&self, holds: impl Fn(&ModelSnapshot) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.status.snapshot().models.is_empty() || !holds(&self.model()) {
            let snapshot = self.status.snapshot();
            assert!(Instant::now() < deadline, "never came: {snapshot:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Takes in values, a second apart.
    async fn publish(&mut self, values: &[f64]) {
        let records = values.iter().map(|value| {
            self.seconds += 1;
            let payload = json!({ "value": value }).to_string();
            let mut record = Record::new(Kind::Mqtt, "t", payload);
            record.ingest_time = WallNanos(self.seconds * 1_000_000_000);
            record
        });
        let append = Append {
            stream: stream("telemetry"),
            records: records.collect(),
            changes: Vec::new(),
        };
        self.log.append(append).await.unwrap();
    }

    fn payloads(&self, name: &str) -> Vec<Value> {
        let mut reader = self.log.reader(&stream(name), Offset::ZERO).unwrap();
        let batch = reader.next(1024 * 1024).unwrap();
        let payload = |(_, record): &(Offset, Record)| serde_json::from_slice(&record.payload);
        batch
            .records
            .iter()
            .map(|it| payload(it).unwrap())
            .collect()
    }

    /// The scores that there are, once there are so many.
    async fn scores(&self, count: usize) -> Vec<f64> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let scores = self.payloads("scores");
            if scores.len() >= count {
                return scores
                    .iter()
                    .map(|it| it["score"].as_f64().unwrap())
                    .collect();
            }
            assert!(Instant::now() < deadline, "{:#?} {scores:#?}", self.model());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn command(&self, command: Command) -> Result<String, String> {
        let done = self.status.command("mean", command).await;
        done.map_err(|refused| refused.to_string())
    }

    async fn activate(&self, version: &str) -> Result<String, String> {
        let version = version.to_owned();
        self.command(Command::Activate { version }).await
    }
}

fn start(
    log: &Log,
    folder: &Path,
    change: Change,
) -> (Arc<Status>, CancellationToken, JoinHandle<()>) {
    let source = Source::Mqtt {
        topic: "t".to_owned(),
        pointer: "/value".to_owned(),
    };
    let inputs = vec![Input::new(source, stream("telemetry"))];
    let mut options = ModelOptions::new("mean", folder.join("first.onnx"), inputs, 50.0);
    options.assets = vec!["a".to_owned()];
    options.rows = ROWS;
    options.budget.memory_max_bytes = 64 * 1024 * 1024;
    change(&mut options);
    let model = Model::new(options);
    let config = Config {
        models: vec![model.unwrap()],
        host: host(),
        versions: Some(folder.join("models")),
        events: Some(stream("node")),
    };
    let (status, stop) = (Arc::new(Status::default()), CancellationToken::new());
    let running = run(config, log.clone(), Arc::clone(&status), stop.clone());
    let task = tokio::spawn(async move { running.await.unwrap() });
    (status, stop, task)
}

/// Packages whose folder name says what they make of the mean.
fn some_packages(models: &Path) {
    let with = |operators: &[&str]| mean_then(operators, ROWS as u64);
    package(&models.join("negative"), &with(&["Neg"]), ROWS, -1.0);
    package(&models.join("root"), &with(&["Sqrt"]), ROWS, 1.0);
    package(&models.join("same"), &with(&["Neg", "Neg"]), ROWS, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_keeps_the_window_and_holds_over_a_restart() {
    let mut site = Site::new(some_packages).await;
    site.publish(&[1.0, 2.0, 3.0, 4.0]).await;
    assert_eq!(site.scores(1).await, [2.5]);
    site.activate("negative").await.unwrap();
    // One more row makes a whole window: three of its rows are from before the swap.
    site.publish(&[5.0]).await;
    assert_eq!(site.scores(2).await, [2.5, -3.5]);
    assert_eq!(site.model().version.as_deref(), Some("negative"));
    site.restart().await;
    site.publish(&[6.0]).await;
    assert_eq!(site.scores(3).await, [2.5, -3.5, -4.5]);
    let done = site.command(Command::Rollback).await.unwrap();
    assert!(done.contains("the configured file"), "{done}");
    site.publish(&[7.0]).await;
    assert_eq!(site.scores(4).await[3], 5.5);
    let nothing = site.command(Command::Rollback).await.unwrap_err();
    assert!(nothing.contains("nothing ran before"), "{nothing}");
    let events = site.payloads("node");
    let told: Vec<_> = events
        .iter()
        .map(|it| it["event"].as_str().unwrap())
        .collect();
    assert_eq!(told, ["model_activated", "model_rolled_back"]);
    assert_eq!(events[0]["details"]["active"], "negative");
    let shas: Vec<_> = site
        .payloads("scores")
        .iter()
        .map(|it| it["sha256"].clone())
        .collect();
    assert!(shas[0] == shas[3] && shas[1] == shas[2] && shas[0] != shas[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_trusted_never_takes_over() {
    let mut site = Site::new(|models| {
        let mean = || mean_then(&["Neg"], ROWS as u64);
        package(&models.join("disagrees"), &mean(), ROWS, 1.0);
        package(&models.join("bomb"), &bomb(ROWS as u64), ROWS, 1.0);
        package(&models.join("other-shape"), &mean(), ROWS + 1, -1.0);
        package(&models.join("cut"), &mean()[..40], ROWS, -1.0);
        let altered = |name: &str, change: &dyn Fn(&mut Value)| {
            let folder = models.join(name);
            let mut manifest = package(&folder, &mean(), ROWS, -1.0);
            change(&mut manifest);
            write_manifest(&folder, &manifest);
        };
        altered("hash", &|it| it["sha256"] = json!("00"));
        altered("elsewhere", &|it| {
            it["model"] = json!("../../../first.onnx")
        });
        altered("unknown-key", &|it| it["grade"] = json!("A"));
        altered("no-golden", &|it| it["golden"]["cases"] = json!([]));
        altered("misplaced", &|it| it["version"] = json!("3"));
        std::fs::create_dir_all(models.join("empty")).unwrap();
    })
    .await;
    for (version, words) in [
        ("disagrees", "golden case 0"),
        ("bomb", "alloc"),
        ("other-shape", "5 rows"),
        ("cut", "not a model"),
        ("hash", "SHA-256"),
        ("elsewhere", "not the name of a file"),
        ("unknown-key", "grade"),
        ("no-golden", "needs cases"),
        ("misplaced", "3 is in the folder of version misplaced"),
        ("empty", "model.json"),
        ("absent", "absent"),
        ("../mean/hash", "is no version"),
        ("", "is no version"),
    ] {
        let refused = site.activate(version).await.unwrap_err();
        assert!(refused.contains(words), "{version}: {refused}");
    }
    site.publish(&[1.0, 2.0, 3.0, 4.0]).await;
    assert_eq!(site.scores(1).await, [2.5]);
    assert_eq!(
        (site.model().state, site.model().version),
        (State::Running, None)
    );
    assert_eq!(site.payloads("node"), Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_fails_at_work_gives_way_to_the_one_before() {
    let mut site = Site::new(some_packages).await;
    site.activate("root").await.unwrap();
    site.publish(&[4.0, 4.0, 4.0, 4.0]).await;
    assert_eq!(site.scores(1).await, [2.0]);
    // No root is a number now: the window is scored by the version before.
    site.publish(&[-40.0]).await;
    assert_eq!(site.scores(2).await, [2.0, -7.0]);
    let model = site.model();
    assert_eq!(
        (model.state, model.version, model.previous),
        (State::Running, None, None)
    );
    let why = model.rolled_back.unwrap();
    assert!(why.contains("NaN"), "{why}");
    let events = site.payloads("node");
    let last = events.last().unwrap();
    assert_eq!(last["event"], "model_rolled_back");
    assert!(
        last["details"]["reason"].as_str().unwrap().contains("NaN"),
        "{last}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_model_is_revived_by_a_version_that_runs() {
    let mut site = Site::new(some_packages).await;
    std::fs::write(site.folder.path().join("first.onnx"), "no model").unwrap();
    site.stop.cancel();
    (&mut site.task).await.unwrap();
    (site.status, site.stop, site.task) = start(&site.log, site.folder.path(), site.change);
    site.until(|model| model.state == State::Disabled).await;
    site.activate("same").await.unwrap();
    site.until(|model| model.state == State::Running).await;
    site.publish(&[1.0, 2.0, 3.0, 4.0]).await;
    assert_eq!(site.scores(1).await, [2.5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_is_compared_and_heard_by_nobody() {
    let mut site = Site::new(some_packages).await;
    let version = Some("negative".to_owned());
    site.command(Command::Shadow { version }).await.unwrap();
    site.publish(&[60.0, 60.0, 60.0, 60.0, 20.0, 20.0]).await;
    let scores = [60.0, 50.0, 40.0];
    assert_eq!(site.scores(3).await, scores);
    let both = |model: &ModelSnapshot| model.shadow.as_ref().map(|it| it.windows_total) == Some(3);
    site.until(both).await;
    let report = site.model().shadow.unwrap();
    assert_eq!(
        (report.difference_mean, report.difference_max),
        (100.0, 120.0)
    );
    assert_eq!((report.live_above_total, report.shadow_above_total), (2, 0));
    assert_eq!(report.disagreements_total, 2);
    assert!(report.shadow_p99_us.is_some() && report.failed.is_none());
    assert_eq!(site.payloads("scores").len(), 3);

    // It survives a restart, and one that fails is dropped alone.
    let version = Some("root".to_owned());
    site.command(Command::Shadow { version }).await.unwrap();
    site.restart().await;
    site.until(|model| model.shadow.is_some()).await;
    site.publish(&[-400.0, 1.0]).await;
    assert_eq!(site.scores(5).await[3..], [-75.0, -89.75]);
    let failed = |model: &ModelSnapshot| {
        let shadow = model.shadow.as_ref();
        shadow.is_some_and(|it| it.version == "root" && it.failed.is_some())
    };
    site.until(failed).await;
    assert_eq!(site.model().state, State::Running);
    site.command(Command::Shadow { version: None })
        .await
        .unwrap();
    assert_eq!(site.model().shadow, None);
}

/// What the node's own stream has of them.
fn told(events: &[Value]) -> Vec<&str> {
    let told = events.iter().map(|it| it["event"].as_str().unwrap());
    told.collect()
}

/// Twenty windows, of which two may differ by more than a half.
fn on_trial(options: &mut ModelOptions) {
    options.canary = Some(Canary {
        windows: 20,
        difference_max: Some(Difference::Absolute(0.5)),
        differing_percent_max: 10.0,
        ..Canary::default()
    });
}

fn compared(windows: u32) -> impl Fn(&ModelSnapshot) -> bool {
    move |model| {
        let canary = model.canary.as_ref().and_then(|it| it.canary.as_ref());
        canary.is_some_and(|it| it.windows_total == windows)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_differs_gives_way_to_the_one_before() {
    let mut site = Site::with(some_packages, on_trial).await;
    site.activate("negative").await.unwrap();
    site.until(|model| model.canary.is_some()).await;
    // The second window is a zero, of which there is but one.
    site.publish(&[1.0, 1.0, 1.0, 1.0, -3.0, 5.0]).await;
    site.until(compared(3)).await;
    let canary = site.model().canary.unwrap();
    assert_eq!(
        (canary.version.as_str(), canary.windows_skipped_total),
        ("the configured file", 0)
    );
    let canary = canary.canary.unwrap();
    assert_eq!((canary.differing_total, canary.differing_max), (2, 2));
    assert_eq!(site.model().version.as_deref(), Some("negative"));
    site.publish(&[9.0]).await;
    site.until(|model| model.rolled_back.is_some()).await;
    site.until(|model| model.state == State::Running && model.version.is_none())
        .await;
    let model = site.model();
    assert_eq!((model.canary, model.previous), (None, None));
    let why = "3 of 4 windows differ from the configured file, of 20 at most 2 may; scores were up \
               to 6 apart, 0.5 is allowed";
    assert_eq!(model.rolled_back.as_deref(), Some(why));
    site.publish(&[13.0]).await;
    assert_eq!(site.scores(5).await, [-1.0, 0.0, -1.0, -3.0, 6.0]);
    let events = site.payloads("node");
    assert_eq!(told(&events), ["model_activated", "model_rolled_back"]);
    assert_eq!(events[1]["details"]["reason"], why);
    let nothing = site.command(Command::Rollback).await.unwrap_err();
    assert!(nothing.contains("nothing ran before"), "{nothing}");
    site.restart().await;
    assert_eq!((site.model().version, site.model().canary), (None, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_agrees_passes_and_keeps_its_way_back() {
    let mut site = Site::with(some_packages, on_trial).await;
    site.activate("same").await.unwrap();
    site.until(|model| model.canary.is_some()).await;
    let values: Vec<f64> = (0..10).map(f64::from).collect();
    site.publish(&values).await;
    site.until(compared(7)).await;
    // It goes on where it was.
    site.restart().await;
    site.until(compared(7)).await;
    site.publish(&values).await;
    site.until(compared(17)).await;
    site.publish(&values).await;
    site.until(|model| model.canary.is_none()).await;
    let model = site.model();
    assert_eq!(model.version.as_deref(), Some("same"));
    assert_eq!(model.previous.as_deref(), Some("the configured file"));
    let events = site.payloads("node");
    assert_eq!(told(&events), ["model_activated", "model_canary_passed"]);
    let figures = events[1]["details"]["reason"].as_str().unwrap();
    assert!(figures.starts_with("0 of 20 windows differ"), "{figures}");
    assert_eq!(site.scores(27).await.len(), 27);
    // It is over.
    site.restart().await;
    assert_eq!(site.model().canary, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_takes_its_time_and_no_more() {
    let briefly = |options: &mut ModelOptions| {
        options.canary = Some(Canary {
            time_max: Duration::from_secs(3),
            ..Canary::default()
        });
    };
    let mut site = Site::with(some_packages, briefly).await;
    site.activate("same").await.unwrap();
    site.until(|model| model.canary.is_some()).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    site.restart().await;
    // From then on, however long the version before took to load.
    site.until(|model| model.canary.is_some()).await;
    let again = Instant::now();
    site.until(|model| model.canary.is_none()).await;
    assert!(
        again.elapsed() < Duration::from_millis(2_500),
        "its time began anew"
    );
    let events = site.payloads("node");
    assert_eq!(told(&events), ["model_activated", "model_canary_void"]);
    assert_eq!(
        events[1]["details"]["reason"],
        "only 0 of 1000 windows were compared with the configured file within 3s"
    );
    assert_eq!(site.model().version.as_deref(), Some("same"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_trial_is_nothing_to_go_back_to() {
    let mut site = Site::with(some_packages, on_trial).await;
    site.activate("same").await.unwrap();
    site.activate("negative").await.unwrap();
    site.until(|model| model.canary.is_some()).await;
    let previous = site.model().previous;
    assert_eq!(previous.as_deref(), Some("the configured file"));
    site.command(Command::Rollback).await.unwrap();
    site.until(|model| model.version.is_none()).await;
    assert_eq!(site.model().canary, None);
    site.publish(&[4.0, 4.0, 4.0, 4.0]).await;
    assert_eq!(site.scores(1).await, [4.0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reference_that_fails_ends_the_trial_and_leaves_the_version() {
    let mut site = Site::with(some_packages, on_trial).await;
    site.activate("root").await.unwrap();
    site.until(|model| model.canary.is_some()).await;
    site.publish(&[0.0; 30]).await;
    site.scores(27).await;
    site.until(|model| model.canary.is_none()).await;
    site.activate("same").await.unwrap();
    site.until(|model| model.canary.is_some()).await;
    site.publish(&[-40.0]).await;
    site.until(|model| model.canary.is_none()).await;
    assert_eq!(site.model().version.as_deref(), Some("same"));
    assert_eq!(site.scores(28).await[27], -10.0);
    let events = site.payloads("node");
    assert_eq!(told(&events).last(), Some(&"model_canary_void"));
    let why = events.last().unwrap()["details"]["reason"]
        .as_str()
        .unwrap();
    assert!(why.contains("NaN"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configured_shadow_is_there_after_a_start() {
    fn shadowed(options: &mut ModelOptions) {
        options.shadow = Some("negative".to_owned());
    }
    let version = |model: &ModelSnapshot| model.shadow.as_ref().map(|it| it.version.clone());
    let mut site = Site::with(some_packages, shadowed).await;
    let negative = |model: &ModelSnapshot| version(model).as_deref() == Some("negative");
    site.until(negative).await;
    site.command(Command::Shadow { version: None })
        .await
        .unwrap();
    assert_eq!(version(&site.model()), None);
    // What is live is not compared with itself, and nothing comes back before the next start.
    site.activate("negative").await.unwrap();
    site.command(Command::Rollback).await.unwrap();
    assert_eq!(version(&site.model()), None);
    site.restart().await;
    site.until(negative).await;
    // What a command chose goes before it.
    let other = Some("same".to_owned());
    site.command(Command::Shadow { version: other })
        .await
        .unwrap();
    site.restart().await;
    site.until(|model| version(model).as_deref() == Some("same"))
        .await;
    site.publish(&[1.0, 2.0, 3.0, 4.0]).await;
    site.until(|model| model.shadow.as_ref().unwrap().windows_total == 1)
        .await;

    std::fs::remove_dir_all(site.folder.path().join("models/mean/same")).unwrap();
    site.restart().await;
    let failed = |model: &ModelSnapshot| {
        let shadow = model.shadow.as_ref();
        shadow.is_some_and(|it| it.failed.as_deref().is_some_and(|why| why.contains("same")))
    };
    site.until(failed).await;
    site.publish(&[5.0]).await;
    assert_eq!(site.scores(2).await, [2.5, 3.5]);
}
