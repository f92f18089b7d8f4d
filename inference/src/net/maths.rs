//! Operators on each number, and over the numbers of a row.
//!
//! What a net uses between its layers (exp, tanh, sigmoid, GELU) is written for whole registers,
//! to a few units in the last place; what it seldom uses is left to the standard library. Not a
//! number stays not a number: the smaller and the larger of two are taken with the number that is
//! looked at on the right, which both x86 and ARM then return.

use super::Spread;
use fearless_simd::{Bytes, ExtractToken, Select, Simd, SimdBase, SimdFloat, f32x16, i32x16};

const LANES: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Unary {
    Abs,
    Ceil,
    Erf,
    Exp,
    Floor,
    /// Exact, by the error function.
    Gelu,
    /// Of the slope given.
    LeakyRelu(f32),
    Ln,
    Neg,
    Recip,
    Rsqrt,
    Sigmoid,
    Sign,
    Silu,
    Sqrt,
    Square,
    Tanh,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    Pow,
    /// One where the left is less than, equal to (or not equal to) the right, zero elsewhere.
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fold {
    Sum,
    Max,
    Min,
    MeanOfSquares,
}

#[inline(always)]
pub(super) fn unary<S: Simd>(simd: S, op: Unary, numbers: &mut [f32]) {
    simd.vectorize(
        #[inline(always)]
        || match op {
            Unary::Erf => each(
                simd,
                numbers,
                #[inline(always)]
                |x| erf(x),
            ),
            Unary::Exp => each(
                simd,
                numbers,
                #[inline(always)]
                |x| exp(x),
            ),
            Unary::Gelu => each(
                simd,
                numbers,
                #[inline(always)]
                |x| gelu(x),
            ),
            Unary::Sigmoid => each(
                simd,
                numbers,
                #[inline(always)]
                |x| sigmoid(x),
            ),
            Unary::Silu => each(
                simd,
                numbers,
                #[inline(always)]
                |x| x * sigmoid(x),
            ),
            Unary::Tanh => each(
                simd,
                numbers,
                #[inline(always)]
                |x| tanh(x),
            ),
            Unary::LeakyRelu(slope) => {
                one_by_one(numbers, |x| if x < 0.0 { slope * x } else { x });
            }
            Unary::Abs => one_by_one(numbers, f32::abs),
            Unary::Ceil => one_by_one(numbers, f32::ceil),
            Unary::Floor => one_by_one(numbers, f32::floor),
            Unary::Ln => one_by_one(numbers, f32::ln),
            Unary::Neg => one_by_one(numbers, |x| -x),
            Unary::Recip => one_by_one(numbers, f32::recip),
            Unary::Rsqrt => one_by_one(numbers, |x| x.sqrt().recip()),
            Unary::Sign => one_by_one(numbers, |x| if x == 0.0 { 0.0 } else { x.signum() }),
            Unary::Sqrt => one_by_one(numbers, f32::sqrt),
            Unary::Square => one_by_one(numbers, |x| x * x),
        },
    );
}

#[inline(always)]
pub(super) fn binary<S: Simd>(
    simd: S,
    op: Binary,
    left: (&[f32], Spread),
    right: (&[f32], Spread),
    out: &mut [f32],
) {
    let truth = |is: bool| if is { 1.0 } else { 0.0 };
    simd.vectorize(
        #[inline(always)]
        || match op {
            Binary::Add => pairs(left, right, out, |a, b| a + b),
            Binary::Sub => pairs(left, right, out, |a, b| a - b),
            Binary::Mul => pairs(left, right, out, |a, b| a * b),
            Binary::Div => pairs(left, right, out, |a, b| a / b),
            // Either being not a number makes the result so, as onnxruntime has it.
            Binary::Min => pairs(
                left,
                right,
                out,
                |a, b| {
                    if a < b || a.is_nan() { a } else { b }
                },
            ),
            Binary::Max => pairs(
                left,
                right,
                out,
                |a, b| {
                    if a > b || a.is_nan() { a } else { b }
                },
            ),
            Binary::Pow => pairs(left, right, out, f32::powf),
            Binary::Less => pairs(left, right, out, |a, b| truth(a < b)),
            Binary::LessOrEqual => pairs(left, right, out, |a, b| truth(a <= b)),
            Binary::Equal => pairs(left, right, out, |a, b| truth(a == b)),
            Binary::NotEqual => pairs(left, right, out, |a, b| truth(a != b)),
        },
    );
}

#[inline(always)]
fn pairs(
    left: (&[f32], Spread),
    right: (&[f32], Spread),
    out: &mut [f32],
    op: impl Fn(f32, f32) -> f32 + Copy,
) {
    // One side has a number for each of the result's: see `lower`.
    match (left, right) {
        ((left, Spread::Each), (right, Spread::Each)) => {
            for ((out, left), right) in out.iter_mut().zip(left).zip(right) {
                *out = op(*left, *right);
            }
        }
        ((left, Spread::Each), right) => beside_fewer(left, right, out, op),
        (left, (right, _)) => beside_fewer(right, left, out, move |right, left| op(left, right)),
    }
}

#[inline(always)]
fn beside_fewer(
    all: &[f32],
    (fewer, spread): (&[f32], Spread),
    out: &mut [f32],
    op: impl Fn(f32, f32) -> f32 + Copy,
) {
    let width = match spread {
        Spread::Rows(width) => width,
        Spread::Single | Spread::Each => out.len(),
    };
    let rows = out.chunks_exact_mut(width).zip(all.chunks_exact(width));
    for ((out, all), single) in rows.zip(fewer) {
        for (out, all) in out.iter_mut().zip(all) {
            *out = op(*all, *single);
        }
    }
}

#[inline(always)]
pub(super) fn fold<S: Simd>(simd: S, op: Fold, from: &[f32], width: usize, out: &mut [f32]) {
    simd.vectorize(
        #[inline(always)]
        || {
            for (row, out) in from.chunks_exact(width).zip(out) {
                *out = match op {
                    Fold::Sum => sum(
                        simd,
                        row,
                        #[inline(always)]
                        |x| x,
                    ),
                    Fold::MeanOfSquares => {
                        sum(
                            simd,
                            row,
                            #[inline(always)]
                            |x| x * x,
                        ) / width as f32
                    }
                    Fold::Max => extreme(row, |a, b| a > b),
                    Fold::Min => extreme(row, |a, b| a < b),
                };
            }
        },
    );
}

#[inline(always)]
pub(super) fn softmax<S: Simd>(simd: S, width: usize, numbers: &mut [f32]) {
    simd.vectorize(
        #[inline(always)]
        || {
            for row in numbers.chunks_exact_mut(width) {
                let largest = extreme(row, |a, b| a > b);
                let largest = f32x16::splat(simd, largest);
                each(
                    simd,
                    row,
                    #[inline(always)]
                    |x| exp(x - largest),
                );
                let scale = sum(
                    simd,
                    row,
                    #[inline(always)]
                    |x| x,
                )
                .recip();
                one_by_one(row, |x| x * scale);
            }
        },
    );
}

/// Each row over the root of the mean of its squares.
#[inline(always)]
pub(super) fn rms_norm<S: Simd>(
    simd: S,
    from: &[f32],
    width: usize,
    epsilon: f32,
    out: &mut [f32],
) {
    simd.vectorize(
        #[inline(always)]
        || {
            let rows = from.chunks_exact(width).zip(out.chunks_exact_mut(width));
            for (from, out) in rows {
                let mean = sum(
                    simd,
                    from,
                    #[inline(always)]
                    |x| x * x,
                ) / width as f32;
                let scale = (mean + epsilon).sqrt().recip();
                for (from, out) in from.iter().zip(out) {
                    *out = from * scale;
                }
            }
        },
    );
}

#[inline(always)]
fn one_by_one(numbers: &mut [f32], op: impl Fn(f32) -> f32) {
    for number in numbers {
        *number = op(*number);
    }
}

/// A register at a time; the last one is filled up with zeros.
#[inline(always)]
pub(super) fn each<S: Simd>(simd: S, numbers: &mut [f32], op: impl Fn(f32x16<S>) -> f32x16<S>) {
    let mut chunks = numbers.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        op(f32x16::from_slice(simd, chunk)).store_slice(chunk);
    }
    let rest = chunks.into_remainder();
    if !rest.is_empty() {
        let mut filled = [0.0; LANES];
        filled[..rest.len()].copy_from_slice(rest);
        let done = op(f32x16::from_slice(simd, &filled));
        rest.copy_from_slice(&done.as_slice()[..rest.len()]);
    }
}

