//! Shapes: how large they are, and the way through them.

use super::Unknown;

/// Most numbers of a tensor, and places in a table. Where there are more, what is between operators
/// is nothing beside what is in them, and tables would take the memory that a model may have.
const NUMBERS_MAX: usize = 1 << 20;

pub(super) fn is_small(dims: &[usize]) -> Result<(), Unknown> {
    let count = dims
        .iter()
        .try_fold(1_usize, |count, dim| count.checked_mul(*dim));
    match count {
        Some(count) if count <= NUMBERS_MAX => Ok(()),
        _ => Err(format!("a tensor, or a table, of {dims:?} numbers")),
    }
}

/// The distance between neighbours along each dimension.
pub(super) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Calls with each index of a tensor, last dimension fastest.
pub(super) fn each_index(shape: &[usize], mut call: impl FnMut(&[usize])) {
    let mut index = vec![0; shape.len()];
    for _ in 0..shape.iter().product() {
        call(&index);
        for (at, dim) in index.iter_mut().zip(shape).rev() {
            *at += 1;
            if *at < *dim {
                break;
            }
            *at = 0;
        }
    }
}
