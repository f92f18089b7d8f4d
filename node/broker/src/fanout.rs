//! Live fan-out, and the only file that names rumqttd.
//!
//! ```text
//! connections ──publish──► router thread (a ring in memory) ──► Drain ──► subscription tree
//!            └── waits while IN_FLIGHT_BYTES_MAX are under way ◄──────┘
//! ```
//!
//! **One link for the whole node, on one topic, with QoS 0**, and a subscription tree of our own
//! behind it. A link per connection was the alternative; the router's source (0.20.0) speaks
//! against it:
//! - it keeps a commit log per filter and a row per distinct topic for ever, both named by
//!   clients, and never frees them: a hostile or merely inventive client grows it without bound;
//! - `Event::Ready` for a link that was removed panics the router thread (`scheduler.reschedule`),
//!   and a removed link's stale entry in its ready queue makes `consume` return `None`, upon which
//!   the router sleeps although other links are ready;
//! - topics that start with a non-ASCII character panic it (`topic[..1]`), `$` topics cannot be
//!   subscribed to, and client ids with `+ $ # /` are dropped without an answer.
//!
//! With one link none of these can be reached from outside: the topic is a constant, the filter is
//! a constant, the link is never removed, and what clients chose travels in the payload. What is
//! left of the router is what it is good at, a queue that many threads fill and one empties in
//! batches; its ring is larger than what may be under way, so a cursor never has to jump. Should
//! it jump nevertheless, that is noticed and counted.

use crate::error::Error;
use crate::message::Message;
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::{Notification, Router, RouterConfig};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// The only topic and filter the router ever sees.
const TOPIC: &str = "m";
/// Bytes on their way through the router. Small: they live for microseconds.
const IN_FLIGHT_BYTES_MAX: usize = 512 * 1024;
/// Least a message counts for, so that tiny ones are bounded by number too.
const MESSAGE_COST_MIN: usize = 128;
const RING_SEGMENT_BYTES: usize = 128 * 1024;
const RING_SEGMENTS: usize = 8;
/// The router reads this many at a time (its channel holds 200 and then waits for `ready`).
const READ_BATCH: u64 = 190;

// The oldest segment is dropped whole, so the ring must hold all that is under way without it and
// without the one being filled.
const _: () = assert!(IN_FLIGHT_BYTES_MAX <= RING_SEGMENT_BYTES * (RING_SEGMENTS - 2));

/// Where committed messages go in.
pub(crate) struct Fanout {
    link: Mutex<Inlet>,
    room: Arc<Semaphore>,
}

struct Inlet {
    link: LinkTx,
    /// What each message under way took from `room`, in the router's order.
    costs: Arc<Mutex<VecDeque<u32>>>,
}

/// Where they come out, in the order they went in.
pub(crate) struct Drain {
    link: LinkRx,
    next: u64,
    costs: Arc<Mutex<VecDeque<u32>>>,
    room: Arc<Semaphore>,
}

/// One message out of the router.
pub(crate) struct Drained {
    pub message: Option<Message>,
    /// Messages the router dropped before this one.
    pub lost: u64,
}

/// Starts the router's thread. Blocks until it answers.
pub(crate) fn start() -> Result<(Fanout, Drain), Error> {
    let config = RouterConfig {
        max_connections: 1,
        max_outgoing_packet_count: READ_BATCH,
        max_segment_size: RING_SEGMENT_BYTES,
        max_segment_count: RING_SEGMENTS,
        ..RouterConfig::default()
    };
    // The thread outlives the broker: the router keeps a sender to itself. It is idle then, and a
    // node starts one broker in its life.
    let router = Router::new(0, config).spawn();
    let failed = |error: rumqttd::local::LinkError| Error::Fanout(error.to_string());
    let (mut inlet, outlet, _) = LinkBuilder::new("skerry", router).build().map_err(failed)?;
    inlet.subscribe(TOPIC).map_err(failed)?;

    let costs = Arc::new(Mutex::new(VecDeque::new()));
    let room = Arc::new(Semaphore::new(IN_FLIGHT_BYTES_MAX));
    let fanout = Fanout {
        link: Mutex::new(Inlet {
            link: inlet,
            costs: Arc::clone(&costs),
        }),
        room: Arc::clone(&room),
    };
    let drain = Drain {
        link: outlet,
        next: 0,
        costs,
        room,
    };
    Ok((fanout, drain))
}

