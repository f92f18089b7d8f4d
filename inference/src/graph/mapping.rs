//! Standard operators that make each value of one, or choose it.

use super::arithmetic::{source, stretched, unlike};
use super::attributes::Attributes;
use super::kernel::{Kernel, Site, map, write};
use super::moves::Moves;
use super::operator::{Inputs, Operator};
use super::tensor::{Data, Element, Tensor, kind};
use std::sync::Arc;

struct Unary {
    of_float: fn(f32) -> f32,
    of_double: fn(f64) -> f64,
    of_int: Option<fn(i64) -> i64>,
}

impl Operator for Unary {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let input = inputs.get(0)?;
        let (output, shape) = (&mut outputs[0], &input.shape);
        match (&input.data, self.of_int) {
            (Data::F32(values), _) => {
                output
                    .set(shape)?
                    .extend(values.iter().map(|value| (self.of_float)(*value)));
            }
            (Data::F64(values), _) => {
                output
                    .set(shape)?
                    .extend(values.iter().map(|value| (self.of_double)(*value)));
            }
            (Data::I64(values), Some(of)) => {
                output
                    .set(shape)?
                    .extend(values.iter().map(|value| of(*value)));
            }
            _ => return Err(format!("it is not supported for {}", input.kind())),
        }
        Ok(())
    }

    fn kernel(&self, site: &mut Site<'_>) -> Option<Kernel> {
        let (of_float, of_double) = (self.of_float, self.of_double);
        match site.input(0)?.data {
            Data::F32(_) => map(site, move |it: &f32| of_float(*it)),
            Data::F64(_) => map(site, move |it: &f64| of_double(*it)),
            _ => None,
        }
    }
}

/// Of NaN it is NaN, and nothing of nothing.
macro_rules! sign {
    ($value:expr) => {
        if $value > 0.0 {
            1.0
        } else if $value < 0.0 {
            -1.0
        } else {
            $value
        }
    };
}

pub(super) fn unary(operator: &str) -> Option<Box<dyn Operator>> {
    type Both = (fn(f32) -> f32, fn(f64) -> f64);
    let (of_float, of_double): Both = match operator {
        "Neg" => (|x| -x, |x| -x),
        "Abs" => (f32::abs, f64::abs),
        "Sign" => (|x| sign!(x), |x| sign!(x)),
        "Log" => (f32::ln, f64::ln),
        "Exp" => (f32::exp, f64::exp),
        "Sqrt" => (f32::sqrt, f64::sqrt),
        "Reciprocal" => (|x| 1.0 / x, |x| 1.0 / x),
        "Floor" => (f32::floor, f64::floor),
        "Ceil" => (f32::ceil, f64::ceil),
        "Relu" => (
            |x| if x < 0.0 { 0.0 } else { x },
            |x| if x < 0.0 { 0.0 } else { x },
        ),
        "Tanh" => (f32::tanh, f64::tanh),
        "Sigmoid" => (super::transform::logistic, |x| 1.0 / (1.0 + (-x).exp())),
        _ => return None,
    };
    let of_int: Option<fn(i64) -> i64> = match operator {
        "Neg" => Some(i64::wrapping_neg),
        "Abs" => Some(i64::wrapping_abs),
        "Sign" => Some(i64::signum),
        _ => None,
    };
    Some(Box::new(Unary {
        of_float,
        of_double,
        of_int,
    }))
}

/// Bounds as attributes up to version 10, as inputs since.
struct Clip {
    min: Option<f32>,
    max: Option<f32>,
}

