//! Standard operators that bring many values down to few, and matrix products.

use super::attributes::Attributes;
use super::kernel::{Kernel, Site, write};
use super::operator::{Inputs, Operator, axis, ints};
use super::tensor::{Data, Element, RANK_MAX, Shape, Tensor};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reduction {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    SumSquare,
    L1,
    L2,
    LogSum,
    LogSumExp,
}

struct Reduce {
    reduction: Reduction,
    axes: Option<Vec<i64>>,
    keeps_dims: bool,
    empty_is_nothing: bool,
    /// The highest values, which a logarithm of a sum of exponentials is taken relative to.
    highest: Vec<f64>,
}

/// Where each value goes when `reduced` dimensions become one.
fn goal(shape: &[usize], reduced: &[bool; RANK_MAX], mut index: usize) -> usize {
    let (mut place, mut stride) = (0, 1);
    for (at, dim) in shape.iter().enumerate().rev() {
        if !reduced[at] {
            place += (index % dim) * stride;
            stride *= dim;
        }
        index /= dim;
    }
    place
}

trait Reducible: Element + Copy {
    fn fold(reduction: Reduction, so_far: Self, value: Self, highest: f64) -> Self;
    fn start(reduction: Reduction) -> Self;
    fn finish(reduction: Reduction, value: Self, count: usize, highest: f64) -> Self;
    fn to_f64(self) -> f64;
}

macro_rules! reducible_float {
    ($type:ty, $narrow:expr) => {
        impl Reducible for $type {
            fn start(reduction: Reduction) -> Self {
                match reduction {
                    Reduction::Prod => 1.0,
                    Reduction::Max => Self::NEG_INFINITY,
                    Reduction::Min => Self::INFINITY,
                    _ => 0.0,
                }
            }

            #[inline(always)]
            fn fold(reduction: Reduction, so_far: Self, value: Self, highest: f64) -> Self {
                match reduction {
                    Reduction::Sum | Reduction::Mean | Reduction::LogSum => so_far + value,
                    Reduction::Prod => so_far * value,
                    Reduction::Max if so_far.is_nan() || value.is_nan() => Self::NAN,
                    Reduction::Min if so_far.is_nan() || value.is_nan() => Self::NAN,
                    Reduction::Max => so_far.max(value),
                    Reduction::Min => so_far.min(value),
                    Reduction::SumSquare | Reduction::L2 => so_far + value * value,
                    Reduction::L1 => so_far + value.abs(),
                    Reduction::LogSumExp => so_far + (value - $narrow(highest)).exp(),
                }
            }

            fn finish(reduction: Reduction, value: Self, count: usize, highest: f64) -> Self {
                match reduction {
                    Reduction::Mean => value / count as Self,
                    Reduction::L2 => value.sqrt(),
                    Reduction::LogSum => value.ln(),
                    Reduction::LogSumExp => value.ln() + $narrow(highest),
                    _ => value,
                }
            }

            fn to_f64(self) -> f64 {
                f64::from(self)
            }
        }
    };
}

reducible_float!(f32, |value| value as f32);
reducible_float!(f64, std::convert::identity);

impl Reduce {
    fn reduce<T: Reducible>(
        &mut self,
        (values, shape): (&[T], &[usize]),
        reduced: &[bool; RANK_MAX],
        to: &[usize],
        output: &mut Tensor,
    ) -> Result<(), String> {
        let count: usize = to.iter().product();
        let each = values.len().checked_div(count).unwrap_or(0);
        if each == 0 {
            return Err("it reduces nothing".to_owned());
        }
        self.highest.clear();
        self.highest.resize(count, 0.0);
        if self.reduction == Reduction::LogSumExp {
            self.highest.fill(f64::NEG_INFINITY);
            for (index, value) in values.iter().enumerate() {
                let highest = &mut self.highest[goal(shape, reduced, index)];
                *highest = highest.max(value.to_f64());
            }
            // Relative to infinity there is nothing.
            self.highest
                .iter_mut()
                .filter(|it| it.is_infinite())
                .for_each(|it| *it = 0.0);
        }
        let (reduction, highest) = (self.reduction, &self.highest);
        let results = output.set::<T>(to)?;
        results.resize(count, T::start(reduction));
        for (index, value) in values.iter().enumerate() {
            let place = goal(shape, reduced, index);
            results[place] = T::fold(reduction, results[place], *value, highest[place]);
        }
        for (result, highest) in results.iter_mut().zip(highest) {
            *result = T::finish(reduction, *result, each, *highest);
        }
        Ok(())
    }
}

