//! From values that come when they come to rows at even distances.
//!
//! ```text
//!   column 0    x    x x       x │  ╷  x         time ─►    │ watermark: the youngest value yet
//!   column 1      x        x     │ x╷       x                ╷ watermark − late
//!   grid      ──┼────┼────┼────┼────┼────┼────┼──           ┼ points: left of ╷ they are closed
//! ```
//! Time is that of the values themselves. A point is closed, and its row made, once some value of
//! the asset is younger by more than `late`; a value for a closed point is late, and is left out.
//! Nothing here reads a clock, so a backlog gives the rows that it would have given live.
//!
//! **Bounded.** Between two points only the first and the last value can matter, and only points
//! from the last closed one to the watermark are open: a column keeps a few values, known from
//! the configuration.

use crate::asset::Skip;
use crate::config::{Grid, LATE_POINTS_MAX, Model};
use crate::input::Fill;
use crate::window::set_aside;
use heapless::VecView;
use serde::{Deserialize, Serialize};
use skerry_store::{Offset, WallNanos};
use std::time::Duration;

/// One value of a column, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) time: WallNanos,
    pub(crate) offset: Offset,
    pub(crate) value: Result<f32, Skip>,
}

/// A time and an offset as varints of at most ten bytes, and a value with its tags.
const SAMPLE_BYTES_MAX: usize = 26;

/// What came of a closed point.
#[derive(Debug, PartialEq)]
pub(crate) enum Point {
    /// A row, in the buffer that was given.
    Row { time: WallNanos, offset: Offset },
    /// No row, at so many points in a row.
    Skipped { why: Skip, points: u64 },
}

/// All columns of one asset.
#[derive(Debug)]
pub(crate) struct Resampler {
    period_ns: i64,
    late_ns: i64,
    stale_ns: i64,
    series: Box<[Series]>,
    /// The first point that is not closed, in periods since the epoch.
    next: Option<i64>,
    watermark: WallNanos,
}

/// What is kept of it besides its series.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Place {
    next: Option<i64>,
    watermark: WallNanos,
}

#[derive(Debug)]
struct Series {
    fill: Fill,
    /// By time: of the closed points the last one's, and those of the open points.
    samples: Box<VecView<Sample>>,
    /// Just taken in: joins the others when the points before it are closed.
    incoming: Option<Sample>,
    changed: bool,
}

/// A series as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedSeries {
    samples: Vec<Sample>,
    incoming: Option<Sample>,
}

/// Bytes of a saved series at most.
pub(crate) fn series_bytes_max(grid: Grid) -> usize {
    (capacity(grid) + 1) * SAMPLE_BYTES_MAX + 8
}

/// Two values for each open point, two more for the one that the watermark is in, and the last
/// one before.
fn capacity(grid: Grid) -> usize {
    let points = grid.late.as_nanos() / grid.period.as_nanos().max(1);
    let points = points.min(LATE_POINTS_MAX);
    2 * (points as usize + 2) + 1
}

impl Resampler {
    pub(crate) fn new(model: &Model, grid: Grid) -> Self {
        let inputs = model.inputs.iter();
        let fills = inputs.flat_map(|input| std::iter::repeat_n(input.fill, input.columns()));
        let series = fills.map(|fill| Series {
            fill,
            samples: set_aside(capacity(grid)),
            incoming: None,
            changed: false,
        });
        Self {
            period_ns: nanos(grid.period),
            late_ns: nanos(grid.late),
            stale_ns: nanos(model.stale_after),
            series: series.collect(),
            next: None,
            watermark: WallNanos::default(),
        }
    }

    /// Takes a column's value; false if it is late. [`Resampler::close`] must have returned
    /// `None` since the last record.
    #[must_use]
    pub(crate) fn take(&mut self, column: usize, sample: Sample) -> bool {
        let next = *self
            .next
            .get_or_insert_with(|| ceil(sample.time, self.period_ns));
        if sample.time <= self.point(next - 1) {
            return false;
        }
        self.watermark = self.watermark.max(sample.time);
        let series = &mut self.series[column];
        series.incoming = Some(sample);
        series.changed = true;
        true
    }

    /// Closes the next point that can be, or several that have no row for one reason; the row is
    /// left in `row`. `None` once there is none.
    pub(crate) fn close(&mut self, row: &mut Vec<f32>) -> Option<Point> {
        let next = self.next?;
        // The first point that has to stay open.
        let open = ceil(
            WallNanos(self.watermark.0.saturating_sub(self.late_ns)),
            self.period_ns,
        );
        if next >= open {
            for series in &mut self.series {
                series.join(self.period_ns);
            }
            return None;
        }
        let time = self.point(next);
        row.clear();
        let mut failed = None;
        for series in &self.series {
            match series.at(time, self.period_ns, self.stale_ns) {
                Ok(value) => row.push(value),
                Err(why) => {
                    // Until this column has another value, no point is any better.
                    let after = series.after(time).map(|sample| sample.time);
                    let after = after.map_or(open, |after| ceil(after, self.period_ns));
                    failed = Some((why, after.clamp(next + 1, open)));
                    break;
                }
            }
        }
        let offset = self.series[0].before(time);
        let offset = offset.map_or(Offset::ZERO, |sample| sample.offset);
        let closed = failed.map_or(next + 1, |(_, after)| after);
        self.next = Some(closed);
        let last = self.point(closed - 1);
        for series in &mut self.series {
            series.forget(last);
        }
        Some(match failed {
            None => Point::Row { time, offset },
            Some((why, after)) => Point::Skipped {
                why,
                points: (after - next) as u64,
            },
        })
    }

