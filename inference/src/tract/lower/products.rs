//! Matrix products, convolutions and pools: all of them tables of what is multiplied or taken
//! together, so that there is one kind of product to be quick at.

use super::super::vendor::tract_hir::internal::{TractError, TypedOp};
use super::super::vendor::tract_hir::tract_core::ops;
use super::shape::{each_index, is_small, strides};
use super::{Lowering, Unknown, Value, operand};
use crate::net::{Fold, Operand, Packing, Product, Right, Step, Weights};
use ops::cnn::{Conv, Deconv, KernelFormat, MaxPool, PaddingSpec, PoolSpec, SumPool};
use ops::einsum::EinSum;

/// A dimension: its size, and which one it is of the left side, the right side and the result.
type Axis = (usize, [Option<usize>; 3]);

/// The place in the image, of these sizes, that a place of the result has at a place of the window.
type Place<'a> = dyn Fn(&[usize], &[usize], &[usize]) -> Option<Vec<usize>> + 'a;

/// Where the numbers of both sides of a batch of products are, in their tensors.
struct Sides {
    batch: usize,
    rows: usize,
    depth: usize,
    columns: usize,
    /// By batch, row and depth; none where it is zero.
    left: Vec<Option<usize>>,
    /// By batch, depth and column.
    right: Vec<usize>,
    /// By batch and column.
    bias: Option<Vec<f32>>,
}

/// A window of a convolution or a pool on each place of its output.
struct Windows<'a> {
    spec: &'a PoolSpec,
    before: Vec<usize>,
    /// Whether any of a window is outside.
    padded: bool,
}

fn windows<'a>(spec: &'a PoolSpec, shape: &[usize]) -> Result<Windows<'a>, Unknown> {
    let shape = spec.data_format.shape(shape).map_err(told)?;
    let padding = spec.computed_padding(shape.hw_dims());
    Ok(Windows {
        spec,
        before: padding.iter().map(|axis| axis.pad_before).collect(),
        padded: padding
            .iter()
            .any(|axis| axis.pad_before + axis.pad_after > 0),
    })
}

fn told(error: TractError) -> Unknown {
    error.to_string()
}

impl Windows<'_> {
    /// The place that one number of the window is at, unless it is in the padding.
    fn place(&self, output: &[usize], kernel: &[usize], dims: &[usize]) -> Option<Vec<usize>> {
        let axes = output.iter().zip(kernel).zip(dims).zip(&self.before);
        let axes = axes
            .enumerate()
            .map(|(axis, (((out, kernel), dim), before))| {
                let at = out * self.spec.stride(axis) + kernel * self.spec.dilation(axis);
                at.checked_sub(*before).filter(|at| at < dim)
            });
        axes.collect()
    }

    /// The same of a transposed convolution, where a place of the output is what windows share.
    fn source(&self, output: &[usize], kernel: &[usize], dims: &[usize]) -> Option<Vec<usize>> {
        let axes = output.iter().zip(kernel).zip(dims).zip(&self.before);
        let axes = axes
            .enumerate()
            .map(|(axis, (((out, kernel), dim), before))| {
                let stride = self.spec.stride(axis);
                let at = (out + before).checked_sub(kernel * self.spec.dilation(axis))?;
                (at % stride == 0 && at / stride < *dim).then_some(at / stride)
            });
        axes.collect()
    }
}

impl Lowering {
    /// Whatever operator is a product or takes windows; others are refused by their name.
    pub(super) fn product(
        &mut self,
        op: &dyn TypedOp,
        inputs: &[Value],
        shape: Vec<usize>,
    ) -> Result<Value, Unknown> {
        if let Some(op) = op.downcast_ref::<EinSum>() {
            return self.einsum(op, inputs, shape);
        }
        if let Some(op) = op.downcast_ref::<Conv>() {
            let windows = windows(&op.pool_spec, &inputs[0].shape)?;
            if op.kernel_fmt != KernelFormat::OIHW || op.q_params.is_some() {
                return Err("Conv of another layout".to_owned());
            }
            let place =
                |out: &[usize], kernel: &[usize], dims: &[usize]| windows.place(out, kernel, dims);
            return self.convolution(&op.pool_spec, op.group, inputs, shape, &place);
        }
        if let Some(op) = op.downcast_ref::<Deconv>() {
            let usual = op.group == 1 && op.kernel_format == KernelFormat::OIHW;
            let before = match &op.pool_spec.padding {
                PaddingSpec::Explicit(before, _) => before.to_vec(),
                PaddingSpec::Valid => vec![0; op.pool_spec.rank()],
                _ => return Err("ConvTranspose padded by itself".to_owned()),
            };
            if !usual {
                return Err("ConvTranspose in groups".to_owned());
            }
            let windows = Windows {
                spec: &op.pool_spec,
                before,
                padded: true,
            };
            let place =
                |out: &[usize], kernel: &[usize], dims: &[usize]| windows.source(out, kernel, dims);
            return self.convolution(&op.pool_spec, 1, inputs, shape, &place);
        }
        if let Some(op) = op.downcast_ref::<MaxPool>() {
            if op.with_index_outputs.is_some() {
                return Err("MaxPool with indices".to_owned());
            }
            return self.pool(&op.pool_spec, Fold::Max, &inputs[0], shape);
        }
        if let Some(op) = op.downcast_ref::<SumPool>() {
            let pooled = self.pool(&op.pool_spec, Fold::Sum, &inputs[0], shape)?;
            if !op.normalize {
                return Ok(pooled);
            }
            let padded = windows(&op.pool_spec, &inputs[0].shape)?.padded;
            if padded && !op.count_include_pad {
                return Err("AveragePool that leaves its padding out".to_owned());
            }
            let count: usize = op.pool_spec.kernel_shape.iter().product();
            return Ok(self.scaled(&pooled, 1.0 / count as f32));
        }
        Err(op.name().into_owned())
    }

