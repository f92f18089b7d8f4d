//! Which of a graph's numbers is the score, and which output its label.

use super::Refusal;
use super::program::{Built, Program};
use super::proto::{Graph, Slot};
use super::tensor::{Data, Tensor};
use crate::output::{Output, Pick, Reading, Reconstruction};
use crate::runner::Score;
use std::sync::Arc;

/// Outputs that exporters put scores in, where there are others beside them.
const USUAL_NAMES: [&str; 4] = ["probabilities", "output_probability", "scores", "variable"];
/// Labels whose words are kept; a classifier of more makes them anew each time.
const LABELS_KEPT_MAX: usize = 64;

pub(super) struct Answer {
    score: usize,
    reading: Reading,
    label: Option<usize>,
    labels: Vec<(i64, Arc<str>)>,
}

impl Answer {
    /// A refusal says what there is to choose from. `shape` is the window's, rows and columns.
    pub(super) fn choose(
        graph: &Graph<'_>,
        built: &Built<'_>,
        output: &Output,
        shape: (usize, usize),
    ) -> Result<Self, Refusal> {
        let mut outputs = Vec::new();
        for slot in &graph.outputs {
            let place = built.places.get(slot.name);
            let got = || format!("an output {:?} that nothing makes", slot.name);
            let place = *place.ok_or_else(|| Refusal::Output { got: got() })?;
            outputs.push((slot, place));
        }
        let value = |place: usize| built.program.value(place);
        let is_number = |place: usize| matches!(value(place).data, Data::F32(_) | Data::F64(_));
        let all = || Refusal::Output {
            got: told(&outputs, &built.program),
        };
        let numbers: Vec<_> = outputs
            .iter()
            .filter(|(_, place)| is_number(*place))
            .collect();
        let score = match &output.name {
            Some(name) => outputs.iter().find(|(slot, _)| slot.name == name),
            None => match (&numbers[..], &outputs[..]) {
                ([only], _) => Some(*only),
                // The number of a cluster, for want of another.
                ([], [only]) => Some(only),
                _ => usual(&numbers),
            },
        };
        let (slot, score) = *score.ok_or_else(all)?;
        if matches!(value(score).data, Data::Text(_) | Data::Bool(_)) {
            return Err(all());
        }
        let reading = match &output.pick {
            Pick::Error(error) => {
                let (rows, columns) = shape;
                Reconstruction::check(rows, columns, &value(score).shape)
                    .map_err(Refusal::Unsupported)?;
                Reading::Error(*error)
            }
            pick => {
                let index = index(built, slot.name, score, pick);
                Reading::Number(index.map_err(|got| Refusal::Output { got })?)
            }
        };
        let is_label = |place: usize| {
            let value = value(place);
            value.len() == 1 && matches!(value.data, Data::I64(_) | Data::I32(_) | Data::Text(_))
        };
        let others = outputs
            .iter()
            .map(|(_, place)| *place)
            .filter(|place| *place != score);
        let mut labels = others.filter(|place| is_label(*place));
        let label = labels.next().filter(|_| labels.next().is_none());
        Ok(Self {
            score,
            reading,
            label,
            labels: Vec::new(),
        })
    }

    pub(super) fn read(&mut self, program: &Program, window: &[f32]) -> Result<Score, String> {
        let data = &program.value(self.score).data;
        let value = match self.reading {
            Reading::Number(index) => number(data, index),
            Reading::Error(error) => match data {
                Data::F32(values) => self.reading.of(window, values),
                Data::F64(values) if values.len() == window.len() => {
                    Some(error.error(window, values.iter().copied()))
                }
                _ => None,
            },
        };
        Ok(Score {
            value: value.ok_or("its output came in another shape")?,
            class: self
                .label
                .and_then(|place| self.class(program.value(place))),
        })
    }

    fn class(&mut self, label: &Tensor) -> Option<Arc<str>> {
        let number = match &label.data {
            Data::Text(words) => return words.first().cloned(),
            Data::I64(numbers) => *numbers.first()?,
            Data::I32(numbers) => i64::from(*numbers.first()?),
            _ => return None,
        };
        if let Some((_, kept)) = self.labels.iter().find(|(kept, _)| *kept == number) {
            return Some(Arc::clone(kept));
        }
        let made: Arc<str> = number.to_string().into();
        if self.labels.len() < LABELS_KEPT_MAX {
            self.labels.push((number, Arc::clone(&made)));
        }
        Some(made)
    }
}

fn number(data: &Data, index: usize) -> Option<f32> {
    match data {
        Data::F32(values) => values.get(index).copied(),
        Data::F64(values) => values.get(index).map(|value| *value as f32),
        Data::I64(values) => values.get(index).map(|value| *value as f32),
        Data::I32(values) => values.get(index).map(|value| *value as f32),
        Data::Bool(_) | Data::Text(_) => None,
    }
}

/// Which of an output's numbers is picked; the error says what there is to choose from.
fn index(built: &Built<'_>, name: &str, place: usize, pick: &Pick) -> Result<usize, String> {
    let count = built.program.value(place).len();
    let classes = classes(built, place, count);
    let index = match pick {
        Pick::Index(index) => Some(*index).filter(|index| *index < count),
        Pick::Class(class) => {
            classes.and_then(|names| names.iter().position(|name| **name == **class))
        }
        // One number, or of two classes the second, which exporters call the positive one.
        Pick::Default => match (count, classes) {
            (1, _) => Some(0),
            (2, Some(_)) => Some(1),
            _ => None,
        },
        Pick::Error(_) => None,
    };
    index.ok_or_else(|| match classes {
        Some(names) => format!("{count} numbers in {name:?}, of the classes {names:?}"),
        None => format!("{count} numbers in {name:?}"),
    })
}

type Outputs<'g, 'a> = [(&'g Slot<'a>, usize)];

fn usual<'o, 'g, 'a>(numbers: &[&'o (&'g Slot<'a>, usize)]) -> Option<&'o (&'g Slot<'a>, usize)> {
    let mut named = numbers
        .iter()
        .filter(|(slot, _)| USUAL_NAMES.contains(&slot.name));
    named.next().copied().filter(|_| named.next().is_none())
}

/// The classes that an output's numbers are about: its own, or those of the only list in the
/// graph that has as many.
fn classes<'b>(built: &'b Built<'_>, place: usize, count: usize) -> Option<&'b [Arc<str>]> {
    if let Some(own) = built.classes.get(&place).filter(|own| own.len() == count) {
        return Some(own);
    }
    let mut lists = built.class_lists.iter().filter(|list| list.len() == count);
    let first = lists.next()?;
    lists.all(|list| list == first).then_some(first)
}

fn told(outputs: &Outputs<'_, '_>, program: &Program) -> String {
    let outputs = outputs.iter().map(|(slot, place)| {
        let value = program.value(*place);
        format!("{} {}", slot.name, value.told())
    });
    outputs.collect::<Vec<_>>().join(", ")
}
