//! Whether inputs still look as they did when the model was trained.
//!
//! Rows are counted in blocks. At the end of each, every column is held against its
//! [`ColumnReference`]: by how many standard deviations its mean has moved, and by the population
//! stability index over the reference's bins,
//!
//! ```text
//! PSI = Σ (actual − expected) · ln(actual ÷ expected)     shares of the rows, each at least 0.0001
//! ```
//! (a rule of thumb: below 0.1 nothing has changed, above 0.25 something has). Drift is raised for
//! an asset when one column is beyond either threshold, and cleared by a block in which all are
//! back below the lower ones. What is counted survives a restart, as windows do.

use crate::config::{COLUMNS_MAX, Problem};
use serde::{Deserialize, Serialize};

/// Most bins of a reference.
pub(crate) const BINS_MAX: usize = 12;
/// Most rows of a block: what a bin counts stays within three bytes.
const ROWS_MOST: u32 = 1_000_000;
/// An empty bin would make the index infinite.
const SHARE_MIN: f64 = 1e-4;
/// Where a column never varied, any change is infinitely many standard deviations.
const SHIFT_MOST: f64 = 1e6;

/// When inputs count as drifted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DriftOptions {
    /// Rows of a block.
    pub rows: u32,
    /// Raised at or above, and cleared below: the population stability index.
    pub psi: Hysteresis,
    /// The same for the shift of the mean, in standard deviations.
    pub mean_shift: Hysteresis,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hysteresis {
    pub raise: f64,
    pub clear: f64,
}

impl Default for DriftOptions {
    fn default() -> Self {
        Self {
            rows: 1_000,
            psi: Hysteresis {
                raise: 0.25,
                clear: 0.1,
            },
            mean_shift: Hysteresis {
                raise: 3.0,
                clear: 2.0,
            },
        }
    }
}

impl DriftOptions {
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut expect = |holds: bool, message: String| {
            if !holds {
                let key = "drift";
                problems.push(Problem { key, message });
            }
        };
        expect(
            (10..=ROWS_MOST).contains(&self.rows),
            format!("{} rows: use 10 to {ROWS_MOST}", self.rows),
        );
        for (name, Hysteresis { raise, clear }) in
            [("psi", self.psi), ("mean_shift", self.mean_shift)]
        {
            expect(
                0.0 < clear && clear <= raise && raise.is_finite(),
                format!(
                    "{name} is raised at {raise} and cleared below {clear}: use 0 < clear <= raise"
                ),
            );
        }
        problems
    }
}

/// What a model's inputs looked like in training: part of its package. One per column of a row,
/// after scaling, in the order of the columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    pub columns: Vec<ColumnReference>,
}

/// One column: its moments, and which share of the rows fell into which bin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnReference {
    pub mean: f64,
    pub std: f64,
    /// Between the bins, rising; `numpy.digitize` puts values into the same ones.
    pub edges: Vec<f64>,
    /// One more than there are edges; they add up to 1.
    pub shares: Vec<f64>,
}

impl Reference {
    /// From a package's JSON, for rows of so many columns.
    pub(crate) fn parse(text: &str, columns: usize) -> Result<Self, String> {
        let reference: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        reference.check(columns)?;
        Ok(reference)
    }

    /// Whether it describes rows of so many columns, and can be true.
    pub fn check(&self, columns: usize) -> Result<(), String> {
        if self.columns.len() != columns {
            return Err(format!(
                "it describes {} columns, the model has {columns}",
                self.columns.len()
            ));
        }
        for (index, column) in self.columns.iter().enumerate() {
            column
                .check()
                .map_err(|why| format!("column {index}: {why}"))?;
        }
        Ok(())
    }

    /// What the counts of a block depend on: another one's mean something else.
    fn fingerprint(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hash = DefaultHasher::new();
        for column in &self.columns {
            let numbers = [column.mean, column.std];
            let numbers = numbers.iter().chain(&column.edges).chain(&column.shares);
            numbers.for_each(|number| number.to_bits().hash(&mut hash));
        }
        hash.finish()
    }
}

impl ColumnReference {
    fn check(&self) -> Result<(), String> {
        let Self {
            mean,
            std,
            edges,
            shares,
        } = self;
        if !mean.is_finite() || !std.is_finite() || *std < 0.0 {
            return Err(format!("a mean of {mean} with a std of {std}"));
        }
        let rising = edges.windows(2).all(|pair| pair[0] < pair[1]);
        if !rising || !edges.iter().all(|edge| edge.is_finite()) {
            return Err("edges must rise".to_owned());
        }
        if shares.len() != edges.len() + 1 || shares.len() > BINS_MAX {
            return Err(format!(
                "{} shares for {} edges: one more share than edges, at most {BINS_MAX}",
                shares.len(),
                edges.len()
            ));
        }
        let sum: f64 = shares.iter().sum();
        if shares.iter().any(|share| !(0.0..=1.0).contains(share)) || (sum - 1.0).abs() > 0.001 {
            return Err(format!("shares must be parts of 1, they add up to {sum}"));
        }
        Ok(())
    }

