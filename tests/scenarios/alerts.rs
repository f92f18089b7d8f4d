//! The shipped model on replayed values: score, alert, local subscriber, cluster.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use skerry_tests::audit::{self, Arrived};
use skerry_tests::node;
use skerry_tests::python::Helper;
use skerry_tests::world::World;
use skerry_tests::{Context as _, Result, ensure, wait, workspace};

use crate::common::{drained, heads, log_agrees};

pub(crate) const COLUMNS: [&str; 4] = ["vibration", "temperature", "current", "speed"];
const THRESHOLD: f64 = 0.8;
const CLEAR: f64 = 0.6;

fn model(file: &Path, assets: &str) -> String {
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
assets = [ {assets} ]
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
pub(crate) fn golden(file: &Path) -> Result<Vec<(Vec<Value>, f64)>> {
    let text = fs::read_to_string(file.with_file_name("golden.json"))?;
    let golden: Value = serde_json::from_str(&text)?;
    let cases = golden["cases"].as_array().context("no golden cases")?;
    let case = |case: &Value| {
        let rows = case["input"].as_array().context("no rows")?.clone();
        Ok((rows, case["output"].as_f64().context("no output")?))
    };
    cases.iter().map(case).collect()
}

fn golden_like(file: &Path, wanted: fn(f64) -> bool) -> Result<(Vec<Value>, f64)> {
    let mut cases = golden(file)?.into_iter();
    let case = cases.find(|(_, score)| wanted(*score));
    case.context("no golden case like that")
}

/// Publishes windows of an asset as MQTT messages, one per row.
fn replay(world: &World, port: u16, asset: &str, windows: &[Vec<Value>]) -> Result<Helper> {
    let mut script = String::new();
    for row in windows.iter().flatten() {
        let fields = COLUMNS
            .iter()
            .enumerate()
            .map(|(n, name)| ((*name).to_owned(), row[n].clone()));
        let payload = Value::Object(fields.collect());
        let topic = format!("plant/{asset}/state");
        script.push_str(&json!({"topic": topic, "payload": payload}).to_string());
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
    let (worn, high) = golden_like(&file, |score| score >= THRESHOLD)?;
    let (healthy, low) = golden_like(&file, |score| score <= CLEAR)?;

    let kafka = world.kafka()?;
    let mut settings = world.settings()?;
    settings.kafka = Some(kafka.address());
    settings.mqtt_more = model(&file, r#""pump1""#);
    let mut node = world.started(settings)?;
    let port = node.mqtt_port();
    let mut watching = world.subscriber(port, "watching", &["skerry/#"])?;
    watching.wait_for("subscribed", wait::START, |lines| !lines.is_empty())?;

    replay(world, port, "pump1", std::slice::from_ref(&worn))?.join(wait::START)?;
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

    replay(world, port, "pump1", &[healthy])?.join(wait::START)?;
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

/// Of three machines that go bad two are told of, as the limit for all has it, a kill -9 between
/// them or not; that one of them is good again is told at once.
pub(crate) fn limited(world: &World) -> Result<()> {
    let file = workspace::root().join("inference/models/bearing/bearing.onnx");
    let (worn, _) = golden_like(&file, |score| score >= THRESHOLD)?;
    let (healthy, _) = golden_like(&file, |score| score <= CLEAR)?;
    let mut settings = world.settings()?;
    settings.mqtt_more = model(&file, r#""pump1", "pump2", "pump3""#);
    settings.mqtt_more += "rate_limit_all = { alerts = 2, per = \"1h\" }\n";
    let mut node = world.started(settings)?;
    let windows = [
        ("pump1", &worn),
        ("pump2", &worn),
        ("pump3", &worn),
        ("pump1", &healthy),
    ];
    for (scores, (asset, window)) in (1..).zip(windows) {
        replay(world, node.mqtt_port(), asset, std::slice::from_ref(window))?.join(wait::START)?;
        node.wait_for_status("the window is scored", wait::DRAIN, |status| {
            heads(status).is_ok_and(|heads| heads.get("scores") == Some(&scores))
        })?;
        if asset == "pump2" {
            node.kill()?;
            node.start()?;
        }
    }
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    let alerts = node::log_cat(&node.settings().data, "alerts")?;
    let told = |record: &Value| {
        let word = |key: &str| record["payload"][key].as_str().map(str::to_owned);
        (word("asset"), word("state"))
    };
    let told: Vec<_> = alerts.iter().map(told).collect();
    let due = [
        ("pump1", "raised"),
        ("pump2", "raised"),
        ("pump1", "cleared"),
    ];
    let due = due.map(|(asset, state)| (Some(asset.to_owned()), Some(state.to_owned())));
    ensure!(told == due, "{alerts:?}");
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
