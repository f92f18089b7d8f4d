use super::*;
use crate::config::{ModelOptions, Pace};
use crate::fixture;

const MS: i64 = 1_000_000;

fn grid(late_ms: u64) -> Grid {
    Grid {
        period: Duration::from_millis(100),
        late: Duration::from_millis(late_ms),
        report_late: false,
    }
}

/// Two columns on a grid of 100 ms; a value is stale after a second.
fn resampler(fill: Fill, late_ms: u64) -> Resampler {
    let mut options: ModelOptions = fixture::options();
    for input in &mut options.inputs {
        input.fill = fill;
    }
    options.pace = Pace::Grid(grid(late_ms));
    options.stale_after = Duration::from_secs(1);
    let model = Model::new(options).expect("good options");
    Resampler::new(&model, grid(late_ms))
}

fn sample(ms: i64, value: Result<f32, Skip>) -> Sample {
    Sample {
        time: WallNanos(ms * MS),
        offset: Offset(ms as u64),
        value,
    }
}

/// What comes of it, as milliseconds with the row, or with why there is none at how many points.
#[derive(Debug, Clone, PartialEq)]
enum Out {
    Row(i64, Vec<f32>),
    None(Skip, u64),
    Late(i64),
}

fn feed(resampler: &mut Resampler, column: usize, ms: i64, value: Result<f32, Skip>) -> Vec<Out> {
    if !resampler.take(column, sample(ms, value)) {
        return vec![Late(ms)];
    }
    let mut row = Vec::new();
    let closed = std::iter::from_fn(|| {
        Some(match resampler.close(&mut row)? {
            Point::Row { time, .. } => Row(time.0 / MS, row.clone()),
            Point::Skipped { why, points } => Out::None(why, points),
        })
    });
    closed.collect()
}

/// Good values of (column, milliseconds, value), one after the other.
fn run(resampler: &mut Resampler, values: &[(usize, i64, f32)]) -> Vec<Out> {
    let outs = values
        .iter()
        .flat_map(|(column, ms, value)| feed(resampler, *column, *ms, Ok(*value)));
    outs.collect()
}

use Out::{Late, Row};

#[test]
fn held_values_make_rows_at_even_distances() {
    let values = [
        (0, 90, 1.0),
        (1, 95, 10.0),
        (0, 150, 2.0),
        (1, 340, 11.0),
        (0, 400, 3.0),
        (0, 401, 4.0),
    ];
    let expected = [
        Row(100, vec![1.0, 10.0]),
        Row(200, vec![2.0, 10.0]),
        Row(300, vec![2.0, 10.0]),
        // A value at a point is that point's, and it is closed by the next.
        Row(400, vec![3.0, 11.0]),
    ];
    assert_eq!(run(&mut resampler(Fill::Hold, 0), &values), expected);
}

#[test]
fn lines_are_drawn_between_values() {
    let values = [
        (0, 100, 1.0),
        (1, 100, 0.0),
        (0, 250, 4.0),
        (1, 500, 8.0),
        (0, 550, 4.0),
        (1, 600, 8.0),
        (0, 900, 0.0),
    ];
    let expected = [
        Row(100, vec![1.0, 0.0]),
        Row(200, vec![3.0, 2.0]),
        Row(300, vec![4.0, 4.0]),
        Row(400, vec![4.0, 6.0]),
        Row(500, vec![4.0, 8.0]),
    ];
    let outs = run(&mut resampler(Fill::Linear, 400), &values);
    assert_eq!(outs[..4], expected[..4]);
    assert!(
        outs.len() == 4,
        "500 has to stay open until 900 has passed: {outs:?}"
    );
}

#[test]
fn a_line_without_its_end_is_no_row() {
    let mut resampler = resampler(Fill::Linear, 200);
    let values = [(0, 100, 1.0), (1, 100, 0.0), (0, 150, 4.0), (0, 450, 4.0)];
    let outs = run(&mut resampler, &values);
    assert_eq!(
        outs,
        [Row(100, vec![1.0, 0.0]), Out::None(Skip::NoSuccessor, 1)]
    );
}

