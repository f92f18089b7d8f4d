//! Connections that keep a window of publishes open.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::STALLED;
use super::connection::{Connection, Scratch};
use super::packet::{self, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet};
use super::payload::Payloads;
use super::poll::Poll;

#[derive(Debug, Clone, Copy)]
pub struct Publishers {
    pub connections: usize,
    /// Unacknowledged messages per connection.
    pub window: u16,
    pub qos: u8,
    pub warm_up: Duration,
    pub measured: Duration,
}

/// Things that happened within a time.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    pub count: u64,
    pub elapsed: Duration,
}

impl Outcome {
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.count as f64 / self.elapsed.as_secs_f64()
    }
}

impl Publishers {
    /// Counts messages acknowledged to the end between two calls of `mark`, which sees the broker
    /// at the beginning and at the end of the measured time.
    pub fn run(self, port: u16, mut mark: impl FnMut() -> Result<()>) -> Result<Outcome> {
        let mut load = Load::open(port, self)?;
        load.run_for(self.warm_up)?;
        mark()?;
        let (before, start) = (load.acknowledged, Instant::now());
        load.run_for(self.measured)?;
        let (count, elapsed) = (load.acknowledged - before, start.elapsed());
        mark()?;
        load.finish()?;
        ensure!(count > 0, "nothing was acknowledged");
        Ok(Outcome { count, elapsed })
    }
}

struct Load {
    shape: Publishers,
    publishers: Vec<Publisher>,
    poll: Poll,
    scratch: Scratch,
    payloads: Payloads,
    acknowledged: u64,
    answered: Instant,
}

struct Publisher {
    connection: Connection,
    topic: String,
    /// Packet ids that are not under way.
    free: Vec<u16>,
    outgoing: Vec<u8>,
}

impl Load {
    fn open(port: u16, shape: Publishers) -> Result<Self> {
        let (poll, mut scratch) = (Poll::new()?, Scratch::new());
        let mut publishers = Vec::new();
        for number in 0..shape.connections {
            let client = format!("bench-{number:05}");
            let connection = Connection::open(port, &client, &mut scratch)?;
            connection.poll(&poll, number)?;
            publishers.push(Publisher {
                connection,
                topic: format!("plant/bench/{number:05}"),
                free: (1..=shape.window).rev().collect(),
                outgoing: Vec::new(),
            });
        }
        let mut payloads = Payloads::new();
        for publisher in &mut publishers {
            publisher.fill(shape.qos, &mut payloads);
            publisher.flush()?;
        }
        Ok(Self {
            shape,
            publishers,
            poll,
            scratch,
            payloads,
            acknowledged: 0,
            answered: Instant::now(),
        })
    }

    fn run_for(&mut self, duration: Duration) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < duration {
            self.turn(true)?;
        }
        Ok(())
    }

    /// Waits for what is still open, so that the next load finds an idle broker.
    fn finish(&mut self) -> Result<()> {
        let window = usize::from(self.shape.window);
        while self.publishers.iter().any(|one| one.free.len() < window) {
            self.turn(false)?;
        }
        Ok(())
    }

    /// Reads what is there and answers it, with new messages if it is to go on.
    fn turn(&mut self, go_on: bool) -> Result<()> {
        let before = self.acknowledged;
        for number in self.poll.wait(Duration::from_millis(100))? {
            let publisher = &mut self.publishers[number];
            self.acknowledged += publisher.receive(&mut self.scratch)?;
            if go_on {
                publisher.fill(self.shape.qos, &mut self.payloads);
            }
            publisher.flush()?;
        }
        let now = Instant::now();
        if self.acknowledged > before {
            self.answered = now;
        }
        ensure!(
            now - self.answered < STALLED,
            "no acknowledgement for {} s",
            STALLED.as_secs()
        );
        Ok(())
    }
}

impl Publisher {
    /// Messages that were acknowledged to the end.
    fn receive(&mut self, scratch: &mut Scratch) -> Result<u64> {
        let Self { free, outgoing, .. } = self;
        let mut count = 0;
        self.connection.receive(scratch, |packet: Packet<'_>| {
            let id = packet.id()?;
            match packet.kind() {
                PUBACK | PUBCOMP => {
                    free.push(id);
                    count += 1;
                }
                PUBREC => packet::append_answer(outgoing, PUBREL, id),
                other => bail!("an unexpected packet of type {other:#x}"),
            }
            Ok(())
        })?;
        Ok(count)
    }

    fn fill(&mut self, qos: u8, payloads: &mut Payloads) {
        while let Some(id) = self.free.pop() {
            packet::append_publish(&mut self.outgoing, qos, &self.topic, id, payloads.next());
        }
    }

    fn flush(&mut self) -> Result<()> {
        if !self.outgoing.is_empty() {
            self.connection.send(&self.outgoing)?;
            self.outgoing.clear();
        }
        Ok(())
    }
}
