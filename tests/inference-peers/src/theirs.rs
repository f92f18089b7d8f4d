//! The only file that names onnxruntime: a session with one thread, and its answers.

use anyhow::{Context as _, Result};
use ort::session::Session;
use ort::value::{DynMapValueType, DynValue, Shape, Tensor, ValueType};

pub(crate) struct Theirs {
    session: Session,
    /// Used again for each call, as a program would that is in a hurry.
    input: Tensor<f32>,
}

/// Once in a process, before anything of it is used.
pub(crate) fn load_library(path: &str) -> Result<()> {
    let loaded = ort::init_from(path).with_context(|| format!("cannot load {path}"))?;
    loaded.commit();
    Ok(())
}

impl Theirs {
    /// For `batch` windows at a time.
    pub(crate) fn load(bytes: &[u8], batch: usize, rows: usize, columns: usize) -> Result<Self> {
        let failed = |error: ort::Error<_>| anyhow::anyhow!("{error}");
        let mut builder = Session::builder()?
            .with_intra_threads(1)
            .map_err(failed)?
            .with_inter_threads(1)
            .map_err(failed)?
            .with_log_level(ort::logging::LogLevel::Error)
            .map_err(failed)?;
        let session = builder.commit_from_memory(bytes)?;
        let ValueType::Tensor { shape, .. } = session.inputs()[0].dtype() else {
            anyhow::bail!("the input is no tensor");
        };
        let shape: Vec<usize> = match shape.len() {
            2 => vec![batch, rows * columns],
            _ => vec![batch, rows, columns],
        };
        let zeros = vec![0.0_f32; batch * rows * columns];
        let input = Tensor::from_array((shape, zeros))?;
        Ok(Self { session, input })
    }

    /// Answers the windows, which lie one after the other, and forgets the answers.
    pub(crate) fn run(&mut self, windows: &[f32]) -> Result<()> {
        let (_, input) = self.input.extract_tensor_mut();
        input.copy_from_slice(windows);
        std::hint::black_box(self.session.run(ort::inputs![&self.input])?);
        Ok(())
    }

    /// One number of an output for each of the windows.
    pub(crate) fn answers(
        &mut self,
        windows: &[f32],
        output: usize,
        column: usize,
    ) -> Result<Vec<f32>> {
        let (_, input) = self.input.extract_tensor_mut();
        input.copy_from_slice(windows);
        let outputs = self.session.run(ort::inputs![&self.input])?;
        numbers(&outputs[output], column)
    }
}

/// Of a tensor, or of a map from class to number for each window.
fn numbers(output: &DynValue, column: usize) -> Result<Vec<f32>> {
    if let ValueType::Sequence(_) = output.dtype() {
        let maps = output.try_extract_sequence::<DynMapValueType>()?;
        let number = |map: ort::value::ValueRef<'_, DynMapValueType>| {
            let classes = map.try_extract_map::<i64, f32>()?;
            let class = i64::try_from(column)?;
            classes.get(&class).copied().context("no such class")
        };
        return maps.into_iter().map(number).collect();
    }
    let (shape, numbers): (&Shape, &[f32]) = output.try_extract_tensor()?;
    let windows = usize::try_from(shape[0])?;
    let width = numbers.len() / windows;
    Ok(numbers
        .iter()
        .skip(column)
        .step_by(width)
        .copied()
        .collect())
}
