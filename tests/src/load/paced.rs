//! Publishers that keep a pace, as machines do.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::STALLED;
use super::connection::{Connection, Scratch};
use super::packet::{self, PUBACK, PUBLISH, Packet, SUBACK};
use super::payload::Payloads;
use super::poll::Poll;

const TURN: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy)]
pub struct Paced {
    /// Each with a topic of its own, in turns.
    pub connections: usize,
    /// Of all together, at QoS 1.
    pub per_second: u32,
    /// Whether somebody takes all of them, at QoS 1 too.
    pub subscribed: bool,
    pub measured: Duration,
}

impl Paced {
    /// How long it took until all was acknowledged, and delivered: about as long as asked for, or
    /// the broker does not keep up and this fails.
    pub fn run(self, port: u16) -> Result<Duration> {
        let (mut poll, mut scratch) = (Poll::new()?, Scratch::new());
        let mut connections = Vec::with_capacity(self.connections + 1);
        for number in 0..self.connections {
            let client = format!("paced-{number:05}");
            connections.push(Connection::open(port, &client, &mut scratch)?);
        }
        if self.subscribed {
            let mut subscriber = Connection::open(port, "paced-subscriber", &mut scratch)?;
            subscriber.send(&packet::subscribe("plant/paced/#", 1))?;
            subscriber.await_kind(&mut scratch, SUBACK)?;
            connections.push(subscriber);
        }
        for (number, connection) in connections.iter().enumerate() {
            connection.poll(&poll, number)?;
        }
        let mut payloads = Payloads::new();
        let mut count = Count::default();
        let begin = Instant::now();
        loop {
            let elapsed = begin.elapsed();
            let due = elapsed.min(self.measured).as_secs_f64() * f64::from(self.per_second);
            while (count.sent as f64) < due {
                let number = usize::try_from(count.sent)? % self.connections;
                // Ids go round; what is under way on one connection is far from all of them.
                let id = u16::try_from(count.sent / self.connections as u64 % 60_000)? + 1;
                let mut outgoing = Vec::new();
                let topic = format!("plant/paced/{number:05}");
                packet::append_publish(&mut outgoing, 1, &topic, id, payloads.next());
                connections[number].send(&outgoing)?;
                count.sent += 1;
            }
            if elapsed >= self.measured && count.is_settled(self.subscribed) {
                return Ok(elapsed);
            }
            ensure!(elapsed < self.measured + STALLED, "behind: {count:?}");
            for number in poll.wait(TURN)? {
                count.receive(&mut connections[number], &mut scratch)?;
            }
        }
    }
}

#[derive(Debug, Default)]
struct Count {
    sent: u64,
    acknowledged: u64,
    delivered: u64,
}

impl Count {
    fn is_settled(&self, subscribed: bool) -> bool {
        self.acknowledged == self.sent && (!subscribed || self.delivered >= self.sent)
    }

    fn receive(&mut self, connection: &mut Connection, scratch: &mut Scratch) -> Result<()> {
        let mut answers = Vec::new();
        connection.receive(scratch, |packet: Packet<'_>| {
            match packet.kind() {
                PUBACK => self.acknowledged += 1,
                PUBLISH => {
                    let (id, _) = packet.published()?;
                    packet::append_answer(&mut answers, PUBACK, id.context("at QoS 0")?);
                    self.delivered += 1;
                }
                other => bail!("an unexpected packet of type {other:#x}"),
            }
            Ok(())
        })?;
        if !answers.is_empty() {
            connection.send(&answers)?;
        }
        Ok(())
    }
}
