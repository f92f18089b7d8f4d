//! A net, flattened: a list of steps over buffers that are set aside once.
//!
//! At one window a time, a net of this size spends its time between the operators, not in them:
//! tract allocates each tensor and looks each operator up, which takes twice as long as the sums.
//! So what tract has read and simplified is written down once more (`tract::lower`), in terms of
//! few steps:
//!
//! - Whatever only moves numbers (transpose, reshape, slice, gather, padding, the windows of a
//!   convolution) is no step, but a table of where each number is, made while loading. Tables of
//!   moves on moves are one table.
//! - Matrix products, convolutions and attention are one kind of step, [`Product`].
//! - A recurrent layer is one step for all of its rows, [`Recurrent`].
//!
//! Every buffer ends with a zero that nothing writes, which is what a table points at where a
//! padded number is.

mod gemm;
mod maths;
mod recurrent;

use fearless_simd::{Level, dispatch};
pub(crate) use gemm::{Packing, Weights};
pub(crate) use maths::{Binary, Fold, Unary};
pub(crate) use recurrent::{Activation, Cell, Direction, Given, Recurrent, Sizes};

/// Of a buffer in the net.
pub(crate) type BufferId = usize;

/// Numbers in a buffer: all of them as they lie, or where a table says.
#[derive(Debug, Clone)]
pub(crate) struct Operand {
    pub(crate) buffer: BufferId,
    pub(crate) table: Option<Box<[u32]>>,
}

/// How an operand of an operator on each number is spread over the result.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Spread {
    Each,
    /// One number for all.
    Single,
    /// A number for each so many of the result.
    Rows(usize),
}

/// `out[b] = left[b] × right[b] + bias[b]` for each of a batch, with `left` of rows × depth and
/// `right` of depth × columns.
#[derive(Debug)]
pub(crate) struct Product {
    pub(crate) left: Operand,
    pub(crate) right: Right,
    pub(crate) batch: usize,
    pub(crate) rows: usize,
    pub(crate) packing: Packing,
}

#[derive(Debug)]
pub(crate) enum Right {
    /// Of the batch, one after the other.
    Constant(Vec<Weights>),
    /// Packed for each window anew; the table is in the order of [`Packing`].
    Computed(Operand),
}

#[derive(Debug)]
pub(crate) enum Step {
    Copy {
        from: Operand,
        at: usize,
    },
    Unary {
        op: Unary,
        from: BufferId,
    },
    Binary {
        op: Binary,
        left: (BufferId, Spread),
        right: (BufferId, Spread),
    },
    /// The second where the first is not zero, otherwise the third.
    Select([BufferId; 3]),
    Product(Product),
    Fold {
        op: Fold,
        from: Operand,
        width: usize,
    },
    Softmax {
        from: BufferId,
        width: usize,
    },
    RmsNorm {
        from: BufferId,
        width: usize,
        epsilon: f32,
    },
    Recurrent {
        layer: Recurrent,
        input: Operand,
    },
}

#[derive(Debug)]
pub(crate) struct Net {
    level: Level,
    buffers: Vec<Vec<f32>>,
    /// Each with the buffer that it writes.
    steps: Vec<(Step, BufferId)>,
    input: BufferId,
    outputs: Vec<BufferId>,
    /// For operands that are gathered: left of a product, right of one.
    scratch: [Vec<f32>; 2],
}

impl Net {
    pub(crate) fn new() -> Self {
        Self {
            level: Level::new(),
            buffers: Vec::new(),
            steps: Vec::new(),
            input: 0,
            outputs: Vec::new(),
            scratch: [Vec::new(), Vec::new()],
        }
    }

    pub(crate) fn buffer(&mut self, len: usize) -> BufferId {
        self.buffers.push(vec![0.0; len + 1]);
        self.buffers.len() - 1
    }

    pub(crate) fn constant(&mut self, mut values: Vec<f32>) -> BufferId {
        values.push(0.0);
        self.buffers.push(values);
        self.buffers.len() - 1
    }

    pub(crate) fn numbers(&self, buffer: BufferId) -> &[f32] {
        let buffer = &self.buffers[buffer];
        &buffer[..buffer.len() - 1]
    }

    pub(crate) fn step(&mut self, step: Step, to: BufferId) {
        self.steps.push((step, to));
    }

    pub(crate) fn bind(&mut self, input: BufferId, outputs: Vec<BufferId>) {
        (self.input, self.outputs) = (input, outputs);
    }

