//! Writes what the simulated plant's pumps go through as CSV, to train models on.
//!
//! ```text
//! cargo run --release -p skerry-simulation --example record -- --seed 1 --hours 6000
//! ```
//!
//! One line per pump and row. `--every-s` is the plant time between rows. With `--burst-every-s`
//! rows come in bursts of 32 at `--every-s`, as a node sees them that scores a real pump at 4 Hz
//! now and then: the pump hardly changes within a burst.

use skerry_simulation::plant::{PUMPS, Plant};
use std::io::Write;
use std::time::Duration;

const BURST_ROWS: u32 = 32;

struct Options {
    seed: u64,
    hours: f64,
    every_s: f64,
    burst_every_s: Option<f64>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::from_arguments()?;
    // Plant time is all that counts here, so real time runs at the plant's pace.
    let mut plant = Plant::fleet(options.seed, 1.0);
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    writeln!(
        out,
        "seed,pump,burst,hours,vibration,temperature,current,speed,damage,running,replacements"
    )?;
    let mut row = 0_u32;
    while plant.hours() < options.hours {
        let in_burst = !row.is_multiple_of(BURST_ROWS);
        let pause = options
            .burst_every_s
            .filter(|_| !in_burst)
            .unwrap_or(options.every_s);
        let burst = if options.burst_every_s.is_some() {
            row / BURST_ROWS
        } else {
            0
        };
        row += 1;
        plant.step(Duration::from_secs_f64(pause));
        let truths: Vec<_> = plant.truth().collect();
        for (pump, truth) in PUMPS.iter().zip(truths) {
            let value = |tag: String| {
                let reading = plant.readings().iter().find(|reading| reading.tag == tag);
                reading.map_or(f64::NAN, |reading| reading.value)
            };
            writeln!(
                out,
                "{},{pump},{burst},{:.5},{:.4},{:.3},{:.3},{:.1},{:.5},{},{}",
                options.seed,
                plant.hours(),
                value(format!("{pump}/vibration")),
                value(format!("plant/{pump}/temperature")),
                value(format!("{pump}/current")),
                value(format!("{pump}/speed")),
                truth.damage,
                u8::from(truth.running),
                truth.replacements,
            )?;
        }
    }
    out.flush()?;
    Ok(())
}

impl Options {
    fn from_arguments() -> Result<Self, String> {
        let mut options = Self {
            seed: 1,
            hours: 6000.0,
            every_s: 9000.0,
            burst_every_s: None,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments
                .next()
                .ok_or_else(|| format!("{name} needs a value"))?;
            let number = value
                .parse::<f64>()
                .map_err(|_| format!("{name}: {value} is no number"))?;
            match name.as_str() {
                "--seed" => options.seed = number as u64,
                "--hours" => options.hours = number,
                "--every-s" => options.every_s = number,
                "--burst-every-s" => options.burst_every_s = Some(number),
                _ => {
                    return Err(format!(
                        "{name}: not one of --seed --hours --every-s --burst-every-s"
                    ));
                }
            }
        }
        Ok(options)
    }
}
