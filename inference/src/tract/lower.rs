//! From tract's graph, read and simplified, to the steps of a [`Net`].
//!
//! Shapes are all known by now. A value is a buffer and a table of where its numbers are in it;
//! what only moves numbers makes a new table. Whatever is not known here is said by its name, and
//! then tract runs the graph itself.

mod products;
mod shape;

use super::layers::Layer;
use super::vendor::tract_hir::internal::{AxisOp, Datum, OutletId, Tensor, TypedFact, TypedModel};
use super::vendor::tract_hir::tract_core::ops;
use crate::net::{Binary, BufferId, Fold, Net, Operand, Recurrent, Spread, Step, Unary};
use ops::array::{Gather, MultiBroadcastTo, Pad, PadMode, Slice, TypedConcat};
use ops::nn::{LeakyRelu, Reduce, Reducer, RmsNorm, Softmax, SoftmaxKind};
use shape::{each_index, is_small, strides};
use std::collections::HashMap;
use std::rc::Rc;

/// Why a graph stays with tract: the operator, or what of it.
type Unknown = String;

/// A tensor, as a table over a buffer.
#[derive(Debug, Clone)]
struct Value {
    buffer: BufferId,
    /// None: all numbers of the buffer, as they lie.
    table: Option<Rc<[u32]>>,
    shape: Vec<usize>,
    constant: bool,
}

impl Value {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

struct Lowering {
    net: Net,
    values: HashMap<OutletId, Value>,
}

/// The graph as a net that takes its only input and gives all its outputs.
pub(super) fn lower(model: &TypedModel) -> Result<Net, Unknown> {
    let mut lowering = Lowering {
        net: Net::new(),
        values: HashMap::new(),
    };
    let order = model.eval_order().map_err(|error| error.to_string())?;
    for id in order {
        lowering.node(model, id)?;
    }
    let value = |outlet: &OutletId| lowering.values.get(outlet).cloned();
    let input = model.inputs.first().and_then(value).ok_or("no input")?;
    let outputs = model.outputs.iter().map(value);
    let outputs: Option<Vec<_>> = outputs.collect();
    let outputs = outputs.ok_or("an output of another type")?;
    let outputs = outputs
        .iter()
        .map(|output| lowering.plain(output))
        .collect();
    lowering.net.bind(input.buffer, outputs);
    Ok(lowering.net)
}

fn dims(fact: &TypedFact) -> Result<Vec<usize>, Unknown> {
    let dims = fact.shape.as_concrete();
    dims.map(<[usize]>::to_vec)
        .ok_or_else(|| "an unknown shape".to_owned())
}

impl Lowering {
    fn node(&mut self, model: &TypedModel, id: usize) -> Result<(), Unknown> {
        let node = model.node(id);
        let fact = &node.outputs[0].fact;
        let shape = dims(fact)?;
        is_small(&shape)?;
        if let Some(constant) = node.op_as::<ops::konst::Const>() {
            // Numbers of other types are looked up where they are used: they are indices.
            if let Some(value) = self.constant(constant.val(), shape)? {
                self.values.insert(OutletId::new(id, 0), value);
            }
            return Ok(());
        }
        if node.op_is::<ops::source::TypedSource>() {
            let buffer = self.net.buffer(shape.iter().product());
            self.define(id, buffer, shape);
            return Ok(());
        }
        let inputs: Vec<Option<Value>> = node
            .inputs
            .iter()
            .map(|input| self.values.get(input).cloned())
            .collect();
        let input = |index: usize| {
            let given = inputs.get(index).cloned().flatten();
            given.ok_or_else(|| format!("{} of another type", node.op.name()))
        };
        let konst = |index: usize| {
            let fact = model.outlet_fact(node.inputs[index]).ok();
            fact.and_then(|fact| fact.konst.clone())
        };
        let value = if let Some(op) = node.op_as::<AxisOp>() {
            self.axis(op, &input(0)?, shape)
        } else if let Some(op) = node.op_as::<Slice>() {
            let start = op.start.to_i64().map_err(|error| error.to_string())? as usize;
            self.moved(&input(0)?, shape, |index| {
                let mut index = index.to_vec();
                index[op.axis] += start;
                Some(index)
            })
        } else if let Some(op) = node.op_as::<Gather>() {
            let indices = konst(1).ok_or("Gather by what is computed")?;
            self.gather(op, &input(0)?, &indices, shape)?
        } else if let Some(op) = node.op_as::<Pad>() {
            self.pad(op, &input(0)?, shape)?
        } else if node.op_is::<MultiBroadcastTo>() {
            self.broadcast(&input(0)?, &shape)
        } else if let Some(op) = node.op_as::<TypedConcat>() {
            let parts: Result<Vec<_>, _> = (0..inputs.len()).map(input).collect();
            self.concat(op.axis, &parts?, shape)
        } else if let Some(op) = node.op_as::<ops::element_wise::ElementWiseOp>() {
            self.unary(unary(op)?, &input(0)?)
        } else if let Some(op) = binary(&node.op.name()) {
            let (op, swapped) = op;
            let (left, right) = (input(usize::from(swapped))?, input(usize::from(!swapped))?);
            self.binary(op, &left, &right, shape)
        } else if node.op_is::<ops::logic::Iff>() {
            let operands = [input(0)?, input(1)?, input(2)?];
            let operands = operands.map(|operand| {
                let spread = self.broadcast(&operand, &shape);
                self.plain(&spread)
            });
            self.written(Step::Select(operands), shape)
        } else if let Some(op) = node.op_as::<Reduce>() {
            self.reduce(op, &input(0)?, shape)?
        } else if let Some(op) = node.op_as::<Softmax>() {
            let usual = op.kind == SoftmaxKind::Softmax && op.quant_output_dt.is_none();
            let ([axis], true) = (&op.axes[..], usual) else {
                return Err("Softmax of several axes or another kind".to_owned());
            };
            self.along(*axis, &input(0)?, |from, width| Step::Softmax {
                from,
                width,
            })
        } else if let Some(op) = node.op_as::<RmsNorm>() {
            let epsilon = op
                .eps
                .cast_to_scalar::<f32>()
                .map_err(|error| error.to_string())?;
            self.along(op.axis, &input(0)?, |from, width| Step::RmsNorm {
                from,
                width,
                epsilon,
            })
        } else if let Some(layer) = node.op_as::<Layer>() {
            let given: Vec<_> = (0..inputs.len()).map(konst).collect();
            let given: Vec<_> = given.iter().map(Option::as_deref).collect();
            return self.layer(id, layer, &input(0)?, &given);
        } else {
            let given: Vec<_> = (0..inputs.len()).map(input).collect::<Result<_, _>>()?;
            self.product(&*node.op, &given, shape)?
        };
        self.values.insert(OutletId::new(id, 0), value);
        Ok(())
    }

