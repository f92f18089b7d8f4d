//! LSTM, GRU and RNN as ONNX defines them, in place of tract's.
//!
//! tract reads neither `activations` nor `clip` nor `input_forget`: a file with them loads and
//! answers something else. Here each attribute and input is done or refused by its name.

use super::vendor::model::{OnnxOpRegister, ParsingContext, optional_inputs, optional_outputs};
use super::vendor::pb::{AttributeProto, NodeProto};
use super::vendor::tract_hir::internal::{
    Datum, DatumTypeExt, EvalContext, EvalOp, Expansion, InferenceOp, InferenceResult, IntoExp,
    IntoTValue, Op, OutletId, Solver, SpecialOps, StaticName, TDim, TValue, TVec, Tensor,
    TensorProxy, ToDim, TractResult, TypedFact, TypedModel, TypedOp, expand, tvec,
};
use super::vendor::tract_hir::tract_core::internal::anyhow;
use crate::net::{Activation, Cell, Direction, Given, Recurrent, Sizes};

/// Has the reader take its recurrent layers from here.
pub(super) fn register(register: &mut OnnxOpRegister) {
    register.insert("LSTM", read);
    register.insert("GRU", read);
    register.insert("RNN", read);
}

/// A layer as its node describes it; the sizes are its inputs'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layer {
    name: &'static str,
    /// One of each direction.
    cells: Vec<(Cell, Backwards)>,
    bias: Option<usize>,
    lengths: Option<usize>,
    hidden_start: Option<usize>,
    cell_start: Option<usize>,
    /// Which of all states, last hidden states and last cell states the graph reads.
    outputs: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Backwards(bool);

fn read(
    _context: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let layer = Layer::read(node).map_err(|what| {
        let op = &node.op_type;
        anyhow!(
            "{op} {:?} has {what}, which this program does not run",
            node.name
        )
    })?;
    Ok((expand(layer), vec![]))
}

impl Layer {
    /// Refuses with the name of what it does not know.
    fn read(node: &NodeProto) -> Result<Self, String> {
        let name = match &*node.op_type {
            "LSTM" => "LSTM",
            "GRU" => "GRU",
            _ => "RNN",
        };
        let attribute = |name: &str| node.attribute.iter().find(|given| given.name == name);
        let number = |name: &str| attribute(name).map_or(0, |given| given.i);
        for refused in ["clip", "activation_alpha", "activation_beta"] {
            if attribute(refused).is_some() {
                return Err(format!("the attribute `{refused}`"));
            }
        }
        for refused in ["input_forget", "layout"] {
            if number(refused) != 0 {
                return Err(format!("`{refused}` = {}", number(refused)));
            }
        }
        let directions: &[Backwards] = match attribute("direction").map(|given| &*given.s) {
            None | Some(b"forward") => &[Backwards(false)],
            Some(b"reverse") => &[Backwards(true)],
            Some(b"bidirectional") => &[Backwards(false), Backwards(true)],
            Some(other) => {
                let other = String::from_utf8_lossy(other);
                return Err(format!("the direction {other:?}"));
            }
        };
        let usual: &[Activation] = match name {
            "LSTM" => &[Activation::Sigmoid, Activation::Tanh, Activation::Tanh],
            "GRU" => &[Activation::Sigmoid, Activation::Tanh],
            _ => &[Activation::Tanh],
        };
        let activations = match attribute("activations") {
            None => usual.repeat(directions.len()),
            Some(given) => activations(given)?,
        };
        if activations.len() != usual.len() * directions.len() {
            return Err(format!("{} activations", activations.len()));
        }
        let reset_after = number("linear_before_reset") != 0;
        let cells = activations.chunks(usual.len()).zip(directions);
        let cells = cells.map(|(chosen, backwards)| {
            let cell = match *chosen {
                [f, g, h] => Cell::Lstm([f, g, h]),
                [f, g] => Cell::Gru {
                    activations: [f, g],
                    reset_after,
                },
                _ => Cell::Rnn(chosen[0]),
            };
            (cell, *backwards)
        });
        let inputs: Vec<_> = optional_inputs(node).take(8).collect();
        if inputs[7].is_some() {
            return Err("peepholes (`P`)".to_owned());
        }
        let outputs = optional_outputs(node).take(3).enumerate();
        Ok(Self {
            name,
            cells: cells.collect(),
            bias: inputs[3],
            lengths: inputs[4],
            hidden_start: inputs[5],
            cell_start: inputs[6],
            outputs: outputs
                .filter_map(|(index, real)| real.map(|_| index))
                .collect(),
        })
    }

