//! LSTM, GRU and plain recurrent layers, all rows in one step.
//!
//! What the rows add to the gates is one matrix product for all of them; then each row adds what
//! the state before it does, which is one product with a single row. The state starts as the
//! graph says (mostly from zero) at each window: nothing is left of the one before.

use super::gemm::{self, Packing, Weights};
use super::maths::{self, each};
use fearless_simd::{Level, Simd, dispatch};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    Sigmoid,
    Tanh,
    Relu,
}

/// Which cell, with its activations in the order that ONNX names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
    Rnn(Activation),
    /// Gates in, out, forget, cell.
    Lstm([Activation; 3]),
    /// Gates update, reset, hidden. `reset_after`: the reset gate scales the product with the
    /// state (`linear_before_reset`), not the state.
    Gru {
        activations: [Activation; 2],
        reset_after: bool,
    },
}

impl Cell {
    pub(crate) fn gates(self) -> usize {
        match self {
            Self::Rnn(_) => 1,
            Self::Lstm(_) => 4,
            Self::Gru { .. } => 3,
        }
    }
}

/// Sizes of a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) rows: usize,
    /// Sequences beside each other; one, in what predicts from a window.
    pub(crate) batch: usize,
    pub(crate) columns: usize,
    pub(crate) hidden: usize,
}

/// The weights of one direction, as ONNX has them: gate by gate, a row for each hidden number.
pub(crate) struct Given<'a> {
    pub(crate) input: &'a [f32],
    pub(crate) state: &'a [f32],
    /// Of the input product, then of the state product; or nothing.
    pub(crate) bias: &'a [f32],
    /// For each sequence of the batch.
    pub(crate) hidden_start: &'a [f32],
    pub(crate) cell_start: &'a [f32],
}

#[derive(Debug)]
pub(crate) struct Direction {
    cell: Cell,
    backwards: bool,
    input: (Packing, Weights),
    /// All gates, but for a GRU that resets before its product: that one's hidden gate is apart.
    state: (Packing, Weights),
    reset_state: Option<(Packing, Weights)>,
    hidden_start: Vec<f32>,
    cell_start: Vec<f32>,
}

/// One layer, of one or both directions. Answers with all rows' states, rows × directions ×
/// batch × hidden, then the last hidden state of each direction, then its last cell state.
#[derive(Debug)]
pub(crate) struct Recurrent {
    sizes: Sizes,
    directions: Vec<Direction>,
    /// What the rows add to the gates.
    added: Vec<f32>,
    gates: Vec<f32>,
}

impl Recurrent {
    pub(crate) fn new(sizes: Sizes, directions: Vec<Direction>) -> Self {
        let gates = directions.iter().map(|direction| direction.cell.gates());
        let gates = gates.max().unwrap_or_default();
        Self {
            added: vec![0.0; sizes.rows * sizes.batch * gates * sizes.hidden],
            gates: vec![0.0; gates * sizes.hidden],
            sizes,
            directions,
        }
    }

    pub(crate) fn input_len(&self) -> usize {
        self.sizes.rows * self.sizes.batch * self.sizes.columns
    }

    /// Where the last hidden and the last cell states begin, and how long all is.
    pub(crate) fn lens(sizes: Sizes, directions: usize) -> [usize; 3] {
        let one = directions * sizes.batch * sizes.hidden;
        [
            sizes.rows * one,
            (sizes.rows + 1) * one,
            (sizes.rows + 2) * one,
        ]
    }

    pub(crate) fn directions(&self) -> usize {
        self.directions.len()
    }

    /// Outside of a net, by whatever this processor has.
    pub(crate) fn run_once(&mut self, input: &[f32], out: &mut [f32]) {
        self.run(Level::new(), input, out);
    }

