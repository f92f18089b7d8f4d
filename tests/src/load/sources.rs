//! Sources that publish at an even pace, whatever the broker makes of it: a plant does not wait.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::STALLED;
use super::connection::{Connection, Scratch};
use super::packet::{self, PUBACK, Packet};
use super::poll::Poll;

/// Of one connection: fewer than there are packet ids, and more than a broker that keeps up has.
const OPEN_MAX: u64 = 50_000;

/// Each topic has a message at each tick. The groups have a connection each, and are spread evenly
/// over the time between two ticks; within a group the topics keep their order.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    pub groups: &'a [Vec<String>],
    pub hertz: u32,
    pub ticks: u64,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    pub published: u64,
    /// How much later than it was due the latest message was sent.
    pub latest: Duration,
}

struct Group {
    connection: Connection,
    next_id: u16,
    open: u64,
}

impl Sources<'_> {
    /// Publishes at QoS 1 what `payload` says of a group's topic at a tick; returns when everything
    /// is acknowledged.
    pub fn run(
        self,
        port: u16,
        mut payload: impl FnMut(usize, usize, u64) -> Vec<u8>,
    ) -> Result<Kept> {
        let (mut poll, mut scratch) = (Poll::new()?, Scratch::new());
        let mut groups = Vec::new();
        for number in 0..self.groups.len() {
            let client = format!("sources-{number:03}");
            let connection = Connection::open(port, &client, &mut scratch)?;
            connection.poll(&poll, number)?;
            groups.push(Group {
                connection,
                next_id: 1,
                open: 0,
            });
        }
        let turns = self.ticks * groups.len() as u64;
        let between = Duration::from_secs(1) / self.hertz / u32::try_from(groups.len())?;
        let (mut published, mut latest) = (0, Duration::ZERO);
        let mut outgoing = Vec::new();
        let begun = Instant::now();
        for turn in 0..turns {
            let due = begun + between * u32::try_from(turn)?;
            loop {
                let left = due.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                receive(&mut groups, &mut poll, &mut scratch, left)?;
            }
            latest = latest.max(due.elapsed());
            let at = usize::try_from(turn % groups.len() as u64)?;
            let tick = turn / groups.len() as u64;
            let group = &mut groups[at];
            for (number, topic) in self.groups[at].iter().enumerate() {
                let payload = payload(at, number, tick);
                packet::append_publish(&mut outgoing, 1, topic, group.next_id, &payload);
                group.next_id = group.next_id.checked_add(1).unwrap_or(1);
                group.open += 1;
                published += 1;
            }
            ensure!(group.open <= OPEN_MAX, "the broker does not keep up");
            group.connection.send(&outgoing)?;
            outgoing.clear();
        }
        let ended = Instant::now();
        while groups.iter().any(|group| group.open > 0) {
            receive(
                &mut groups,
                &mut poll,
                &mut scratch,
                Duration::from_millis(100),
            )?;
            ensure!(ended.elapsed() < STALLED, "not everything is acknowledged");
        }
        Ok(Kept { published, latest })
    }
}

fn receive(
    groups: &mut [Group],
    poll: &mut Poll,
    scratch: &mut Scratch,
    timeout: Duration,
) -> Result<()> {
    for number in poll.wait(timeout)? {
        let Group {
            connection, open, ..
        } = &mut groups[number];
        connection.receive(scratch, |packet: Packet<'_>| {
            match packet.kind() {
                PUBACK => *open -= 1,
                other => bail!("an unexpected packet of type {other:#x}"),
            }
            Ok(())
        })?;
    }
    Ok(())
}
