//! The shipped recipes over whole test sets of real machines: records in over MQTT, scores out of
//! the log, held row by row against onnxruntime, and against what papers report.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use skerry_tests::node::{self, Node};
use skerry_tests::python::{self, Helper};
use skerry_tests::world::World;
use skerry_tests::{Context as _, Result, ensure, wait, workspace};

use crate::common::{acked_more, heads, logged_no_complaint};

/// Of FD001's 100 test engines with life capped at 125 cycles.
const PUBLISHED_RMSE: [(&str, f64); 2] =
    [("LSTM, Zheng 2017", 16.14), ("deep CNN, Li 2018", 12.61)];
/// What the best of the shipped recipes must keep to.
const RMSE_AIM: f64 = 12.5;
/// The area under the curve that the best of the milling recipes must keep to.
const AUC_AIM: f64 = 0.97;

/// A test set, and the models that score it.
struct Recipe {
    /// As in `tests/python/recipes.py` and `inference/models`.
    name: &'static str,
    assets: usize,
    asset_prefix: &'static str,
    rows: usize,
    columns: &'static [&'static str],
    models: &'static [Shipped],
}

/// `inference/models/RECIPE/NAME.onnx`, and where its score is for onnxruntime.
struct Shipped {
    name: &'static str,
    output: usize,
    column: usize,
}

const fn shipped(name: &'static str, output: usize, column: usize) -> Shipped {
    Shipped {
        name,
        output,
        column,
    }
}

const TURBOFAN: Recipe = Recipe {
    name: "turbofan",
    assets: 100,
    asset_prefix: "engine",
    rows: 30,
    columns: &[
        "s2", "s3", "s4", "s7", "s8", "s9", "s11", "s12", "s13", "s14", "s15", "s17", "s20", "s21",
    ],
    models: &[
        shipped("lstm", 0, 0),
        shipped("cnn", 0, 0),
        shipped("trees", 0, 0),
    ],
};

/// The records of AI4I 2020 that no model was trained on, one a window.
const MILLING: Recipe = Recipe {
    name: "milling",
    assets: 1,
    asset_prefix: "mill",
    rows: 1,
    columns: &[
        "quality",
        "air_temperature",
        "process_temperature",
        "speed",
        "torque",
        "wear",
    ],
    // A label comes first, then the probabilities of (no, yes) or, of the isolation forest, its score.
    models: &[
        shipped("boosted", 1, 1),
        shipped("forest", 1, 1),
        shipped("logistic", 1, 1),
        shipped(ISOLATION, 1, 0),
    ],
};

/// Its score is low for what is odd.
const ISOLATION: &str = "isolation";

