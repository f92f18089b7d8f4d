//! What a topic does with a record because of its timestamp.
//!
//! ```text
//!            message.timestamp.before.max.ms         message.timestamp.after.max.ms
//!     refused ◄───────┤      retention.ms       now          ├───────► refused
//!     ────────────────┼───────────┤──────────────┼───────────┼──────────────► timestamp
//!              gone minutes after │ ◄── margin   │
//!              its answer "ok"    │              │
//! ```
//!
//! A backlog of weeks falls into both traps. What is close to the edge counts as over it: a
//! record that is readable for another minute only has not arrived.

use super::topic::{Settings, TimestampType};
use std::fmt;
use std::time::Duration;

/// Sent later than this after it came in, a record is late, and is marked so: far more than a
/// slow link takes, far less than an outage. By the node's own clock, when the transaction that
/// carries the record is put together; a record that is sent once more is judged once more.
pub(crate) const LATE_AFTER: Duration = Duration::from_secs(60);

/// A record stays readable for a tenth of the topic's retention at least, and for a day at most
/// where that is longer.
const MARGIN_SHARE: u32 = 10;
const MARGIN_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Clocks are not known better than this, whatever the limit.
const AHEAD_MARGIN_MAX: Duration = Duration::from_secs(60);
/// Kafka's default where a topic may not be looked at: `log.retention.hours`.
const RETENTION_ASSUMED: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Kafka 4's default of `message.timestamp.after.max.ms`.
const AHEAD_ASSUMED: Duration = Duration::from_secs(60 * 60);

/// What a topic's settings say of timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct TimeRules {
    /// None where nothing is deleted for its age.
    retention: Option<Duration>,
    behind_max: Option<Duration>,
    ahead_max: Option<Duration>,
    /// Nobody allowed this node to look: Kafka's defaults.
    assumed: bool,
}

/// Why a record would be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trap {
    /// Deleted at the next check of the topic's retention.
    Retention {
        age: Duration,
        retention: Duration,
        assumed: bool,
    },
    /// Refused, for being so old.
    Behind { age: Duration, limit: Duration },
    /// Refused, for being from the future.
    Ahead { by: Duration, limit: Duration },
}

impl TimeRules {
    /// Of a topic's settings; none where the cluster does not let this node see them.
    pub(crate) fn of(settings: Option<&Settings>) -> Self {
        let Some(settings) = settings else {
            return Self {
                retention: Some(RETENTION_ASSUMED),
                behind_max: None,
                ahead_max: Some(AHEAD_ASSUMED),
                assumed: true,
            };
        };
        if settings.timestamp_type() == TimestampType::LogAppend {
            // The broker dates records itself, when they arrive.
            return Self::default();
        }
        Self {
            retention: settings.retention().filter(|_| settings.deletes()),
            behind_max: settings.timestamp_behind_max(),
            ahead_max: settings.timestamp_ahead_max(),
            assumed: false,
        }
    }

    /// Whether a record with this timestamp would be kept, both in milliseconds since 1970.
    pub(crate) fn judge(&self, timestamp_ms: i64, now_ms: i64) -> Result<(), Trap> {
        let age = millis(now_ms.saturating_sub(timestamp_ms));
        let ahead = millis(timestamp_ms.saturating_sub(now_ms));
        if let Some(limit) = self.ahead_max
            && ahead > limit.saturating_sub(AHEAD_MARGIN_MAX.min(limit / MARGIN_SHARE))
        {
            return Err(Trap::Ahead { by: ahead, limit });
        }
        if let Some(limit) = self.behind_max
            && age > kept(limit)
        {
            return Err(Trap::Behind { age, limit });
        }
        match self.retention {
            Some(retention) if age > kept(retention) => Err(Trap::Retention {
                age,
                retention,
                assumed: self.assumed,
            }),
            _ => Ok(()),
        }
    }
}

/// How old a record may be to stay for a while.
fn kept(limit: Duration) -> Duration {
    limit - MARGIN_MAX.min(limit / MARGIN_SHARE)
}

fn millis(count: i64) -> Duration {
    Duration::from_millis(u64::try_from(count).unwrap_or(0))
}

impl Trap {
    /// The topic's setting that makes it one.
    pub(crate) fn setting(&self) -> &'static str {
        match self {
            Self::Retention { .. } => "retention.ms",
            Self::Behind { .. } => "message.timestamp.before.max.ms",
            Self::Ahead { .. } => "message.timestamp.after.max.ms",
        }
    }
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retention {
                age,
                retention,
                assumed,
            } => {
                let known = match assumed {
                    true => "retention.ms, which this node may not see and which is ",
                    false => "retention.ms=",
                };
                let ms = retention.as_millis();
                let by_default = if *assumed { " by default" } else { "" };
                write!(
                    f,
                    "it is {} old and would be deleted minutes after it arrived ({known}{ms}{by_default}, {})",
                    words(*age),
                    words(*retention)
                )
            }
            Self::Behind { age, limit } => write!(
                f,
                "it is {} old and would be refused ({}={}, {})",
                words(*age),
                self.setting(),
                limit.as_millis(),
                words(*limit)
            ),
            Self::Ahead { by, limit } => write!(
                f,
                "it is dated {} ahead of the cluster's clock and would be refused ({}={}, {})",
                words(*by),
                self.setting(),
                limit.as_millis(),
                words(*limit)
            ),
        }
    }
}

