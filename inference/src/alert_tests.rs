use super::*;
use Change::{Cleared, Eased, Escalated, Raised};

fn held() -> Alerting {
    Alerting {
        hold: Hold::Scores(2),
        ..Alerting::at(Severity::Warning, 0.8, 0.6)
    }
}

fn levels() -> Alerting {
    let level = |severity, raise, clear| Level {
        severity,
        raise,
        clear,
    };
    Alerting {
        levels: vec![
            level(Severity::Info, 0.5, 0.4),
            level(Severity::Warning, 0.7, 0.6),
            level(Severity::Critical, 0.9, 0.8),
        ],
        ..Alerting::at(Severity::Info, 0.5, 0.4)
    }
}

/// What is told of scores that come at these seconds.
fn at(alerting: &Alerting, scores: &[(i64, f32)]) -> Vec<(usize, Transition)> {
    let mut state = AlertState::default();
    let seen = scores
        .iter()
        .enumerate()
        .filter_map(|(index, (second, score))| {
            let at = WallNanos(second * 1_000_000_000);
            Some((index, state.observe(*score, at, alerting, 0)?))
        });
    seen.collect()
}

/// The same of scores a second apart, without the details.
fn changes(alerting: &Alerting, scores: &[f32]) -> Vec<(usize, Change)> {
    let scores: Vec<_> = (0..).zip(scores.iter().copied()).collect();
    let told = at(alerting, &scores).into_iter();
    told.map(|(index, told)| (index, told.change)).collect()
}

#[test]
fn raised_and_cleared_after_the_hold() {
    let scores = [0.1, 0.8, 0.9, 0.95, 0.6, 0.5, 0.1];
    assert_eq!(changes(&held(), &scores), [(2, Raised), (5, Cleared)]);
}

#[test]
fn an_outlier_raises_nothing_and_clears_nothing() {
    let scores = [0.9, 0.1, 0.9, 0.1, 0.9, 0.9, 0.2, 0.9, 0.2];
    assert_eq!(changes(&held(), &scores), [(5, Raised)]);
}

#[test]
fn between_the_thresholds_nothing_changes() {
    let scores = [0.9, 0.9, 0.7, 0.61, 0.79, 0.7, 0.7];
    assert_eq!(changes(&held(), &scores), [(1, Raised)]);
}

#[test]
fn a_hold_of_one_acts_at_once_even_where_both_thresholds_meet() {
    let alerting = Alerting::at(Severity::Warning, 0.5, 0.5);
    let scores = [0.5, 0.5, 0.6, 0.4];
    let expected = [(0, Raised), (1, Cleared), (2, Raised), (3, Cleared)];
    assert_eq!(changes(&alerting, &scores), expected);
}

#[test]
fn a_remaining_life_is_an_alert_below() {
    let alerting = Alerting {
        direction: Direction::Below,
        ..Alerting::at(Severity::Warning, 20.0, 30.0)
    };
    assert_eq!(alerting.problems(), []);
    let scores = [80.0, 21.0, 20.0, 25.0, 29.0, 30.0];
    assert_eq!(changes(&alerting, &scores), [(2, Raised), (5, Cleared)]);
}

#[test]
fn a_hold_by_time_goes_by_the_windows_and_not_by_their_number() {
    let alerting = Alerting {
        hold: Hold::Time(Duration::from_secs(30)),
        ..Alerting::at(Severity::Warning, 0.8, 0.6)
    };
    let told = |scores: &[(i64, f32)]| -> Vec<usize> {
        let told = at(&alerting, scores).into_iter();
        told.map(|(index, _)| index).collect()
    };
    assert_eq!(told(&[(0, 0.9), (10, 0.9), (29, 0.9), (30, 0.9)]), [3]);
    assert_eq!(
        told(&[(0, 0.9), (20, 0.1), (25, 0.9), (40, 0.9), (55, 0.9)]),
        [4]
    );
    // Set back by an hour, the clock neither raises early nor keeps quiet for an hour.
    let back = [(7_200, 0.9), (3_600, 0.9), (3_620, 0.9), (3_630, 0.9)];
    assert_eq!(told(&back), [3]);
}

#[test]
fn levels_escalate_ease_and_clear() {
    let scores = [0.1, 0.55, 0.95, 0.85, 0.8, 0.75, 0.65, 0.6, 0.45, 0.4];
    let scores: Vec<_> = (0..).zip(scores).collect();
    let told: Vec<_> = at(&levels(), &scores)
        .into_iter()
        .map(|(index, told)| (index, told.change, told.severity, told.threshold))
        .collect();
    let expected = [
        (1, Raised, Severity::Info, 0.5),
        (2, Escalated, Severity::Critical, 0.9),
        (4, Eased, Severity::Warning, 0.8),
        (7, Eased, Severity::Info, 0.6),
        (9, Cleared, Severity::Info, 0.4),
    ];
    assert_eq!(told, expected);
    let straight = at(&levels(), &[(0, 0.95), (1, 0.0)]);
    let told: Vec<_> = straight
        .iter()
        .map(|(_, told)| (told.change, told.severity, told.threshold))
        .collect();
    assert_eq!(
        told,
        [
            (Raised, Severity::Critical, 0.9),
            (Cleared, Severity::Critical, 0.4)
        ]
    );
}

