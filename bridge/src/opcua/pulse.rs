//! What a subscription owes its reader: signs of life, and the server's clock.

use super::link::Link;
use super::watch::Watch;
use super::wire::Granted;
use std::time::Duration;
use tokio::time::Instant;

/// Keep-alives that may be missed before the connection is taken for dead.
const KEEP_ALIVES_MISSED: u32 = 3;
/// Time for an answer to travel, on top of what the server takes.
const LATENCY: Duration = Duration::from_secs(1);

/// One subscription's, for as long as a connection lives.
pub(super) struct Pulse {
    pub(super) silence_max: Duration,
    /// Without a message until then, the connection is dead.
    pub(super) dead_at: Instant,
    pub(super) watch: Watch,
    /// Whether no message has come yet.
    pub(super) first: bool,
}

impl Pulse {
    fn new(granted: Granted, watch: Watch) -> Self {
        let silence_max = keep_alive(granted).saturating_mul(KEEP_ALIVES_MISSED) + LATENCY;
        Self {
            silence_max,
            dead_at: Instant::now() + silence_max,
            watch,
            first: true,
        }
    }

    /// A message was taken in.
    pub(super) fn beat(&mut self) {
        self.dead_at = Instant::now() + self.silence_max;
    }

    /// For so long nobody looked: a log that makes us wait is no fault of the server.
    fn stalled(&mut self, time: Duration) {
        self.dead_at += time;
        self.watch.stalled(time);
    }
}

const fn keep_alive(granted: Granted) -> Duration {
    granted
        .publishing_interval
        .saturating_mul(granted.keep_alive_count)
}

impl Link {
    pub(super) fn pulses(&self) -> Vec<Pulse> {
        let strands = self.strands.iter().enumerate();
        strands
            .map(|(at, strand)| {
                let watch = self.watch(at, keep_alive(strand.granted));
                Pulse::new(strand.granted, watch)
            })
            .collect()
    }
}

/// Nobody looked at any of them since then.
pub(super) fn stalled(pulses: &mut [Pulse], since: Instant) {
    let passed = since.elapsed();
    pulses.iter_mut().for_each(|pulse| pulse.stalled(passed));
}

/// The one that is silent for too long first.
pub(super) fn next_dead(pulses: &[Pulse]) -> &Pulse {
    let next = pulses.iter().min_by_key(|pulse| pulse.dead_at);
    next.expect("something is subscribed to")
}

/// The one whose clock is to be read first, and when.
pub(super) fn next_look(pulses: &[Pulse]) -> (usize, Instant) {
    let due = pulses.iter().map(|pulse| pulse.watch.due());
    let next = due.enumerate().min_by_key(|(_, due)| *due);
    next.expect("something is subscribed to")
}
