//! From records to columns: which record feeds which columns of which asset, and with what.

use crate::asset::Skip;
use crate::config::Model;
use crate::feature::Features;
use crate::input::{Burst, Source};
use serde_json::Value;
use skerry_store::{Kind, Record};
use std::collections::HashMap;
use std::ops::Range;

/// What one input gives one asset, both by index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) asset: usize,
    pub(crate) input: usize,
    pub(crate) columns: Range<usize>,
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
    scores: HashMap<String, Vec<Target>>,
}

impl Bindings {
    pub(crate) fn new(model: &Model) -> Self {
        let names = model.streams();
        let mut streams: Vec<Sources> = names.iter().map(|_| Sources::default()).collect();
        // The clock, column 0, comes last: a record that feeds it and others at once makes a row
        // of its own values, not of the record before it.
        let mut end = model.columns();
        for (index, input) in model.inputs.iter().enumerate().rev() {
            let columns = end - input.columns()..end;
            end = columns.start;
            let stream = names.iter().position(|name| *name == input.stream);
            let sources = &mut streams[stream.expect("the model's streams are its inputs'")];
            let targets = match input.source {
                Source::Opcua { .. } => &mut sources.opcua,
                Source::Mqtt { .. } => &mut sources.mqtt,
                Source::Model { .. } => &mut sources.scores,
            };
            for (asset, name) in model.assets.iter().enumerate() {
                let source = input.source.of(name);
                targets.entry(source).or_default().push(Target {
                    asset,
                    input: index,
                    columns: columns.clone(),
                });
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
            Kind::Score => &sources.scores,
            Kind::Alert | Kind::Gap | Kind::Node => return &[],
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

    /// What one input makes of it, a value for each of its columns, into `values`.
    pub(crate) fn read(
        &self,
        model: &Model,
        input: usize,
        features: &mut Features,
        values: &mut Vec<f32>,
    ) -> Result<(), Skip> {
        let input = &model.inputs[input];
        let parsed = self.parsed.as_ref().map_err(|skip| *skip)?;
        let found = parsed.pointer(input.source.pointer());
        let found = found.ok_or(Skip::Unreadable)?;
        let scaled = |value: &Value| number(value).map(|value| input.scaling.apply(value));
        match input.burst {
            None => values.push(scaled(found).ok_or(Skip::Unreadable)? as f32),
            Some(Burst { samples_max }) => {
                let samples = found.as_array().ok_or(Skip::Unreadable)?;
                if samples.is_empty() || samples.len() > samples_max {
                    return Err(Skip::Unreadable);
                }
                let samples: Option<Vec<f64>> = samples.iter().map(scaled).collect();
                let samples = samples.ok_or(Skip::Unreadable)?;
                features.compute(&input.features, &samples, input.rate_hz, values);
            }
        }
        if values.iter().all(|value| value.is_finite()) {
            Ok(())
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
    use crate::feature::Feature;
    use crate::fixture;
    use crate::input::{Input, Scaling};

    fn read(payload: &str, status: u32) -> Result<f32, Skip> {
        let mut options = fixture::options();
        options.inputs[1].scaling = Scaling::Linear {
            scale: 2.0,
            offset: 1.0,
        };
        let model = Model::new(options).expect("good options");
        let mut record = Record::new(Kind::Mqtt, "plant/a/temperature", payload.to_owned());
        record.status = status;
        let mut values = Vec::new();
        Payload::of(&record).read(&model, 1, &mut Features::default(), &mut values)?;
        assert_eq!(values.len(), 1);
        Ok(values[0])
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
        assert_eq!(
            targets.last().map(|target| target.columns.clone()),
            Some(CLOCK..CLOCK + 1)
        );
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
        let target = |asset, input| Target {
            asset,
            input,
            columns: input..input + 1,
        };
        let one = [target(1, 0)];
        let all = [target(0, 1), target(1, 1)];
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

    /// A model whose first input is a burst of two features, and whose second follows another's
    /// scores.
    fn mixed() -> Model {
        let mut options = fixture::options();
        options.inputs[0] = Input {
            features: vec![Feature::Mean, Feature::PeakToPeak],
            burst: Some(Burst { samples_max: 4 }),
            ..fixture::mqtt("plant/{asset}/burst", "telemetry")
        };
        let scores = Source::Model {
            model: "other".to_owned(),
            asset: "{asset}".to_owned(),
        };
        options.inputs[1] = Input::new(scores, options.scores.clone());
        Model::new(options).expect("good options")
    }

    #[test]
    fn a_burst_gives_a_column_for_each_feature() {
        let model = mixed();
        let bindings = Bindings::new(&model);
        let read = |payload: &str| {
            let record = Record::new(Kind::Mqtt, "plant/a/burst", payload.to_owned());
            let [target] = bindings.targets(0, &record) else {
                panic!("a burst feeds its input alone");
            };
            assert_eq!((target.input, target.columns.clone()), (0, 0..2));
            let mut values = Vec::new();
            let payload = Payload::of(&record);
            payload
                .read(&model, 0, &mut Features::default(), &mut values)
                .map(|()| values)
        };
        assert_eq!(read(r#"{"value":[1,2,"3",6]}"#), Ok(vec![3.0, 5.0]));
        for unreadable in ["[1,2,3,4,5]", "[]", "7", r#"[1,null]"#] {
            let payload = format!(r#"{{"value":{unreadable}}}"#);
            assert_eq!(read(&payload), Err(Skip::Unreadable), "{unreadable}");
        }
        assert_eq!(read(r#"{"value":[1,"NaN"]}"#), Err(Skip::NotFinite));
    }

    #[test]
    fn another_models_scores_feed_the_same_asset() {
        let model = mixed();
        let bindings = Bindings::new(&model);
        let payload = r#"{"model":"other","asset":"a","score":0.25}"#;
        let record = Record::new(Kind::Score, "other/a", payload);
        let [target] = bindings.targets(1, &record) else {
            panic!("the scores feed one input");
        };
        assert_eq!((target.input, target.columns.clone()), (1, 2..3));
        let mut values = Vec::new();
        let read = Payload::of(&record).read(&model, 1, &mut Features::default(), &mut values);
        assert_eq!((read, values), (Ok(()), vec![0.25]));
        let another = Record::new(Kind::Score, "another/a", payload);
        assert_eq!(bindings.targets(1, &another), []);
    }
}
