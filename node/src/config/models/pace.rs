//! `window`, `step`, `every`, `grid` and `late` of a `[[model]]`: when rows are made, and scored.

use crate::config::reader::{Table, Value};
use crate::config::units;
use skerry_inference::{Grid, Pace, ROWS_MAX, Span};
use std::ops::RangeInclusive;
use std::time::Duration;

/// The finest grid is what a fast poll gives; windows of days are for slow machines.
const GRID_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(24 * 3_600);
const WINDOW_RANGE: RangeInclusive<Duration> = Duration::from_millis(1)..=units::YEAR;
const LATE_RANGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3_600);

/// Windows as the engine takes them.
pub(super) struct Window {
    pub rows: usize,
    pub step: usize,
    pub pace: Pace,
    pub span: Option<Span>,
}

/// A number of rows, or a time in quotes.
#[derive(Clone, Copy)]
enum Extent {
    Rows(usize),
    Time(Duration),
}

fn extent(value: &Value<'_>) -> Result<Extent, String> {
    match value.integer() {
        Ok(_) => units::count(1..=ROWS_MAX)(value).map(Extent::Rows),
        Err(_) => {
            let time = units::duration(WINDOW_RANGE)(value);
            let time = time.map_err(|why| format!("{why}; or a number of rows, without quotes"));
            time.map(Extent::Time)
        }
    }
}

pub(super) fn read(table: &Table<'_>) -> Option<Window> {
    let window = table.required("window", extent);
    let step = table.optional("step", units::count(1..=ROWS_MAX));
    let every = table.optional("every", units::duration(WINDOW_RANGE));
    let rows_max = table.optional("rows_max", units::count(1..=ROWS_MAX));
    let pace = read_pace(table);
    let (window, pace) = (window?, pace?);
    if step.is_some() && every.is_some() {
        table.problem("every", "says what `step` says too; leave one of them out");
    }
    let period = match pace {
        Pace::Clock => None,
        Pace::Grid(grid) => Some(grid.period),
    };
    match (window, period) {
        (Extent::Rows(rows), None) => {
            if every.is_some() {
                table.problem("every", "is for windows by time; say `step` in rows");
            }
            absent(table, "rows_max", "is for windows by time without a `grid`");
            Some(Window {
                rows,
                step: step.unwrap_or(1),
                pace,
                span: None,
            })
        }
        (Extent::Time(window), None) => {
            absent(
                table,
                "step",
                "is for windows of rows; say `every` as a time",
            );
            if rows_max.is_none() {
                let why = "is missing: without a `grid`, say how many rows a window may have";
                table.problem("rows_max", why);
            }
            if every.is_none() && !table.has("every") {
                table.problem(
                    "every",
                    "is missing; say how long from one score to the next",
                );
            }
            Some(Window {
                rows: rows_max?,
                step: 1,
                pace,
                span: Some(Span {
                    window,
                    every: every?,
                }),
            })
        }
        (window, Some(period)) => {
            absent(table, "rows_max", "is for windows by time without a `grid`");
            let rows = match window {
                Extent::Rows(rows) => Some(rows),
                Extent::Time(window) => points(table, "window", window, period),
            };
            let step = match every {
                Some(every) => points(table, "every", every, period),
                None => Some(step.unwrap_or(1)),
            };
            Some(Window {
                rows: rows?,
                step: step?,
                pace,
                span: None,
            })
        }
    }
}

fn read_pace(table: &Table<'_>) -> Option<Pace> {
    let grid = table.optional("grid", units::duration(GRID_RANGE));
    let late = table.optional("late", units::duration(LATE_RANGE));
    let report_late = table.optional("report_late", units::flag);
    let Some(period) = grid else {
        absent(table, "late", "is for a model with a `grid`");
        absent(table, "report_late", "is for a model with a `grid`");
        return (!table.has("grid")).then_some(Pace::Clock);
    };
    Some(Pace::Grid(Grid {
        period,
        late: late.unwrap_or(Duration::ZERO),
        report_late: report_late.unwrap_or(false),
    }))
}

/// A time as a number of the grid's points.
fn points(table: &Table<'_>, key: &str, time: Duration, period: Duration) -> Option<usize> {
    let points = time.as_nanos() / period.as_nanos();
    if !time.as_nanos().is_multiple_of(period.as_nanos()) {
        let why = format!("{time:?} is no multiple of the grid, {period:?}");
        table.problem(key, why);
        return None;
    }
    let points = usize::try_from(points).ok().filter(|it| *it <= ROWS_MAX);
    if points.is_none() {
        let why = format!("{time:?} is more than {ROWS_MAX} points of the grid, {period:?}");
        table.problem(key, why);
    }
    points
}

fn absent(table: &Table<'_>, key: &str, why: &str) {
    if table.has(key) {
        table.problem(key, why);
    }
}
