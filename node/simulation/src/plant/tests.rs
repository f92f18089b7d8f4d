use super::*;

const DEMO: Duration = Duration::from_secs(60);

fn value(plant: &Plant, tag: &str) -> f64 {
    let reading = plant.readings().iter().find(|reading| reading.tag == tag);
    reading.unwrap_or_else(|| panic!("no tag {tag}")).value
}

fn worn(seed: u64) -> &'static str {
    let plant = Plant::new(seed, 1.0);
    let worn = plant
        .truth()
        .min_by(|a, b| a.remaining_hours.total_cmp(&b.remaining_hours));
    worn.expect("a plant has pumps").pump
}

#[test]
fn the_same_seed_gives_the_same_signals() {
    let mut one = Plant::new(7, 36_000.0);
    let mut two = Plant::new(7, 36_000.0);
    for _ in 0..200 {
        assert_eq!(one.step(SAMPLING), two.step(SAMPLING));
    }
    let mut other = Plant::new(8, 36_000.0);
    assert_ne!(one.readings(), other.step(SAMPLING));
}

#[test]
fn one_bearing_fails_in_the_demo_and_is_replaced() {
    for seed in 0..30 {
        let mut plant = Plant::new(seed, Plant::acceleration_for(DEMO));
        let worn = worn(seed);
        let mut failed_at = None;
        for step in 0..240_u32 {
            plant.step(SAMPLING);
            for truth in plant.truth() {
                let expected = truth.pump == worn;
                assert!(
                    truth.running || expected,
                    "seed {seed}: {} failed too",
                    truth.pump
                );
                if !truth.running && failed_at.is_none() {
                    failed_at = Some(f64::from(step) * SAMPLING.as_secs_f64());
                }
            }
        }
        let failed_at = failed_at.unwrap_or_else(|| panic!("seed {seed}: {worn} did not fail"));
        assert!(
            (38.0..56.0).contains(&failed_at),
            "seed {seed}: failed at {failed_at} s"
        );
    }
}

#[test]
fn damage_shows_in_vibration_and_heat() {
    let mut plant = Plant::new(3, Plant::acceleration_for(DEMO));
    let worn = worn(3);
    let tags = [
        format!("{worn}/vibration"),
        format!("plant/{worn}/temperature"),
    ];
    let mean = |plant: &mut Plant, steps: u32| {
        let mut sums = [0.0; 2];
        for _ in 0..steps {
            plant.step(SAMPLING);
            for (sum, tag) in sums.iter_mut().zip(&tags) {
                *sum += value(plant, tag) / f64::from(steps);
            }
        }
        sums
    };
    let [vibration_early, heat_early] = mean(&mut plant, 40);
    mean(&mut plant, 90);
    let [vibration_late, heat_late] = mean(&mut plant, 20);
    assert!(
        vibration_late > 1.8 * vibration_early,
        "{vibration_early} → {vibration_late} mm/s"
    );
    assert!(
        heat_late > heat_early + 4.0,
        "{heat_early} → {heat_late} °C"
    );
}

#[test]
fn the_press_strokes_in_real_time() {
    let mut plant = Plant::new(1, 36_000.0);
    let (mut lowest, mut highest) = (f64::MAX, f64::MIN);
    for _ in 0..240 {
        plant.step(SAMPLING);
        lowest = lowest.min(value(&plant, "press/position"));
        highest = highest.max(value(&plant, "press/force"));
    }
    assert_eq!(value(&plant, "press/strokes"), 10.0);
    assert!(lowest < 1.0 && highest > 900.0, "{lowest} mm, {highest} kN");
    assert!(value(&plant, "press/oil_temperature") > 26.0);
}

#[test]
fn every_value_is_finite_at_any_pace() {
    for pace in [0.0, 1.0, 36_000.0, 1e9] {
        let mut plant = Plant::fleet(11, pace);
        for _ in 0..500 {
            for reading in plant.step(SAMPLING) {
                assert!(
                    reading.value.is_finite(),
                    "{} = {}",
                    reading.tag,
                    reading.value
                );
            }
        }
    }
}

#[test]
fn a_sensor_publishes_json() {
    let mut reading = Reading::new(Route::Mqtt, "plant/pump1/temperature".to_owned(), "°C");
    reading.value = 41.234_56;
    let payload: serde_json::Value = serde_json::from_slice(&reading.payload(17)).unwrap();
    assert_eq!(
        payload,
        serde_json::json!({"value": 41.2346, "unit": "°C", "time": 17})
    );
}

/// The least pressure while the tool is at the bottom, over the top of it, in some strokes.
fn held(leak: f64) -> f64 {
    let mut plant = Plant::with_leak(5, leak);
    let (mut least, mut top) = (f64::INFINITY, 0.0_f64);
    for _ in 0..240 {
        plant.step(SAMPLING);
        let pressure = value(&plant, "press/pressure");
        top = top.max(pressure);
        if value(&plant, "press/position") < 1.0 {
            least = least.min(pressure);
        }
    }
    least / top
}

#[test]
fn a_seal_that_leaks_shows_in_the_pressure_that_is_held() {
    let (tight, leaking, gone) = (held(0.0), held(0.5), held(1.0));
    assert!(tight > 0.85, "{tight}");
    assert!(
        leaking < tight - 0.05 && gone < leaking - 0.05,
        "{tight} {leaking} {gone}"
    );
}
