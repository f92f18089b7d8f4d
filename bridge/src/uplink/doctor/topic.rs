//! Whether a topic will take what is to go there, and keep it. Pure: the lanes' pre-flight and
//! `skerry uplink doctor` judge alike.

use super::report::{Finding, Verdict};
use crate::uplink::config::Late;
use crate::uplink::late::{TimeRules, Trap, words};
use crate::uplink::topic::{Settings, TimestampType, TopicFacts};

/// What the topic is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Data,
    Positions,
}

/// What is to go there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demand {
    pub(crate) role: Role,
    pub(crate) late: Late,
    /// The cluster's time.
    pub(crate) now_ms: i64,
    /// The timestamp that the oldest waiting record would have.
    pub(crate) oldest_ms: Option<i64>,
    /// How much waits, where that is known.
    pub(crate) waiting_bytes: Option<u64>,
    /// Records are sent in batches of about so many bytes.
    pub(crate) batch_bytes: u64,
    /// The largest record that this node takes in, where that is known.
    pub(crate) record_bytes_max: Option<u64>,
}

/// Every check of one topic.
pub(crate) fn findings(topic: &str, facts: &TopicFacts, demand: &Demand) -> Vec<Finding> {
    let mut all = vec![exists(topic, facts)];
    all.push(rights(topic, facts, demand.role));
    let Some(settings) = &facts.settings else {
        let text = "this node may not see the topic's settings: retention, limits and min.insync.replicas are not known";
        all.push(Finding::unknown("settings", topic, text).fix(format!(
            "grant DescribeConfigs on topic {topic} (kafka-acls.sh --add --allow-principal … \
             --operation DescribeConfigs --topic {topic})"
        )));
        all.extend((demand.role == Role::Data).then(|| retention(topic, None, demand)));
        return all;
    };
    all.push(replicas(topic, facts, settings));
    all.push(message_bytes(topic, settings, demand));
    all.push(cleanup(topic, settings, demand.role));
    if demand.role == Role::Data {
        all.push(retention(topic, Some(settings), demand));
        all.extend(retention_bytes(topic, facts, settings, demand));
        all.push(timestamps(topic, settings));
    }
    all
}

fn exists(topic: &str, facts: &TopicFacts) -> Finding {
    let all = facts.partitions.len();
    let without = facts.partitions.iter().filter(|p| !p.has_leader).count();
    if without > 0 {
        let text = format!("{without} of {all} partitions have no leader");
        return Finding::problem("topic", topic, text).fix("see to the brokers that held them");
    }
    let noun = if all == 1 { "partition" } else { "partitions" };
    Finding::ok("topic", topic, format!("exists, with {all} {noun}"))
}

fn rights(topic: &str, facts: &TopicFacts, role: Role) -> Finding {
    let Some(rights) = facts.rights else {
        let text =
            "the cluster does not tell what this node may do with it; Kafka 3.7 and later do";
        return Finding::unknown("rights", topic, text);
    };
    let needed = match role {
        Role::Data => vec![("Write", rights.write)],
        Role::Positions => vec![("Write", rights.write), ("Read", rights.read)],
    };
    let lacking: Vec<&str> = needed
        .iter()
        .filter(|(_, has)| !has)
        .map(|(name, _)| *name)
        .collect();
    let names: Vec<&str> = needed.iter().map(|(name, _)| *name).collect();
    match lacking.as_slice() {
        [] => Finding::ok("rights", topic, format!("{} allowed", names.join(" and "))),
        lacking => {
            let text = format!("{} denied", lacking.join(" and "));
            let operations: Vec<String> =
                lacking.iter().map(|l| format!("--operation {l}")).collect();
            Finding::problem("rights", topic, text).fix(format!(
                "kafka-acls.sh --add --allow-principal … {} --topic {topic}",
                operations.join(" ")
            ))
        }
    }
}

