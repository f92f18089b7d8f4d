//! One asset's share of a model: values, rows, the window, and when a score is due.

use crate::alert::AlertState;
use crate::config::{Model, Pace, Span};
use crate::drift::{Drift, Reference, Shift};
use crate::feature::Features;
use crate::resample::{Place, Point, Resampler, Sample, SavedSeries};
use crate::window::{Chunk, Mark, Window};
use serde::{Deserialize, Serialize};
use skerry_store::{Offset, WallNanos};
use std::ops::Range;

/// The clock column: without a grid, each of its values makes a row.
pub(crate) const CLOCK: usize = 0;
/// Records of several streams come merged by intake time, give or take what their commits and a
/// correction of the clock take. Further back than this, the clock was set.
const SET_BACK_MIN_NS: i64 = 5_000_000_000;

/// Why a value is not fit for the tensor, or a row was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Skip {
    /// Nothing arrived yet for some column, or nothing since the point before where `fill` is
    /// `drop`.
    NoValue,
    /// The OPC-UA StatusCode is not Good.
    BadStatus,
    /// NaN or infinite, before or after scaling.
    NotFinite,
    /// No number where the binding says there is one.
    Unreadable,
    /// Older than `stale_after` when the row was made.
    Stale,
    /// There was no value after it in time, where `fill` is `linear`.
    NoSuccessor,
}

/// The latest value of a column, or why there is none. A bad value takes the good one's place:
/// what the source no longer vouches for must not live on in the window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Held {
    Value { value: f32, taken_in: WallNanos },
    Nothing(Skip),
}

/// Values of one record for neighbouring columns of one asset.
#[derive(Debug, Clone)]
pub(crate) struct Values<'a> {
    pub(crate) columns: Range<usize>,
    pub(crate) values: Result<&'a [f32], Skip>,
    /// The record's place and its own time.
    pub(crate) mark: Mark,
    pub(crate) taken_in: WallNanos,
}

/// What came of values, or of a point of the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Held for the next row.
    Held,
    /// Too late for its point of the grid.
    Late,
    /// Dated further ahead of the node's clock than is believed.
    Ahead,
    /// So many rows were not made.
    Skipped(Skip, u64),
    Row {
        hole: bool,
        /// Whether a window ends here that is to be scored.
        due: bool,
    },
}

#[derive(Debug)]
pub(crate) struct Asset {
    rows: Rows,
    window: Window,
    /// Counts down to a full window, and without a grid to the next score.
    rows_until_score: u64,
    /// When the clock record of the newest row was taken in; on a grid, its point.
    row_time: Option<WallNanos>,
    /// Rows since the last hole, and the first one's time.
    stretch: Stretch,
    last_due: Option<WallNanos>,
    /// When the newest record was taken in.
    taken_in: WallNanos,
    /// Windows handed out so far: the number of the next score.
    pub(crate) sequence: u64,
    pub(crate) alert: AlertState,
    pub(crate) drift: Option<Drift>,
    pub(crate) late: LateValues,
    pub(crate) changed: bool,
    buffer: Vec<f32>,
}

/// Where rows come from.
#[derive(Debug)]
enum Rows {
    Clock(Box<[Held]>),
    Grid(Resampler),
}

/// Rows without a hole among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Stretch {
    rows: u64,
    since: WallNanos,
}

/// Late values that nobody was told of yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LateValues {
    pub(crate) count: u64,
    /// The oldest one's own time, and the youngest one's.
    pub(crate) from: WallNanos,
    pub(crate) to: WallNanos,
}

/// What is kept of an asset besides its rows, its series and its drift.
#[derive(Serialize, Deserialize)]
pub(crate) struct Saved {
    held: Vec<Held>,
    place: Place,
    rows_total: u64,
    rows_until_score: u64,
    row_time: Option<WallNanos>,
    stretch: Stretch,
    last_due: Option<WallNanos>,
    taken_in: WallNanos,
    pub(crate) sequence: u64,
    pub(crate) alert: AlertState,
    pub(crate) late: LateValues,
}

