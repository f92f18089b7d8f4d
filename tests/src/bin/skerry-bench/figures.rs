//! Figures: how they are printed, and the statistics behind them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use skerry_tests::{Result, ensure, workspace};

/// Prints a figure; what it does not say is null.
pub(crate) fn print(bench: &str, figure: &Value) {
    let mut line = json!({
        "bench": bench, "figure": null, "unit": null, "ours": null, "peer": null, "theirs": null,
        "ratio": null, "aim": null, "aim_met": null, "runs": 1,
        "commit": std::env::var("SKERRY_COMMIT").unwrap_or_else(|_| "unknown".to_owned()),
    });
    for (name, value) in figure.as_object().into_iter().flatten() {
        line[name.as_str()] = value.clone();
    }
    println!("{line}");
}

/// A value of ours and one of a peer for each round.
pub(crate) struct Rounds<'a> {
    pub(crate) figure: &'a str,
    pub(crate) unit: &'a str,
    pub(crate) ours: &'a [f64],
    pub(crate) peer: Option<&'a str>,
    pub(crate) theirs: &'a [f64],
    /// Of the ratio where there is a peer, else of the figure itself.
    pub(crate) aim: Option<Aim>,
}

impl Rounds<'_> {
    /// The medians, and the median of the rounds' ratios: what slows a round down slows both.
    pub(crate) fn figure(&self) -> Value {
        let rounds = self.ours.iter().zip(self.theirs);
        let ratio = median(rounds.map(|(ours, theirs)| ours / theirs));
        let ours = median(self.ours.iter().copied());
        let judged = if self.peer.is_some() { ratio } else { ours };
        json!({
            "figure": self.figure, "unit": self.unit, "ours": ours, "peer": self.peer,
            "theirs": median(self.theirs.iter().copied()), "ratio": ratio,
            "aim": self.aim.map(Aim::value),
            "aim_met": self.aim.zip(judged).map(|(aim, value)| aim.is_met_by(value)),
            "runs": self.ours.len(),
        })
    }
}

/// A folder of this bench's own below the target folder.
pub(crate) fn folder(name: &str) -> Result<PathBuf> {
    let folder = workspace::target().join("bench").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Measures a figure, in a folder of its own, at a bench's scale.
pub(crate) type Measure<S> = fn(&Path, S) -> Result<()>;

/// Measures them all, or `only` one of them. What cannot be measured is printed with its reason
/// and does not keep the others from it.
pub(crate) fn measure<S: Copy>(
    bench: &str,
    figures: &[(&str, Measure<S>)],
    scale: S,
    only: Option<&str>,
) -> Result<()> {
    let mut failed = Vec::new();
    for (name, measure) in figures {
        if only.is_some_and(|only| only != *name) {
            continue;
        }
        let folder = folder(bench)?;
        if let Err(error) = measure(&folder, scale) {
            let why = format!("{error:#}");
            print(bench, &json!({"figure": name, "why": why}));
            failed.push(*name);
        }
        fs::remove_dir_all(folder)?;
    }
    ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}

/// What an aim asks of a figure.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Aim {
    AtLeast(f64),
    AtMost(f64),
}

impl Aim {
    pub(crate) fn value(self) -> f64 {
        let (Self::AtLeast(value) | Self::AtMost(value)) = self;
        value
    }

    pub(crate) fn is_met_by(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(least) => figure >= least,
            Self::AtMost(most) => figure <= most,
        }
    }
}

pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    quantile(values, 0.5)
}

/// The value that a share of the values is below.
pub(crate) fn quantile(values: impl IntoIterator<Item = f64>, share: f64) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a length is an index"
    )]
    let index = (values.len() as f64 * share) as usize;
    values
        .get(index.min(values.len().saturating_sub(1)))
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aim_is_for_the_ratio_or_without_a_peer_for_the_figure() {
        let mut rounds = Rounds {
            figure: "f",
            unit: "u",
            ours: &[2.0, 8.0, 3.0],
            peer: Some("p"),
            theirs: &[1.0, 2.0, 2.0],
            aim: Some(Aim::AtMost(2.5)),
        };
        let figure = rounds.figure();
        assert_eq!(
            (&figure["ours"], &figure["ratio"]),
            (&json!(3.0), &json!(2.0))
        );
        assert_eq!(figure["aim_met"], true);
        (rounds.peer, rounds.theirs) = (None, &[]);
        let figure = rounds.figure();
        assert_eq!(
            (&figure["ratio"], &figure["aim_met"]),
            (&Value::Null, &json!(false))
        );
    }

    #[test]
    fn quantiles_are_values_that_were_there() {
        let values = || (1..=100).map(f64::from);
        assert_eq!(median(values()), Some(51.0));
        assert_eq!(quantile(values(), 0.99), Some(100.0));
        assert_eq!(quantile([7.0], 0.99), Some(7.0));
        assert_eq!(median([]), None);
    }
}
