//! `[[model]]`: which values feed which model, and what becomes of its scores.

use super::reader::Table;
use super::streams::Streams;
use super::units;
use skerry_bridge::opcua;
use skerry_inference::{
    ASSET, Budget, Config, HostCommand, Input, Model, ModelOptions, Output, Pick, ROWS_MAX,
    STALE_AFTER_DEFAULT, Severity, Source, Thresholds,
};
use skerry_store::StreamName;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// All models, or `None` when one of them has a problem.
pub fn read(
    tables: &[Table<'_>],
    base: &Path,
    streams: &Streams,
    servers: &[opcua::Config],
) -> Option<Config> {
    let mut names = BTreeSet::new();
    // Each table is read before the first `None` counts, so that all problems are noted.
    let models: Vec<Option<Model>> = tables
        .iter()
        .map(|table| read_model(table, base, streams, servers, &mut names))
        .collect();
    let models = models.into_iter().collect::<Option<Vec<_>>>()?;
    Some(Config {
        models,
        host: HostCommand::default(),
        ..Config::default()
    })
}

fn read_model(
    table: &Table<'_>,
    base: &Path,
    streams: &Streams,
    servers: &[opcua::Config],
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
    let assets = table.required("assets", units::texts);
    let rows = table.required("window", units::count(1..=ROWS_MAX));
    let step = table.optional("step", units::count(1..=ROWS_MAX));
    let stale_after = table.optional("stale_after", units::duration(STALE_RANGE));
    let threshold = table.required("threshold", units::number);
    let clear = table.optional("clear", units::number);
    let hold = table.optional("hold", units::count(1..=1_000));
    let severity = table.optional(
        "severity",
        units::word(&[
            ("info", Severity::Info),
            ("warning", Severity::Warning),
            ("critical", Severity::Critical),
        ]),
    );
    let time_max = table.optional("time_max", units::duration(TIME_MAX_RANGE));
    let memory_max = table.optional("memory_max", units::bytes(MEMORY_MAX_RANGE));
    let output = |key: &str| {
        let named = table.optional(key, |value| streams.named(value.string()?));
        named.or_else(|| streams.named(key).ok())
    };
    let (scores, alerts) = (output("scores"), output("alerts"));
    let inputs: Vec<Option<Input>> = table
        .tables("inputs")
        .iter()
        .map(|input| read_input(input, assets.as_deref().unwrap_or(&[]), streams, servers))
        .collect();
    let answer = table.table("output").map(|table| read_output(&table));
    table.finish();
    let raise = narrow(threshold?);
    let options = ModelOptions {
        name: name?,
        file: file?,
        assets: assets?,
        rows: rows?,
        step: step.unwrap_or(1),
        inputs: inputs.into_iter().collect::<Option<Vec<_>>>()?,
        stale_after: stale_after.unwrap_or(STALE_AFTER_DEFAULT),
        output: answer.unwrap_or_default(),
        thresholds: Thresholds {
            raise,
            clear: clear.map_or(raise, narrow),
            hold: hold.map_or(1, |hold| u32::try_from(hold).unwrap_or(u32::MAX)),
        },
        severity: severity.unwrap_or(Severity::Warning),
        budget: Budget {
            time_max: time_max.unwrap_or(Budget::default().time_max),
            memory_max_bytes: memory_max.unwrap_or(Budget::default().memory_max_bytes),
        },
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

const TIME_MAX_RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(60);
const MEMORY_MAX_RANGE: std::ops::RangeInclusive<u64> = 1024 * 1024..=16 * 1024 * 1024 * 1024;
const STALE_RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(24 * 3_600);

#[expect(clippy::cast_possible_truncation, reason = "a model's score is an f32")]
fn narrow(number: f64) -> f32 {
    number as f32
}

/// `output = { name = "…", index = 1 }`, or with `class = "…"` instead of `index`.
fn read_output(table: &Table<'_>) -> Output {
    let name = table.optional("name", units::text);
    let index = table.optional("index", units::count(0..=OUTPUT_INDEX_MAX));
    let class = table.optional("class", units::text);
    if index.is_some() && class.is_some() {
        table.problem("class", "says what `index` says too; leave one of them out");
    }
    table.finish();
    let of_class = class.map_or(Pick::Default, Pick::Class);
    Output {
        name,
        pick: index.map_or(of_class, Pick::Index),
    }
}

/// More than any window has values.
const OUTPUT_INDEX_MAX: usize = 65_535;

fn read_input(
    table: &Table<'_>,
    assets: &[String],
    streams: &Streams,
    servers: &[opcua::Config],
) -> Option<Input> {
    let name = table.optional("opcua", units::text);
    let topic = table.optional("mqtt", units::text);
    let pointer = table.optional("pointer", |value| Ok(value.string()?.to_owned()));
    let scale = table.optional("scale", units::number);
    let offset = table.optional("offset", units::number);
    let source = match (name, topic) {
        (Some(name), None) => Source::Opcua { name },
        (None, Some(topic)) => Source::Mqtt {
            topic,
            pointer: pointer.unwrap_or_default(),
        },
        _ => {
            table.problem("opcua", "or mqtt, one of the two, must name the source");
            table.finish();
            return None;
        }
    };
    let stream = match &source {
        Source::Opcua { name } => {
            let stream = stream_of(name, assets, |name| stream_of_node(name, servers));
            stream.map_err(|why| table.problem("opcua", why))
        }
        Source::Mqtt { topic, .. } => {
            let stream = stream_of(topic, assets, |topic| Ok(streams.of_topic(topic)));
            stream.map_err(|why| table.problem("mqtt", why))
        }
    };
    table.finish();
    Some(Input {
        source,
        stream: stream.ok()?,
        scale: scale.unwrap_or(1.0),
        offset: offset.unwrap_or(0.0),
    })
}

/// The one stream in which all assets' values of an input are logged.
fn stream_of(
    template: &str,
    assets: &[String],
    of: impl Fn(&str) -> Result<StreamName, String>,
) -> Result<StreamName, String> {
    let mut found: Option<StreamName> = None;
    for asset in assets {
        let stream = of(&template.replace(ASSET, asset))?;
        match &found {
            Some(first) if *first != stream => {
                return Err(format!(
                    "`{template}` goes to the stream `{first}` for one asset and to `{stream}` \
                     for {asset}; route all of them to one"
                ));
            }
            _ => found = Some(stream),
        }
    }
    found.ok_or_else(|| "has no asset to stand for".to_owned())
}

fn stream_of_node(name: &str, servers: &[opcua::Config]) -> Result<StreamName, String> {
    let server = servers
        .iter()
        .find(|server| server.nodes.iter().any(|node| node.name == name));
    // What is in a folder shows at the server only.
    let in_folder = || {
        let mut servers = servers.iter();
        servers.find(|server| server.folders.iter().any(|folder| folder.may_name(name)))
    };
    server
        .or_else(in_folder)
        .map(|server| server.stream.clone())
        .ok_or_else(|| {
            format!("no [[opcua]] has a node named `{name}`, or a folder that it could be in")
        })
}
