//! The operators that are forests: TreeEnsembleRegressor, TreeEnsembleClassifier, TreeEnsemble.

use super::attributes::Attributes;
use super::forest::{Forest, Number, Weight};
use super::kernel::{self, Kernel, Site};
use super::labels::Labels;
use super::operator::{Inputs, Operator};
use super::parts;
use super::tensor::{Data, Tensor};
use super::transform::{Transform, logistic};
use std::rc::Rc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aggregate {
    Sum,
    Average,
    Min,
    Max,
}

impl Aggregate {
    fn named(name: Option<&str>) -> Result<Self, String> {
        match name.unwrap_or("SUM") {
            "SUM" => Ok(Self::Sum),
            "AVERAGE" => Ok(Self::Average),
            "MIN" => Ok(Self::Min),
            "MAX" => Ok(Self::Max),
            other => Err(format!("aggregate_function {other} is not known here")),
        }
    }

    fn numbered(number: Option<i64>) -> Result<Self, String> {
        match number.unwrap_or(1) {
            0 => Ok(Self::Average),
            1 => Ok(Self::Sum),
            2 => Ok(Self::Min),
            3 => Ok(Self::Max),
            other => Err(format!("aggregate_function {other} is not known here")),
        }
    }
}

/// What the trees come to, per target; kept so that no run sets memory aside.
#[derive(Clone)]
struct Totals<T> {
    forest: Rc<Forest<T>>,
    aggregate: Aggregate,
    scores: Vec<T>,
    /// Whether any leaf of this row said something of the target.
    has: Vec<bool>,
}

impl<T: Number> Totals<T> {
    fn new(forest: Forest<T>, aggregate: Aggregate, targets: usize) -> Result<Self, String> {
        if let Some(lost) = forest
            .weights()
            .iter()
            .find(|weight| weight.target as usize >= targets)
        {
            return Err(format!(
                "a leaf is about target {} of {targets}",
                lost.target
            ));
        }
        Ok(Self {
            forest: Rc::new(forest),
            aggregate,
            scores: vec![T::default(); targets],
            has: vec![false; targets],
        })
    }

    /// Adds in the order of the trees and in the type of the weights, as onnxruntime does: the
    /// last digit may decide which class wins.
    fn gather(&mut self, row: &[T]) {
        let Self {
            forest,
            aggregate,
            scores,
            has,
        } = self;
        scores.fill(T::default());
        has.fill(false);
        match (*aggregate, &mut scores[..]) {
            // In a register, which a sum of many trees waits for less than for memory.
            (Aggregate::Sum | Aggregate::Average, [score]) => {
                let mut sum = T::default();
                forest.walk(row, |weights| {
                    for Weight { value, .. } in weights {
                        sum += *value;
                    }
                });
                *score = sum;
                has[0] = forest.trees() > 0;
            }
            (Aggregate::Sum | Aggregate::Average, _) => forest.walk(row, |weights| {
                for Weight { target, value } in weights {
                    scores[*target as usize] += *value;
                    has[*target as usize] = true;
                }
            }),
            (Aggregate::Min, _) => forest.walk(row, |weights| {
                for Weight { target, value } in weights {
                    let target = *target as usize;
                    if !std::mem::replace(&mut has[target], true) || *value < scores[target] {
                        scores[target] = *value;
                    }
                }
            }),
            (Aggregate::Max, _) => forest.walk(row, |weights| {
                for Weight { target, value } in weights {
                    let target = *target as usize;
                    if !std::mem::replace(&mut has[target], true) || *value > scores[target] {
                        scores[target] = *value;
                    }
                }
            }),
        }
        if *aggregate == Aggregate::Average {
            let trees = forest.trees();
            scores
                .iter_mut()
                .for_each(|score| *score = score.over(trees));
        }
    }
}

/// Thresholds in the type of the input: a double is compared with doubles, all else with floats.
pub(super) enum Width<F, D> {
    Float(F),
    Double(D),
}

/// The row of features as the forest compares it.
struct Row<T>(Vec<T>);

