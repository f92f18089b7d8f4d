use super::*;
use crate::fixture;
use skerry_store::Kind;
use std::collections::BTreeMap;

/// The part of the log that a model sees, with appends that happen or do not.
#[derive(Default, Clone)]
struct Disk {
    cursors: [Offset; 2],
    entries: BTreeMap<(String, Bytes), Bytes>,
    scores: Vec<Record>,
    alerts: Vec<Record>,
}

impl Disk {
    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Advance {
                    cursor,
                    stream,
                    next,
                } => {
                    assert_eq!(cursor, "model:bearing");
                    let index = ["machines", "telemetry"]
                        .iter()
                        .position(|name| *name == stream);
                    self.cursors[index.expect("an input stream")] = next;
                }
                Change::Put { bucket, key, value } => {
                    drop(self.entries.insert((bucket, key), value))
                }
                Change::Delete { bucket, key } => drop(self.entries.remove(&(bucket, key))),
            }
        }
    }

    fn bucket(&self, bucket: &str) -> Vec<(Bytes, Bytes)> {
        let entries = self.entries.iter().filter(|((name, _), _)| name == bucket);
        entries
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect()
    }

    fn deliver(&mut self, posted: Vec<Posted>) {
        self.apply(posted.iter().map(Posted::delivered).collect());
        self.alerts
            .extend(posted.into_iter().map(|alert| alert.record));
    }

    fn payloads(records: &[Record]) -> Vec<serde_json::Value> {
        let payload = |record: &Record| serde_json::from_slice(&record.payload).expect("JSON");
        records.iter().map(payload).collect()
    }

    /// In the order per source, which is the order that is promised.
    fn by_source(records: &[Record]) -> Vec<serde_json::Value> {
        let mut records = records.to_vec();
        records.sort_by(|one, other| one.source.cmp(&other.source));
        Self::payloads(&records)
    }
}

fn model() -> Model {
    let mut options = fixture::options();
    options.assets = vec!["a".to_owned(), "b".to_owned()];
    (options.rows, options.step) = (5, 3);
    Model::new(options).expect("good options")
}

fn provenance() -> Provenance {
    Provenance {
        sha256: "5ha".to_owned(),
        version: Some("1.4".to_owned()),
    }
}

/// Two assets on two streams; values swing so that alerts come and go.
fn input() -> Vec<(usize, Offset, Record)> {
    let mut next = [0_u64; 2];
    let mut all = Vec::new();
    for n in 0..600_u32 {
        let asset = ["a", "b"][n as usize % 2];
        let slow = n % 10 < 2;
        let swing = (f64::from(n) / 25.0).sin().abs();
        let payload = format!(r#"{{"value":{swing}}}"#);
        let mut record = if slow {
            Record::new(Kind::Mqtt, format!("plant/{asset}/temperature"), payload)
        } else {
            Record::new(Kind::Opcua, format!("{asset}/vibration"), payload)
        };
        record.ingest_time = WallNanos(i64::from(n) * 100_000_000);
        let stream = usize::from(slow);
        all.push((stream, Offset(next[stream]), record));
        next[stream] += 1;
    }
    all
}

/// Small, seeded, and enough to pick crash points.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % count
    }
}

fn score(due: &Due) -> f32 {
    due.window.iter().sum::<f32>() / due.window.len() as f32
}

