//! Every refusal as a record of the `audit` stream, within bounds.
//!
//! ```text
//! connection ── note ──► Ledger (folds what repeats) ── due ──► log
//!                └ never waits             └ beyond its bounds: counted by kind, and that recorded
//! ```
//!
//! The first refusal of a kind is recorded at once. The same again within [`FOLD`] is counted and
//! recorded as one, so that a device that tries in a circle fills no disk. Nothing is left out
//! silently: what is too much, or what the log did not take, is counted in a later record.

use crate::status::Status;
use serde::Serialize;
use serde_json::json;
use skerry_store::{Append, Kind, Log, Record, StreamName, WallNanos};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::limits::Bucket;

/// Within this, what repeats is one record.
const FOLD: Duration = Duration::from_secs(10);
/// Different refusals that are folded at one time.
const OPEN_MAX: usize = 1024;
/// Records per second; as many may come at once.
const RECORDS_PER_SECOND: u32 = 50;
/// Shortest time between two appends: the audit must not wear the disk.
const PAUSE: Duration = Duration::from_millis(200);
/// How often the number of what was left out is recorded, and offered again to a log that refuses.
const LEFT_OUT_EVERY: Duration = Duration::from_secs(1);
/// Longest text of a client's own that is kept of each.
const TEXT_BYTES_MAX: usize = 256;

/// What was refused, to whom, and why. Never a password.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct Event {
    pub event: What,
    pub reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Box<str>>,
    /// Absent for a Unix socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Box<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    ConnectionRefused,
    LoginRefused,
    LoginThrottled,
    PublishRefused,
    SubscribeRefused,
    /// A client publishes faster than it may, and is read more slowly.
    PublishSlowed,
    /// A client was connected and may not be any more.
    Revoked,
}

impl Event {
    pub(crate) const fn new(event: What, reason: &'static str, address: Option<IpAddr>) -> Self {
        Self {
            event,
            reason,
            client: None,
            user: None,
            address,
            topic: None,
            filter: None,
        }
    }
}

/// A client's own text, as much of it as is kept.
pub(crate) fn excerpt(text: &str) -> Box<str> {
    if text.len() <= TEXT_BYTES_MAX {
        return text.into();
    }
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    format!("{}…", &text[..end]).into()
}

/// Takes refusals from any task and writes them from one.
pub(super) struct Audit {
    stream: Option<StreamName>,
    ledger: Mutex<Ledger>,
    wake: Notify,
}

impl Audit {
    /// Without a stream nothing is kept.
    pub(super) fn new(stream: Option<StreamName>) -> Self {
        Self {
            stream,
            ledger: Mutex::new(Ledger::new(Instant::now())),
            wake: Notify::new(),
        }
    }

    pub(super) fn note(&self, event: Event) {
        if self.stream.is_none() {
            return;
        }
        self.ledger().note(event, Instant::now(), WallNanos::now());
        self.wake.notify_one();
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes until `stop`.
    pub(super) async fn run(&self, log: &Log, status: &Status, stop: &CancellationToken) {
        loop {
            let due = self.ledger().due_at();
            let due = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = due => {}
                // Perhaps something is due earlier now.
                () = self.wake.notified() => continue,
            }
            let entries = self.ledger().take_due(Instant::now());
            self.write(entries, log, status).await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Writes what is left, due or not. Called once, when nobody notes anything any more.
    pub(super) async fn finish(&self, log: &Log, status: &Status) {
        let entries = self.ledger().take_all();
        self.write(entries, log, status).await;
    }

    async fn write(&self, entries: Vec<Entry>, log: &Log, status: &Status) {
        let Some(stream) = &self.stream else {
            return;
        };
        if entries.is_empty() {
            return;
        }
        let append = Append {
            stream: stream.clone(),
            records: entries.iter().map(Entry::to_record).collect(),
            changes: Vec::new(),
        };
        match log.append(append).await {
            Ok(_) => {
                status.audit_records.add(entries.len());
                let left_out = entries
                    .iter()
                    .filter(|entry| matches!(entry, Entry::LeftOut(_)));
                let left_out: u64 = left_out.map(Entry::refusals).sum();
                let left_out = usize::try_from(left_out).unwrap_or(usize::MAX);
                status.audit_left_out.add(left_out);
            }
            Err(error) => {
                if status.audit_failures.get() == 0 {
                    tracing::warn!(%error, "the log refused audit records; a later one has their number");
                }
                status.audit_failures.up();
                self.ledger().leave_out(&entries, Instant::now());
            }
        }
    }
}

/// Refusals that are still to be recorded. Pure: time is an argument.
#[derive(Debug)]
struct Ledger {
    open: HashMap<Event, Fold>,
    left_out: BTreeMap<What, u64>,
    left_out_due: Instant,
    allowance: Bucket,
}

#[derive(Debug, Clone, Copy)]
struct Fold {
    /// Not recorded yet. Zero keeps the place, so that the next one is folded.
    count: u64,
    from: WallNanos,
    to: WallNanos,
    due: Instant,
}

/// One record to be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Refused {
        event: Event,
        count: u64,
        from: WallNanos,
        to: WallNanos,
    },
    LeftOut(BTreeMap<What, u64>),
}

