//! Standard operators that move values and change shapes.

use super::arithmetic::{source, stretched};
use super::attributes::Attributes;
use super::moves::Moves;
use super::operator::{Inputs, Operator, axis, ints};
use super::tensor::{Element, Shape, Tensor, each_kind};

/// The same values in another shape.
fn reshaped(input: &Tensor, shape: &[usize], output: &mut Tensor) -> Result<(), String> {
    if shape.iter().product::<usize>() != input.len() {
        return Err(format!("{} cannot take the shape {shape:?}", input.told()));
    }
    copied(input, shape, output)
}

fn copied(input: &Tensor, shape: &[usize], output: &mut Tensor) -> Result<(), String> {
    fn typed<T: Element>(values: &[T], shape: &[usize], output: &mut Tensor) -> Result<(), String> {
        output.set::<T>(shape)?.extend_from_slice(values);
        Ok(())
    }
    each_kind!(&input.data, values => typed(values, shape, output))
}

struct Identity;

impl Operator for Identity {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let input = inputs.get(0)?;
        copied(input, &input.shape, &mut outputs[0])
    }

    fn moves(&self, _first: &Tensor) -> Moves {
        Moves::Shape
    }
}

pub(super) fn identity() -> Box<dyn Operator> {
    Box::new(Identity)
}

struct Reshape {
    zero_is_zero: bool,
}

impl Operator for Reshape {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let (input, wanted) = (inputs.get(0)?, ints(inputs.get(1)?)?);
        let mut shape = Shape::new();
        let mut open = None;
        for (at, size) in wanted.iter().enumerate() {
            let size = match *size {
                -1 if open.is_none() => {
                    open = Some(at);
                    1
                }
                0 if !self.zero_is_zero => *input
                    .shape
                    .get(at)
                    .ok_or("it keeps a dimension that there is not")?,
                size => usize::try_from(size).map_err(|_| format!("a shape of {wanted:?}"))?,
            };
            shape
                .push(size)
                .map_err(|_| "a shape has too many dimensions")?;
        }
        if let Some(open) = open {
            let others = super::tensor::count(&shape)?;
            shape[open] = input.len().checked_div(others).unwrap_or(0);
        }
        super::tensor::count(&shape)?;
        reshaped(input, &shape, &mut outputs[0])
    }

    fn moves(&self, _first: &Tensor) -> Moves {
        Moves::Shape
    }
}

pub(super) fn reshape(attributes: &Attributes<'_>) -> Result<Box<dyn Operator>, String> {
    let zero_is_zero = attributes.int("allowzero")?.unwrap_or(0) != 0;
    Ok(Box::new(Reshape { zero_is_zero }))
}

struct Flatten {
    axis: i64,
}

impl Operator for Flatten {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let input = inputs.get(0)?;
        let rank = input.shape.len();
        let at = if self.axis == rank as i64 {
            rank
        } else {
            axis(self.axis, rank)?
        };
        let (before, after) = input.shape.split_at(at);
        let shape = [before.iter().product(), after.iter().product()];
        reshaped(input, &shape, &mut outputs[0])
    }

    fn moves(&self, _first: &Tensor) -> Moves {
        Moves::Shape
    }
}

pub(super) fn flatten(attributes: &Attributes<'_>) -> Result<Box<dyn Operator>, String> {
    let axis = attributes.int("axis")?.unwrap_or(1);
    Ok(Box::new(Flatten { axis }))
}

/// Squeeze and Unsqueeze, whose axes are an attribute up to version 12 and an input since.
struct Squeeze {
    axes: Option<Vec<i64>>,
    adds: bool,
}

impl Operator for Squeeze {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let input = inputs.get(0)?;
        let axes = match inputs.optional(1) {
            Some(axes) => Some(ints(axes)?),
            None => self.axes.as_deref(),
        };
        let mut shape = Shape::new();
        if self.adds {
            let axes = axes.ok_or("it has no axes")?;
            let rank = input.shape.len() + axes.len();
            let mut added = [false; super::tensor::RANK_MAX];
            for it in axes {
                let at = axis(*it, rank)?;
                *added
                    .get_mut(at)
                    .ok_or("a tensor has too many dimensions")? = true;
            }
            let mut kept = input.shape.iter();
            for at in 0..rank {
                let is_added = added.get(at).copied().unwrap_or(false);
                let dim = if is_added { Some(&1) } else { kept.next() };
                let dim = *dim.ok_or("an axis comes twice")?;
                shape
                    .push(dim)
                    .map_err(|_| "a tensor has too many dimensions")?;
            }
        } else {
            for (at, dim) in input.shape.iter().enumerate() {
                let is_named =
                    |axes: &[i64]| axes.iter().any(|it| axis(*it, input.shape.len()) == Ok(at));
                if axes.map_or(*dim == 1, is_named) {
                    if *dim != 1 {
                        return Err(format!("it leaves out a dimension of {}", input.told()));
                    }
                } else {
                    shape
                        .push(*dim)
                        .map_err(|_| "a tensor has too many dimensions")?;
                }
            }
        }
        reshaped(input, &shape, &mut outputs[0])
    }

    fn moves(&self, _first: &Tensor) -> Moves {
        Moves::Shape
    }
}

