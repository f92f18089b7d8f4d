//! What went over the link and, from that and from the clock, who may still use it.

use super::budget::{Period, Usage, Usages, Verdict};
use super::calendar::UnixSeconds;
use super::class::{LinkClass, LinkSettings, Why};
use super::queue::Priority;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The current rate is of the last so many seconds.
const RATE_OVER_SECONDS: usize = 10;
/// A clock that says for so long that it is an earlier day than it was is right.
const BELIEVED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Shared by the gate, which writes, and whoever asks. Outlives the gate.
#[derive(Debug)]
pub struct Ledger {
    inner: Mutex<Inner>,
    admission: watch::Sender<Admission>,
}

#[derive(Debug)]
struct Inner {
    usages: Usages,
    settings: Arc<LinkSettings>,
    earlier_since: Option<Instant>,
    /// Totals at the last seconds.
    samples: VecDeque<(Instant, u64, u64)>,
    last_error: Option<String>,
}

/// Who may use the link now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    All,
    /// Those up to this priority: the rest is kept for them.
    Reserve(Priority, Period),
    /// The budget is used up.
    Exhausted(Period),
    /// No time window is open; the next opening.
    Closed(Option<UnixSeconds>),
}

impl Admission {
    #[must_use]
    pub fn allows(&self, priority: Priority) -> bool {
        match self {
            Self::All => true,
            Self::Reserve(last, _) => priority <= *last,
            Self::Exhausted(_) | Self::Closed(_) => false,
        }
    }

    /// Why not everybody may, in words.
    #[must_use]
    pub fn because(&self, class: &str, now: UnixSeconds) -> Option<String> {
        Some(match self {
            Self::All => return None,
            Self::Reserve(last, period) => format!(
                "what is left of the {period}'s bytes on link class `{class}` is kept for \
                 priority {} and before",
                last.0
            ),
            Self::Exhausted(period) => {
                format!("the {period}'s bytes on link class `{class}` are used up")
            }
            Self::Closed(None) => format!("link class `{class}` has no time window that opens"),
            Self::Closed(Some(opens)) => format!(
                "link class `{class}` is outside its time windows; opens in {}",
                in_words(opens.0 - now.0)
            ),
        })
    }
}

/// The link at one moment, for `/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    pub class: String,
    /// Why this class, in words.
    pub class_because: String,
    pub why: Why,
    pub bandwidth_bits_per_second: Option<u64>,
    /// Over the last ten seconds.
    pub sending_bits_per_second: u64,
    pub receiving_bits_per_second: u64,
    /// On the wire, by an estimate; over all classes.
    pub sent_bytes_total: u64,
    pub received_bytes_total: u64,
    /// Of this class, both directions.
    pub day_bytes: u64,
    pub month_bytes: u64,
    pub day_bytes_left: Option<u64>,
    pub month_bytes_left: Option<u64>,
    /// Why not every lane may send, in words.
    pub held_because: Option<String>,
    pub opens: Option<UnixSeconds>,
    /// What the last attempt to reach a broker failed with, until one succeeds.
    pub last_error: Option<String>,
}

impl Ledger {
    /// Goes on from what was used before.
    #[must_use]
    pub fn new(usages: Usages) -> Self {
        let settings = LinkSettings {
            class: LinkClass::new(super::class::DEFAULT),
            why: Why::Default,
        };
        Self {
            inner: Mutex::new(Inner {
                usages,
                settings: Arc::new(settings),
                earlier_since: None,
                samples: VecDeque::new(),
                last_error: None,
            }),
            admission: watch::Sender::new(Admission::All),
        }
    }

    /// What to store, so that a restart does not refill a budget.
    #[must_use]
    pub fn usages(&self) -> Usages {
        self.lock().usages.clone()
    }

    /// Who may use the link; lanes that may not had better wait for this than try.
    #[must_use]
    pub fn admission(&self) -> watch::Receiver<Admission> {
        self.admission.subscribe()
    }

    pub(super) fn allows(&self, priority: Priority) -> bool {
        self.admission.borrow().allows(priority)
    }

    #[must_use]
    pub fn snapshot(&self, now: UnixSeconds) -> Snapshot {
        let inner = self.lock();
        let LinkSettings { class, why } = &*inner.settings;
        let usage = inner.usages.0.get(&class.name).cloned().unwrap_or_default();
        let [day_bytes_left, month_bytes_left] = class.budget.left(&usage);
        let (sent, received) = inner.totals();
        let (sending, receiving) = inner.rates();
        let admission = self.admission.borrow().clone();
        Snapshot {
            class: class.name.clone(),
            class_because: why.to_string(),
            why: why.clone(),
            bandwidth_bits_per_second: class.bandwidth.map(|rate| rate.bits_per_second()),
            sending_bits_per_second: sending,
            receiving_bits_per_second: receiving,
            sent_bytes_total: sent,
            received_bytes_total: received,
            day_bytes: usage.day_bytes,
            month_bytes: usage.month_bytes,
            day_bytes_left,
            month_bytes_left,
            held_because: admission.because(&class.name, now),
            opens: match admission {
                Admission::Closed(opens) => opens,
                _ => None,
            },
            last_error: inner.last_error.clone(),
        }
    }

