//! One message at a time, and how long it took.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::connection::{Connection, Scratch};
use super::packet::{self, PUBACK, PUBLISH, SUBACK};
use super::payload::Payloads;

/// A publisher at QoS 1: from the publish to its acknowledgement.
pub struct Acknowledged {
    publisher: Connection,
    topic: &'static str,
    scratch: Scratch,
    payloads: Payloads,
    outgoing: Vec<u8>,
}

impl Acknowledged {
    pub fn open(port: u16) -> Result<Self> {
        Self::open_with(port, "bench-acknowledged", "plant/bench/acknowledged")
    }

    fn open_with(port: u16, client: &str, topic: &'static str) -> Result<Self> {
        let mut scratch = Scratch::new();
        Ok(Self {
            publisher: Connection::open(port, client, &mut scratch)?,
            topic,
            scratch,
            payloads: Payloads::new(),
            outgoing: Vec::new(),
        })
    }

    pub fn once(&mut self) -> Result<Duration> {
        let start = self.publish()?;
        self.await_acknowledgement()?;
        Ok(start.elapsed())
    }

    fn publish(&mut self) -> Result<Instant> {
        self.outgoing.clear();
        packet::append_publish(&mut self.outgoing, 1, self.topic, 1, self.payloads.next());
        let start = Instant::now();
        self.publisher.send(&self.outgoing)?;
        Ok(start)
    }

    fn await_acknowledgement(&mut self) -> Result<()> {
        self.publisher.await_kind(&mut self.scratch, PUBACK)
    }
}

/// A publisher and a subscriber at QoS 1: from the publish to its delivery.
pub struct Delivered {
    path: Acknowledged,
    subscriber: Connection,
}

impl Delivered {
    pub fn open(port: u16) -> Result<Self> {
        let mut path = Acknowledged::open_with(port, "bench-publisher", "plant/bench/delivered")?;
        let mut subscriber = Connection::open(port, "bench-subscriber", &mut path.scratch)?;
        subscriber.send(&packet::subscribe(path.topic, 1))?;
        subscriber.await_kind(&mut path.scratch, SUBACK)?;
        Ok(Self { path, subscriber })
    }

    pub fn once(&mut self) -> Result<Duration> {
        let start = self.path.publish()?;
        let sent = &self.path.outgoing;
        let id = self
            .subscriber
            .await_packet(&mut self.path.scratch, |packet| {
                if packet.kind() != PUBLISH {
                    return Ok(None);
                }
                let (id, payload) = packet.published()?;
                ensure!(sent.ends_with(payload), "another message was delivered");
                id.context("delivered at QoS 0").map(Some)
            })?;
        let elapsed = start.elapsed();
        let mut answer = Vec::new();
        packet::append_answer(&mut answer, PUBACK, id);
        self.subscriber.send(&answer)?;
        self.path.await_acknowledgement()?;
        Ok(elapsed)
    }
}

/// A publisher at QoS 1 of whatever it is given.
pub struct Reporter {
    connection: Connection,
    scratch: Scratch,
}

impl Reporter {
    pub fn open(port: u16, client: &str) -> Result<Self> {
        let mut scratch = Scratch::new();
        Ok(Self {
            connection: Connection::open(port, client, &mut scratch)?,
            scratch,
        })
    }

    /// Acknowledged when it returns.
    pub fn publish(&mut self, topic: &str, payload: &[u8]) -> Result<()> {
        let mut outgoing = Vec::new();
        packet::append_publish(&mut outgoing, 1, topic, 1, payload);
        self.connection.send(&outgoing)?;
        self.connection.await_kind(&mut self.scratch, PUBACK)
    }
}