    /// Whether there is something to [`close`](Self::close).
    pub(crate) fn is_pending(&self) -> bool {
        self.series.iter().any(|series| series.incoming.is_some())
    }

    /// Starts over: the clock that values are dated by was set back.
    pub(crate) fn clear(&mut self) {
        for series in &mut self.series {
            series.samples.clear();
            series.incoming = None;
            series.changed = true;
        }
        (self.next, self.watermark) = (None, WallNanos::default());
    }

    /// Whether the scores due at multiples of `step` are due at this row.
    pub(crate) fn is_multiple(&self, time: WallNanos, step: usize) -> bool {
        time.0
            .div_euclid(self.period_ns)
            .rem_euclid(i64::try_from(step).expect("a step is at most ROWS_MAX"))
            == 0
    }

    pub(crate) fn bytes(&self) -> usize {
        let samples = |series: &Series| size_of_val(&*series.samples);
        size_of_val(&*self.series) + self.series.iter().map(samples).sum::<usize>()
    }

    pub(crate) fn place(&self) -> Place {
        Place {
            next: self.next,
            watermark: self.watermark,
        }
    }

    pub(crate) fn take_changed(&mut self) -> Vec<(u16, SavedSeries)> {
        let save = |(index, series): (usize, &mut Series)| {
            let index = u16::try_from(index).expect("at most COLUMNS_MAX columns");
            let saved = SavedSeries {
                samples: series.samples.to_vec(),
                incoming: series.incoming,
            };
            std::mem::take(&mut series.changed).then_some((index, saved))
        };
        let series = self.series.iter_mut().enumerate();
        series.filter_map(save).collect()
    }

    /// Goes on from what was saved; false if that was of another shape.
    #[must_use]
    pub(crate) fn restore(&mut self, place: Place, saved: &[(u16, SavedSeries)]) -> bool {
        self.clear();
        for (index, saved) in saved {
            let Some(series) = self.series.get_mut(usize::from(*index)) else {
                return false;
            };
            if series.samples.extend_from_slice(&saved.samples).is_err() {
                return false;
            }
            series.incoming = saved.incoming;
        }
        for series in &mut self.series {
            series.changed = false;
        }
        (self.next, self.watermark) = (place.next, place.watermark);
        true
    }

    fn point(&self, index: i64) -> WallNanos {
        WallNanos(index.saturating_mul(self.period_ns))
    }
}

impl Series {
    /// The column's value at a point.
    fn at(&self, time: WallNanos, period_ns: i64, stale_ns: i64) -> Result<f32, Skip> {
        let before = self.before(time).ok_or(Skip::NoValue)?;
        let age = time.0.saturating_sub(before.time.0);
        match self.fill {
            Fill::Drop if age >= period_ns => Err(Skip::NoValue),
            Fill::Linear if age > 0 => {
                let after = self.after(time).ok_or(Skip::NoSuccessor)?;
                let distance = after.time.0.saturating_sub(before.time.0);
                if distance > stale_ns {
                    return Err(Skip::Stale);
                }
                let (from, to) = (f64::from(before.value?), f64::from(after.value?));
                Ok((from + (to - from) * age as f64 / distance as f64) as f32)
            }
            Fill::Hold | Fill::Linear | Fill::Drop if age > stale_ns => Err(Skip::Stale),
            Fill::Hold | Fill::Linear | Fill::Drop => before.value,
        }
    }

    /// The last value at a time or before it.
    fn before(&self, time: WallNanos) -> Option<&Sample> {
        let incoming = self.incoming.iter();
        let all = self.samples.iter().chain(incoming);
        all.filter(|sample| sample.time <= time)
            .max_by_key(|sample| sample.time)
    }

    /// The first value after a time.
    fn after(&self, time: WallNanos) -> Option<&Sample> {
        let incoming = self.incoming.iter();
        let all = self.samples.iter().chain(incoming);
        all.filter(|sample| sample.time > time)
            .min_by_key(|sample| sample.time)
    }

    /// Puts the incoming value where it belongs.
    fn join(&mut self, period_ns: i64) {
        let Some(sample) = self.incoming.take() else {
            return;
        };
        self.changed = true;
        let at = self
            .samples
            .partition_point(|known| known.time < sample.time);
        if self
            .samples
            .get(at)
            .is_some_and(|it| it.time == sample.time)
        {
            self.samples[at] = sample;
            return;
        }
        // Of what lies between two points, the first and the last.
        let cell = ceil(sample.time, period_ns);
        let same = |index: usize| {
            let known = self.samples.get(index);
            known.is_some_and(|known| ceil(known.time, period_ns) == cell)
        };
        if at > 0 && same(at - 1) && same(at) {
            return;
        }
        if at > 1 && same(at - 1) && same(at - 2) {
            self.samples[at - 1] = sample;
            return;
        }
        if same(at) && same(at + 1) {
            self.samples[at] = sample;
            return;
        }
        let room = self.samples.insert(at, sample);
        room.expect("no more than two values between two points, and the points are bounded");
    }

    /// Drops what no open point can need.
    fn forget(&mut self, closed: WallNanos) {
        let past = self.samples.partition_point(|it| it.time <= closed);
        for _ in 1..past {
            self.samples.remove(0);
            self.changed = true;
        }
    }
}

/// The first point at a time or after it.
fn ceil(time: WallNanos, period_ns: i64) -> i64 {
    let floor = time.0.div_euclid(period_ns);
    floor + i64::from(time.0.rem_euclid(period_ns) > 0)
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "resample_tests.rs"]
mod tests;
