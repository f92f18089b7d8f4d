//! `[[model]]`: which values feed which model, and what becomes of its scores.

mod alerting;
mod canary;
mod inputs;
mod pace;

use super::reader::{Table, Value};
use super::streams::{NODE_EVENTS, Streams};
use super::{number, units};
use inputs::{Scores, Sources, StreamOfNode};
use skerry_inference::{
    Budget, Config, DriftOptions, HostCommand, Hysteresis, Model, ModelOptions, Output, OutputKind,
    Pace, Pick, Reconstruction, STALE_AFTER_DEFAULT, chain_problems,
};
use skerry_store::StreamName;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

pub type Models = Config;

/// In the data directory: versions of models, to be activated.
const FOLDER: &str = "models";

/// All models, or `None` when one of them has a problem. `stream_of_node` knows in which stream an
/// OPC-UA node's values are logged.
pub fn read(
    root: &Table<'_>,
    base: &Path,
    data_dir: Option<&Path>,
    streams: &Streams,
    stream_of_node: &StreamOfNode<'_>,
) -> Option<Models> {
    let tables = root.tables("model");
    let mut names = BTreeSet::new();
    // What a model reads may stand below it.
    let scores: Vec<Scores> = tables
        .iter()
        .filter_map(|it| Scores::read(it, streams))
        .collect();
    let sources = Sources {
        streams,
        stream_of_node,
        scores: &scores,
    };
    // Each table is read before the first `None` counts, so that all problems are noted.
    let models: Vec<Option<Model>> = tables
        .iter()
        .map(|table| read_model(table, base, &sources, &mut names))
        .collect();
    let models = models.into_iter().collect::<Option<Vec<_>>>()?;
    for (index, problem) in chain_problems(&models) {
        tables[index].problem(problem.key, problem.message);
    }
    Some(Config {
        models,
        host: HostCommand::default(),
        versions: data_dir.map(|folder| folder.join(FOLDER)),
        events: StreamName::new(NODE_EVENTS).ok(),
    })
}

/// The streams that models write to, each once.
pub fn outputs(models: &Models) -> Vec<StreamName> {
    let models = models.models.iter();
    let outputs = models.flat_map(|model| [&model.scores, &model.alerts]);
    let outputs: BTreeSet<_> = outputs.cloned().collect();
    outputs.into_iter().collect()
}

/// A line for each model, for a person who has just checked the config.
pub fn summary(models: &Models) -> Vec<String> {
    models.models.iter().map(line).collect()
}

fn line(model: &Model) -> String {
    let window = match model.span {
        Some(span) => format!("{:?}, at most {} rows,", span.window, model.rows),
        None => format!("{}", model.rows),
    };
    let pace = match model.pace {
        Pace::Clock => String::new(),
        Pace::Grid(grid) => format!(" on a grid of {:?}", grid.period),
    };
    let (rows, columns) = model.tensor();
    let features = match (rows, columns) == (model.rows, model.columns()) {
        true => String::new(),
        false => format!(", {columns} features of each"),
    };
    format!(
        "  model    {}: {} windows of {window} x {}{pace}{features}, {} of memory",
        model.name,
        model.assets.len(),
        model.columns(),
        bytesize::ByteSize::b(model.memory_bytes() as u64),
    )
}

