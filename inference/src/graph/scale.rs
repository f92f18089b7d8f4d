//! Scaler, Imputer, Normalizer, Binarizer, FeatureVectorizer.

use super::attributes::Attributes;
use super::operator::{Inputs, Operator};
use super::tensor::{Data, Tensor};

/// A list that holds for all columns, or has one value for each.
fn of_column<T: Copy>(list: &[T], column: usize) -> T {
    if list.len() == 1 {
        list[0]
    } else {
        list[column]
    }
}

fn fits<T>(name: &str, list: &[T], columns: usize) -> Result<(), String> {
    if list.len() == 1 || list.len() == columns {
        Ok(())
    } else {
        let count = list.len();
        Err(format!(
            "it has {count} values of {name} for {columns} columns"
        ))
    }
}

struct Scaler {
    offset: Vec<f32>,
    scale: Vec<f32>,
}

impl Operator for Scaler {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let input = inputs.get(0)?;
        let columns = input.row_len()?;
        fits("offset", &self.offset, columns)?;
        fits("scale", &self.scale, columns)?;
        let scaled = outputs[0].set::<f32>(&input.shape)?;
        let (offset, scale) = (&self.offset, &self.scale);
        let float = |(column, value): (usize, f32)| {
            (value - of_column(offset, column)) * of_column(scale, column)
        };
        let double = |(column, value): (usize, f64)| {
            let shifted = value - f64::from(of_column(offset, column));
            (shifted * f64::from(of_column(scale, column))) as f32
        };
        match &input.data {
            Data::F32(values) => scaled.extend(values.iter().copied().enumerate().map(float)),
            Data::F64(values) => scaled.extend(values.iter().copied().enumerate().map(double)),
            Data::I64(values) => {
                scaled.extend(values.iter().map(|it| *it as f32).enumerate().map(float));
            }
            Data::I32(values) => {
                scaled.extend(values.iter().map(|it| *it as f32).enumerate().map(float));
            }
            Data::Bool(_) | Data::Text(_) => return Err(format!("it scales no {}", input.kind())),
        }
        Ok(())
    }
}

pub(super) fn scaler(attributes: &Attributes<'_>) -> Result<Box<dyn Operator>, String> {
    Ok(Box::new(Scaler {
        offset: attributes.floats("offset")?.to_vec(),
        scale: attributes.floats("scale")?.to_vec(),
    }))
}

struct Imputer {
    floats: Vec<f32>,
    replaced_float: f32,
    ints: Vec<i64>,
    replaced_int: i64,
}

impl Operator for Imputer {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let input = inputs.get(0)?;
        let columns = input.row_len()?;
        match &input.data {
            Data::F32(values) => {
                fits("imputed_value_floats", &self.floats, columns)?;
                let replaced = self.replaced_float;
                let is_replaced =
                    |value: f32| value == replaced || value.is_nan() && replaced.is_nan();
                let filled = outputs[0].set(&input.shape)?;
                filled.extend(values.iter().enumerate().map(|(column, value)| {
                    if is_replaced(*value) {
                        of_column(&self.floats, column)
                    } else {
                        *value
                    }
                }));
            }
            Data::I64(values) => {
                fits("imputed_value_int64s", &self.ints, columns)?;
                let filled = outputs[0].set(&input.shape)?;
                filled.extend(values.iter().enumerate().map(|(column, value)| {
                    if *value == self.replaced_int {
                        of_column(&self.ints, column)
                    } else {
                        *value
                    }
                }));
            }
            _ => return Err(format!("it fills no {}", input.kind())),
        }
        Ok(())
    }
}

pub(super) fn imputer(attributes: &Attributes<'_>) -> Result<Box<dyn Operator>, String> {
    Ok(Box::new(Imputer {
        floats: attributes.floats("imputed_value_floats")?.to_vec(),
        replaced_float: attributes.float("replaced_value_float")?.unwrap_or(0.0),
        ints: attributes.ints("imputed_value_int64s")?.to_vec(),
        replaced_int: attributes.int("replaced_value_int64")?.unwrap_or(0),
    }))
}

#[derive(Debug, Clone, Copy)]
enum Norm {
    Max,
    L1,
    L2,
}

impl Operator for Norm {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let input = inputs.get(0)?;
        input.row_len()?;
        let values = input.values::<f32>()?;
        let norm = match self {
            Self::Max => values.iter().copied().fold(f32::MIN, f32::max),
            Self::L1 => values.iter().map(|value| value.abs()).sum(),
            Self::L2 => values.iter().map(|value| value * value).sum::<f32>().sqrt(),
        };
        // A row of nothing stays one.
        let norm = if norm == 0.0 { 1.0 } else { norm };
        let scaled = outputs[0].set(&input.shape)?;
        scaled.extend(values.iter().map(|value| value / norm));
        Ok(())
    }
}

pub(super) fn normalizer(attributes: &Attributes<'_>) -> Result<Box<dyn Operator>, String> {
    Ok(Box::new(match attributes.text("norm")?.unwrap_or("MAX") {
        "MAX" => Norm::Max,
        "L1" => Norm::L1,
        "L2" => Norm::L2,
        other => return Err(format!("norm {other} is not known here")),
    }))
}

struct Binarizer {
    threshold: f32,
}

impl Operator for Binarizer {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let input = inputs.get(0)?;
        let values = input.values::<f32>()?;
        let above = |value: &f32| {
            if *value > self.threshold {
                1.0_f32
            } else {
                0.0
            }
        };
        outputs[0]
            .set(&input.shape)?
            .extend(values.iter().map(above));
        Ok(())
    }
}

pub(super) fn binarizer(attributes: &Attributes<'_>) -> Result<Box<dyn Operator>, String> {
    let threshold = attributes.float("threshold")?.unwrap_or(0.0);
    Ok(Box::new(Binarizer { threshold }))
}

struct FeatureVectorizer {
    columns: Vec<usize>,
}

impl Operator for FeatureVectorizer {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let count = self.columns.len();
        if inputs.len() != count {
            return Err(format!(
                "it has {} inputs and inputdimensions of {count}",
                inputs.len()
            ));
        }
        let row = outputs[0].set::<f32>(&[1, self.columns.iter().sum()])?;
        for (input, due) in inputs.all().zip(&self.columns) {
            let input = input?;
            if input.row_len()? != *due {
                return Err(format!("{} came where {due} columns are due", input.told()));
            }
            match &input.data {
                Data::F32(values) => row.extend(values),
                Data::F64(values) => row.extend(values.iter().map(|value| *value as f32)),
                Data::I64(values) => row.extend(values.iter().map(|value| *value as f32)),
                Data::I32(values) => row.extend(values.iter().map(|value| *value as f32)),
                _ => return Err(format!("{} is no feature", input.kind())),
            }
        }
        Ok(())
    }
}

pub(super) fn feature_vectorizer(attributes: &Attributes<'_>) -> Result<Box<dyn Operator>, String> {
    let columns = attributes.ints("inputdimensions")?.iter();
    let columns = columns.map(|it| {
        usize::try_from(*it)
            .ok()
            .filter(|it| *it <= super::tensor::VALUES_MAX)
    });
    let columns = columns.collect::<Option<Vec<_>>>();
    let columns = columns.ok_or("its inputdimensions are no sizes")?;
    Ok(Box::new(FeatureVectorizer { columns }))
}
