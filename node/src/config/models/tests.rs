use super::*;
use crate::config::tests::{parse, problems};
use skerry_inference::{
    Canary, Difference, Direction, Feature, Fill, Grid, Hold, Model, Pace, Pick, RateLimit,
    Reconstruction, Scaling, Severity, Source, Span,
};

/// Two models: the second reads the first's scores, and has these keys and this first input.
fn with(keys: &str, input: &str) -> String {
    format!(
        r#"[node]
name = "n"
[[stream]]
name = "machines"
topics = ["t/#"]
[[model]]
name = "first"
file = "m.onnx"
assets = ["p1", "p2"]
window = 4
inputs = [{{ mqtt = "t/{{asset}}" }}]
threshold = 0.5
[[model]]
name = "m"
file = "m.onnx"
assets = ["p1", "p2"]
inputs = [{input}, {{ model = "first" }}]
{keys}
"#
    )
}

const VIBRATION: &str = r#"{ mqtt = "t/{asset}" }"#;

fn model(keys: &str, input: &str) -> Model {
    let config = parse(&with(keys, input)).unwrap();
    config.models.models[1].clone()
}

fn found(keys: &str, input: &str) -> Vec<String> {
    problems(&with(keys, input))
}

#[test]
fn windows_by_time_are_rows_of_the_grid() {
    let by_time = model(
        "threshold = 1\nwindow = \"10m\"\nevery = \"30s\"\ngrid = \"1s\"\nlate = \"2s\"",
        VIBRATION,
    );
    assert_eq!((by_time.rows, by_time.step, by_time.span), (600, 30, None));
    let grid = Grid {
        period: Duration::from_secs(1),
        late: Duration::from_secs(2),
        report_late: false,
    };
    assert_eq!(by_time.pace, Pace::Grid(grid));
    let summary = parse(&with("threshold = 1\nwindow = 4\ngrid = \"1s\"", VIBRATION)).unwrap();
    let summary = summary.summary(Path::new("skerry.toml"));
    assert!(
        summary.contains("m: 2 windows of 4 x 2 on a grid of 1s, "),
        "{summary}"
    );

    let features = r#"{ mqtt = "t/{asset}", features = ["rms"], bands = [[1, 4.5]], rate = 10 }"#;
    let keys = "threshold = 1\nwindow = \"10s\"\nevery = \"5s\"\nrows_max = 100";
    let plain = model(keys, features);
    let span = Span {
        window: Duration::from_secs(10),
        every: Duration::from_secs(5),
    };
    assert_eq!((plain.rows, plain.span), (100, Some(span)));
    assert_eq!(plain.tensor(), (1, 3), "two features, and the last score");
    let band = Feature::Band {
        low_hz: 1.0,
        high_hz: 4.5,
    };
    assert_eq!(plain.inputs[0].features, [Feature::Rms, band]);
}

#[test]
fn what_does_not_go_together_is_told_at_its_key() {
    for (keys, input, told) in [
        (
            "window = \"10s\"\nevery = \"3s\"\ngrid = \"2s\"",
            VIBRATION,
            "every: 3s is no multiple",
        ),
        (
            "window = \"10s\"\nevery = \"5s\"",
            VIBRATION,
            "rows_max: is missing",
        ),
        (
            "window = \"10s\"\nevery = \"5s\"\nrows_max = 9",
            VIBRATION,
            "window: a window by time",
        ),
        (
            "window = 4\nlate = \"2s\"",
            VIBRATION,
            "late: is for a model with a `grid`",
        ),
        (
            "window = 4\ngrid = \"1s\"\nlate = \"40s\"",
            VIBRATION,
            "late: 40s is more than 32",
        ),
        (
            "window = 4\ngrid = \"1s\"",
            r#"{ mqtt = "t/{asset}", fill = "linear" }"#,
            "late: `linear` needs the value after",
        ),
        (
            "window = 4",
            r#"{ mqtt = "t/{asset}", mean = 1 }"#,
            "mean: takes `std` with it",
        ),
        (
            "window = 4",
            r#"{ mqtt = "t/{asset}", burst = 9 }"#,
            "inputs: t/{asset}: a burst becomes",
        ),
        (
            "window = 4",
            r#"{ mqtt = "t/{asset}", bands = [[1, 2]] }"#,
            "inputs: t/{asset}: a band needs the sampling `rate`",
        ),
        (
            "window = 4",
            r#"{ model = "m" }"#,
            "inputs: its scores would depend on themselves",
        ),
        (
            "window = 4",
            r#"{ model = "x" }"#,
            "inputs[0].model: no [[model]] is named `x`",
        ),
        (
            "window = 4",
            r#"{ model = "first", asset = "p3" }"#,
            "inputs: `first` has no asset `p3`",
        ),
    ] {
        let found = found(&format!("threshold = 1\n{keys}"), input);
        assert!(
            found.len() == 1 && found[0].contains(told),
            "{told}: {found:#?}"
        );
    }
}

