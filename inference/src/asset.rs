//! One asset's share of a model: held values, rows, the window, and when a score is due.

use crate::alert::AlertState;
use crate::config::Model;
use crate::window::{Chunk, Mark, Window};
use serde::{Deserialize, Serialize};
use skerry_store::WallNanos;

/// The clock column: each of its values makes a row.
pub(crate) const CLOCK: usize = 0;

/// Why a value is not fit for the tensor, or a row was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Skip {
    /// Nothing arrived yet for some column.
    NoValue,
    /// The OPC-UA StatusCode is not Good.
    BadStatus,
    /// NaN or infinite, before or after scaling.
    NotFinite,
    /// No number where the binding says there is one.
    Unreadable,
    /// Older than `stale_after` when the clock ticked.
    Stale,
}

/// The latest value of a column, or why there is none. A bad value takes the good one's place:
/// what the source no longer vouches for must not live on in the window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Held {
    Value { value: f32, taken_in: WallNanos },
    Nothing(Skip),
}

/// What came of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Held for the next row.
    Held,
    Skipped(Skip),
    Row,
    /// A row, and the window it completes is to be scored.
    Due,
}

#[derive(Debug)]
pub(crate) struct Asset {
    held: Box<[Held]>,
    window: Window,
    rows_until_score: u64,
    /// When the clock record of the newest row was taken in.
    row_taken_in: Option<WallNanos>,
    /// Windows handed out so far: the number of the next score.
    pub(crate) sequence: u64,
    pub(crate) alert: AlertState,
    pub(crate) changed: bool,
}

/// What is kept of an asset besides its rows.
#[derive(Serialize, Deserialize)]
pub(crate) struct Saved {
    held: Vec<Held>,
    rows_total: u64,
    rows_until_score: u64,
    row_taken_in: Option<WallNanos>,
    pub(crate) sequence: u64,
    pub(crate) alert: AlertState,
}

impl Asset {
    pub(crate) fn new(model: &Model) -> Self {
        Self {
            held: vec![Held::Nothing(Skip::NoValue); model.inputs.len()].into(),
            window: Window::new(model.rows, model.inputs.len()),
            rows_until_score: model.rows as u64,
            row_taken_in: None,
            sequence: 0,
            alert: AlertState::default(),
            changed: false,
        }
    }

    /// Takes a column's next value, and makes a row of it if the column is the clock.
    pub(crate) fn take(
        &mut self,
        model: &Model,
        column: usize,
        value: Result<f32, Skip>,
        mark: Mark,
        taken_in: WallNanos,
    ) -> (Taken, Hole) {
        self.changed = true;
        self.held[column] = match value {
            Ok(value) => Held::Value { value, taken_in },
            Err(skip) => Held::Nothing(skip),
        };
        if column != CLOCK {
            return (Taken::Held, Hole(false));
        }
        let stale_ns = nanos(model.stale_after);
        if let Some(skip) = self.unfit(taken_in, stale_ns) {
            return (Taken::Skipped(skip), Hole(false));
        }
        let hole = self
            .row_taken_in
            .is_some_and(|last| age(taken_in, last) > stale_ns);
        if hole {
            self.rows_until_score = model.rows as u64;
        }
        let row = self.held.iter().map(|held| match held {
            Held::Value { value, .. } => *value,
            Held::Nothing(_) => unreachable!("every column was found fit"),
        });
        self.window.push(mark, row);
        self.row_taken_in = Some(taken_in);
        self.rows_until_score -= 1;
        if self.rows_until_score > 0 {
            return (Taken::Row, Hole(hole));
        }
        self.rows_until_score = model.step as u64;
        (Taken::Due, Hole(hole))
    }

    /// The first reason not to make a row now, if any.
    fn unfit(&self, now: WallNanos, stale_ns: i64) -> Option<Skip> {
        self.held.iter().find_map(|held| match *held {
            Held::Nothing(skip) => Some(skip),
            Held::Value { taken_in, .. } => (age(now, taken_in) > stale_ns).then_some(Skip::Stale),
        })
    }

    pub(crate) fn window(&self) -> &Window {
        &self.window
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.held) + self.window.bytes()
    }

    pub(crate) fn save(&mut self) -> (Saved, Vec<(u16, Chunk)>) {
        self.changed = false;
        let saved = Saved {
            held: self.held.to_vec(),
            rows_total: self.window.total(),
            rows_until_score: self.rows_until_score,
            row_taken_in: self.row_taken_in,
            sequence: self.sequence,
            alert: self.alert,
        };
        (saved, self.window.take_changed())
    }

    /// Goes on where [`Asset::save`] left off; false if that was an asset of another shape.
    #[must_use]
    pub(crate) fn restore(&mut self, saved: &Saved, parts: &[(u16, Chunk)]) -> bool {
        let fits = saved.held.len() == self.held.len()
            && saved.rows_until_score > 0
            && self.window.restore(saved.rows_total, parts);
        if fits {
            self.held.copy_from_slice(&saved.held);
            self.rows_until_score = saved.rows_until_score;
            self.row_taken_in = saved.row_taken_in;
            self.sequence = saved.sequence;
            self.alert = saved.alert;
        }
        fits
    }
}

/// Whether the row came after a hole longer than `stale_after`, so that the window starts over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hole(pub(crate) bool);

