//! A centrifugal pump on a frequency converter, and the bearing that decides its life.

use super::noise::{Drift, Noise, approach};
use super::{HOURS_PER_DAY, Route};

/// Signals in the order of [`Pump::values`]: how they leave, their name, their unit.
pub(super) const SIGNALS: [(Route, &str, &str); 5] = [
    (Route::Opcua, "vibration", "mm/s"),
    (Route::Opcua, "current", "A"),
    (Route::Opcua, "speed", "rpm"),
    (Route::Opcua, "flow", "m³/h"),
    (Route::Mqtt, "temperature", "°C"),
];

const RATED_SPEED_RPM: f64 = 2960.0;
const RATED_FLOW_M3H: f64 = 120.0;
const RATED_CURRENT_A: f64 = 42.0;
/// Magnetising current: drawn at any load.
const IDLE_CURRENT_A: f64 = 13.0;

/// Damage with which a spall begins to grow, once incubation is over; 1 is failure.
const DAMAGE_FIRST: f64 = 0.02;
/// Vibration a bearing at the point of failure adds at rated speed, mm/s rms: twice the
/// ISO 10816-3 shutdown limit of 4.5.
const VIBRATION_AT_FAILURE: f64 = 9.0;
/// Temperature above the hall of a sound bearing at rated speed, and what damage adds to it.
const FRICTION_RISE_K: f64 = 28.0;
const FRICTION_BY_DAMAGE: f64 = 1.2;
const BEARING_TIME_CONSTANT_HOURS: f64 = 0.4;
/// From failure to the new bearing.
const REPAIR_HOURS: f64 = 48.0;

/// Gas in the suction line: shakes the pump like damage does, but unloads the motor and heats
/// nothing. What makes vibration alone a poor witness.
const CAVITATION_INTERVAL_HOURS: f64 = 400.0;
const CAVITATION_HOURS: (f64, f64) = (3.0, 14.0);
const CAVITATION_VIBRATION: f64 = 2.4;

/// The life of one bearing: nothing to see for `incubation_hours`, then damage that grows
/// exponentially until it reaches 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Bearing {
    /// Hours at nominal demand until the first spall.
    incubation_hours: f64,
    /// Hours at nominal demand from the first spall to failure.
    growth_hours: f64,
    /// 0 while incubating, 1 when failed.
    damage: f64,
}

impl Bearing {
    pub(super) fn drawn(noise: &mut Noise) -> Self {
        // Weibull with shape 2: wear-out, not chance.
        let incubation_hours = 300.0 + 2500.0 * (-(1.0 - noise.unit()).ln()).sqrt();
        Self {
            incubation_hours,
            growth_hours: noise.between(400.0, 800.0),
            damage: 0.0,
        }
    }

    pub(super) fn healthy(noise: &mut Noise) -> Self {
        Self {
            incubation_hours: 4000.0,
            ..Self::drawn(noise)
        }
    }

    pub(super) fn failing_in(hours: f64) -> Self {
        let mut bearing = Self {
            incubation_hours: 0.0,
            growth_hours: 600.0,
            damage: 0.0,
        };
        bearing.damage = (-bearing.growth_rate() * hours).exp();
        bearing
    }

    /// Per hour at nominal demand.
    fn growth_rate(&self) -> f64 {
        -DAMAGE_FIRST.ln() / self.growth_hours
    }

    fn wear(&mut self, hours: f64) {
        let incubating = hours.min(self.incubation_hours);
        self.incubation_hours -= incubating;
        if self.incubation_hours <= 0.0 {
            let growing = hours - incubating;
            self.damage = self.damage.max(DAMAGE_FIRST) * (self.growth_rate() * growing).exp();
        }
    }

    fn remaining_hours(&self) -> f64 {
        let damage = self.damage.clamp(DAMAGE_FIRST, 1.0);
        self.incubation_hours - damage.ln() / self.growth_rate()
    }
}

/// Ground truth about one pump.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Truth {
    pub pump: &'static str,
    /// 0 sound, 1 failed.
    pub damage: f64,
    /// Plant hours to failure at nominal demand; 0 once failed.
    pub remaining_hours: f64,
    /// False from failure to the end of the repair.
    pub running: bool,
    /// How often this pump got a new bearing.
    pub replacements: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Pump {
    name: &'static str,
    noise: Noise,
    bearing: Bearing,
    replacements: u32,
    /// Hours of repair left; the pump stands still as long as there are any.
    repair_hours: Option<f64>,
    /// Hours of gas in the line left.
    cavitation_hours: f64,

    /// What this pump is for: mean demand and its daily swing, as shares of the rated duty.
    demand_mean: f64,
    demand_swing: f64,
    demand_drift: Drift,
    /// Balance and mounting of this very pump, mm/s rms at rated speed.
    vibration_sound: f64,
    /// Tolerance of motor and sensor.
    current_factor: f64,

    vibration: f64,
    current: f64,
    speed: f64,
    flow: f64,
    temperature: f64,
}

