//! A model by itself, without a log or a thread of its own: for what measures or compares it.

use crate::graph::{self, Refusal};
use crate::output::Output;
use crate::runner::Runner;

/// A loaded model. Whatever its file does wrong, it does here: see [`crate::run`] for a node.
pub struct Scorer(Box<dyn Runner>);

impl Scorer {
    /// # Errors
    /// Why the file is no model for windows of `rows` × `columns`, in words.
    pub fn load(
        bytes: &[u8],
        rows: usize,
        columns: usize,
        output: &Output,
    ) -> Result<Self, String> {
        match graph::load(bytes, rows, columns, output) {
            Ok(runner) => Ok(Self(runner)),
            Err(Refusal::NotAModel(reason) | Refusal::Unsupported(reason)) => Err(reason),
            Err(Refusal::Shape { wants }) => Err(format!("it wants {wants}")),
            Err(Refusal::Output { got }) => Err(format!("it answers {got}")),
        }
    }

    /// The score of a window, given row by row.
    ///
    /// # Errors
    /// What stopped the model, in words.
    pub fn score(&mut self, window: &[f32]) -> Result<f32, String> {
        self.0.run(window).map(|score| score.value)
    }
}
