//! What a press shop reports: JSON of exactly 200 bytes whose numbers wander as those of sensors
//! do. Seeded, so that every run and every peer is given the same.
//!
//! One report has about 18 bits in it that nobody can foresee: 5 of a noisy vibration, 3 of the
//! clock's jitter, 1 to 3 of each slow value. That is what no format can save.

use std::io::Write as _;

use crate::chance::Chance;

/// Bytes of one report.
pub const BYTES: usize = 200;
/// Sources, each a topic and a key of its own.
pub const MACHINES: usize = 50;

const BEGIN_MS: u64 = 1_763_990_400_000;
const INTERVAL_MS: u64 = 1_000;
const JITTER_MS: u64 = 8;

/// One machine, reporting once a second of its own time.
pub struct Machine {
    number: usize,
    seen: u64,
    temperature: Walk,
    pressure: Walk,
    vibration: Walk,
    current: Walk,
    speed: Walk,
    flow: Walk,
    chance: Chance,
}

/// A value of as many digits as its range has, which moves by little.
struct Walk {
    value: u64,
    range: std::ops::RangeInclusive<u64>,
    step_max: u64,
}

impl Walk {
    fn new(range: std::ops::RangeInclusive<u64>, step_max: u64, chance: &mut Chance) -> Self {
        let value = range.start() + chance.below(range.end() - range.start());
        Self {
            value,
            range,
            step_max,
        }
    }

    fn next(&mut self, chance: &mut Chance) -> u64 {
        let moved = self.value + chance.below(2 * self.step_max + 1);
        let moved = moved.saturating_sub(self.step_max);
        self.value = moved.clamp(*self.range.start(), *self.range.end());
        self.value
    }
}

impl Machine {
    /// The whole shop.
    #[must_use]
    pub fn all(seed: u64) -> Vec<Self> {
        let mut chance = Chance::new(seed);
        (0..MACHINES)
            .map(|number| Self::new(number, chance.fork()))
            .collect()
    }

    fn new(number: usize, mut chance: Chance) -> Self {
        let mut walk = |range, step_max| Walk::new(range, step_max, &mut chance);
        Self {
            number,
            seen: 0,
            temperature: walk(400..=950, 1),
            pressure: walk(4_000..=6_000, 3),
            vibration: walk(100..=999, 20),
            current: walk(100..=400, 2),
            speed: walk(1_460..=1_500, 1),
            flow: walk(200..=600, 1),
            chance,
        }
    }

    #[must_use]
    pub fn topic(&self) -> String {
        format!("plant/hall-1/press-{:02}", self.number)
    }

    /// Its next report.
    pub fn report(&mut self) -> [u8; BYTES] {
        let chance = &mut self.chance;
        let time = BEGIN_MS + self.seen * INTERVAL_MS + chance.below(JITTER_MS);
        let sequence = 1_000_000 + self.seen;
        self.seen += 1;
        let (number, temperature) = (self.number, self.temperature.next(chance));
        let (pressure, vibration) = (self.pressure.next(chance), self.vibration.next(chance));
        let (current, speed) = (self.current.next(chance), self.speed.next(chance));
        let flow = self.flow.next(chance);
        let mut report = [0; BYTES];
        let mut rest = &mut report[..];
        write!(
            rest,
            r#"{{"ts":{time},"site":"vessel-7","machine":"press-{number:02}","seq":{sequence},"temp":{}.{},"pressure":{}.{:03},"vibration":0.{vibration},"current":{}.{},"rpm":{speed},"flow":{}.{},"state":"running","alarm":false,"fw":"42"}}"#,
            temperature / 10,
            temperature % 10,
            pressure / 1_000,
            pressure % 1_000,
            current / 10,
            current % 10,
            flow / 10,
            flow % 10,
        )
        .expect("a report has its length by the ranges of its values");
        assert!(rest.is_empty(), "a report is shorter than the ranges say");
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_json_of_one_length_and_the_same_for_a_seed() {
        let (mut once, mut again) = (Machine::all(7), Machine::all(7));
        let mut before = 0;
        for _ in 0..5_000 {
            let report = once[3].report();
            assert_eq!(report, again[3].report());
            let value: serde_json::Value = serde_json::from_slice(&report).unwrap();
            assert_eq!(value["machine"], "press-03");
            let time = value["ts"].as_u64().unwrap();
            assert!(time > before);
            before = time;
        }
        assert_ne!(once[3].report(), Machine::all(8)[3].report());
    }
}
