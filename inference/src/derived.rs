//! The records a model writes, as JSON: scores, and events in the stream of alerts.
//!
//! Each says what it rests on: the model with its version and the SHA-256 of its file, and the
//! window's range of offsets and times in the stream of the model's first input.

use crate::alert::{Change, Severity, Transition};
use crate::asset::LateValues;
use crate::config::{Model, OutputKind};
use crate::drift::{ColumnShift, Shift};
use crate::runner::Score;
use crate::window::Mark;
use serde::{Deserialize, Serialize};
use skerry_store::{Kind, Record, WallNanos};

/// Most bytes of each record with all around it: names of 64 bytes, a hash in hex, numbers, and
/// the JSON around them.
pub(crate) const SCORE_BYTES_MAX: usize = 1_200;
pub(crate) const ALERT_BYTES_MAX: usize = 1_300;
pub(crate) const DRIFT_BYTES_MAX: usize = 2_000;
pub(crate) const LATE_BYTES_MAX: usize = 900;
/// Columns that a drift event names.
const COLUMNS_TOLD: usize = 4;
/// What a record has of a name that somebody else chose the length of.
const NAME_CHARS_MAX: usize = 48;

/// Which model it was, as its package tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Provenance {
    /// Of the ONNX file, in hex.
    pub(crate) sha256: String,
    /// At most 64 bytes, where the package has one.
    pub(crate) version: Option<String>,
}

/// A window that was handed out to be scored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Due {
    pub(crate) asset: usize,
    /// 0 for the asset's first score ever, then without a hole.
    pub(crate) sequence: u64,
    /// What the graph is given, see [`Model::tensor`].
    pub(crate) window: Vec<f32>,
    pub(crate) oldest: Mark,
    pub(crate) newest: Mark,
    /// Late values since the window before, where they are to be told of.
    pub(crate) late: LateValues,
}

/// What is told besides scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EventKind {
    Alert(Change),
    Drift { raised: bool },
    Late,
}

impl EventKind {
    /// Tells events apart that one score or row led to.
    pub(crate) const fn key(self) -> u8 {
        match self {
            Self::Alert(_) => b'a',
            Self::Drift { .. } => b'd',
            Self::Late => b'l',
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Alert(_) => "alert",
            Self::Drift { .. } => "drift",
            Self::Late => "late",
        }
    }
}

#[derive(Serialize)]
struct ScorePayload<'a> {
    model: &'a str,
    asset: &'a str,
    kind: OutputKind,
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
    event: &'static str,
    model: &'a str,
    asset: &'a str,
    kind: OutputKind,
    state: Change,
    severity: Severity,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    /// What was passed: the one for raising, or the one for clearing.
    threshold: f32,
    /// Alerts that the rate limit held back since the one before.
    #[serde(skip_serializing_if = "is_zero")]
    suppressed: u32,
    /// Of the score that tipped it.
    sequence: u64,
    #[serde(flatten)]
    basis: Basis<'a>,
}

#[derive(Serialize)]
struct DriftPayload<'a> {
    event: &'static str,
    model: &'a str,
    asset: &'a str,
    state: &'static str,
    severity: Severity,
    /// Of the block that was held against the model's reference.
    rows: u32,
    /// The worst first.
    columns: Vec<DriftedColumn<'a>>,
    #[serde(flatten)]
    basis: Basis<'a>,
}

#[derive(Serialize)]
struct DriftedColumn<'a> {
    input: &'a str,
    #[serde(flatten)]
    shift: &'a ColumnShift,
}

#[derive(Serialize)]
struct LatePayload<'a> {
    event: &'static str,
    model: &'a str,
    asset: &'a str,
    severity: Severity,
    /// Values left out because their rows were made before they came.
    count: u64,
    late_from_ns: i64,
    late_to_ns: i64,
    #[serde(flatten)]
    basis: Basis<'a>,
}

/// What a record rests on.
#[derive(Serialize)]
struct Basis<'a> {
    sha256: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    stream: &'a str,
    first_offset: u64,
    last_offset: u64,
    from_ns: i64,
    to_ns: i64,
}

