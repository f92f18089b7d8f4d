//! Messages as fast as they are acknowledged, while models fail: one with a NaN, one that asks for
//! more memory than it may, one that does not answer.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use skerry_tests::load::{Publishers, Reporter};
use skerry_tests::node::{Node, Settings};
use skerry_tests::{Result, ensure, wait, workspace};

use super::{Scale, fresh, in_state, print};
use crate::figures::Rounds;

/// In `tests/hostile-models`; windows of `ROWS` rows with these columns.
const MODELS: [&str; 3] = ["nan", "huge", "slow"];
const ROWS: usize = 32;
const COLUMNS: [&str; 4] = ["vibration", "temperature", "current", "speed"];
const TOPIC: &str = "plant/pump1/state";

pub(super) fn run(folder: &Path, scale: Scale) -> Result<()> {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        with.push(turn(folder, scale, &MODELS)?);
        without.push(turn(folder, scale, &[])?);
    }
    let rounds = Rounds {
        figure: "qos1, 50 connections, window 20, 200 B, while three models fail",
        unit: "msg/s",
        ours: &with,
        peer: Some("skerry without models"),
        theirs: &without,
        aim: None,
    };
    print(&rounds.figure());
    Ok(())
}

/// Messages acknowledged a second, from the windows that no model survives on.
fn turn(folder: &Path, scale: Scale, models: &[&str]) -> Result<f64> {
    let folder = fresh(folder)?;
    let mut settings = Settings::new(&folder)?;
    settings.telemetry_bytes_max = "512MiB".to_owned();
    settings.telemetry_when_full = "drop_oldest".to_owned();
    settings.more = config(models);
    let mut node = Node::new(settings, &folder, &folder)?;
    node.start()?;
    node.wait_for_status("every model is running", wait::START, |status| {
        in_state(status, "running") == models.len()
    })?;
    let port = node.mqtt_port();
    let load = Publishers {
        connections: 50,
        window: 20,
        qos: 1,
        warm_up: scale.warm_up,
        measured: scale.measured,
    };
    let mut is_fed = false;
    let outcome = load.run(port, || {
        if !std::mem::replace(&mut is_fed, true) {
            feed(port)?;
        }
        Ok(())
    })?;
    let status = node.status()?;
    let disabled = in_state(&status, "disabled");
    ensure!(
        disabled == models.len(),
        "{disabled} models have failed: {status}"
    );
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    Ok(outcome.per_second())
}

/// One window.
fn feed(port: u16) -> Result<()> {
    let mut reporter = Reporter::open(port, "pump1")?;
    let values = COLUMNS.map(|column| (column.to_owned(), json!(1.0)));
    let row = Value::Object(values.into_iter().collect()).to_string();
    for _ in 0..ROWS {
        reporter.publish(TOPIC, row.as_bytes())?;
    }
    Ok(())
}

fn config(models: &[&str]) -> String {
    let inputs = COLUMNS.map(|column| format!("{{ mqtt = \"{TOPIC}\", pointer = \"/{column}\" }}"));
    let folder = workspace::root().join("tests/hostile-models");
    let mut text = String::new();
    for name in models {
        write!(
            text,
            "\n[[model]]\nname = \"{name}\"\nfile = \"{}\"\nassets = [ \"pump1\" ]\nwindow = {ROWS}\n\
             threshold = 0.8\nmemory_max = \"128MiB\"\ninputs = [ {} ]\n",
            folder.join(format!("{name}.onnx")).display(),
            inputs.join(", ")
        )
        .expect("a String takes everything");
    }
    text
}
