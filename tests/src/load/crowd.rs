//! Many connections that do nothing.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::STALLED;
use super::connection::{self, Connection, Scratch};
use super::packet::{self, SUBACK};
use super::poll::Poll;

/// CONNECTs that wait for their answer at a time: fewer than any broker's queue of new sockets
/// holds, which would otherwise drop some for a second.
const UNANSWERED_MAX: usize = 64;

pub struct Crowd {
    pub(super) connections: Vec<Connection>,
    pub(super) poll: Poll,
    pub(super) scratch: Scratch,
    /// From the first connect to the last answer.
    pub elapsed: Duration,
}

impl Crowd {
    pub fn connect(port: u16, count: usize) -> Result<Self> {
        let (mut poll, mut scratch) = (Poll::new()?, Scratch::new());
        let mut connections: Vec<Connection> = Vec::with_capacity(count);
        let start = Instant::now();
        let mut accepted = 0;
        while accepted < count {
            while connections.len() < count && connections.len() - accepted < UNANSWERED_MAX {
                let number = connections.len();
                let connection = Connection::dial(port, &format!("bench-crowd-{number:05}"))?;
                connection.poll(&poll, number)?;
                connections.push(connection);
            }
            let before = accepted;
            for number in poll.wait(STALLED)? {
                connections[number].receive(&mut scratch, |packet| {
                    accepted += 1;
                    connection::accepted(packet)
                })?;
            }
            ensure!(
                accepted > before,
                "{accepted} of {count} connected, then none"
            );
        }
        Ok(Self {
            connections,
            poll,
            scratch,
            elapsed: start.elapsed(),
        })
    }

    /// All of them subscribe to the same.
    pub(super) fn subscribe(&mut self, filter: &str, qos: u8) -> Result<()> {
        let subscribe = packet::subscribe(filter, qos);
        for connection in &mut self.connections {
            connection.send(&subscribe)?;
        }
        for connection in &mut self.connections {
            connection.await_kind(&mut self.scratch, SUBACK)?;
        }
        Ok(())
    }
}