    fn psi(&self, bins: &[u32], rows: u32) -> f64 {
        let terms = self.shares.iter().zip(bins).map(|(expected, count)| {
            let expected = expected.max(SHARE_MIN);
            let actual = (f64::from(*count) / f64::from(rows)).max(SHARE_MIN);
            (actual - expected) * (actual / expected).ln()
        });
        terms.sum()
    }

    fn mean_shift(&self, mean: f64) -> f64 {
        if mean == self.mean {
            return 0.0;
        }
        let shift = (mean - self.mean) / self.std.max(f64::MIN_POSITIVE);
        shift.clamp(-SHIFT_MOST, SHIFT_MOST)
    }
}

/// One asset's current block. Persisted with the asset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Drift {
    fingerprint: u64,
    raised: bool,
    rows: u32,
    columns: Vec<Running>,
}

/// Bytes of it at most.
pub(crate) const fn drift_bytes_max(columns: usize) -> usize {
    16 + columns * (2 * size_of::<f64>() + 1 + 3 * BINS_MAX)
}
/// The catalog likes its values no larger.
const _: () = assert!(drift_bytes_max(COLUMNS_MAX) <= 4_096);

/// Bytes of memory that it takes at most.
pub(crate) const fn drift_memory_bytes(columns: usize) -> usize {
    columns * (size_of::<Running>() + BINS_MAX * size_of::<u32>())
}

/// Sums over the block's rows, by Welford's method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Running {
    mean: f64,
    squares: f64,
    bins: Vec<u32>,
}

/// A block that raised drift or cleared it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shift {
    pub(crate) raised: bool,
    pub(crate) rows: u32,
    /// All columns, the worst first.
    pub(crate) columns: Vec<ColumnShift>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ColumnShift {
    pub(crate) column: usize,
    pub(crate) psi: f64,
    pub(crate) mean_shift: f64,
    pub(crate) mean: f64,
    pub(crate) std: f64,
}

impl Drift {
    pub(crate) fn new(reference: &Reference) -> Self {
        let running = |column: &ColumnReference| Running {
            mean: 0.0,
            squares: 0.0,
            bins: vec![0; column.shares.len()],
        };
        Self {
            fingerprint: reference.fingerprint(),
            raised: false,
            rows: 0,
            columns: reference.columns.iter().map(running).collect(),
        }
    }

    /// Goes on from what was saved. Of another reference, only what somebody was told remains.
    pub(crate) fn restore(&mut self, saved: Self) {
        if saved.fingerprint == self.fingerprint && saved.columns.len() == self.columns.len() {
            *self = saved;
        } else {
            self.raised = saved.raised;
        }
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.raised
    }

    /// Takes a row; says whether its block changed anything.
    pub(crate) fn observe(
        &mut self,
        row: &[f32],
        reference: &Reference,
        options: &DriftOptions,
    ) -> Option<Shift> {
        self.rows += 1;
        let count = f64::from(self.rows);
        let columns = self.columns.iter_mut().zip(&reference.columns);
        for ((running, reference), value) in columns.zip(row) {
            let value = f64::from(*value);
            let off = value - running.mean;
            running.mean += off / count;
            running.squares += off * (value - running.mean);
            let bin = reference.edges.partition_point(|edge| *edge <= value);
            running.bins[bin] += 1;
        }
        if self.rows < options.rows {
            return None;
        }
        let shift = self.judge(reference, options);
        let raised = self.raised;
        *self = Self::new(reference);
        self.raised = shift.raised;
        (shift.raised != raised).then_some(shift)
    }

    fn judge(&self, reference: &Reference, options: &DriftOptions) -> Shift {
        let held = self.columns.iter().zip(&reference.columns).enumerate();
        let mut columns: Vec<_> = held
            .map(|(column, (running, reference))| ColumnShift {
                column,
                psi: reference.psi(&running.bins, self.rows),
                mean_shift: reference.mean_shift(running.mean),
                mean: running.mean,
                std: (running.squares / f64::from(self.rows)).sqrt(),
            })
            .collect();
        let (psi, shift) = (options.psi, options.mean_shift);
        let beyond = |column: &ColumnShift| {
            (column.psi / psi.raise).max(column.mean_shift.abs() / shift.raise)
        };
        columns.sort_by(|one, other| beyond(other).total_cmp(&beyond(one)));
        let raised = match self.raised {
            false => columns.iter().any(|column| beyond(column) >= 1.0),
            true => columns
                .iter()
                .any(|it| it.psi >= psi.clear || it.mean_shift.abs() >= shift.clear),
        };
        Shift {
            raised,
            rows: self.rows,
            columns,
        }
    }
}

#[cfg(test)]
#[path = "drift_tests.rs"]
mod tests;
