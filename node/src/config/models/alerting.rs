//! What of a `[[model]]` says when its scores are alerts.

use crate::config::reader::{Table, Value};
use crate::config::{number, units};
use skerry_inference::{
    Alerting, Direction, Hold, Level, OutputKind, RATE_ALERTS_MAX, RateLimit, Severity,
};
use std::ops::RangeInclusive;
use std::time::Duration;

const HOLD_SCORES_MAX: usize = 1_000;
const TIME_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(31 * 24 * 3_600);
/// A class is one of the bad ones or not: anything between serves as the threshold.
const OF_CLASSES: f64 = 0.5;

pub(super) fn read(table: &Table<'_>, kind: OutputKind) -> Option<Alerting> {
    let direction = table.optional(
        "direction",
        units::word(&[("above", Direction::Above), ("below", Direction::Below)]),
    );
    let direction = direction.unwrap_or(match kind {
        OutputKind::Rul => Direction::Below,
        OutputKind::Score | OutputKind::Class | OutputKind::Anomaly => Direction::Above,
    });
    let classes = table.optional("alert_on", |value| {
        let classes = super::texts(value)?;
        match classes.is_empty() {
            true => Err("must name at least one class".to_owned()),
            false => Ok(classes),
        }
    });
    let levels = match table.has("levels") {
        true => read_levels(table),
        false => {
            let threshold = match classes {
                Some(_) => {
                    let threshold = table.optional("threshold", number::finite);
                    Some(threshold.unwrap_or(OF_CLASSES))
                }
                None => table.required("threshold", number::finite),
            };
            read_level(table, threshold).map(|level| vec![level])
        }
    };
    let hold = table.optional("hold", hold);
    let rate = |key: &str| table.table(key).and_then(|table| read_rate(&table));
    let (rate, rate_all) = (rate("rate_limit"), rate("rate_limit_all"));
    Some(Alerting {
        direction,
        levels: levels?,
        hold: hold.unwrap_or(Hold::Scores(1)),
        rate,
        rate_all,
        classes: classes.unwrap_or_default(),
    })
}

fn read_levels(table: &Table<'_>) -> Option<Vec<Level>> {
    for key in ["threshold", "clear", "severity"] {
        if table.has(key) {
            table.problem(key, "is in each of the `levels`; leave it out here");
        }
    }
    let levels: Vec<Option<Level>> = table
        .tables("levels")
        .iter()
        .map(|table| {
            let threshold = table.required("threshold", number::finite);
            if !table.has("severity") {
                table.problem("severity", "is missing; levels differ by it");
            }
            let level = read_level(table, threshold);
            table.finish();
            level
        })
        .collect();
    levels.into_iter().collect()
}

fn read_level(table: &Table<'_>, threshold: Option<f64>) -> Option<Level> {
    let clear = table.optional("clear", number::finite);
    let severity = table.optional(
        "severity",
        units::word(&[
            ("info", Severity::Info),
            ("warning", Severity::Warning),
            ("critical", Severity::Critical),
        ]),
    );
    let threshold = threshold?;
    Some(Level {
        severity: severity.unwrap_or(Severity::Warning),
        raise: narrow(threshold),
        clear: narrow(clear.unwrap_or(threshold)),
    })
}

/// A number of scores, or a time in quotes.
fn hold(value: &Value<'_>) -> Result<Hold, String> {
    if value.integer().is_ok() {
        let count = units::count(1..=HOLD_SCORES_MAX)(value)?;
        return Ok(Hold::Scores(u32::try_from(count).unwrap_or(u32::MAX)));
    }
    let time = units::duration(TIME_RANGE)(value);
    time.map(Hold::Time)
        .map_err(|why| format!("{why}; or a number of scores, without quotes"))
}

fn read_rate(table: &Table<'_>) -> Option<RateLimit> {
    let alerts = table.required("alerts", units::count(1..=RATE_ALERTS_MAX));
    let per = table.required("per", units::duration(TIME_RANGE));
    table.finish();
    Some(RateLimit {
        alerts: alerts?,
        per: per?,
    })
}

#[expect(clippy::cast_possible_truncation, reason = "a model's score is an f32")]
fn narrow(number: f64) -> f32 {
    number as f32
}
