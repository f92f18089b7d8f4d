//! The only file that names tract: an ONNX graph, fixed to one window, as a [`Runner`].

use crate::runner::Runner;
use tract_onnx::prelude::{
    Datum, Framework, InferenceFact, InferenceModelExt, IntoRunnable, IntoTValue, Tensor,
    TypedRunnableModel, tvec,
};
use tract_onnx::tract_hir::infer::Factoid;

/// Why a file cannot be run, in the words of tract or ours.
pub(crate) enum Refusal {
    NotAModel(String),
    Shape { wants: String },
    Output { got: String },
}

struct Plan {
    plan: std::sync::Arc<TypedRunnableModel>,
    shape: [usize; 3],
}

/// Reads a graph whose only input is `[1, rows, columns]` of `f32` and whose first output is one
/// number.
pub(crate) fn load(bytes: &[u8], rows: usize, columns: usize) -> Result<Box<dyn Runner>, Refusal> {
    let broken = |error: &dyn std::fmt::Display| Refusal::NotAModel(first_line(error));
    let shape = [1, rows, columns];

    // Shapes that exporters note between the operators contradict a fixed batch (torch's does);
    // tract infers them itself.
    let model = tract_onnx::onnx()
        .with_ignore_value_info(true)
        .model_for_read(&mut std::io::Cursor::new(bytes))
        .map_err(|error| broken(&format!("{error:#}")))?;
    let [input] = model.inputs[..] else {
        return Err(Refusal::Shape {
            wants: format!("{} inputs", model.inputs.len()),
        });
    };
    let declared = model
        .outlet_fact(input)
        .map_err(|error| broken(&error))?
        .clone();
    if !accepts(&declared, shape) {
        return Err(Refusal::Shape {
            wants: describe(&declared),
        });
    }
    // A symbolic batch would fail at the first run of a recurrent model: fix it here.
    let plan = model
        .with_input_fact(0, InferenceFact::dt_shape(f32::datum_type(), shape))
        .and_then(InferenceModelExt::into_optimized)
        .map_err(|error| broken(&format!("{error:#}")))?;
    let output = plan.output_fact(0).map_err(|error| broken(&error))?;
    let count = output
        .shape
        .as_concrete()
        .map(|dims| dims.iter().product::<usize>());
    if output.datum_type != f32::datum_type() || count != Some(1) {
        return Err(Refusal::Output {
            got: format!("{output:?}"),
        });
    }
    let plan = plan
        .into_runnable()
        .map_err(|error| broken(&format!("{error:#}")))?;
    Ok(Box::new(Plan { plan, shape }))
}

impl Runner for Plan {
    /// A fresh state each call: a state that is used again carries what a recurrent net
    /// remembers of one window into the next, without an error.
    fn run(&mut self, window: &[f32]) -> Result<f32, String> {
        let tensor =
            Tensor::from_shape(&self.shape, window).map_err(|error| format!("{error:#}"))?;
        let outputs = self
            .plan
            .run(tvec!(tensor.into_tvalue()))
            .map_err(|error| format!("{error:#}"))?;
        let output = outputs.first().ok_or("the model gave no output")?;
        let view = output
            .to_plain_array_view::<f32>()
            .map_err(|error| format!("{error:#}"))?;
        view.iter()
            .next()
            .copied()
            .ok_or_else(|| "the model gave an empty output".to_owned())
    }
}

/// Whether the declared input can be this shape: same rank, and each known dimension equal.
fn accepts(declared: &InferenceFact, shape: [usize; 3]) -> bool {
    let type_fits = declared
        .datum_type
        .concretize()
        .is_none_or(|kind| kind == f32::datum_type());
    let dims: Vec<_> = declared.shape.dims().collect();
    let rank_fits = declared.shape.is_open() || dims.len() == shape.len();
    let dims_fit = dims.iter().zip(shape).all(|(dim, wanted)| {
        // Unknown or symbolic dimensions take any size.
        dim.concretize()
            .and_then(|dim| dim.to_i64().ok())
            .is_none_or(|dim| dim == wanted as i64)
    });
    type_fits && rank_fits && dims_fit
}

fn describe(declared: &InferenceFact) -> String {
    let kind = declared.datum_type.concretize();
    let kind = kind.map_or_else(|| "any type".to_owned(), |kind| format!("{kind:?}"));
    let dims = declared.shape.dims().map(|dim| match dim.concretize() {
        Some(dim) => dim.to_string(),
        None => "?".to_owned(),
    });
    format!("[{}] of {kind}", dims.collect::<Vec<_>>().join(", "))
}

/// tract's errors carry a chain and sometimes a whole graph: an operator reads one line.
fn first_line(error: &dyn std::fmt::Display) -> String {
    const CHARS_MAX: usize = 300;
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(CHARS_MAX).collect()
}
