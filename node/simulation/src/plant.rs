//! The simulated plant: a hydraulic press line and three pumps whose bearings wear.
//!
//! Seeded and pure: time is an argument, so the same seed and the same steps give the same
//! signals on every machine. Two clocks run side by side, because a bearing takes weeks to fail
//! and a demo takes a minute:
//!
//! ```text
//!   real time    × 1             press strokes, sampling, measurement noise
//!   plant time   × acceleration  wear, heat, demand, weather, repairs
//! ```
//!
//! What it is not: a digital twin. Each signal follows the textbook relation that makes it
//! plausible (affinity laws for the pump, first-order thermal lag, exponential spall growth
//! after an incubation), with parameters drawn per machine so that no two are alike.

mod noise;
mod press;
mod pump;

use noise::Noise;
use press::Press;
use pump::Pump;
pub use pump::{Bearing, Truth};
use std::time::Duration;

/// The pumps of the demo plant, as they appear in tags, topics and the model's `assets`.
pub const PUMPS: [&str; 3] = ["pump1", "pump2", "pump3"];

/// How often the drivers are meant to call [`Plant::step`]; the shipped model's rows at 4 Hz.
pub const SAMPLING: Duration = Duration::from_millis(250);

/// Plant hours after the start at which the demo's worn bearing fails, at nominal demand.
const DEMO_FAILURE_HOURS: f64 = 480.0;

/// Where in a demo's run the failure falls: late enough for an alert well before it, early
/// enough to see it happen.
const DEMO_FAILURE_SHARE: f64 = 0.8;

const HOURS_PER_DAY: f64 = 24.0;

/// The press's generator among those of one seed.
const PRESS_LANE: u64 = 3;

/// How a value leaves the plant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// A variable of the OPC-UA server; the tag is its configured name, as in `pump1/vibration`.
    Opcua,
    /// A sensor of its own on MQTT; the tag is its topic, as in `plant/pump1/temperature`.
    Mqtt,
}

/// One signal and its latest value.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    pub tag: String,
    pub route: Route,
    pub unit: &'static str,
    pub value: f64,
}

impl Reading {
    fn new(route: Route, tag: String, unit: &'static str) -> Self {
        Self {
            tag,
            route,
            unit,
            value: 0.0,
        }
    }

    /// What an MQTT sensor publishes: `{"value":…,"unit":…,"time":…}`, the time in milliseconds
    /// since the Unix epoch, by the sensor's clock.
    #[must_use]
    pub fn payload(&self, unix_time_ms: i64) -> Vec<u8> {
        // Sensors report a few digits, not what a double happens to hold.
        let value = (self.value * 1e4).round() / 1e4;
        format!(
            r#"{{"value":{value},"unit":"{}","time":{unix_time_ms}}}"#,
            self.unit
        )
        .into_bytes()
    }
}

/// The whole site.
#[derive(Debug, Clone)]
pub struct Plant {
    acceleration: f64,
    hours: f64,
    hall: Hall,
    press: Press,
    pumps: Vec<Pump>,
    readings: Vec<Reading>,
}

impl Plant {
    /// The demo's scene: one bearing, chosen by the seed, is [`DEMO_FAILURE_HOURS`] from failure;
    /// the other pumps are healthy for months. `acceleration` is plant seconds per real second.
    #[must_use]
    pub fn new(seed: u64, acceleration: f64) -> Self {
        let mut noise = Noise::new(seed, 0);
        let worn = noise.below(PUMPS.len());
        let bearings = (0..PUMPS.len())
            .map(|pump| {
                if pump == worn {
                    Bearing::failing_in(DEMO_FAILURE_HOURS)
                } else {
                    Bearing::healthy(&mut noise)
                }
            })
            .collect();
        Self::with_bearings(seed, acceleration, bearings)
    }

    /// Pumps of every age and load: what a model is trained on.
    #[must_use]
    pub fn fleet(seed: u64, acceleration: f64) -> Self {
        let mut noise = Noise::new(seed, 1);
        let bearings = PUMPS.iter().map(|_| Bearing::drawn(&mut noise)).collect();
        Self::with_bearings(seed, acceleration, bearings)
    }

    /// A plant in real time whose press has a seal that leaks so much: 0 is tight, 1 gone.
    #[must_use]
    pub fn with_leak(seed: u64, leak: f64) -> Self {
        let mut plant = Self::fleet(seed, 1.0);
        plant.press = Press::new(Noise::new(seed, PRESS_LANE), leak.clamp(0.0, 1.0));
        plant.publish();
        plant
    }

