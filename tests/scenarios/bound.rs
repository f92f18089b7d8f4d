//! What stands between a message and a model, through a node: bursts and their features, a model
//! over another one's scores, inputs that drift. What must come of it is numpy's and onnxruntime's.

use std::path::Path;

use serde_json::Value;
use skerry_tests::node::{self, Node};
use skerry_tests::world::World;
use skerry_tests::{Context as _, Result, ensure, wait};

use crate::common::heads;

/// Of the largest answer of a model.
const SCORE_TOLERANCE: f64 = 1e-4;
const DRIFT_TOLERANCE: f64 = 1e-6;

/// Blocks and windows are those of `tests/python/bound.py`.
fn models(package: &Path) -> String {
    format!(
        r#"
[[model]]
name = "vibration"
file = "{package}"
assets = ["m1"]
window = 1
threshold = 1e30
drift = {{ rows = 200, psi = 0.25, mean_shift = 3.0 }}
inputs = [
    {{ mqtt = "plant/{{asset}}/vibration", pointer = "/samples", burst = 256, rate = 25600, features = ["rms", "std", "mean", "peak_to_peak", "crest"], bands = [[1000, 5000]] }},
]

[[model]]
name = "trend"
file = "{onnx}"
assets = ["m1"]
window = 8
step = 4
threshold = 1e30
inputs = [ {{ model = "vibration", features = ["last", "mean", "std", "min", "max", "slope"] }} ]
"#,
        package = package.display(),
        onnx = package.join("polynomial.onnx").display(),
    )
}

pub(crate) fn as_numpy(world: &World) -> Result<()> {
    let arguments = [format!("--folder={}", world.folder().display())];
    let helper = world.helper("bound.py", "bound", "--out", &arguments)?;
    let expected = helper.join(wait::DRAIN)?;
    let of = |event: &'static str| expected.iter().filter(move |line| line["event"] == event);
    let all: usize = of("scores")
        .map(|line| numbers(&line["scores"]).len())
        .sum();
    let drifts: Vec<_> = of("drift").collect();
    ensure!(
        all > 990 && drifts.len() == 2,
        "numpy has {all} scores and {} events",
        drifts.len()
    );

    let mut settings = world.settings()?;
    settings.more = models(&world.folder().join("vibration"));
    let mut node = world.started(settings)?;
    node.wait_for_status("both models are running", wait::START, |status| {
        let models = status["inference"]["models"].as_array();
        models.is_some_and(|models| models.iter().all(|model| model["state"] == "running"))
    })?;
    world
        .replay(
            node.mqtt_port(),
            "replay",
            &world.folder().join("script.jsonl"),
        )?
        .join(wait::DRAIN)?;
    let written = [("scores", all as u64), ("alerts", drifts.len() as u64)];
    wait::until("everything is scored", wait::DRAIN, || {
        let heads = heads(&node.status()?)?;
        let is_there = |(stream, count)| heads.get(stream) >= Some(&count);
        ensure!(
            written.into_iter().all(is_there),
            "{heads:?} of {written:?}"
        );
        Ok(Some(()))
    })?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");

    for line in of("scores") {
        let model = line["model"].as_str().context("no model")?;
        scores_agree(&node, model, &numbers(&line["scores"]))?;
    }
    let told = logged(&node, "alerts")?;
    ensure!(
        told.len() == drifts.len(),
        "{} events: {told:?}",
        told.len()
    );
    for (told, expected) in told.iter().zip(drifts) {
        drift_agrees(&told["payload"], expected)?;
    }
    Ok(())
}

pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    let values = value.as_array().into_iter().flatten();
    values.filter_map(Value::as_f64).collect()
}

fn logged(node: &Node, stream: &str) -> Result<Vec<Value>> {
    let mut records = Vec::new();
    node::each_logged(&node.settings().data, stream, |record| {
        records.push(record.clone());
        Ok(())
    })?;
    Ok(records)
}

pub(crate) fn scores_agree(node: &Node, model: &str, expected: &[f64]) -> Result<()> {
    let source = format!("{model}/m1");
    let records = logged(node, "scores")?;
    let scores = records.iter().filter(|record| record["source"] == source);
    let scores: Vec<_> = scores
        .filter_map(|record| record["payload"]["score"].as_f64())
        .collect();
    ensure!(
        scores.len() == expected.len(),
        "{model}: {} of {} scores",
        scores.len(),
        expected.len()
    );
    let largest = expected
        .iter()
        .fold(0.0, |most: f64, score| most.max(score.abs()));
    for (row, (score, expected)) in scores.iter().zip(expected).enumerate() {
        ensure!(
            (score - expected).abs() <= SCORE_TOLERANCE * largest,
            "{model}, score {row}: {score}, and onnxruntime has {expected}"
        );
    }
    Ok(())
}

fn drift_agrees(told: &Value, expected: &Value) -> Result<()> {
    for key in ["state", "rows"] {
        ensure!(
            told[key] == expected[key],
            "{key}: {told}, and numpy has {expected}"
        );
    }
    let columns = told["columns"].as_array().context("no columns")?;
    ensure!(!columns.is_empty(), "no column: {told}");
    for column in columns {
        let number = column["column"].as_u64().context("no number")? as usize;
        for key in ["psi", "mean_shift"] {
            let (told, expected) = (
                column[key].as_f64(),
                expected["columns"][number][key].as_f64(),
            );
            let (told, expected) = (told.context("no figure")?, expected.context("no figure")?);
            ensure!(
                (told - expected).abs() <= DRIFT_TOLERANCE * expected.abs().max(1.0),
                "{key} of column {number}: {told}, and numpy has {expected}"
            );
        }
    }
    Ok(())
}