impl Recipe {
    /// Every model over every asset; a score for each record once a window is full.
    fn settings(&self) -> String {
        let folder = models_folder().join(self.name);
        let assets: Vec<_> = (1..=self.assets)
            .map(|number| format!("\"{}{number}\"", self.asset_prefix))
            .collect();
        let inputs: Vec<_> = self
            .columns
            .iter()
            .map(|column| {
                format!(r#"{{ mqtt = "plant/{{asset}}/record", pointer = "/{column}" }}"#)
            })
            .collect();
        let (assets, inputs) = (assets.join(", "), inputs.join(",\n    "));
        let model = |Shipped { name, .. }: &Shipped| {
            let file = folder.join(format!("{name}.onnx"));
            // Scores are what is judged here: a threshold that none of them reaches.
            format!(
                "\n[[model]]\nname = \"{name}\"\nfile = \"{}\"\nassets = [ {assets} ]\n\
                 window = {}\nstep = 1\nthreshold = 1e9\ninputs = [\n    {inputs}\n]\n",
                file.display(),
                self.rows
            )
        };
        self.models.iter().map(model).collect()
    }

    fn arguments(&self, command: &str) -> Vec<String> {
        vec![
            command.to_owned(),
            format!("--recipe={}", self.name),
            format!("--data={}", workspace::shared_data().display()),
            format!("--assets={}", self.assets),
        ]
    }

    /// The test set as messages to publish.
    fn script(&self, world: &World) -> Result<PathBuf> {
        let arguments = self.arguments("script");
        world
            .helper("recipes.py", "script", "--out", &arguments)?
            .join(wait::START)?;
        Ok(world.folder().join("script.jsonl"))
    }

    /// Publishes them once each: QoS 2, so that no window is shifted by a record that came twice.
    fn publisher(&self, world: &World, port: u16, script: &Path) -> Result<Helper> {
        let arguments = [
            format!("--port={port}"),
            format!("--name={}", self.name),
            format!("--script={}", script.display()),
            "--qos=2".to_owned(),
            "--window=100".to_owned(),
        ];
        world.helper("publisher.py", "publisher", "--journal", &arguments)
    }

    /// Waits until each model has its place in the log: a new one begins with what comes from then on.
    fn loaded(&self, node: &Node) -> Result<()> {
        node.wait_for_status("every model is running", wait::START, |status| {
            let models = status["inference"]["models"].as_array();
            let running = models.into_iter().flatten();
            running.filter(|it| it["state"] == "running").count() == self.models.len()
        })?;
        Ok(())
    }

    /// Full windows that a script's records make, by asset and step by step.
    fn windows(&self, script: &Path) -> Result<usize> {
        let mut records: BTreeMap<String, usize> = BTreeMap::new();
        for line in fs::read_to_string(script)?.lines() {
            let message: Value = serde_json::from_str(line)?;
            let topic = message["topic"].as_str().context("no topic")?;
            *records.entry(topic.to_owned()).or_default() += 1;
        }
        let of_asset = |records: &usize| (records + 1).saturating_sub(self.rows);
        Ok(records.values().map(of_asset).sum())
    }

    /// Waits until as many scores are durable as there are windows.
    fn scored(&self, node: &Node, windows: usize) -> Result<()> {
        let expected = (windows * self.models.len()) as u64;
        wait::until("a score for each window", wait::DRAIN, || {
            let there = heads(&node.status()?)?.get("scores").copied();
            let there = there.unwrap_or_default();
            ensure!(there >= expected, "{there} of {expected} scores");
            Ok(Some(()))
        })
    }

    /// onnxruntime's verdict on the log of a node that has stopped, a line for each model.
    fn judged(&self, world: &World, node: &Node) -> Result<Vec<Value>> {
        let mut arguments = self.arguments("judge");
        for (flag, stream) in [("scores", "scores"), ("sent", "telemetry")] {
            let path = world.folder().join(format!("{stream}.jsonl"));
            let mut file = std::io::BufWriter::new(fs::File::create(&path)?);
            node::each_logged(&node.settings().data, stream, |record| {
                Ok(writeln!(file, "{record}")?)
            })?;
            file.flush()?;
            arguments.push(format!("--{flag}={}", path.display()));
        }
        for Shipped {
            name,
            output,
            column,
        } in self.models
        {
            let file = format!("{}/{name}.onnx", self.name);
            let model = json!({"name": name, "file": file, "output": output, "column": column});
            arguments.push(format!("--model={model}"));
        }
        let judge = world.helper("recipes.py", "verdict", "--out", &arguments)?;
        let verdicts = judge.join(wait::DRAIN)?;
        let models = self.models.len();
        ensure!(
            python::count(&verdicts, "judged") == models,
            "{models} models, and these verdicts: {verdicts:?}"
        );
        Ok(verdicts)
    }
}

fn models_folder() -> PathBuf {
    workspace::root().join("inference/models")
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(serde_json::from_str(&text)?)
}

/// Every model that is shipped loads in a node's config and agrees with its golden cases, and its
/// figures are about this very file.
pub(crate) fn shipped_load(world: &World) -> Result<()> {
    let mut settings = world.settings()?;
    for folder in fs::read_dir(models_folder())? {
        let folder = folder?.path();
        if !folder.is_dir() {
            continue;
        }
        let mut models = 0;
        for file in fs::read_dir(&folder)? {
            let file = file?.path();
            if file.extension().is_none_or(|ending| ending != "onnx") {
                continue;
            }
            let stem = file.file_stem().and_then(|stem| stem.to_str());
            let stem = stem.context("a model's name is text")?;
            let own = file.with_extension("golden.json");
            let shared = file.with_file_name("golden.json");
            let golden = read(if own.exists() { &own } else { &shared })?;
            let metrics = read(&folder.join("metrics.json"))?;
            let figures = metrics.pointer(&format!("/models/{stem}"));
            let figures = figures.unwrap_or(&metrics);
            ensure!(
                figures["sha256"] == golden["sha256"],
                "{}: its figures and its golden cases are about two files",
                file.display()
            );
            settings.more += &as_golden(&golden, stem, &file)?;
            models += 1;
        }
        ensure!(models > 0, "{}: no model in it", folder.display());
    }
    let node = world.node(settings)?;
    let config = node.config().display().to_string();
    let output = node::skerry(&["check", "--config", &config])?;
    ensure!(output.code == Some(0), "{}", output.text());
    Ok(())
}

/// Bound to as many rows and columns as its golden cases have.
fn as_golden(golden: &Value, name: &str, file: &Path) -> Result<String> {
    let cases = golden["cases"].as_array().context("no golden cases")?;
    ensure!(
        cases.len() >= 8,
        "{name}: only {} golden cases",
        cases.len()
    );
    let rows = cases[0]["input"].as_array().context("no rows")?;
    let columns = rows[0].as_array().context("no columns")?.len();
    let input = |column| format!(r#"{{ mqtt = "plant/a", pointer = "/{column}" }}"#);
    let inputs: Vec<_> = (0..columns).map(input).collect();
    Ok(format!(
        "\n[[model]]\nname = \"{name}\"\nfile = \"{}\"\nassets = [ \"a\" ]\nwindow = {}\n\
         threshold = 1e9\ninputs = [ {} ]\n",
        file.display(),
        rows.len(),
        inputs.join(", ")
    ))
}

/// Each window scored once, about the records it names, as onnxruntime scores it.
fn hold(verdict: &Value, windows: usize) -> Result<()> {
    let count = |field: &str| {
        let value = verdict[field].as_u64();
        value.with_context(|| format!("no {field} in {verdict}"))
    };
    ensure!(
        count("windows")? == windows as u64,
        "{windows} windows, and {verdict}"
    );
    for flaw in ["missing", "twice", "unexpected", "misplaced", "apart"] {
        ensure!(count(flaw)? == 0, "{flaw}: {verdict}");
    }
    Ok(())
}

fn figure(verdict: &Value, name: &str) -> Result<f64> {
    let value = verdict[name].as_f64();
    value.with_context(|| format!("no {name} in {verdict}"))
}

/// The whole test set through a node that nothing befalls, and the verdict on each model.
fn held(world: &World, recipe: &Recipe) -> Result<Vec<Value>> {
    let script = recipe.script(world)?;
    let windows = recipe.windows(&script)?;
    let mut settings = world.settings()?;
    settings.more = recipe.settings();
    let mut node = world.started(settings)?;
    recipe.loaded(&node)?;
    let publisher = recipe.publisher(world, node.mqtt_port(), &script)?;
    publisher.join(wait::DRAIN)?;
    recipe.scored(&node, windows)?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    logged_no_complaint(&node)?;
    let verdicts = recipe.judged(world, &node)?;
    for verdict in &verdicts {
        hold(verdict, windows)?;
    }
    Ok(verdicts)
}

/// NASA's turbofan engines: how many cycles each has left.
pub(crate) fn turbofan(world: &World) -> Result<()> {
    let mut best = f64::INFINITY;
    for verdict in held(world, &TURBOFAN)? {
        let rmse = figure(&verdict, "rmse")?;
        println!(
            "  FD001, {}: RMSE {rmse:.2}, {} windows as in onnxruntime",
            verdict["model"], verdict["windows"]
        );
        best = best.min(rmse);
    }
    for (what, rmse) in PUBLISHED_RMSE {
        println!("  FD001, published, {what}: RMSE {rmse:.2}");
    }
    ensure!(
        best <= RMSE_AIM,
        "the best recipe's RMSE is {best:.2}, the aim {RMSE_AIM}"
    );
    Ok(())
}

/// Milling machines: whether an operation ends in a failure, as well as the models' figures say.
pub(crate) fn milling(world: &World) -> Result<()> {
    let figures = read(&models_folder().join("milling/metrics.json"))?;
    let mut best = 0.0_f64;
    for verdict in held(world, &MILLING)? {
        let name = verdict["model"].as_str().context("no model")?;
        let area = figure(&verdict, "auc")?;
        let area = if name == ISOLATION { 1.0 - area } else { area };
        let promised = figure(&figures["models"][name], "auc")?;
        println!(
            "  AI4I, {name}: area under the curve {area:.4}, {} windows as in onnxruntime",
            verdict["windows"]
        );
        ensure!(
            (area - promised).abs() < 1e-3,
            "{name}: its area under the curve is {area:.4} and not {promised:.4} as told beside it"
        );
        best = best.max(area);
    }
    ensure!(
        best >= AUC_AIM,
        "the best recipe's area under the curve is {best:.4}, the aim {AUC_AIM}"
    );
    Ok(())
}

/// kill -9 in the middle, twice: no window is scored twice and none is left out, and the answers
/// are those of a run that nothing befell.
pub(crate) fn killed(world: &World) -> Result<()> {
    let recipe = Recipe {
        assets: 40,
        ..TURBOFAN
    };
    let script = recipe.script(world)?;
    let windows = recipe.windows(&script)?;
    let messages = fs::read_to_string(&script)?.lines().count();
    let mut settings = world.settings()?;
    settings.more = recipe.settings();
    let mut node = world.started(settings)?;
    recipe.loaded(&node)?;
    let mut publisher = recipe.publisher(world, node.mqtt_port(), &script)?;
    for share in [3, 2] {
        acked_more(&mut publisher, messages / 3 / share)?;
        node.kill()?;
        node.start()?;
    }
    publisher.join(wait::DRAIN)?;
    recipe.scored(&node, windows)?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    for verdict in recipe.judged(world, &node)? {
        hold(&verdict, windows)?;
    }
    Ok(())
}
