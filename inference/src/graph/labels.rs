//! The classes of a classifier: whole numbers or words.

use super::attributes::Attributes;
use super::tensor::Tensor;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub(super) enum Labels {
    Numbers(Vec<i64>),
    Words(Vec<Arc<str>>),
}

impl Labels {
    pub(super) fn read(
        attributes: &Attributes<'_>,
        numbers: &'static str,
        words: &'static str,
    ) -> Result<Self, String> {
        let (numbers, words) = (attributes.ints(numbers)?, attributes.texts(words)?);
        match (numbers, words) {
            ([], []) => Err("it names no classes".to_owned()),
            (numbers, []) => Ok(Self::Numbers(numbers.to_vec())),
            ([], words) => Ok(Self::Words(words.iter().copied().map(Arc::from).collect())),
            _ => Err("it names its classes twice, as numbers and as words".to_owned()),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Numbers(numbers) => numbers.len(),
            Self::Words(words) => words.len(),
        }
    }

    /// As an engineer writes them.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        match self {
            Self::Numbers(numbers) => numbers.iter().map(|it| it.to_string().into()).collect(),
            Self::Words(words) => words.clone(),
        }
    }

    /// Writes one label, as a tensor of one value.
    pub(super) fn write(&self, index: usize, output: &mut Tensor) -> Result<(), String> {
        let lost = || format!("there is no class {index}");
        match self {
            Self::Numbers(numbers) => {
                let label = *numbers.get(index).ok_or_else(lost)?;
                output.set(&[1])?.push(label);
            }
            Self::Words(words) => {
                let label = Arc::clone(words.get(index).ok_or_else(lost)?);
                output.set(&[1])?.push(label);
            }
        }
        Ok(())
    }
}