/// Runs the input to its end, with a crash after one of `crash_odds` steps (0: never).
fn run(crash_odds: u64, seed: u64) -> Disk {
    let mut dice = Dice(seed);
    let mut crashes =
        |disk: &Disk| (crash_odds > 0 && dice.below(crash_odds) == 0).then(|| disk.clone());
    let input = input();
    let mut disk = Disk::default();
    let mut rounds = Dice(seed ^ 0xABCD);
    'life: loop {
        // What a start does: deliver what was posted, then read on from the cursors.
        let posted = disk.bucket(state::OUTBOX_BUCKET);
        let posted = posted
            .into_iter()
            .filter_map(|(key, value)| Posted::read(key, &value));
        disk.deliver(posted.collect());
        let entries = disk.bucket(state::WINDOW_BUCKET);
        let (mut engine, obsolete) =
            Engine::new(model(), provenance(), None, disk.cursors.to_vec(), &entries);
        assert_eq!(obsolete, []);
        let left = input
            .iter()
            .filter(|(stream, offset, _)| *offset >= disk.cursors[*stream]);
        let left: Vec<_> = left.collect();
        let mut at = 0;
        while at < left.len() {
            for _ in 0..=rounds.below(12) {
                let Some((stream, offset, record)) = left.get(at) else {
                    break;
                };
                engine.take(*stream, *offset, record);
                at += 1;
            }
            for due in engine.take_due() {
                engine.judge(&due, &score(&due).into(), WallNanos(7));
            }
            if crashes(&disk).is_some() {
                continue 'life;
            }
            let Some(outcome) = engine.finish_round(at == left.len()) else {
                continue;
            };
            disk.apply(outcome.changes);
            disk.scores.extend(outcome.scores);
            if crashes(&disk).is_some() {
                continue 'life;
            }
            disk.deliver(outcome.events);
            if crashes(&disk).is_some() {
                continue 'life;
            }
        }
        return disk;
    }
}

#[test]
fn no_score_and_no_alert_is_lost_or_doubled_whenever_it_crashes() {
    let whole = run(0, 0);
    assert!(
        whole.scores.len() > 100 && whole.alerts.len() > 4,
        "the input is worth the test"
    );
    for seed in 0..200 {
        let crashed = run(2 + seed % 9, seed);
        let same =
            |ours: &[Record], theirs: &[Record]| Disk::by_source(ours) == Disk::by_source(theirs);
        assert!(
            same(&crashed.scores, &whole.scores),
            "seed {seed}: other scores"
        );
        assert!(
            same(&crashed.alerts, &whole.alerts),
            "seed {seed}: other alerts"
        );
        assert_eq!(crashed.bucket(state::OUTBOX_BUCKET), []);
    }
}

#[path = "once_tests.rs"]
mod once;

#[test]
fn scores_say_what_they_rest_on() {
    let disk = run(0, 0);
    let first = &disk.scores[0];
    assert_eq!(
        (first.kind, first.source.as_str()),
        (Kind::Score, "bearing/a")
    );
    assert_eq!(first.ingest_time, WallNanos(7));
    let payload = &Disk::payloads(&disk.scores)[0];
    let expected = serde_json::json!({
        "model": "bearing", "asset": "a", "sequence": 0, "sha256": "5ha", "kind": "score", "stream": "machines",
        "from_ns": 200_000_000,
    });
    for (key, value) in expected.as_object().expect("it is one") {
        assert_eq!(payload[key], *value, "{key}: {payload}");
    }
    assert!(payload["last_offset"].as_u64() > payload["first_offset"].as_u64());

    let alerts = Disk::payloads(&disk.alerts);
    assert_eq!(disk.alerts[0].kind, Kind::Alert);
    for asset in ["a", "b"] {
        let of_asset = alerts.iter().filter(|alert| alert["asset"] == asset);
        let states: Vec<_> = of_asset.map(|alert| alert["state"].as_str()).collect();
        let expected = [Some("raised"), Some("cleared")].into_iter().cycle();
        assert!(
            states.iter().copied().eq(expected.take(states.len())),
            "{states:?}"
        );
    }
}

#[test]
fn a_class_is_told_beside_its_score_and_only_where_there_is_one() {
    let mark = Mark {
        offset: Offset(1),
        time: WallNanos(1),
    };
    let due = Due {
        asset: 0,
        sequence: 0,
        window: Vec::new(),
        oldest: mark,
        newest: mark,
        late: LateValues::default(),
    };
    let class_of = |score: Score| {
        let record = score_record(&model(), &provenance(), &due, &score, WallNanos(7));
        Disk::payloads(&[record])[0].get("class").cloned()
    };
    assert_eq!(class_of(Score::from(0.5)), None);
    let worn = Score {
        value: 0.5,
        class: Some("worn".into()),
    };
    assert_eq!(class_of(worn), Some("worn".into()));
}

