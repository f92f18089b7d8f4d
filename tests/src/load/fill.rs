//! A backlog for the uplink: telemetry by the million, each machine over a connection of its own.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::STALLED;
use super::connection::{Connection, Scratch};
use super::packet::{self, PUBACK, Packet};
use super::poll::Poll;
use super::telemetry::{MACHINES, Machine};

/// Unacknowledged messages per machine: few, so that the log has the machines mixed as a site's
/// has, and enough for a quick fill.
const WINDOW: u16 = 8;

#[derive(Debug, Clone, Copy)]
pub struct Fill {
    /// For all machines together; each has the same share of it.
    pub records: u64,
    pub seed: u64,
}

struct Publisher {
    connection: Connection,
    machine: Machine,
    topic: String,
    left: u64,
    /// Packet ids that are not under way.
    free: Vec<u16>,
    outgoing: Vec<u8>,
}

impl Fill {
    /// Publishes at QoS 1 until everything is acknowledged; how many records that were.
    pub fn run(self, port: u16) -> Result<u64> {
        let (mut poll, mut scratch) = (Poll::new()?, Scratch::new());
        let share = self.records / MACHINES as u64;
        let mut publishers = Vec::with_capacity(MACHINES);
        for (number, machine) in Machine::all(self.seed).into_iter().enumerate() {
            let client = format!("fill-{number:02}");
            let connection = Connection::open(port, &client, &mut scratch)?;
            connection.poll(&poll, number)?;
            let mut publisher = Publisher::new(connection, machine, share);
            publisher.fill()?;
            publishers.push(publisher);
        }
        let (mut open, mut answered) = (share * MACHINES as u64, Instant::now());
        while open > 0 {
            let before = open;
            for number in poll.wait(Duration::from_millis(100))? {
                let publisher = &mut publishers[number];
                open -= publisher.receive(&mut scratch)?;
                publisher.fill()?;
            }
            if open < before {
                answered = Instant::now();
            }
            let silent = answered.elapsed();
            ensure!(silent < STALLED, "no acknowledgement for {silent:?}");
        }
        Ok(share * MACHINES as u64)
    }
}

impl Publisher {
    fn new(connection: Connection, machine: Machine, share: u64) -> Self {
        Self {
            connection,
            topic: machine.topic(),
            machine,
            left: share,
            free: (1..=WINDOW).rev().collect(),
            outgoing: Vec::new(),
        }
    }

    /// Messages that were acknowledged.
    fn receive(&mut self, scratch: &mut Scratch) -> Result<u64> {
        let (free, mut count) = (&mut self.free, 0);
        self.connection.receive(scratch, |packet: Packet<'_>| {
            match packet.kind() {
                PUBACK => free.push(packet.id()?),
                other => bail!("an unexpected packet of type {other:#x}"),
            }
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }

    fn fill(&mut self) -> Result<()> {
        while self.left > 0
            && let Some(id) = self.free.pop()
        {
            let report = self.machine.report();
            packet::append_publish(&mut self.outgoing, 1, &self.topic, id, &report);
            self.left -= 1;
        }
        if !self.outgoing.is_empty() {
            self.connection.send(&self.outgoing)?;
            self.outgoing.clear();
        }
        Ok(())
    }
}