fn read_model(
    table: &Table<'_>,
    base: &Path,
    sources: &Sources<'_>,
    names: &mut BTreeSet<String>,
) -> Option<Model> {
    let name = table.required("name", |value| {
        let name = units::text(value)?;
        match names.insert(name.clone()) {
            true => Ok(name),
            false => Err(format!("`{name}` is already the name of another [[model]]")),
        }
    });
    let file = table.required("file", units::path_from(base));
    let assets = table.required("assets", texts);
    let window = pace::read(table);
    let stale_after = table.optional("stale_after", units::duration(STALE_RANGE));
    let kind = table.optional(
        "kind",
        units::word(&[
            ("score", OutputKind::Score),
            ("class", OutputKind::Class),
            ("rul", OutputKind::Rul),
            ("anomaly", OutputKind::Anomaly),
        ]),
    );
    let kind = kind.unwrap_or_default();
    let alerting = alerting::read(table, kind);
    let drift = read_drift(table);
    let time_max = table.optional("time_max", units::duration(TIME_MAX_RANGE));
    let memory_max = table.optional("memory_max", units::bytes(MEMORY_MAX_RANGE));
    let shadow = table.optional("shadow", units::text);
    let canary = canary::read(table);
    let output = |key: &str| inputs::output(table, sources.streams, key);
    let (scores, alerts) = (output("scores"), output("alerts"));
    let inputs = sources.read(table, assets.as_deref().unwrap_or(&[]));
    let answer = table.table("output").map(|table| read_output(&table));
    table.finish();
    let window = window?;
    let options = ModelOptions {
        name: name?,
        file: file?,
        assets: assets?,
        rows: window.rows,
        step: window.step,
        pace: window.pace,
        span: window.span,
        inputs: inputs?,
        stale_after: stale_after.unwrap_or(STALE_AFTER_DEFAULT),
        output: answer.unwrap_or_default(),
        kind,
        alerting: alerting?,
        drift,
        budget: Budget {
            time_max: time_max.unwrap_or(Budget::default().time_max),
            memory_max_bytes: memory_max.unwrap_or(Budget::default().memory_max_bytes),
        },
        shadow,
        canary,
        scores: scores?,
        alerts: alerts?,
    };
    match Model::new(options) {
        Ok(model) => Some(model),
        Err(problems) => {
            for problem in problems {
                table.problem(problem.key, problem.message);
            }
            None
        }
    }
}

fn texts(value: &Value<'_>) -> Result<Vec<String>, String> {
    value.list(units::text)
}

/// `drift = { … }`, on by itself; it needs a reference in the model's package to do anything.
fn read_drift(table: &Table<'_>) -> Option<DriftOptions> {
    let mut options = DriftOptions::default();
    let watched = table.optional("watch_drift", units::flag);
    if let Some(table) = table.table("drift") {
        let rows = table.optional("rows", units::count(1..=DRIFT_ROWS_MOST));
        if let Some(rows) = rows.and_then(|rows| u32::try_from(rows).ok()) {
            options.rows = rows;
        }
        let both = |named: &str, clear: &str, default: Hysteresis| {
            let raise = table.optional(named, number::finite);
            // Somebody who sets one threshold alone means the other one in proportion.
            let ratio = default.clear / default.raise;
            let raise = raise.unwrap_or(default.raise);
            let clear = table.optional(clear, number::finite);
            Hysteresis {
                raise,
                clear: clear.unwrap_or(raise * ratio),
            }
        };
        options.psi = both("psi", "psi_clear", options.psi);
        options.mean_shift = both("mean_shift", "mean_shift_clear", options.mean_shift);
        table.finish();
    }
    watched.unwrap_or(true).then_some(options)
}

const DRIFT_ROWS_MOST: usize = 1_000_000;
const TIME_MAX_RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(60);
const MEMORY_MAX_RANGE: std::ops::RangeInclusive<u64> = 1024 * 1024..=16 * 1024 * 1024 * 1024;
const STALE_RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(24 * 3_600);

/// `output = { name = "…", index = 1 }`, or with `class = "…"` or `reconstruction = "mse"` instead
/// of `index`.
fn read_output(table: &Table<'_>) -> Output {
    let name = table.optional("name", units::text);
    let index = table.optional("index", units::count(0..=OUTPUT_INDEX_MAX));
    let class = table.optional("class", units::text);
    let reconstruction = table.optional(
        "reconstruction",
        units::word(&[
            ("mse", Reconstruction::MeanSquared),
            ("mae", Reconstruction::MeanAbsolute),
        ]),
    );
    let said = [
        ("index", index.map(Pick::Index)),
        ("class", class.map(Pick::Class)),
        ("reconstruction", reconstruction.map(Pick::Error)),
    ];
    let mut said = said
        .into_iter()
        .filter_map(|(key, pick)| Some((key, pick?)));
    let first = said.next();
    if let (Some((first, _)), Some((second, _))) = (&first, said.next()) {
        let message = format!("says what `{first}` says too; leave one of them out");
        table.problem(second, message);
    }
    table.finish();
    Output {
        name,
        pick: first.map(|(_, pick)| pick).unwrap_or_default(),
    }
}

/// More than any window has values.
const OUTPUT_INDEX_MAX: usize = 65_535;

#[cfg(test)]
mod tests;
