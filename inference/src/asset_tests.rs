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
) -> Taken {
    let at = WallNanos(second * SECOND);
    let values = value.map(|value| [value]);
    let new = Values {
        columns: column..column + 1,
        values: values
            .as_ref()
            .map(|values| &values[..])
            .map_err(|skip| *skip),
        mark: Mark {
            offset: Offset(second as u64),
            time: at,
        },
        taken_in: at,
    };
    asset.arrived(model, at);
    asset.take(model, &new)
}

const ROW: Taken = Taken::Row {
    hole: false,
    due: false,
};
const DUE: Taken = Taken::Row {
    hole: false,
    due: true,
};

#[test]
fn a_row_waits_for_every_column_and_holds_the_others() {
    let mut case = small();
    assert_eq!(
        take(&mut case, 0, Ok(1.0), 0),
        Taken::Skipped(Skip::NoValue, 1)
    );
    assert_eq!(take(&mut case, 1, Ok(7.0), 1), Taken::Held);
    assert_eq!(take(&mut case, 0, Ok(2.0), 2), ROW);
    assert_eq!(take(&mut case, 0, Ok(3.0), 3), ROW);
    assert_eq!(take(&mut case, 1, Ok(8.0), 4), Taken::Held);
    assert_eq!(take(&mut case, 0, Ok(4.0), 5), DUE);
    assert_eq!(case.1.window().tensor(), [2.0, 7.0, 3.0, 7.0, 4.0, 8.0]);
}

#[test]
fn due_when_full_and_then_at_every_step() {
    let mut case = small();
    take(&mut case, 1, Ok(0.0), 0);
    let due: Vec<i64> = (1..10)
        .filter(|n| take(&mut case, 0, Ok(1.0), *n) == DUE)
        .collect();
    assert_eq!(due, [3, 5, 7, 9]);
}

#[test]
fn a_bad_value_stops_rows_until_a_good_one() {
    for skip in [Skip::BadStatus, Skip::NotFinite, Skip::Unreadable] {
        let mut case = small();
        take(&mut case, 1, Ok(0.0), 0);
        assert_eq!(take(&mut case, 0, Ok(1.0), 1), ROW);
        take(&mut case, 1, Err(skip), 2);
        assert_eq!(take(&mut case, 0, Ok(1.0), 3), Taken::Skipped(skip, 1));
        assert_eq!(take(&mut case, 0, Err(skip), 3), Taken::Skipped(skip, 1));
        take(&mut case, 1, Ok(0.0), 4);
        assert_eq!(take(&mut case, 0, Ok(1.0), 5), ROW);
    }
}

#[test]
fn a_silent_column_goes_stale() {
    let mut case = small();
    take(&mut case, 1, Ok(0.0), 0);
    assert_eq!(take(&mut case, 0, Ok(1.0), 60), ROW);
    assert_eq!(
        take(&mut case, 0, Ok(1.0), 61),
        Taken::Skipped(Skip::Stale, 1)
    );
}

#[test]
fn a_window_never_spans_a_hole() {
    let mut case = small();
    take(&mut case, 1, Ok(0.0), 0);
    take(&mut case, 0, Ok(1.0), 1);
    take(&mut case, 0, Ok(2.0), 2);
    take(&mut case, 1, Ok(0.0), 1_000);
    assert_eq!(
        take(&mut case, 0, Ok(3.0), 1_001),
        Taken::Row {
            hole: true,
            due: false
        }
    );
    assert_eq!(take(&mut case, 0, Ok(4.0), 1_002), ROW);
    assert_eq!(take(&mut case, 0, Ok(5.0), 1_003), DUE);
    assert_eq!(case.1.window().tensor(), [3.0, 0.0, 4.0, 0.0, 5.0, 0.0]);
}

#[test]
fn a_clock_set_back_stops_nothing() {
    let mut case = small();
    take(&mut case, 1, Ok(0.0), 5_000);
    for (n, taken) in [(1, ROW), (2, ROW), (3, DUE)] {
        assert_eq!(take(&mut case, 0, Ok(1.0), n), taken);
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
        let mut saved = parts.1.save();
        kept.extend(std::mem::take(&mut saved.rows));
        let mut fresh = Asset::new(&parts.0);
        saved.rows = kept.clone().into_iter().collect();
        assert!(fresh.restore(saved));
        parts.1 = fresh;
        assert_eq!(whole.1.window().tensor(), parts.1.window().tensor());
    }
}