impl<T: Number> Row<T> {
    /// Another type than the forest's is converted into a row kept for that.
    fn of<'a>(&'a mut self, input: &'a Tensor, features: usize) -> Result<&'a [T], String> {
        let count = input.row_len()?;
        if count < features {
            return Err(format!(
                "its trees ask for {features} features, it is given {count}"
            ));
        }
        if let Ok(values) = input.values::<T>() {
            return Ok(values);
        }
        self.0.clear();
        match &input.data {
            Data::F32(values) => self
                .0
                .extend(values.iter().map(|value| T::from_f32(*value))),
            // Whole numbers up to 2^24 are floats; features beyond would be compared as rounded.
            Data::I64(values) => self
                .0
                .extend(values.iter().map(|it| T::from_f32(*it as f32))),
            Data::I32(values) => self
                .0
                .extend(values.iter().map(|it| T::from_f32(*it as f32))),
            _ => return Err(format!("trees over {} are not supported", input.kind())),
        }
        Ok(&self.0)
    }
}

struct Regressor<T> {
    trees: Trees<T>,
    row: Row<T>,
}

#[derive(Clone)]
struct Trees<T> {
    totals: Totals<T>,
    base: Vec<T>,
    transform: Transform,
}

impl<T: Number> Trees<T> {
    fn score(&mut self, row: &[T], out: &mut [f32]) {
        self.totals.gather(row);
        let scores = &mut self.totals.scores;
        for (score, base) in scores.iter_mut().zip(&self.base) {
            *score += *base;
        }
        for (out, score) in out.iter_mut().zip(scores) {
            *out = score.to_f32();
        }
        self.transform.apply(out);
    }
}

impl<T: Number> Operator for Regressor<T> {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let Totals { forest, scores, .. } = &self.trees.totals;
        let row = self.row.of(inputs.get(0)?, forest.features())?;
        let count = scores.len();
        let written = outputs[0].set::<f32>(&[1, count])?;
        written.resize(count, 0.0);
        self.trees.score(row, written);
        Ok(())
    }

    fn kernel(&self, site: &mut Site<'_>) -> Option<Kernel> {
        let (from, to, mut trees) = (site.dense::<T>(0)?, site.output, self.trees.clone());
        Some(Box::new(move |values| {
            kernel::write(values, to, |values, out| {
                trees.score(from.of(values), out);
            });
        }))
    }
}

fn write<T: Number>(scores: &[T], transform: Transform, output: &mut Tensor) -> Result<(), String> {
    let written = output.set::<f32>(&[1, scores.len()])?;
    written.extend(scores.iter().map(|score| score.to_f32()));
    transform.apply(written);
    Ok(())
}

/// The type that the attributes are in decides, as double tensors or as lists of floats; lists of
/// floats serve an input of doubles too, which then must be compared as doubles.
pub(super) fn regressor(
    attributes: &Attributes<'_>,
    input: &Tensor,
) -> Result<Box<dyn Operator>, String> {
    let targets = targets(attributes.int("n_targets")?.unwrap_or(1))?;
    let aggregate = Aggregate::named(attributes.text("aggregate_function")?)?;
    let transform = Transform::named(attributes.text("post_transform")?)?;
    Ok(match parts::of_regressor(attributes, input)? {
        Width::Float((parts, base)) => boxed(&parts, base, aggregate, transform, targets)?,
        Width::Double((parts, base)) => boxed(&parts, base, aggregate, transform, targets)?,
    })
}

/// `TreeEnsemble` of ai.onnx.ml 5.
pub(super) fn ensemble(attributes: &Attributes<'_>) -> Result<Box<dyn Operator>, String> {
    let targets = targets(attributes.int("n_targets")?.unwrap_or(1))?;
    let aggregate = Aggregate::numbered(attributes.int("aggregate_function")?)?;
    let transform = Transform::numbered(attributes.int("post_transform")?)?;
    Ok(match parts::of_ensemble(attributes)? {
        Width::Float(parts) => boxed(&parts, Vec::new(), aggregate, transform, targets)?,
        Width::Double(parts) => boxed(&parts, Vec::new(), aggregate, transform, targets)?,
    })
}

fn targets(count: i64) -> Result<usize, String> {
    const TARGETS_MAX: usize = 10_000;
    let count = usize::try_from(count)
        .ok()
        .filter(|it| (1..=TARGETS_MAX).contains(it));
    count.ok_or_else(|| format!("it needs 1 to {TARGETS_MAX} targets"))
}