impl Operator for Clip {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let input = inputs.get(0)?;
        let output = &mut outputs[0];
        match &input.data {
            Data::F32(values) => {
                let min = bound(inputs.optional(1))?.or(self.min);
                let max = bound(inputs.optional(2))?.or(self.max);
                let values = values.iter().map(|value| clipped(*value, min, max));
                output.set(&input.shape)?.extend(values);
            }
            Data::F64(values) => {
                let min = bound(inputs.optional(1))?.or(self.min.map(f64::from));
                let max = bound(inputs.optional(2))?.or(self.max.map(f64::from));
                let values = values.iter().map(|value| clipped(*value, min, max));
                output.set(&input.shape)?.extend(values);
            }
            _ => return Err(format!("it is not supported for {}", input.kind())),
        }
        Ok(())
    }

    fn kernel(&self, site: &mut Site<'_>) -> Option<Kernel> {
        // Bounds that change with the window are nobody's.
        let bounds = [1, 2].map(|index| (site.input(index), site.constant(index)));
        if bounds
            .iter()
            .any(|(given, constant)| given.is_some() != constant.is_some())
        {
            return None;
        }
        let [min, max] = bounds.map(|(_, constant)| constant);
        match site.input(0)?.data {
            Data::F32(_) => {
                let min = bound(min).ok()?.or(self.min);
                let max = bound(max).ok()?.or(self.max);
                map(site, move |it: &f32| clipped(*it, min, max))
            }
            Data::F64(_) => {
                let min = bound(min).ok()?.or(self.min.map(f64::from));
                let max = bound(max).ok()?.or(self.max.map(f64::from));
                map(site, move |it: &f64| clipped(*it, min, max))
            }
            _ => None,
        }
    }
}

fn bound<T: Element + Copy>(tensor: Option<&Tensor>) -> Result<Option<T>, String> {
    let Some(tensor) = tensor else {
        return Ok(None);
    };
    match tensor.values::<T>()? {
        [value] => Ok(Some(*value)),
        _ => Err(format!("its bound is {}", tensor.told())),
    }
}

fn clipped<T: PartialOrd + Copy>(value: T, min: Option<T>, max: Option<T>) -> T {
    let above = min.filter(|min| value < *min).unwrap_or(value);
    max.filter(|max| above > *max).unwrap_or(above)
}

pub(super) fn clip(attributes: &Attributes<'_>) -> Result<Box<dyn Operator>, String> {
    Ok(Box::new(Clip {
        min: attributes.float("min")?,
        max: attributes.float("max")?,
    }))
}

struct Where;

impl Operator for Where {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let (condition, a, b) = (inputs.get(0)?, inputs.get(1)?, inputs.get(2)?);
        let of_both = stretched(&a.shape, &b.shape)?;
        let shape = stretched(&condition.shape, &of_both)?;
        let conditions = condition.values::<bool>()?;
        let is_a = |index| conditions[source(&condition.shape, &shape, index)];
        let output = &mut outputs[0];
        macro_rules! choose {
            ($x:expr, $y:expr) => {{
                let count = super::tensor::count(&shape)?;
                let chosen = output.set(&shape)?;
                chosen.extend((0..count).map(|index| {
                    if is_a(index) {
                        $x[source(&a.shape, &shape, index)].clone()
                    } else {
                        $y[source(&b.shape, &shape, index)].clone()
                    }
                }));
            }};
        }
        match (&a.data, &b.data) {
            (Data::F32(x), Data::F32(y)) => choose!(x, y),
            (Data::F64(x), Data::F64(y)) => choose!(x, y),
            (Data::I64(x), Data::I64(y)) => choose!(x, y),
            (Data::I32(x), Data::I32(y)) => choose!(x, y),
            (Data::Bool(x), Data::Bool(y)) => choose!(x, y),
            (Data::Text(x), Data::Text(y)) => choose!(x, y),
            _ => return Err(unlike(a, b)),
        }
        Ok(())
    }

    fn kernel(&self, site: &mut Site<'_>) -> Option<Kernel> {
        fn typed<T: Element>(site: &mut Site<'_>) -> Option<Kernel> {
            let (a, b) = (site.even::<T>(1)?, site.even::<T>(2)?);
            let (condition, to) = (site.even::<bool>(0)?, site.output);
            let strides = [condition.stride(), a.stride(), b.stride()];
            Some(Box::new(move |values| {
                write::<T>(values, to, |values, out| {
                    let (a, b) = (a.of::<T>(values), b.of::<T>(values));
                    let is_a = condition.of::<bool>(values);
                    for (index, out) in out.iter_mut().enumerate() {
                        let [is_a_at, a_at, b_at] = strides.map(|stride| stride * index);
                        let chosen = if is_a[is_a_at] { &a[a_at] } else { &b[b_at] };
                        out.clone_from(chosen);
                    }
                });
            }))
        }
        match site.input(1)?.data {
            Data::F32(_) => typed::<f32>(site),
            Data::F64(_) => typed::<f64>(site),
            Data::I64(_) => typed::<i64>(site),
            _ => None,
        }
    }
}