#[inline(always)]
fn sum<S: Simd>(simd: S, row: &[f32], op: impl Fn(f32x16<S>) -> f32x16<S>) -> f32 {
    let mut total = f32x16::splat(simd, 0.0);
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        total += op(f32x16::from_slice(simd, chunk));
    }
    if !rest.is_empty() {
        let mut filled = [0.0; LANES];
        filled[..rest.len()].copy_from_slice(rest);
        total += op(f32x16::from_slice(simd, &filled));
    }
    total.reduce_sum()
}

#[inline(always)]
fn extreme(row: &[f32], beats: impl Fn(f32, f32) -> bool) -> f32 {
    let first = row.first().copied().unwrap_or(f32::NAN);
    row.iter().fold(first, |best, number| {
        if beats(*number, best) || number.is_nan() {
            *number
        } else {
            best
        }
    })
}

/// Of the terms for the highest power first. A loop and no fold: a closure is a function of its own,
/// without the instructions of this processor, until it is inlined, and then each of its operations
/// a call.
#[inline(always)]
fn polynomial<S: Simd>(x: f32x16<S>, terms: &[f32]) -> f32x16<S> {
    let simd = x.token();
    let mut sum = f32x16::splat(simd, terms[0]);
    for term in &terms[1..] {
        sum = sum.mul_add(x, f32x16::splat(simd, *term));
    }
    sum
}