impl Ledger {
    fn new(now: Instant) -> Self {
        Self {
            open: HashMap::new(),
            left_out: BTreeMap::new(),
            left_out_due: now,
            allowance: Bucket::full(RECORDS_PER_SECOND, now),
        }
    }

    fn note(&mut self, event: Event, now: Instant, at: WallNanos) {
        if let Some(fold) = self.open.get_mut(&event) {
            if fold.count == 0 {
                fold.from = at;
            }
            fold.count += 1;
            fold.to = at;
        } else if self.open.len() < OPEN_MAX {
            let fold = Fold {
                count: 1,
                from: at,
                to: at,
                due: now,
            };
            self.open.insert(event, fold);
        } else {
            *self.left_out.entry(event.event).or_default() += 1;
        }
    }

    /// When there is something to do, if nothing new comes.
    fn due_at(&self) -> Option<Instant> {
        let left_out = (!self.left_out.is_empty()).then_some(self.left_out_due);
        let folds = self.open.values().map(|fold| fold.due);
        folds.chain(left_out).min()
    }

    fn take_due(&mut self, now: Instant) -> Vec<Entry> {
        let due = self.open.iter().filter(|(_, fold)| fold.due <= now);
        let mut due: Vec<(Event, Fold)> = due.map(|(event, fold)| (event.clone(), *fold)).collect();
        due.sort_by_key(|(_, fold)| fold.from);
        let mut entries = Vec::new();
        for (event, fold) in due {
            if fold.count == 0 {
                self.open.remove(&event);
            } else if self.allowance.take(RECORDS_PER_SECOND, now) {
                let again = Fold {
                    count: 0,
                    due: now + FOLD,
                    ..fold
                };
                self.open.insert(event.clone(), again);
                entries.push(fold.to_entry(event));
            } else {
                self.open.remove(&event);
                *self.left_out.entry(event.event).or_default() += fold.count;
            }
        }
        if self.left_out_due <= now {
            self.left_out_due = now + LEFT_OUT_EVERY;
            self.add_left_out(&mut entries);
        }
        entries
    }

    fn take_all(&mut self) -> Vec<Entry> {
        let open = std::mem::take(&mut self.open).into_iter();
        let counted = open.filter(|(_, fold)| fold.count > 0);
        let mut entries: Vec<Entry> = counted.map(|(event, fold)| fold.to_entry(event)).collect();
        self.add_left_out(&mut entries);
        entries
    }

    fn add_left_out(&mut self, entries: &mut Vec<Entry>) {
        let left_out = std::mem::take(&mut self.left_out);
        if !left_out.is_empty() {
            entries.push(Entry::LeftOut(left_out));
        }
    }