#[test]
fn without_a_value_in_between_there_is_no_row_where_none_is_made_up() {
    let values = [
        (0, 90, 1.0),
        (1, 90, 10.0),
        (0, 190, 2.0),
        (0, 290, 3.0),
        (1, 291, 11.0),
        (0, 350, 4.0),
    ];
    let expected = [
        Row(100, vec![1.0, 10.0]),
        Out::None(Skip::NoValue, 1),
        Row(300, vec![3.0, 11.0]),
    ];
    assert_eq!(run(&mut resampler(Fill::Drop, 0), &values), expected);
}

#[test]
fn stragglers_are_waited_for_and_what_is_later_is_late() {
    let mut resampler = resampler(Fill::Hold, 250);
    let values = [
        (0, 100, 1.0),
        (0, 200, 2.0),
        (0, 300, 3.0),
        // In time for the points 100 and 200, which are open until something is past 450.
        (1, 80, 0.5),
        (1, 100, 10.0),
        (1, 180, 11.0),
        (0, 460, 4.0),
        (1, 190, 99.0),
        (1, 200, 99.0),
        (1, 201, 12.0),
        (0, 560, 5.0),
    ];
    let expected = [
        Row(100, vec![1.0, 10.0]),
        Row(200, vec![2.0, 11.0]),
        Late(190),
        Late(200),
        Row(300, vec![3.0, 12.0]),
    ];
    assert_eq!(run(&mut resampler, &values), expected);
}

#[test]
fn a_long_silence_costs_one_step_and_is_counted_by_points() {
    let mut resampler = resampler(Fill::Hold, 0);
    let day = 86_400_000;
    let outs = run(
        &mut resampler,
        &[(0, 100, 1.0), (1, 100, 2.0), (0, day, 3.0), (1, day, 4.0)],
    );
    let rows = outs.iter().filter(|out| matches!(out, Row(..))).count();
    assert_eq!(rows, 11, "held for a second: {outs:?}");
    let points = (day / 100 - 12) as u64;
    assert_eq!(outs.last(), Some(&Out::None(Skip::Stale, points)));
    assert_eq!(outs.len(), 12);
    let outs = run(&mut resampler, &[(0, day + 1, 5.0)]);
    assert_eq!(outs, [Row(day, vec![3.0, 4.0])]);
}

#[test]
fn a_bad_value_ends_the_good_one() {
    let mut resampler = resampler(Fill::Hold, 0);
    run(&mut resampler, &[(0, 100, 1.0), (1, 100, 2.0)]);
    assert_eq!(
        feed(&mut resampler, 1, 150, Err(Skip::BadStatus)),
        [Row(100, vec![1.0, 2.0])]
    );
    assert_eq!(
        feed(&mut resampler, 0, 450, Ok(1.0)),
        [Out::None(Skip::BadStatus, 3)]
    );
    let outs = run(&mut resampler, &[(1, 460, 3.0), (0, 510, 1.0)]);
    assert_eq!(outs, [Row(500, vec![1.0, 3.0])]);
}

#[test]
fn times_at_the_ends_of_the_calendar_stop_nothing() {
    for fill in [Fill::Hold, Fill::Linear, Fill::Drop] {
        let mut resampler = resampler(fill, 100);
        for nanos in [i64::MIN, 0, i64::MAX, i64::MIN, i64::MAX] {
            for column in 0..2 {
                let sample = Sample {
                    time: WallNanos(nanos),
                    ..sample(0, Ok(1.0))
                };
                if resampler.take(column, sample) {
                    let mut row = Vec::new();
                    let steps = std::iter::from_fn(|| resampler.close(&mut row)).count();
                    assert!(steps < 100, "{steps}");
                }
            }
        }
    }
}

/// Small and seeded.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: i64) -> i64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as i64) % count
    }
}

/// The rule without any thrift: every value ever taken is kept and searched.
fn plainly(
    taken: &[(usize, Sample)],
    column: usize,
    time: WallNanos,
    fill: Fill,
) -> Result<f32, Skip> {
    let own = taken.iter().filter(|(at, _)| *at == column);
    let own: Vec<&Sample> = own.map(|(_, sample)| sample).collect();
    let before = own.iter().filter(|sample| sample.time <= time);
    let before = before
        .max_by_key(|sample| sample.time)
        .ok_or(Skip::NoValue)?;
    let after = own.iter().filter(|sample| sample.time > time);
    let after = after.min_by_key(|sample| sample.time);
    let age = time.0 - before.time.0;
    match fill {
        Fill::Drop if age >= 100 * MS => Err(Skip::NoValue),
        Fill::Linear if age > 0 => {
            let after = after.ok_or(Skip::NoSuccessor)?;
            let distance = after.time.0 - before.time.0;
            if distance > 1_000 * MS {
                return Err(Skip::Stale);
            }
            let (from, to) = (f64::from(before.value?), f64::from(after.value?));
            Ok((from + (to - from) * age as f64 / distance as f64) as f32)
        }
        _ if age > 1_000 * MS => Err(Skip::Stale),
        _ => before.value,
    }
}

