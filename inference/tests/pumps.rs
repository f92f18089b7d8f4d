//! The shipped model on the simulated plant, through the log: the worn pump is reported well
//! before it fails, the healthy ones never are.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use serde_json::Value;
use skerry_inference::{
    Alerting, Config, Hold, HostCommand, Input, Model, ModelOptions, Severity, Source, State,
    Status, run,
};
use skerry_simulation::plant::{PUMPS, Plant, Route, SAMPLING};
use skerry_store::{
    Append, Change, Kind, Log, Offset, Options, Record, StreamName, StreamOptions, WallNanos,
};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const DEMO: Duration = Duration::from_secs(60);
const SEEDS: u64 = 12;
/// MQTT sensors publish once a second, the OPC-UA server is sampled four times.
const STEPS_PER_PUBLISH: u32 = 4;

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

fn opcua(name: &str) -> Input {
    let name = name.to_owned();
    Input::new(Source::Opcua { name }, stream("machines"))
}

/// As in the shipped configuration.
fn model() -> Model {
    let temperature = Source::Mqtt {
        topic: "plant/{asset}/temperature".to_owned(),
        pointer: "/value".to_owned(),
    };
    let inputs = vec![
        opcua("{asset}/vibration"),
        Input::new(temperature, stream("telemetry")),
        opcua("{asset}/current"),
        opcua("{asset}/speed"),
    ];
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/bearing/bearing.onnx");
    let mut options = ModelOptions::new("bearing", file, inputs, 0.8);
    options.assets = PUMPS.map(str::to_owned).to_vec();
    (options.rows, options.step) = (32, 8);
    options.alerting = Alerting {
        hold: Hold::Scores(2),
        ..Alerting::at(Severity::Warning, 0.8, 0.6)
    };
    Model::new(options).unwrap()
}

fn open(directory: &Path) -> Log {
    let mut options = Options::new(directory);
    options.allow_volatile = true;
    let names = ["machines", "telemetry", "scores", "alerts"];
    options.streams = names
        .map(|name| StreamOptions::new(stream(name), 64 * 1024 * 1024))
        .to_vec();
    Log::open(options).unwrap().0
}

/// Writes a whole demo into the log, as the node would have taken it in. Returns the pump whose
/// bearing is worn and when it failed.
async fn write_demo(log: &Log, seed: u64) -> (&'static str, Duration) {
    let mut plant = Plant::new(seed, Plant::acceleration_for(DEMO));
    let worn = plant
        .truth()
        .min_by(|a, b| a.remaining_hours.total_cmp(&b.remaining_hours));
    let worn = worn.unwrap().pump;
    let mut failed = None;
    let (mut machines, mut telemetry) = (Vec::new(), Vec::new());
    for step in 0..(DEMO.as_millis() / SAMPLING.as_millis()) as u32 {
        let time = SAMPLING * (step + 1);
        plant.step(SAMPLING);
        if failed.is_none() && plant.truth().any(|pump| !pump.running) {
            failed = Some(time);
        }
        for reading in plant.readings() {
            let (kind, payload, into) = match reading.route {
                Route::Opcua => {
                    let payload = format!(r#"{{"value":{}}}"#, reading.value).into_bytes();
                    (Kind::Opcua, payload, &mut machines)
                }
                Route::Mqtt if step % STEPS_PER_PUBLISH == 0 => {
                    let payload = reading.payload(time.as_millis() as i64);
                    (Kind::Mqtt, payload, &mut telemetry)
                }
                Route::Mqtt => continue,
            };
            let mut record = Record::new(kind, reading.tag.clone(), payload);
            record.ingest_time = WallNanos(time.as_nanos() as i64);
            into.push(record);
        }
    }
    for (name, records) in [("machines", machines), ("telemetry", telemetry)] {
        // As if the model had been there before the first record.
        let changes = vec![Change::Advance {
            cursor: "model:bearing".to_owned(),
            stream: name.to_owned(),
            next: Offset::ZERO,
        }];
        log.append(Append {
            stream: stream(name),
            records,
            changes,
        })
        .await
        .unwrap();
    }
    (worn, failed.expect("the demo's bearing fails in the demo"))
}

fn payloads(log: &Log, name: &str) -> Vec<Value> {
    let mut reader = log.reader(&stream(name), Offset::ZERO).unwrap();
    let mut all = Vec::new();
    loop {
        let batch = reader.next(1024 * 1024).unwrap();
        if batch.records.is_empty() {
            return all;
        }
        let json = |record: Record| serde_json::from_slice(&record.payload).unwrap();
        all.extend(batch.records.into_iter().map(|(_, record)| json(record)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worn_pump_is_reported_before_it_fails_and_no_other() {
    let rows = (DEMO.as_millis() / SAMPLING.as_millis()) as usize;
    // The first row of all waits for the first temperature, which comes with the second step's.
    let scores_expected = (1 + (rows - 1 - 32) / 8) * PUMPS.len();
    for seed in 0..SEEDS {
        let directory = tempfile::tempdir().unwrap();
        let log = open(directory.path());
        let (worn, failed) = write_demo(&log, seed).await;

        let (status, stop) = (Arc::new(Status::default()), CancellationToken::new());
        let config = Config {
            models: vec![model()],
            host: host(),
            ..Config::default()
        };
        let task = tokio::spawn(run(config, log.clone(), Arc::clone(&status), stop.clone()));
        let deadline = Instant::now() + Duration::from_secs(60);
        let scores = || {
            status
                .snapshot()
                .models
                .first()
                .map_or(0, |model| model.scores_total)
        };
        while scores() < scores_expected as u64 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stop.cancel();
        task.await.unwrap().unwrap();

        let snapshot = status.snapshot().models.remove(0);
        assert_eq!(snapshot.state, State::Running, "{:?}", snapshot.reason);
        assert_eq!(
            payloads(&log, "scores").len(),
            scores_expected,
            "{snapshot:#?}"
        );
        let alerts = payloads(&log, "alerts");
        for alert in &alerts {
            assert_eq!(alert["asset"], worn, "seed {seed}: {alert}");
        }
        let raised: Vec<_> = alerts
            .iter()
            .filter(|alert| alert["state"] == "raised")
            .collect();
        assert_eq!(raised.len(), 1, "seed {seed}: raised once: {alerts:?}");
        let at = Duration::from_nanos(raised[0]["to_ns"].as_u64().unwrap());
        println!(
            "seed {seed}: {worn} failed at {failed:?}, alert at {at:?}, {} us a score",
            snapshot.run_p50_us.unwrap()
        );
        assert!(
            at > Duration::from_secs(15) && at < failed - Duration::from_secs(5),
            "{at:?}"
        );
    }
}
