//! `inputs` of a `[[model]]`: where its columns come from, and in which streams that is logged.

use crate::config::reader::{Table, Value};
use crate::config::streams::Streams;
use crate::config::{number, units};
use skerry_inference::{ASSET, BURST_SAMPLES_MAX, Burst, Feature, Fill, Input, Scaling, Source};
use skerry_store::StreamName;

/// Where a model's scores can be read.
pub(super) struct Scores {
    model: String,
    stream: StreamName,
}

impl Scores {
    /// What is wrong with the table is told where its model is read.
    pub(super) fn read(table: &Table<'_>, streams: &Streams) -> Option<Self> {
        Some(Self {
            model: table.optional("name", units::text)?,
            stream: output(table, streams, "scores")?,
        })
    }
}

/// The stream that a model writes to: named by the key, or of the key's own name.
pub(super) fn output(table: &Table<'_>, streams: &Streams, key: &str) -> Option<StreamName> {
    let named = table.optional(key, |value| streams.named(value.string()?));
    named.or_else(|| streams.named(key).ok())
}

/// In which stream the values of an OPC-UA node are logged, or why in none.
pub(super) type StreamOfNode<'a> = dyn Fn(&str) -> Result<StreamName, String> + 'a;

/// Everything that an input may name.
pub(super) struct Sources<'a> {
    pub streams: &'a Streams,
    pub stream_of_node: &'a StreamOfNode<'a>,
    pub scores: &'a [Scores],
}

impl Sources<'_> {
    /// All inputs, or `None` when one of them has a problem.
    pub(super) fn read(&self, table: &Table<'_>, assets: &[String]) -> Option<Vec<Input>> {
        let tables = table.tables("inputs");
        let inputs: Vec<Option<Input>> = tables
            .iter()
            .map(|input| {
                let read = self.read_input(input, assets);
                input.finish();
                read
            })
            .collect();
        inputs.into_iter().collect()
    }

    fn read_input(&self, table: &Table<'_>, assets: &[String]) -> Option<Input> {
        let source = read_source(table);
        let scaling = read_scaling(table);
        let fill = table.optional(
            "fill",
            units::word(&[
                ("hold", Fill::Hold),
                ("linear", Fill::Linear),
                ("drop", Fill::Drop),
            ]),
        );
        let features = read_features(table);
        let rate_hz = table.optional("rate", number::finite);
        let samples_max = table.optional("burst", units::count(1..=BURST_SAMPLES_MAX));
        let source = source?;
        let stream = match &source {
            Source::Opcua { name } => {
                let stream = stream_of(name, assets, self.stream_of_node);
                stream.map_err(|why| table.problem("opcua", why))
            }
            Source::Mqtt { topic, .. } => {
                let stream = stream_of(topic, assets, |topic| Ok(self.streams.of_topic(topic)));
                stream.map_err(|why| table.problem("mqtt", why))
            }
            Source::Model { model, .. } => {
                let found = self.scores.iter().find(|scores| scores.model == *model);
                let stream = found.map(|scores| scores.stream.clone());
                stream.ok_or_else(|| {
                    table.problem("model", format!("no [[model]] is named `{model}`"));
                })
            }
        };
        Some(Input {
            scaling: scaling?,
            fill: fill.unwrap_or_default(),
            features: features?,
            rate_hz,
            burst: samples_max.map(|samples_max| Burst { samples_max }),
            ..Input::new(source, stream.ok()?)
        })
    }
}

fn read_source(table: &Table<'_>) -> Option<Source> {
    let name = table.optional("opcua", units::text);
    let topic = table.optional("mqtt", units::text);
    let pointer = table.optional("pointer", |value| Ok(value.string()?.to_owned()));
    let model = table.optional("model", units::text);
    let asset = table.optional("asset", units::text);
    if asset.is_some() && model.is_none() {
        table.problem("asset", "is for an input that reads another model");
    }
    match (name, topic, model) {
        (Some(name), None, None) => Some(Source::Opcua { name }),
        (None, Some(topic), None) => Some(Source::Mqtt {
            topic,
            pointer: pointer.unwrap_or_default(),
        }),
        (None, None, Some(model)) => Some(Source::Model {
            model,
            asset: asset.unwrap_or_else(|| ASSET.to_owned()),
        }),
        _ => {
            let why = "or mqtt, or model, one of the three, must name the source";
            table.problem("opcua", why);
            None
        }
    }
}

/// `scale` and `offset`, or `mean` and `std`.
fn read_scaling(table: &Table<'_>) -> Option<Scaling> {
    let scale = table.optional("scale", number::finite);
    let offset = table.optional("offset", number::finite);
    let mean = table.optional("mean", number::finite);
    let std = table.optional("std", number::finite);
    match (mean, std) {
        (None, None) => Some(Scaling::Linear {
            scale: scale.unwrap_or(1.0),
            offset: offset.unwrap_or(0.0),
        }),
        (Some(mean), Some(std)) if scale.is_none() && offset.is_none() => {
            Some(Scaling::Standard { mean, std })
        }
        _ => {
            let why = "takes `std` with it, and neither `scale` nor `offset`";
            table.problem("mean", why);
            None
        }
    }
}

/// `features = ["rms", …]`, then `bands = [[10, 200], …]` in Hz.
fn read_features(table: &Table<'_>) -> Option<Vec<Feature>> {
    let named = table.optional("features", |value| value.list(units::word(&Feature::NAMED)));
    let bands = table.optional("bands", |value| value.list(band));
    if (table.has("features") && named.is_none()) || (table.has("bands") && bands.is_none()) {
        return None;
    }
    let bands = bands.unwrap_or_default();
    Some(named.unwrap_or_default().into_iter().chain(bands).collect())
}

fn band(value: &Value<'_>) -> Result<Feature, String> {
    match value.list(number::finite)?[..] {
        [low_hz, high_hz] => Ok(Feature::Band { low_hz, high_hz }),
        _ => Err("must be two frequencies in Hz, such as [10, 200]".to_owned()),
    }
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