/// Everything that is kept of an asset: the parts that changed.
pub(crate) struct Parts {
    pub(crate) saved: Saved,
    pub(crate) rows: Vec<(u16, Chunk)>,
    pub(crate) series: Vec<(u16, SavedSeries)>,
    pub(crate) drift: Option<Drift>,
}

/// Why a window that was due is not scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Some feature has no value, as the kurtosis of equal values.
    Undefined,
    /// More rows came in its time than are kept.
    Overflow,
}

/// A window as the graph takes it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) values: Vec<f32>,
    pub(crate) oldest: Mark,
    pub(crate) newest: Mark,
}

impl Asset {
    pub(crate) fn new(model: &Model) -> Self {
        let rows = match model.pace {
            Pace::Clock => {
                let nothing = Held::Nothing(Skip::NoValue);
                Rows::Clock(vec![nothing; model.columns()].into())
            }
            Pace::Grid(grid) => Rows::Grid(Resampler::new(model, grid)),
        };
        Self {
            rows,
            window: Window::new(model.rows, model.columns()),
            rows_until_score: model.rows as u64,
            row_time: None,
            stretch: Stretch::default(),
            last_due: None,
            taken_in: WallNanos(i64::MIN),
            sequence: 0,
            alert: AlertState::default(),
            drift: None,
            late: LateValues::default(),
            changed: false,
            buffer: Vec::with_capacity(model.columns()),
        }
    }

    /// Notes that a record came; true if the node's clock was set back before it did. On a grid
    /// everything starts over then, for what is to come would be late for hours.
    pub(crate) fn arrived(&mut self, model: &Model, taken_in: WallNanos) -> bool {
        self.changed = true;
        let back = self.taken_in.0.saturating_sub(taken_in.0) > SET_BACK_MIN_NS;
        self.taken_in = taken_in;
        if back && let Rows::Grid(resampler) = &mut self.rows {
            resampler.clear();
            self.rows_until_score = model.rows as u64;
            (self.row_time, self.stretch) = (None, Stretch::default());
        }
        back
    }

    /// Takes the next values of some columns, and without a grid makes a row of them if the clock
    /// is among them.
    pub(crate) fn take(&mut self, model: &Model, new: &Values<'_>) -> Taken {
        let Values {
            columns,
            values,
            mark,
            taken_in,
        } = new.clone();
        let of = |column: usize| values.map(|values| values[column - columns.start]);
        match &mut self.rows {
            Rows::Grid(resampler) => {
                if mark.time.0.saturating_sub(taken_in.0) > nanos(model.stale_after) {
                    return Taken::Ahead;
                }
                let late = columns.clone().any(|column| {
                    let sample = Sample {
                        time: mark.time,
                        // Only the first column's is asked for, see `Resampler::close`.
                        offset: if column == CLOCK {
                            mark.offset
                        } else {
                            Offset::ZERO
                        },
                        value: of(column),
                    };
                    !resampler.take(column, sample)
                });
                if late {
                    self.late.note(mark.time);
                    return Taken::Late;
                }
                Taken::Held
            }
            Rows::Clock(held) => {
                for column in columns.clone() {
                    held[column] = match of(column) {
                        Ok(value) => Held::Value { value, taken_in },
                        Err(skip) => Held::Nothing(skip),
                    };
                }
                if columns.start != CLOCK {
                    return Taken::Held;
                }
                let stale_ns = nanos(model.stale_after);
                if let Some(skip) = unfit(held, taken_in, stale_ns) {
                    return Taken::Skipped(skip, 1);
                }
                self.buffer.clear();
                let row = held.iter().map(|held| match held {
                    Held::Value { value, .. } => *value,
                    Held::Nothing(_) => unreachable!("every column was found fit"),
                });
                self.buffer.extend(row);
                self.push(model, mark, taken_in)
            }
        }
    }