impl Operator for Reduce {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let input = inputs.get(0)?;
        let rank = input.shape.len();
        let axes = match inputs.optional(1) {
            Some(axes) => ints(axes)?,
            None => self.axes.as_deref().unwrap_or(&[]),
        };
        if axes.is_empty() && self.empty_is_nothing {
            outputs[0].clone_from(input);
            return Ok(());
        }
        let reduced = reduced(axes, rank)?;
        let mut shape = Shape::new();
        for (at, dim) in input.shape.iter().enumerate() {
            let dim = match (reduced[at], self.keeps_dims) {
                (false, _) => *dim,
                (true, true) => 1,
                (true, false) => continue,
            };
            shape
                .push(dim)
                .map_err(|_| "a tensor has too many dimensions")?;
        }
        let from = &input.shape[..];
        match &input.data {
            Data::F32(values) => self.reduce((values, from), &reduced, &shape, &mut outputs[0]),
            Data::F64(values) => self.reduce((values, from), &reduced, &shape, &mut outputs[0]),
            _ => Err(format!("it is not supported for {}", input.kind())),
        }
    }

    fn kernel(&self, site: &mut Site<'_>) -> Option<Kernel> {
        let shape = &site.input(0)?.shape;
        let axes = match site.input(1) {
            Some(_) => ints(site.constant(1)?).ok()?,
            None => self.axes.as_deref().unwrap_or(&[]),
        };
        if axes.is_empty() && self.empty_is_nothing || self.reduction == Reduction::LogSumExp {
            return None;
        }
        let span = Stretch::of(shape, &reduced(axes, shape.len()).ok()?)?;
        match site.input(0)?.data {
            Data::F32(_) => span.kernel::<f32>(self.reduction, site),
            Data::F64(_) => span.kernel::<f64>(self.reduction, site),
            _ => None,
        }
    }
}

/// Which dimensions become one.
fn reduced(axes: &[i64], rank: usize) -> Result<[bool; RANK_MAX], String> {
    let mut reduced = [axes.is_empty(); RANK_MAX];
    for it in axes {
        reduced[axis(*it, rank)?] = true;
    }
    Ok(reduced)
}

/// Reduced dimensions that lie side by side: how many numbers become one, and how many results
/// lie side by side.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    along: usize,
    behind: usize,
}

impl Stretch {
    fn of(shape: &[usize], reduced: &[bool; RANK_MAX]) -> Option<Self> {
        let mut stretch = Self {
            along: 1,
            behind: 1,
        };
        let dims = shape
            .iter()
            .zip(reduced)
            .rev()
            .filter(|(dim, _)| **dim != 1);
        let mut is_over = false;
        for (dim, reduced) in dims {
            match (*reduced, stretch.along, is_over) {
                (true, _, false) => stretch.along *= dim,
                (true, _, true) => return None,
                (false, 1, _) => stretch.behind *= dim,
                (false, ..) => is_over = true,
            }
        }
        Some(stretch)
    }

    fn kernel<T: Reducible>(self, reduction: Reduction, site: &mut Site<'_>) -> Option<Kernel> {
        let (from, to) = (site.dense::<T>(0)?, site.output);
        Some(Box::new(move |values| {
            write::<T>(values, to, |values, out| {
                self.reduce(reduction, from.of::<T>(values), out);
            });
        }))
    }

