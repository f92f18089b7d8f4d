//! Options that the tests of this crate start from.

use crate::alert::{Alerting, Hold, Severity};
use crate::config::ModelOptions;
use crate::input::{Input, Source};
use crate::isolation::HostCommand;
use skerry_store::StreamName;
use std::path::Path;

pub(crate) fn stream(name: &str) -> StreamName {
    StreamName::new(name).expect("a good name")
}

pub(crate) fn opcua(name: &str, in_stream: &str) -> Input {
    let source = Source::Opcua {
        name: name.to_owned(),
    };
    Input::new(source, stream(in_stream))
}

pub(crate) fn mqtt(topic: &str, in_stream: &str) -> Input {
    let source = Source::Mqtt {
        topic: topic.to_owned(),
        pointer: "/value".to_owned(),
    };
    Input::new(source, stream(in_stream))
}

/// One asset, `a`: vibration from OPC-UA as the clock, temperature from MQTT.
pub(crate) fn options() -> ModelOptions {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/bearing/bearing.onnx");
    let inputs = vec![
        opcua("{asset}/vibration", "machines"),
        mqtt("plant/{asset}/temperature", "telemetry"),
    ];
    let mut options = ModelOptions::new("bearing", file, inputs, 0.8);
    options.assets = vec!["a".to_owned()];
    (options.rows, options.step) = (32, 8);
    options.alerting = Alerting {
        hold: Hold::Scores(2),
        ..Alerting::at(Severity::Warning, 0.8, 0.6)
    };
    options
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