pub(super) fn squeeze(
    attributes: &Attributes<'_>,
    adds: bool,
) -> Result<Box<dyn Operator>, String> {
    let axes = attributes.has("axes").then(|| attributes.ints("axes"));
    let axes = axes.transpose()?.map(<[i64]>::to_vec);
    Ok(Box::new(Squeeze { axes, adds }))
}

struct ShapeOf;

impl Operator for ShapeOf {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let shape = &inputs.get(0)?.shape;
        let dims = shape.iter().map(|dim| *dim as i64);
        outputs[0].set(&[shape.len()])?.extend(dims);
        Ok(())
    }
}

pub(super) fn shape_of() -> Box<dyn Operator> {
    Box::new(ShapeOf)
}

struct ConstantOfShape {
    value: Tensor,
}

impl Operator for ConstantOfShape {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        fn typed<T: Element>(
            values: &[T],
            shape: &[usize],
            output: &mut Tensor,
        ) -> Result<(), String> {
            let [value] = values else {
                return Err("its value is not one".to_owned());
            };
            let count = super::tensor::count(shape)?;
            output.set::<T>(shape)?.resize(count, value.clone());
            Ok(())
        }
        let shape = sizes(ints(inputs.get(0)?)?)?;
        each_kind!(&self.value.data, values => typed(values, &shape, &mut outputs[0]))
    }
}

fn sizes(dims: &[i64]) -> Result<Shape, String> {
    let mut shape = Shape::new();
    for dim in dims {
        let size = usize::try_from(*dim).map_err(|_| format!("a shape of {dims:?}"))?;
        shape
            .push(size)
            .map_err(|_| "a shape has too many dimensions")?;
    }
    Ok(shape)
}

pub(super) fn constant_of_shape(attributes: &Attributes<'_>) -> Result<Box<dyn Operator>, String> {
    let value = match attributes.tensor("value")? {
        Some(value) => Tensor::read(value)?,
        None => Tensor::new(&[1], vec![0.0_f32]),
    };
    Ok(Box::new(ConstantOfShape { value }))
}

struct Expand;

impl Operator for Expand {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        fn typed<T: Element>(
            (values, from): (&[T], &[usize]),
            shape: &[usize],
            output: &mut Tensor,
        ) -> Result<(), String> {
            let count = super::tensor::count(shape)?;
            let spread = (0..count).map(|index| values[source(from, shape, index)].clone());
            output.set::<T>(shape)?.extend(spread);
            Ok(())
        }
        let input = inputs.get(0)?;
        let shape = stretched(&input.shape, &sizes(ints(inputs.get(1)?)?)?)?;
        each_kind!(&input.data, values => typed((values, &input.shape), &shape, &mut outputs[0]))
    }

    fn moves(&self, _first: &Tensor) -> Moves {
        Moves::OfFirst
    }
}

pub(super) fn expand() -> Box<dyn Operator> {
    Box::new(Expand)
}

struct Concat {
    axis: i64,
}

impl Operator for Concat {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        // The first input's values say which type it is.
        fn typed<T: Element>(
            _first: &[T],
            inputs: &Inputs<'_>,
            at: usize,
            shape: &[usize],
            output: &mut Tensor,
        ) -> Result<(), String> {
            let joined = output.set::<T>(shape)?;
            let before: usize = shape[..at].iter().product();
            for row in 0..before {
                for input in inputs.all() {
                    let input = input?;
                    let length: usize = input.shape[at..].iter().product();
                    joined.extend_from_slice(&input.values::<T>()?[row * length..][..length]);
                }
            }
            Ok(())
        }
        let first = inputs.get(0)?;
        let at = axis(self.axis, first.shape.len())?;
        let mut shape = first.shape.clone();
        shape[at] = 0;
        for input in inputs.all() {
            let input = input?;
            let mut others = input.shape.clone();
            let along = others
                .get_mut(at)
                .map(|dim| std::mem::replace(dim, shape[at]));
            let along = along.filter(|_| others == shape);
            shape[at] +=
                along.ok_or_else(|| format!("{} cannot follow {}", input.told(), first.told()))?;
        }
        each_kind!(&first.data, values => typed(values, inputs, at, &shape, &mut outputs[0]))
    }

    fn moves(&self, _first: &Tensor) -> Moves {
        Moves::OfAll
    }
}

pub(super) fn concat(attributes: &Attributes<'_>) -> Result<Box<dyn Operator>, String> {
    let axis = attributes.int("axis")?.ok_or("it has no axis")?;
    Ok(Box::new(Concat { axis }))
}

struct Gather {
    axis: i64,
}