    /// What comes of the next point of the grid that can be closed now; `None` if there is none.
    pub(crate) fn close(&mut self, model: &Model) -> Option<Taken> {
        let Rows::Grid(resampler) = &mut self.rows else {
            return None;
        };
        let mut row = std::mem::take(&mut self.buffer);
        let closed = resampler.close(&mut row);
        self.buffer = row;
        self.changed = true;
        match closed? {
            Point::Skipped { why, points } => Some(Taken::Skipped(why, points)),
            Point::Row { time, offset } => Some(self.push(model, Mark { offset, time }, time)),
        }
    }

    /// Whether [`Asset::close`] must be called before another record is taken.
    pub(crate) fn is_pending(&self) -> bool {
        match &self.rows {
            Rows::Clock(_) => false,
            Rows::Grid(resampler) => resampler.is_pending(),
        }
    }

    /// Adds the row in the buffer.
    fn push(&mut self, model: &Model, mark: Mark, time: WallNanos) -> Taken {
        let stale_ns = nanos(model.stale_after);
        let hole = self.row_time.is_some_and(|last| age(time, last) > stale_ns);
        if hole {
            self.rows_until_score = model.rows as u64;
            self.stretch = Stretch::default();
        }
        self.window.push(mark, self.buffer.iter().copied());
        self.row_time = Some(time);
        if self.stretch.rows == 0 || mark.time < self.stretch.since {
            self.stretch = Stretch {
                rows: 0,
                since: mark.time,
            };
        }
        self.stretch.rows += 1;
        self.rows_until_score = self.rows_until_score.saturating_sub(1);
        let due = match (&self.rows, model.span) {
            (_, Some(span)) => self.is_due_by_time(mark.time, span),
            (Rows::Grid(resampler), None) => {
                self.rows_until_score == 0 && resampler.is_multiple(time, model.step)
            }
            (Rows::Clock(_), None) => {
                let due = self.rows_until_score == 0;
                if due {
                    self.rows_until_score = model.step as u64;
                }
                due
            }
        };
        Taken::Row { hole, due }
    }

    fn is_due_by_time(&mut self, now: WallNanos, Span { window, every }: Span) -> bool {
        let full = age(now, self.stretch.since) >= nanos(window);
        // One that lies ahead was set by a clock that has been set back since.
        let last = self.last_due.filter(|last| *last <= now);
        let due = full && last.is_none_or(|last| age(now, last) >= nanos(every));
        if due {
            self.last_due = Some(now);
        }
        due
    }

    /// The window that ends with the newest row.
    pub(crate) fn tensor(&self, model: &Model, features: &mut Features) -> Result<Tensor, Unfit> {
        let rows = match model.span {
            Some(span) => self.rows_within(model, span)?,
            None => model.rows,
        };
        let values = if model.sums_up() {
            self.summed_up(model, rows, features)
        } else {
            self.window.tensor()
        };
        if !values.iter().all(|value| value.is_finite()) {
            return Err(Unfit::Undefined);
        }
        Ok(Tensor {
            values,
            oldest: self.window.mark(rows),
            newest: self.window.mark(1),
        })
    }

    /// How many of the newest rows are within the window's time.
    fn rows_within(&self, model: &Model, span: Span) -> Result<usize, Unfit> {
        let kept = self.stretch.rows.min(model.rows as u64) as usize;
        let newest = self.window.mark(1).time;
        let within = |back: &usize| age(newest, self.window.mark(*back).time) < nanos(span.window);
        let rows = (1..=kept).take_while(within).count();
        // All that are kept, and there were more: the oldest of them may not be the first.
        if rows == model.rows && self.stretch.rows > rows as u64 {
            return Err(Unfit::Overflow);
        }
        Ok(rows)
    }

