//! How a window becomes the inputs of a graph.

use super::proto::{Graph, Slot};
use super::tensor::{Tensor, kind};

/// The graph's inputs and what each takes of the window.
#[derive(Debug)]
pub(super) struct Feed {
    slots: Vec<(Kind, Vec<usize>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Float,
    Double,
    Int64,
}

/// The inputs that are not given in the file itself.
pub(super) fn inputs<'g, 'a>(graph: &'g Graph<'a>) -> impl Iterator<Item = &'g Slot<'a>> {
    let given: std::collections::HashSet<&str> = graph
        .initializers
        .iter()
        .map(|initializer| initializer.name)
        .collect();
    graph
        .inputs
        .iter()
        .filter(move |input| !given.contains(input.name))
}

impl Feed {
    /// Holds the graph's inputs against the window; the error is what they take.
    pub(super) fn new(graph: &Graph<'_>, rows: usize, columns: usize) -> Result<Self, String> {
        let inputs: Vec<_> = inputs(graph).collect();
        let told = || {
            let all: Vec<_> = inputs.iter().map(|input| told(input)).collect();
            all.join(", ")
        };
        let one = [vec![1, rows, columns], vec![1, rows * columns]];
        let shapes = match inputs[..] {
            [input] => {
                let fitting = one.into_iter().rev().find(|shape| fits(input, shape));
                vec![fitting.ok_or_else(told)?]
            }
            // A column each, as from a table with named columns.
            _ if rows == 1 && inputs.len() == columns => vec![vec![1, 1]; columns],
            _ => return Err(told()),
        };
        let slots = inputs.iter().zip(shapes).map(|(input, shape)| {
            let kind = match input.kind {
                kind::FLOAT => Kind::Float,
                kind::DOUBLE => Kind::Double,
                kind::INT64 => Kind::Int64,
                _ => return Err(told()),
            };
            if fits(input, &shape) {
                Ok((kind, shape))
            } else {
                Err(told())
            }
        });
        let slots = slots.collect::<Result<_, _>>()?;
        Ok(Self { slots })
    }

    /// Gives the graph a window of zeros.
    pub(super) fn prepare(&self, values: &mut [Tensor]) -> Result<(), String> {
        let count: usize = self
            .slots
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum();
        self.fill(&vec![0.0; count], values)
    }

    /// Writes the window into the first places.
    pub(super) fn fill(&self, window: &[f32], values: &mut [Tensor]) -> Result<(), String> {
        let mut rest = window;
        for ((kind, shape), tensor) in self.slots.iter().zip(values) {
            let count = shape.iter().product();
            let (taken, left) = rest
                .split_at_checked(count)
                .ok_or("a window of another size")?;
            rest = left;
            match kind {
                Kind::Float => tensor.set(shape)?.extend_from_slice(taken),
                Kind::Double => tensor
                    .set(shape)?
                    .extend(taken.iter().map(|it| f64::from(*it))),
                Kind::Int64 => {
                    let numbers = tensor.set(shape)?;
                    for value in taken {
                        numbers.push(whole(*value)?);
                    }
                }
            }
        }
        if rest.is_empty() {
            Ok(())
        } else {
            Err("a window of another size".to_owned())
        }
    }
}

fn whole(value: f32) -> Result<i64, String> {
    /// Up to here each whole number is an `f32`.
    const EXACT_MAX: f32 = 16_777_216.0;
    if value.fract() == 0.0 && value.abs() <= EXACT_MAX {
        Ok(value as i64)
    } else {
        Err(format!("an input takes whole numbers, it is given {value}"))
    }
}

/// Whether an input can have this shape; what it does not tell can be anything.
fn fits(input: &Slot<'_>, shape: &[usize]) -> bool {
    input.dims.as_ref().is_none_or(|dims| {
        let fit = |(dim, size): (&Option<i64>, &usize)| dim.is_none_or(|dim| dim == *size as i64);
        dims.len() == shape.len() && dims.iter().zip(shape).all(fit)
    })
}

fn told(input: &Slot<'_>) -> String {
    let kind = match input.kind {
        kind::FLOAT => "float",
        kind::DOUBLE => "double",
        kind::INT64 => "int64",
        kind::INT32 => "int32",
        kind::STRING => "string",
        kind::BOOL => "bool",
        _ => "another type",
    };
    let name = input.name;
    let Some(dims) = &input.dims else {
        return format!("{name} of {kind}");
    };
    let dims = dims
        .iter()
        .map(|dim| dim.map_or_else(|| "?".to_owned(), |dim| dim.to_string()));
    format!("{name} [{}] of {kind}", dims.collect::<Vec<_>>().join(", "))
}
