//! The hydraulic press: one stroke after the other, in real time at any acceleration.

use super::noise::{Noise, approach};

/// Signals in the order of [`Press::values`], with their units.
pub(super) const SIGNALS: [(&str, &str); 5] = [
    ("pressure", "bar"),
    ("force", "kN"),
    ("position", "mm"),
    ("oil_temperature", "°C"),
    ("strokes", "1"),
];

/// Phases of a stroke, each with its end in seconds from the stroke's start.
const APPROACH_END_S: f64 = 1.2;
const PRESSING_END_S: f64 = 2.0;
const DWELL_END_S: f64 = 3.0;
const RETURN_END_S: f64 = 4.4;
/// Strip feed, then the next stroke begins.
const STROKE_S: f64 = 6.0;
const _: () = assert!(APPROACH_END_S < PRESSING_END_S && PRESSING_END_S < DWELL_END_S);
const _: () = assert!(DWELL_END_S < RETURN_END_S && RETURN_END_S < STROKE_S);

const TRAVEL_MM: f64 = 400.0;
/// The tool meets the sheet this far above the bottom.
const CONTACT_MM: f64 = 35.0;
const IDLE_BAR: f64 = 12.0;
const FORMING_BAR: f64 = 210.0;
/// What a cylinder seal that is gone (leak 1) costs: of the top pressure, per second that it is to
/// be held, and in heat where the oil is throttled past it.
const LEAK_TOP_SHARE: f64 = 0.05;
const LEAK_SAG_PER_S: f64 = 0.35;
const LEAK_RISE_K: f64 = 12.0;
/// Piston area: 0.05 m², so that 1 bar is 5 kN.
const FORCE_KN_PER_BAR: f64 = 5.0;
/// A small tank: warm after some minutes, so that a demo sees it rise.
const OIL_TIME_CONSTANT_S: f64 = 240.0;
const OIL_RISE_K: f64 = 27.0;

#[derive(Debug, Clone)]
pub(super) struct Press {
    /// Seconds into the running stroke.
    phase_s: f64,
    strokes: u64,
    /// Sheet hardness of this stroke, around 1: what makes strokes differ.
    hardness: f64,
    /// Of the cylinder's seal: 0 is tight, 1 gone. It wears over months, so within minutes it is one number.
    leak: f64,
    oil_temperature: f64,
    pressure: f64,
    position: f64,
    noise: Noise,
}

impl Press {
    pub(super) fn new(noise: Noise, leak: f64) -> Self {
        Self {
            phase_s: 0.0,
            strokes: 0,
            hardness: 1.0,
            leak,
            oil_temperature: 24.0,
            pressure: IDLE_BAR,
            position: TRAVEL_MM,
            noise,
        }
    }

    pub(super) fn step(&mut self, seconds: f64, hall_temperature: f64) {
        self.phase_s += seconds;
        while self.phase_s >= STROKE_S {
            self.phase_s -= STROKE_S;
            self.strokes += 1;
            self.hardness = 1.0 + 0.03 * self.noise.normal();
        }
        let (position, pressure) = stroke(self.phase_s, self.hardness, self.leak);
        self.position = position + 0.05 * self.noise.normal();
        self.pressure = (pressure + 0.6 * self.noise.normal()).max(0.0);
        // Every stroke throttles its energy into the oil; the cooler works against the hall.
        let target = hall_temperature + OIL_RISE_K * self.hardness + LEAK_RISE_K * self.leak;
        self.oil_temperature +=
            approach(seconds, OIL_TIME_CONSTANT_S) * (target - self.oil_temperature);
    }

    pub(super) fn values(&self) -> [f64; SIGNALS.len()] {
        let force = (self.pressure - IDLE_BAR).max(0.0) * FORCE_KN_PER_BAR;
        [
            self.pressure,
            force,
            self.position,
            self.oil_temperature,
            self.strokes as f64,
        ]
    }
}

/// Position in mm above the bottom and pressure in bar at one instant of the stroke.
fn stroke(phase_s: f64, hardness: f64, leak: f64) -> (f64, f64) {
    let top = FORMING_BAR * hardness * (1.0 - LEAK_TOP_SHARE * leak);
    let held = |seconds: f64| top * (-LEAK_SAG_PER_S * leak * seconds).exp();
    if phase_s < APPROACH_END_S {
        let way = smooth(phase_s / APPROACH_END_S);
        (
            TRAVEL_MM - (TRAVEL_MM - CONTACT_MM) * way,
            IDLE_BAR + 18.0 * way,
        )
    } else if phase_s < PRESSING_END_S {
        // The sheet yields, then hardens: pressure climbs faster than the tool sinks.
        let way = (phase_s - APPROACH_END_S) / (PRESSING_END_S - APPROACH_END_S);
        let pressure = 30.0 + (top - 30.0) * way.powf(1.6);
        (CONTACT_MM * (1.0 - smooth(way)), pressure)
    } else if phase_s < DWELL_END_S {
        (0.0, held(phase_s - PRESSING_END_S))
    } else if phase_s < RETURN_END_S {
        let way = (phase_s - DWELL_END_S) / (RETURN_END_S - DWELL_END_S);
        let release = (-way * 12.0).exp();
        (
            TRAVEL_MM * smooth(way),
            45.0 + (held(DWELL_END_S - PRESSING_END_S) - 45.0) * release,
        )
    } else {
        (TRAVEL_MM, IDLE_BAR)
    }
}

/// Starts and stops without a jerk.
fn smooth(way: f64) -> f64 {
    way * way * (3.0 - 2.0 * way)
}
