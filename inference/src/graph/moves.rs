//! Numbers that are only moved: where each of them comes from is known at load.
//!
//! Such an operator is run once over places instead of numbers, and is no step of its own.
//! Moves of moves are one move.

use super::kernel::KNOWN;
use super::operator::{Inputs, Operator};
use super::tensor::{Element, Tensor};

/// What an operator does with its inputs besides moving their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moves {
    /// It is not only moves.
    Not,
    /// Every number of the first input stays where it is in the order of all.
    Shape,
    /// Numbers of the first input; the others say which.
    OfFirst,
    OfAll,
}

/// A number's value and its index there.
pub(super) type Origin = (u32, u32);

/// Numbers that stand in others' values, in the order they are to come in.
#[derive(Debug, Clone)]
pub(super) struct Moved(Box<[Piece]>);

#[derive(Debug, Clone)]
struct Piece {
    place: usize,
    numbers: Numbers,
}

#[derive(Debug, Clone)]
enum Numbers {
    Run { at: usize, len: usize },
    Listed(Box<[u32]>),
}

impl Moved {
    pub(super) fn new(origins: &[Origin]) -> Self {
        let same_place = origins.chunk_by(|(one, _), (other, _)| one == other);
        let pieces = same_place.map(|piece| {
            let (place, at) = piece[0];
            let indices = piece.iter().map(|(_, index)| *index);
            let numbers = if indices.clone().eq(at..at + piece.len() as u32) {
                Numbers::Run {
                    at: at as usize,
                    len: piece.len(),
                }
            } else {
                Numbers::Listed(indices.collect())
            };
            Piece {
                place: place as usize,
                numbers,
            }
        });
        Self(pieces.collect())
    }

    pub(super) fn origins(&self) -> impl Iterator<Item = Origin> {
        self.0.iter().flat_map(|piece| {
            let place = piece.place as u32;
            let (run, listed) = match &piece.numbers {
                Numbers::Run { at, len } => (*at as u32..(at + len) as u32, &[][..]),
                Numbers::Listed(indices) => (0..0, &indices[..]),
            };
            let indices = run.chain(listed.iter().copied());
            indices.map(move |index| (place, index))
        })
    }

    /// The value and the index of the first, if all follow it there.
    pub(super) fn as_run(&self) -> Option<(usize, usize)> {
        match &self.0[..] {
            [
                Piece {
                    place,
                    numbers: Numbers::Run { at, .. },
                },
            ] => Some((*place, *at)),
            _ => None,
        }
    }

    /// Brings the numbers together.
    pub(super) fn gather<T: Element>(&self, values: &[Tensor], to: &mut [T]) {
        let mut rest = to;
        for piece in &self.0 {
            let from = T::of(&values[piece.place].data).expect(KNOWN);
            match &piece.numbers {
                Numbers::Run { at, len } => {
                    let (to, left) = rest.split_at_mut(*len);
                    to.clone_from_slice(&from[*at..][..*len]);
                    rest = left;
                }
                Numbers::Listed(indices) => {
                    let (to, left) = rest.split_at_mut(indices.len());
                    for (to, index) in to.iter_mut().zip(indices) {
                        to.clone_from(&from[*index as usize]);
                    }
                    rest = left;
                }
            }
        }
    }
}

/// Where the numbers of an operator's output come from: it is run over indices into `origins`,
/// which has those of its moved inputs one after the other.
pub(super) fn follow(
    operator: &mut dyn Operator,
    moves: Moves,
    inputs: &[Option<&Tensor>],
    origins: &[Origin],
) -> Option<Moved> {
    let moved = match moves {
        Moves::Not => return None,
        Moves::Shape => return Some(Moved::new(origins)),
        Moves::OfFirst => 1,
        Moves::OfAll => inputs.len(),
    };
    let mut start = 0;
    let indices = inputs.iter().enumerate().map(|(index, input)| {
        let input = input.cloned().unwrap_or_default();
        if index >= moved {
            return input;
        }
        let end = start + input.len() as i64;
        let indices = Tensor::new(&input.shape, (start..end).collect::<Vec<_>>());
        start = end;
        indices
    });
    let indices: Vec<Tensor> = indices.collect();
    let places = inputs.iter().enumerate();
    let places: Vec<_> = places.map(|(index, input)| input.map(|_| index)).collect();
    let inputs = Inputs {
        values: &indices,
        places: &places,
    };
    let mut output = [Tensor::default()];
    operator.run(&inputs, &mut output).ok()?;
    let found = output[0].values::<i64>().ok()?;
    let found = found.iter().map(|index| origins[*index as usize]);
    Some(Moved::new(&found.collect::<Vec<_>>()))
}
