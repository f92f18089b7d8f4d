use super::*;

/// Two columns of a uniform distribution over 0 to 10, in five bins.
fn reference() -> Reference {
    let column = ColumnReference {
        mean: 5.0,
        std: 2.9,
        edges: vec![2.0, 4.0, 6.0, 8.0],
        shares: vec![0.2; 5],
    };
    Reference {
        columns: vec![column.clone(), column],
    }
}

fn options() -> DriftOptions {
    DriftOptions {
        rows: 100,
        ..DriftOptions::default()
    }
}

/// Rows whose second column is shifted; the first stays as in training.
fn feed(drift: &mut Drift, rows: u32, shift: f32) -> Vec<Shift> {
    let row = |n: u32| {
        let value = (n % 100) as f32 / 10.0;
        [value, value + shift]
    };
    (0..rows)
        .filter_map(|n| drift.observe(&row(n), &reference(), &options()))
        .collect()
}

#[test]
fn the_same_distribution_is_no_drift() {
    let mut drift = Drift::new(&reference());
    assert_eq!(feed(&mut drift, 1_000, 0.0), []);
    assert!(!drift.is_raised());
}

#[test]
fn another_distribution_is_told_once_with_the_worst_column_first() {
    let mut drift = Drift::new(&reference());
    let told = feed(&mut drift, 500, 3.0);
    assert_eq!(told.len(), 1);
    assert!(told[0].raised && drift.is_raised());
    let worst = &told[0].columns[0];
    assert_eq!((worst.column, told[0].rows), (1, 100));
    assert!((worst.mean - 7.95).abs() < 1e-5 && (worst.mean_shift - 2.95 / 2.9).abs() < 1e-5);
    // Bins of 0, 10, 20, 20 and 50 rows where 20 each were expected.
    let expected = (1e-4 - 0.2) * (1e-4_f64 / 0.2).ln()
        + (0.1 - 0.2) * (0.1_f64 / 0.2).ln()
        + (0.5 - 0.2) * (0.5_f64 / 0.2).ln();
    assert!((worst.psi - expected).abs() < 1e-9, "{worst:?} {expected}");
    // numpy.std of the shifted values, which is that of the values.
    assert!((worst.std - 2.886_607_5).abs() < 1e-5, "{worst:?}");
    assert!(told[0].columns[1].psi < 1e-9);
}

#[test]
fn it_ends_only_when_all_is_well_below() {
    let mut drift = Drift::new(&reference());
    assert!(feed(&mut drift, 100, 3.0)[0].raised);
    // A PSI of 0.11: not enough to raise, too much to clear.
    assert_eq!(feed(&mut drift, 100, 1.0), []);
    assert!(drift.is_raised());
    let told = feed(&mut drift, 100, 0.0);
    assert!(told.len() == 1 && !told[0].raised && !drift.is_raised());
    assert_eq!(feed(&mut drift, 100, 1.0), []);
    assert!(!drift.is_raised());
}

#[test]
fn a_shifted_mean_is_enough() {
    let mut reference = reference();
    for column in &mut reference.columns {
        (column.edges, column.shares) = (Vec::new(), vec![1.0]);
        column.std = 0.5;
    }
    let mut drift = Drift::new(&reference);
    let told: Vec<Shift> = (0..100)
        .filter_map(|_| drift.observe(&[5.0, 7.0], &reference, &options()))
        .collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].columns[0].column, 1);
    assert_eq!(told[0].columns[0].mean_shift, 4.0);
}

#[test]
fn a_column_that_never_varied_drifts_by_a_bounded_number() {
    let mut reference = reference();
    reference.columns[0].std = 0.0;
    let mut drift = Drift::new(&reference);
    let told: Vec<Shift> = (0..100)
        .filter_map(|_| drift.observe(&[5.1, 5.0], &reference, &options()))
        .collect();
    assert_eq!(told[0].columns[0].mean_shift, SHIFT_MOST);
}

#[test]
fn saved_in_the_middle_of_a_block_it_goes_on() {
    let (mut whole, mut parts) = (Drift::new(&reference()), Drift::new(&reference()));
    for n in 0..300_u32 {
        let row = [(n % 90) as f32 / 10.0, (n % 40) as f32 / 10.0];
        let expected = whole.observe(&row, &reference(), &options());
        assert_eq!(parts.observe(&row, &reference(), &options()), expected);
        let mut fresh = Drift::new(&reference());
        fresh.restore(parts);
        parts = fresh;
    }
    assert!(whole.is_raised());
    // Of another reference, what was told stays, and what was counted does not.
    let mut other = reference();
    other.columns[0].edges[0] = 1.0;
    let mut fresh = Drift::new(&other);
    fresh.restore(whole);
    assert!(fresh.is_raised() && fresh.rows == 0);
}

#[test]
fn a_reference_that_cannot_be_true_is_refused() {
    assert_eq!(reference().check(2), Ok(()));
    let refused = |change: &dyn Fn(&mut ColumnReference)| {
        let mut reference = reference();
        change(&mut reference.columns[1]);
        let why = reference.check(2).expect_err("it is wrong");
        assert!(why.starts_with("column 1: "), "{why}");
    };
    assert!(reference().check(3).is_err());
    refused(&|it| it.std = -1.0);
    refused(&|it| it.mean = f64::NAN);
    refused(&|it| it.edges.swap(0, 1));
    refused(&|it| it.shares[0] = 0.5);
    refused(&|it| it.shares.truncate(4));
}

#[test]
fn a_block_stays_within_its_bytes() {
    let column = ColumnReference {
        mean: 0.0,
        std: 1.0,
        edges: (1..BINS_MAX).map(|n| n as f64).collect(),
        shares: vec![1.0 / BINS_MAX as f64; BINS_MAX],
    };
    let reference = Reference {
        columns: vec![column; COLUMNS_MAX],
    };
    let mut drift = Drift::new(&reference);
    drift.rows = ROWS_MOST;
    for running in &mut drift.columns {
        running.bins.fill(ROWS_MOST);
    }
    let bytes = crate::encoding::write(&drift).len();
    assert!(bytes <= drift_bytes_max(COLUMNS_MAX), "{bytes}");
}
