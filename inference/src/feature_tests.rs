use super::*;
use serde_json::Value;

const REFERENCE: &str = include_str!("reference/features.json");

fn compute(features: &[Feature], samples: &[f64], rate_hz: Option<f64>) -> Vec<f32> {
    let mut values = Vec::new();
    Features::default().compute(features, samples, rate_hz, &mut values);
    values
}

fn numbers(value: &Value) -> Vec<f64> {
    let items = value.as_array().expect("a list").iter();
    items.map(|item| item.as_f64().expect("a number")).collect()
}

#[test]
fn as_numpy_and_scipy_have_it() {
    let reference: Value = serde_json::from_str(REFERENCE).expect("JSON");
    let rate = reference["rate"].as_f64();
    let bands = reference["bands_hz"].as_array().expect("bands");
    let bands = bands.iter().map(|edges| Feature::Band {
        low_hz: edges[0].as_f64().expect("a frequency"),
        high_hz: edges[1].as_f64().expect("a frequency"),
    });
    let named = Feature::NAMED.map(|(_, feature)| feature);
    let features: Vec<Feature> = named.into_iter().chain(bands).collect();
    let cases = reference["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 15);
    // One after the other, as windows come: nothing of one case may remain in the next.
    let mut all = Features::default();
    for case in cases {
        let samples = numbers(&case["samples"]);
        let mut values = Vec::new();
        all.compute(&features, &samples, rate, &mut values);
        let named = Feature::NAMED
            .iter()
            .map(|(name, _)| case[*name].as_f64().expect("a number"));
        let expected: Vec<f64> = named.chain(numbers(&case["bands"])).collect();
        assert_eq!(values.len(), expected.len());
        for (feature, (value, expected)) in features.iter().zip(values.iter().zip(expected)) {
            let difference = (f64::from(*value) - expected).abs();
            assert!(
                difference <= 2e-6 * expected.abs() + 1e-9,
                "{feature:?} of {}: {value}, not {expected}",
                case["name"]
            );
        }
    }
}

#[test]
fn bands_without_a_hole_add_up_to_the_mean_square() {
    let samples: Vec<f64> = (0..100).map(|n| f64::from(n * n % 17) - 3.0).collect();
    let mut features: Vec<Feature> = (0..10)
        .map(|n| Feature::Band {
            low_hz: f64::from(n) * 60.0,
            high_hz: f64::from(n + 1) * 60.0,
        })
        .collect();
    features.push(Feature::Rms);
    let mut values = compute(&features, &samples, Some(1_000.0));
    let rms = values.pop().expect("it was asked for");
    let sum: f32 = values.iter().sum();
    assert!((sum / (rms * rms) - 1.0).abs() < 1e-5, "{sum} {rms}");
}

#[test]
fn what_has_no_value_is_not_made_up() {
    let features = [Feature::Kurtosis, Feature::Skewness, Feature::Crest];
    // 0.1 is no binary fraction: the mean of three is not the same 0.1.
    let values = compute(&features, &[0.1, 0.1, 0.1], None);
    assert!(values[0].is_nan() && values[1].is_nan(), "{values:?}");
    assert!((values[2] - 1.0).abs() < 1e-6);
    assert!(compute(&features, &[0.0, 0.0], None)[2].is_nan());
    for (name, feature) in Feature::NAMED {
        assert!(compute(&[feature], &[], None)[0].is_nan(), "{name}");
    }
}

#[test]
fn a_single_sample_has_what_it_can_have() {
    let features = [
        Feature::Last,
        Feature::Std,
        Feature::Slope,
        Feature::PeakToPeak,
        Feature::Rms,
        Feature::Band {
            low_hz: 0.0,
            high_hz: 1.0,
        },
    ];
    let values = compute(&features, &[-3.0], Some(10.0));
    assert_eq!(values, [-3.0, 0.0, 0.0, 0.0, 3.0, 9.0]);
}

#[test]
fn bands_need_a_rate_and_frequencies_that_it_shows() {
    let check = |low_hz, high_hz, rate| Feature::Band { low_hz, high_hz }.check(rate);
    assert_eq!(check(10.0, 200.0, Some(1_000.0)), Ok(()));
    assert_eq!(Feature::Rms.check(None), Ok(()));
    for (low, high, rate, told) in [
        (10.0, 200.0, None, "rate"),
        (200.0, 10.0, Some(1_000.0), "higher"),
        (-1.0, 10.0, Some(1_000.0), "higher"),
        (600.0, 700.0, Some(1_000.0), "above 500 Hz"),
    ] {
        let why = check(low, high, rate).expect_err(told);
        assert!(why.contains(told), "{why}");
    }
}
