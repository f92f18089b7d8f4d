//! What every operator is: values in, values out, memory set aside at its first run only.

use super::kernel::{Kernel, Site};
use super::moves::Moves;
use super::tensor::Tensor;

/// An operator with its attributes read and checked.
pub(super) trait Operator {
    /// Writes its outputs. Shapes and types are checked each time: after the first run, made
    /// while loading, they are what they were.
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String>;

    /// Whether all that it does is to move numbers. Asked after its first run.
    fn moves(&self, _first: &Tensor) -> Moves {
        Moves::Not
    }

    /// What does the same to the last digit, once its inputs' shapes are known. Without one, each
    /// window is for [`run`](Self::run).
    fn kernel(&self, _site: &mut Site<'_>) -> Option<Kernel> {
        None
    }
}

/// The inputs of an operator among all values.
pub(super) struct Inputs<'a> {
    pub(super) values: &'a [Tensor],
    pub(super) places: &'a [Option<usize>],
}

impl Inputs<'_> {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn optional(&self, index: usize) -> Option<&Tensor> {
        let place = self.places.get(index).copied().flatten()?;
        Some(&self.values[place])
    }

    pub(super) fn get(&self, index: usize) -> Result<&Tensor, String> {
        self.optional(index)
            .ok_or_else(|| format!("it has no input {index}"))
    }

    /// All of an operator that takes any number of them.
    pub(super) fn all(&self) -> impl Iterator<Item = Result<&Tensor, String>> {
        (0..self.len()).map(|index| self.get(index))
    }
}

/// A list of axes or sizes that a tensor holds.
pub(super) fn ints(tensor: &Tensor) -> Result<&[i64], String> {
    tensor.values::<i64>()
}

/// An axis, which may count from the end, as an index.
pub(super) fn axis(axis: i64, rank: usize) -> Result<usize, String> {
    let from_start = if axis < 0 { axis + rank as i64 } else { axis };
    let index = usize::try_from(from_start)
        .ok()
        .filter(|index| *index < rank);
    index.ok_or_else(|| format!("axis {axis} of a tensor of rank {rank}"))
}