#[test]
fn a_chain_reads_the_stream_that_the_scores_go_to() {
    let text = with("threshold = 1\nwindow = 4", VIBRATION);
    let text = text.replace("threshold = 0.5", "threshold = 0.5\nscores = \"machines\"");
    let config = parse(&text).unwrap();
    let input = &config.models.models[1].inputs[1];
    assert_eq!(input.stream.as_str(), "machines");
    let source = Source::Model {
        model: "first".to_owned(),
        asset: "{asset}".to_owned(),
    };
    assert_eq!(input.source, source);
}

#[test]
fn alerts_have_levels_a_direction_a_hold_and_a_limit() {
    let life = model(
        r#"window = 4
kind = "rul"
hold = "5m"
rate_limit = { alerts = 3, per = "1h" }
rate_limit_all = { alerts = 9, per = "1h" }
levels = [{ threshold = 40, clear = 50, severity = "warning" }, { threshold = 10, severity = "critical" }]"#,
        VIBRATION,
    );
    let alerting = &life.alerting;
    assert_eq!(alerting.direction, Direction::Below);
    assert_eq!(alerting.hold, Hold::Time(Duration::from_secs(300)));
    let rate = RateLimit {
        alerts: 3,
        per: Duration::from_secs(3_600),
    };
    assert_eq!(alerting.rate, Some(rate));
    assert_eq!(alerting.rate_all.map(|limit| limit.alerts), Some(9));
    let levels: Vec<_> = alerting
        .levels
        .iter()
        .map(|level| (level.severity, level.raise, level.clear))
        .collect();
    assert_eq!(
        levels,
        [
            (Severity::Warning, 40.0, 50.0),
            (Severity::Critical, 10.0, 10.0)
        ]
    );
    let class = model(
        "window = 4\nkind = \"class\"\nalert_on = [\"worn\"]",
        VIBRATION,
    );
    assert_eq!(class.alerting.classes, ["worn"]);
    let told = found(
        "window = 4\nthreshold = 1\nlevels = [{ threshold = 1 }]",
        VIBRATION,
    );
    let keys: Vec<_> = told.iter().map(|it| it.contains("levels")).collect();
    assert_eq!(keys, [true, true], "{told:#?}");
}

#[test]
fn inputs_are_scaled_and_filled_as_they_say() {
    let input = r#"{ mqtt = "t/{asset}", mean = 2, std = 0.5, fill = "drop" }"#;
    let scaled = model("window = 4\nthreshold = 1\ngrid = \"1s\"", input);
    let (input, other) = (&scaled.inputs[0], &scaled.inputs[1]);
    assert_eq!(
        input.scaling,
        Scaling::Standard {
            mean: 2.0,
            std: 0.5
        }
    );
    assert_eq!((input.fill, other.fill), (Fill::Drop, Fill::Hold));
    let psi = |keys: &str| {
        let keys = format!("window = 4\nthreshold = 1\n{keys}");
        model(&keys, VIBRATION).drift.map(|drift| drift.psi.raise)
    };
    assert_eq!(psi(""), Some(0.25));
    assert_eq!(psi("drift = { psi = 0.5 }"), Some(0.5));
    assert_eq!(psi("watch_drift = false"), None);
}

#[test]
fn what_runs_beside_a_version_and_how_far_it_may_differ() {
    let canary = |keys: &str| {
        let model = model(&format!("window = 4\nthreshold = 1\n{keys}"), VIBRATION);
        (model.canary, model.shadow.clone())
    };
    assert_eq!(canary(""), (None, None));
    let (default, shadow) = canary("shadow = \"1.2\"\ncanary = {}");
    assert_eq!(default, Some(Canary::default()));
    assert_eq!(shadow.as_deref(), Some("1.2"));
    let own = "canary = { windows = 50, difference_max = 0.1, differing_max = \"2%\", time_max = \"3h\" }";
    let own = canary(own).0;
    let told = Canary {
        windows: 50,
        difference_max: Some(Difference::Absolute(0.1)),
        differing_percent_max: 2.0,
        time_max: Duration::from_secs(3 * 3_600),
    };
    assert_eq!(own, Some(told));
    let share = canary("canary = { difference_max = \"5 %\" }").0;
    let share = share.and_then(|canary| canary.difference_max);
    assert_eq!(share, Some(Difference::Percent(5.0)));
    for (keys, told) in [
        ("shadow = \"../x\"", "shadow: \"../x\" is no version"),
        (
            "canary = { differing_max = 1 }",
            "canary.differing_max: must be a share",
        ),
        (
            "canary = { difference_max = -1 }",
            "canary.difference_max: must be at least 0",
        ),
        (
            "canary = { time_max = \"0s\" }",
            "canary.time_max: must be between 1s and 1year, not",
        ),
        (
            "canary = { windows = 0 }",
            "canary.windows: must be between 1 and 1000000",
        ),
    ] {
        let found = found(&format!("window = 4\nthreshold = 1\n{keys}"), VIBRATION);
        assert!(
            found.len() == 1 && found[0].contains(told),
            "{told}: {found:#?}"
        );
    }
}

