//! The doctor: whether what is to leave will arrive and stay, before anything is sent.
//!
//! ```text
//! each address ─► TCP, TLS, login ─► cluster ─► transactions ─► clock ─► positions ─► topics
//!                                                                           │
//!                       what waits in each stream, from the data directory ─┘
//! ```
//!
//! It changes nothing: no topic is created, no producer of the node is fenced, no record is
//! written but one, of its own key, into the positions topic, where the cluster tells its time in
//! no other way. It may run beside the node, whose data directory it only reads.

mod backlog;
mod certificate;
mod reach;
pub(crate) mod report;
mod tls;
pub(crate) mod topic;

pub use report::{Finding, Report, Verdict};

use super::config::{Config, Late, Sasl};
use super::fault::Fault;
use super::late::words;
use super::wire::{BATCH_BYTES, ClockOffset, Wire};
use crate::Boxed;
use backlog::Backlog;
use skerry_store::{Keys, StreamName, WallNanos};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use topic::{Demand, Role};

/// A clock that is wrong by more than this dates records wrongly enough to say so, and by more
/// than the other makes brokers refuse them.
const CLOCK_NOTABLE: Duration = Duration::from_secs(5);
const CLOCK_WRONG: Duration = Duration::from_secs(5 * 60);

/// The node's side of it.
#[derive(Debug, Clone)]
pub struct Site {
    pub data_dir: PathBuf,
    /// To an encrypted log.
    pub keys: Option<Keys>,
    /// All streams there are to be; those are looked at that `config` delivers.
    pub streams: Vec<StreamName>,
    /// The largest record that comes in, where that is known.
    pub record_bytes_max: Option<u64>,
}

/// Looks at everything between this node and its records in the cluster.
pub fn examine<'a>(config: &'a Config, site: &'a Site) -> Boxed<'a, Report> {
    Box::pin(look(config, site))
}

async fn look(config: &Config, site: &Site) -> Report {
    let mut report = Report::default();
    let config = Arc::new(config.clone());
    reach::addresses(&config, &mut report).await;
    let Some(wire) = login(&config, &mut report).await else {
        return report;
    };
    cluster(&config, &wire, &mut report).await;
    let streams = streams(&config, site);
    transactions(&config, &wire, &streams, &mut report).await;
    let positions = config.positions.fill(&config.node, "");
    let has_positions = positions_topic(&config, &wire, &positions, &mut report).await;
    let ahead_ms = clock(&wire, has_positions.then_some(&*positions), &mut report).await;
    let now_ms = WallNanos::now().millis() + ahead_ms;
    let place = backlog::Place {
        config: &config,
        wire: &wire,
        site,
        positions: has_positions.then_some(&*positions),
    };
    let mut wanted = BTreeMap::new();
    for stream in streams {
        match place.look(&stream).await {
            Ok(backlog) => {
                report.add(waits(&stream, &backlog, now_ms));
                want(&config, site, &stream, &backlog, now_ms, &mut wanted);
            }
            Err(why) => {
                let fix = "run the doctor as the node's user, with its config file";
                report.add(Finding::unknown("backlog", stream.as_str(), why).fix(fix));
                want(
                    &config,
                    site,
                    &stream,
                    &Backlog::default(),
                    now_ms,
                    &mut wanted,
                );
            }
        }
    }
    topics(&config, &wire, wanted, &mut report).await;
    report
}

fn streams(config: &Config, site: &Site) -> Vec<StreamName> {
    let all = site
        .streams
        .iter()
        .filter(|stream| !stream.as_str().starts_with('_'));
    config
        .streams
        .clone()
        .unwrap_or_else(|| all.cloned().collect())
}

/// A connection as the node makes it, to all addresses together.
async fn login(config: &Arc<Config>, report: &mut Report) -> Option<Wire> {
    match Wire::connect(config, None).await {
        Ok(wire) => {
            let how = match (&config.tls, &config.sasl) {
                (_, Some(Sasl::Password { user, .. })) => format!("logged in as {user}"),
                (_, Some(_)) => "logged in with a token".to_owned(),
                (Some(tls), None) if tls.identity.is_some() => "let in by certificate".to_owned(),
                (Some(_), None) => "let in without a login".to_owned(),
                (None, None) => "let in, without TLS and login".to_owned(),
            };
            report.add(Finding::ok(
                "login",
                "",
                format!("{how}; cluster {}", wire.cluster()),
            ));
            Some(wire)
        }
        // The fault says what to do.
        Err(fault) => {
            report.add(Finding::problem("login", "", fault.to_string()));
            None
        }
    }
}