    fn define(&mut self, id: usize, buffer: BufferId, shape: Vec<usize>) {
        let value = Value {
            buffer,
            table: None,
            shape,
            constant: false,
        };
        self.values.insert(OutletId::new(id, 0), value);
    }

    fn constant(&mut self, tensor: &Tensor, shape: Vec<usize>) -> Result<Option<Value>, Unknown> {
        let kind = tensor.datum_type();
        if !(kind.is_float() || kind == bool::datum_type()) {
            return Ok(None);
        }
        let numbers = super::layers::floats(tensor).map_err(|error| error.to_string())?;
        Ok(Some(Value {
            buffer: self.net.constant(numbers),
            table: None,
            shape,
            constant: true,
        }))
    }

    /// What a step writes into a buffer of its own.
    fn written(&mut self, step: Step, shape: Vec<usize>) -> Value {
        let buffer = self.net.buffer(shape.iter().product());
        self.net.step(step, buffer);
        Value {
            buffer,
            table: None,
            shape,
            constant: false,
        }
    }

    /// The table of a value, also where it has none.
    fn table(&self, value: &Value) -> Rc<[u32]> {
        let all = || (0..value.len() as u32).collect();
        value.table.clone().unwrap_or_else(all)
    }

    /// A value of the buffer of another: `table` holds indices into that buffer.
    fn over(&self, value: &Value, table: Vec<u32>, shape: Vec<usize>) -> Value {
        let len = self.net.numbers(value.buffer).len();
        let as_it_lies =
            table.len() == len && table.iter().enumerate().all(|(at, to)| at == *to as usize);
        Value {
            buffer: value.buffer,
            table: (!as_it_lies).then(|| table.into()),
            shape,
            constant: value.constant,
        }
    }