fn replicas(topic: &str, facts: &TopicFacts, settings: &Settings) -> Finding {
    const CHECK: &str = "replicas";
    let needed = settings.min_in_sync();
    let least = |count: fn(&crate::uplink::topic::PartitionFacts) -> usize| {
        facts.partitions.iter().map(count).min().unwrap_or(0)
    };
    let (replicas, in_sync) = (least(|p| p.replicas), least(|p| p.in_sync));
    if replicas < needed {
        let text = format!(
            "has {replicas}, and min.insync.replicas={needed} of them must confirm: nothing can be written"
        );
        return Finding::problem(CHECK, topic, text).fix(format!(
            "lower min.insync.replicas to {} or add replicas (kafka-reassign-partitions.sh)",
            replicas.saturating_sub(1).max(1)
        ));
    }
    if in_sync < needed {
        let text = format!(
            "{in_sync} of {replicas} are in sync now and min.insync.replicas={needed} must be: \
             nothing can be written until they are"
        );
        return Finding::problem(CHECK, topic, text)
            .fix("see to the brokers that are down or behind");
    }
    let state = format!("{in_sync} of {replicas} in sync, {needed} must confirm");
    if replicas == 1 {
        let text = format!("{state}: what one broker's disk loses is lost");
        return Finding::warning(CHECK, topic, text)
            .fix("3 replicas and min.insync.replicas=2 lose nothing");
    }
    if needed == 1 {
        let text = format!("{state}: this node gives up records that one broker alone may have");
        return Finding::warning(CHECK, topic, text).fix("set min.insync.replicas=2");
    }
    Finding::ok(CHECK, topic, state)
}

fn message_bytes(topic: &str, settings: &Settings, demand: &Demand) -> Finding {
    const CHECK: &str = "message_bytes";
    let Some(most) = settings.max_message_bytes() else {
        return Finding::ok(CHECK, topic, "max.message.bytes is the cluster's default");
    };
    let state = format!("max.message.bytes={most}");
    if most < demand.batch_bytes {
        let text = format!(
            "{state} is less than a batch of {}: transactions are refused and tried again by halves, \
             and larger records become gaps",
            demand.batch_bytes
        );
        return Finding::problem(CHECK, topic, text).fix(set(
            topic,
            "max.message.bytes",
            1_048_588,
        ));
    }
    match demand.record_bytes_max.filter(|record| *record > most) {
        Some(record) => {
            let text = format!(
                "{state}: records of up to {record} bytes come in, and larger ones become gaps"
            );
            Finding::warning(CHECK, topic, text).fix(format!(
                "{}, or lower packet_bytes_max in [mqtt]",
                set(topic, "max.message.bytes", record + 4_096)
            ))
        }
        None => Finding::ok(CHECK, topic, state),
    }
}

fn cleanup(topic: &str, settings: &Settings, role: Role) -> Finding {
    const CHECK: &str = "cleanup";
    let policy = settings.cleanup_policy();
    let state = format!("cleanup.policy={policy}");
    let fix = |policy: &str| set(topic, "cleanup.policy", policy);
    match role {
        Role::Data if settings.compacts() => {
            let text = format!("{state} keeps the newest record of each key only");
            Finding::problem(CHECK, topic, text).fix(fix("delete"))
        }
        Role::Positions if !settings.compacts() || settings.deletes() => {
            let text = format!(
                "{state}: positions older than its retention are lost, and records may then be sent twice"
            );
            Finding::problem(CHECK, topic, text).fix(fix("compact"))
        }
        _ => Finding::ok(CHECK, topic, state),
    }
}

fn retention(topic: &str, settings: Option<&Settings>, demand: &Demand) -> Finding {
    const CHECK: &str = "retention";
    let rules = TimeRules::of(settings);
    let trapped = demand
        .oldest_ms
        .map(|oldest| (oldest, rules.judge(oldest, demand.now_ms)));
    match trapped {
        Some((_, Err(trap))) => {
            let (verdict, then) = match demand.late {
                Late::Hold => (Verdict::Problem, "the stream is held"),
                Late::Restamp => (
                    Verdict::Warning,
                    "such records are dated now, with their own time in skerry-event-time",
                ),
                Late::BackfillTopic => (Verdict::Warning, "such records go to the backfill topic"),
            };
            let text = format!("of the oldest record that waits: {trap}; {then}");
            Finding::new(CHECK, topic, verdict, text).fix(raise(topic, &trap))
        }
        Some((oldest, Ok(()))) => {
            let age = u64::try_from(demand.now_ms.saturating_sub(oldest)).unwrap_or(0);
            let age = words(std::time::Duration::from_millis(age));
            Finding::ok(
                CHECK,
                topic,
                format!(
                    "{}; the oldest record that waits is {age} old",
                    kept(settings)
                ),
            )
        }
        None => Finding::ok(CHECK, topic, kept(settings)),
    }
}