#[test]
fn the_limit_holds_back_raises_counts_them_and_tells_how_things_stand() {
    let alerting = Alerting {
        rate: Some(RateLimit {
            alerts: 2,
            per: Duration::from_secs(60),
        }),
        ..Alerting::at(Severity::Warning, 0.8, 0.6)
    };
    let mut scores = Vec::new();
    // Five raises and clears within ten seconds; the sixth raise stays.
    for n in 0..5 {
        scores.extend([(n * 2, 0.9), (n * 2 + 1, 0.1)]);
    }
    scores.extend([(10, 0.9), (59, 0.9), (60, 0.9), (61, 0.1)]);
    let told: Vec<_> = at(&alerting, &scores)
        .into_iter()
        .map(|(index, told)| (scores[index].0, told.change, told.suppressed))
        .collect();
    let expected = [
        (0, Raised, 0),
        (1, Cleared, 0),
        (2, Raised, 0),
        (3, Cleared, 0),
        // The first one is a minute old: three that came and went, and the one that stands.
        (60, Raised, 4),
        (61, Cleared, 0),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_clock_set_back_does_not_silence_the_limit_until_it_is_back() {
    let alerting = Alerting {
        rate: Some(RateLimit {
            alerts: 1,
            per: Duration::from_secs(60),
        }),
        ..Alerting::at(Severity::Warning, 0.8, 0.6)
    };
    let scores = [(9_000, 0.9), (9_001, 0.1), (10, 0.9), (11, 0.1), (12, 0.9)];
    let told: Vec<_> = at(&alerting, &scores)
        .iter()
        .map(|(index, _)| *index)
        .collect();
    assert_eq!(told, [0, 1, 2, 3]);
}

#[test]
fn a_class_counts_as_itself() {
    let alerting = Alerting {
        classes: vec!["worn".to_owned(), "broken".to_owned()],
        ..Alerting::at(Severity::Warning, 0.5, 0.5)
    };
    let judged = |class| alerting.judged(0.9, class);
    assert_eq!(judged(Some("worn")), 1.0);
    assert_eq!(judged(Some("good")), 0.0);
    assert_eq!(judged(None), 0.0);
    assert_eq!(held().judged(0.9, Some("good")), 0.9);
}

#[test]
fn a_state_stays_within_its_bytes() {
    let alerting = Alerting {
        rate: Some(RateLimit {
            alerts: RATE_ALERTS_MAX,
            per: Duration::MAX,
        }),
        ..levels()
    };
    let mut state = AlertState {
        suppressed: u32::MAX,
        ..AlertState::default()
    };
    for n in 0..200 {
        let score = if n % 2 == 0 { 0.95 } else { 0.1 };
        state.observe(score, WallNanos(i64::MAX - 200 + n), &alerting, 0);
    }
    for level in &mut state.levels {
        (level.run, level.since) = (u32::MAX, Some(WallNanos(i64::MIN)));
    }
    let bytes = crate::encoding::write(&state).len();
    assert!(bytes <= ALERT_BYTES_MAX, "{bytes} of {ALERT_BYTES_MAX}");
    assert!(bytes > 200, "it was not the largest: {bytes}");
}

#[test]
fn what_makes_no_sense_is_told_by_its_key() {
    let keys = |change: &dyn Fn(&mut Alerting)| -> Vec<&'static str> {
        let mut alerting = levels();
        change(&mut alerting);
        let problems = alerting.problems();
        problems.iter().map(|problem| problem.key).collect()
    };
    assert_eq!(keys(&|_| ()), Vec::<&str>::new());
    assert_eq!(keys(&|it| it.levels.clear()), ["levels"]);
    assert_eq!(keys(&|it| it.levels.swap(0, 1)), ["levels"]);
    assert_eq!(keys(&|it| it.levels[2].clear = 0.95), ["clear"]);
    assert_eq!(
        keys(&|it| it.levels[1].severity = Severity::Info),
        ["levels"]
    );
    assert_eq!(keys(&|it| it.hold = Hold::Time(Duration::ZERO)), ["hold"]);
    let rate = |alerts| RateLimit {
        alerts,
        per: Duration::from_secs(1),
    };
    assert_eq!(keys(&|it| it.rate = Some(rate(0))), ["rate_limit"]);
    assert_eq!(
        keys(&|it| it.rate = Some(rate(RATE_ALERTS_MAX + 1))),
        ["rate_limit"]
    );
    assert_eq!(keys(&|it| it.rate_all = Some(rate(0))), ["rate_limit_all"]);
}

#[test]
fn the_limit_of_all_assets_counts_the_others_too() {
    let per = Duration::from_secs(60);
    let alerting = Alerting {
        rate_all: Some(RateLimit { alerts: 2, per }),
        ..Alerting::at(Severity::Warning, 0.8, 0.6)
    };
    let mut assets = [AlertState::default(); 2];
    let mut told = |asset: usize, second: i64, score: f32| {
        let at = WallNanos(second * 1_000_000_000);
        let others = assets[1 - asset].told_near(at, per);
        let transition = assets[asset].observe(score, at, &alerting, others)?;
        Some((transition.change, transition.suppressed))
    };
    assert_eq!(told(0, 10, 0.9), Some((Raised, 0)));
    // Its windows are behind.
    assert_eq!(told(1, 5, 0.9), Some((Raised, 0)));
    assert_eq!(told(0, 12, 0.1), Some((Cleared, 0)));
    assert_eq!(told(0, 13, 0.9), None);
    assert_eq!(
        told(0, 14, 0.9),
        None,
        "two are told of, the other's is one"
    );
    assert_eq!(
        told(1, 15, 0.1),
        Some((Cleared, 0)),
        "what gets better is told"
    );
    assert_eq!(
        told(0, 65, 0.9),
        Some((Raised, 1)),
        "the other's is a minute ago"
    );
}
