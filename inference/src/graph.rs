//! From the bytes of an ONNX file to something that scores windows.
//!
//! ```text
//!   bytes ──► proto ──► classical operators, labels or several inputs? ──no──► tract
//!                                     │ yes
//!                                     ▼
//!             feed ──► program: steps over values with fixed places ──► answer
//!            (window)     trees, linear models, support vectors,       (score, class)
//!                         encoders and the operators around them
//! ```
//!
//! What scikit-learn, LightGBM and XGBoost export is run here: trees as flat arrays, and the
//! small set of standard operators that exporters put around them, for one row at a time. Every
//! other net is tract's. Where runtimes read a file differently, or an operator or attribute is
//! not known, the model is refused by name: an answer is onnxruntime's, or there is none.
//!
//! Files are not trusted: counts are bounded before memory is set aside, names must be made
//! before they are used, and a tree in which a branch is led to twice is refused, so that
//! nothing here runs in a circle.

mod answer;
mod arithmetic;
mod attributes;
mod catalogue;
mod encode;
mod ensemble;
mod feed;
mod forest;
mod kernel;
mod labels;
mod linear;
mod mapping;
mod moves;
mod operator;
mod parts;
mod program;
mod proto;
mod reducing;
mod scale;
mod shaping;
mod tensor;
mod transform;
mod wire;

use crate::output::Output;
use crate::runner::{Runner, Score};
use crate::tract;
use answer::Answer;
use feed::Feed;
use program::Program;
#[cfg(any(test, fuzzing))]
pub(crate) use program::VALUES_TOTAL_MAX;
use proto::{Graph, Model};

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
    let model = Model::read(bytes).map_err(Refusal::NotAModel)?;
    if is_net(&model.graph) {
        return tract::load(bytes, rows, columns, output);
    }
    interpret(&model, rows, columns, output)
}

/// The same without tract, whatever it is.
#[cfg(any(test, fuzzing))]
pub(crate) fn interpreted(
    bytes: &[u8],
    rows: usize,
    columns: usize,
    output: &Output,
) -> Result<Box<dyn Runner>, Refusal> {
    let model = Model::read(bytes).map_err(Refusal::NotAModel)?;
    interpret(&model, rows, columns, output)
}

fn interpret(
    model: &Model<'_>,
    rows: usize,
    columns: usize,
    output: &Output,
) -> Result<Box<dyn Runner>, Refusal> {
    let feed = Feed::new(&model.graph, rows, columns).map_err(|wants| Refusal::Shape { wants })?;
    let built = program::build(model, feed).map_err(Refusal::Unsupported)?;
    let answer = Answer::choose(&model.graph, &built, output, (rows, columns))?;
    Ok(Box::new(Classical {
        program: built.program,
        answer,
    }))
}

/// Whether tract runs it: one input of floats, floats out first, and none of the operators that
/// it has not, or has otherwise.
fn is_net(graph: &Graph<'_>) -> bool {
    let mut inputs = feed::inputs(graph);
    let takes_floats = match (inputs.next(), inputs.next()) {
        (Some(input), None) => input.kind == tensor::kind::FLOAT,
        _ => false,
    };
    // The type may be left out.
    let first = graph.outputs.first();
    let gives_floats = first.is_some_and(|output| matches!(output.kind, 0 | tensor::kind::FLOAT));
    let is_classical = graph.nodes.iter().any(|node| node.domain == catalogue::ML);
    takes_floats && gives_floats && !is_classical
}

struct Classical {
    program: Program,
    answer: Answer,
}

impl Runner for Classical {
    fn run(&mut self, window: &[f32]) -> Result<Score, String> {
        self.program.run(window)?;
        self.answer.read(&self.program, window)
    }
}

#[cfg(test)]
mod tests;