#[test]
fn another_binding_starts_the_windows_over_and_keeps_the_alerts() {
    let disk = run(0, 0);
    let entries = disk.bucket(state::WINDOW_BUCKET);
    assert_eq!(entries.len(), 4, "a state and one chunk for each asset");
    let start = |model| Engine::new(model, provenance(), None, disk.cursors.to_vec(), &entries);
    let deleted = |changes: &[Change]| {
        let is_delete = |change: &Change| matches!(change, Change::Delete { .. });
        assert!(changes.iter().all(is_delete));
        changes.len()
    };
    let (same, obsolete) = start(model());
    assert_eq!(deleted(&obsolete), 0);

    let mut options = fixture::options();
    (options.rows, options.step) = (5, 3);
    let (_, obsolete) = start(Model::new(options.clone()).expect("good options"));
    assert_eq!(deleted(&obsolete), 2, "b is gone");

    options.rows = 4;
    let (other, obsolete) = start(Model::new(options).expect("good options"));
    assert_eq!(deleted(&obsolete), 3, "a's rows mean another thing");
    let (same, other) = (&same.assets[0], &other.assets[0]);
    assert_eq!((other.alert, other.sequence), (same.alert, same.sequence));
    assert_eq!(other.window().total(), 0);
}

#[test]
fn rows_that_cannot_be_read_start_a_window_over() {
    let disk = run(0, 0);
    let mut entries = disk.bucket(state::WINDOW_BUCKET);
    let rows = entries
        .iter_mut()
        .find(|(key, _)| key.starts_with(b"bearing\0a\0w"));
    rows.expect("a has rows").1 = Bytes::from_static(b"garbage");
    let cursors = disk.cursors.to_vec();
    let (engine, obsolete) = Engine::new(model(), provenance(), None, cursors, &entries);
    assert_eq!(obsolete.len(), 1);
    assert_eq!(engine.assets[0].window().total(), 0);
    assert!(engine.assets[1].window().total() > 0, "b is whole");
}

#[test]
fn what_led_to_no_score_is_written_now_and_then() {
    let (mut engine, _) = Engine::new(model(), provenance(), None, vec![Offset::ZERO; 2], &[]);
    let other = Record::new(Kind::Opcua, "nobody/asked", "{}");
    let mut written = 0;
    for n in 0..UNSAVED_RECORDS_MAX as u64 * 3 {
        engine.take(0, Offset(n), &other);
        let Some(outcome) = engine.finish_round(false) else {
            continue;
        };
        written += 1;
        assert_eq!(
            outcome.changes.len(),
            1,
            "only the cursor: {:?}",
            outcome.changes
        );
    }
    assert_eq!(written, 3);
    assert_eq!(engine.finish_round(true), None);
}

#[test]
fn rows_that_were_not_made_are_counted_by_reason() {
    let (mut engine, _) = Engine::new(model(), provenance(), None, vec![Offset::ZERO; 2], &[]);
    let mut next = 0;
    let mut clock = |engine: &mut Engine, payload: &str, status: u32| {
        let mut record = Record::new(Kind::Opcua, "a/vibration", payload.to_owned());
        record.status = status;
        record.ingest_time = WallNanos(next as i64);
        engine.take(0, Offset(next), &record);
        next += 1;
    };
    clock(&mut engine, r#"{"value":1}"#, 0);
    let mut temperature = Record::new(Kind::Mqtt, "plant/a/temperature", r#"{"value":40}"#);
    temperature.ingest_time = WallNanos(0);
    engine.take(1, Offset::ZERO, &temperature);
    clock(&mut engine, r#"{"value":1}"#, 0);
    clock(&mut engine, r#"{"value":1}"#, 0x8000_0000);
    clock(&mut engine, r#"{"value":"NaN"}"#, 0);
    clock(&mut engine, "not JSON", 0);
    let tally = engine.take_tally();
    let expected = Tally {
        records: 6,
        rows: 1,
        no_value: 1,
        bad_status: 1,
        not_finite: 1,
        unreadable: 1,
        bad_values: 3,
        ..Tally::default()
    };
    assert_eq!(tally, expected);
}