impl Pump {
    pub(super) fn new(name: &'static str, bearing: Bearing, mut noise: Noise) -> Self {
        let mut pump = Self {
            name,
            bearing,
            replacements: 0,
            repair_hours: None,
            cavitation_hours: 0.0,
            demand_mean: noise.between(0.55, 0.9),
            demand_swing: noise.between(0.02, 0.12),
            demand_drift: Drift::new(0.04, 30.0),
            vibration_sound: noise.between(0.7, 1.9),
            current_factor: noise.between(0.97, 1.03),
            vibration: 0.0,
            current: 0.0,
            speed: 0.0,
            flow: 0.0,
            temperature: 25.0,
            noise,
        };
        // It has been running before we look: signals are there, the bearing is warm.
        pump.run(pump.demand_mean);
        pump.temperature += pump.friction_rise();
        pump
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn step(&mut self, hours: f64, elapsed_hours: f64, hall_temperature: f64) {
        let demand = self.demand(hours, elapsed_hours);
        self.cavitate(elapsed_hours);
        match self.repair_hours {
            None => {
                // Fatigue goes with the cube of the load (ISO 281).
                let load = demand / self.demand_mean;
                self.bearing.wear(elapsed_hours * load.powi(3));
                if self.bearing.damage >= 1.0 {
                    self.bearing.damage = 1.0;
                    self.repair_hours = Some(REPAIR_HOURS);
                }
            }
            Some(left) if left > elapsed_hours => self.repair_hours = Some(left - elapsed_hours),
            Some(_) => {
                self.repair_hours = None;
                self.bearing = Bearing::drawn(&mut self.noise);
                self.replacements += 1;
            }
        }
        if self.repair_hours.is_none() {
            self.run(demand);
        } else {
            self.stand();
        }
        let target = hall_temperature + self.friction_rise();
        self.temperature +=
            approach(elapsed_hours, BEARING_TIME_CONSTANT_HOURS) * (target - self.temperature);
        self.temperature += 0.08 * self.noise.normal();
    }

    fn demand(&mut self, hours: f64, elapsed_hours: f64) -> f64 {
        let day = ((hours - 6.0) / HOURS_PER_DAY * std::f64::consts::TAU).sin();
        let drift = self.demand_drift.step(elapsed_hours, &mut self.noise);
        (self.demand_mean + self.demand_swing * day + drift).clamp(0.3, 1.0)
    }

    fn cavitate(&mut self, elapsed_hours: f64) {
        self.cavitation_hours -= elapsed_hours;
        if self.noise.happens(elapsed_hours, CAVITATION_INTERVAL_HOURS) {
            let (low, high) = CAVITATION_HOURS;
            self.cavitation_hours = self.noise.between(low, high);
        }
    }

    /// Affinity laws: flow goes with speed, power with its cube, unbalance with its square.
    fn run(&mut self, demand: f64) {
        let speed = 0.5 + 0.5 * demand;
        let damage = self.bearing.damage;
        let gas = if self.cavitation_hours > 0.0 {
            1.0
        } else {
            0.0
        };

        let unbalance = self.vibration_sound * speed.powi(2);
        let spall = VIBRATION_AT_FAILURE * damage.powf(0.8) * speed;
        let bubbles = CAVITATION_VIBRATION * gas * speed;
        let vibration = (unbalance.powi(2) + spall.powi(2) + bubbles.powi(2)).sqrt();
        self.vibration = vibration * (0.07 * self.noise.normal()).exp();

        let power = speed.powi(3) * (1.0 - 0.12 * gas) * (1.0 + 0.06 * damage);
        let current = IDLE_CURRENT_A + (RATED_CURRENT_A - IDLE_CURRENT_A) * power;
        self.current = current * self.current_factor + 0.15 * self.noise.normal();

        self.speed = RATED_SPEED_RPM * speed + 1.5 * self.noise.normal();
        self.flow = RATED_FLOW_M3H * speed * (1.0 - 0.15 * gas) + 0.4 * self.noise.normal();
    }

    /// Stopped by its protection: only the neighbours' vibration is left.
    fn stand(&mut self) {
        self.vibration = (0.06 + 0.01 * self.noise.normal()).max(0.0);
        self.current = 0.0;
        self.speed = 0.0;
        self.flow = 0.0;
    }

    fn friction_rise(&self) -> f64 {
        let speed = self.speed / RATED_SPEED_RPM;
        FRICTION_RISE_K * speed.powf(1.5) * (1.0 + FRICTION_BY_DAMAGE * self.bearing.damage)
    }

    pub(super) fn values(&self) -> [f64; SIGNALS.len()] {
        [
            self.vibration,
            self.current,
            self.speed,
            self.flow,
            self.temperature,
        ]
    }

    pub(super) fn truth(&self) -> Truth {
        Truth {
            pump: self.name,
            damage: self.bearing.damage,
            remaining_hours: self.bearing.remaining_hours().max(0.0),
            running: self.repair_hours.is_none(),
            replacements: self.replacements,
        }
    }
}