    fn reduce<T: Reducible>(self, reduction: Reduction, from: &[T], out: &mut [T]) {
        use Reduction::{L1, L2, LogSum, LogSumExp, Max, Mean, Min, Prod, Sum, SumSquare};
        let start = T::start(reduction);
        match reduction {
            Sum | Mean | LogSum | LogSumExp => {
                self.fold(from, out, start, |a, b| T::fold(Sum, a, b, 0.0));
            }
            SumSquare | L2 => {
                self.fold(from, out, start, |a, b| T::fold(SumSquare, a, b, 0.0));
            }
            Max => self.fold(from, out, start, |a, b| T::fold(Max, a, b, 0.0)),
            Min => self.fold(from, out, start, |a, b| T::fold(Min, a, b, 0.0)),
            Prod => self.fold(from, out, start, |a, b| T::fold(Prod, a, b, 0.0)),
            L1 => self.fold(from, out, start, |a, b| T::fold(L1, a, b, 0.0)),
        }
        for out in out {
            *out = T::finish(reduction, *out, self.along, 0.0);
        }
    }

    fn fold<T: Reducible>(self, from: &[T], out: &mut [T], start: T, of: impl Fn(T, T) -> T) {
        let Self { along, behind } = self;
        if behind == 1 {
            for (from, out) in from.chunks_exact(along).zip(out) {
                *out = from.iter().fold(start, |so_far, it| of(so_far, *it));
            }
            return;
        }
        let blocks = from.chunks_exact(along * behind);
        for (from, out) in blocks.zip(out.chunks_exact_mut(behind)) {
            out.fill(start);
            for row in from.chunks_exact(behind) {
                for (out, it) in out.iter_mut().zip(row) {
                    *out = of(*out, *it);
                }
            }
        }
    }
}

pub(super) fn reduce(
    operator: &str,
    attributes: &Attributes<'_>,
) -> Result<Option<Box<dyn Operator>>, String> {
    let reduction = match operator {
        "ReduceSum" => Reduction::Sum,
        "ReduceMean" => Reduction::Mean,
        "ReduceMax" => Reduction::Max,
        "ReduceMin" => Reduction::Min,
        "ReduceProd" => Reduction::Prod,
        "ReduceSumSquare" => Reduction::SumSquare,
        "ReduceL1" => Reduction::L1,
        "ReduceL2" => Reduction::L2,
        "ReduceLogSum" => Reduction::LogSum,
        "ReduceLogSumExp" => Reduction::LogSumExp,
        _ => return Ok(None),
    };
    let axes = attributes.has("axes").then(|| attributes.ints("axes"));
    Ok(Some(Box::new(Reduce {
        reduction,
        axes: axes.transpose()?.map(<[i64]>::to_vec),
        keeps_dims: attributes.int("keepdims")?.unwrap_or(1) != 0,
        empty_is_nothing: attributes.int("noop_with_empty_axes")?.unwrap_or(0) != 0,
        highest: Vec::new(),
    })))
}

/// How a tensor lies around an axis: values before, along and behind it.
fn around(shape: &[usize], at: usize) -> (usize, usize, usize) {
    let (before, behind) = (&shape[..at], &shape[at + 1..]);
    (before.iter().product(), shape[at], behind.iter().product())
}

struct ArgMax {
    axis: i64,
    keeps_dims: bool,
    least: bool,
}

impl Operator for ArgMax {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        fn typed<T: PartialOrd + Copy>(
            values: &[T],
            (before, along, behind): (usize, usize, usize),
            least: bool,
            places: &mut Vec<i64>,
        ) {
            for row in 0..before {
                for column in 0..behind {
                    let value = |index: usize| values[(row * along + index) * behind + column];
                    let mut winner = 0;
                    for index in 1..along {
                        let beats = if least {
                            value(index) < value(winner)
                        } else {
                            value(index) > value(winner)
                        };
                        if beats {
                            winner = index;
                        }
                    }
                    places.push(winner as i64);
                }
            }
        }
        let input = inputs.get(0)?;
        let at = axis(self.axis, input.shape.len())?;
        let span = around(&input.shape, at);
        if span.1 == 0 {
            return Err("it chooses among none".to_owned());
        }
        let mut shape = input.shape.clone();
        if self.keeps_dims {
            shape[at] = 1;
        } else {
            shape.remove(at);
        }
        let places = outputs[0].set(&shape)?;
        match &input.data {
            Data::F32(values) => typed(values, span, self.least, places),
            Data::F64(values) => typed(values, span, self.least, places),
            Data::I64(values) => typed(values, span, self.least, places),
            Data::I32(values) => typed(values, span, self.least, places),
            _ => return Err(format!("it is not supported for {}", input.kind())),
        }
        Ok(())
    }
}