    /// Sizes of the layer, from the shapes of its input, input weights and state weights.
    fn sizes(shapes: [&[usize]; 3]) -> TractResult<Sizes> {
        let [&[rows, batch, columns], _, &[_, _, hidden]] = shapes else {
            return Err(anyhow!("a recurrent layer with inputs of {shapes:?}"));
        };
        Ok(Sizes {
            rows,
            batch,
            columns,
            hidden,
        })
    }

    /// The layer with its weights; `inputs` are the node's, of which the first is not looked at.
    pub(super) fn build(
        &self,
        shape: &[usize],
        inputs: &[Option<&Tensor>],
    ) -> TractResult<(Recurrent, Sizes)> {
        let input = |index: usize| {
            let given = inputs.get(index).copied().flatten();
            given.ok_or_else(|| anyhow!("{} has computed weights or states", self.name))
        };
        let (weights, state) = (input(1)?, input(2)?);
        let sizes = Self::sizes([shape, weights.shape(), state.shape()])?;
        let numbers = |index: Option<usize>, len: usize| match index {
            None => Ok(vec![0.0; len]),
            Some(index) => floats(input(index)?),
        };
        let (gates, count) = (self.cells[0].0.gates(), self.cells.len());
        let one = sizes.batch * sizes.hidden;
        let bias = numbers(self.bias, count * 2 * gates * sizes.hidden)?;
        let hidden_start = numbers(self.hidden_start, count * one)?;
        let cell_start = numbers(self.cell_start, count * one)?;
        let (weights, state) = (floats(weights)?, floats(state)?);
        let directions = self.cells.iter().enumerate();
        let directions = directions.map(|(index, (cell, backwards))| {
            let part = |all: &[f32]| {
                let len = all.len() / count;
                index * len..(index + 1) * len
            };
            let given = Given {
                input: &weights[part(&weights)],
                state: &state[part(&state)],
                bias: &bias[part(&bias)],
                hidden_start: &hidden_start[part(&hidden_start)],
                cell_start: &cell_start[part(&cell_start)],
            };
            Direction::new(*cell, backwards.0, sizes, &given)
        });
        Ok((Recurrent::new(sizes, directions.collect()), sizes))
    }
}

fn activations(given: &AttributeProto) -> Result<Vec<Activation>, String> {
    let named = given.strings.iter().map(|name| match &**name {
        b"Sigmoid" => Ok(Activation::Sigmoid),
        b"Tanh" => Ok(Activation::Tanh),
        b"Relu" => Ok(Activation::Relu),
        other => {
            let other = String::from_utf8_lossy(other);
            Err(format!("the activation {other:?}"))
        }
    });
    named.collect()
}

pub(super) fn floats(tensor: &Tensor) -> TractResult<Vec<f32>> {
    let tensor = tensor.cast_to::<f32>()?;
    let view = tensor.to_plain_array_view::<f32>()?;
    Ok(view.iter().copied().collect())
}

