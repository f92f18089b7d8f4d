//! Who sent what, what was acknowledged, who is owed it and who got it.
//!
//! A message is known by its publisher's number and its own: its payload is `PUBLISHER:NUMBER`.
//! Subscribers are owed what a publisher first sent after their SUBACK and the broker has
//! acknowledged. Every judgement is made here, at the moment it can be.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use anyhow::{Context as _, Result, bail, ensure};

use super::packet::{Message, Qos};

/// Two moments of one run can be told apart, whichever tasks they belong to.
type Tick = u64;

#[derive(Debug)]
struct Entry {
    topic: usize,
    first_sent: Tick,
    /// How often PUBLISH was put on a wire.
    times_sent: u16,
    acked: bool,
}

#[derive(Debug)]
struct Published {
    qos: Qos,
    topics: Vec<String>,
    entries: Vec<Entry>,
}

#[derive(Debug, Default)]
struct Heard {
    /// With the moment of their SUBACK.
    filters: Vec<(String, Qos, Tick)>,
    /// How often each message came, by publisher and number.
    times: Vec<Vec<u8>>,
    /// The newest message of a publisher's topic.
    newest: BTreeMap<(usize, usize), usize>,
    repeats: u64,
    total: u64,
}

#[derive(Debug)]
pub struct Ledger {
    clock: AtomicU64,
    publishers: Vec<Mutex<Published>>,
    subscribers: Vec<Mutex<Heard>>,
}

/// What a run amounted to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub sent: u64,
    pub acked: u64,
    pub resent: u64,
    pub delivered: u64,
    /// Deliveries that QoS 1 repeats, as it may.
    pub repeated: u64,
}

impl Ledger {
    /// Publishers by their QoS and topics; subscribers have no filters yet.
    #[must_use]
    pub fn new(publishers: Vec<(Qos, Vec<String>)>, subscribers: usize) -> Self {
        let publishers = publishers.into_iter().map(|(qos, topics)| {
            Mutex::new(Published {
                qos,
                topics,
                entries: Vec::new(),
            })
        });
        let publishers: Vec<_> = publishers.collect();
        let heard = || Heard {
            times: vec![Vec::new(); publishers.len()],
            ..Heard::default()
        };
        let subscribers = std::iter::repeat_with(|| Mutex::new(heard())).take(subscribers);
        Self {
            clock: AtomicU64::new(1),
            subscribers: subscribers.collect(),
            publishers,
        }
    }

    fn tick(&self) -> Tick {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn publisher(&self, number: usize) -> MutexGuard<'_, Published> {
        self.publishers[number].lock().expect("no judgement panics")
    }