    fn einsum(
        &mut self,
        op: &EinSum,
        inputs: &[Value],
        shape: Vec<usize>,
    ) -> Result<Value, Unknown> {
        let [one, other] = inputs else {
            return Err(format!("EinSum of {}", inputs.len()));
        };
        if op.q_params.is_some() || (one.constant && other.constant) {
            return Err("EinSum of constants".to_owned());
        }
        // The weights are the side that is packed.
        let (slots, left, right) = if one.constant {
            ([1, 0], other, one)
        } else {
            ([0, 1], one, other)
        };
        // Dimensions by where they are: both and the result, one and the result, both alone.
        let mut kinds: [Vec<Axis>; 4] = Default::default();
        for axis in op.axes.iter_all_axes() {
            let place = |places: &[usize], shape: &[usize]| match *places {
                [] => Ok(None),
                // A dimension of one number is the same everywhere.
                [at] => Ok(Some(at).filter(|at| shape[*at] > 1)),
                _ => Err("EinSum along a diagonal".to_owned()),
            };
            let places = [
                place(&axis.inputs[slots[0]], &left.shape)?,
                place(&axis.inputs[slots[1]], &right.shape)?,
                place(&axis.outputs[0], &shape)?,
            ];
            let dims = [&left.shape, &right.shape, &shape];
            let dim = places
                .iter()
                .zip(dims)
                .find_map(|(at, dims)| at.map(|at| dims[at]));
            let Some(dim) = dim else { continue };
            let kind = match places {
                [Some(_), Some(_), Some(_)] => 0,
                [_, None, Some(_)] => 1,
                [None, _, Some(_)] => 2,
                [_, _, None] => 3,
            };
            kinds[kind].push((dim, places));
        }
        let [batch, rows, columns, depth] = kinds;
        let sizes = |axes: &[Axis]| -> Vec<usize> { axes.iter().map(|(dim, _)| *dim).collect() };
        let by = [&left.shape, &right.shape, &shape].map(|shape| strides(shape));
        // For each combination of some dimensions, where that is in the left, right and result.
        let places = |kinds: [&[Axis]; 3], of: usize| {
            let axes = kinds.concat();
            let mut places = Vec::new();
            each_index(&sizes(&axes), |index| {
                let axes = axes.iter().zip(index);
                let place = axes.filter_map(|((_, places), at)| Some(by[of][places[of]?] * at));
                places.push(place.sum::<usize>());
            });
            places
        };
        let count = |axes: &[Axis]| sizes(axes).iter().product::<usize>();
        let [batches, lines, deep, wide] =
            [&batch, &rows, &depth, &columns].map(|axes| count(axes));
        for table in [
            [batches, lines, deep],
            [batches, deep, wide],
            [batches, lines, wide],
        ] {
            is_small(&table)?;
        }
        let sides = Sides {
            batch: batches,
            rows: lines,
            depth: deep,
            columns: wide,
            left: places([&batch, &rows, &depth], 0)
                .into_iter()
                .map(Some)
                .collect(),
            right: places([&batch, &depth, &columns], 1),
            bias: None,
        };
        let result = places([&batch, &rows, &columns], 2);
        self.multiply(left, right, sides, &result, shape)
    }