impl Expansion for Layer {
    fn name(&self) -> StaticName {
        self.name.into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.outputs.len())
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        let gates = self.cells[0].0.gates() as i64;
        let directions = self.cells.len().to_dim();
        let hidden = || inputs[2].shape[2].bex();
        for input in &inputs[..3] {
            s.equals(&input.rank, 3)?;
            s.equals(&input.datum_type, f32::datum_type())?;
        }
        s.equals(&inputs[1].shape[0], &directions)?;
        s.equals(&inputs[2].shape[0], &directions)?;
        s.equals(&inputs[1].shape[1], gates * hidden())?;
        s.equals(&inputs[2].shape[1], gates * hidden())?;
        s.equals(&inputs[1].shape[2], &inputs[0].shape[2])?;
        if let Some(bias) = self.bias {
            s.equals(&inputs[bias].rank, 2)?;
            s.equals(&inputs[bias].shape[0], &directions)?;
            s.equals(&inputs[bias].shape[1], 2 * gates * hidden())?;
        }
        for start in [self.hidden_start, self.cell_start].into_iter().flatten() {
            s.equals(&inputs[start].rank, 3)?;
            s.equals(&inputs[start].shape[0], &directions)?;
            s.equals(&inputs[start].shape[1], &inputs[0].shape[1])?;
            s.equals(&inputs[start].shape[2], &inputs[2].shape[2])?;
        }
        for (output, which) in outputs.iter().zip(&self.outputs) {
            s.equals(&output.datum_type, f32::datum_type())?;
            // All states have the rows in front.
            let rank = if *which == 0 { 4 } else { 3 };
            s.equals(&output.rank, rank)?;
            let first = rank as usize - 3;
            if first == 1 {
                s.equals(&output.shape[0], &inputs[0].shape[0])?;
            }
            s.equals(&output.shape[first], &directions)?;
            s.equals(&output.shape[first + 1], &inputs[0].shape[1])?;
            s.equals(&output.shape[first + 2], &inputs[2].shape[2])?;
        }
        Ok(())
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        if let Some(lengths) = self.lengths {
            // Of a window all rows count, so anything else would be a surprise.
            let rows = model.outlet_fact(inputs[0])?.shape[0].clone();
            let given = model.outlet_fact(inputs[lengths])?.konst.clone();
            let all = given.and_then(|given| {
                let given = given.cast_to::<TDim>().ok()?;
                let given = given.to_plain_array_view::<TDim>().ok()?;
                Some(given.iter().all(|length| *length == rows))
            });
            if all != Some(true) {
                let name = self.name;
                return Err(anyhow!(
                    "{name} {prefix:?} has `sequence_lens` other than all rows, which this \
                     program does not run"
                ));
            }
        }
        let all = model.wire_node(prefix, self.clone(), inputs)?;
        Ok(self.outputs.iter().map(|which| all[*which]).collect())
    }
}

impl Op for Layer {
    fn name(&self) -> StaticName {
        self.name.into()
    }

    fn as_typed(&self) -> Option<&dyn TypedOp> {
        Some(self)
    }
}

impl EvalOp for Layer {
    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let given: Vec<_> = inputs.iter().map(|input| Some(&**input)).collect();
        let (mut layer, sizes) = self.build(inputs[0].shape(), &given)?;
        let directions = self.cells.len();
        let [hidden_at, cell_at, len] = Recurrent::lens(sizes, directions);
        let mut out = vec![0.0; len];
        layer.run_once(&floats(&inputs[0])?, &mut out);
        let last = [directions, sizes.batch, sizes.hidden];
        let all = [sizes.rows, directions, sizes.batch, sizes.hidden];
        Ok(tvec![
            Tensor::from_shape(&all, &out[..hidden_at])?.into_tvalue(),
            Tensor::from_shape(&last, &out[hidden_at..cell_at])?.into_tvalue(),
            Tensor::from_shape(&last, &out[cell_at..])?.into_tvalue(),
        ])
    }

    fn eval_out_of_plan(&self, inputs: TVec<TValue>) -> TractResult<Option<TVec<TValue>>> {
        self.eval(&EvalContext::out_of_plan(), inputs).map(Some)
    }
}

impl TypedOp for Layer {
    fn as_op(&self) -> &dyn Op {
        self
    }

