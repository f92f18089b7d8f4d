//! Standard operators that work value by value.

use super::attributes::Attributes;
use super::operator::{Inputs, Operator};
use super::tensor::{Data, Element, Shape, Tensor, kind};
use std::sync::Arc;

/// The shape that two shapes stretch to, dimension by dimension from the end.
pub(super) fn stretched(a: &[usize], b: &[usize]) -> Result<Shape, String> {
    let rank = a.len().max(b.len());
    let dim = |shape: &[usize], at: usize| match (at + shape.len()).checked_sub(rank) {
        Some(index) => shape[index],
        None => 1,
    };
    let mut shape = Shape::new();
    for at in 0..rank {
        let both = match (dim(a, at), dim(b, at)) {
            (a, b) if a == b => a,
            (1, b) => b,
            (a, 1) => a,
            _ => return Err(format!("shapes {a:?} and {b:?} do not go together")),
        };
        shape
            .push(both)
            .map_err(|_| "a tensor has too many dimensions")?;
    }
    Ok(shape)
}

/// Which value of a tensor of `shape` stands at place `index` of one it is stretched to.
pub(super) fn source(shape: &[usize], to: &[usize], mut index: usize) -> usize {
    let (mut place, mut stride) = (0, 1);
    for (at, dim) in to.iter().enumerate().rev() {
        let along = index % dim;
        index /= dim;
        if let Some(at) = (at + shape.len()).checked_sub(to.len()) {
            if shape[at] != 1 {
                place += along * stride;
            }
            stride *= shape[at];
        }
    }
    place
}