/// Whatever comes in whatever order, each point has the row that all values taken by then give,
/// each is closed once and in order, and a saved resampler goes on as one that was not.
#[test]
fn thrift_changes_no_row() {
    for seed in 0..150 {
        let mut dice = Dice(seed);
        let fill = [Fill::Hold, Fill::Linear, Fill::Drop][seed as usize % 3];
        let late_ms = [0, 100, 250, 1_000][dice.below(4) as usize];
        let late_ms = if fill == Fill::Linear {
            late_ms.max(100)
        } else {
            late_ms
        };
        let fresh = || resampler(fill, late_ms as u64);
        let mut resampler = fresh();
        let mut kept = std::collections::BTreeMap::new();
        let mut taken: Vec<(usize, Sample)> = Vec::new();
        let (mut now, mut next) = (0, None::<i64>);
        let (mut rows, mut skipped) = (0, 0);
        for _ in 0..300 {
            now += if dice.below(40) == 0 {
                3_000
            } else {
                dice.below(80)
            };
            let ms = now - dice.below(2) * dice.below(500);
            let value = if dice.below(12) == 0 {
                Err(Skip::NotFinite)
            } else {
                Ok(dice.below(100) as f32)
            };
            let column = dice.below(2) as usize;
            let sample = sample(ms, value);
            if !resampler.take(column, sample) {
                assert!(
                    next.is_some_and(|next| ms <= (next - 1) * 100),
                    "seed {seed}"
                );
                continue;
            }
            // Of two at one time, the one that came last.
            taken.retain(|(at, known)| (*at, known.time) != (column, sample.time));
            taken.push((column, sample));
            next.get_or_insert(ceil(sample.time, 100 * MS));
            let mut row = Vec::new();
            while let Some(closed) = resampler.close(&mut row) {
                let at = next.expect("it is set");
                let points = match &closed {
                    Point::Row { .. } => 1,
                    Point::Skipped { points, .. } => *points as i64,
                };
                for index in at..at + points {
                    let time = WallNanos(index * 100 * MS);
                    let plain: Result<Vec<f32>, Skip> = (0..2)
                        .map(|column| plainly(&taken, column, time, fill))
                        .collect();
                    match &closed {
                        Point::Row { .. } => assert_eq!(plain.as_ref(), Ok(&row), "seed {seed}"),
                        Point::Skipped { .. } => assert!(plain.is_err(), "seed {seed}: {plain:?}"),
                    }
                }
                match closed {
                    Point::Row { time, .. } => {
                        assert_eq!(time.0, at * 100 * MS);
                        rows += 1;
                    }
                    Point::Skipped { .. } => skipped += 1,
                }
                next = Some(at + points);
            }
            if dice.below(5) == 0 {
                kept.extend(resampler.take_changed());
                let saved: Vec<_> = kept.clone().into_iter().collect();
                let place = resampler.place();
                resampler = fresh();
                assert!(resampler.restore(place, &saved));
            }
        }
        assert!(rows + skipped > 20, "seed {seed}: {rows} {skipped}");
    }
}

#[test]
fn a_series_stays_within_its_bytes() {
    let mut resampler = resampler(Fill::Hold, 3_200);
    for ms in 0..20_000 {
        let time = WallNanos(i64::MAX - (30_000 - ms) * MS);
        let sample = Sample {
            time,
            offset: Offset(u64::MAX),
            value: Ok(f32::MIN),
        };
        assert!(resampler.take(0, sample));
        while resampler.close(&mut Vec::new()).is_some() {}
    }
    let [(0, saved)] = &resampler.take_changed()[..] else {
        panic!("one column changed");
    };
    let bytes = crate::encoding::write(saved).len();
    let most = series_bytes_max(grid(3_200));
    assert!(bytes <= most && bytes > most * 3 / 4, "{bytes} of {most}");
    assert!(most <= 4_096, "the catalog likes its values no larger");
}
