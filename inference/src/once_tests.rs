//! Once and only once, with all that a binding can have: grids, late values, windows by time,
//! features, drift, limits, and a model that reads another's scores. Two models on one simulated
//! disk are run to their ends, without a crash and with a crash at any point of any round.

use super::*;
use crate::alert::{Alerting, Hold, RateLimit};
use crate::config::{Grid, ModelOptions, Pace, Span};
use crate::drift::{ColumnReference, DriftOptions};
use crate::feature::Feature;
use crate::input::{Burst, Fill, Input, Source};
use std::time::Duration;

/// Everything both models read and write, by stream.
#[derive(Default, Clone)]
struct Disk {
    records: BTreeMap<String, Vec<Record>>,
    cursors: BTreeMap<(String, String), Offset>,
    entries: BTreeMap<(String, Bytes), Bytes>,
}

impl Disk {
    /// One append: all of it, or, after a crash, nothing.
    fn append(&mut self, stream: &str, records: Vec<Record>, changes: Vec<Change>) {
        let log = self.records.entry(stream.to_owned()).or_default();
        log.extend(records);
        for change in changes {
            match change {
                Change::Advance {
                    cursor,
                    stream,
                    next,
                } => drop(self.cursors.insert((cursor, stream), next)),
                Change::Put { bucket, key, value } => {
                    drop(self.entries.insert((bucket, key), value));
                }
                Change::Delete { bucket, key } => drop(self.entries.remove(&(bucket, key))),
            }
        }
    }

    fn bucket(&self, bucket: &str, model: &Model) -> Vec<(Bytes, Bytes)> {
        let prefix = state::prefix(model);
        let entries = self.entries.iter();
        let own = entries.filter(|((name, key), _)| name == bucket && key.starts_with(&prefix));
        own.map(|((_, key), value)| (key.clone(), value.clone()))
            .collect()
    }

    fn deliver(&mut self, model: &Model, events: Vec<Posted>) {
        let changes = events.iter().map(Posted::delivered).collect();
        let records = events.into_iter().map(|event| event.record).collect();
        self.append(model.alerts.as_str(), records, changes);
    }

    /// The payloads of a stream by source; per source, the order is the one they were written in.
    fn told(&self, stream: &str) -> BTreeMap<String, Vec<serde_json::Value>> {
        let mut told: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for record in self.records.get(stream).into_iter().flatten() {
            let payload = serde_json::from_slice(&record.payload).expect("JSON");
            told.entry(record.source.clone()).or_default().push(payload);
        }
        told
    }
}

fn named(name: &str, inputs: Vec<Input>) -> ModelOptions {
    let mut options = fixture::options();
    options.name = name.to_owned();
    options.assets = vec!["a".to_owned(), "b".to_owned()];
    options.inputs = inputs;
    options
}

/// On a grid, with stragglers and late values, features of a window, and drift.
fn first() -> Model {
    let mut vibration = fixture::opcua("{asset}/vibration", "machines");
    vibration.features = vec![Feature::Rms, Feature::Slope, Feature::Kurtosis];
    let mut temperature = fixture::mqtt("plant/{asset}/temperature", "telemetry");
    temperature.fill = Fill::Linear;
    let mut options = named("first", vec![vibration, temperature]);
    (options.rows, options.step) = (8, 2);
    options.pace = Pace::Grid(Grid {
        period: Duration::from_millis(250),
        late: Duration::from_millis(1_000),
        report_late: true,
    });
    options.stale_after = Duration::from_secs(3);
    options.drift = Some(DriftOptions {
        rows: 20,
        ..DriftOptions::default()
    });
    options.alerting = Alerting {
        hold: Hold::Time(Duration::from_secs(1)),
        rate: Some(RateLimit {
            alerts: 2,
            per: Duration::from_secs(10),
        }),
        ..Alerting::at(Severity::Warning, 0.72, 0.6)
    };
    Model::new(options).expect("good options")
}

/// Reads the first one's scores, in windows by time, beside bursts.
fn second() -> Model {
    let source = Source::Model {
        model: "first".to_owned(),
        asset: "{asset}".to_owned(),
    };
    let mut scores = Input::new(source, fixture::stream("scores"));
    scores.features = vec![Feature::Mean, Feature::Last];
    let mut bursts = fixture::mqtt("plant/{asset}/burst", "telemetry");
    bursts.burst = Some(Burst { samples_max: 16 });
    bursts.features = vec![Feature::PeakToPeak];
    let mut options = named("second", vec![scores, bursts]);
    (options.rows, options.step) = (12, 1);
    options.span = Some(Span {
        window: Duration::from_secs(3),
        every: Duration::from_secs(1),
    });
    options.alerting = Alerting::at(Severity::Critical, 0.9, 0.5);
    options.scores = fixture::stream("scores2");
    Model::new(options).expect("good options")
}

