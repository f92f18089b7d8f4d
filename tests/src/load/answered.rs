//! A message that the node makes another of, and how long that took.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::connection::{Connection, Scratch};
use super::packet::{self, PUBLISH, SUBACK};
use super::round_trip::Reporter;

/// A publisher at QoS 1, and a subscriber at QoS 0 to what follows from its messages.
pub struct Answered {
    reporter: Reporter,
    subscriber: Connection,
    scratch: Scratch,
}

impl Answered {
    /// `filter` matches the answers and nothing else.
    pub fn open(port: u16, client: &str, filter: &str) -> Result<Self> {
        let mut scratch = Scratch::new();
        let subscribing = format!("{client}-answers");
        let mut subscriber = Connection::open(port, &subscribing, &mut scratch)?;
        subscriber.send(&packet::subscribe(filter, 0))?;
        subscriber.await_kind(&mut scratch, SUBACK)?;
        Ok(Self {
            reporter: Reporter::open(port, client)?,
            subscriber,
            scratch,
        })
    }

    /// From the acknowledgement of a message, which is when it is durable, to the answer.
    pub fn once(&mut self, topic: &str, payload: &[u8]) -> Result<Duration> {
        self.reporter.publish(topic, payload)?;
        let durable = Instant::now();
        self.subscriber.await_kind(&mut self.scratch, PUBLISH)?;
        Ok(durable.elapsed())
    }
}
