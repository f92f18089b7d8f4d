//! LinearRegressor, LinearClassifier, SVMRegressor, SVMClassifier.

use super::attributes::Attributes;
use super::labels::Labels;
use super::operator::{Inputs, Operator};
use super::tensor::{Data, Tensor};
use super::transform::{Transform, logistic};

/// The features of a row as floats, which is what these operators compute in.
fn floats<'a>(input: &'a Tensor, row: &'a mut Vec<f32>) -> Result<&'a [f32], String> {
    input.row_len()?;
    row.clear();
    match &input.data {
        Data::F32(values) => return Ok(values),
        Data::F64(values) => row.extend(values.iter().map(|value| *value as f32)),
        Data::I64(values) => row.extend(values.iter().map(|value| *value as f32)),
        Data::I32(values) => row.extend(values.iter().map(|value| *value as f32)),
        Data::Bool(_) | Data::Text(_) => return Err(format!("it takes no {}", input.kind())),
    }
    Ok(row)
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// One score per row of coefficients.
struct Scores {
    coefficients: Vec<f32>,
    intercepts: Vec<f32>,
    row: Vec<f32>,
}

impl Scores {
    fn read(attributes: &Attributes<'_>, rows: usize) -> Result<Self, String> {
        let coefficients = attributes.floats("coefficients")?.to_vec();
        let intercepts = attributes.floats("intercepts")?;
        if rows == 0 || coefficients.is_empty() || coefficients.len() % rows != 0 {
            let count = coefficients.len();
            return Err(format!(
                "{count} coefficients are none for {rows} rows of them"
            ));
        }
        let intercepts = match intercepts.len() {
            0 => vec![0.0; rows],
            count if count == rows => intercepts.to_vec(),
            count => {
                return Err(format!(
                    "{count} intercepts for {rows} rows of coefficients"
                ));
            }
        };
        Ok(Self {
            coefficients,
            intercepts,
            row: Vec::new(),
        })
    }

    fn write(&mut self, input: &Tensor, output: &mut Vec<f32>) -> Result<(), String> {
        let row = floats(input, &mut self.row)?;
        let due = self.coefficients.len() / self.intercepts.len();
        if row.len() != due {
            return Err(format!(
                "it takes {due} features, it is given {}",
                row.len()
            ));
        }
        let rows = self.coefficients.chunks_exact(due).zip(&self.intercepts);
        // In doubles: where large terms cancel, a sum of floats is mostly noise.
        output.extend(rows.map(|(coefficients, intercept)| {
            let terms = row.iter().zip(coefficients);
            let sum: f64 = terms.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            (sum + f64::from(*intercept)) as f32
        }));
        Ok(())
    }
}

struct Regressor(Scores);

impl Operator for Regressor {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let targets = self.0.intercepts.len();
        let written = outputs[0].set(&[1, targets])?;
        self.0.write(inputs.get(0)?, written)
    }
}

pub(super) fn regressor(attributes: &Attributes<'_>) -> Result<Box<dyn Operator>, String> {
    let targets = attributes.int("targets")?.unwrap_or(1);
    only_none(Transform::named(attributes.text("post_transform")?)?)?;
    let targets = usize::try_from(targets).map_err(|_| "it has no targets")?;
    Ok(Box::new(Regressor(Scores::read(attributes, targets)?)))
}

fn only_none(transform: Transform) -> Result<(), String> {
    match transform {
        Transform::None => Ok(()),
        other => Err(format!("post_transform {other:?} is not supported here")),
    }
}

struct Classifier {
    scores: Scores,
    labels: Labels,
    transform: Transform,
}

impl Operator for Classifier {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let [label, probabilities, ..] = outputs else {
            return Err("it has two outputs".to_owned());
        };
        let written = probabilities.set(&[1, self.labels.len()])?;
        self.scores.write(inputs.get(0)?, written)?;
        self.labels.write(highest(written), label)?;
        self.transform.apply(written);
        Ok(())
    }
}

