//! The records a model writes: scores and alerts, as JSON.

use crate::alert::Transition;
use crate::config::{Model, Severity};
use crate::runner::Score;
use crate::window::Mark;
use serde::Serialize;
use skerry_store::{Kind, Record, WallNanos};

/// A window that was handed out to be scored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Due {
    pub(crate) asset: usize,
    /// 0 for the asset's first score ever, then without a hole.
    pub(crate) sequence: u64,
    pub(crate) window: Vec<f32>,
    pub(crate) oldest: Mark,
    pub(crate) newest: Mark,
}

#[derive(Serialize)]
struct ScorePayload<'a> {
    model: &'a str,
    asset: &'a str,
    score: f32,
    /// The label that a classifier gives beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    sequence: u64,
    #[serde(flatten)]
    basis: Basis<'a>,
}

#[derive(Serialize)]
struct AlertPayload<'a> {
    model: &'a str,
    asset: &'a str,
    state: Transition,
    severity: Severity,
    score: f32,
    /// What the score passed: the one for raising, or the one for clearing.
    threshold: f32,
    /// Of the score that tipped it.
    sequence: u64,
    #[serde(flatten)]
    basis: Basis<'a>,
}

/// What a score rests on: the model's file, and the clock records of the window's rows.
#[derive(Serialize)]
struct Basis<'a> {
    sha256: &'a str,
    stream: &'a str,
    first_offset: u64,
    last_offset: u64,
    from_ns: i64,
    to_ns: i64,
}

impl<'a> Basis<'a> {
    fn of(model: &'a Model, sha256: &'a str, due: &Due) -> Self {
        Self {
            sha256,
            // The clock is the first input.
            stream: model.inputs[0].stream.as_str(),
            first_offset: due.oldest.offset.0,
            last_offset: due.newest.offset.0,
            from_ns: due.oldest.time.0,
            to_ns: due.newest.time.0,
        }
    }
}

pub(crate) fn score_record(
    model: &Model,
    sha256: &str,
    due: &Due,
    score: &Score,
    now: WallNanos,
) -> Record {
    let payload = ScorePayload {
        model: &model.name,
        asset: &model.assets[due.asset],
        score: score.value,
        class: score.class.as_deref(),
        sequence: due.sequence,
        basis: Basis::of(model, sha256, due),
    };
    record(Kind::Score, model, due, &payload, now)
}

pub(crate) fn alert_record(
    model: &Model,
    sha256: &str,
    due: &Due,
    score: f32,
    state: Transition,
    now: WallNanos,
) -> Record {
    let payload = AlertPayload {
        model: &model.name,
        asset: &model.assets[due.asset],
        state,
        severity: model.severity,
        score,
        threshold: match state {
            Transition::Raised => model.thresholds.raise,
            Transition::Cleared => model.thresholds.clear,
        },
        sequence: due.sequence,
        basis: Basis::of(model, sha256, due),
    };
    record(Kind::Alert, model, due, &payload, now)
}

fn record(
    kind: Kind,
    model: &Model,
    due: &Due,
    payload: &impl Serialize,
    now: WallNanos,
) -> Record {
    let source = format!("{}/{}", model.name, model.assets[due.asset]);
    let payload = serde_json::to_vec(payload).expect("a payload has string keys only");
    let mut record = Record::new(kind, source, payload);
    // The score is about the window's end, however late it was computed.
    record.source_time = Some(due.newest.time);
    record.ingest_time = now;
    record
}
