//! One publisher, many subscribers, QoS 0.
//!
//! The publisher is paced by the slowest subscriber: a message counts as under way until all have
//! it, and few are. So no queue of a broker is ever full, and one that loses something all the
//! same is found out by the number that each message carries.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::STALLED;
use super::connection::{Connection, Scratch};
use super::crowd::Crowd;
use super::packet::{self, PUBLISH};
use super::payload::Payloads;
use super::publishers::Outcome;

const TOPIC: &str = "plant/bench/fan-out";
/// Messages under way.
const WINDOW: usize = 16;

#[derive(Debug, Clone, Copy)]
pub struct FanOut {
    pub subscribers: usize,
    pub warm_up: Duration,
    pub measured: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// In the measured time.
    pub deliveries: Outcome,
    /// In all: how many there should have been, and how many did not come.
    pub owed: u64,
    pub lost: u64,
}

impl FanOut {
    /// `mark` sees the broker at the beginning and at the end of the measured time.
    pub fn run(self, port: u16, mut mark: impl FnMut() -> Result<()>) -> Result<Spread> {
        let mut load = Load::open(port, self.subscribers)?;
        load.run_for(self.warm_up)?;
        mark()?;
        let (before, start) = (load.delivered, Instant::now());
        load.run_for(self.measured)?;
        let deliveries = Outcome {
            count: load.delivered - before,
            elapsed: start.elapsed(),
        };
        mark()?;
        ensure!(deliveries.count > 0, "nothing was delivered");
        load.finish()?;
        let owed = load.published * self.subscribers as u64;
        Ok(Spread {
            deliveries,
            owed,
            lost: owed - load.delivered,
        })
    }
}

struct Load {
    publisher: Connection,
    crowd: Crowd,
    /// The number of the message that each subscriber gets next.
    expected: Vec<u64>,
    /// How many subscribers are past a message, for the messages from `complete` on.
    past: [usize; WINDOW],
    /// Messages that all subscribers are past.
    complete: u64,
    published: u64,
    delivered: u64,
    payloads: Payloads,
    outgoing: Vec<u8>,
}

impl Load {
    fn open(port: u16, subscribers: usize) -> Result<Self> {
        let mut crowd = Crowd::connect(port, subscribers)?;
        crowd.subscribe(TOPIC, 0)?;
        Ok(Self {
            publisher: Connection::open(port, "bench-publisher", &mut Scratch::new())?,
            crowd,
            expected: vec![0; subscribers],
            past: [0; WINDOW],
            complete: 0,
            published: 0,
            delivered: 0,
            payloads: Payloads::new(),
            outgoing: Vec::new(),
        })
    }

    fn run_for(&mut self, duration: Duration) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < duration {
            self.publish()?;
            ensure!(self.receive()?, "no delivery any more: lost for good");
        }
        Ok(())
    }

    /// Waits for what is still under way, or for nothing to come any more.
    fn finish(&mut self) -> Result<()> {
        while self.complete < self.published && self.receive()? {}
        Ok(())
    }

    fn publish(&mut self) -> Result<()> {
        self.outgoing.clear();
        while self.published < self.complete + WINDOW as u64 {
            let mut payload = *self.payloads.next();
            payload[..8].copy_from_slice(&self.published.to_be_bytes());
            packet::append_publish(&mut self.outgoing, 0, TOPIC, 0, &payload);
            self.published += 1;
        }
        if self.outgoing.is_empty() {
            return Ok(());
        }
        self.publisher.send(&self.outgoing)
    }

    /// Whether anything came.
    fn receive(&mut self) -> Result<bool> {
        let Self {
            crowd,
            expected,
            past,
            delivered,
            ..
        } = self;
        let before = *delivered;
        for number in crowd.poll.wait(STALLED)? {
            let expected = &mut expected[number];
            crowd.connections[number].receive(&mut crowd.scratch, |packet| {
                if packet.kind() != PUBLISH {
                    return Ok(());
                }
                let (_, payload) = packet.published()?;
                let sequence = payload.first_chunk().context("a payload without number")?;
                let sequence = u64::from_be_bytes(*sequence);
                ensure!(sequence >= *expected, "message {sequence} came twice");
                // What was passed over is lost, and waited for no longer.
                for sequence in *expected..=sequence {
                    past[slot(sequence)] += 1;
                }
                *expected = sequence + 1;
                *delivered += 1;
                Ok(())
            })?;
        }
        while self.complete < self.published
            && self.past[slot(self.complete)] == self.expected.len()
        {
            self.past[slot(self.complete)] = 0;
            self.complete += 1;
        }
        Ok(self.delivered > before)
    }
}

fn slot(sequence: u64) -> usize {
    usize::try_from(sequence % WINDOW as u64).expect("below the window")
}