    fn as_op_mut(&mut self) -> &mut dyn Op {
        self
    }

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let of = |shape: &[TDim]| f32::datum_type().fact(shape);
        let (x, state) = (&inputs[0].shape, &inputs[2].shape);
        let directions: TDim = self.cells.len().into();
        let last = [directions, x[1].clone(), state[2].clone()];
        let all: Vec<_> = std::iter::once(x[0].clone()).chain(last.clone()).collect();
        Ok(tvec![of(&all), of(&last), of(&last)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(op: &str, attributes: Vec<AttributeProto>, inputs: usize) -> NodeProto {
        NodeProto {
            op_type: op.to_owned(),
            input: (0..inputs).map(|index| format!("input_{index}")).collect(),
            output: vec!["all".to_owned()],
            attribute: attributes,
            ..NodeProto::default()
        }
    }

    fn number(name: &str, value: i64) -> AttributeProto {
        AttributeProto {
            name: name.to_owned(),
            i: value,
            ..AttributeProto::default()
        }
    }

    fn activations(names: &[&str]) -> AttributeProto {
        AttributeProto {
            name: "activations".to_owned(),
            strings: names.iter().map(|name| name.as_bytes().to_vec()).collect(),
            ..AttributeProto::default()
        }
    }

    #[test]
    fn what_is_not_done_is_refused_by_its_name() {
        let direction = AttributeProto {
            name: "direction".to_owned(),
            s: b"inwards".to_vec(),
            ..AttributeProto::default()
        };
        for (attribute, named) in [
            (number("clip", 0), "clip"),
            (number("input_forget", 1), "input_forget"),
            (number("layout", 1), "layout"),
            (number("activation_alpha", 0), "activation_alpha"),
            (activations(&["Sigmoid", "Softsign", "Tanh"]), "Softsign"),
            (activations(&["Sigmoid"]), "1 activations"),
            (direction, "inwards"),
        ] {
            let refused = Layer::read(&node("LSTM", vec![attribute], 3)).unwrap_err();
            assert!(refused.contains(named), "{refused}");
        }
        let refused = Layer::read(&node("LSTM", vec![], 8)).unwrap_err();
        assert!(refused.contains("peepholes"), "{refused}");
    }

    /// A layer of one hidden number over two rows, by hand.
    fn last(layer: &Layer, gates: usize) -> f32 {
        let weights = [0.5, -0.3, 0.8, 0.2];
        let state = [0.1, 0.4, -0.6, 0.3];
        let bias = [0.05, -0.1, 0.2, 0.1, 0.02, 0.03, -0.04, 0.01];
        let of = |shape: &[usize], numbers: &[f32]| {
            Tensor::from_shape(shape, numbers).unwrap().into_tvalue()
        };
        let inputs = tvec![
            of(&[2, 1, 1], &[1.5, -0.7]),
            of(&[1, gates, 1], &weights[..gates]),
            of(&[1, gates, 1], &state[..gates]),
            of(&[1, 2 * gates], &bias[..2 * gates]),
        ];
        let outputs = layer.eval_out_of_plan(inputs).unwrap().unwrap();
        floats(&outputs[1]).unwrap()[0]
    }

    #[test]
    fn a_gru_resets_before_or_after_its_product_as_it_says() {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        for reset_after in [false, true] {
            let attributes = vec![number("linear_before_reset", i64::from(reset_after))];
            let layer = Layer::read(&node("GRU", attributes, 4)).unwrap();
            let mut hidden = 0.0_f64;
            for x in [1.5, -0.7] {
                let keep = sigmoid(0.5 * x + 0.1 * hidden + 0.05 + 0.1);
                let reset = sigmoid(-0.3 * x + 0.4 * hidden - 0.1 + 0.02);
                let back = if reset_after {
                    reset * (-0.6 * hidden + 0.03)
                } else {
                    -0.6 * (reset * hidden) + 0.03
                };
                let fresh = (0.8 * x + 0.2 + back).tanh();
                hidden = (1.0 - keep) * fresh + keep * hidden;
            }
            let ours = f64::from(last(&layer, 3));
            assert!((ours - hidden).abs() < 1e-6, "{ours} is not {hidden}");
        }
    }

    #[test]
    fn the_activations_given_are_those_used() {
        let given = vec![activations(&["Tanh", "Relu", "Sigmoid"])];
        let layer = Layer::read(&node("LSTM", given, 4)).unwrap();
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let (mut hidden, mut cell) = (0.0_f64, 0.0_f64);
        for x in [1.5, -0.7] {
            let enter = (0.5 * x + 0.1 * hidden + 0.05 + 0.02).tanh();
            let leave = (-0.3 * x + 0.4 * hidden - 0.1 + 0.03).tanh();
            let forget = (0.8 * x - 0.6 * hidden + 0.2 - 0.04).tanh();
            let fresh = (0.2 * x + 0.3 * hidden + 0.1 + 0.01).max(0.0);
            cell = forget * cell + enter * fresh;
            hidden = leave * sigmoid(cell);
        }
        let ours = f64::from(last(&layer, 4));
        assert!((ours - hidden).abs() < 1e-6, "{ours} is not {hidden}");
    }
}