pub(super) fn choose() -> Box<dyn Operator> {
    Box::new(Where)
}

struct Cast {
    to: i64,
}

macro_rules! cast_from_number {
    ($values:expr, $to:expr, $shape:expr, $output:expr, $zero:expr) => {
        match $to {
            kind::FLOAT => $output
                .set($shape)?
                .extend($values.iter().map(|it| *it as f32)),
            kind::DOUBLE => $output
                .set($shape)?
                .extend($values.iter().map(|it| *it as f64)),
            kind::INT64 => $output
                .set($shape)?
                .extend($values.iter().map(|it| *it as i64)),
            kind::INT32 => $output
                .set($shape)?
                .extend($values.iter().map(|it| *it as i32)),
            kind::BOOL => $output
                .set($shape)?
                .extend($values.iter().map(|it| *it != $zero)),
            _ => return Err(format!("a cast to type {} is not supported here", $to)),
        }
    };
}

impl Operator for Cast {
    #[expect(clippy::cast_lossless, reason = "the same for all types")]
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let input = inputs.get(0)?;
        let (output, shape, to) = (&mut outputs[0], &input.shape, self.to);
        match &input.data {
            Data::I64(values) if to == kind::STRING => {
                let texts = values
                    .iter()
                    .map(|value| Arc::<str>::from(value.to_string()));
                output.set(shape)?.extend(texts);
            }
            Data::F32(values) => cast_from_number!(values, to, shape, output, 0.0),
            Data::F64(values) => cast_from_number!(values, to, shape, output, 0.0),
            Data::I64(values) => cast_from_number!(values, to, shape, output, 0),
            Data::I32(values) => cast_from_number!(values, to, shape, output, 0),
            Data::Bool(values) => match to {
                kind::FLOAT => output
                    .set(shape)?
                    .extend(values.iter().map(|it| f32::from(*it))),
                kind::DOUBLE => output
                    .set(shape)?
                    .extend(values.iter().map(|it| f64::from(*it))),
                kind::INT64 => output
                    .set(shape)?
                    .extend(values.iter().map(|it| i64::from(*it))),
                kind::INT32 => output
                    .set(shape)?
                    .extend(values.iter().map(|it| i32::from(*it))),
                kind::BOOL => output.clone_from(input),
                _ => return Err(format!("a cast of bool to type {to} is not supported here")),
            },
            Data::Text(_) if to == kind::STRING => output.clone_from(input),
            Data::Text(_) => return Err("a cast of strings is not supported here".to_owned()),
        }
        Ok(())
    }

    fn moves(&self, first: &Tensor) -> Moves {
        match (&first.data, self.to) {
            (Data::F32(_), kind::FLOAT)
            | (Data::F64(_), kind::DOUBLE)
            | (Data::I64(_), kind::INT64)
            | (Data::I32(_), kind::INT32)
            | (Data::Bool(_), kind::BOOL)
            | (Data::Text(_), kind::STRING) => Moves::Shape,
            _ => Moves::Not,
        }
    }

    fn kernel(&self, site: &mut Site<'_>) -> Option<Kernel> {
        match (&site.input(0)?.data, self.to) {
            (Data::F32(_), kind::DOUBLE) => map(site, |it: &f32| f64::from(*it)),
            (Data::F32(_), kind::INT64) => map(site, |it: &f32| *it as i64),
            (Data::F64(_), kind::FLOAT) => map(site, |it: &f64| *it as f32),
            (Data::F64(_), kind::INT64) => map(site, |it: &f64| *it as i64),
            (Data::I64(_), kind::FLOAT) => map(site, |it: &i64| *it as f32),
            (Data::I64(_), kind::DOUBLE) => map(site, |it: &i64| *it as f64),
            (Data::Bool(_), kind::FLOAT) => map(site, |it: &bool| f32::from(*it)),
            (Data::Bool(_), kind::DOUBLE) => map(site, |it: &bool| f64::from(*it)),
            (Data::Bool(_), kind::INT64) => map(site, |it: &bool| i64::from(*it)),
            _ => None,
        }
    }
}

pub(super) fn cast(attributes: &Attributes<'_>) -> Result<Box<dyn Operator>, String> {
    attributes.ignore(&["saturate", "round_mode"]);
    let to = attributes
        .int("to")?
        .ok_or("it does not say to which type")?;
    Ok(Box::new(Cast { to }))
}