fn boxed<T: Number>(
    parts: &super::forest::Parts<T>,
    base: Vec<T>,
    aggregate: Aggregate,
    transform: Transform,
    targets: usize,
) -> Result<Box<dyn Operator>, String> {
    if targets == 1 && !matches!(transform, Transform::None | Transform::Probit) {
        return Err(format!(
            "post_transform {transform:?} over one target is left out by some runtimes: put the \
             operator for it behind the trees"
        ));
    }
    if targets == 1 && parts.leaves.iter().any(|leaf| leaf.len() != 1) {
        return Err("a leaf has another number of weights than one".to_owned());
    }
    if !base.is_empty() && base.len() != targets {
        let count = base.len();
        return Err(format!("it has {count} base_values for {targets} targets"));
    }
    Ok(Box::new(Regressor {
        trees: Trees {
            totals: Totals::new(Forest::build(parts)?, aggregate, targets)?,
            base,
            transform,
        },
        row: Row(Vec::new()),
    }))
}

struct Classifier<T> {
    totals: Totals<T>,
    base: Vec<T>,
    transform: Transform,
    labels: Labels,
    rule: Rule,
    row: Row<T>,
}

/// How scores become a label and probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// A score per class, the highest wins.
    Highest,
    /// Weights of two classes are all about one, as its probability.
    Probability,
    /// Weights of two classes are all about one, as its log-odds.
    LogOdds,
}

impl<T: Number> Operator for Classifier<T> {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let row = self.row.of(inputs.get(0)?, self.totals.forest.features())?;
        self.totals.gather(row);
        let Totals { scores, has, .. } = &mut self.totals;
        for ((score, has), base) in scores.iter_mut().zip(&mut *has).zip(&self.base) {
            *score += *base;
            *has = true;
        }
        let [label, probabilities, ..] = outputs else {
            return Err("it has two outputs".to_owned());
        };
        let positive = scores[0].to_f32();
        let (winner, two) = match self.rule {
            Rule::Highest => {
                let mut winner: Option<usize> = None;
                for (index, score) in scores.iter().enumerate() {
                    let beats = |winner: usize| *score > scores[winner];
                    if has[index] && winner.is_none_or(beats) {
                        winner = Some(index);
                    }
                }
                let winner = winner.ok_or("no leaf says anything of any class")?;
                self.labels.write(winner, label)?;
                return write(scores, self.transform, probabilities);
            }
            Rule::Probability => (scores[0] > T::from_f32(0.5), [1.0 - positive, positive]),
            Rule::LogOdds => {
                let odds = [logistic(-positive), logistic(positive)];
                (scores[0] > T::default(), odds)
            }
        };
        self.labels.write(usize::from(winner), label)?;
        probabilities.set(&[1, 2])?.extend(two);
        Ok(())
    }
}

pub(super) fn classifier(
    attributes: &Attributes<'_>,
    input: &Tensor,
) -> Result<(Box<dyn Operator>, Labels), String> {
    let labels = Labels::read(attributes, "classlabels_int64s", "classlabels_strings")?;
    let transform = Transform::named(attributes.text("post_transform")?)?;
    let operator = match parts::of_classifier(attributes, input)? {
        Width::Float((parts, base)) => classify(&parts, base, transform, labels.clone())?,
        Width::Double((parts, base)) => classify(&parts, base, transform, labels.clone())?,
    };
    Ok((operator, labels))
}

fn classify<T: Number>(
    parts: &super::forest::Parts<T>,
    base: Vec<T>,
    transform: Transform,
    labels: Labels,
) -> Result<Box<dyn Operator>, String> {
    let classes = labels.len();
    let forest = Forest::build(parts)?;
    let about_one = forest.weights().iter().all(|weight| weight.target == 0);
    let negative = forest
        .weights()
        .iter()
        .any(|weight| weight.value < T::default());
    let rule = match (classes, about_one, negative, transform) {
        (3.., ..) => Rule::Highest,
        (2, true, false, Transform::None) => Rule::Probability,
        (2, true, true, Transform::Logistic) => Rule::LogOdds,
        _ => {
            return Err(format!(
                "{classes} classes of which {} have weights, with post_transform {transform:?}, \
                 are read differently by different runtimes",
                if about_one { "one" } else { "more" },
            ));
        }
    };
    let targets = if rule == Rule::Highest { classes } else { 1 };
    if !base.is_empty() && base.len() != targets {
        let count = base.len();
        return Err(format!(
            "it has {count} base_values where {targets} are due"
        ));
    }
    if rule != Rule::Highest && parts.leaves.iter().any(|leaf| leaf.len() != 1) {
        return Err("a leaf has another number of weights than one".to_owned());
    }
    Ok(Box::new(Classifier {
        totals: Totals::new(forest, Aggregate::Sum, targets)?,
        base,
        transform,
        labels,
        rule,
        row: Row(Vec::new()),
    }))
}