fn reference(model: &Model) -> Reference {
    let column = ColumnReference {
        mean: 0.3,
        std: 0.2,
        edges: vec![0.25, 0.5, 0.75],
        shares: vec![0.25; 4],
    };
    Reference {
        columns: vec![column; model.columns()],
    }
}

/// Values of two assets with their own times, some of them late, some bad, with a silence, and
/// once with the clock set back.
fn fill(disk: &mut Disk, seed: u64) {
    let mut dice = Dice(seed);
    let mut now = 0;
    for n in 0..1_500_u32 {
        now += 40 + dice.below(40) as i64;
        now += if n == 700 { 9_000 } else { 0 };
        now -= if n == 1_100 { 30_000 } else { 0 };
        let asset = ["a", "b"][dice.below(2) as usize];
        let swing = (f64::from(n) / 60.0).sin().abs();
        let value = match dice.below(50) {
            0 => r#""NaN""#.to_owned(),
            1 => r#""broken""#.to_owned(),
            _ => format!("{}", swing + dice.below(100) as f64 / 1_000.0),
        };
        let payload = format!(r#"{{"value":{value}}}"#);
        let (stream, mut record) = match dice.below(8) {
            0 | 1 => {
                let source = format!("plant/{asset}/temperature");
                ("telemetry", Record::new(Kind::Mqtt, source, payload))
            }
            2 => {
                let samples = format!(r#"{{"value":[0,{swing},0.5]}}"#);
                let source = format!("plant/{asset}/burst");
                ("telemetry", Record::new(Kind::Mqtt, source, samples))
            }
            _ => {
                let source = format!("{asset}/vibration");
                ("machines", Record::new(Kind::Opcua, source, payload))
            }
        };
        record.ingest_time = WallNanos(now * 1_000_000);
        let behind = if dice.below(6) == 0 {
            dice.below(2_500) as i64
        } else {
            0
        };
        record.source_time = Some(WallNanos((now - behind) * 1_000_000));
        disk.append(stream, vec![record], Vec::new());
    }
}

/// One life of a model, until it has read everything or crashes. True if it got to the end.
fn live(disk: &mut Disk, model: &Model, dice: &mut Dice, crash_odds: u64) -> bool {
    let mut crash = {
        let mut dice = Dice(dice.below(1 << 30));
        move || crash_odds > 0 && dice.below(crash_odds) == 0
    };
    let posted = disk.bucket(state::OUTBOX_BUCKET, model).into_iter();
    let posted = posted.filter_map(|(key, value)| Posted::read(key, &value));
    disk.deliver(model, posted.collect());
    let cursor = state::cursor(model);
    let streams = model.streams();
    let from = streams.iter().map(|stream| {
        let key = (cursor.clone(), stream.as_str().to_owned());
        disk.cursors.get(&key).copied().unwrap_or(Offset::ZERO)
    });
    let from: Vec<Offset> = from.collect();
    let entries = disk.bucket(state::WINDOW_BUCKET, model);
    let reference = Some(reference(model));
    let (mut engine, obsolete) = Engine::new(
        model.clone(),
        provenance(),
        reference,
        from.clone(),
        &entries,
    );
    assert_eq!(obsolete, []);
    // Merged by intake time, as far as this life sees the streams.
    let mut left: Vec<(usize, Offset, Record)> = Vec::new();
    for (index, (stream, from)) in streams.iter().zip(&from).enumerate() {
        let records = disk.records.get(stream.as_str()).into_iter().flatten();
        let records = records.enumerate().skip(from.0 as usize);
        left.extend(records.map(|(at, record)| (index, Offset(at as u64), record.clone())));
    }
    // Within a stream the order is the log's, whatever the clock said.
    let mut lanes: Vec<VecDeque<_>> = streams.iter().map(|_| VecDeque::new()).collect();
    for item in left {
        lanes[item.0].push_back(item);
    }
    let mut pop = move || {
        let fronts = lanes.iter().enumerate();
        let fronts = fronts.filter_map(|(at, lane)| Some((lane.front()?.2.ingest_time, at)));
        let (_, at) = fronts.min()?;
        lanes[at].pop_front()
    };
    let mut ended = false;
    while !ended || engine.has_left() {
        engine.resume();
        for _ in 0..=dice.below(40) {
            if engine.is_round_full() {
                break;
            }
            match pop() {
                Some((stream, offset, record)) => engine.take(stream, offset, &record),
                None => {
                    ended = true;
                    break;
                }
            }
        }
        for due in engine.take_due() {
            let mean = score(&due);
            engine.judge(&due, &Score::from(mean.abs()), due.newest.time);
        }
        if crash() {
            return false;
        }
        let Some(outcome) = engine.finish_round(ended) else {
            continue;
        };
        disk.append(model.scores.as_str(), outcome.scores, outcome.changes);
        if crash() {
            return false;
        }
        disk.deliver(model, outcome.events);
        if crash() {
            return false;
        }
    }
    true
}

/// Both models to their ends. Taking turns, the second one's windows grow while the first dies.
fn run(seed: u64, crash_odds: u64, in_turns: bool) -> Disk {
    let mut disk = Disk::default();
    fill(&mut disk, seed);
    let mut dice = Dice(seed ^ 0x5EED);
    let (first, second) = (first(), second());
    let mut lives = 0;
    while !live(&mut disk, &first, &mut dice, crash_odds) {
        if in_turns {
            live(&mut disk, &second, &mut dice, crash_odds);
        }
        lives += 1;
        assert!(lives < 10_000, "it gets nowhere");
    }
    while !live(&mut disk, &second, &mut dice, crash_odds) {}
    disk
}

#[test]
fn nothing_is_lost_or_doubled_with_all_that_a_binding_can_have() {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for seed in 0..12 {
        let whole = run(seed, 0, false);
        for payloads in whole.told("alerts").values() {
            for payload in payloads {
                let word = |key: &str| payload[key].as_str().unwrap_or_default();
                *kinds.entry(word("event").to_owned()).or_default() += 1;
            }
        }
        assert!(whole.told("scores")["first/a"].len() > 40, "worth the test");
        assert!(
            whole.told("scores2")["second/b"].len() > 10,
            "worth the test"
        );
        for crash_odds in [3, 5, 9] {
            let crashed = run(seed, crash_odds, false);
            for stream in ["scores", "scores2", "alerts"] {
                assert!(
                    crashed.told(stream) == whole.told(stream),
                    "seed {seed}, odds {crash_odds}: {stream} differs"
                );
            }
            let outbox = crashed.entries.keys();
            let waiting = outbox.filter(|(bucket, _)| bucket == state::OUTBOX_BUCKET);
            assert_eq!(waiting.count(), 0);
        }
    }
    for kind in ["alert", "drift", "late"] {
        assert!(kinds.contains_key(kind), "none of {kind}: {kinds:?}");
    }
}

/// What else a chained model's windows hold depends on how far it was ahead; that each of its
/// windows is scored once, from where the last one was, does not.
#[test]
fn a_chain_is_followed_once_while_both_die() {
    for seed in 0..12 {
        let disk = run(seed, 4, true);
        assert!(disk.told("scores") == run(seed, 0, false).told("scores"));
        for payloads in disk.told("scores2").values() {
            let numbers = payloads.iter().map(|payload| payload["sequence"].as_u64());
            assert!(
                numbers.eq((0..payloads.len() as u64).map(Some)),
                "seed {seed}"
            );
            let lasts = payloads
                .iter()
                .map(|payload| payload["last_offset"].as_u64());
            assert!(lasts.is_sorted_by(|one, other| one < other), "seed {seed}");
        }
        assert!(disk.told("scores2")["second/a"].len() > 5, "worth the test");
    }
}

#[test]
fn a_chained_score_rests_on_the_one_it_was_made_of() {
    let disk = run(1, 0, false);
    let seconds = disk.told("scores2");
    let second = &seconds["second/a"][0];
    assert_eq!(second["stream"], "scores");
    let offset = second["last_offset"].as_u64().expect("an offset");
    let first = &disk.records["scores"][offset as usize];
    assert_eq!(first.source, "first/a");
    let time = first.source_time.expect("a score has its window's time");
    assert_eq!(second["to_ns"], time.0);
}