    /// The log did not take these.
    fn leave_out(&mut self, entries: &[Entry], now: Instant) {
        self.left_out_due = now + LEFT_OUT_EVERY;
        for entry in entries {
            match entry {
                Entry::Refused { event, count, .. } => {
                    *self.left_out.entry(event.event).or_default() += count;
                }
                Entry::LeftOut(counts) => {
                    for (what, count) in counts {
                        *self.left_out.entry(*what).or_default() += count;
                    }
                }
            }
        }
    }
}

impl Fold {
    const fn to_entry(self, event: Event) -> Entry {
        let Self {
            count, from, to, ..
        } = self;
        Entry::Refused {
            event,
            count,
            from,
            to,
        }
    }
}

impl Entry {
    fn refusals(&self) -> u64 {
        match self {
            Self::Refused { count, .. } => *count,
            Self::LeftOut(counts) => counts.values().sum(),
        }
    }

    fn to_record(&self) -> Record {
        let payload = match self {
            Self::Refused {
                event,
                count,
                from,
                to,
            } => {
                let mut payload = json!(event);
                payload["count"] = json!(count);
                payload["from_ns"] = json!(from);
                payload["to_ns"] = json!(to);
                payload
            }
            Self::LeftOut(counts) => json!({
                "event": "audit_left_out",
                "reason": "too many at once, or refused by the log",
                "count": self.refusals(),
                "by_event": counts,
            }),
        };
        Record::new(Kind::Node, "mqtt", payload.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(client: usize) -> Event {
        Event {
            client: Some(client.to_string().into()),
            topic: Some("a".into()),
            ..Event::new(What::PublishRefused, "acl", None)
        }
    }

    fn counts(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(Entry::refusals).collect()
    }

    #[test]
    fn the_first_is_recorded_at_once_and_what_repeats_as_one() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        ledger.note(event(1), start, WallNanos(1));
        assert_eq!(ledger.due_at(), Some(start));
        assert_eq!(counts(&ledger.take_due(start)), [1]);
        for at in 2..=100 {
            ledger.note(event(1), start, WallNanos(at));
        }
        ledger.note(event(2), start, WallNanos(7));
        assert_eq!(
            counts(&ledger.take_due(start)),
            [1],
            "only the other client"
        );
        let folded = ledger.take_due(start + FOLD);
        let expected = Entry::Refused {
            event: event(1),
            count: 99,
            from: WallNanos(2),
            to: WallNanos(100),
        };
        assert_eq!(folded, [expected]);
        assert!(ledger.take_due(start + 3 * FOLD).is_empty());
        assert_eq!(ledger.due_at(), None, "quiet ones are forgotten");
    }

    #[test]
    fn too_many_are_counted_by_kind_and_none_is_lost() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        let all = 3 * OPEN_MAX;
        for client in 0..all {
            ledger.note(event(client), start, WallNanos(0));
        }
        assert_eq!(ledger.open.len(), OPEN_MAX);
        let entries = ledger.take_due(start);
        assert_eq!(entries.len(), RECORDS_PER_SECOND as usize + 1);
        let sum: u64 = counts(&entries).iter().sum();
        assert_eq!(sum, all as u64);
        match entries.last() {
            Some(Entry::LeftOut(by)) => assert!(by[&What::PublishRefused] > OPEN_MAX as u64),
            other => panic!("{other:?}"),
        }
        // The log refused them all: they are in the next record.
        ledger.leave_out(&entries, start);
        assert_eq!(ledger.take_due(start), []);
        assert_eq!(ledger.due_at(), Some(start + LEFT_OUT_EVERY));
        assert_eq!(
            counts(&ledger.take_due(start + LEFT_OUT_EVERY)),
            [all as u64]
        );
        assert!(ledger.take_all().is_empty());
    }

    #[test]
    fn a_client_cannot_make_a_record_large() {
        let long = "ü".repeat(40_000);
        let kept = excerpt(&long);
        assert!(kept.len() <= TEXT_BYTES_MAX + "…".len() && kept.ends_with('…'));
        assert_eq!(&*excerpt("short"), "short");
    }
}