    fn convolution(
        &mut self,
        spec: &PoolSpec,
        group: usize,
        inputs: &[Value],
        shape: Vec<usize>,
        place: &Place<'_>,
    ) -> Result<Value, Unknown> {
        let [image, kernel, bias] = inputs else {
            return Err(format!("Conv of {}", inputs.len()));
        };
        if !(kernel.constant && bias.constant) {
            return Err("Conv with computed weights".to_owned());
        }
        let from = spec.data_format.shape(&*image.shape).map_err(told)?;
        let to = spec.data_format.shape(&*shape).map_err(told)?;
        let (dims, places) = (from.hw_dims(), to.hw_dims());
        let n = from.n().copied().unwrap_or(1);
        let (inner, outer) = (from.c() / group, to.c() / group);
        let of_image = |n: usize, c: usize, at: &[usize]| {
            let space = at.iter().zip(from.hw_strides()).map(|(at, by)| at * by);
            n * from.n_stride().copied().unwrap_or(0) + c * from.c_stride() + space.sum::<usize>()
        };
        let of_result = |n: usize, c: usize, at: &[usize]| {
            let space = at.iter().zip(to.hw_strides()).map(|(at, by)| at * by);
            n * to.n_stride().copied().unwrap_or(0) + c * to.c_stride() + space.sum::<usize>()
        };
        let taps: usize = spec.kernel_shape.iter().product();
        is_small(&[n * group, places.iter().product(), inner * taps])?;
        let (mut left, mut right, mut result) = (Vec::new(), Vec::new(), Vec::new());
        let (mut biases, bias) = (Vec::new(), self.net.numbers(bias.buffer));
        let bias_of = |c: usize| bias[if bias.len() == 1 { 0 } else { c }];
        each_index(&[n, group], |batch| {
            each_index(places, |at| {
                for c in 0..inner {
                    each_index(&spec.kernel_shape, |tap| {
                        let place = place(at, tap, dims);
                        left.push(place.map(|at| of_image(batch[0], batch[1] * inner + c, &at)));
                    });
                }
                let c = batch[1] * outer..(batch[1] + 1) * outer;
                result.extend(c.map(|c| of_result(batch[0], c, at)));
            });
            for row in 0..inner * taps {
                let c = batch[1] * outer..(batch[1] + 1) * outer;
                right.extend(c.map(|c| c * inner * taps + row));
            }
            biases.extend((batch[1] * outer..(batch[1] + 1) * outer).map(bias_of));
        });
        let sides = Sides {
            batch: n * group,
            rows: places.iter().product(),
            depth: inner * taps,
            columns: outer,
            left,
            right,
            bias: Some(biases),
        };
        self.multiply(image, kernel, sides, &result, shape)
    }

    /// `result`: where each product is in the result, by batch, row and column.
    fn multiply(
        &mut self,
        left: &Value,
        right: &Value,
        sides: Sides,
        result: &[usize],
        shape: Vec<usize>,
    ) -> Result<Value, Unknown> {
        let Sides {
            batch,
            rows,
            depth,
            columns,
            ..
        } = sides;
        if batch * rows * depth * columns == 0 || result.len() != shape.iter().product::<usize>() {
            return Err("a product of nothing".to_owned());
        }
        let packing = Packing::new(rows, depth, columns);
        let (of_left, of_right) = (self.table(left), self.table(right));
        let zero = self.net.numbers(left.buffer).len() as u32;
        let from = sides
            .left
            .iter()
            .map(|at| at.map_or(zero, |at| of_left[at]));
        let from = self.over(left, from.collect(), vec![batch, rows, depth]);
        let size = depth * columns;
        let right = if right.constant {
            let numbers = self.net.numbers(right.buffer);
            let weights = (0..batch).map(|index| {
                let table = &sides.right[index * size..];
                let mut weights = Weights::new(&packing, |row, column| {
                    let at = of_right[table[row * columns + column]] as usize;
                    numbers.get(at).copied().unwrap_or(0.0)
                });
                if let Some(bias) = &sides.bias {
                    weights.bias = bias[index * columns..][..columns].to_vec();
                }
                weights
            });
            Right::Constant(weights.collect())
        } else {
            let zero = self.net.numbers(right.buffer).len() as u32;
            let mut table = Vec::with_capacity(batch * packing.len());
            for index in 0..batch {
                let at =
                    |(row, column)| of_right[sides.right[index * size + row * columns + column]];
                table.extend(packing.places().map(|place| place.map_or(zero, at)));
            }
            Right::Computed(Operand {
                buffer: right.buffer,
                table: Some(table.into()),
            })
        };
        let product = Product {
            left: operand(&from),
            right,
            batch,
            rows,
            packing,
        };
        let written = self.written(Step::Product(product), shape.clone());
        let mut table = vec![0; result.len()];
        for (at, place) in result.iter().enumerate() {
            table[*place] = at as u32;
        }
        Ok(self.over(&written, table, shape))
    }

    fn pool(
        &mut self,
        spec: &PoolSpec,
        fold: Fold,
        image: &Value,
        shape: Vec<usize>,
    ) -> Result<Value, Unknown> {
        let windows = windows(spec, &image.shape)?;
        if windows.padded && fold != Fold::Sum {
            return Err("MaxPool with padding".to_owned());
        }
        let (first, rank) = (
            spec.data_format.shape(&*shape).map_err(told)?.h_axis(),
            spec.rank(),
        );
        let taken = [&*shape, &*spec.kernel_shape].concat();
        is_small(&taken)?;
        let dims = &image.shape[first..][..rank];
        let rows = self.moved(image, taken, |index| {
            let (out, tap) = index.split_at(shape.len());
            let mut from = out.to_vec();
            let place = windows.place(&out[first..][..rank], tap, dims)?;
            from[first..][..rank].copy_from_slice(&place);
            Some(from)
        });
        let step = Step::Fold {
            op: fold,
            from: operand(&rows),
            width: spec.kernel_shape.iter().product(),
        };
        Ok(self.written(step, shape))
    }
}
