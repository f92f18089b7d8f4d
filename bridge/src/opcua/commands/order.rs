//! Messages to command topics, found in the log: a command that was acknowledged to its sender is
//! there, also after a crash.

use super::config::{Command, result_topic};
use bytes::Bytes;
use skerry_store::{Error, Kind, Log, Offset, Reader, RecordView, StreamName, WallNanos};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Attributes of a message as the broker names them (its `record.rs`); clients cannot set them.
mod attribute {
    pub(super) const RESPONSE_TOPIC: &str = "mqtt-response-topic";
    pub(super) const CORRELATION_DATA: &str = "mqtt-correlation-data";
    pub(super) const MESSAGE_EXPIRY: &str = "mqtt-message-expiry-seconds";
    pub(super) const RETAIN: &str = "mqtt-retain";
    pub(super) const USER: &str = "mqtt-user";
    pub(super) const CLIENT: &str = "mqtt-client";
}

/// Orders that wait to be carried out, at most; the log has those behind them.
pub(crate) const WAITING_MAX: usize = 64;

/// One message to a command topic.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// Its place in the endpoint's list.
    pub(crate) command: usize,
    pub(crate) offset: Offset,
    pub(crate) payload: Bytes,
    pub(crate) retained: bool,
    pub(crate) user: Option<String>,
    pub(crate) client: Option<String>,
    pub(crate) reply: Reply,
    age: Age,
}

/// Where the sender looks for what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) topic: String,
    pub(crate) correlation: Option<Bytes>,
}

/// What is known of the time since a message came in.
#[derive(Debug, Clone, Copy)]
struct Age {
    /// By the wall clock, which may be set meanwhile.
    taken_in: WallNanos,
    /// By a clock that only goes on, from when this run first saw it.
    seen: Instant,
    /// It was in the log when this run began.
    before: Before,
    expiry: Option<Duration>,
}

/// How long ago an order that an earlier run left behind may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// It came in this run.
    No,
    /// The computer has run on since: its clock tells.
    SameBoot,
    /// It was started anew, and a clock without a battery then shows any time.
    EarlierBoot,
}

/// Why an order is not carried out any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stale {
    #[error("it is older than the {} s that it may be", .0.as_secs_f64())]
    Old(Duration),
    #[error("the computer was restarted since it came in, so that nobody knows how old it is")]
    Restarted,
    #[error("the clock was set back since it came in, so that nobody knows how old it is")]
    ClockSetBack,
}

impl Order {
    /// Until when it may be sent.
    pub(crate) fn deadline(&self, max_age: Duration) -> Result<Instant, Stale> {
        self.age.deadline(max_age, WallNanos::now(), Instant::now())
    }
}

impl Age {
    fn deadline(&self, max_age: Duration, wall: WallNanos, now: Instant) -> Result<Instant, Stale> {
        let lasts = self.expiry.map_or(max_age, |expiry| expiry.min(max_age));
        let by_wall = wall.0.saturating_sub(self.taken_in.0);
        match (self.before, by_wall) {
            (Before::EarlierBoot, _) => return Err(Stale::Restarted),
            (Before::SameBoot, ..0) => return Err(Stale::ClockSetBack),
            _ => {}
        }
        let by_wall = Duration::from_nanos(u64::try_from(by_wall).unwrap_or(0));
        let age = by_wall.max(now.saturating_duration_since(self.seen));
        match lasts.checked_sub(age) {
            Some(left) => Ok(now + left),
            None => Err(Stale::Old(lasts)),
        }
    }
}

/// How far each stream was looked through, beside what it was looked through for.
pub(crate) type Looked = Arc<AtomicU64>;

/// Follows one stream and hands over the orders in it.
pub(crate) struct Follower {
    pub(crate) commands: Arc<[Command]>,
    pub(crate) stream: StreamName,
    pub(crate) from: Offset,
    /// The stream's head when this run began, and what is known of who came before.
    pub(crate) head: Offset,
    pub(crate) left_behind: Before,
    pub(crate) looked: Looked,
}

