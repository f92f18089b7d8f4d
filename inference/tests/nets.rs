//! Nets as PyTorch's exporters write them, held against onnxruntime over the whole test set of
//! NASA's FD001; where that is absent, over windows that are made up.
//!
//! The files are made by `families/nets.py`; onnxruntime answers live, in `families/answers.py`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use skerry_inference::{Output, Pick, Reconstruction, Scorer};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const ROWS: usize = 30;
const COLUMNS: usize = 14;
/// Of the larger of the answer and the spread of all answers.
const TOLERANCE: f32 = 1e-4;
/// Of the error itself, in which what two runtimes differ by counts for little.
const RECONSTRUCTION_TOLERANCE: f64 = 1e-4;

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families")
}

/// The Python environment that `tests/run` makes.
fn python() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    );
    target.join("venv/bin/python")
}

fn floats(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    let floats = bytes.chunks_exact(4);
    floats
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect()
}

fn load(name: &str, index: usize) -> Scorer {
    picked(name, Pick::Index(index)).unwrap()
}

fn picked(name: &str, pick: Pick) -> Result<Scorer, String> {
    let bytes = std::fs::read(here().join(format!("{name}.onnx"))).unwrap();
    let output = Output {
        pick,
        ..Output::default()
    };
    Scorer::load(&bytes, ROWS, COLUMNS, &output)
}

const NETS: [&str; 11] = [
    "dense_auto_encoder",
    "conv_auto_encoder",
    "conv_auto_encoder_torchscript",
    "cnn",
    "cnn_torchscript",
    "lstm",
    "lstm_stacked_torchscript",
    "gru",
    "gru_bidirectional_torchscript",
    "transformer",
    "transformer_pre_norm_torchscript",
];

#[test]
fn nets_answer_as_onnxruntime_does() {
    let folder = tempfile::tempdir().unwrap();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let asked = Command::new(python())
        .arg(here().join("answers.py"))
        .args([&data, folder.path()])
        .args(NETS.map(|name| here().join(format!("{name}.onnx"))))
        .output();
    let missing = match &asked {
        Ok(output) => !output.status.success(),
        Err(_) => true,
    };
    if missing {
        assert!(
            std::env::var_os("CI").is_none(),
            "no onnxruntime: {asked:?}"
        );
        println!("skipped: needs the Python environment that tests/run makes: {asked:?}");
        return;
    }
    let windows = floats(&folder.path().join("windows"));
    let windows: Vec<_> = windows.chunks_exact(ROWS * COLUMNS).collect();
    assert!(windows.len() >= 1_000, "{} windows", windows.len());
    for name in NETS {
        let theirs = floats(&folder.path().join(name));
        let width = theirs.len() / windows.len();
        // An auto-encoder's numbers are as many as the window's: one of each column.
        let indices: &[usize] = if width == 1 { &[0] } else { &[5, 202, 414] };
        for index in indices {
            let mut model = load(name, *index);
            let theirs = theirs.iter().copied().skip(*index).step_by(width);
            let theirs: Vec<f32> = theirs.collect();
            // A number near zero is a difference of larger ones, and as exact as they are.
            let squares = theirs.iter().map(|number| number * number).sum::<f32>();
            let least = (squares / theirs.len() as f32).sqrt();
            let (mut worst, mut quickest) = (0.0_f32, Duration::MAX);
            for (window, theirs) in windows.iter().zip(theirs) {
                let started = Instant::now();
                let ours = model.score(window).unwrap();
                quickest = quickest.min(started.elapsed());
                let off = (ours - theirs).abs() / theirs.abs().max(least);
                assert!(off <= TOLERANCE, "{name}[{index}]: {ours} is not {theirs}");
                worst = worst.max(off);
            }
            println!("{name}[{index}]: off by {worst:e} at most, {quickest:?} at least");
        }
        if width == ROWS * COLUMNS {
            reconstructed(name, &windows, folder.path());
        }
    }
}

/// How far an auto-encoder's answers are from the windows, against numpy over onnxruntime's.
fn reconstructed(name: &str, windows: &[&[f32]], answers: &Path) {
    for (word, error) in [
        ("mse", Reconstruction::MeanSquared),
        ("mae", Reconstruction::MeanAbsolute),
    ] {
        let mut model = picked(name, Pick::Error(error)).unwrap();
        let numpy = std::fs::read(answers.join(format!("{name}.{word}"))).unwrap();
        let (numpy, _) = numpy.as_chunks::<8>();
        assert_eq!(numpy.len(), windows.len());
        let mut worst = 0.0_f64;
        for (window, numpy) in windows.iter().zip(numpy) {
            let (ours, numpy) = (model.score(window).unwrap(), f64::from_le_bytes(*numpy));
            let off = (f64::from(ours) - numpy).abs() / numpy;
            assert!(
                off <= RECONSTRUCTION_TOLERANCE,
                "{name}: {ours} is not {numpy}"
            );
            worst = worst.max(off);
        }
        println!("{name}: {word} off by {worst:e} at most");
    }
}

#[test]
fn nothing_of_one_window_is_left_for_the_next() {
    let window = |seed: usize| -> Vec<f32> {
        let number = |at: usize| 100.0 + ((at * 31 + seed * 17) % 97) as f32;
        (0..ROWS * COLUMNS).map(number).collect()
    };
    for name in NETS {
        let mut used = load(name, 0);
        let first = used.score(&window(0)).unwrap();
        for seed in 1..5 {
            let fresh = load(name, 0).score(&window(seed)).unwrap();
            assert_eq!(used.score(&window(seed)).unwrap(), fresh, "{name}");
        }
        assert_eq!(used.score(&window(0)).unwrap(), first, "{name}");
    }
}

#[test]
fn what_does_not_answer_with_its_window_reconstructs_nothing() {
    for name in ["cnn", "lstm"] {
        let refused = picked(name, Pick::Error(Reconstruction::MeanSquared)).err();
        let refused = refused.unwrap();
        assert!(
            refused.contains("the answer is [1, 1]"),
            "{name}: {refused}"
        );
    }
}