/// A message larger than all room takes all of it and goes alone.
fn cost(bytes: usize) -> u32 {
    let cost = bytes.clamp(MESSAGE_COST_MIN, IN_FLIGHT_BYTES_MAX);
    u32::try_from(cost).expect("the bound fits 32 bits")
}

impl Fanout {
    /// Hands over a committed message; waits while too much is under way. Two calls of one task
    /// come out in their order.
    pub(crate) async fn publish(&self, message: &Message) -> Result<(), Error> {
        let payload = message.to_bytes();
        let cost = cost(payload.len());
        let room = self.room.acquire_many(cost).await;
        room.map_err(|_| Error::Fanout("the router is gone".into()))?
            .forget();

        let mut inlet = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        lock(&inlet.costs).push_back(cost);
        // `try_publish` puts the packet into the link's buffer and then wakes the router. If the
        // wake-up queue is full, earlier wake-ups of this same link are in it, and the first of
        // them takes the whole buffer: nothing is lost and nothing has to be repeated.
        let _ = inlet.link.try_publish(TOPIC, payload);
        Ok(())
    }
}

impl Drain {
    /// The next message.
    ///
    /// # Errors
    /// When the router's thread ended, which only a panic in it does.
    pub(crate) async fn next(&mut self) -> Result<Drained, Error> {
        let gone = || Error::Fanout("the router's thread ended".into());
        loop {
            match self.link.next().await.map_err(|_| gone())? {
                Some(Notification::Forward(forward)) => {
                    let cursor = forward.cursor.map_or(self.next, |(_, offset)| offset);
                    let lost = cursor.saturating_sub(self.next);
                    self.next = cursor + 1;
                    self.give_back(lost + 1);
                    return Ok(Drained {
                        message: Message::from_bytes(forward.publish.payload),
                        lost,
                    });
                }
                // The router stopped after a full batch. The link is never removed, so `Ready`
                // cannot reach a router that does not know it.
                Some(Notification::Unschedule) => self.link.wake().await.map_err(|_| gone())?,
                Some(_) | None => {}
            }
        }
    }

    fn give_back(&self, messages: u64) {
        let mut costs = lock(&self.costs);
        let count = usize::try_from(messages)
            .unwrap_or(usize::MAX)
            .min(costs.len());
        let bytes: usize = costs.drain(..count).map(|cost| cost as usize).sum();
        self.room.add_permits(bytes);
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        // Publishers must not wait for room that nobody makes.
        self.room.close();
    }
}

fn lock(costs: &Mutex<VecDeque<u32>>) -> std::sync::MutexGuard<'_, VecDeque<u32>> {
    costs.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{PublishProperties, Qos};
    use skerry_store::WallNanos;

    fn message(topic: &str, payload: Vec<u8>) -> Message {
        Message {
            topic: topic.into(),
            payload: payload.into(),
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: PublishProperties::default(),
            received: WallNanos(0),
            origin: 0,
        }
    }

    /// A link stalls after 198 messages unless `Unschedule` is answered, and loses what its ring
    /// cannot hold: neither happens, whatever the sizes.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_messages_pass_in_order_and_none_is_lost() {
        let (fanout, mut drain) = start().expect("router starts");
        let sizes = [0, 10, 1000, 100_000, 900_000];
        let count = 3000_usize;
        let publisher = tokio::spawn(async move {
            for index in 0..count {
                let bytes = if index % 500 == 0 {
                    sizes[index / 500 % 5]
                } else {
                    index % 300
                };
                let message = message(&format!("ü/{index}"), vec![7; bytes]);
                fanout.publish(&message).await.expect("published");
            }
        });
        for index in 0..count {
            let drained = drain.next().await.expect("router lives");
            assert_eq!(drained.lost, 0);
            assert_eq!(
                drained.message.expect("our own bytes").topic,
                format!("ü/{index}")
            );
        }
        publisher.await.expect("publisher ends");
    }

    /// Topics that stop the router when it sees them itself.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_router_never_sees_a_client_s_topic() {
        let (fanout, mut drain) = start().expect("router starts");
        for topic in ["ünten", "$SYS/x", "$share/a/b", "日本/x"] {
            fanout
                .publish(&message(topic, Vec::new()))
                .await
                .expect("published");
            let drained = drain.next().await.expect("router lives");
            assert_eq!(drained.message.expect("our own bytes").topic, topic);
        }
    }
}