/// 2 to the power of the whole part, times a polynomial over the rest.
#[inline(always)]
pub(super) fn exp<S: Simd>(x: f32x16<S>) -> f32x16<S> {
    // Beyond, the result is not a normal number.
    const LEAST: f32 = -87.336_54;
    const MOST: f32 = 88.376_26;
    // ln 2 in two parts, so that the rest is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let simd = x.token();
    let least = f32x16::splat(simd, LEAST);
    let most = f32x16::splat(simd, MOST);
    let x = most.min(least.max(x));
    let whole = (x * std::f32::consts::LOG2_E + 0.5).floor();
    let rest = x - whole * LN_2_HIGH - whole * LN_2_LOW;
    let terms = [
        1.987_569_1e-4,
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ];
    let series = polynomial(rest, &terms);
    let series = series * rest * rest + rest + 1.0;
    let exponent: i32x16<S> = whole.to_int();
    series * f32x16::<S>::from_bits_of(exponent)
}

/// Two to the power of a whole number, put together from its bits.
trait FromExponent<S: Simd> {
    fn from_bits_of(exponent: i32x16<S>) -> Self;
}

impl<S: Simd> FromExponent<S> for f32x16<S> {
    #[inline(always)]
    fn from_bits_of(exponent: i32x16<S>) -> Self {
        const BIAS: i32 = 127;
        const MANTISSA_BITS: u32 = 23;
        ((exponent + BIAS) << MANTISSA_BITS).bitcast()
    }
}

#[inline(always)]
pub(super) fn sigmoid<S: Simd>(x: f32x16<S>) -> f32x16<S> {
    // Past it the result is nothing that a net could tell from zero.
    const LEAST: f32 = -60.0;
    let simd = x.token();
    let one = f32x16::splat(simd, 1.0);
    one / (exp(-f32x16::splat(simd, LEAST).max(x)) + one)
}

/// A quotient of polynomials, as Eigen has it; past ±7.9 it is ±1 in single precision.
#[inline(always)]
pub(super) fn tanh<S: Simd>(x: f32x16<S>) -> f32x16<S> {
    const MOST: f32 = 7.905_311;
    const ABOVE: [f32; 7] = [
        -2.760_768_5e-16,
        2.000_188e-13,
        -8.604_672e-11,
        5.122_297e-8,
        1.485_722_4e-5,
        6.372_619_3e-4,
        4.893_524_6e-3,
    ];
    const BELOW: [f32; 4] = [1.198_258_4e-6, 1.185_347_1e-4, 2.268_434_6e-3, 4.893_525e-3];
    let simd = x.token();
    let x = f32x16::splat(simd, MOST).min(f32x16::splat(simd, -MOST).max(x));
    let square = x * x;
    x * polynomial(square, &ABOVE) / polynomial(square, &BELOW)
}

/// Abramowitz and Stegun 7.1.26 away from zero, the Taylor series near it.
#[inline(always)]
fn erf<S: Simd>(x: f32x16<S>) -> f32x16<S> {
    const NEAR: f32 = 0.5;
    const NEAR_TERMS: [f32; 6] = [
        1.0 / 9360.0,
        -1.0 / 1320.0,
        1.0 / 216.0,
        -1.0 / 42.0,
        1.0 / 10.0,
        -1.0 / 3.0,
    ];
    const FAR_TERMS: [f32; 5] = [
        1.061_405_4,
        -1.453_152_1,
        1.421_413_8,
        -0.284_496_72,
        0.254_829_6,
    ];
    let simd = x.token();
    let square = x * x;
    let near = polynomial(square, &NEAR_TERMS);
    let near = x * (near * square + 1.0) * std::f32::consts::FRAC_2_SQRT_PI;
    let one = f32x16::splat(simd, 1.0);
    let t = one / (x.abs() * 0.327_591_1 + one);
    let far = polynomial(t, &FAR_TERMS);
    let far = (one - far * t * exp(-square)).copysign(x);
    x.abs().simd_lt(NEAR).select(near, far)
}

#[inline(always)]
fn gelu<S: Simd>(x: f32x16<S>) -> f32x16<S> {
    x * 0.5 * (erf(x * std::f32::consts::FRAC_1_SQRT_2) + 1.0)
}