fn kept(settings: Option<&Settings>) -> String {
    match settings {
        Some(settings) if settings.timestamp_type() == TimestampType::LogAppend => {
            "counts from a record's arrival".to_owned()
        }
        Some(settings) => match settings.retention().filter(|_| settings.deletes()) {
            Some(retention) => format!("records are kept for {}", words(retention)),
            None => "records are kept whatever their age".to_owned(),
        },
        None => "Kafka's default of 7 days is assumed".to_owned(),
    }
}

/// What an operator of the cluster types to let it through.
pub(crate) fn raise(topic: &str, trap: &Trap) -> String {
    match trap {
        Trap::Retention { age, .. } | Trap::Behind { age, .. } => {
            // A little over what it takes, in whole days: the drain takes time, too.
            const DAY_SECONDS: u64 = 86_400;
            let days = (age.as_secs() + age.as_secs() / 4) / DAY_SECONDS + 2;
            set(topic, trap.setting(), days * DAY_SECONDS * 1_000)
        }
        Trap::Ahead { .. } => "set this machine's clock".to_owned(),
    }
}

fn set(topic: &str, name: &str, value: impl std::fmt::Display) -> String {
    format!(
        "kafka-configs.sh --bootstrap-server … --alter --entity-type topics --entity-name {topic} \
         --add-config {name}={value}"
    )
}

fn retention_bytes(
    topic: &str,
    facts: &TopicFacts,
    settings: &Settings,
    demand: &Demand,
) -> Option<Finding> {
    let each = settings.retention_bytes().filter(|_| settings.deletes())?;
    let all = each.saturating_mul(facts.partitions.len() as u64);
    let state = format!(
        "retention.bytes={each} for each of {} partitions",
        facts.partitions.len()
    );
    Some(
        match demand.waiting_bytes.filter(|waiting| *waiting > all) {
            Some(waiting) => {
                let text = format!(
                    "{state}: {waiting} bytes wait, so the first are deleted while the last arrive"
                );
                let enough = waiting / (facts.partitions.len() as u64).max(1) * 2;
                Finding::problem("retention_bytes", topic, text).fix(set(
                    topic,
                    "retention.bytes",
                    enough,
                ))
            }
            None => Finding::ok("retention_bytes", topic, state),
        },
    )
}