    pub(super) fn run(&mut self, level: Level, input: &[f32], out: &mut [f32]) {
        let (sizes, directions) = (self.sizes, self.directions.len());
        let [hidden_at, cell_at, _] = Self::lens(sizes, directions);
        for (index, direction) in self.directions.iter().enumerate() {
            let added = &mut self.added;
            let (packing, weights) = &direction.input;
            let added = &mut added[..sizes.rows * sizes.batch * packing.columns];
            dispatch!(level, simd =>
                gemm::product(simd, input, packing, &weights.panels, &weights.bias, added));
            for sequence in 0..sizes.batch {
                let place = (index * sizes.batch + sequence) * sizes.hidden;
                let (states, last) = out.split_at_mut(hidden_at);
                let (hidden, cell) = last.split_at_mut(cell_at - hidden_at);
                let hidden = &mut hidden[place..][..sizes.hidden];
                let cell = &mut cell[place..][..sizes.hidden];
                let start = sequence * sizes.hidden..(sequence + 1) * sizes.hidden;
                hidden.copy_from_slice(&direction.hidden_start[start.clone()]);
                cell.copy_from_slice(&direction.cell_start[start]);
                let gates = &mut self.gates;
                dispatch!(level, simd => direction.sequence(
                    simd, sizes, directions, place, sequence, added, gates, hidden, cell, states,
                ));
            }
        }
    }
}

impl Direction {
    pub(crate) fn new(cell: Cell, backwards: bool, sizes: Sizes, given: &Given<'_>) -> Self {
        let Sizes {
            rows,
            batch,
            columns,
            hidden,
        } = sizes;
        let width = cell.gates() * hidden;
        let pack = |rows, depth, from: usize, to: usize, weights: &[f32]| {
            let packing = Packing::new(rows, depth, to - from);
            let weights = Weights::new(&packing, |k, n| weights[(from + n) * depth + k]);
            (packing, weights)
        };
        let no_bias = vec![0.0; 2 * width];
        let bias = if given.bias.is_empty() {
            &no_bias
        } else {
            given.bias
        };
        let (of_input, of_state) = bias.split_at(width);

        let mut input = pack(rows * batch, columns, 0, width, given.input);
        input.1.bias = of_input.to_vec();
        // The bias of the state's product is added with the input's, but where a reset gate is
        // between them.
        let (apart, split) = match cell {
            Cell::Gru { reset_after, .. } => (2 * hidden, !reset_after),
            Cell::Rnn(_) | Cell::Lstm(_) => (width, false),
        };
        for (sum, bias) in input.1.bias[..apart].iter_mut().zip(of_state) {
            *sum += bias;
        }
        let mut state = pack(1, hidden, 0, if split { apart } else { width }, given.state);
        if matches!(cell, Cell::Gru { .. }) && !split {
            state.1.bias = vec![0.0; apart];
            state.1.bias.extend_from_slice(&of_state[apart..]);
        }
        let reset_state = split.then(|| {
            for (sum, bias) in input.1.bias[apart..].iter_mut().zip(&of_state[apart..]) {
                *sum += bias;
            }
            pack(1, hidden, apart, width, given.state)
        });
        Self {
            cell,
            backwards,
            input,
            state,
            reset_state,
            hidden_start: given.hidden_start.to_vec(),
            cell_start: given.cell_start.to_vec(),
        }
    }