    /// A value that has at each index what another one has at `from` of it; zero for none.
    fn moved(
        &self,
        value: &Value,
        shape: Vec<usize>,
        from: impl Fn(&[usize]) -> Option<Vec<usize>>,
    ) -> Value {
        let (table, strides) = (self.table(value), strides(&value.shape));
        let zero = self.net.numbers(value.buffer).len() as u32;
        let mut moved = Vec::with_capacity(shape.iter().product());
        each_index(&shape, |index| {
            moved.push(from(index).map_or(zero, |index| {
                let at: usize = index.iter().zip(&strides).map(|(at, by)| at * by).sum();
                table[at]
            }));
        });
        self.over(value, moved, shape)
    }

    /// The buffer with the numbers of a value as they lie, moved there if they are not.
    fn plain(&mut self, value: &Value) -> BufferId {
        let Some(table) = &value.table else {
            return value.buffer;
        };
        if value.constant {
            let numbers = self.net.numbers(value.buffer);
            let number = |index: &u32| numbers.get(*index as usize).copied().unwrap_or(0.0);
            let moved = table.iter().map(number).collect();
            return self.net.constant(moved);
        }
        let buffer = self.net.buffer(value.len());
        let from = operand(value);
        self.net.step(Step::Copy { from, at: 0 }, buffer);
        buffer
    }

    /// A value times a number.
    fn scaled(&mut self, value: &Value, by: f32) -> Value {
        let by = Value {
            buffer: self.net.constant(vec![by]),
            table: None,
            shape: vec![1; value.shape.len()],
            constant: true,
        };
        self.binary(Binary::Mul, value, &by, value.shape.clone())
    }

    /// Whether a value is all of its buffer, each number once.
    fn is_reordered(&self, value: &Value) -> bool {
        let Some(table) = &value.table else {
            return true;
        };
        let mut seen = vec![false; self.net.numbers(value.buffer).len()];
        let once = |at: &u32| {
            let place = seen.get_mut(*at as usize);
            place.is_some_and(|seen| !std::mem::replace(seen, true))
        };
        table.len() == self.net.numbers(value.buffer).len() && table.iter().all(once)
    }

    fn axis(&self, op: &AxisOp, value: &Value, shape: Vec<usize>) -> Value {
        match op {
            AxisOp::Move(from, to) => self.moved(value, shape, |index| {
                let mut index = index.to_vec();
                let at = index.remove(*to);
                index.insert(*from, at);
                Some(index)
            }),
            AxisOp::Add(_) | AxisOp::Rm(_) | AxisOp::Reshape(..) => Value {
                shape,
                ..value.clone()
            },
        }
    }

    fn gather(
        &self,
        op: &Gather,
        value: &Value,
        indices: &Tensor,
        shape: Vec<usize>,
    ) -> Result<Value, Unknown> {
        let told = |error: super::vendor::tract_hir::internal::TractError| error.to_string();
        let chosen = indices.cast_to::<i64>().map_err(told)?;
        let chosen = chosen.to_plain_array_view::<i64>().map_err(told)?;
        let chosen: Vec<i64> = chosen.iter().copied().collect();
        let (rank, by) = (indices.rank(), strides(indices.shape()));
        let dim = value.shape[op.axis] as i64;
        if chosen.iter().any(|index| *index < -dim || *index >= dim) {
            return Err("Gather past the end".to_owned());
        }
        Ok(self.moved(value, shape, |index| {
            let which = index[op.axis..][..rank].iter().zip(&by);
            let which = chosen[which.map(|(at, by)| at * by).sum::<usize>()].rem_euclid(dim);
            let mut from = index[..op.axis].to_vec();
            from.push(which as usize);
            from.extend_from_slice(&index[op.axis + rank..]);
            Some(from)
        }))
    }

    fn pad(&self, op: &Pad, value: &Value, shape: Vec<usize>) -> Result<Value, Unknown> {
        match &op.mode {
            PadMode::Constant(by) if by.cast_to_scalar::<f32>().is_ok_and(|by| by == 0.0) => {}
            _ => return Err("Pad by other than zero".to_owned()),
        }
        Ok(self.moved(value, shape, |index| {
            let sides = index.iter().zip(&op.pads).zip(&value.shape);
            let inside = sides.map(|((at, (before, _)), dim)| {
                let at = at.checked_sub(*before)?;
                (at < *dim).then_some(at)
            });
            inside.collect()
        }))
    }

