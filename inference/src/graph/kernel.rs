//! What is left of an operator when all shapes are known: loops over numbers whose places and
//! spreads were found at load, with nothing to check and no memory to set aside.

use super::arithmetic::source;
use super::moves::{Moved, Origin};
use super::tensor::{Element, Tensor, each_kind};

/// Writes one value from others.
pub(super) type Kernel = Box<dyn FnMut(&mut [Tensor])>;

/// Why a value is of the type that a kernel takes it for.
pub(super) const KNOWN: &str = "types are those of the first run";

/// How an input's numbers are spread over the result's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spread {
    Each,
    /// One for all.
    Single,
    /// All of them over and over.
    Cycle,
    /// One for so many after each other.
    Rows(usize),
}

impl Spread {
    /// Of a tensor of shape `from` that is stretched to `to`; none if it is another.
    fn of(from: &[usize], to: &[usize]) -> Option<Self> {
        let count = |shape: &[usize]| shape.iter().product::<usize>();
        let are_ones = |dims: &[usize]| dims.iter().all(|dim| *dim == 1);
        let (numbers, results) = (count(from), count(to));
        let before = to.len() - from.len();
        if numbers == results || results == 0 {
            return Some(Self::Each);
        }
        if numbers == 1 {
            return Some(Self::Single);
        }
        let ones = from.iter().take_while(|dim| **dim == 1).count();
        if from[ones..] == to[before + ones..] {
            return Some(Self::Cycle);
        }
        let mut behind = (0..from.len()).filter(|at| {
            are_ones(&to[..before]) && from[..*at] == to[before..][..*at] && are_ones(&from[*at..])
        });
        let at = behind.next()?;
        Some(Self::Rows(count(&to[before + at..])))
    }
}

/// Numbers of a value that follow each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operand {
    place: usize,
    at: usize,
    len: usize,
    pub(super) spread: Spread,
}

impl Operand {
    pub(super) fn of<'a, T: Element>(&self, values: &'a [Tensor]) -> &'a [T] {
        let numbers = T::of(&values[self.place].data).expect(KNOWN);
        &numbers[self.at..][..self.len]
    }

    /// As an index into them for each of the results.
    pub(super) fn stride(&self) -> usize {
        usize::from(self.spread != Spread::Single)
    }
}

/// The value at `to`, of a type that load has found, is written while all others are read.
pub(super) fn write<T: Element>(
    values: &mut [Tensor],
    to: usize,
    with: impl FnOnce(&[Tensor], &mut [T]),
) {
    let mut out = std::mem::take(T::of_mut(&mut values[to].data).expect(KNOWN));
    with(values, &mut out);
    *T::of_mut(&mut values[to].data).expect(KNOWN) = out;
}

/// Each of `out` becomes what `of` makes of it and its number of `with`.
pub(super) fn mix<T: Copy>(
    out: &mut [T],
    (with, spread): (&[T], Spread),
    of: impl Fn(T, T) -> T + Copy,
) {
    let pairs = |out: &mut [T], with: &[T]| {
        for (out, with) in out.iter_mut().zip(with) {
            *out = of(*out, *with);
        }
    };
    let single = |out: &mut [T], with: T| {
        for out in out {
            *out = of(*out, with);
        }
    };
    match spread {
        Spread::Each => pairs(out, with),
        Spread::Single => single(out, with[0]),
        Spread::Cycle => out.chunks_mut(with.len()).for_each(|out| pairs(out, with)),
        Spread::Rows(width) => {
            let rows = out.chunks_mut(width).zip(with);
            rows.for_each(|(out, with)| single(out, *with));
        }
    }
}

/// Makes each result of a pair, of which each side is [`Spread::Each`] or [`Spread::Single`].
pub(super) fn pairs<T: Copy, R>(
    out: &mut [R],
    (a, b): (&[T], &[T]),
    are_single: (bool, bool),
    of: impl Fn(T, T) -> R,
) {
    match are_single {
        (false, false) => {
            for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
                *out = of(*a, *b);
            }
        }
        (false, true) => {
            for (out, a) in out.iter_mut().zip(a) {
                *out = of(*a, b[0]);
            }
        }
        (true, _) => {
            for (out, b) in out.iter_mut().zip(b) {
                *out = of(a[0], *b);
            }
        }
    }
}

