//! What a lane knows of the topics it writes to. Nothing is sent to a topic that was not looked
//! at on this connection, and nothing late to one that was not looked at lately.
//!
//! A look takes one round trip, for all topics that are asked for at once and for the clock.

use super::config::Late;
use super::doctor::report::{Finding, Verdict};
use super::doctor::topic::{self, Demand, Role};
use super::fault::Fault;
use super::late::{TimeRules, Trap};
use super::status::StreamStatus;
use super::wire::{BATCH_BYTES, Wire};
use skerry_store::WallNanos;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A drain takes hours, in which somebody may change the topic it goes to.
const LATE_LOOK_EVERY: Duration = Duration::from_secs(5 * 60);

/// Topics that are looked at together: an answer stays below some tens of kilobytes.
const LOOK_TOPICS_MAX: usize = 100;

/// Shared between the lane, which looks, and its source, which judges record by record.
#[derive(Debug, Default)]
pub(crate) struct Topics(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    topics: BTreeMap<String, Looked>,
    /// How far the cluster's clock is ahead of ours.
    clock_ahead_ms: i64,
}

#[derive(Debug, Clone, Copy)]
struct Looked {
    rules: TimeRules,
    partitions: usize,
    at: Instant,
}

impl Topics {
    /// Forgets what an earlier connection knew.
    pub(crate) fn forget(&self) {
        self.lock().topics.clear();
    }

    /// The cluster's time, as well as it is known.
    pub(crate) fn now_ms(&self) -> i64 {
        self.in_cluster_ms(WallNanos::now())
    }

    /// What the cluster's clock says when ours says `now`.
    pub(crate) fn in_cluster_ms(&self, now: WallNanos) -> i64 {
        now.millis().saturating_add(self.lock().clock_ahead_ms)
    }

    /// Whether a record would stay in `topic`; none where that has to be looked up first.
    pub(crate) fn judge(
        &self,
        topic: &str,
        timestamp_ms: i64,
        now_ms: i64,
        late: bool,
    ) -> Option<Result<(), Trap>> {
        let looked = *self.lock().topics.get(topic)?;
        let fresh = !late || looked.at.elapsed() < LATE_LOOK_EVERY;
        fresh.then(|| looked.rules.judge(timestamp_ms, now_ms))
    }

    /// How many partitions `topic` has, once it was looked at.
    pub(crate) fn partitions(&self, topic: &str) -> Option<usize> {
        let looked = self.lock().topics.get(topic).map(|it| it.partitions);
        looked.filter(|partitions| *partitions > 0)
    }

    /// Looks at `topics`, of which the first is needed now; what is not well with them is in the
    /// stream's status and, when it is news, in the log.
    pub(crate) async fn look(
        &self,
        wire: &Wire,
        topics: &[String],
        late: Late,
        status: &StreamStatus,
    ) -> Result<(), Fault> {
        let Some(needed) = topics.first() else {
            return Ok(());
        };
        let (found, clock) = tokio::join!(wire.topics(topics), wire.known_clock());
        if let Some(clock) = clock {
            // What is within the uncertainty of a slow link is no difference.
            let certain = clock.ahead_ms.abs() > clock.uncertain_ms;
            self.lock().clock_ahead_ms = if certain { clock.ahead_ms } else { 0 };
        }
        let demand = Demand {
            role: Role::Data,
            late,
            now_ms: self.now_ms(),
            oldest_ms: status.rest().oldest_unsent.map(WallNanos::millis),
            waiting_bytes: None,
            batch_bytes: BATCH_BYTES as u64,
            record_bytes_max: None,
        };
        for (name, facts) in found? {
            let facts = match facts {
                Err(fault) if name == *needed => return Err(fault),
                // It will be said once a record is to go there.
                Err(_) => continue,
                Ok(facts) => facts,
            };
            let findings = topic::findings(&name, &facts, &demand);
            let rules = TimeRules::of(facts.settings.as_ref());
            self.learn(name.clone(), rules, facts.partitions.len());
            tell(status, &name, findings);
        }
        Ok(())
    }

    /// Adds to `topics` those of `coming` that nothing is known of, to be looked at together.
    pub(crate) fn add_unseen<'a>(
        &self,
        topics: &mut Vec<String>,
        coming: impl Iterator<Item = &'a str>,
    ) {
        let known = self.lock();
        for topic in coming {
            let fresh = !known.topics.contains_key(topic) && !topics.iter().any(|t| t == topic);
            if fresh && topics.len() < LOOK_TOPICS_MAX {
                topics.push(topic.to_owned());
            }
        }
    }

    pub(crate) fn learn(&self, topic: String, rules: TimeRules, partitions: usize) {
        let looked = Looked {
            rules,
            partitions,
            at: Instant::now(),
        };
        self.lock().topics.insert(topic, looked);
    }

    /// A panic elsewhere does not make what is known unreadable.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(status: &StreamStatus, topic: &str, findings: Vec<Finding>) {
    let bad = findings.into_iter().filter(|f| f.verdict != Verdict::Ok);
    for news in status.examined(topic, bad.collect()) {
        match news.verdict {
            Verdict::Problem => tracing::error!(stream = status.name(), "{news}"),
            // Said once per look by /status and the doctor; no reason to wake anybody.
            _ => tracing::info!(stream = status.name(), "{news}"),
        }
    }
}