/// Never negative: a clock that was set back must not make a value fresh for ever, nor stale.
fn age(now: WallNanos, then: WallNanos) -> i64 {
    now.0.saturating_sub(then.0).max(0)
}

fn nanos(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use skerry_store::Offset;

    const SECOND: i64 = 1_000_000_000;

    /// A model of three rows, two columns, a score each second row; and its only asset.
    fn small() -> (Model, Asset) {
        let mut options = fixture::options();
        options.rows = 3;
        options.step = 2;
        let model = Model::new(options).expect("good options");
        let asset = Asset::new(&model);
        (model, asset)
    }

    fn take(
        (model, asset): &mut (Model, Asset),
        column: usize,
        value: Result<f32, Skip>,
        second: i64,
    ) -> (Taken, bool) {
        let at = WallNanos(second * SECOND);
        let mark = Mark {
            offset: Offset(second as u64),
            time: at,
        };
        let (taken, Hole(hole)) = asset.take(model, column, value, mark, at);
        (taken, hole)
    }

    #[test]
    fn a_row_waits_for_every_column_and_holds_the_others() {
        let mut case = small();
        assert_eq!(
            take(&mut case, 0, Ok(1.0), 0).0,
            Taken::Skipped(Skip::NoValue)
        );
        assert_eq!(take(&mut case, 1, Ok(7.0), 1).0, Taken::Held);
        assert_eq!(take(&mut case, 0, Ok(2.0), 2).0, Taken::Row);
        assert_eq!(take(&mut case, 0, Ok(3.0), 3).0, Taken::Row);
        assert_eq!(take(&mut case, 1, Ok(8.0), 4).0, Taken::Held);
        assert_eq!(take(&mut case, 0, Ok(4.0), 5).0, Taken::Due);
        assert_eq!(case.1.window().tensor(), [2.0, 7.0, 3.0, 7.0, 4.0, 8.0]);
    }

    #[test]
    fn due_when_full_and_then_at_every_step() {
        let mut case = small();
        take(&mut case, 1, Ok(0.0), 0);
        let due: Vec<i64> = (1..10)
            .filter(|n| take(&mut case, 0, Ok(1.0), *n).0 == Taken::Due)
            .collect();
        assert_eq!(due, [3, 5, 7, 9]);
    }

    #[test]
    fn a_bad_value_stops_rows_until_a_good_one() {
        for skip in [Skip::BadStatus, Skip::NotFinite, Skip::Unreadable] {
            let mut case = small();
            take(&mut case, 1, Ok(0.0), 0);
            assert_eq!(take(&mut case, 0, Ok(1.0), 1).0, Taken::Row);
            take(&mut case, 1, Err(skip), 2);
            assert_eq!(take(&mut case, 0, Ok(1.0), 3).0, Taken::Skipped(skip));
            assert_eq!(take(&mut case, 0, Err(skip), 3).0, Taken::Skipped(skip));
            take(&mut case, 1, Ok(0.0), 4);
            assert_eq!(take(&mut case, 0, Ok(1.0), 5).0, Taken::Row);
        }
    }

    #[test]
    fn a_silent_column_goes_stale() {
        let mut case = small();
        take(&mut case, 1, Ok(0.0), 0);
        assert_eq!(take(&mut case, 0, Ok(1.0), 60).0, Taken::Row);
        assert_eq!(
            take(&mut case, 0, Ok(1.0), 61).0,
            Taken::Skipped(Skip::Stale)
        );
    }

    #[test]
    fn a_window_never_spans_a_hole() {
        let mut case = small();
        take(&mut case, 1, Ok(0.0), 0);
        take(&mut case, 0, Ok(1.0), 1);
        take(&mut case, 0, Ok(2.0), 2);
        take(&mut case, 1, Ok(0.0), 1_000);
        assert_eq!(take(&mut case, 0, Ok(3.0), 1_001), (Taken::Row, true));
        assert_eq!(take(&mut case, 0, Ok(4.0), 1_002), (Taken::Row, false));
        assert_eq!(take(&mut case, 0, Ok(5.0), 1_003), (Taken::Due, false));
        assert_eq!(case.1.window().tensor(), [3.0, 0.0, 4.0, 0.0, 5.0, 0.0]);
    }

    #[test]
    fn a_clock_set_back_stops_nothing() {
        let mut case = small();
        take(&mut case, 1, Ok(0.0), 5_000);
        for (n, taken) in [(1, Taken::Row), (2, Taken::Row), (3, Taken::Due)] {
            assert_eq!(take(&mut case, 0, Ok(1.0), n), (taken, false));
        }
    }

    #[test]
    fn saved_and_restored_it_goes_on_as_if_nothing_happened() {
        let mut whole = small();
        let mut parts = small();
        let mut kept = std::collections::BTreeMap::new();
        for n in 0..40 {
            let column = usize::from(n % 4 == 0);
            assert_eq!(
                take(&mut whole, column, Ok(n as f32), n),
                take(&mut parts, column, Ok(n as f32), n)
            );
            let (saved, changed) = parts.1.save();
            kept.extend(changed);
            let mut fresh = Asset::new(&parts.0);
            let chunks: Vec<_> = kept.clone().into_iter().collect();
            assert!(fresh.restore(&saved, &chunks));
            parts.1 = fresh;
            assert_eq!(whole.1.window().tensor(), parts.1.window().tensor());
        }
    }
}