    /// All rows of one sequence.
    #[inline(always)]
    #[expect(
        clippy::too_many_arguments,
        reason = "a kernel, inlined where it is called"
    )]
    fn sequence<S: Simd>(
        &self,
        simd: S,
        sizes: Sizes,
        directions: usize,
        place: usize,
        sequence: usize,
        added: &[f32],
        gates: &mut [f32],
        hidden: &mut [f32],
        cell: &mut [f32],
        states: &mut [f32],
    ) {
        simd.vectorize(
            #[inline(always)]
            || {
                let width = self.cell.gates() * sizes.hidden;
                for step in 0..sizes.rows {
                    let row = if self.backwards {
                        sizes.rows - 1 - step
                    } else {
                        step
                    };
                    let added = &added[(row * sizes.batch + sequence) * width..][..width];
                    self.step(simd, added, gates, hidden, cell);
                    let at = row * directions * sizes.batch * sizes.hidden + place;
                    states[at..][..sizes.hidden].copy_from_slice(hidden);
                }
            },
        );
    }

    #[inline(always)]
    fn step<S: Simd>(
        &self,
        simd: S,
        added: &[f32],
        gates: &mut [f32],
        hidden: &mut [f32],
        cell: &mut [f32],
    ) {
        let width = hidden.len();
        let (packing, weights) = &self.state;
        match self.cell {
            Cell::Rnn(f) => {
                let gates = &mut gates[..width];
                gemm::product(simd, hidden, packing, &weights.panels, added, gates);
                activate(simd, f, gates);
                hidden.copy_from_slice(gates);
            }
            Cell::Lstm([f, g, h]) => {
                gemm::product(simd, hidden, packing, &weights.panels, added, gates);
                let (opening, fresh) = gates.split_at_mut(3 * width);
                activate(simd, f, opening);
                activate(simd, g, fresh);
                let (enter, opening) = opening.split_at(width);
                let (leave, forget) = opening.split_at(width);
                let news = enter.iter().zip(forget).zip(&*fresh);
                for (cell, ((enter, forget), fresh)) in cell.iter_mut().zip(news) {
                    *cell = settled(forget * *cell + enter * fresh);
                }
                hidden.copy_from_slice(cell);
                activate(simd, h, hidden);
                for (hidden, leave) in hidden.iter_mut().zip(leave) {
                    *hidden = settled(*hidden * leave);
                }
            }
            Cell::Gru {
                activations: [f, g],
                ..
            } => {
                let (for_gates, for_fresh) = added.split_at(2 * width);
                match &self.reset_state {
                    None => {
                        gemm::product(simd, hidden, packing, &weights.panels, &weights.bias, gates);
                        let (opening, fresh) = gates.split_at_mut(2 * width);
                        for (gate, added) in opening.iter_mut().zip(for_gates) {
                            *gate += added;
                        }
                        activate(simd, f, opening);
                        let reset = &opening[width..];
                        for ((fresh, reset), added) in fresh.iter_mut().zip(reset).zip(for_fresh) {
                            *fresh = added + reset * *fresh;
                        }
                    }
                    Some((packing_fresh, weights_fresh)) => {
                        let (opening, fresh) = gates.split_at_mut(2 * width);
                        let panels = &weights.panels;
                        gemm::product(simd, hidden, packing, panels, for_gates, opening);
                        activate(simd, f, opening);
                        for (reset, hidden) in opening[width..].iter_mut().zip(&*hidden) {
                            *reset *= hidden;
                        }
                        let (reset, panels) = (&opening[width..], &weights_fresh.panels);
                        gemm::product(simd, reset, packing_fresh, panels, for_fresh, fresh);
                    }
                }
                let (opening, fresh) = gates.split_at_mut(2 * width);
                activate(simd, g, fresh);
                for ((hidden, keep), fresh) in hidden.iter_mut().zip(&*opening).zip(&*fresh) {
                    *hidden = settled(fresh + keep * (*hidden - fresh));
                }
            }
        }
    }
}

/// Zero for what is too small to matter. A state that fades ends below the smallest normal
/// number, where a processor is 20 times slower.
#[inline(always)]
fn settled(number: f32) -> f32 {
    const NEGLIGIBLE: f32 = 1e-20;
    if number.abs() < NEGLIGIBLE {
        0.0
    } else {
        number
    }
}

#[inline(always)]
fn activate<S: Simd>(simd: S, activation: Activation, numbers: &mut [f32]) {
    match activation {
        Activation::Sigmoid => each(
            simd,
            numbers,
            #[inline(always)]
            |x| maths::sigmoid(x),
        ),
        Activation::Tanh => each(
            simd,
            numbers,
            #[inline(always)]
            |x| maths::tanh(x),
        ),
        Activation::Relu => {
            for number in numbers {
                if *number < 0.0 {
                    *number = 0.0;
                }
            }
        }
    }
}
