//! Which number of a model's answer is its score, or how far the whole answer is from the window.

use serde::{Deserialize, Serialize};

/// As configured; what is left out follows from the model, or the model is refused with what
/// there is to choose from.
///
/// By itself a regressor's score is its number, that of a classifier of two classes the
/// probability of the second, and that of an isolation forest its decision score.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The graph's output that the score is in.
    pub name: Option<String>,
    pub pick: Pick,
}

/// Which number of that output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pick {
    #[default]
    Default,
    /// Counted from 0, row by row.
    Index(usize),
    /// A classifier's number for this class.
    Class(String),
    /// Not a number of it: how far all of it is from the window.
    Error(Reconstruction),
}

/// Which number an auto-encoder's score is, whose answer is the window again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reconstruction {
    /// The mean of the squares of what each value is off by.
    MeanSquared,
    /// The mean of what each value is off by.
    MeanAbsolute,
}

impl Reconstruction {
    /// Values are those that the graph is given and gives, row by row, as many of each.
    pub(crate) fn error(self, window: &[f32], answer: impl Iterator<Item = f64>) -> f32 {
        let off = window.iter().zip(answer);
        let off = off.map(|(given, got)| f64::from(*given) - got);
        let sum: f64 = match self {
            Self::MeanSquared => off.map(|off| off * off).sum(),
            Self::MeanAbsolute => off.map(f64::abs).sum(),
        };
        (sum / window.len() as f64) as f32
    }

    /// An answer of another shape, transposed for one, is not the window again. Dimensions of one
    /// are exporters' habits and change nothing.
    pub(crate) fn check(rows: usize, columns: usize, shape: &[usize]) -> Result<(), String> {
        let sizes = |shape: &[usize]| -> Vec<usize> {
            let sizes = shape.iter().copied();
            sizes.filter(|size| *size != 1).collect()
        };
        let is = |window: &[usize]| sizes(shape) == sizes(window);
        if is(&[rows, columns]) || is(&[rows * columns]) {
            return Ok(());
        }
        Err(format!(
            "`output` asks for the error of a reconstruction, which has to be [1, {rows}, {columns}] or \
             [1, {}] as the window is, and the answer is {shape:?}",
            rows * columns
        ))
    }
}

/// What of an output becomes the score.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reading {
    Number(usize),
    Error(Reconstruction),
}

impl Reading {
    /// `None` if the answer came in another shape than it said.
    pub(crate) fn of(self, window: &[f32], answer: &[f32]) -> Option<f32> {
        match self {
            Self::Number(index) => answer.get(index).copied(),
            Self::Error(error) => (answer.len() == window.len())
                .then(|| error.error(window, answer.iter().map(|got| f64::from(*got)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// numpy 2.4: `((x - y) ** 2).mean()` and `abs(x - y).mean()` in float64, of these as float32.
    #[test]
    fn errors_are_those_of_numpy() {
        let numbers = |times: usize, base: usize, part: f32, less: f32| -> Vec<f32> {
            let number = |at: usize| (at * times % base) as f32 / part - less;
            (0..420).map(number).collect()
        };
        let window = numbers(37, 101, 16.0, 3.0);
        let answer = numbers(53, 89, 32.0, 1.25);
        let of = |reading: Reconstruction| Reading::Error(reading).of(&window, &answer).unwrap();
        let near = |got: f32, numpy: f64| {
            assert!((f64::from(got) - numpy).abs() <= 1e-6 * numpy, "{got}");
        };
        near(of(Reconstruction::MeanSquared), 4.022335379464286);
        near(of(Reconstruction::MeanAbsolute), 1.690029761904762);
        let shorter = Reading::Error(Reconstruction::MeanSquared).of(&window, &answer[1..]);
        assert_eq!(shorter, None);
    }

    #[test]
    fn only_the_windows_own_shape_is_a_reconstruction() {
        let check = |shape: &[usize]| Reconstruction::check(30, 14, shape);
        for same in [&[1, 30, 14][..], &[1, 420], &[420, 1], &[1, 1, 30, 14]] {
            assert_eq!(check(same), Ok(()), "{same:?}");
        }
        for other in [
            &[1, 14, 30][..],
            &[2, 30, 7],
            &[1, 16],
            &[1, 30],
            &[],
            &[0, 420],
        ] {
            assert!(check(other).is_err(), "{other:?}");
        }
    }
}
