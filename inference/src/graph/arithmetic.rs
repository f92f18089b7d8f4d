//! Standard operators that make each value of two or more.

use super::forest::Number;
use super::kernel::{Kernel, Operand, Site, Spread, mix, pairs, write};
use super::operator::{Inputs, Operator};
use super::tensor::{Data, Element, Shape, Tensor};

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

/// Numbers of which there is a result for each pair.
trait Float: Arithmetic + Number {
    fn combine(operation: Binary, a: Self, b: Self) -> Self;
}

macro_rules! of_floats {
    ($type:ty) => {
        impl Float for $type {
            #[inline(always)]
            fn combine(operation: Binary, a: Self, b: Self) -> Self {
                match operation {
                    Binary::Add => a + b,
                    Binary::Sub => a - b,
                    Binary::Mul => a * b,
                    Binary::Div => a / b,
                    // NaN on either side stays.
                    _ if a.is_nan() || b.is_nan() => a + b,
                    Binary::Max => a.max(b),
                    Binary::Min => a.min(b),
                }
            }
        }

        impl Arithmetic for $type {
            fn compute(operation: Binary, a: Self, b: Self) -> Result<Self, String> {
                Ok(Self::combine(operation, a, b))
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
    fn mix<T: Float>(self, out: &mut [T], with: (&[T], Spread)) {
        match self {
            Self::Add => mix(out, with, |a, b| T::combine(Self::Add, a, b)),
            Self::Sub => mix(out, with, |a, b| T::combine(Self::Sub, a, b)),
            Self::Mul => mix(out, with, |a, b| T::combine(Self::Mul, a, b)),
            Self::Div => mix(out, with, |a, b| T::combine(Self::Div, a, b)),
            Self::Max => mix(out, with, |a, b| T::combine(Self::Max, a, b)),
            Self::Min => mix(out, with, |a, b| T::combine(Self::Min, a, b)),
        }
    }

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

pub(super) fn unlike(a: &Tensor, b: &Tensor) -> String {
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

    fn kernel(&self, site: &mut Site<'_>) -> Option<Kernel> {
        match site.input(0)?.data {
            Data::F32(_) => self.of_floats::<f32>(site),
            Data::F64(_) => self.of_floats::<f64>(site),
            _ => None,
        }
    }
}

impl Fold {
    fn of_floats<T: Float>(&self, site: &mut Site<'_>) -> Option<Kernel> {
        let operands = (0..site.inputs.len()).map(|index| site.spread::<T>(index));
        let operands: Box<[Operand]> = operands.collect::<Option<_>>()?;
        let (operation, is_mean, to) = (self.operation, self.is_mean, site.output);
        if site.values[to].len() == 1 && !is_mean {
            // What comes of trees is one number, and a loop over it takes longer than the number.
            return Some(Box::new(move |values| {
                write::<T>(values, to, |values, out| {
                    let mut numbers = operands.iter().map(|operand| operand.of::<T>(values)[0]);
                    if let Some(first) = numbers.next() {
                        out[0] = numbers.fold(first, |a, b| T::combine(operation, a, b));
                    }
                });
            }));
        }
        Some(Box::new(move |values| {
            write::<T>(values, to, |values, out| {
                for (index, operand) in operands.iter().enumerate() {
                    let with = (operand.of(values), operand.spread);
                    if index == 0 {
                        mix(out, with, |_, first| first);
                    } else {
                        operation.mix(out, with);
                    }
                }
                if is_mean {
                    out.iter_mut().for_each(|it| *it = it.over(operands.len()));
                }
            });
        }))
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

    fn kernel(&self, site: &mut Site<'_>) -> Option<Kernel> {
        match site.input(0)?.data {
            Data::F32(_) => self.of_numbers::<f32>(site),
            Data::F64(_) => self.of_numbers::<f64>(site),
            Data::I64(_) => self.of_numbers::<i64>(site),
            _ => None,
        }
    }
}

impl Compare {
    fn of_numbers<T: Element + Copy + PartialOrd>(self, site: &mut Site<'_>) -> Option<Kernel> {
        let (a, b) = (site.even::<T>(0)?, site.even::<T>(1)?);
        let are_single = (a.spread == Spread::Single, b.spread == Spread::Single);
        let to = site.output;
        Some(Box::new(move |values| {
            write::<bool>(values, to, |values, out| {
                let ab = (a.of::<T>(values), b.of::<T>(values));
                match self {
                    Self::Equal => pairs(out, ab, are_single, |a, b| a == b),
                    Self::Less => pairs(out, ab, are_single, |a, b| a < b),
                    Self::LessOrEqual => pairs(out, ab, are_single, |a, b| a <= b),
                    Self::Greater => pairs(out, ab, are_single, |a, b| a > b),
                    Self::GreaterOrEqual => pairs(out, ab, are_single, |a, b| a >= b),
                }
            });
        }))
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
