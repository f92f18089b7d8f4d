//! Models that do harm when they run, beside a good one and a device that goes on publishing.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use skerry_tests::world::{Publishing, World};
use skerry_tests::{Context as _, Result, ensure, wait, workspace};

use crate::alerts::{COLUMNS, alerts_seen, golden};
use crate::common::acked_more;

/// In `tests/hostile-models`, each with a word of the reason it must be disabled for.
const HOSTILE: [(&str, &str); 3] = [("nan", "NaN"), ("huge", "allocat"), ("slow", "no answer")];
/// What each model but one may take for a window.
const TIME_MAX: &str = "5s";
/// The slow one takes longer than that too; this only makes for a short test.
const TIME_MAX_SLOW: &str = "500ms";
/// From the last row of a worn bearing's window to its alert: time for each of the others to be
/// found out first, on a busy machine.
const ALERT_WITHIN: Duration = Duration::from_secs(15);

fn models() -> String {
    let root = workspace::root();
    let inputs: Vec<String> = COLUMNS
        .iter()
        .map(|column| format!(r#"{{ mqtt = "plant/{{asset}}/state", pointer = "/{column}" }}"#))
        .collect();
    let inputs = inputs.join(", ");
    let mut text = String::from("republish = [\"alerts\"]\n");
    let hostile = HOSTILE.map(|(name, _)| (name, format!("tests/hostile-models/{name}.onnx")));
    let good = (
        "bearing",
        "inference/models/bearing/bearing.onnx".to_owned(),
    );
    // The good one last: it must not owe its alert to being the first.
    for (name, file) in hostile.into_iter().chain([good]) {
        let time_max = if name == "slow" {
            TIME_MAX_SLOW
        } else {
            TIME_MAX
        };
        write!(
            text,
            "\n[[model]]\nname = \"{name}\"\nfile = \"{}\"\nassets = [ \"pump1\" ]\nwindow = 32\n\
             step = 1\nthreshold = 0.8\ntime_max = \"{time_max}\"\nmemory_max = \"128MiB\"\n\
             inputs = [ {inputs} ]\n",
            root.join(file).display(),
        )
        .expect("a String takes everything");
    }
    text
}

/// Each is disabled with its reason; the good one's alert comes in time, and nobody who publishes
/// notices.
pub(crate) fn harm(world: &World) -> Result<()> {
    let bearing = workspace::root().join("inference/models/bearing/bearing.onnx");
    let cases = golden(&bearing)?;
    let worn = cases.iter().find(|(_, score)| *score >= 0.8);
    let (rows, _) = worn.context("no golden case of a worn bearing")?;
    let script: String = rows
        .iter()
        .map(|row| {
            let fields = COLUMNS.iter().zip(0..);
            let fields = fields.map(|(name, at): (_, usize)| ((*name).to_owned(), row[at].clone()));
            let payload = Value::Object(fields.collect());
            json!({"topic": "plant/pump1/state", "payload": payload}).to_string() + "\n"
        })
        .collect();
    let path = world.folder().join("worn.script");
    fs::write(&path, script)?;

    let mut settings = world.settings()?;
    settings.mqtt_more = models();
    let mut node = world.started(settings)?;
    let port = node.mqtt_port();
    node.wait_for_status("every model is loaded", wait::START, |status| {
        let models = status["inference"]["models"].as_array();
        let running = models
            .into_iter()
            .flatten()
            .filter(|it| it["state"] == "running");
        running.count() == HOSTILE.len() + 1
    })?;
    let mut watching = world.subscriber(port, "watching", &["skerry/alerts/bearing/#"])?;
    watching.wait_for("subscribed", wait::START, |lines| !lines.is_empty())?;
    let mut others = world.publisher(
        port,
        Publishing {
            name: "others",
            interval_ms: 5,
            ..Publishing::default()
        },
    )?;

    world.replay(port, "worn", &path)?.join(wait::START)?;
    let begin = Instant::now();
    alerts_seen(&mut watching, 1)?;
    let took = begin.elapsed();
    ensure!(took <= ALERT_WITHIN, "the good model's alert took {took:?}");

    let status =
        node.wait_for_status("all hostile models are disabled", wait::START, |status| {
            let models = status["inference"]["models"].as_array();
            let disabled = models
                .into_iter()
                .flatten()
                .filter(|it| it["state"] == "disabled");
            disabled.count() == HOSTILE.len()
        })?;
    let models = status["inference"]["models"].as_array();
    let models = models.context("no models in the status")?;
    let model = |name: &str| models.iter().find(|model| model["name"] == name);
    for (name, word) in HOSTILE {
        let reason = model(name).and_then(|model| model["reason"].as_str());
        let reason = reason.with_context(|| format!("{name} has no reason"))?;
        ensure!(reason.contains(word), "{name} is disabled for: {reason}");
    }
    let good = model("bearing").context("the good model is gone")?;
    ensure!(good["state"] == "running", "the good model: {good}");
    ensure!(good["scores_total"] == 1, "the good model: {good}");

    acked_more(&mut others, 200)?;
    others.finish(wait::DRAIN)?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    Ok(())
}
