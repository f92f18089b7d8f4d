//! Numbers that sum up a stretch of samples, as numpy and scipy compute them.
//!
//! ```text
//! last          x[-1]                              rms           sqrt(mean(x²))
//! mean          numpy.mean(x)                      peak_to_peak  numpy.ptp(x)
//! std           numpy.std(x)           (ddof 0)    crest         max|x| ÷ rms
//! min, max      numpy.min(x), numpy.max(x)         kurtosis      scipy.stats.kurtosis(x)
//! slope         numpy.polyfit(arange(n), x, 1)[0]  skewness      scipy.stats.skew(x)
//! band [a, b]   the part of mean(x²) at frequencies from a up to but not including b, in Hz
//! ```
//! So the spread is that of the population; kurtosis is the excess over the normal distribution,
//! and biased, as skewness is; slope is per sample. Bands that follow each other without a hole,
//! from 0 to beyond half the rate, add up to `rms²`. No taper is applied: of a tone between two
//! lines of the spectrum a part lands beside it.
//!
//! What has no value is not made up: kurtosis and skewness where all samples are equal, and the
//! crest factor of silence, are NaN, and a window with a NaN is not scored.

use crate::spectrum::Spectrum;

/// One number about a stretch of samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Feature {
    Last,
    Mean,
    Std,
    Min,
    Max,
    Slope,
    Rms,
    PeakToPeak,
    Kurtosis,
    Skewness,
    Crest,
    /// From `low_hz` up to but not including `high_hz`.
    Band {
        low_hz: f64,
        high_hz: f64,
    },
}

impl Feature {
    /// The plain ones, by the name that a configuration has for them.
    pub const NAMED: [(&'static str, Self); 11] = [
        ("last", Self::Last),
        ("mean", Self::Mean),
        ("std", Self::Std),
        ("min", Self::Min),
        ("max", Self::Max),
        ("slope", Self::Slope),
        ("rms", Self::Rms),
        ("peak_to_peak", Self::PeakToPeak),
        ("kurtosis", Self::Kurtosis),
        ("skewness", Self::Skewness),
        ("crest", Self::Crest),
    ];

    /// Whether it can be computed of samples that come at this rate.
    pub(crate) fn check(self, rate_hz: Option<f64>) -> Result<(), String> {
        let Self::Band { low_hz, high_hz } = self else {
            return Ok(());
        };
        let Some(rate) = rate_hz else {
            return Err("a band needs the sampling `rate`, or a `grid`".to_owned());
        };
        if !(0.0 <= low_hz && low_hz < high_hz && high_hz.is_finite()) {
            return Err(format!(
                "band [{low_hz}, {high_hz}] must go from a frequency to a higher one"
            ));
        }
        if low_hz > rate / 2.0 {
            return Err(format!(
                "band [{low_hz}, {high_hz}]: {rate} samples a second tell nothing above {} Hz",
                rate / 2.0
            ));
        }
        Ok(())
    }
}

/// Computes features; keeps what transforms of one length after another can share.
#[derive(Debug, Default)]
pub(crate) struct Features {
    spectrum: Spectrum,
}

impl Features {
    /// Appends the features of `samples`, in their order. Of no samples at all, each is NaN.
    pub(crate) fn compute(
        &mut self,
        features: &[Feature],
        samples: &[f64],
        rate_hz: Option<f64>,
        into: &mut Vec<f32>,
    ) {
        let moments = Moments::of(samples);
        let needs_spectrum = |feature: &Feature| matches!(feature, Feature::Band { .. });
        if features.iter().any(needs_spectrum) {
            self.spectrum.transform(samples);
        }
        for feature in features {
            let value = match *feature {
                Feature::Last => samples.last().copied().unwrap_or(f64::NAN),
                Feature::Mean => moments.mean,
                Feature::Std => moments.variance.sqrt(),
                Feature::Min => moments.min,
                Feature::Max => moments.max,
                Feature::Slope => slope(samples, moments.mean),
                Feature::Rms => moments.mean_square.sqrt(),
                Feature::PeakToPeak => moments.max - moments.min,
                Feature::Kurtosis => moments.fourth / moments.variance.powi(2) - 3.0,
                Feature::Skewness => moments.third / moments.variance.powf(1.5),
                Feature::Crest => {
                    moments.max.abs().max(moments.min.abs()) / moments.mean_square.sqrt()
                }
                Feature::Band { low_hz, high_hz } => {
                    let rate = rate_hz.expect("a checked band has a rate");
                    self.spectrum.band(rate, low_hz, high_hz)
                }
            };
            into.push(value as f32);
        }
    }

    /// Bytes that transforms of up to `samples` set aside.
    pub(crate) fn bytes(features: &[Feature], samples: usize) -> usize {
        let transforms = |feature: &Feature| matches!(feature, Feature::Band { .. });
        match features.iter().any(transforms) {
            true => Spectrum::bytes(samples),
            false => 0,
        }
    }
}

/// Moments about the mean, divided by the count.
struct Moments {
    mean: f64,
    mean_square: f64,
    variance: f64,
    third: f64,
    fourth: f64,
    min: f64,
    max: f64,
}

impl Moments {
    /// In two passes: in one, a small swing on a large value would be lost in the rounding.
    fn of(samples: &[f64]) -> Self {
        let count = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / count;
        let (mut square, mut variance, mut third, mut fourth) = (0.0, 0.0, 0.0, 0.0);
        let (mut min, mut max) = (f64::NAN, f64::NAN);
        for &sample in samples {
            let off = sample - mean;
            square += sample * sample;
            variance += off * off;
            third += off * off * off;
            fourth += off * off * off * off;
            // The NaN of the start gives way to any number.
            (min, max) = (sample.min(min), sample.max(max));
        }
        // A mean that is a rounding error off would make noise of equal samples.
        let varies = min != max;
        let of_varying = |sum: f64| if varies { sum / count } else { 0.0 };
        Self {
            mean,
            mean_square: square / count,
            variance: of_varying(variance),
            third: of_varying(third),
            fourth: of_varying(fourth),
            min,
            max,
        }
    }
}

/// The least-squares line's rise from one sample to the next; 0 of a single one.
fn slope(samples: &[f64], mean: f64) -> f64 {
    let middle = (samples.len() as f64 - 1.0) / 2.0;
    let (mut rise, mut run) = (0.0, 0.0);
    for (index, sample) in samples.iter().enumerate() {
        let at = index as f64 - middle;
        rise += at * (sample - mean);
        run += at * at;
    }
    if samples.len() == 1 { 0.0 } else { rise / run }
}

#[cfg(test)]
#[path = "feature_tests.rs"]
mod tests;
