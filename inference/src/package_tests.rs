use super::*;
use crate::alert::Hold;
use crate::config::ModelOptions;
use crate::fixture;
use crate::output::Output;
use serde_json::Value;
use std::path::PathBuf;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("models/bearing")
        .join(name)
}

fn shipped_json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(shipped(name)).unwrap()).unwrap()
}

/// The shipped model's binding, with another file in a directory of its own.
fn with_file(bytes: &[u8]) -> (tempfile::TempDir, ModelOptions) {
    let directory = tempfile::tempdir().unwrap();
    let mut options = fixture::pumps();
    options.file = directory.path().join("bearing.onnx");
    std::fs::write(&options.file, bytes).unwrap();
    (directory, options)
}

fn check(options: ModelOptions) -> Result<ModelInfo, Error> {
    Model::new(options).unwrap().check(&fixture::host())
}

#[test]
fn the_shipped_model_agrees_with_onnxruntime() {
    let mut options = fixture::pumps();
    options.file = shipped("bearing.onnx");
    let (mut runner, _) = load(&Model::new(options.clone()).unwrap().order()).unwrap();
    let golden: Golden = serde_json::from_value(shipped_json("golden.json")).unwrap();
    assert!(golden.cases.len() >= 8 && golden.tolerance <= 1e-4);
    for case in &golden.cases {
        let got = runner.run(&case.input.concat()).unwrap();
        assert!(
            (got.value - case.output).abs() < 1e-4,
            "{got:?} where onnxruntime says {}",
            case.output
        );
    }
    let info = check(options).unwrap();
    assert_eq!(info.golden_cases, Some(golden.cases.len()));
    assert_eq!((info.rows, info.columns), (32, 4));
}

/// Whoever trains anew commits all three files, or none.
#[test]
fn the_shipped_files_belong_together() {
    let sha256 = hex(&Sha256::digest(
        std::fs::read(shipped("bearing.onnx")).unwrap(),
    ));
    for name in ["metrics.json", "golden.json"] {
        assert_eq!(shipped_json(name)["sha256"], sha256.as_str(), "{name}");
    }
    let metrics = shipped_json("metrics.json");
    let alerting = &metrics["alerting"];
    let ours = fixture::pumps().alerting;
    let hold = alerting["hold"].as_u64().and_then(|it| it.try_into().ok());
    assert_eq!(hold.map(Hold::Scores), Some(ours.hold));
    let raise = f64::from(ours.levels[0].raise);
    assert!((alerting["threshold"].as_f64().unwrap() - raise).abs() < 1e-6);
}

#[test]
fn what_is_no_model_is_refused_with_its_path() {
    let whole = std::fs::read(shipped("bearing.onnx")).unwrap();
    let mut cases: Vec<(String, Vec<u8>)> = vec![
        ("empty".to_owned(), Vec::new()),
        ("text".to_owned(), b"this is not a model\n".to_vec()),
        ("zeros".to_owned(), vec![0; 4096]),
    ];
    for share in 1..16 {
        let at = whole.len() * share / 16;
        cases.push((format!("the first {at} bytes"), whole[..at].to_vec()));
    }
    for (case, bytes) in cases {
        let (_directory, options) = with_file(&bytes);
        let path = options.file.display().to_string();
        let error = check(options).expect_err(&case);
        assert!(error.to_string().starts_with(&path), "{case}: {error}");
    }
}

/// Whatever a damaged file does, it does it on its own thread, and the golden cases or the
/// loader notice. Not every flip is damage: the producer's name may change.
#[test]
fn a_damaged_file_never_answers_wrongly() {
    let whole = std::fs::read(shipped("bearing.onnx")).unwrap();
    let golden: Golden = serde_json::from_value(shipped_json("golden.json")).unwrap();
    let mut options = fixture::pumps();
    options.file = shipped("bearing.onnx");
    let (path, rows, columns) = (options.file.clone(), 32, 4);
    for at in (0..whole.len()).step_by(97) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        let judged = std::panic::catch_unwind(|| {
            let Ok(mut runner) = graph::load(&bytes, rows, columns, &Output::default()) else {
                return;
            };
            if golden.run(&path, &mut *runner).is_ok() {
                for case in &golden.cases {
                    let got = runner.run(&case.input.concat()).unwrap();
                    assert!((got.value - case.output).abs() <= golden.tolerance);
                }
            }
        });
        drop(judged);
    }
}

#[test]
fn a_missing_file_says_which() {
    let mut options = fixture::pumps();
    options.file = shipped("no-such.onnx");
    let error = check(options).unwrap_err();
    assert!(matches!(error, Error::File { .. }) && error.to_string().contains("no-such.onnx"));
}

#[test]
fn a_window_of_another_shape_is_refused_with_both_shapes() {
    let mut rows = fixture::pumps();
    rows.rows = 16;
    let mut columns = fixture::pumps();
    columns.inputs.pop();
    for (options, gives) in [(rows, "[1, 16, 4]"), (columns, "[1, 32, 3]")] {
        let error = check(options).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("32, 4] of F32") && text.contains(gives),
            "{text}"
        );
    }
}

#[test]
fn a_golden_file_that_disagrees_keeps_the_model_out() {
    let model = std::fs::read(shipped("bearing.onnx")).unwrap();
    let wrong = |change: &dyn Fn(&mut Value)| {
        let (directory, options) = with_file(&model);
        let mut golden = shipped_json("golden.json");
        change(&mut golden);
        std::fs::write(directory.path().join("golden.json"), golden.to_string()).unwrap();
        check(options)
    };
    assert!(wrong(&|_| ()).is_ok());
    let answer = wrong(&|golden| golden["cases"][4]["output"] = 0.5.into());
    assert!(
        matches!(answer, Err(Error::GoldenAnswer { case: 4, .. })),
        "{answer:?}"
    );
    let digest = wrong(&|golden| golden["sha256"] = "00".into());
    assert!(
        matches!(digest, Err(Error::GoldenFile { .. })),
        "{digest:?}"
    );
    let shape = wrong(&|golden| golden["cases"][0]["input"][3] = serde_json::json!([1.0]));
    assert!(matches!(shape, Err(Error::GoldenFile { .. })), "{shape:?}");
    let none = wrong(&|golden| golden["cases"] = serde_json::json!([]));
    assert!(matches!(none, Err(Error::GoldenFile { .. })), "{none:?}");
    let other = wrong(&|golden| golden["model"] = "other.onnx".into());
    assert_eq!(
        other.unwrap().golden_cases,
        None,
        "it is about another model"
    );
}