/// The brokers behind the addresses: a client talks to all of them.
async fn cluster(config: &Config, wire: &Wire, report: &mut Report) {
    let facts = match wire.cluster_facts().await {
        Ok(facts) => facts,
        Err(fault) => {
            report.add(Finding::unknown("cluster", "", fault.to_string()));
            return;
        }
    };
    let further: Vec<&String> = facts
        .brokers
        .iter()
        .filter(|broker| !config.brokers.contains(broker))
        .collect();
    for broker in further {
        let found = reach::address("advertised", broker, config.limits.connect_timeout).await;
        let fix = "the cluster sends its clients there: have this name and port reach the broker, or \
                   change advertised.listeners there";
        report.add(match found {
            Ok(reached) => reached.finding,
            Err(finding) => Finding {
                fix: Some(fix.to_owned()),
                ..finding
            },
        });
    }
    let count = facts.brokers.len();
    report.add(match (facts.idempotent_write, count) {
        (Some(false), _) => Finding::ok(
            "cluster",
            facts.id,
            format!(
                "{count} brokers; IdempotentWrite is not granted, which only Kafka before 3.0 needs"
            ),
        ),
        _ => Finding::ok("cluster", facts.id, format!("{count} brokers")),
    });
}

async fn transactions(config: &Config, wire: &Wire, streams: &[StreamName], report: &mut Report) {
    for stream in streams {
        let id = config.transactional_id(stream);
        let answer = wire.transactions(&id).await;
        let nobody = matches!(answer, Err(Fault::Unreachable(_)));
        report.add(match answer {
            Ok(()) => Finding::ok("transactions", id, "the coordinator answers for it"),
            Err(Fault::Denied(text)) => Finding::problem("transactions", &id, text).fix(format!(
                "kafka-acls.sh --add --allow-principal … --operation Write --operation Describe \
                 --transactional-id skerry-{}- --resource-pattern-type prefixed",
                config.node.as_str()
            )),
            Err(Fault::Unreachable(text)) => Finding::problem("transactions", id, text).fix(
                "see to __transaction_state: it needs transaction.state.log.replication.factor \
                 brokers to be created and transaction.state.log.min.isr of them to work",
            ),
            Err(fault) => Finding::unknown("transactions", id, fault.to_string()),
        });
        if nobody {
            // The others would be waited for as long, to learn the same.
            return;
        }
    }
}

/// Whether the positions topic is there; it is created by the node, where it may.
async fn positions_topic(config: &Config, wire: &Wire, topic: &str, report: &mut Report) -> bool {
    let looked = wire.look(&[topic.to_owned()]).await;
    let found = looked.map(|mut looked| looked.remove(topic));
    match found {
        Ok(Some(Ok(facts))) => {
            let demand = demand(Role::Positions, Late::Hold, 0, &Backlog::default(), None);
            report
                .findings
                .extend(topic::findings(topic, &facts, &demand));
            true
        }
        Ok(Some(Err(Fault::TopicMissing(_)))) => {
            let may_create = wire
                .cluster_facts()
                .await
                .ok()
                .and_then(|facts| facts.create);
            let by_hand = format!(
                "kafka-topics.sh --bootstrap-server … --create --topic {topic} --partitions 1 \
                 --config cleanup.policy=compact"
            );
            report.add(match may_create {
                Some(false) => {
                    let text = "is missing, and this node may not create topics in general; it may have been allowed this one";
                    Finding::warning("topic", topic, text).fix(format!("if not: {by_hand}"))
                }
                _ => Finding::ok("topic", topic, "is missing; the node creates it"),
            });
            false
        }
        Ok(Some(Err(fault))) => {
            report.add(Finding::problem("topic", topic, fault.to_string()));
            false
        }
        Ok(None) => false,
        Err(fault) => {
            let node = config.node.as_str();
            report.add(Finding::unknown(
                "topic",
                topic,
                format!("positions of {node}: {fault}"),
            ));
            false
        }
    }
}

/// How far the cluster's clock is ahead of ours, in milliseconds; 0 where nobody tells.
async fn clock(wire: &Wire, positions: Option<&str>, report: &mut Report) -> i64 {
    let asked = match wire.clock().await {
        Ok(Some(offset)) => Ok(Some(offset)),
        other => match positions {
            Some(positions) => wire.clock_by_probe(positions).await,
            None => other,
        },
    };
    let (finding, ahead_ms) = match asked {
        Ok(Some(offset)) => (judge_clock(offset), offset.ahead_ms),
        Ok(None) => (
            Finding::unknown("clock", "", "the cluster does not tell its time"),
            0,
        ),
        Err(fault) => (Finding::unknown("clock", "", fault.to_string()), 0),
    };
    report.add(match finding.verdict {
        Verdict::Unknown => finding.fix(
            "grant Describe on the cluster, or set message.timestamp.type=LogAppendTime on the \
             positions topic",
        ),
        _ => finding,
    });
    ahead_ms
}