    fn subscriber(&self, number: usize) -> MutexGuard<'_, Heard> {
        self.subscribers[number]
            .lock()
            .expect("no judgement panics")
    }

    /// The publisher's next message; its number is its token.
    pub fn next_message(&self, publisher: usize, padding: usize) -> (Message, u64) {
        let mut published = self.publisher(publisher);
        let number = published.entries.len();
        let topic = number % published.topics.len();
        published.entries.push(Entry {
            topic,
            first_sent: self.tick(),
            times_sent: 1,
            acked: false,
        });
        let payload = format!("{publisher}:{number}:{:padding$}", "");
        let message = Message::new(published.topics[topic].clone(), payload, published.qos);
        (message, number as u64)
    }

    pub fn sent_again(&self, publisher: usize, tokens: &[u64]) {
        let mut published = self.publisher(publisher);
        for &token in tokens {
            published.entries[index(token)].times_sent += 1;
        }
    }

    pub fn acked(&self, publisher: usize, token: u64) -> Result<()> {
        let entry = &mut self.publisher(publisher).entries[index(token)];
        ensure!(
            !entry.acked,
            "publisher {publisher}: {token} acknowledged twice"
        );
        entry.acked = true;
        Ok(())
    }

    pub fn subscribed(&self, subscriber: usize, filters: Vec<(String, Qos)>) {
        let now = self.tick();
        let mut heard = self.subscriber(subscriber);
        for (filter, qos) in filters {
            // Asked for again after a lost SUBACK: the first that came counts.
            if !heard.filters.iter().any(|(known, ..)| *known == filter) {
                heard.filters.push((filter, qos, now));
            }
        }
    }

    /// How many filters the broker has acknowledged.
    #[must_use]
    pub fn filters(&self, subscriber: usize) -> usize {
        self.subscriber(subscriber).filters.len()
    }

    /// A delivery, judged: known, wanted, no QoS too high, in order, QoS 2 only once.
    pub fn delivered(&self, subscriber: usize, message: &Message) -> Result<()> {
        let (publisher, number) = name_of(message)?;
        let (topic, sent_at_qos) = {
            let published = self.publisher(publisher);
            let entry = published.entries.get(number).context("it was never sent")?;
            let topic = &published.topics[entry.topic];
            ensure!(
                *topic == message.topic,
                "{publisher}:{number} came on {:?}",
                message.topic
            );
            (entry.topic, published.qos)
        };
        let who = || format!("subscriber {subscriber}, message {publisher}:{number}");
        ensure!(
            message.qos <= sent_at_qos,
            "{}: came at {:?}",
            who(),
            message.qos
        );
        ensure!(!message.retain, "{}: came as a retained one", who());
        let mut heard = self.subscriber(subscriber);
        let heard = &mut *heard;
        heard.total += 1;
        let times = &mut heard.times[publisher];
        if times.len() <= number {
            times.resize(number + 1, 0);
        }
        times[number] = times[number].saturating_add(1);
        if times[number] > 1 {
            heard.repeats += 1;
            ensure!(
                message.qos < Qos::ExactlyOnce,
                "{}: came again at QoS 2",
                who()
            );
            return Ok(());
        }
        let newest = heard.newest.insert((publisher, topic), number);
        let in_order = newest.is_none_or(|newest| newest < number);
        ensure!(in_order, "{}: came after {newest:?}", who());
        Ok(())
    }

    /// How much the subscriber is still owed, and the first of it.
    #[must_use]
    pub fn owed(&self, subscriber: usize) -> (usize, Option<String>) {
        let heard = self.subscriber(subscriber);
        let (mut missing, mut first) = (0, None);
        for (publisher, published) in self.publishers.iter().enumerate() {
            let published = published.lock().expect("no judgement panics");
            let since: Vec<Option<Tick>> = published
                .topics
                .iter()
                .map(|topic| heard.subscribed_since(topic))
                .collect();
            for (number, entry) in published.entries.iter().enumerate() {
                let owed =
                    entry.acked && since[entry.topic].is_some_and(|at| at < entry.first_sent);
                let came = heard.times[publisher]
                    .get(number)
                    .is_some_and(|times| *times > 0);
                if owed && !came {
                    missing += 1;
                    let topic = &published.topics[entry.topic];
                    first.get_or_insert_with(|| format!("{publisher}:{number} on {topic}"));
                }
            }
        }
        (missing, first)
    }

    /// Compares with the log's records, handed over as topics and payloads: acknowledged QoS 1 at least once
    /// and no more often than it was sent, QoS 2 once.
    pub fn audit_log(&self, logged: impl Iterator<Item = (String, String)>) -> Result<u64> {
        let mut times: Vec<Vec<u16>> = vec![Vec::new(); self.publishers.len()];
        let mut records = 0;
        for (topic, payload) in logged {
            records += 1;
            let (publisher, number) = name_of(&Message::new(topic, payload, Qos::AtMostOnce))?;
            let of_publisher = times.get_mut(publisher).context("a stranger in the log")?;
            if of_publisher.len() <= number {
                of_publisher.resize(number + 1, 0);
            }
            of_publisher[number] += 1;
        }
        for (publisher, logged) in times.iter().enumerate() {
            let published = self.publisher(publisher);
            ensure!(
                logged.len() <= published.entries.len(),
                "publisher {publisher}: the log has messages it never sent"
            );
            for (number, entry) in published.entries.iter().enumerate() {
                let times = logged.get(number).copied().unwrap_or(0);
                let what = format!("{publisher}:{number}, {:?}", published.qos);
                ensure!(
                    times > 0 || !entry.acked,
                    "{what}: acknowledged and not in the log"
                );
                let most = match published.qos {
                    Qos::ExactlyOnce => 1,
                    _ => entry.times_sent,
                };
                ensure!(
                    times <= most,
                    "{what}: in the log {times} times, {most} allowed"
                );
            }
        }
        Ok(records)
    }

    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for published in &self.publishers {
            for entry in &published.lock().expect("no judgement panics").entries {
                totals.sent += 1;
                totals.acked += u64::from(entry.acked);
                totals.resent += u64::from(entry.times_sent - 1);
            }
        }
        for heard in &self.subscribers {
            let heard = heard.lock().expect("no judgement panics");
            totals.delivered += heard.total;
            totals.repeated += heard.repeats;
        }
        totals
    }
}

impl Heard {
    fn subscribed_since(&self, topic: &str) -> Option<Tick> {
        let matching = self
            .filters
            .iter()
            .filter(|(filter, ..)| matches(filter, topic));
        matching.map(|(.., at)| *at).min()
    }
}

fn index(token: u64) -> usize {
    usize::try_from(token).expect("a number the ledger gave")
}

