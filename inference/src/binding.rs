//! From records to tensor columns: which record feeds which asset's column, and with what number.

use crate::asset::Skip;
use crate::config::{Model, Source};
use serde_json::Value;
use skerry_store::{Kind, Record};
use std::collections::HashMap;

/// One column of one asset, both by index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) asset: usize,
    pub(crate) column: usize,
}

/// The targets of each source, per input stream.
#[derive(Debug)]
pub(crate) struct Bindings {
    /// By index of the stream in [`Model::streams`].
    streams: Vec<Sources>,
}

#[derive(Debug, Default)]
struct Sources {
    opcua: HashMap<String, Vec<Target>>,
    mqtt: HashMap<String, Vec<Target>>,
}

impl Bindings {
    pub(crate) fn new(model: &Model) -> Self {
        let names = model.streams();
        let mut streams: Vec<Sources> = names.iter().map(|_| Sources::default()).collect();
        // The clock, column 0, comes last: a record that feeds it and others at once makes a row
        // of its own values, not of the record before it.
        for (column, input) in model.inputs.iter().enumerate().rev() {
            let stream = names.iter().position(|name| *name == input.stream);
            let sources = &mut streams[stream.expect("the model's streams are its inputs'")];
            let targets = match input.source {
                Source::Opcua { .. } => &mut sources.opcua,
                Source::Mqtt { .. } => &mut sources.mqtt,
            };
            for (asset, name) in model.assets.iter().enumerate() {
                let source = input.source.of(name);
                targets
                    .entry(source)
                    .or_default()
                    .push(Target { asset, column });
            }
        }
        Self { streams }
    }

    /// The columns that a record of this stream feeds; most feed none.
    pub(crate) fn targets(&self, stream: usize, record: &Record) -> &[Target] {
        let sources = &self.streams[stream];
        let targets = match record.kind {
            Kind::Opcua => &sources.opcua,
            Kind::Mqtt => &sources.mqtt,
            Kind::Score | Kind::Alert | Kind::Gap | Kind::Node => return &[],
        };
        targets.get(&record.source).map_or(&[], Vec::as_slice)
    }
}

/// A record's payload, parsed once for all the columns it feeds.
pub(crate) struct Payload {
    parsed: Result<Value, Skip>,
}

impl Payload {
    pub(crate) fn of(record: &Record) -> Self {
        let parsed = if is_good(record.status) {
            serde_json::from_slice(&record.payload).map_err(|_| Skip::Unreadable)
        } else {
            Err(Skip::BadStatus)
        };
        Self { parsed }
    }

    /// The number for one column.
    pub(crate) fn column(&self, model: &Model, column: usize) -> Result<f32, Skip> {
        let input = &model.inputs[column];
        let pointer = match &input.source {
            Source::Opcua { .. } => "/value",
            Source::Mqtt { pointer, .. } => pointer,
        };
        let parsed = self.parsed.as_ref().map_err(|skip| *skip)?;
        let value = parsed
            .pointer(pointer)
            .and_then(number)
            .ok_or(Skip::Unreadable)?;
        let scaled = (value * input.scale + input.offset) as f32;
        if scaled.is_finite() {
            Ok(scaled)
        } else {
            Err(Skip::NotFinite)
        }
    }
}

/// OPC-UA Part 4, 7.39: the two top bits are the severity, 00 is Good. Uncertain is not good
/// enough for a tensor: it is what a server sends for a sensor that has stopped measuring.
fn is_good(status: u32) -> bool {
    status >> 30 == 0
}

/// Numbers, switches, and numbers in quotes, which is how many devices write them and how NaN
/// and infinity come at all.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::Bool(on) => Some(f64::from(u8::from(*on))),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asset::CLOCK;
    use crate::fixture;

    fn read(payload: &str, status: u32) -> Result<f32, Skip> {
        let mut options = fixture::options();
        (options.inputs[1].scale, options.inputs[1].offset) = (2.0, 1.0);
        let model = Model::new(options).expect("good options");
        let mut record = Record::new(Kind::Mqtt, "plant/a/temperature", payload.to_owned());
        record.status = status;
        Payload::of(&record).column(&model, 1)
    }

    #[test]
    fn a_record_that_feeds_the_clock_too_feeds_it_last() {
        let mut options = fixture::options();
        let together = Source::Mqtt {
            topic: "plant/{asset}/state".to_owned(),
            pointer: String::new(),
        };
        for input in &mut options.inputs {
            input.source = together.clone();
            input.stream = options.scores.clone();
        }
        let model = Model::new(options).expect("good options");
        let source = together.of(&model.assets[0]);
        let bindings = Bindings::new(&model);
        let targets = bindings.targets(0, &Record::new(Kind::Mqtt, source, "1"));
        assert_eq!(targets.len(), model.inputs.len());
        assert_eq!(targets.last().map(|target| target.column), Some(CLOCK));
    }

    #[test]
    fn a_source_feeds_its_asset_and_a_shared_one_feeds_all() {
        let mut options = fixture::options();
        options.assets = vec!["a".to_owned(), "b".to_owned()];
        options.inputs[1].source = Source::Mqtt {
            topic: "plant/hall".to_owned(),
            pointer: String::new(),
        };
        let bindings = Bindings::new(&Model::new(options).expect("good options"));
        let targets = |stream, kind, source: &str| {
            bindings
                .targets(stream, &Record::new(kind, source, "1"))
                .to_vec()
        };
        let one = [Target {
            asset: 1,
            column: 0,
        }];
        let all = [
            Target {
                asset: 0,
                column: 1,
            },
            Target {
                asset: 1,
                column: 1,
            },
        ];
        assert_eq!(targets(0, Kind::Opcua, "b/vibration"), one);
        assert_eq!(targets(1, Kind::Mqtt, "plant/hall"), all);
        assert_eq!(
            targets(1, Kind::Opcua, "plant/hall"),
            [],
            "a kind is not another"
        );
        assert_eq!(
            targets(1, Kind::Opcua, "b/vibration"),
            [],
            "a stream is not another"
        );
        assert_eq!(targets(0, Kind::Score, "b/vibration"), []);
    }

    #[test]
    fn numbers_are_found_and_scaled() {
        for good in [
            r#"{"value":4}"#,
            r#"{"value":" 4.0 "}"#,
            r#"{"x":[],"value":4e0}"#,
        ] {
            assert_eq!(read(good, 0), Ok(9.0), "{good}");
        }
        assert_eq!(read(r#"{"value":true}"#, 0), Ok(3.0));
    }

    #[test]
    fn what_is_no_good_number_is_refused_with_its_reason() {
        for unreadable in [
            "",
            "4",
            "{",
            r#"{"value":null}"#,
            r#"{"value":[4]}"#,
            r#"{"value":"x"}"#,
        ] {
            assert_eq!(read(unreadable, 0), Err(Skip::Unreadable), "{unreadable}");
        }
        for infinite in [
            r#"{"value":"NaN"}"#,
            r#"{"value":"-inf"}"#,
            r#"{"value":1e39}"#,
        ] {
            assert_eq!(read(infinite, 0), Err(Skip::NotFinite), "{infinite}");
        }
        for bad in [0x8000_0000, 0x4090_0000] {
            assert_eq!(read(r#"{"value":4}"#, bad), Err(Skip::BadStatus));
        }
        assert_eq!(
            read(r#"{"value":4}"#, 0x0000_0400),
            Ok(9.0),
            "Good with info bits is good"
        );
    }
}
