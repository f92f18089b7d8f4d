//! Which models are measured, and over which windows.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use skerry_inference::{Output, Pick, Scorer};
use std::path::{Path, PathBuf};

use crate::theirs::Theirs;

/// Different windows of a model: more than a processor learns the branches of.
const WINDOWS: usize = 512;
/// Of the larger of an answer and the spread of all.
const TOLERANCE: f32 = 1e-4;

#[derive(Clone, Copy)]
pub(crate) enum Family {
    Trees,
    Linear,
    Dense,
    Convolutional,
    Lstm,
    Gru,
    Transformer,
}

impl Family {
    const fn name(self) -> &'static str {
        match self {
            Self::Trees => "trees",
            Self::Linear => "linear",
            Self::Dense => "dense",
            Self::Convolutional => "1-D CNN",
            Self::Lstm => "LSTM",
            Self::Gru => "GRU",
            Self::Transformer => "transformer",
        }
    }

    /// What the time for one window is to be at most, of theirs.
    pub(crate) const fn aim(self) -> f64 {
        match self {
            Self::Trees | Self::Linear => 0.6,
            Self::Dense | Self::Convolutional => 1.2,
            Self::Gru => 1.5,
            Self::Lstm | Self::Transformer => 2.0,
        }
    }
}

/// What windows are made of.
enum Inputs {
    /// Numbers on the way from one golden case of this file to another.
    Golden(&'static str),
    /// Rows of a test set, of so many numbers.
    Rows(&'static str, usize),
}

pub(crate) struct Model {
    pub(crate) family: Family,
    /// The file below `inference/`, without its ending.
    path: &'static str,
    rows: usize,
    columns: usize,
    inputs: Inputs,
    /// In which output, and which number of it, the score is.
    answer: (usize, usize),
}

const fn shipped(
    family: Family,
    path: &'static str,
    golden: &'static str,
    (rows, columns): (usize, usize),
    answer: (usize, usize),
) -> Model {
    let inputs = Inputs::Golden(golden);
    Model {
        family,
        path,
        rows,
        columns,
        inputs,
        answer,
    }
}

/// A net over FD001's windows.
const fn net(family: Family, path: &'static str, number: usize) -> Model {
    let golden = "models/turbofan/lstm.golden.json";
    shipped(family, path, golden, (30, 14), (0, number))
}

const fn tabular(
    family: Family,
    path: &'static str,
    (rows, columns): (&'static str, usize),
    answer: (usize, usize),
) -> Model {
    Model {
        family,
        path,
        rows: 1,
        columns,
        inputs: Inputs::Rows(rows, columns),
        answer,
    }
}

const AI4I: (&str, usize) = ("tests/families/ai4i.rows", 6);
const FD001: (&str, usize) = ("tests/families/fd001.rows", 32);

use Family::{Convolutional, Dense, Gru, Linear, Lstm, Transformer, Trees};

pub(crate) const MODELS: [Model; 29] = [
    shipped(
        Dense,
        "models/bearing/bearing",
        "models/bearing/golden.json",
        (32, 4),
        (0, 0),
    ),
    shipped(
        Trees,
        "models/press/press",
        "models/press/press.golden.json",
        (48, 4),
        (1, 1),
    ),
    shipped(
        Convolutional,
        "models/turbofan/cnn",
        "models/turbofan/cnn.golden.json",
        (30, 14),
        (0, 0),
    ),
    shipped(
        Lstm,
        "models/turbofan/lstm",
        "models/turbofan/lstm.golden.json",
        (30, 14),
        (0, 0),
    ),
    shipped(
        Trees,
        "models/turbofan/trees",
        "models/turbofan/trees.golden.json",
        (30, 14),
        (0, 0),
    ),
    tabular(Trees, "models/milling/boosted", AI4I, (1, 1)),
    tabular(Trees, "models/milling/forest", AI4I, (1, 1)),
    tabular(Trees, "models/milling/isolation", AI4I, (1, 0)),
    tabular(Linear, "models/milling/logistic", AI4I, (1, 1)),
    tabular(Trees, "tests/families/boosted_regressor", FD001, (0, 0)),
    tabular(Trees, "tests/families/forest_regressor", FD001, (0, 0)),
    tabular(Trees, "tests/families/lightgbm_regressor", FD001, (0, 0)),
    tabular(Trees, "tests/families/xgboost_regressor", FD001, (0, 0)),
    tabular(Trees, "tests/families/isolation", AI4I, (1, 0)),
    tabular(Linear, "tests/families/linear", FD001, (0, 0)),
    tabular(Linear, "tests/families/chain", FD001, (0, 0)),
    tabular(Linear, "tests/families/normalized", FD001, (0, 0)),
    tabular(Linear, "tests/families/logistic_binary", AI4I, (1, 1)),
    net(Dense, "tests/families/dense_auto_encoder", 202),
    net(Convolutional, "tests/families/conv_auto_encoder", 202),
    net(
        Convolutional,
        "tests/families/conv_auto_encoder_torchscript",
        202,
    ),
    net(Convolutional, "tests/families/cnn", 0),
    net(Convolutional, "tests/families/cnn_torchscript", 0),
    net(Lstm, "tests/families/lstm", 0),
    net(Lstm, "tests/families/lstm_stacked_torchscript", 0),
    net(Gru, "tests/families/gru", 0),
    net(Gru, "tests/families/gru_bidirectional_torchscript", 0),
    net(Transformer, "tests/families/transformer", 0),
    net(
        Transformer,
        "tests/families/transformer_pre_norm_torchscript",
        0,
    ),
];

fn below_inference(path: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../inference");
    folder.join(path)
}

impl Model {
    /// Its family, and where its file is.
    pub(crate) fn title(&self) -> String {
        let short = ["models/", "tests/"].iter();
        let short = short.filter_map(|folder| self.path.strip_prefix(folder));
        let short = short.last().unwrap_or(self.path);
        format!("{}, {short}", self.family.name())
    }

    pub(crate) fn named(path: &str) -> Result<&'static Self> {
        let mut models = MODELS.iter();
        let model = models.find(|model| model.path == path);
        model.with_context(|| format!("no model {path}"))
    }

    pub(crate) const fn path(&self) -> &'static str {
        self.path
    }

    /// Numbers in a window.
    pub(crate) const fn width(&self) -> usize {
        self.rows * self.columns
    }

    pub(crate) fn bytes(&self) -> Result<Vec<u8>> {
        let path = below_inference(&format!("{}.onnx", self.path));
        std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    pub(crate) fn ours(&self, bytes: &[u8]) -> Result<Scorer> {
        let pick = match self.answer {
            (0, number) => Pick::Index(number),
            // A classifier's probability or an isolation forest's score, as it is by default.
            _ => Pick::Default,
        };
        let output = Output {
            pick,
            ..Output::default()
        };
        let loaded = Scorer::load(bytes, self.rows, self.columns, &output);
        loaded.map_err(|why| anyhow::anyhow!("{}: {why}", self.path))
    }

    pub(crate) fn theirs(&self, bytes: &[u8], batch: usize) -> Result<Theirs> {
        let loaded = Theirs::load(bytes, batch, self.rows, self.columns);
        loaded.with_context(|| format!("{} in onnxruntime", self.path))
    }

    /// Windows one after the other.
    pub(crate) fn windows(&self) -> Result<Vec<f32>> {
        match self.inputs {
            Inputs::Rows(path, width) => {
                let bytes = std::fs::read(below_inference(path))?;
                let (numbers, _) = bytes.as_chunks::<4>();
                let numbers: Vec<f32> = numbers.iter().map(|it| f32::from_le_bytes(*it)).collect();
                ensure!(numbers.len() >= width, "{path} is empty");
                Ok(numbers.into_iter().cycle().take(WINDOWS * width).collect())
            }
            Inputs::Golden(path) => between(&golden(path)?),
        }
    }

    /// Fails unless both answer every window the same, one by one as in a batch.
    pub(crate) fn agrees(&self, windows: &[f32], batch: usize, theirs: &mut Theirs) -> Result<()> {
        let mut ours = self.ours(&self.bytes()?)?;
        let (mut our_answers, mut their_answers) = (Vec::new(), Vec::new());
        for windows in windows.chunks_exact(batch * self.width()) {
            let (output, number) = self.answer;
            their_answers.extend(theirs.answers(windows, output, number)?);
            for window in windows.chunks_exact(self.width()) {
                our_answers.push(ours.score(window).map_err(anyhow::Error::msg)?);
            }
        }
        ensure!(
            our_answers.len() == their_answers.len(),
            "{}: {} answers for {} windows",
            self.path,
            their_answers.len(),
            our_answers.len()
        );
        let squares: f32 = their_answers.iter().map(|answer| answer * answer).sum();
        let spread = (squares / their_answers.len() as f32).sqrt();
        for (ours, theirs) in our_answers.iter().zip(&their_answers) {
            let off = (ours - theirs).abs() / theirs.abs().max(spread);
            ensure!(off <= TOLERANCE, "{}: {ours} is not {theirs}", self.path);
        }
        Ok(())
    }
}

fn golden(path: &str) -> Result<Vec<Vec<f32>>> {
    let text = std::fs::read_to_string(below_inference(path))?;
    let golden: Value = serde_json::from_str(&text)?;
    let cases = golden["cases"].as_array().context("no golden cases")?;
    let window = |case: &Value| {
        let rows = case["input"].as_array().context("no input")?;
        let rows = rows.iter().flat_map(|row| row.as_array());
        let numbers = rows.flatten().map(|number| number.as_f64());
        let numbers: Option<Vec<f64>> = numbers.collect();
        let numbers = numbers.context("an input that is no number")?;
        Ok(numbers.into_iter().map(|number| number as f32).collect())
    };
    cases.iter().map(window).collect()
}

/// Each window's numbers are somewhere between those of two cases.
fn between(cases: &[Vec<f32>]) -> Result<Vec<f32>> {
    ensure!(!cases.is_empty(), "no golden cases");
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut share = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u64 << 24) as f32
    };
    let mut windows = Vec::new();
    for number in 0..WINDOWS {
        let from = &cases[number % cases.len()];
        let to = &cases[number / cases.len() % cases.len()];
        let numbers = from.iter().zip(to);
        windows.extend(numbers.map(|(from, to)| from + share() * (to - from)));
    }
    Ok(windows)
}