pub(super) fn arg_max(
    attributes: &Attributes<'_>,
    least: bool,
) -> Result<Box<dyn Operator>, String> {
    if attributes.int("select_last_index")?.unwrap_or(0) != 0 {
        return Err("select_last_index is not supported".to_owned());
    }
    Ok(Box::new(ArgMax {
        axis: attributes.int("axis")?.unwrap_or(0),
        keeps_dims: attributes.int("keepdims")?.unwrap_or(1) != 0,
        least,
    }))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    Softmax,
    LogSoftmax,
    L1,
    L2,
}

/// Softmax and LpNormalization: each value against all along an axis.
struct Shares {
    share: Share,
    axis: i64,
}

macro_rules! shares {
    ($values:expr, $span:expr, $share:expr) => {{
        let (before, along, behind) = $span;
        for row in 0..before {
            for column in 0..behind {
                let at = |index: usize| (row * along + index) * behind + column;
                let most = (0..along)
                    .map(|it| $values[at(it)])
                    .fold($values[at(0)], |a, b| a.max(b));
                let sum = (0..along)
                    .map(|it| $values[at(it)])
                    .fold(0.0, |sum, value| {
                        sum + match $share {
                            Share::Softmax | Share::LogSoftmax => (value - most).exp(),
                            Share::L1 => value.abs(),
                            Share::L2 => value * value,
                        }
                    });
                for index in 0..along {
                    let value = &mut $values[at(index)];
                    *value = match $share {
                        Share::Softmax => (*value - most).exp() / sum,
                        Share::LogSoftmax => *value - most - sum.ln(),
                        // Nothing stays nothing.
                        Share::L1 if sum != 0.0 => *value / sum,
                        Share::L2 if sum != 0.0 => *value / sum.sqrt(),
                        Share::L1 | Share::L2 => *value,
                    };
                }
            }
        }
    }};
}

impl Operator for Shares {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let input = inputs.get(0)?;
        let span = around(&input.shape, axis(self.axis, input.shape.len())?);
        let (output, share) = (&mut outputs[0], self.share);
        if span.1 == 0 {
            return Err("it shares among none".to_owned());
        }
        match &input.data {
            Data::F32(values) => {
                let results = output.set::<f32>(&input.shape)?;
                results.extend_from_slice(values);
                shares!(results, span, share);
            }
            Data::F64(values) => {
                let results = output.set::<f64>(&input.shape)?;
                results.extend_from_slice(values);
                shares!(results, span, share);
            }
            _ => return Err(format!("it is not supported for {}", input.kind())),
        }
        Ok(())
    }
}

/// Since version 13 along one axis; before, over all from an axis on, which for a row is the same
/// if it is the last.
pub(super) fn softmax(
    attributes: &Attributes<'_>,
    opset: i64,
    log: bool,
) -> Result<Box<dyn Operator>, String> {
    const ALONG_AXIS: i64 = 13;
    let told = attributes.int("axis")?;
    let axis = match (told, opset) {
        (told, ALONG_AXIS..) => told.unwrap_or(-1),
        (None | Some(1 | -1), _) => -1,
        (Some(other), _) => return Err(format!("axis {other} before version 13 is not supported")),
    };
    let share = if log {
        Share::LogSoftmax
    } else {
        Share::Softmax
    };
    Ok(Box::new(Shares { share, axis }))
}