    /// Scores one window; nothing of it is left for the next, as each step writes all it reads.
    pub(crate) fn run(&mut self, window: &[f32]) -> Result<(), String> {
        let input = &mut self.buffers[self.input];
        let len = input.len() - 1;
        if window.len() != len {
            return Err(format!("{} numbers for {len}", window.len()));
        }
        input[..len].copy_from_slice(window);
        for (step, to) in &mut self.steps {
            // Out of the list, so that a step can read the others while it writes this one.
            let mut out = std::mem::take(&mut self.buffers[*to]);
            let len = out.len() - 1;
            run(
                self.level,
                step,
                &self.buffers,
                &mut self.scratch,
                &mut out[..len],
            );
            self.buffers[*to] = out;
        }
        Ok(())
    }

    pub(crate) fn output(&self, index: usize) -> &[f32] {
        self.numbers(self.outputs[index])
    }
}

fn run(
    level: Level,
    step: &mut Step,
    buffers: &[Vec<f32>],
    scratch: &mut [Vec<f32>; 2],
    out: &mut [f32],
) {
    match step {
        Step::Copy { from, at } => gather(from, buffers, &mut out[*at..]),
        Step::Unary { op, from } => {
            out.copy_from_slice(&buffers[*from][..out.len()]);
            dispatch!(level, simd => maths::unary(simd, *op, out));
        }
        Step::Binary { op, left, right } => {
            let (left, right) = ((&*buffers[left.0], left.1), (&*buffers[right.0], right.1));
            dispatch!(level, simd => maths::binary(simd, *op, left, right, out));
        }
        Step::Select([condition, yes, no]) => {
            let (condition, yes, no) = (&buffers[*condition], &buffers[*yes], &buffers[*no]);
            for (((out, condition), yes), no) in out.iter_mut().zip(condition).zip(yes).zip(no) {
                *out = if *condition == 0.0 { *no } else { *yes };
            }
        }
        Step::Product(product) => product.run(level, buffers, scratch, out),
        Step::Fold { op, from, width } => {
            let from = gathered(from, buffers, out.len() * *width, &mut scratch[0]);
            dispatch!(level, simd => maths::fold(simd, *op, from, *width, out));
        }
        Step::Softmax { from, width } => {
            out.copy_from_slice(&buffers[*from][..out.len()]);
            dispatch!(level, simd => maths::softmax(simd, *width, out));
        }
        Step::RmsNorm {
            from,
            width,
            epsilon,
        } => {
            let from = &buffers[*from][..out.len()];
            dispatch!(level, simd => maths::rms_norm(simd, from, *width, *epsilon, out));
        }
        Step::Recurrent { layer, input } => {
            let len = layer.input_len();
            let input = gathered(input, buffers, len, &mut scratch[0]);
            layer.run(level, input, out);
        }
    }
}

impl Product {
    fn run(
        &self,
        level: Level,
        buffers: &[Vec<f32>],
        scratch: &mut [Vec<f32>; 2],
        out: &mut [f32],
    ) {
        let Packing { depth, columns, .. } = self.packing;
        let [for_left, for_right] = scratch;
        let left_len = self.rows * depth;
        let left = gathered(&self.left, buffers, self.batch * left_len, for_left);
        let packed_len = self.packing.len();
        let right = match &self.right {
            Right::Constant(_) => &[][..],
            Right::Computed(right) => gathered(right, buffers, self.batch * packed_len, for_right),
        };
        let out = out.chunks_exact_mut(self.rows * columns);
        for (index, (left, out)) in left.chunks_exact(left_len).zip(out).enumerate() {
            let (panels, bias) = match &self.right {
                Right::Constant(weights) => (&*weights[index].panels, &*weights[index].bias),
                Right::Computed(_) => (&right[index * packed_len..][..packed_len], &[][..]),
            };
            let packing = &self.packing;
            dispatch!(level, simd => gemm::product(simd, left, packing, panels, bias, out));
        }
    }
}

/// The operand's numbers in a row, where they are if they lie so.
fn gathered<'a>(
    from: &Operand,
    buffers: &'a [Vec<f32>],
    len: usize,
    scratch: &'a mut Vec<f32>,
) -> &'a [f32] {
    if from.table.is_none() {
        return &buffers[from.buffer][..len];
    }
    scratch.resize(len.max(scratch.len()), 0.0);
    gather(from, buffers, &mut scratch[..len]);
    &scratch[..len]
}

fn gather(from: &Operand, buffers: &[Vec<f32>], to: &mut [f32]) {
    let numbers = &*buffers[from.buffer];
    match &from.table {
        None => {
            let len = numbers.len() - 1;
            to[..len].copy_from_slice(&numbers[..len]);
        }
        Some(table) => {
            for (to, index) in to.iter_mut().zip(table) {
                *to = numbers[*index as usize];
            }
        }
    }
}