/// `PUBLISHER:NUMBER` and whatever follows a second colon.
fn name_of(message: &Message) -> Result<(usize, usize)> {
    let text = std::str::from_utf8(&message.payload);
    let parse = || -> Option<(usize, usize)> {
        let mut parts = text.ok()?.splitn(3, ':');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    match parse() {
        Some(name) => Ok(name),
        None => bail!("a stranger: {message:?}"),
    }
}

/// Whether a topic is below a filter (4.7).
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    let mut levels = topic.split('/');
    for part in filter.split('/') {
        match (part, levels.next()) {
            ("#", _) => return !topic.starts_with('$') || filter.starts_with('$'),
            ("+", Some(_)) => {}
            (part, Some(level)) if part == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(qos: Qos) -> Ledger {
        let ledger = Ledger::new(vec![(qos, vec!["a/b".to_owned(), "a/c".to_owned()])], 1);
        ledger.subscribed(0, vec![("a/#".to_owned(), Qos::ExactlyOnce)]);
        ledger
    }

    fn log(ledger: &Ledger, payloads: &[&str]) -> Result<u64> {
        let records = payloads
            .iter()
            .map(|payload| ("a/b".to_owned(), (*payload).to_owned()));
        ledger.audit_log(records)
    }

    #[test]
    fn filters_match_by_levels() {
        for (filter, topic) in [("a/#", "a"), ("a/+", "a/"), ("+/b", "a/b"), ("#", "a/b")] {
            assert!(matches(filter, topic), "{filter} {topic}");
        }
        for (filter, topic) in [("a/+", "a"), ("a", "a/b"), ("#", "$SYS/x"), ("a/b", "a")] {
            assert!(!matches(filter, topic), "{filter} {topic}");
        }
    }

    #[test]
    fn what_was_acknowledged_is_owed_until_it_comes() {
        let ledger = ledger(Qos::AtLeastOnce);
        let (message, token) = ledger.next_message(0, 0);
        assert_eq!(ledger.owed(0).0, 0);
        ledger.acked(0, token).unwrap();
        assert_eq!(ledger.owed(0), (1, Some("0:0 on a/b".to_owned())));
        ledger.delivered(0, &message).unwrap();
        assert_eq!(ledger.owed(0).0, 0);
        // Who comes later is owed nothing.
        let late = Ledger::new(vec![(Qos::AtLeastOnce, vec!["a/b".to_owned()])], 1);
        let (_, token) = late.next_message(0, 0);
        late.subscribed(0, vec![("a/#".to_owned(), Qos::ExactlyOnce)]);
        late.acked(0, token).unwrap();
        assert_eq!(late.owed(0).0, 0);
    }

    #[test]
    fn a_repeat_is_for_qos_1_only_and_nothing_may_overtake() {
        let once_or_more = ledger(Qos::AtLeastOnce);
        let messages = [0; 3].map(|_| once_or_more.next_message(0, 0).0);
        for message in [&messages[0], &messages[0], &messages[2], &messages[1]] {
            once_or_more.delivered(0, message).unwrap();
        }
        let exactly = ledger(Qos::ExactlyOnce);
        let messages = [0; 3].map(|_| exactly.next_message(0, 0).0);
        exactly.delivered(0, &messages[2]).unwrap();
        let late = exactly.delivered(0, &messages[0]).unwrap_err().to_string();
        assert!(late.contains("came after Some(2)"), "{late}");
        let again = exactly.delivered(0, &messages[2]).unwrap_err().to_string();
        assert!(again.contains("again at QoS 2"), "{again}");
    }

    #[test]
    fn the_log_is_held_to_what_was_acknowledged() {
        let exactly = ledger(Qos::ExactlyOnce);
        exactly.next_message(0, 0);
        log(&exactly, &[]).unwrap();
        exactly.acked(0, 0).unwrap();
        exactly.sent_again(0, &[0]);
        let lost = log(&exactly, &[]).unwrap_err().to_string();
        assert!(lost.contains("not in the log"), "{lost}");
        log(&exactly, &["0:0:"]).unwrap();
        let twice = log(&exactly, &["0:0:", "0:0:"]).unwrap_err().to_string();
        assert!(twice.contains("in the log 2 times, 1 allowed"), "{twice}");
        let stranger = log(&exactly, &["0:1:"]).unwrap_err().to_string();
        assert!(stranger.contains("never sent"), "{stranger}");

        let once_or_more = ledger(Qos::AtLeastOnce);
        once_or_more.next_message(0, 0);
        once_or_more.sent_again(0, &[0]);
        log(&once_or_more, &["0:0:", "0:0:"]).unwrap();
        log(&once_or_more, &["0:0:", "0:0:", "0:0:"]).unwrap_err();
    }
}