impl Operator for Gather {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        fn typed<T: Element>(
            values: &[T],
            (before, along, after): (usize, usize, usize),
            indices: impl Iterator<Item = usize> + Clone,
            output: &mut Vec<T>,
        ) {
            for row in 0..before {
                for index in indices.clone() {
                    output.extend_from_slice(&values[(row * along + index) * after..][..after]);
                }
            }
        }
        let (input, indices) = (inputs.get(0)?, inputs.get(1)?);
        let at = axis(self.axis, input.shape.len())?;
        let along = input.shape[at];
        let numbers = ints(indices)?;
        if let Some(lost) = numbers.iter().find(|it| axis(**it, along).is_err()) {
            return Err(format!("it asks for place {lost} of {along}"));
        }
        let mut shape = Shape::new();
        let dims = [&input.shape[..at], &indices.shape, &input.shape[at + 1..]];
        for dim in dims.into_iter().flatten() {
            shape
                .push(*dim)
                .map_err(|_| "a tensor has too many dimensions")?;
        }
        let places = numbers.iter().map(|it| {
            if *it < 0 {
                (*it + along as i64) as usize
            } else {
                *it as usize
            }
        });
        let before = input.shape[..at].iter().product();
        let after = input.shape[at + 1..].iter().product();
        let span = (before, along, after);
        let output = &mut outputs[0];
        each_kind!(&input.data, values => typed(values, span, places, output.set(&shape)?));
        Ok(())
    }

    fn moves(&self, _first: &Tensor) -> Moves {
        Moves::OfFirst
    }
}

pub(super) fn gather(attributes: &Attributes<'_>) -> Result<Box<dyn Operator>, String> {
    let axis = attributes.int("axis")?.unwrap_or(0);
    Ok(Box::new(Gather { axis }))
}

/// Starts, ends, axes and steps as inputs, which they are since version 10.
struct Slice;

impl Operator for Slice {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let input = inputs.get(0)?;
        let (starts, ends) = (ints(inputs.get(1)?)?, ints(inputs.get(2)?)?);
        let axes = inputs.optional(3).map(ints).transpose()?;
        let steps = inputs.optional(4).map(ints).transpose()?;
        let count = starts.len();
        let fits = |list: Option<&[i64]>| list.is_none_or(|list| list.len() == count);
        if ends.len() != count || !fits(axes) || !fits(steps) {
            return Err("its starts, ends, axes and steps differ in number".to_owned());
        }
        if steps.is_some_and(|steps| steps.iter().any(|step| *step != 1)) {
            return Err("steps other than 1 are not supported here".to_owned());
        }
        let mut shape = input.shape.clone();
        let mut from = [0; super::tensor::RANK_MAX];
        for index in 0..count {
            let at = axis(axes.map_or(index as i64, |axes| axes[index]), shape.len())?;
            let dim = input.shape[at] as i64;
            let inside = |place: i64| {
                let from_start = if place < 0 {
                    place.saturating_add(dim)
                } else {
                    place
                };
                from_start.clamp(0, dim) as usize
            };
            from[at] = inside(starts[index]);
            shape[at] = inside(ends[index]).saturating_sub(from[at]);
        }
        let count = super::tensor::count(&shape)?;
        let place = |mut index: usize| {
            let (mut place, mut stride) = (0, 1);
            for (at, dim) in shape.iter().enumerate().rev() {
                place += (index % dim + from[at]) * stride;
                index /= dim;
                stride *= input.shape[at];
            }
            place
        };
        let output = &mut outputs[0];
        each_kind!(&input.data, values => picked(values, (0..count).map(place), output.set(&shape)?));
        Ok(())
    }

    fn moves(&self, _first: &Tensor) -> Moves {
        Moves::OfFirst
    }
}

fn picked<T: Element>(values: &[T], places: impl Iterator<Item = usize>, output: &mut Vec<T>) {
    output.extend(places.map(|place| values[place].clone()));
}

pub(super) fn slice() -> Box<dyn Operator> {
    Box::new(Slice)
}

/// Turns a constant's attribute into its tensor.
pub(super) fn constant(attributes: &Attributes<'_>) -> Result<Tensor, String> {
    if let Some(value) = attributes.tensor("value")? {
        return Tensor::read(value);
    }
    if let Some(value) = attributes.float("value_float")? {
        return Ok(Tensor::new(&[], vec![value]));
    }
    if let Some(value) = attributes.int("value_int")? {
        return Ok(Tensor::new(&[], vec![value]));
    }
    let (floats, ints) = (
        attributes.floats("value_floats")?,
        attributes.ints("value_ints")?,
    );
    match (floats, ints) {
        (floats @ [_, ..], []) => Ok(Tensor::new(&[floats.len()], floats.to_vec())),
        ([], ints @ [_, ..]) => Ok(Tensor::new(&[ints.len()], ints.to_vec())),
        _ => Err("it has no value that is supported".to_owned()),
    }
}
