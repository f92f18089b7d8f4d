//! Options that the tests of this crate start from.

use crate::config::{
    Budget, Input, ModelOptions, STALE_AFTER_DEFAULT, Severity, Source, Thresholds,
};
use crate::isolation::HostCommand;
use crate::output::Output;
use skerry_store::StreamName;
use std::path::Path;

pub(crate) fn stream(name: &str) -> StreamName {
    StreamName::new(name).expect("a good name")
}

pub(crate) fn opcua(name: &str, in_stream: &str) -> Input {
    let source = Source::Opcua {
        name: name.to_owned(),
    };
    Input {
        source,
        stream: stream(in_stream),
        scale: 1.0,
        offset: 0.0,
    }
}

pub(crate) fn mqtt(topic: &str, in_stream: &str) -> Input {
    let source = Source::Mqtt {
        topic: topic.to_owned(),
        pointer: "/value".to_owned(),
    };
    Input {
        source,
        stream: stream(in_stream),
        scale: 1.0,
        offset: 0.0,
    }
}

/// One asset, `a`: vibration from OPC-UA as the clock, temperature from MQTT.
pub(crate) fn options() -> ModelOptions {
    ModelOptions {
        name: "bearing".to_owned(),
        file: Path::new(env!("CARGO_MANIFEST_DIR")).join("models/bearing/bearing.onnx"),
        assets: vec!["a".to_owned()],
        rows: 32,
        step: 8,
        inputs: vec![
            opcua("{asset}/vibration", "machines"),
            mqtt("plant/{asset}/temperature", "telemetry"),
        ],
        stale_after: STALE_AFTER_DEFAULT,
        output: Output::default(),
        thresholds: Thresholds {
            raise: 0.8,
            clear: 0.6,
            hold: 2,
        },
        severity: Severity::Warning,
        budget: Budget::default(),
        scores: stream("scores"),
        alerts: stream("alerts"),
    }
}

/// The shipped model's binding for the simulated plant's pumps.
pub(crate) fn pumps() -> ModelOptions {
    let mut options = options();
    options.assets = ["pump1", "pump2", "pump3"].map(str::to_owned).to_vec();
    options.inputs = vec![
        opcua("{asset}/vibration", "machines"),
        mqtt("plant/{asset}/temperature", "telemetry"),
        opcua("{asset}/current", "machines"),
        opcua("{asset}/speed", "machines"),
    ];
    options
}

/// This test program as the child that models run in.
pub(crate) fn host() -> HostCommand {
    HostCommand::this_program(["--exact", "fixture::child", "--ignored", "--nocapture"])
}

/// What [`host`] starts.
#[test]
#[ignore = "other tests start it"]
fn child() {
    crate::serve_host().unwrap();
}