    /// The acceleration that puts the worn bearing's failure inside a demo of this length.
    ///
    /// Bounded: beyond a few hours of wear per sample no window sees the damage grow.
    #[must_use]
    pub fn acceleration_for(demo: Duration) -> f64 {
        let seconds = demo.as_secs_f64().max(1.0) * DEMO_FAILURE_SHARE;
        (DEMO_FAILURE_HOURS * 3600.0 / seconds).clamp(1.0, 60_000.0)
    }

    fn with_bearings(seed: u64, acceleration: f64, bearings: Vec<Bearing>) -> Self {
        let pumps: Vec<Pump> = bearings
            .into_iter()
            .zip(PUMPS)
            .zip(10..)
            .map(|((bearing, name), lane)| Pump::new(name, bearing, Noise::new(seed, lane)))
            .collect();
        let readings = readings_of(&pumps);
        let mut plant = Self {
            acceleration: acceleration.max(0.0),
            hours: 0.0,
            hall: Hall::new(Noise::new(seed, 2)),
            press: Press::new(Noise::new(seed, PRESS_LANE), 0.0),
            pumps,
            readings,
        };
        plant.publish();
        plant
    }

    /// Lets `elapsed` of real time pass. The readings keep their order and tags for ever.
    pub fn step(&mut self, elapsed: Duration) -> &[Reading] {
        let seconds = elapsed.as_secs_f64();
        let hours = seconds * self.acceleration / 3600.0;
        self.hours += hours;
        self.hall.step(self.hours, hours);
        self.press.step(seconds, self.hall.temperature);
        for pump in &mut self.pumps {
            pump.step(self.hours, hours, self.hall.temperature);
        }
        self.publish();
        &self.readings
    }

    /// The latest values: also the list of all tags, before the first step.
    #[must_use]
    pub fn readings(&self) -> &[Reading] {
        &self.readings
    }

    /// What no sensor sees: the state of each bearing, in the order of [`PUMPS`].
    pub fn truth(&self) -> impl Iterator<Item = Truth> + '_ {
        self.pumps.iter().map(Pump::truth)
    }

    /// Plant time since the start.
    #[must_use]
    pub fn hours(&self) -> f64 {
        self.hours
    }

    /// Writes the machines' values into the readings, in the order of `readings_of`.
    fn publish(&mut self) {
        let Self {
            press,
            pumps,
            hall,
            readings,
            ..
        } = self;
        let values = press
            .values()
            .into_iter()
            .chain([hall.temperature, hall.humidity])
            .chain(pumps.iter().flat_map(Pump::values));
        for (reading, value) in readings.iter_mut().zip(values) {
            reading.value = value;
        }
    }
}

fn readings_of(pumps: &[Pump]) -> Vec<Reading> {
    let press = press::SIGNALS
        .map(|(signal, unit)| Reading::new(Route::Opcua, format!("press/{signal}"), unit));
    let hall = [
        Reading::new(Route::Mqtt, "plant/hall/temperature".to_owned(), "°C"),
        Reading::new(Route::Mqtt, "plant/hall/humidity".to_owned(), "%"),
    ];
    let pumps = pumps.iter().flat_map(|pump| {
        pump::SIGNALS.map(|(route, signal, unit)| match route {
            Route::Opcua => Reading::new(route, format!("{}/{signal}", pump.name()), unit),
            Route::Mqtt => Reading::new(route, format!("plant/{}/{signal}", pump.name()), unit),
        })
    });
    press.into_iter().chain(hall).chain(pumps).collect()
}

/// The air around the machines: a daily swing, slow weather, humidity against temperature.
#[derive(Debug, Clone)]
struct Hall {
    mean: f64,
    weather: noise::Drift,
    noise: Noise,
    temperature: f64,
    humidity: f64,
}

impl Hall {
    fn new(mut noise: Noise) -> Self {
        let mean = noise.between(17.0, 27.0);
        Self {
            mean,
            weather: noise::Drift::new(2.0, 60.0),
            noise,
            temperature: mean,
            humidity: 50.0,
        }
    }

    fn step(&mut self, hours: f64, elapsed_hours: f64) {
        let weather = self.weather.step(elapsed_hours, &mut self.noise);
        // Warmest in mid-afternoon: the swing peaks at hour 15.
        let day = ((hours - 9.0) / HOURS_PER_DAY * std::f64::consts::TAU).sin();
        self.temperature = self.mean + weather + 3.0 * day + 0.05 * self.noise.normal();
        let dryness = 1.8 * (self.temperature - self.mean);
        self.humidity = (52.0 - dryness + 0.4 * self.noise.normal()).clamp(5.0, 98.0);
    }
}

#[cfg(test)]
mod tests;