impl Follower {
    /// Until nobody takes the orders any more.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(crate) async fn follow(self, log: Log, orders: mpsc::Sender<Order>) -> Result<(), Error> {
        let mut head = log.head(&self.stream)?;
        let mut reader = log.reader(&self.stream, self.from)?;
        let this = Arc::new(self);
        loop {
            head.mark_unchanged();
            loop {
                let reading = Arc::clone(&this);
                let work = tokio::task::spawn_blocking(move || {
                    let found = reading.next(&mut reader);
                    (reader, found)
                });
                let found;
                (reader, found) = work.await.map_err(|_| Error::Closed)?;
                let Some(found) = found? else { break };
                for order in found {
                    if orders.send(order).await.is_err() {
                        return Ok(());
                    }
                }
                // Behind the orders: whoever sees this sees them waiting.
                this.looked.store(reader.position().0, Ordering::Release);
            }
            tokio::select! {
                changed = head.changed() => changed.map_err(|_| Error::Closed)?,
                () = orders.closed() => return Ok(()),
            }
        }
    }

    /// The orders of the next frame that has some, or `None` at the head.
    fn next(&self, reader: &mut Reader) -> Result<Option<Vec<Order>>, Error> {
        loop {
            let views = reader.next_views()?;
            if views.missing.is_none() && views.records.is_empty() {
                return Ok(None);
            }
            let found: Vec<Order> = views
                .records
                .filter_map(|(offset, record)| self.order(offset, &record))
                .collect();
            if !found.is_empty() {
                return Ok(Some(found));
            }
            self.looked.store(reader.position().0, Ordering::Release);
        }
    }

    fn order(&self, offset: Offset, record: &RecordView<'_>) -> Option<Order> {
        let fits = |command: &Command| {
            record.kind == Kind::Mqtt
                && record.source == command.topic
                && command.stream == self.stream
        };
        let command = self.commands.iter().position(fits)?;
        let before = match offset < self.head {
            true => self.left_behind,
            false => Before::No,
        };
        let mut order = Order {
            command,
            offset,
            payload: Bytes::copy_from_slice(record.payload),
            retained: false,
            user: None,
            client: None,
            reply: Reply {
                topic: result_topic(record.source),
                correlation: None,
            },
            age: Age {
                taken_in: record.ingest_time,
                seen: Instant::now(),
                before,
                expiry: None,
            },
        };
        for (name, value) in record.attributes {
            order.take(name, value);
        }
        Some(order)
    }
}

impl Order {
    fn take(&mut self, name: &str, value: &[u8]) {
        let text = || std::str::from_utf8(value).ok().map(str::to_owned);
        match name {
            attribute::RETAIN => self.retained = true,
            attribute::USER => self.user = text(),
            attribute::CLIENT => self.client = text(),
            attribute::CORRELATION_DATA => {
                self.reply.correlation = Some(Bytes::copy_from_slice(value));
            }
            attribute::MESSAGE_EXPIRY => {
                let seconds = text().and_then(|text| text.parse().ok());
                self.age.expiry = seconds.map(Duration::from_secs);
            }
            attribute::RESPONSE_TOPIC => {
                if let Some(topic) = text().filter(|topic| self.reply.may_be(topic)) {
                    self.reply.topic = topic;
                }
            }
            _ => {}
        }
    }
}

impl Reply {
    /// This node publishes with nobody's rights. Who may send a command must not gain by that the
    /// right to have something published wherever he likes, another command's topic for one: a
    /// response topic counts below the usual one only.
    fn may_be(&self, topic: &str) -> bool {
        let below = topic.strip_prefix(&self.topic);
        below.is_some_and(|rest| rest.starts_with('/')) && !topic.contains(['+', '#', '\0'])
    }

    /// What is published carries this, so that a sender with several out can tell them apart.
    pub(crate) fn attributes(&self) -> Vec<(String, Bytes)> {
        let correlation = self.correlation.iter();
        correlation
            .map(|data| (attribute::CORRELATION_DATA.to_owned(), data.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age(before: Before, taken_in: i64, seen: Instant) -> Age {
        Age {
            taken_in: WallNanos(taken_in * 1_000_000_000),
            seen,
            before,
            expiry: None,
        }
    }

    #[test]
    fn an_order_is_as_old_as_the_clock_that_is_to_be_believed_says() {
        let now = Instant::now() + Duration::from_secs(1_000);
        let ago = |seconds| now.checked_sub(Duration::from_secs(seconds)).unwrap();
        let wall = WallNanos(5_000_000_000_000);
        let max_age = Duration::from_secs(30);
        let left = |age: Age| {
            let deadline = age.deadline(max_age, wall, now);
            deadline.map(|deadline| (deadline - now).as_secs())
        };
        let old = Err(Stale::Old(max_age));
        assert_eq!(left(age(Before::No, 4_990, ago(10))), Ok(20));
        assert_eq!(left(age(Before::No, 4_960, ago(0))), old);
        // A clock that was set back makes nothing young again.
        assert_eq!(left(age(Before::No, 5_100, ago(10))), Ok(20));
        assert_eq!(left(age(Before::No, 5_100, ago(31))), old);
        assert_eq!(left(age(Before::SameBoot, 4_990, ago(0))), Ok(20));
        assert_eq!(
            left(age(Before::SameBoot, 5_100, ago(0))),
            Err(Stale::ClockSetBack)
        );
        assert_eq!(
            left(age(Before::EarlierBoot, 4_999, ago(0))),
            Err(Stale::Restarted)
        );
        let mut hurried = age(Before::No, 4_998, ago(2));
        hurried.expiry = Some(Duration::from_secs(5));
        assert_eq!(left(hurried), Ok(3));
    }

    #[test]
    fn an_answer_goes_below_the_command_s_own_topic_only() {
        let reply = Reply {
            topic: "cmd/a/result".to_owned(),
            correlation: None,
        };
        assert!(reply.may_be("cmd/a/result/panel-7"));
        for elsewhere in [
            "cmd/b",
            "cmd/a/result",
            "cmd/a/results/x",
            "cmd/a/result/+",
            "",
        ] {
            assert!(!reply.may_be(elsewhere), "{elsewhere}");
        }
    }
}