/// The first of the highest.
fn highest(scores: &[f32]) -> usize {
    let mut winner = 0;
    for (index, score) in scores.iter().enumerate() {
        if *score > scores[winner] {
            winner = index;
        }
    }
    winner
}

pub(super) fn classifier(
    attributes: &Attributes<'_>,
) -> Result<(Box<dyn Operator>, Labels), String> {
    attributes.ignore(&["multi_class"]);
    let labels = Labels::read(attributes, "classlabels_ints", "classlabels_strings")?;
    let transform = Transform::named(attributes.text("post_transform")?)?;
    let rows = attributes.floats("intercepts")?.len();
    if rows != labels.len() {
        let classes = labels.len();
        return Err(format!(
            "{rows} intercepts for {classes} classes are read differently by different runtimes: \
             export a row of coefficients and an intercept for each class"
        ));
    }
    let operator = Box::new(Classifier {
        scores: Scores::read(attributes, rows)?,
        labels: labels.clone(),
        transform,
    });
    Ok((operator, labels))
}

#[derive(Debug, Clone, Copy)]
enum Shape {
    Linear,
    Poly,
    Rbf,
    Sigmoid,
}

/// How alike two rows are.
#[derive(Debug, Clone, Copy)]
struct Kernel {
    shape: Shape,
    gamma: f32,
    coef0: f32,
    degree: f32,
}

impl Kernel {
    fn read(attributes: &Attributes<'_>) -> Result<Self, String> {
        let shape = match attributes.text("kernel_type")?.unwrap_or("LINEAR") {
            "LINEAR" => Shape::Linear,
            "POLY" => Shape::Poly,
            "RBF" => Shape::Rbf,
            "SIGMOID" => Shape::Sigmoid,
            other => return Err(format!("kernel_type {other} is not known here")),
        };
        let (gamma, coef0, degree) = match *attributes.floats("kernel_params")? {
            [] => (0.0, 0.0, 0.0),
            [gamma, coef0, degree] => (gamma, coef0, degree),
            _ => return Err("its kernel_params are not three".to_owned()),
        };
        Ok(Self {
            shape,
            gamma,
            coef0,
            degree,
        })
    }

    fn of(self, a: &[f32], b: &[f32]) -> f32 {
        match self.shape {
            Shape::Linear => dot(a, b),
            Shape::Poly => (self.gamma * dot(a, b) + self.coef0).powf(self.degree),
            Shape::Sigmoid => (self.gamma * dot(a, b) + self.coef0).tanh(),
            Shape::Rbf => {
                let distance: f32 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
                (-self.gamma * distance).exp()
            }
        }
    }
}

/// Support vectors, and how alike the row is to each.
struct Vectors {
    kernel: Kernel,
    vectors: Vec<f32>,
    features: usize,
    alike: Vec<f32>,
    row: Vec<f32>,
}

impl Vectors {
    fn read(attributes: &Attributes<'_>, count: usize) -> Result<Self, String> {
        let vectors = attributes.floats("support_vectors")?.to_vec();
        if count == 0 || vectors.is_empty() || vectors.len() % count != 0 {
            let numbers = vectors.len();
            return Err(format!("{numbers} numbers are not {count} support vectors"));
        }
        Ok(Self {
            kernel: Kernel::read(attributes)?,
            features: vectors.len() / count,
            vectors,
            alike: Vec::with_capacity(count),
            row: Vec::new(),
        })
    }

    fn compare(&mut self, input: &Tensor) -> Result<&[f32], String> {
        let row = floats(input, &mut self.row)?;
        let (features, kernel) = (self.features, self.kernel);
        if row.len() != features {
            return Err(format!(
                "it takes {features} features, it is given {}",
                row.len()
            ));
        }
        self.alike.clear();
        let vectors = self.vectors.chunks_exact(features);
        self.alike
            .extend(vectors.map(|vector| kernel.of(row, vector)));
        Ok(&self.alike)
    }
}

struct VectorRegressor {
    vectors: Vectors,
    coefficients: Vec<f32>,
    rho: f32,
    one_class: bool,
}

