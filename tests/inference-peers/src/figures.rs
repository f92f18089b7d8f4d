//! How figures are printed, and the statistics behind them.

use serde_json::{Value, json};

pub(crate) const PEER: &str = "onnxruntime, one thread";

/// A figure of ours beside one of theirs.
pub(crate) struct Figure<'a> {
    pub(crate) figure: &'a str,
    pub(crate) unit: &'a str,
    pub(crate) ours: f64,
    pub(crate) theirs: f64,
    pub(crate) ratio: f64,
    /// What the ratio is to be at most.
    pub(crate) aim: Option<f64>,
    pub(crate) runs: usize,
}

impl<'a> Figure<'a> {
    /// The medians, and the median of the turns' ratios.
    pub(crate) fn of_turns(figure: &'a str, unit: &'a str, ours: &[f64], theirs: &[f64]) -> Self {
        let ratios = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs);
        Self {
            figure,
            unit,
            ours: median(ours.iter().copied()),
            theirs: median(theirs.iter().copied()),
            ratio: median(ratios),
            aim: None,
            runs: ours.len(),
        }
    }

    pub(crate) fn print(&self) {
        let line: Value = json!({
            "bench": "inference", "figure": self.figure, "unit": self.unit, "ours": self.ours,
            "peer": PEER, "theirs": self.theirs, "ratio": self.ratio, "aim": self.aim,
            "aim_met": self.aim.map(|aim| self.ratio <= aim), "runs": self.runs,
            "commit": std::env::var("SKERRY_COMMIT").unwrap_or_else(|_| "unknown".to_owned()),
        });
        println!("{line}");
    }
}

pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 50)
}

/// The value that so many percent are below.
pub(crate) fn quantile(values: impl IntoIterator<Item = f64>, percent: usize) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() * percent / 100]
}
