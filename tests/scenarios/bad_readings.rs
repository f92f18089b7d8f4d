//! What devices send when something is wrong with them, in front of a model: each is counted with
//! its reason, none gets into a window, and nothing stops.

use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use skerry_tests::node::Node;
use skerry_tests::world::World;
use skerry_tests::{Context as _, Result, ensure, wait, workspace};

use crate::alerts::{COLUMNS, golden};

const STALE_AFTER: Duration = Duration::from_secs(2);
const STATE: &str = "plant/pump1/state";
const TEMPERATURE: &str = "plant/pump1/temperature";

/// The bearing's model, with the temperature from a sensor of its own.
fn model() -> String {
    let file = workspace::root().join("inference/models/bearing/bearing.onnx");
    let inputs: Vec<String> = COLUMNS
        .iter()
        .map(|&column| match column {
            "temperature" => r#"{ mqtt = "plant/{asset}/temperature" }"#.to_owned(),
            _ => format!(r#"{{ mqtt = "plant/{{asset}}/state", pointer = "/{column}" }}"#),
        })
        .collect();
    format!(
        r#"
[[model]]
name = "bearing"
file = "{}"
assets = ["pump1"]
window = 32
step = 32
stale_after = "{}s"
inputs = [ {} ]
threshold = 0.8
"#,
        file.display(),
        STALE_AFTER.as_secs(),
        inputs.join(", ")
    )
}

/// A message of a script for `publisher.py`.
fn message(topic: &str, text: &str) -> Value {
    json!({"topic": topic, "text": text})
}

/// A row as the two devices send it: the temperature, then the state, which is the clock.
fn row(values: &Value) -> [Value; 2] {
    let state = json!({"vibration": values[0], "current": values[2], "speed": values[3]});
    [
        message(TEMPERATURE, &values[1].to_string()),
        message(STATE, &state.to_string()),
    ]
}

/// What a state must not be taken for, with the reason it is counted under.
const NONSENSE: [(&str, &str); 12] = [
    (
        r#"{"vibration":"NaN","current":30,"speed":2400}"#,
        "not_finite",
    ),
    (
        r#"{"vibration":1,"current":"-Infinity","speed":2400}"#,
        "not_finite",
    ),
    (
        r#"{"vibration":1e39,"current":30,"speed":2400}"#,
        "not_finite",
    ),
    (
        r#"{"vibration":NaN,"current":30,"speed":2400}"#,
        "unreadable",
    ),
    (
        r#"{"vibration":1e999,"current":30,"speed":2400}"#,
        "unreadable",
    ),
    (
        r#"{"vibration":"broken","current":30,"speed":2400}"#,
        "unreadable",
    ),
    (
        r#"{"vibration":null,"current":30,"speed":2400}"#,
        "unreadable",
    ),
    (
        r#"{"vibration":[1],"current":30,"speed":2400}"#,
        "unreadable",
    ),
    (r#"{"current":30,"speed":2400}"#, "unreadable"),
    (r#"{"vibration":1,"current":30"#, "unreadable"),
    ("offline", "unreadable"),
    ("", "unreadable"),
];

/// Waits for the model's figures to be these; they only ever grow.
fn figures_are(node: &Node, what: &str, expected: &[(&str, u64)]) -> Result<()> {
    wait::until(what, wait::START, || {
        let status = node.status()?;
        let model = &status["inference"]["models"][0];
        ensure!(
            model["state"] == "running",
            "the model is {}",
            model["state"]
        );
        for (pointer, expected) in expected {
            let found = model.pointer(pointer).and_then(Value::as_u64);
            let found = found.with_context(|| format!("no {pointer} in the status"))?;
            ensure!(found == *expected, "{pointer} is {found}, not {expected}");
        }
        Ok(Some(()))
    })
}

pub(crate) fn counted(world: &World) -> Result<()> {
    let file = workspace::root().join("inference/models/bearing/bearing.onnx");
    let cases = golden(&file)?;
    let mut settings = world.settings()?;
    settings.mqtt_more = "republish = [\"scores\"]\n".to_owned() + &model();
    let mut node = world.started(settings)?;
    let port = node.mqtt_port();
    figures_are(&node, "the model is running", &[("/rows_total", 0)])?;
    let publish = |name: &str, messages: &[Value]| -> Result<()> {
        let lines: Vec<_> = messages.iter().map(Value::to_string).collect();
        let path = world.folder().join(format!("{name}.script"));
        fs::write(&path, lines.join("\n"))?;
        world.replay(port, name, &path)?.join(wait::START)?;
        Ok(())
    };

    // A window with nonsense between its rows is the window without it.
    let (rows, _) = &cases[0];
    let mut messages = Vec::new();
    for (at, values) in rows.iter().enumerate() {
        messages.extend(row(values));
        let (text, _) = NONSENSE[at % NONSENSE.len()];
        messages.push(message(STATE, text));
    }
    publish("nonsense", &messages)?;
    let count = |reason: &str| {
        let of = |at: &usize| NONSENSE[at % NONSENSE.len()].1 == reason;
        (0..rows.len()).filter(of).count() as u64
    };
    let (not_finite, unreadable) = (count("not_finite"), count("unreadable"));
    figures_are(
        &node,
        "nonsense is counted with its reasons",
        &[
            ("/rows_skipped_total/not_finite", not_finite),
            ("/rows_skipped_total/unreadable", unreadable),
            ("/rows_skipped_total/stale", 0),
            ("/rows_total", 32),
            ("/scores_total", 1),
        ],
    )?;

    // The temperature stops while the machine goes on: no row is made of a value from long ago.
    let (rows, _) = &cases[1];
    let half: Vec<Value> = rows[..16].iter().flat_map(row).collect();
    publish("half", &half)?;
    thread::sleep(STALE_AFTER + Duration::from_millis(500));
    let [_, state] = row(&rows[16]);
    publish("stopped", &[state.clone(), state])?;
    figures_are(
        &node,
        "a source that stops is counted",
        &[
            ("/rows_skipped_total/stale", 2),
            ("/rows_total", 48),
            ("/holes_total", 0),
        ],
    )?;

    // It is back: the window starts over, so it holds nothing from before the hole.
    let (rows, _) = &cases[2];
    let whole: Vec<Value> = rows.iter().flat_map(row).collect();
    publish("whole", &whole)?;
    figures_are(
        &node,
        "the window starts over",
        &[
            ("/rows_skipped_total/stale", 2),
            ("/rows_total", 80),
            ("/holes_total", 1),
            ("/scores_total", 2),
        ],
    )?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");

    let scores = skerry_tests::node::log_cat(&node.settings().data, "scores")?;
    ensure!(scores.len() == 2, "{} scores", scores.len());
    for (score, (_, expected)) in scores.iter().zip([&cases[0], &cases[2]]) {
        let got = score["payload"]["score"].as_f64().context("no score")?;
        ensure!(
            (got - expected).abs() < 1e-4,
            "a score of {got}, and {expected} in golden.json"
        );
    }
    Ok(())
}
