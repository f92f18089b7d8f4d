//! Small matrix products: the right side packed once into panels that are read from front to
//! back, rows of the left side held in registers.

use fearless_simd::{Simd, SimdBase, SimdFloat, f32x16};

/// Numbers in a panel's row: one register of AVX-512, two of AVX2, four of NEON.
const LANES: usize = 16;
/// Rows of the left side that are multiplied at a time.
const ROWS: usize = 4;

/// How a matrix of depth × columns lies in memory:
///
/// ```text
///   group of up to `widest` panels      next group ...
///   row 0: 16 | 16 | ...                row 0: 16 ...
///   row 1: 16 | 16 | ...
/// ```
///
/// The last panel is filled up with numbers that nobody reads.
#[derive(Debug, Clone)]
pub(crate) struct Packing {
    pub(crate) depth: usize,
    pub(crate) columns: usize,
    /// Panels in each group.
    groups: Vec<usize>,
}

impl Packing {
    /// For a left side of that many rows.
    pub(crate) fn new(rows: usize, depth: usize, columns: usize) -> Self {
        // With one row, panels beside each other are what keeps the adders busy.
        let widest = if rows < ROWS { 4 } else { 2 };
        let mut left = columns.div_ceil(LANES);
        let mut groups = Vec::new();
        while left > 0 {
            let group = [4, 2, 1]
                .into_iter()
                .find(|group| *group <= left.min(widest))
                .expect("1 is at most what is left");
            groups.push(group);
            left -= group;
        }
        Self {
            depth,
            columns,
            groups,
        }
    }

    /// Numbers in the packed matrix.
    pub(crate) fn len(&self) -> usize {
        self.columns.div_ceil(LANES) * LANES * self.depth
    }

    /// For each packed number its row and column; none where it only fills up.
    pub(crate) fn places(&self) -> impl Iterator<Item = Option<(usize, usize)>> + '_ {
        let starts = self.groups.iter().scan(0, |next, group| {
            let first = *next;
            *next += group * LANES;
            Some((first, group * LANES))
        });
        starts.flat_map(move |(first, width)| {
            (0..self.depth).flat_map(move |row| {
                (first..first + width)
                    .map(move |column| (column < self.columns).then_some((row, column)))
            })
        })
    }
}

/// A packed right side that does not change.
#[derive(Debug)]
pub(crate) struct Weights {
    pub(crate) panels: Vec<f32>,
    /// Nothing, or a number for each column.
    pub(crate) bias: Vec<f32>,
}

impl Weights {
    pub(crate) fn new(packing: &Packing, number: impl Fn(usize, usize) -> f32) -> Self {
        let places = packing.places();
        let panels = places.map(|place| place.map_or(0.0, |(row, column)| number(row, column)));
        Self {
            panels: panels.collect(),
            bias: Vec::new(),
        }
    }
}

/// `out = left × packed + bias`.
#[inline(always)]
pub(super) fn product<S: Simd>(
    simd: S,
    left: &[f32],
    packing: &Packing,
    panels: &[f32],
    bias: &[f32],
    out: &mut [f32],
) {
    simd.vectorize(
        #[inline(always)]
        || {
            let (mut packed, mut first) = (panels, 0);
            for group in &packing.groups {
                let width = group * LANES;
                let (panel, rest) = packed.split_at(width * packing.depth);
                let bias = &bias[first.min(bias.len())..];
                match group {
                    4 => columns::<S, 4>(simd, left, packing, panel, bias, out, first),
                    2 => columns::<S, 2>(simd, left, packing, panel, bias, out, first),
                    _ => columns::<S, 1>(simd, left, packing, panel, bias, out, first),
                }
                (packed, first) = (rest, first + width);
            }
        },
    );
}

/// The columns of one group, for all rows.
#[inline(always)]
fn columns<S: Simd, const PANELS: usize>(
    simd: S,
    left: &[f32],
    packing: &Packing,
    panel: &[f32],
    bias: &[f32],
    out: &mut [f32],
    first: usize,
) {
    let Packing { depth, columns, .. } = *packing;
    let mut start = [f32x16::splat(simd, 0.0); PANELS];
    for (start, bias) in start.iter_mut().zip(bias.chunks(LANES)) {
        // A copy of a length that is not known is a call: a recurrent layer would make hundreds.
        *start = if bias.len() == LANES {
            f32x16::from_slice(simd, bias)
        } else {
            let mut filled = [0.0; LANES];
            filled[..bias.len()].copy_from_slice(bias);
            f32x16::from_slice(simd, &filled)
        };
    }
    let mut lefts = left.chunks_exact(ROWS * depth);
    let mut outs = out.chunks_exact_mut(ROWS * columns);
    for (left, out) in (&mut lefts).zip(&mut outs) {
        tile::<S, ROWS, PANELS>(simd, left, depth, panel, start, out, columns, first);
    }
    let lefts = lefts.remainder().chunks_exact(depth);
    let outs = outs.into_remainder().chunks_exact_mut(columns);
    for (left, out) in lefts.zip(outs) {
        tile::<S, 1, PANELS>(simd, left, depth, panel, start, out, columns, first);
    }
}

#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "a kernel, inlined where it is called"
)]
fn tile<S: Simd, const HEIGHT: usize, const PANELS: usize>(
    simd: S,
    left: &[f32],
    depth: usize,
    panel: &[f32],
    start: [f32x16<S>; PANELS],
    out: &mut [f32],
    columns: usize,
    first: usize,
) {
    let rows: [&[f32]; HEIGHT] = std::array::from_fn(|row| &left[row * depth..][..depth]);
    let mut sums = [start; HEIGHT];
    for (k, right) in panel.chunks_exact(PANELS * LANES).take(depth).enumerate() {
        let mut panels = [f32x16::splat(simd, 0.0); PANELS];
        for (panel, numbers) in panels.iter_mut().zip(right.chunks_exact(LANES)) {
            *panel = f32x16::from_slice(simd, numbers);
        }
        for (sums, row) in sums.iter_mut().zip(rows) {
            let factor = f32x16::splat(simd, row[k]);
            for (sum, right) in sums.iter_mut().zip(panels) {
                *sum = right.mul_add(factor, *sum);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        let out = &mut out[row * columns..][..columns][first..];
        for (out, sum) in out.chunks_mut(LANES).zip(sums) {
            if out.len() == LANES {
                sum.store_slice(out);
            } else {
                out.copy_from_slice(&sum.as_slice()[..out.len()]);
            }
        }
    }
}