#[test]
fn a_score_is_a_number_or_how_far_a_reconstruction_is_off() {
    let pick = |output: &str| {
        let keys = format!("window = 4\nthreshold = 1\noutput = {{ {output} }}");
        model(&keys, VIBRATION).output.pick.clone()
    };
    assert_eq!(pick("index = 2"), Pick::Index(2));
    let absolute = Pick::Error(Reconstruction::MeanAbsolute);
    assert_eq!(pick("reconstruction = \"mae\""), absolute);
    let both = "window = 4\nthreshold = 1\noutput = { class = \"a\", reconstruction = \"mse\" }";
    let told = "output.reconstruction: says what `class` says too";
    let found = found(both, VIBRATION);
    assert!(found.len() == 1 && found[0].contains(told), "{found:#?}");
}

const MODEL: &str = r#"[node]
name = "n"
[[stream]]
name = "machines"
[[opcua]]
name = "plc"
endpoint = "opc.tcp://127.0.0.1:4840"
stream = "machines"
nodes = [{ name = "p1/x", id = "ns=2;s=X" }, { name = "p2/x", id = "ns=2;s=Y" }]
[[model]]
name = "m"
file = "m.onnx"
assets = ["p1", "p2"]
window = 4
inputs = [{ opcua = "{asset}/x" }, { mqtt = "t/{asset}", pointer = "/v", scale = 2 }]
threshold = 0.5
[kafka]
brokers = ["k:9092"]
"#;

#[test]
fn a_model_is_bound_to_the_streams_its_sources_are_logged_in() {
    let config = parse(MODEL).unwrap();
    let model = &config.models.models[0];
    let streams: Vec<&str> = model
        .inputs
        .iter()
        .map(|input| input.stream.as_str())
        .collect();
    assert_eq!(streams, ["machines", "default"]);
    assert_eq!(model.file, Path::new("site/m.onnx"));
    let mqtt = parse(&MODEL.replace("[kafka]", "[mqtt]\n[kafka]"))
        .unwrap()
        .mqtt
        .unwrap();
    let republished: Vec<&str> = mqtt
        .republish
        .iter()
        .map(|stream| stream.as_str())
        .collect();
    assert_eq!(
        republished,
        ["alerts", "scores"],
        "by default, what models write"
    );
    let readers = |name: &str| {
        let streams = &config.store.streams;
        streams
            .iter()
            .find(|s| s.name.as_str() == name)
            .unwrap()
            .readers
            .clone()
    };
    assert_eq!(readers("machines"), ["uplink"]);
    assert_eq!(readers("alerts"), ["uplink"]);
}

#[test]
fn a_model_without_its_source_is_a_problem_of_that_input() {
    let found = problems(&MODEL.replace("p2/x", "p3/x"));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].starts_with("15: model[0].inputs[0].opcua: no [[opcua]]"),
        "{found:#?}"
    );
    let found = problems(&MODEL.replace("threshold = 0.5", "threshold = 0.5\nclear = 0.9"));
    assert!(found[0].starts_with("17: model[0].clear: "), "{found:#?}");
}

#[test]
fn the_score_is_chosen_among_a_models_numbers() {
    let with =
        |output: &str| MODEL.replace("threshold = 0.5", &format!("threshold = 0.5\n{output}"));
    let output = |text: &str| parse(&with(text)).unwrap().models.models[0].output.clone();
    assert_eq!(output(""), Output::default());
    let chosen = output(r#"output = { name = "probabilities", index = 1 }"#);
    assert_eq!(chosen.name.as_deref(), Some("probabilities"));
    assert_eq!(chosen.pick, Pick::Index(1));
    let chosen = output(r#"output = { class = "fault" }"#);
    assert_eq!(chosen.pick, Pick::Class("fault".to_owned()));
    let found = problems(&with(r#"output = { class = "fault", index = 1 }"#));
    assert!(
        found[0].starts_with("17: model[0].output.class: "),
        "{found:#?}"
    );
}

#[test]
fn the_summary_names_everything_that_will_run() {
    let config = parse(MODEL).unwrap();
    let summary = config.summary(Path::new("skerry.toml"));
    for part in [
        "machines",
        "plc: 2 nodes",
        "m: 2 windows of 4 x 2",
        "k:9092",
        "127.0.0.1:9810",
    ] {
        assert!(summary.contains(part), "{part} is not in\n{summary}");
    }
}