impl Operator for VectorRegressor {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let alike = self.vectors.compare(inputs.get(0)?)?;
        let score = dot(alike, &self.coefficients) + self.rho;
        let sign = if score > 0.0 { 1.0 } else { -1.0 };
        outputs[0]
            .set(&[1, 1])?
            .push(if self.one_class { sign } else { score });
        Ok(())
    }
}

pub(super) fn vector_regressor(attributes: &Attributes<'_>) -> Result<Box<dyn Operator>, String> {
    only_none(Transform::named(attributes.text("post_transform")?)?)?;
    let coefficients = attributes.floats("coefficients")?.to_vec();
    let count = attributes.int("n_supports")?.unwrap_or(0);
    let rho = match *attributes.floats("rho")? {
        [rho] => rho,
        _ => return Err("its rho is not one number".to_owned()),
    };
    let one_class = attributes.int("one_class")?.unwrap_or(0) != 0;
    if count == 0 {
        return Err("it has no support vectors: export it as a LinearRegressor".to_owned());
    }
    if usize::try_from(count) != Ok(coefficients.len()) {
        let coefficients = coefficients.len();
        return Err(format!(
            "{coefficients} coefficients for {count} support vectors"
        ));
    }
    Ok(Box::new(VectorRegressor {
        vectors: Vectors::read(attributes, coefficients.len())?,
        coefficients,
        rho,
        one_class,
    }))
}

/// A decision between each two classes, in libsvm's order and with its coefficients.
struct VectorClassifier {
    vectors: Vectors,
    /// First support vector of each class, and where the last ends.
    starts: Vec<usize>,
    coefficients: Vec<f32>,
    rho: Vec<f32>,
    /// Platt's numbers of each decision, or none: then the decisions are the scores.
    platt: Vec<(f32, f32)>,
    labels: Labels,
    decisions: Vec<f32>,
    votes: Vec<u32>,
    coupling: Coupling,
}

impl VectorClassifier {
    fn decide(&mut self, input: &Tensor) -> Result<(), String> {
        let alike = self.vectors.compare(input)?;
        let (classes, count) = (self.labels.len(), alike.len());
        self.decisions.clear();
        self.votes.fill(0);
        let weighed = |of: usize, row: usize| -> f64 {
            let span = self.starts[of]..self.starts[of + 1];
            let coefficients = &self.coefficients[row * count..][span.clone()];
            let pairs = coefficients.iter().zip(&alike[span]);
            pairs.map(|(a, b)| f64::from(a * b)).sum()
        };
        for i in 0..classes {
            for j in i + 1..classes {
                let rho = self.rho[self.decisions.len()];
                let decision = weighed(i, j - 1) + weighed(j, i) + f64::from(rho);
                self.decisions.push(decision as f32);
                self.votes[if decision > 0.0 { i } else { j }] += 1;
            }
        }
        Ok(())
    }
}

impl Operator for VectorClassifier {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let [label, scores, ..] = outputs else {
            return Err("it has two outputs".to_owned());
        };
        self.decide(inputs.get(0)?)?;
        let mut winner = 0;
        for (index, votes) in self.votes.iter().enumerate() {
            if *votes > self.votes[winner] {
                winner = index;
            }
        }
        let classes = self.labels.len();
        if !self.platt.is_empty() {
            let pairs = self.decisions.iter().zip(&self.platt);
            let chances = pairs.map(|(score, (a, b))| 1.0 - logistic(score * a + b));
            self.coupling.solve(classes, chances);
            scores
                .set::<f32>(&[1, classes])?
                .extend(&self.coupling.chances);
        } else if let [decision] = self.decisions[..] {
            scores.set::<f32>(&[1, 2])?.extend([-decision, decision]);
        } else {
            scores
                .set::<f32>(&[1, self.decisions.len()])?
                .extend(&self.decisions);
        }
        self.labels.write(winner, label)
    }
}

/// The chances of each class from those between each two: the second method of Wu, Lin and Weng
/// (2004), as libsvm has it, in floats and with its limits.
#[derive(Default)]
struct Coupling {
    between: Vec<f32>,
    q: Vec<f32>,
    qp: Vec<f32>,
    chances: Vec<f32>,
}