/// Applies `of` to each pair of values.
fn zip<T: Element, R: Element>(
    (a, a_shape): (&[T], &[usize]),
    (b, b_shape): (&[T], &[usize]),
    output: &mut Tensor,
    of: impl Fn(&T, &T) -> Result<R, String>,
) -> Result<(), String> {
    let shape = stretched(a_shape, b_shape)?;
    let count = super::tensor::count(&shape)?;
    let results = output.set::<R>(&shape)?;
    if a.len() == count && b.len() == count {
        for (a, b) in a.iter().zip(b) {
            results.push(of(a, b)?);
        }
    } else if let ([b], true) = (b, a.len() == count) {
        for a in a {
            results.push(of(a, b)?);
        }
    } else {
        for index in 0..count {
            let a = &a[source(a_shape, &shape, index)];
            let b = &b[source(b_shape, &shape, index)];
            results.push(of(a, b)?);
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Min,
}

trait Arithmetic: Element + Copy {
    fn compute(operation: Binary, a: Self, b: Self) -> Result<Self, String>;
}

macro_rules! of_floats {
    ($type:ty) => {
        impl Arithmetic for $type {
            fn compute(operation: Binary, a: Self, b: Self) -> Result<Self, String> {
                Ok(match operation {
                    Binary::Add => a + b,
                    Binary::Sub => a - b,
                    Binary::Mul => a * b,
                    Binary::Div => a / b,
                    // NaN on either side stays.
                    _ if a.is_nan() || b.is_nan() => a + b,
                    Binary::Max => a.max(b),
                    Binary::Min => a.min(b),
                })
            }
        }
    };
}

macro_rules! of_ints {
    ($type:ty) => {
        impl Arithmetic for $type {
            fn compute(operation: Binary, a: Self, b: Self) -> Result<Self, String> {
                match operation {
                    Binary::Add => a.checked_add(b),
                    Binary::Sub => a.checked_sub(b),
                    Binary::Mul => a.checked_mul(b),
                    Binary::Div => a.checked_div(b),
                    Binary::Max => Some(a.max(b)),
                    Binary::Min => Some(a.min(b)),
                }
                .ok_or_else(|| format!("{operation:?} of {a} and {b} is no whole number"))
            }
        }
    };
}

of_floats!(f32);
of_floats!(f64);
of_ints!(i64);
of_ints!(i32);

impl Binary {
    fn apply(self, a: &Tensor, b: &Tensor, output: &mut Tensor) -> Result<(), String> {
        fn typed<T: Arithmetic>(
            of: Binary,
            (a, a_shape): (&[T], &[usize]),
            (b, b_shape): (&[T], &[usize]),
            output: &mut Tensor,
        ) -> Result<(), String> {
            zip((a, a_shape), (b, b_shape), output, |a, b| {
                T::compute(of, *a, *b)
            })
        }
        let (s, t) = (&a.shape[..], &b.shape[..]);
        match (&a.data, &b.data) {
            (Data::F32(a), Data::F32(b)) => typed(self, (a, s), (b, t), output),
            (Data::F64(a), Data::F64(b)) => typed(self, (a, s), (b, t), output),
            (Data::I64(a), Data::I64(b)) => typed(self, (a, s), (b, t), output),
            (Data::I32(a), Data::I32(b)) => typed(self, (a, s), (b, t), output),
            _ => Err(unlike(a, b)),
        }
    }
}

fn unlike(a: &Tensor, b: &Tensor) -> String {
    format!("it is not supported for {} and {}", a.told(), b.told())
}

/// `Add` and the like, and those that take any number of inputs; `Mean` divides at the end.
struct Fold {
    operation: Binary,
    is_mean: bool,
    so_far: Tensor,
}

impl Operator for Fold {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let output = &mut outputs[0];
        let first = inputs.get(0)?;
        if inputs.len() == 1 {
            output.clone_from(first);
        } else {
            self.operation.apply(first, inputs.get(1)?, output)?;
        }
        for index in 2..inputs.len() {
            std::mem::swap(&mut self.so_far, output);
            self.operation
                .apply(&self.so_far, inputs.get(index)?, output)?;
        }
        if self.is_mean {
            match &mut output.data {
                Data::F32(values) => values.iter_mut().for_each(|it| *it /= inputs.len() as f32),
                Data::F64(values) => values.iter_mut().for_each(|it| *it /= inputs.len() as f64),
                _ => return Err(format!("it has no mean of {}", first.kind())),
            }
        }
        Ok(())
    }
}

pub(super) fn fold(operator: &str) -> Option<Box<dyn Operator>> {
    let operation = match operator {
        "Add" | "Sum" | "Mean" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Max" => Binary::Max,
        "Min" => Binary::Min,
        _ => return None,
    };
    Some(Box::new(Fold {
        operation,
        is_mean: operator == "Mean",
        so_far: Tensor::default(),
    }))
}

struct Pow;

impl Operator for Pow {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let (base, exponent) = (inputs.get(0)?, inputs.get(1)?);
        let shape = stretched(&base.shape, &exponent.shape)?;
        let count = super::tensor::count(&shape)?;
        if matches!(exponent.data, Data::Bool(_) | Data::Text(_)) {
            return Err(unlike(base, exponent));
        }
        let at = |index| {
            let place = source(&exponent.shape, &shape, index);
            match &exponent.data {
                Data::F32(values) => f64::from(values[place]),
                Data::F64(values) => values[place],
                Data::I64(values) => values[place] as f64,
                Data::I32(values) => f64::from(values[place]),
                Data::Bool(_) | Data::Text(_) => unreachable!("they were refused"),
            }
        };
        match &base.data {
            Data::F32(values) => {
                let value = |index| values[source(&base.shape, &shape, index)];
                let results = outputs[0].set::<f32>(&shape)?;
                results.extend((0..count).map(|it| value(it).powf(at(it) as f32)));
            }
            Data::F64(values) => {
                let value = |index| values[source(&base.shape, &shape, index)];
                let results = outputs[0].set::<f64>(&shape)?;
                results.extend((0..count).map(|it| value(it).powf(at(it))));
            }
            _ => return Err(unlike(base, exponent)),
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
enum Compare {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Compare {
    fn holds<T: PartialOrd>(self, a: &T, b: &T) -> bool {
        match self {
            Self::Equal => a == b,
            Self::Less => a < b,
            Self::LessOrEqual => a <= b,
            Self::Greater => a > b,
            Self::GreaterOrEqual => a >= b,
        }
    }
}

impl Operator for Compare {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let (a, b) = (inputs.get(0)?, inputs.get(1)?);
        let output = &mut outputs[0];
        let (s, t) = (&a.shape[..], &b.shape[..]);
        match (&a.data, &b.data) {
            (Data::F32(a), Data::F32(b)) => {
                zip((a, s), (b, t), output, |a, b| Ok(self.holds(a, b)))
            }
            (Data::F64(a), Data::F64(b)) => {
                zip((a, s), (b, t), output, |a, b| Ok(self.holds(a, b)))
            }
            (Data::I64(a), Data::I64(b)) => {
                zip((a, s), (b, t), output, |a, b| Ok(self.holds(a, b)))
            }
            (Data::I32(a), Data::I32(b)) => {
                zip((a, s), (b, t), output, |a, b| Ok(self.holds(a, b)))
            }
            (Data::Bool(a), Data::Bool(b)) => {
                zip((a, s), (b, t), output, |a, b| Ok(self.holds(a, b)))
            }
            (Data::Text(a), Data::Text(b)) => {
                zip((a, s), (b, t), output, |a, b| Ok(self.holds(a, b)))
            }
            _ => Err(unlike(a, b)),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Logic {
    And,
    Or,
    Xor,
    Not,
}

impl Operator for Logic {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let a = inputs.get(0)?;
        let output = &mut outputs[0];
        if matches!(self, Self::Not) {
            let values = a.values::<bool>()?;
            output
                .set(&a.shape)?
                .extend(values.iter().map(|value| !value));
            return Ok(());
        }
        let b = inputs.get(1)?;
        let (values, others) = (a.values::<bool>()?, b.values::<bool>()?);
        zip((values, &a.shape), (others, &b.shape), output, |a, b| {
            Ok(match self {
                Self::And => *a && *b,
                Self::Or => *a || *b,
                Self::Xor | Self::Not => a != b,
            })
        })
    }
}

pub(super) fn compare(operator: &str) -> Option<Box<dyn Operator>> {
    Some(match operator {
        "Pow" => Box::new(Pow),
        "Equal" => Box::new(Compare::Equal),
        "Less" => Box::new(Compare::Less),
        "LessOrEqual" => Box::new(Compare::LessOrEqual),
        "Greater" => Box::new(Compare::Greater),
        "GreaterOrEqual" => Box::new(Compare::GreaterOrEqual),
        "And" => Box::new(Logic::And),
        "Or" => Box::new(Logic::Or),
        "Xor" => Box::new(Logic::Xor),
        "Not" => Box::new(Logic::Not),
        _ => return None,
    })
}

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
        fn bound<T: Element + Copy>(
            inputs: &Inputs<'_>,
            index: usize,
        ) -> Result<Option<T>, String> {
            let Some(tensor) = inputs.optional(index) else {
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
        let input = inputs.get(0)?;
        let output = &mut outputs[0];
        match &input.data {
            Data::F32(values) => {
                let min = bound(inputs, 1)?.or(self.min);
                let max = bound(inputs, 2)?.or(self.max);
                let values = values.iter().map(|value| clipped(*value, min, max));
                output.set(&input.shape)?.extend(values);
            }
            Data::F64(values) => {
                let min = bound(inputs, 1)?.or(self.min.map(f64::from));
                let max = bound(inputs, 2)?.or(self.max.map(f64::from));
                let values = values.iter().map(|value| clipped(*value, min, max));
                output.set(&input.shape)?.extend(values);
            }
            _ => return Err(format!("it is not supported for {}", input.kind())),
        }
        Ok(())
    }
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
}

pub(super) fn cast(attributes: &Attributes<'_>) -> Result<Box<dyn Operator>, String> {
    attributes.ignore(&["saturate", "round_mode"]);
    let to = attributes
        .int("to")?
        .ok_or("it does not say to which type")?;
    Ok(Box::new(Cast { to }))
}
