//! `post_transform`: what becomes of a model's raw scores.

/// Names as in attributes, in the order of the numbers that TreeEnsemble gives them.
const NAMES: [(&str, Transform); 5] = [
    ("NONE", Transform::None),
    ("SOFTMAX", Transform::Softmax),
    ("LOGISTIC", Transform::Logistic),
    ("SOFTMAX_ZERO", Transform::SoftmaxZero),
    ("PROBIT", Transform::Probit),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transform {
    None,
    Softmax,
    Logistic,
    SoftmaxZero,
    Probit,
}

impl Transform {
    pub(super) fn named(name: Option<&str>) -> Result<Self, String> {
        let name = name.unwrap_or("NONE");
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, transform)| *transform)
            .ok_or_else(|| format!("post_transform {name} is not known here"))
    }

    pub(super) fn numbered(number: Option<i64>) -> Result<Self, String> {
        let number = number.unwrap_or(0);
        let found = usize::try_from(number)
            .ok()
            .and_then(|index| NAMES.get(index));
        found
            .map(|(_, transform)| *transform)
            .ok_or_else(|| format!("post_transform {number} is not known here"))
    }

    /// Over the scores of all classes or targets.
    pub(super) fn apply(self, scores: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Softmax => softmax(scores, false),
            Self::SoftmaxZero => softmax(scores, true),
            Self::Logistic => scores
                .iter_mut()
                .for_each(|score| *score = logistic(*score)),
            Self::Probit => scores.iter_mut().for_each(|score| *score = probit(*score)),
        }
    }
}

/// With `keep_zeros`, scores that are nothing stay nothing.
fn softmax(scores: &mut [f32], keep_zeros: bool) {
    const NOTHING: f32 = 1e-7;
    let most = scores.iter().copied().fold(f32::MIN, f32::max);
    let mut sum = 0.0;
    for score in &mut *scores {
        if keep_zeros && score.abs() <= NOTHING {
            *score *= (-most).exp();
        } else {
            *score = (*score - most).exp();
            sum += *score;
        }
    }
    scores.iter_mut().for_each(|score| *score /= sum);
}

pub(super) fn logistic(value: f32) -> f32 {
    let of_magnitude = 1.0 / (1.0 + (-value.abs()).exp());
    if value < 0.0 {
        1.0 - of_magnitude
    } else {
        of_magnitude
    }
}

/// The normal distribution's quantile, by the approximation of the inverse error function that
/// onnxruntime uses (Winitzki's, to three digits), digit by digit the same.
#[expect(clippy::approx_constant, reason = "the approximation's own pi")]
fn probit(value: f32) -> f32 {
    const A: f32 = 0.147;
    let x = 2.0 * value - 1.0;
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let half = 2.0 / (3.14159 * A) + 0.5 * log;
    let inverse = (-half + (half * half - log / A).sqrt()).sqrt();
    std::f32::consts::SQRT_2 * if x < 0.0 { -inverse } else { inverse }
}