fn judge_clock(offset: ClockOffset) -> Finding {
    let by = Duration::from_millis(offset.ahead_ms.unsigned_abs());
    let direction = if offset.ahead_ms > 0 {
        "behind"
    } else {
        "ahead of"
    };
    let precision = format!("known to {} ms", offset.uncertain_ms);
    let text = format!(
        "this machine is {} {direction} the cluster ({precision})",
        words(by)
    );
    let by = by.saturating_sub(Duration::from_millis(offset.uncertain_ms.unsigned_abs()));
    let fix = "set this machine's clock, best by a time server (timedatectl)";
    if by > CLOCK_WRONG {
        let text = format!(
            "{text}: brokers refuse records from their future, and delete early what is dated too early"
        );
        Finding::problem("clock", "", text).fix(fix)
    } else if by > CLOCK_NOTABLE {
        Finding::warning("clock", "", text).fix(fix)
    } else {
        Finding::ok("clock", "", text)
    }
}

fn waits(stream: &StreamName, backlog: &Backlog, now_ms: i64) -> Finding {
    let text = match (backlog.records, backlog.oldest_ms) {
        (0, _) => "nothing waits".to_owned(),
        (records, None) => format!("{records} records wait"),
        (records, Some(oldest)) => {
            let age = u64::try_from(now_ms.saturating_sub(oldest)).unwrap_or(0);
            format!(
                "{records} records wait, the oldest for {}",
                words(Duration::from_millis(age))
            )
        }
    };
    Finding::ok("backlog", stream.as_str(), text)
}

/// Adds the topics that the records of `stream` go to, each with what is to go there.
fn want(
    config: &Config,
    site: &Site,
    stream: &StreamName,
    backlog: &Backlog,
    now_ms: i64,
    wanted: &mut BTreeMap<String, Demand>,
) {
    let route = config.route_of(stream);
    let demand = demand(
        Role::Data,
        route.late,
        now_ms,
        backlog,
        site.record_bytes_max,
    );
    for topic in &backlog.topics {
        wanted.insert(topic.clone(), demand);
    }
    if !route.topic.goes_by_source() {
        wanted.insert(route.topic.fill(&config.node, stream.as_str()), demand);
    }
    if route.late == Late::BackfillTopic && !route.backfill_topic.goes_by_source() {
        // What does not fit there either is held.
        let demand = Demand {
            late: Late::Hold,
            ..demand
        };
        wanted.insert(
            route.backfill_topic.fill(&config.node, stream.as_str()),
            demand,
        );
    }
}

fn demand(
    role: Role,
    late: Late,
    now_ms: i64,
    backlog: &Backlog,
    record_bytes_max: Option<u64>,
) -> Demand {
    Demand {
        role,
        late,
        now_ms,
        oldest_ms: backlog.oldest_ms,
        waiting_bytes: (role == Role::Data).then_some(backlog.bytes),
        batch_bytes: BATCH_BYTES as u64,
        record_bytes_max,
    }
}

async fn topics(
    config: &Config,
    wire: &Wire,
    wanted: BTreeMap<String, Demand>,
    report: &mut Report,
) {
    let names: Vec<String> = wanted.keys().cloned().collect();
    let looked = match wire.look(&names).await {
        Ok(looked) => looked,
        Err(fault) => {
            report.add(Finding::unknown("topic", "", fault.to_string()));
            return;
        }
    };
    for (name, found) in looked {
        match found {
            Ok(facts) => report
                .findings
                .extend(topic::findings(&name, &facts, &wanted[&name])),
            Err(Fault::TopicMissing(_)) if config.create_topics.is_some() => {
                report.add(Finding::ok(
                    "topic",
                    name,
                    "is missing; the node creates it",
                ));
            }
            Err(fault) => report.add(Finding::problem("topic", name, fault.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_wrong_only_as_far_as_is_known() {
        let verdict = |ahead_ms, uncertain_ms| {
            let offset = ClockOffset {
                ahead_ms,
                uncertain_ms,
            };
            judge_clock(offset).verdict
        };
        assert_eq!(verdict(40, 30), Verdict::Ok);
        assert_eq!(verdict(-20_000, 30), Verdict::Warning);
        assert_eq!(verdict(-20_000, 18_000), Verdict::Ok);
        assert_eq!(verdict(3_600_000, 1_000), Verdict::Problem);
        let text = judge_clock(ClockOffset {
            ahead_ms: -7_200_000,
            uncertain_ms: 1,
        })
        .text;
        assert!(text.contains("2h ahead of the cluster"), "{text}");
    }
}