/// A duration as a person would say it: `3d 4h`, `1h`, `12min`, `5s`.
pub(crate) fn words(duration: Duration) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    let seconds = duration.as_secs();
    let Some(first) = UNITS.iter().position(|(_, unit)| seconds >= *unit) else {
        return format!("{} ms", duration.as_millis());
    };
    let (name, unit) = UNITS[first];
    let mut text = format!("{}{name}", seconds / unit);
    if let Some((name, smaller)) = UNITS.get(first + 1)
        && seconds % unit >= *smaller
    {
        text.push_str(&format!(" {}{name}", seconds % unit / smaller));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const NOW: i64 = 1_800_000_000_000;

    fn rules(settings: &[(&str, &str)]) -> TimeRules {
        TimeRules::of(Some(&settings.iter().copied().collect()))
    }

    #[test]
    fn what_retention_would_take_is_trapped_and_a_little_before() {
        let rules = rules(&[("cleanup.policy", "delete"), ("retention.ms", "3600000")]);
        assert_eq!(rules.judge(NOW, NOW), Ok(()));
        assert_eq!(rules.judge(NOW - HOUR_MS * 9 / 10, NOW), Ok(()));
        let edge = rules.judge(NOW - HOUR_MS * 9 / 10 - 1_000, NOW);
        assert!(
            matches!(edge, Err(Trap::Retention { assumed: false, .. })),
            "{edge:?}"
        );
        let text = rules
            .judge(NOW - 73 * HOUR_MS, NOW)
            .unwrap_err()
            .to_string();
        for part in ["3d 1h old", "retention.ms=3600000, 1h"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn long_retentions_keep_a_day_free_and_no_more() {
        let month = 30 * 24 * HOUR_MS;
        let rules = rules(&[
            ("cleanup.policy", "delete"),
            ("retention.ms", &month.to_string()),
        ]);
        assert_eq!(rules.judge(NOW - 29 * 24 * HOUR_MS, NOW), Ok(()));
        assert!(rules.judge(NOW - 29 * 24 * HOUR_MS - 1_000, NOW).is_err());
    }

    #[test]
    fn topics_that_keep_or_date_records_themselves_trap_none() {
        let harmless: [&[(&str, &str)]; 4] = [
            &[("cleanup.policy", "compact"), ("retention.ms", "1000")],
            &[("cleanup.policy", "delete"), ("retention.ms", "-1")],
            &[
                ("cleanup.policy", "delete"),
                ("retention.ms", "1000"),
                ("message.timestamp.type", "LogAppendTime"),
                ("message.timestamp.after.max.ms", "1000"),
            ],
            &[("message.timestamp.before.max.ms", "9223372036854775807")],
        ];
        for settings in harmless {
            assert_eq!(rules(settings).judge(0, NOW), Ok(()), "{settings:?}");
        }
        let both = rules(&[
            ("cleanup.policy", "compact,delete"),
            ("retention.ms", "1000"),
        ]);
        assert!(both.judge(0, NOW).is_err());
    }

    #[test]
    fn limits_of_timestamps_count_both_ways_and_by_their_old_name() {
        let rules_now = rules(&[
            ("message.timestamp.before.max.ms", "3600000"),
            ("message.timestamp.after.max.ms", "60000"),
        ]);
        assert!(matches!(
            rules_now.judge(NOW - HOUR_MS, NOW),
            Err(Trap::Behind { .. })
        ));
        assert!(matches!(
            rules_now.judge(NOW + 59_000, NOW),
            Err(Trap::Ahead { .. })
        ));
        assert_eq!(rules_now.judge(NOW + 50_000, NOW), Ok(()));
        let old_name = rules(&[("message.timestamp.difference.max.ms", "60000")]);
        assert!(
            old_name.judge(NOW - 61_000, NOW).is_err()
                && old_name.judge(NOW + 61_000, NOW).is_err()
        );
    }

    #[test]
    fn a_topic_nobody_may_look_at_is_assumed_to_be_like_most() {
        let rules = TimeRules::of(None);
        assert_eq!(rules.judge(NOW - 24 * HOUR_MS, NOW), Ok(()));
        let text = rules
            .judge(NOW - 8 * 24 * HOUR_MS, NOW)
            .unwrap_err()
            .to_string();
        assert!(text.contains("may not see"), "{text}");
    }

    #[test]
    fn durations_are_words() {
        let text = |seconds| words(Duration::from_secs(seconds));
        assert_eq!(
            [text(5), text(60), text(3_661), text(260_000)],
            ["5s", "1min", "1h 1min", "3d"]
        );
        assert_eq!(words(Duration::from_millis(20)), "20 ms");
    }
}