    fn broadcast(&self, value: &Value, shape: &[usize]) -> Value {
        let missing = shape.len() - value.shape.len();
        self.moved(value, shape.to_vec(), |index| {
            let own = index[missing..].iter().zip(&value.shape);
            Some(
                own.map(|(at, dim)| if *dim == 1 { 0 } else { *at })
                    .collect(),
            )
        })
    }

    fn concat(&mut self, axis: usize, parts: &[Value], shape: Vec<usize>) -> Value {
        let buffer = self.net.buffer(shape.iter().product());
        let (mut starts, mut at, mut first) = (Vec::new(), 0, 0);
        for part in parts {
            let from = operand(part);
            self.net.step(Step::Copy { from, at }, buffer);
            starts.push((first, at, strides(&part.shape)));
            at += part.len();
            first += part.shape[axis];
        }
        // Part after part in the buffer, whatever the axis.
        let mut table = Vec::with_capacity(at);
        each_index(&shape, |index| {
            let after = starts.partition_point(|(first, ..)| *first <= index[axis]);
            let (first, at, by) = &starts[after - 1];
            let place = index.iter().zip(by).enumerate().map(|(dim, (index, by))| {
                let index = if dim == axis { index - first } else { *index };
                index * by
            });
            table.push((at + place.sum::<usize>()) as u32);
        });
        let value = Value {
            buffer,
            table: None,
            shape: shape.clone(),
            constant: false,
        };
        self.over(&value, table, shape)
    }

    /// In the order in which the numbers lie, so that a transposed value stays so.
    fn unary(&mut self, op: Unary, value: &Value) -> Value {
        let keeps = self.is_reordered(value);
        let from = if keeps {
            value.buffer
        } else {
            self.plain(value)
        };
        let table = if keeps { value.table.clone() } else { None };
        let written = self.written(Step::Unary { op, from }, value.shape.clone());
        Value { table, ..written }
    }

    fn binary(&mut self, op: Binary, left: &Value, right: &Value, shape: Vec<usize>) -> Value {
        let len: usize = shape.iter().product();
        // The result's numbers lie as those of an operand that has them all.
        let leading = [left, right]
            .into_iter()
            .find(|value| !value.constant && value.len() == len && self.is_reordered(value));
        let table = leading.and_then(|value| value.table.clone());
        let mut sides = [left, right].map(|value| self.operand_in(value, &shape, table.as_deref()));
        if !sides
            .iter()
            .any(|(_, spread)| matches!(spread, Spread::Each))
        {
            let spread = self.broadcast(left, &shape);
            sides[0] = (self.plain(&spread), Spread::Each);
        }
        let [left, right] = sides;
        let written = self.written(Step::Binary { op, left, right }, shape);
        Value { table, ..written }
    }

    /// An operand of an operator on each number of `shape`, in the order that `table` has.
    fn operand_in(
        &mut self,
        value: &Value,
        shape: &[usize],
        table: Option<&[u32]>,
    ) -> (BufferId, Spread) {
        let len: usize = shape.iter().product();
        if value.len() == 1 && value.table.is_none() {
            return (value.buffer, Spread::Single);
        }
        if value.len() == len && value.table.as_deref() == table {
            return (value.buffer, Spread::Each);
        }
        // [.., 1] beside [.., width], as a mean has it.
        let width = shape.last().copied().unwrap_or(1);
        let is_rows = value.len() * width == len
            && value.shape.last() == Some(&1)
            && value.shape.len() == shape.len();
        if is_rows && table.is_none() && !value.constant {
            return (self.plain(value), Spread::Rows(width));
        }
        let spread = self.broadcast(value, shape);
        let Some(table) = table else {
            return (self.plain(&spread), Spread::Each);
        };
        let mut turned = vec![0; len];
        for (at, place) in table.iter().zip(self.table(&spread).iter()) {
            turned[*at as usize] = *place;
        }
        let turned = self.over(value, turned, shape.to_vec());
        (self.plain(&turned), Spread::Each)
    }

