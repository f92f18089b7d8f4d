//! From the bytes of an ONNX file to something that scores windows.

use crate::output::Output;
use crate::runner::Runner;
use crate::tract;

/// Why a file cannot be run, in the words of its reader.
#[derive(Debug)]
pub(crate) enum Refusal {
    NotAModel(String),
    /// A whole model, but not one that this program runs.
    Unsupported(String),
    Shape {
        wants: String,
    },
    Output {
        got: String,
    },
}

/// Reads a model that takes `rows` × `columns` numbers, row by row: as one input of shape
/// `[1, rows, columns]` or `[1, rows * columns]`, or of one row as an input per column.
pub(crate) fn load(
    bytes: &[u8],
    rows: usize,
    columns: usize,
    output: &Output,
) -> Result<Box<dyn Runner>, Refusal> {
    tract::load(bytes, rows, columns, output)
}
