//! The only file that names tract: an ONNX graph, fixed to one window, as a [`Runner`].

use crate::graph::Refusal;
use crate::output::{Output, Pick};
use crate::runner::{Runner, Score};
use tract_onnx::prelude::{
    Datum, Framework, InferenceFact, InferenceModel, InferenceModelExt, IntoRunnable, IntoTValue,
    TVec, Tensor, TypedFact, TypedRunnableModel, tvec,
};
use tract_onnx::tract_hir::infer::Factoid;

struct Plan {
    plan: std::sync::Arc<TypedRunnableModel>,
    shape: TVec<usize>,
    /// Where the score is: which output, and which number of it.
    output: usize,
    index: usize,
}

/// Reads a graph whose only input is `[1, rows, columns]` or `[1, rows * columns]` of `f32`, and
/// whose score is one number of an output.
pub(crate) fn load(
    bytes: &[u8],
    rows: usize,
    columns: usize,
    output: &Output,
) -> Result<Box<dyn Runner>, Refusal> {
    let broken = |error: &dyn std::fmt::Display| Refusal::NotAModel(first_line(error));

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
    let shape: TVec<usize> = match declared.shape.rank().concretize() {
        Some(2) => tvec![1, rows * columns],
        _ => tvec![1, rows, columns],
    };
    if !accepts(&declared, &shape) {
        return Err(Refusal::Shape {
            wants: describe(&declared),
        });
    }
    let place = outlet(&model, output)?;
    // A symbolic batch would fail at the first run of a recurrent model: fix it here.
    let plan = model
        .with_input_fact(0, InferenceFact::dt_shape(f32::datum_type(), &shape))
        .and_then(InferenceModelExt::into_optimized)
        .map_err(|error| broken(&format!("{error:#}")))?;
    let fact = plan.output_fact(place).map_err(|error| broken(&error))?;
    let index = index(fact, &output.pick)?;
    let plan = plan
        .into_runnable()
        .map_err(|error| broken(&format!("{error:#}")))?;
    Ok(Box::new(Plan {
        plan,
        shape,
        output: place,
        index,
    }))
}

/// Which of the graph's outputs the score is in: the first, unless one is named.
fn outlet(model: &InferenceModel, output: &Output) -> Result<usize, Refusal> {
    let Some(name) = &output.name else {
        return Ok(0);
    };
    let labels: Vec<_> = model
        .outputs
        .iter()
        .map(|outlet| model.outlet_label(*outlet))
        .collect();
    let found = labels.iter().position(|label| *label == Some(name));
    found.ok_or_else(|| Refusal::Output {
        got: format!(
            "{:?} and has no {name:?}",
            labels.iter().flatten().collect::<Vec<_>>()
        ),
    })
}

/// Which number of an output is the score.
fn index(fact: &TypedFact, pick: &Pick) -> Result<usize, Refusal> {
    let count = fact
        .shape
        .as_concrete()
        .map(|dims| dims.iter().product::<usize>());
    if matches!(pick, Pick::Class(_)) {
        let reason = "`output` names a class, and a net names none: use `index`".to_owned();
        return Err(Refusal::Unsupported(reason));
    }
    match (pick, count) {
        _ if fact.datum_type != f32::datum_type() => None,
        (Pick::Default, Some(1)) => Some(0),
        (Pick::Index(index), Some(count)) if *index < count => Some(*index),
        _ => None,
    }
    .ok_or_else(|| Refusal::Output {
        got: format!("{fact:?}"),
    })
}

impl Runner for Plan {
    /// A fresh state each call: a state that is used again carries what a recurrent net
    /// remembers of one window into the next, without an error.
    fn run(&mut self, window: &[f32]) -> Result<Score, String> {
        let tensor =
            Tensor::from_shape(&self.shape, window).map_err(|error| format!("{error:#}"))?;
        let outputs = self
            .plan
            .run(tvec!(tensor.into_tvalue()))
            .map_err(|error| format!("{error:#}"))?;
        let output = outputs.get(self.output).ok_or("the model gave no output")?;
        let view = output
            .to_plain_array_view::<f32>()
            .map_err(|error| format!("{error:#}"))?;
        view.iter()
            .nth(self.index)
            .map(|value| Score::from(*value))
            .ok_or_else(|| "the model gave a shorter output than it said".to_owned())
    }
}

/// Whether the declared input can be this shape: same rank, and each known dimension equal.
fn accepts(declared: &InferenceFact, shape: &[usize]) -> bool {
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
            .is_none_or(|dim| dim == *wanted as i64)
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
