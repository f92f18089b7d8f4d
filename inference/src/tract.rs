//! The only file that names tract: an ONNX graph, fixed to one window, as a [`Runner`].
//!
//! tract reads the file, works its shapes out and simplifies it. What then runs is a [`Net`]
//! wherever all of the graph's operators are known to it, and tract's own plan elsewhere. Both
//! answer a few windows before the net is let in: one that differs stays out.

mod layers;
mod lower;

use crate::graph::Refusal;
use crate::net::Net;
use crate::output::{Output, Pick, Reading, Reconstruction};
use crate::runner::{Runner, Score};
use std::sync::Arc;
use tract_onnx as vendor;
use tract_onnx::prelude::{
    Datum, Framework, InferenceFact, InferenceModel, InferenceModelExt, IntoRunnable, IntoTValue,
    TVec, Tensor, TractResult, TypedFact, TypedModel, TypedRunnableModel, tvec,
};
use tract_onnx::tract_hir::infer::Factoid;

/// Windows that a net has to answer as tract does, and how far apart the answers may be.
const TRIALS: usize = 4;
const TRIAL_TOLERANCE: f32 = 1e-4;

enum Engine {
    Net(Box<Net>),
    Tract(Tract),
}

struct Tract {
    plan: Arc<TypedRunnableModel>,
    shape: TVec<usize>,
}

struct Plan {
    engine: Engine,
    /// Where the score is: which output, and what of it.
    output: usize,
    reading: Reading,
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
    let mut reader = tract_onnx::onnx().with_ignore_value_info(true);
    layers::register(&mut reader.op_register);
    let model = reader
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
    let model = model
        .with_input_fact(0, InferenceFact::dt_shape(f32::datum_type(), &shape))
        .and_then(InferenceModelExt::into_typed)
        .and_then(TypedModel::into_decluttered)
        .map_err(|error| broken(&format!("{error:#}")))?;
    let fact = model.output_fact(place).map_err(|error| broken(&error))?;
    let reading = match &output.pick {
        Pick::Error(error) => reconstruction(fact, *error, rows, columns)?,
        pick => Reading::Number(index(fact, pick)?),
    };
    let engine = Engine::new(model, shape).map_err(|error| broken(&format!("{error:#}")))?;
    Ok(Box::new(Plan {
        engine,
        output: place,
        reading,
    }))
}

impl Engine {
    fn new(model: TypedModel, shape: TVec<usize>) -> TractResult<Self> {
        let lowered = lower::lower(&model);
        let plan = model.into_optimized()?.into_runnable()?;
        let tract = Tract { plan, shape };
        let mut net = match lowered {
            Ok(net) => net,
            Err(unknown) => {
                tracing::debug!("the graph runs as tract has it, for its {unknown}");
                return Ok(Self::Tract(tract));
            }
        };
        if agree(&mut net, &tract) {
            return Ok(Self::Net(Box::new(net)));
        }
        tracing::warn!("the flattened net answers differently: the graph runs as tract has it");
        Ok(Self::Tract(tract))
    }
}

/// Whether both answer the same windows the same. Where tract fails, so does the model, later
/// and with its reason.
fn agree(net: &mut Net, tract: &Tract) -> bool {
    let len: usize = tract.shape.iter().product();
    (0..TRIALS).all(|trial| {
        // Any numbers will do that are of both signs and not alike.
        let number = |at: usize| ((at * 7919 + trial * 104_729) % 2003) as f32 / 400.0 - 2.5;
        let window: Vec<f32> = (0..len).map(number).collect();
        let Ok(outputs) = tract.run(&window) else {
            return false;
        };
        net.run(&window).is_ok()
            && outputs.iter().enumerate().all(|(index, theirs)| {
                let ours = net.output(index);
                let scale = theirs
                    .iter()
                    .fold(1e-3_f32, |most, value| most.max(value.abs()));
                let close = |(ours, theirs): (&f32, &f32)| {
                    (ours - theirs).abs() <= TRIAL_TOLERANCE * scale
                        || (ours.is_nan() && theirs.is_nan())
                        || ours == theirs
                };
                ours.len() == theirs.len() && ours.iter().zip(theirs).all(close)
            })
    })
}

impl Tract {
    /// A fresh state each call: a state that is used again carries what a recurrent net
    /// remembers of one window into the next, without an error.
    fn run(&self, window: &[f32]) -> TractResult<Vec<Vec<f32>>> {
        let tensor = Tensor::from_shape(&self.shape, window)?;
        let outputs = self.plan.run(tvec!(tensor.into_tvalue()))?;
        outputs
            .iter()
            .map(|output| layers::floats(output))
            .collect()
    }
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

fn reconstruction(
    fact: &TypedFact,
    error: Reconstruction,
    rows: usize,
    columns: usize,
) -> Result<Reading, Refusal> {
    let dims = fact.shape.as_concrete().unwrap_or_default();
    if fact.datum_type != f32::datum_type() {
        let got = format!("{fact:?}");
        return Err(Refusal::Output { got });
    }
    Reconstruction::check(rows, columns, dims).map_err(Refusal::Unsupported)?;
    Ok(Reading::Error(error))
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
    fn run(&mut self, window: &[f32]) -> Result<Score, String> {
        let outputs;
        let output = match &mut self.engine {
            Engine::Net(net) => {
                net.run(window)?;
                Some(net.output(self.output))
            }
            Engine::Tract(tract) => {
                outputs = tract.run(window).map_err(|error| format!("{error:#}"))?;
                outputs.get(self.output).map(Vec::as_slice)
            }
        };
        let output = output.ok_or("the model gave no output")?;
        let score = self.reading.of(window, output).map(Score::from);
        score.ok_or_else(|| "the model gave a shorter output than it said".to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn decluttered(file: &str, shape: &TVec<usize>) -> TypedModel {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let bytes = std::fs::read(path).unwrap();
        let mut reader = tract_onnx::onnx().with_ignore_value_info(true);
        layers::register(&mut reader.op_register);
        let model = reader.model_for_read(&mut &*bytes).unwrap();
        let fact = InferenceFact::dt_shape(f32::datum_type(), shape);
        let model = model.with_input_fact(0, fact).unwrap();
        model.into_typed().unwrap().into_decluttered().unwrap()
    }

    #[test]
    fn the_nets_of_the_tests_are_flattened() {
        let shape: TVec<usize> = tvec![1, 30, 14];
        for name in [
            "dense_auto_encoder",
            "conv_auto_encoder",
            "cnn",
            "lstm_stacked_torchscript",
            "gru_bidirectional_torchscript",
            "transformer",
        ] {
            let model = decluttered(&format!("tests/families/{name}.onnx"), &shape);
            assert!(lower::lower(&model).is_ok(), "{name}");
            let engine = Engine::new(model, shape.clone()).unwrap();
            assert!(matches!(engine, Engine::Net(_)), "{name}");
        }
    }

    /// Tables for it would take more memory than the model may have.
    #[test]
    fn products_of_large_matrices_stay_with_tract() {
        let model = decluttered("../tests/hostile-models/slow.onnx", &tvec![1, 32, 4]);
        let refused = lower::lower(&model).err().unwrap();
        assert!(refused.contains("[1, 2000, 2000]"), "{refused}");
    }
}
