//! The shipped model on replayed values: score, alert, local subscriber, cluster.

use std::fs;

use serde_json::{Value, json};
use skerry_tests::audit::{self, Arrived};
use skerry_tests::python::Helper;
use skerry_tests::world::World;
use skerry_tests::{Context as _, Result, ensure, wait, workspace};

use crate::common::{drained, log_agrees};

pub(crate) const COLUMNS: [&str; 4] = ["vibration", "temperature", "current", "speed"];
const THRESHOLD: f64 = 0.8;
const CLEAR: f64 = 0.6;

fn model(file: &std::path::Path) -> String {
    let inputs: Vec<String> = COLUMNS
        .iter()
        .map(|column| format!(r#"{{ mqtt = "plant/{{asset}}/state", pointer = "/{column}" }}"#))
        .collect();
    // A score for each full window and no overlap, so that scores are the golden cases' own.
    format!(
        r#"republish = ["scores", "alerts"]

[[model]]
name = "bearing"
file = "{}"
assets = ["pump1"]
window = 32
step = 32
inputs = [ {} ]
threshold = {THRESHOLD}
clear = {CLEAR}
hold = 1
"#,
        file.display(),
        inputs.join(", ")
    )
}

/// The golden windows beside the model: rows, and the score they must get.
pub(crate) fn golden(file: &std::path::Path) -> Result<Vec<(Vec<Value>, f64)>> {
    let text = fs::read_to_string(file.with_file_name("golden.json"))?;
    let golden: Value = serde_json::from_str(&text)?;
    let cases = golden["cases"].as_array().context("no golden cases")?;
    let case = |case: &Value| {
        let rows = case["input"].as_array().context("no rows")?.clone();
        Ok((rows, case["output"].as_f64().context("no output")?))
    };
    cases.iter().map(case).collect()
}

/// Publishes windows as MQTT messages, one per row.
fn replay(world: &World, port: u16, windows: &[Vec<Value>]) -> Result<Helper> {
    let mut script = String::new();
    for row in windows.iter().flatten() {
        let fields = COLUMNS
            .iter()
            .enumerate()
            .map(|(n, name)| ((*name).to_owned(), row[n].clone()));
        let payload = Value::Object(fields.collect());
        script.push_str(&json!({"topic": "plant/pump1/state", "payload": payload}).to_string());
        script.push('\n');
    }
    let path = world.folder().join("script.jsonl");
    fs::write(&path, script)?;
    world.replay(port, "replay", &path)
}

/// A worn bearing's window raises the alert, a healthy one's clears it; both reach a local
/// subscriber, one that comes late, and the cluster.
pub(crate) fn replayed(world: &World) -> Result<()> {
    let file = workspace::root().join("inference/models/bearing/bearing.onnx");
    let cases = golden(&file)?;
    let find = |wanted: fn(f64) -> bool| {
        let case = cases.iter().find(|(_, score)| wanted(*score));
        case.cloned().context("no golden case like that")
    };
    let (worn, high) = find(|score| score >= THRESHOLD)?;
    let (healthy, low) = find(|score| score <= CLEAR)?;

    let kafka = world.kafka()?;
    let mut settings = world.settings()?;
    settings.kafka = Some(kafka.address());
    settings.mqtt_more = model(&file);
    let mut node = world.started(settings)?;
    let port = node.mqtt_port();
    let mut watching = world.subscriber(port, "watching", &["skerry/#"])?;
    watching.wait_for("subscribed", wait::START, |lines| !lines.is_empty())?;

    replay(world, port, std::slice::from_ref(&worn))?.join(wait::START)?;
    let raised = alerts_seen(&mut watching, 1)?;
    ensure!(
        raised[0]["retain"] == false,
        "live messages are not retained: {}",
        raised[0]
    );

    let mut late = world.subscriber(port, "late", &["skerry/alerts/#"])?;
    let retained = alerts_seen(&mut late, 1)?;
    ensure!(
        retained[0]["retain"] == true,
        "the late one sees no retained alert"
    );
    ensure!(
        retained[0]["payload"] == raised[0]["payload"],
        "the retained alert is another one"
    );

    replay(world, port, &[healthy])?.join(wait::START)?;
    alerts_seen(&mut watching, 2)?;

    let mut consumer = world.consumer(&kafka.address())?;
    let arrived = drained(&node, &mut consumer)?;
    let of_kind = |kind: &str| -> Vec<&Arrived> {
        arrived
            .iter()
            .filter(|record| record.kind() == kind)
            .collect()
    };
    let scores = of_kind("score");
    ensure!(scores.len() == 2, "{} scores", scores.len());
    for (record, expected) in scores.iter().zip([high, low]) {
        let score = record.json()?["score"].as_f64().context("no score")?;
        ensure!(
            (score - expected).abs() < 1e-3,
            "{score}, and golden says {expected}"
        );
        ensure!(record.key == "bearing/pump1", "{record:?}");
    }
    let alerts = of_kind("alert");
    ensure!(alerts.len() == 2, "{} alerts", alerts.len());
    let raised: Value = serde_json::from_str(raised[0]["payload"].as_str().context("no payload")?)?;
    ensure!(
        alerts[0].json()? == raised,
        "the cluster's alert is another one"
    );
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    log_agrees(&node, "alerts", &arrived)?;
    audit::offsets(&arrived)?;
    Ok(())
}

pub(crate) fn alerts_seen(subscriber: &mut Helper, count: usize) -> Result<Vec<Value>> {
    let alerts = |lines: &[Value]| -> Vec<Value> {
        let alert = |line: &&Value| line["topic"] == "skerry/alerts/bearing/pump1";
        lines.iter().filter(alert).cloned().collect()
    };
    let what = format!("{count} alerts at the subscriber");
    let lines = subscriber.wait_for(&what, wait::DRAIN, |lines| alerts(lines).len() >= count)?;
    Ok(alerts(&lines))
}