    /// So much went.
    pub(super) fn spend(&self, sent: u64, received: u64) {
        let mut inner = self.lock();
        inner.usage().spend(sent, received);
        let verdict = inner.verdict();
        // The windows are a matter of time, not of bytes.
        self.admission.send_if_modified(|admission| {
            let closed = matches!(admission, Admission::Closed(_));
            !closed && replace(admission, verdict)
        });
    }

    /// A second has passed, or the settings are new.
    pub(super) fn tick(&self, settings: &Arc<LinkSettings>, now: UnixSeconds) {
        let mut inner = self.lock();
        inner.settings = Arc::clone(settings);
        inner.turn(settings.class.windows.zone().day(now));
        inner.sample();
        let windows = &settings.class.windows;
        let admission = match windows.is_open(now) {
            true => inner.verdict(),
            false => Admission::Closed(self.next_opening(settings, now)),
        };
        self.admission.send_if_modified(|it| replace(it, admission));
    }

    /// Looked for only when the one that is known has come: it may be years ahead.
    fn next_opening(&self, settings: &LinkSettings, now: UnixSeconds) -> Option<UnixSeconds> {
        let windows = &settings.class.windows;
        match &*self.admission.borrow() {
            Admission::Closed(Some(opens)) if *opens > now && windows.is_open(*opens) => {
                Some(*opens)
            }
            _ => windows.next_opening(now),
        }
    }

    pub(super) fn failed(&self, why: String) {
        self.lock().last_error = Some(why);
    }

    pub(super) fn succeeded(&self) {
        self.lock().last_error = None;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn usage(&mut self) -> &mut Usage {
        let class = &self.settings.class.name;
        if !self.usages.0.contains_key(class) {
            self.usages.0.insert(class.clone(), Usage::default());
        }
        self.usages.0.get_mut(class).expect("inserted above")
    }

    fn verdict(&mut self) -> Admission {
        let settings = Arc::clone(&self.settings);
        let budget = &settings.class.budget;
        match budget.verdict(self.usage()) {
            Verdict::All => Admission::All,
            Verdict::Reserve(period) => Admission::Reserve(budget.reserve_priority, period),
            Verdict::Nothing(period) => Admission::Exhausted(period),
        }
    }

    fn turn(&mut self, today: super::calendar::Day) {
        let earlier = today < self.usage().day;
        let since = self.earlier_since.unwrap_or_else(Instant::now);
        let believed = earlier && since.elapsed() >= BELIEVED_AFTER;
        self.earlier_since = earlier.then_some(since);
        self.usage().turn(today, believed);
    }

    fn totals(&self) -> (u64, u64) {
        let usages = self.usages.0.values();
        usages.fold((0, 0), |(sent, received), usage| {
            let sent = usage.sent_bytes_total.saturating_add(sent);
            (sent, usage.received_bytes_total.saturating_add(received))
        })
    }

    fn sample(&mut self) {
        let (sent, received) = self.totals();
        self.samples.push_back((Instant::now(), sent, received));
        if self.samples.len() > RATE_OVER_SECONDS + 1 {
            self.samples.pop_front();
        }
    }

    /// Bits per second, sent and received.
    fn rates(&self) -> (u64, u64) {
        let Some(((from, sent_then, received_then), (to, sent, received))) =
            self.samples.front().zip(self.samples.back())
        else {
            return (0, 0);
        };
        let milliseconds = u64::try_from(to.duration_since(*from).as_millis()).unwrap_or(u64::MAX);
        let rate = |bytes: u64| (bytes * 8_000).checked_div(milliseconds).unwrap_or(0);
        (rate(sent - sent_then), rate(received - received_then))
    }
}

/// True when that is news.
fn replace<T: PartialEq>(place: &mut T, value: T) -> bool {
    let news = *place != value;
    *place = value;
    news
}

/// "3 h 12 min": the two largest units that are not zero.
fn in_words(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let units = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let from = units.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let shown = units[from..].iter().take(2).filter(|(count, _)| *count > 0);
    let shown: Vec<_> = shown
        .map(|(count, unit)| format!("{count} {unit}"))
        .collect();
    match shown.is_empty() {
        true => "0 s".to_owned(),
        false => shown.join(" "),
    }
}