fn timestamps(topic: &str, settings: &Settings) -> Finding {
    let limit = |name: &str, limit: Option<std::time::Duration>| {
        limit
            .map(|limit| format!(", at most {} {name}", words(limit)))
            .unwrap_or_default()
    };
    let text = match settings.timestamp_type() {
        TimestampType::LogAppend => {
            "the broker dates records when they arrive; their own times are in the headers"
                .to_owned()
        }
        TimestampType::Create => format!(
            "as this node dates records{}{}",
            limit("old", settings.timestamp_behind_max()),
            limit("ahead", settings.timestamp_ahead_max())
        ),
    };
    Finding::ok("timestamps", topic, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::topic::{PartitionFacts, Rights};

    const HOUR_MS: i64 = 3_600_000;

    fn demand(late: Late) -> Demand {
        Demand {
            role: Role::Data,
            late,
            now_ms: 1_000 * HOUR_MS,
            oldest_ms: Some(928 * HOUR_MS),
            waiting_bytes: Some(1 << 30),
            batch_bytes: 128 * 1024,
            record_bytes_max: Some(256 * 1024),
        }
    }

    fn facts(settings: &[(&str, &str)]) -> TopicFacts {
        let partition = PartitionFacts {
            replicas: 3,
            in_sync: 3,
            has_leader: true,
        };
        TopicFacts {
            partitions: vec![partition; 4],
            rights: Some(Rights {
                write: true,
                read: true,
                describe_configs: true,
            }),
            settings: Some(settings.iter().copied().collect()),
        }
    }

    const GOOD: [(&str, &str); 4] = [
        ("cleanup.policy", "delete"),
        ("retention.ms", "604800000"),
        ("min.insync.replicas", "2"),
        ("max.message.bytes", "1048588"),
    ];

    fn verdicts(facts: &TopicFacts, demand: &Demand) -> Vec<(&'static str, Verdict)> {
        let found = findings("t", facts, demand);
        let bad = found
            .iter()
            .filter(|finding| finding.verdict != Verdict::Ok);
        bad.map(|finding| (finding.check, finding.verdict))
            .collect()
    }

    fn with(name: &'static str, value: &'static str) -> TopicFacts {
        let mut settings = GOOD.to_vec();
        settings.push((name, value));
        facts(&settings)
    }

    #[test]
    fn a_good_topic_has_nothing_against_it() {
        assert_eq!(verdicts(&facts(&GOOD), &demand(Late::Hold)), []);
    }

    #[test]
    fn each_setting_that_loses_or_refuses_is_found() {
        use Verdict::{Problem, Warning};
        let cases = [
            ("retention.ms", "3600000", ("retention", Problem)),
            (
                "message.timestamp.before.max.ms",
                "3600000",
                ("retention", Problem),
            ),
            ("retention.bytes", "1000000", ("retention_bytes", Problem)),
            ("cleanup.policy", "compact", ("cleanup", Problem)),
            ("min.insync.replicas", "4", ("replicas", Problem)),
            ("min.insync.replicas", "1", ("replicas", Warning)),
            ("max.message.bytes", "10000", ("message_bytes", Problem)),
            ("max.message.bytes", "200000", ("message_bytes", Warning)),
        ];
        for (name, value, expected) in cases {
            assert_eq!(
                verdicts(&with(name, value), &demand(Late::Hold)),
                [expected],
                "{name}={value}"
            );
        }
    }

    #[test]
    fn the_policy_decides_how_bad_a_short_retention_is() {
        let short = with("retention.ms", "3600000");
        for late in [Late::Restamp, Late::BackfillTopic] {
            assert_eq!(
                verdicts(&short, &demand(late)),
                [("retention", Verdict::Warning)]
            );
        }
        let found = findings("t", &short, &demand(Late::Hold));
        let retention = found
            .iter()
            .find(|finding| finding.check == "retention")
            .unwrap();
        // Three days and a quarter, in whole days and one to spare: enough, if it is done.
        assert!(
            retention.to_string().contains("retention.ms=432000000"),
            "{retention}"
        );
        let raised = with("retention.ms", "432000000");
        assert_eq!(verdicts(&raised, &demand(Late::Hold)), []);
    }

    #[test]
    fn brokers_that_are_down_count_by_what_is_left() {
        let mut facts = facts(&GOOD);
        facts.partitions[2].in_sync = 1;
        assert_eq!(
            verdicts(&facts, &demand(Late::Hold)),
            [("replicas", Verdict::Problem)]
        );
        facts.partitions[2] = PartitionFacts {
            replicas: 3,
            in_sync: 2,
            has_leader: false,
        };
        assert_eq!(
            verdicts(&facts, &demand(Late::Hold)),
            [("topic", Verdict::Problem)]
        );
    }

    #[test]
    fn what_may_not_be_seen_is_not_called_well() {
        let mut facts = facts(&GOOD);
        facts.settings = None;
        let mut demand = demand(Late::Hold);
        assert_eq!(verdicts(&facts, &demand), [("settings", Verdict::Unknown)]);
        demand.oldest_ms = Some(0);
        let expected = [
            ("settings", Verdict::Unknown),
            ("retention", Verdict::Problem),
        ];
        assert_eq!(verdicts(&facts, &demand), expected);
    }

    #[test]
    fn positions_need_reading_and_a_topic_that_never_forgets() {
        let mut facts = facts(&GOOD);
        facts.rights = Some(Rights {
            write: true,
            read: false,
            describe_configs: true,
        });
        let positions = Demand {
            role: Role::Positions,
            ..demand(Late::Hold)
        };
        let expected = [("rights", Verdict::Problem), ("cleanup", Verdict::Problem)];
        assert_eq!(verdicts(&facts, &positions), expected);
        assert_eq!(verdicts(&facts, &demand(Late::Hold)), []);
    }
}