/// An operator while load looks for its kernel: its inputs and its output with their places.
pub(super) struct Site<'a> {
    /// All values, and of each whether it changes with the window, and what it is made of if its
    /// numbers were only moved and stand elsewhere.
    pub(super) values: &'a mut Vec<Tensor>,
    pub(super) changes: &'a mut Vec<bool>,
    pub(super) moved: &'a mut Vec<Option<Moved>>,
    /// What has to run before.
    pub(super) kernels: Vec<Kernel>,
    /// Numbers that may still be set aside.
    pub(super) spare: usize,
    pub(super) inputs: Box<[Option<usize>]>,
    pub(super) output: usize,
}

impl Site<'_> {
    pub(super) fn input(&self, index: usize) -> Option<&Tensor> {
        let place = self.inputs.get(index).copied().flatten()?;
        Some(&self.values[place])
    }

    /// An input that is the same for every window.
    pub(super) fn constant(&self, index: usize) -> Option<&Tensor> {
        let place = self.inputs.get(index).copied().flatten()?;
        (!self.changes[place]).then(|| &self.values[place])
    }

    /// All numbers of an input of this type.
    pub(super) fn dense<T: Element>(&mut self, index: usize) -> Option<Operand> {
        let input = self.input(index)?;
        T::of(&input.data)?;
        let len = input.len();
        let place = self.inputs[index]?;
        if let Some((place, at)) = self.moved[place].as_ref().and_then(Moved::as_run) {
            return Some(Operand {
                place,
                at,
                len,
                spread: Spread::Each,
            });
        }
        self.bring(place);
        Some(Operand {
            place,
            at: 0,
            len,
            spread: Spread::Each,
        })
    }

    /// An input as it is spread over the output.
    pub(super) fn spread<T: Element>(&mut self, index: usize) -> Option<Operand> {
        let from = self.input(index)?.shape.clone();
        let to = self.values[self.output].shape.clone();
        match Spread::of(&from, &to) {
            Some(spread) => Some(Operand {
                spread,
                ..self.dense::<T>(index)?
            }),
            None => self.stretched::<T>(index),
        }
    }

    /// The same, spread as each or as single.
    pub(super) fn even<T: Element>(&mut self, index: usize) -> Option<Operand> {
        let operand = self.spread::<T>(index)?;
        match operand.spread {
            Spread::Each | Spread::Single => Some(operand),
            Spread::Cycle | Spread::Rows(_) => self.stretched::<T>(index),
        }
    }

    /// An input with each number as often as the output has it, as a value of its own.
    fn stretched<T: Element>(&mut self, index: usize) -> Option<Operand> {
        let Operand { place, at, .. } = self.dense::<T>(index)?;
        let from = self.input(index)?.shape.clone();
        let to = self.values[self.output].shape.clone();
        let len = to.iter().product();
        self.spare = self.spare.checked_sub(len)?;
        let origin = |index| (place as u32, (at + source(&from, &to, index)) as u32);
        let origins: Vec<Origin> = (0..len).map(origin).collect();
        let stretched = Tensor::new(&to, vec![T::default(); len]);
        let place = self.values.len();
        self.values.push(stretched);
        self.changes.push(true);
        self.moved.push(Some(Moved::new(&origins)));
        self.bring(place);
        Some(Operand {
            place,
            at: 0,
            len,
            spread: Spread::Each,
        })
    }

    /// A value that is the same as this one, with its numbers in their place.
    pub(super) fn whole(&mut self, place: usize) -> usize {
        match self.moved[place].as_ref().and_then(Moved::as_run) {
            Some((source, 0)) if self.values[source].shape == self.values[place].shape => source,
            _ => {
                self.bring(place);
                place
            }
        }
    }

    /// Has a value's numbers brought together, if they were only moved.
    pub(super) fn bring(&mut self, place: usize) {
        if let Some(moved) = self.moved[place].take() {
            let kernel = each_kind!(&self.values[place].data, it => gathering(it, moved, place));
            self.kernels.push(kernel);
        }
    }
}

/// The value's numbers say of which type it is.
fn gathering<T: Element>(_: &[T], moved: Moved, to: usize) -> Kernel {
    Box::new(move |values| {
        write::<T>(values, to, |values, out| moved.gather(values, out));
    })
}

/// A kernel that makes each result of one number.
pub(super) fn map<T: Element, R: Element>(
    site: &mut Site<'_>,
    of: impl Fn(&T) -> R + 'static,
) -> Option<Kernel> {
    let (from, to) = (site.dense::<T>(0)?, site.output);
    Some(Box::new(move |values| {
        write::<R>(values, to, |values, out| {
            for (out, number) in out.iter_mut().zip(from.of::<T>(values)) {
                *out = of(number);
            }
        });
    }))
}
