//! Seeded randomness: a small generator of our own, so that a seed means the same for ever.

/// SplitMix64, with the normal deviates that signals need.
#[derive(Debug, Clone)]
pub(super) struct Noise {
    state: u64,
}

impl Noise {
    /// A generator for one machine: `lane` keeps machines of one seed apart, so that adding one
    /// does not change the others.
    pub(super) fn new(seed: u64, lane: u64) -> Self {
        let mut noise = Self {
            state: seed ^ lane.wrapping_mul(0xD6E8_FEB8_6659_FD93),
        };
        noise.bits();
        noise
    }

    fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in `0.0 .. 1.0`, from the 53 bits a double holds exactly.
    pub(super) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    pub(super) fn below(&mut self, count: usize) -> usize {
        (self.bits() % count as u64) as usize
    }

    /// Standard normal (Box and Muller).
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Whether an event with this mean interval happens within `elapsed`.
    pub(super) fn happens(&mut self, elapsed: f64, mean_interval: f64) -> bool {
        self.unit() < 1.0 - (-elapsed / mean_interval).exp()
    }
}

/// A value that wanders around zero (Ornstein and Uhlenbeck), exact for any step size.
#[derive(Debug, Clone)]
pub(super) struct Drift {
    deviation: f64,
    correlation_hours: f64,
    value: f64,
}

impl Drift {
    pub(super) fn new(deviation: f64, correlation_hours: f64) -> Self {
        Self {
            deviation,
            correlation_hours,
            value: 0.0,
        }
    }

    pub(super) fn step(&mut self, elapsed_hours: f64, noise: &mut Noise) -> f64 {
        let keep = (-elapsed_hours / self.correlation_hours).exp();
        let fresh = (1.0 - keep * keep).sqrt();
        self.value = keep * self.value + fresh * self.deviation * noise.normal();
        self.value
    }
}

/// The share of the way a first-order lag covers in `elapsed`, exact for any step size.
pub(super) fn approach(elapsed: f64, time_constant: f64) -> f64 {
    1.0 - (-elapsed / time_constant).exp()
}