impl Coupling {
    fn solve(&mut self, classes: usize, chances: impl Iterator<Item = f32>) {
        const LEAST: f32 = 1e-7;
        const ROUNDS_MAX: usize = 100;
        let k = classes;
        let (r, q, qp, p) = (
            &mut self.between,
            &mut self.q,
            &mut self.qp,
            &mut self.chances,
        );
        for buffer in [&mut *r, &mut *q] {
            buffer.clear();
            buffer.resize(k * k, 0.0);
        }
        qp.clear();
        qp.resize(k, 0.0);
        p.clear();
        p.resize(k, 1.0 / k as f32);
        let pairs = (0..k).flat_map(|i| (i + 1..k).map(move |j| (i, j)));
        for ((i, j), chance) in pairs.zip(chances) {
            let chance = chance.clamp(LEAST, 1.0 - LEAST);
            r[i * k + j] = chance;
            r[j * k + i] = 1.0 - chance;
        }
        for i in 0..k {
            for j in (0..k).filter(|j| *j != i) {
                q[i * k + i] += r[j * k + i] * r[j * k + i];
                q[i * k + j] = -r[j * k + i] * r[i * k + j];
            }
        }
        let close = 0.005 / k as f32;
        for _ in 0..ROUNDS_MAX {
            for i in 0..k {
                qp[i] = dot(&q[i * k..][..k], p);
            }
            let mut pqp = dot(p, qp);
            if qp.iter().all(|value| (value - pqp).abs() < close) {
                break;
            }
            for i in 0..k {
                let step = (pqp - qp[i]) / q[i * k + i];
                p[i] += step;
                let grown = 1.0 + step;
                pqp = (pqp + step * (step * q[i * k + i] + 2.0 * qp[i])) / grown / grown;
                for j in 0..k {
                    qp[j] = (qp[j] + step * q[i * k + j]) / grown;
                    p[j] /= grown;
                }
            }
        }
    }
}

pub(super) fn vector_classifier(
    attributes: &Attributes<'_>,
) -> Result<(Box<dyn Operator>, Labels), String> {
    const CLASSES_MAX: usize = 256;
    only_none(Transform::named(attributes.text("post_transform")?)?)?;
    let labels = Labels::read(attributes, "classlabels_ints", "classlabels_strings")?;
    let classes = labels.len();
    if !(2..=CLASSES_MAX).contains(&classes) {
        return Err(format!(
            "it has {classes} classes, 2 to {CLASSES_MAX} are supported"
        ));
    }
    let mut starts = vec![0_usize];
    for count in attributes.ints("vectors_per_class")? {
        let count = usize::try_from(*count).map_err(|_| "a class has no support vectors")?;
        let end = starts[starts.len() - 1].checked_add(count);
        starts.push(end.ok_or("it has too many support vectors")?);
    }
    let count = starts[starts.len() - 1];
    if starts.len() != classes + 1 || count == 0 {
        return Err("it has no support vectors for each class".to_owned());
    }
    let vectors = Vectors::read(attributes, count)?;
    let coefficients = attributes.floats("coefficients")?.to_vec();
    let rho = attributes.floats("rho")?.to_vec();
    let (a, b) = (attributes.floats("prob_a")?, attributes.floats("prob_b")?);
    let pairs = classes * (classes - 1) / 2;
    let fits = count.checked_mul(classes - 1) == Some(coefficients.len())
        && rho.len() == pairs
        && a.len() == b.len()
        && (a.is_empty() || a.len() == pairs);
    if !fits {
        return Err(
            "its coefficients, rho or prob_a are not as many as its classes ask for".to_owned(),
        );
    }
    let operator = Box::new(VectorClassifier {
        vectors,
        starts,
        coefficients,
        rho,
        platt: a.iter().copied().zip(b.iter().copied()).collect(),
        votes: vec![0; classes],
        labels: labels.clone(),
        decisions: Vec::with_capacity(pairs),
        coupling: Coupling::default(),
    });
    Ok((operator, labels))
}
