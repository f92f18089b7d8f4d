//! The only file that names rustfft: how much of a signal is at which frequency.

use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlannerScalar};
use std::sync::Arc;

/// The one-sided power spectrum of the samples last transformed.
#[derive(Default)]
pub(crate) struct Spectrum {
    /// Of the length last seen: windows and bursts seldom change theirs.
    plan: Option<Arc<dyn Fft<f64>>>,
    lines: Vec<Complex<f64>>,
    scratch: Vec<Complex<f64>>,
}

impl Spectrum {
    pub(crate) fn transform(&mut self, samples: &[f64]) {
        self.lines.clear();
        self.lines.extend(samples.iter().map(Complex::from));
        if samples.is_empty() {
            return;
        }
        let known = self.plan.take();
        let plan = known
            .filter(|plan| plan.len() == samples.len())
            // The planner of vector instructions would compile into every one of our binaries all
            // transforms for each instruction set, twice: a third of this crate's machine code.
            .unwrap_or_else(|| FftPlannerScalar::new().plan_fft_forward(samples.len()));
        self.scratch
            .resize(plan.get_inplace_scratch_len(), Complex::default());
        plan.process_with_scratch(&mut self.lines, &mut self.scratch);
        self.plan = Some(plan);
    }

    /// The part of the mean square that lies from `low_hz` up to but not including `high_hz`.
    pub(crate) fn band(&self, rate_hz: f64, low_hz: f64, high_hz: f64) -> f64 {
        let count = self.lines.len();
        if count == 0 {
            return f64::NAN;
        }
        let power = |line: usize| {
            // All lines but the first, and the middle one of an even count, stand for two:
            // themselves and their mirror image.
            let twice = line > 0 && 2 * line != count;
            let share = self.lines[line].norm_sqr() / (count as f64).powi(2);
            if twice { 2.0 * share } else { share }
        };
        let frequency = |line: usize| line as f64 * rate_hz / count as f64;
        (0..=count / 2)
            .filter(|line| (low_hz..high_hz).contains(&frequency(*line)))
            .map(power)
            .sum()
    }

    /// Bytes that transforms of up to `samples` take: the lines, as much to work in, and the
    /// factors of the plan. A prime length takes the most, by working on twice the next power of
    /// two.
    pub(crate) fn bytes(samples: usize) -> usize {
        const PARTS: usize = 8;
        PARTS * samples * size_of::<Complex<f64>>()
    }
}

impl std::fmt::Debug for Spectrum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spectrum")
            .field("lines", &self.lines.len())
            .finish_non_exhaustive()
    }
}