    fn reduce(&mut self, op: &Reduce, value: &Value, shape: Vec<usize>) -> Result<Value, Unknown> {
        let fold = match op.reducer {
            Reducer::Sum => Fold::Sum,
            Reducer::Max => Fold::Max,
            Reducer::Min => Fold::Min,
            Reducer::MeanOfSquares => Fold::MeanOfSquares,
            other => return Err(format!("Reduce by {other:?}")),
        };
        let axes = &op.axes;
        let folded: Vec<usize> = axes.iter().map(|axis| value.shape[*axis]).collect();
        let inner = [&*shape, &*folded].concat();
        let rank = shape.len();
        let rows = self.moved(value, inner, |index| {
            let mut from = index[..rank].to_vec();
            for (axis, at) in axes.iter().zip(&index[rank..]) {
                from[*axis] = *at;
            }
            Some(from)
        });
        let step = Step::Fold {
            op: fold,
            from: operand(&rows),
            width: folded.iter().product(),
        };
        Ok(self.written(step, shape))
    }

    /// A step on rows, which are along an axis.
    fn along(
        &mut self,
        axis: usize,
        value: &Value,
        step: impl Fn(BufferId, usize) -> Step,
    ) -> Value {
        let last = value.shape.len() - 1;
        let (shape, width) = (value.shape.clone(), value.shape[axis]);
        let mut turned_shape = shape.clone();
        turned_shape.swap(axis, last);
        let turn = |index: &[usize]| {
            let mut index = index.to_vec();
            index.swap(axis, last);
            Some(index)
        };
        let turned = self.moved(value, turned_shape.clone(), turn);
        let from = self.plain(&turned);
        let written = self.written(step(from, width), turned_shape);
        self.moved(&written, shape, turn)
    }

    fn layer(
        &mut self,
        id: usize,
        layer: &Layer,
        input: &Value,
        given: &[Option<&Tensor>],
    ) -> Result<(), Unknown> {
        let (layer, sizes) = layer
            .build(&input.shape, given)
            .map_err(|error| error.to_string())?;
        let directions = layer.directions();
        let ends = Recurrent::lens(sizes, directions);
        let input = operand(input);
        let all = self.written(Step::Recurrent { layer, input }, vec![ends[2]]);
        let last = vec![directions, sizes.batch, sizes.hidden];
        let states = [&[sizes.rows], &*last].concat();
        let starts = [0, ends[0], ends[1]];
        for (slot, shape) in [states, last.clone(), last].into_iter().enumerate() {
            let table = (starts[slot] as u32..ends[slot] as u32).collect();
            let value = self.over(&all, table, shape);
            self.values.insert(OutletId::new(id, slot), value);
        }
        Ok(())
    }
}

fn operand(value: &Value) -> Operand {
    Operand {
        buffer: value.buffer,
        table: value.table.as_deref().map(Into::into),
    }
}

fn unary(op: &ops::element_wise::ElementWiseOp) -> Result<Unary, Unknown> {
    if let Some(leaky) = op.0.downcast_ref::<LeakyRelu>() {
        return Ok(Unary::LeakyRelu(leaky.alpha));
    }
    Ok(match &*op.0.name() {
        "Abs" => Unary::Abs,
        "Ceil" => Unary::Ceil,
        "Erf" => Unary::Erf,
        "Exp" => Unary::Exp,
        "Floor" => Unary::Floor,
        "GeluExact" => Unary::Gelu,
        "Ln" => Unary::Ln,
        "Neg" => Unary::Neg,
        "Recip" => Unary::Recip,
        "Rsqrt" => Unary::Rsqrt,
        "Sigmoid" => Unary::Sigmoid,
        "Sign" => Unary::Sign,
        "Silu" => Unary::Silu,
        "Sqrt" => Unary::Sqrt,
        "Square" => Unary::Square,
        "Tanh" => Unary::Tanh,
        other => return Err(other.to_owned()),
    })
}

/// The operator on two numbers of that name, and whether its operands are the other way round.
fn binary(name: &str) -> Option<(Binary, bool)> {
    Some(match name {
        "Add" => (Binary::Add, false),
        "Sub" => (Binary::Sub, false),
        "SubF" => (Binary::Sub, true),
        "Mul" => (Binary::Mul, false),
        "Div" => (Binary::Div, false),
        "Min" => (Binary::Min, false),
        "Max" => (Binary::Max, false),
        "Pow" => (Binary::Pow, false),
        "LT" => (Binary::Less, false),
        "LTE" => (Binary::LessOrEqual, false),
        "GT" => (Binary::Less, true),
        "GTE" => (Binary::LessOrEqual, true),
        "Eq" => (Binary::Equal, false),
        "NE" => (Binary::NotEqual, false),
        _ => return None,
    })
}