    fn summed_up(&self, model: &Model, rows: usize, features: &mut Features) -> Vec<f32> {
        let grid = model.grid().map(|grid| grid.period);
        let (_, count) = model.tensor();
        let mut values = Vec::with_capacity(count);
        let mut column = 0;
        for input in &model.inputs {
            if input.burst.is_some() || input.features.is_empty() {
                values.extend_from_slice(&self.window.newest()[column..][..input.columns()]);
            } else {
                let samples: Vec<f64> = self.window.column(column, rows).map(f64::from).collect();
                let rate = input.sampling_rate_hz(grid);
                features.compute(&input.features, &samples, rate, &mut values);
            }
            column += input.columns();
        }
        values
    }

    /// Watches the newest row for drift.
    pub(crate) fn drifts(&mut self, model: &Model, reference: &Reference) -> Option<Shift> {
        let options = model.drift.as_ref()?;
        let drift = self.drift.as_mut()?;
        drift.observe(self.window.newest(), reference, options)
    }

    pub(crate) fn window(&self) -> &Window {
        &self.window
    }

    pub(crate) fn bytes(&self) -> usize {
        let rows = match &self.rows {
            Rows::Clock(held) => size_of_val(&**held),
            Rows::Grid(resampler) => resampler.bytes(),
        };
        let buffer = self.buffer.capacity() * size_of::<f32>();
        size_of::<Self>() + rows + self.window.bytes() + buffer
    }

    pub(crate) fn save(&mut self) -> Parts {
        self.changed = false;
        let (held, place, series) = match &mut self.rows {
            Rows::Clock(held) => (held.to_vec(), Place::default(), Vec::new()),
            Rows::Grid(grid) => (Vec::new(), grid.place(), grid.take_changed()),
        };
        let saved = Saved {
            held,
            place,
            rows_total: self.window.total(),
            rows_until_score: self.rows_until_score,
            row_time: self.row_time,
            stretch: self.stretch,
            last_due: self.last_due,
            taken_in: self.taken_in,
            sequence: self.sequence,
            alert: self.alert,
            late: self.late,
        };
        Parts {
            saved,
            rows: self.window.take_changed(),
            series,
            drift: self.drift.clone(),
        }
    }

    /// Goes on where [`Asset::save`] left off; false if that was an asset of another shape.
    #[must_use]
    pub(crate) fn restore(&mut self, parts: Parts) -> bool {
        let saved = parts.saved;
        let fits = match &mut self.rows {
            Rows::Clock(held) if held.len() == saved.held.len() && parts.series.is_empty() => {
                held.copy_from_slice(&saved.held);
                true
            }
            Rows::Clock(_) => false,
            Rows::Grid(resampler) => resampler.restore(saved.place, &parts.series),
        };
        if !fits || !self.window.restore(saved.rows_total, &parts.rows) {
            return false;
        }
        self.rows_until_score = saved.rows_until_score;
        self.row_time = saved.row_time;
        self.stretch = saved.stretch;
        self.last_due = saved.last_due;
        self.taken_in = saved.taken_in;
        self.sequence = saved.sequence;
        self.alert = saved.alert;
        self.late = saved.late;
        if let (Some(drift), Some(saved)) = (&mut self.drift, parts.drift) {
            drift.restore(saved);
        }
        true
    }
}

impl LateValues {
    fn note(&mut self, time: WallNanos) {
        let first = self.count == 0;
        self.count += 1;
        self.from = if first { time } else { self.from.min(time) };
        self.to = if first { time } else { self.to.max(time) };
    }
}

/// The first reason not to make a row now, if any.
fn unfit(held: &[Held], now: WallNanos, stale_ns: i64) -> Option<Skip> {
    held.iter().find_map(|held| match *held {
        Held::Nothing(skip) => Some(skip),
        Held::Value { taken_in, .. } => (age(now, taken_in) > stale_ns).then_some(Skip::Stale),
    })
}

/// Never negative: a clock that was set back must not make a value fresh for ever, nor stale.
fn age(now: WallNanos, then: WallNanos) -> i64 {
    now.0.saturating_sub(then.0).max(0)
}

fn nanos(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "asset_tests.rs"]
mod tests;
