//! Writes what the simulated plant's press goes through as CSV, to train models on.
//!
//! ```text
//! cargo run --release -p skerry-simulation --example record_press -- FIRST_SEED PRESSES SECONDS
//! ```
//!
//! One press after the other, a row each 250 ms, every other one with a tight seal and the rest with
//! a leak drawn from its seed.

use skerry_simulation::plant::{Plant, SAMPLING};
use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Result<Vec<u64>, _> = std::env::args().skip(1).map(|word| word.parse()).collect();
    let [first, presses, seconds] = numbers?[..] else {
        return Err("give FIRST_SEED PRESSES SECONDS".into());
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    writeln!(out, "seed,leak,pressure,force,position,oil_temperature")?;
    for seed in first..first + presses {
        // The fractions of the golden ratio's multiples spread evenly over 0 to 1.
        let drawn = (seed as f64 * 0.618_033_988_75).fract();
        let leak = if seed % 2 == 0 { 0.0 } else { drawn };
        let mut plant = Plant::with_leak(seed, leak);
        let steps = u128::from(seconds) * 1_000 / SAMPLING.as_millis();
        for _ in 0..steps {
            let readings = plant.step(SAMPLING);
            let value = |tag: &str| {
                let reading = readings.iter().find(|reading| reading.tag == tag);
                reading.map_or(f64::NAN, |reading| reading.value)
            };
            writeln!(
                out,
                "{seed},{leak:.4},{:.3},{:.2},{:.3},{:.3}",
                value("press/pressure"),
                value("press/force"),
                value("press/position"),
                value("press/oil_temperature"),
            )?;
        }
    }
    out.flush()?;
    Ok(())
}