impl<'a> Basis<'a> {
    fn of(
        model: &'a Model,
        Provenance { sha256, version }: &'a Provenance,
        (oldest, newest): (Mark, Mark),
    ) -> Self {
        Self {
            sha256,
            version: version.as_deref(),
            stream: model.inputs[0].stream.as_str(),
            first_offset: oldest.offset.0,
            last_offset: newest.offset.0,
            from_ns: oldest.time.0,
            to_ns: newest.time.0,
        }
    }
}

pub(crate) fn score_record(
    model: &Model,
    provenance: &Provenance,
    due: &Due,
    score: &Score,
    now: WallNanos,
) -> Record {
    let payload = ScorePayload {
        model: &model.name,
        asset: &model.assets[due.asset],
        kind: model.kind,
        score: score.value,
        class: score.class.as_deref().map(shortened),
        sequence: due.sequence,
        basis: Basis::of(model, provenance, (due.oldest, due.newest)),
    };
    let source = source(model, due.asset);
    record(Kind::Score, source, &payload, due.newest.time, now)
}

pub(crate) fn alert_record(
    model: &Model,
    provenance: &Provenance,
    due: &Due,
    score: &Score,
    transition: Transition,
    now: WallNanos,
) -> Record {
    let payload = AlertPayload {
        event: EventKind::Alert(transition.change).word(),
        model: &model.name,
        asset: &model.assets[due.asset],
        kind: model.kind,
        state: transition.change,
        severity: transition.severity,
        score: score.value,
        class: score.class.as_deref().map(shortened),
        threshold: transition.threshold,
        suppressed: transition.suppressed,
        sequence: due.sequence,
        basis: Basis::of(model, provenance, (due.oldest, due.newest)),
    };
    let source = source(model, due.asset);
    record(Kind::Alert, source, &payload, due.newest.time, now)
}

/// Of a block of rows that ended with `newest`; so many of them as the window has are its basis.
pub(crate) fn drift_record(
    model: &Model,
    provenance: &Provenance,
    asset: usize,
    shift: &Shift,
    marks: (Mark, Mark),
    now: WallNanos,
) -> Record {
    let kind = EventKind::Drift {
        raised: shift.raised,
    };
    let worst = shift.columns.iter().take(COLUMNS_TOLD);
    let payload = DriftPayload {
        event: kind.word(),
        model: &model.name,
        asset: &model.assets[asset],
        state: if shift.raised { "raised" } else { "cleared" },
        severity: Severity::Info,
        rows: shift.rows,
        columns: worst
            .map(|shift| DriftedColumn {
                input: shortened(model.input_of(shift.column).source.template()),
                shift,
            })
            .collect(),
        basis: Basis::of(model, provenance, marks),
    };
    let source = format!("{}/{}", source(model, asset), kind.word());
    record(Kind::Alert, source, &payload, marks.1.time, now)
}

pub(crate) fn late_record(
    model: &Model,
    provenance: &Provenance,
    due: &Due,
    now: WallNanos,
) -> Record {
    let late = due.late;
    let payload = LatePayload {
        event: EventKind::Late.word(),
        model: &model.name,
        asset: &model.assets[due.asset],
        severity: Severity::Info,
        count: late.count,
        late_from_ns: late.from.0,
        late_to_ns: late.to.0,
        basis: Basis::of(model, provenance, (due.oldest, due.newest)),
    };
    let source = format!("{}/{}", source(model, due.asset), EventKind::Late.word());
    record(Kind::Alert, source, &payload, due.newest.time, now)
}

fn source(model: &Model, asset: usize) -> String {
    format!("{}/{}", model.name, model.assets[asset])
}

fn record(
    kind: Kind,
    source: String,
    payload: &impl Serialize,
    time: WallNanos,
    now: WallNanos,
) -> Record {
    let payload = serde_json::to_vec(payload).expect("a payload has string keys only");
    let mut record = Record::new(kind, source, payload);
    // It is about the window's end, however late it was computed.
    record.source_time = Some(time);
    record.ingest_time = now;
    record
}

fn shortened(name: &str) -> &str {
    let end = name.char_indices().nth(NAME_CHARS_MAX);
    end.map_or(name, |(end, _)| &name[..end])
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks with a reference"
)]
fn is_zero(count: &u32) -> bool {
    *count == 0
}