pub(super) fn lp_normalization(attributes: &Attributes<'_>) -> Result<Box<dyn Operator>, String> {
    let axis = attributes.int("axis")?.unwrap_or(-1);
    let share = match attributes.int("p")?.unwrap_or(2) {
        1 => Share::L1,
        2 => Share::L2,
        other => return Err(format!("p = {other} is not known here")),
    };
    Ok(Box::new(Shares { share, axis }))
}

/// `alpha * A * B + beta * C`, of which MatMul is the plain case.
struct Product {
    alpha: f32,
    beta: f32,
    a_is_turned: bool,
    b_is_turned: bool,
}

macro_rules! product {
    ($self:expr, $type:ty, $inputs:expr, $a:expr, $b:expr, $output:expr) => {{
        let (left, right) = ($inputs.get(0)?, $inputs.get(1)?);
        let sizes = |tensor: &Tensor, turned: bool| match tensor.shape[..] {
            [rows, columns] if turned => Ok((columns, rows)),
            [rows, columns] => Ok((rows, columns)),
            _ => Err(format!("{} is no matrix", tensor.told())),
        };
        let ((m, k), (inner, n)) = (
            sizes(left, $self.a_is_turned)?,
            sizes(right, $self.b_is_turned)?,
        );
        if k != inner {
            return Err(format!("{} times {}", left.told(), right.told()));
        }
        let added = $inputs.optional(2);
        let added = added
            .map(|c| Ok::<_, String>((c.values::<$type>()?, &c.shape[..])))
            .transpose()?;
        if let Some((_, shape)) = added {
            if super::arithmetic::stretched(shape, &[m, n])?[..] != [m, n] {
                return Err(format!("a sum with a tensor of shape {shape:?}"));
            }
        }
        let results = $output.set::<$type>(&[m, n])?;
        results.resize(m * n, 0.0);
        for i in 0..m {
            let row = &mut results[i * n..][..n];
            for l in 0..k {
                let x = if $self.a_is_turned {
                    $a[l * m + i]
                } else {
                    $a[i * k + l]
                };
                if $self.b_is_turned {
                    for (j, sum) in row.iter_mut().enumerate() {
                        *sum += x * $b[j * k + l];
                    }
                } else {
                    for (sum, y) in row.iter_mut().zip(&$b[l * n..][..n]) {
                        *sum += x * y;
                    }
                }
            }
        }
        let (alpha, beta) = (<$type>::from($self.alpha), <$type>::from($self.beta));
        results.iter_mut().for_each(|result| *result *= alpha);
        if let Some((values, shape)) = added {
            for (index, result) in results.iter_mut().enumerate() {
                *result += beta * values[super::arithmetic::source(shape, &[m, n], index)];
            }
        }
    }};
}

impl Operator for Product {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let output = &mut outputs[0];
        match (&inputs.get(0)?.data, &inputs.get(1)?.data) {
            (Data::F32(a), Data::F32(b)) => product!(self, f32, inputs, a, b, output),
            (Data::F64(a), Data::F64(b)) => product!(self, f64, inputs, a, b, output),
            _ => {
                let (a, b) = (inputs.get(0)?.told(), inputs.get(1)?.told());
                return Err(format!("{a} times {b} is not supported"));
            }
        }
        Ok(())
    }
}

pub(super) fn mat_mul() -> Box<dyn Operator> {
    Box::new(Product {
        alpha: 1.0,
        beta: 1.0,
        a_is_turned: false,
        b_is_turned: false,
    })
}

pub(super) fn gemm(attributes: &Attributes<'_>) -> Result<Box<dyn Operator>, String> {
    Ok(Box::new(Product {
        alpha: attributes.float("alpha")?.unwrap_or(1.0),
        beta: attributes.float("beta")?.unwrap_or(1.0),
        a_is_turned: attributes.int("transA")?.unwrap_or(0) != 0,
        b_is_turned: attributes.int("transB")?.unwrap_or(0) != 0,
    }))
}
