//! The wall clock, as far as it can be told to be wrong: a board without a battery starts in 1970
//! and jumps by decades when a time server is found. Nothing is removed for its age by it: the log
//! counts age on a clock of its own. But records carry its time, and certificates go by it.

use chrono::{DateTime, Utc};
use skerry_store::WallNanos;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A time server moves a clock by fractions of a second once it is right.
const JUMP_LEAST: Duration = Duration::from_secs(60);

/// How far the clock has gone, by the clock and by the time that passed.
#[derive(Debug)]
struct Watch {
    wall: WallNanos,
    at: Instant,
}

#[derive(Debug, PartialEq, Eq)]
struct Jump {
    from: WallNanos,
    to: WallNanos,
}

impl Watch {
    /// A jump since the last look, if there was one.
    fn look(&mut self, wall: WallNanos, at: Instant) -> Option<Jump> {
        let passed = at.saturating_duration_since(self.at);
        let passed = i64::try_from(passed.as_nanos()).unwrap_or(i64::MAX);
        let from = WallNanos(self.wall.0.saturating_add(passed));
        (self.wall, self.at) = (wall, at);
        let by = Duration::from_nanos(wall.0.abs_diff(from.0));
        (by >= JUMP_LEAST).then_some(Jump { from, to: wall })
    }
}

impl std::fmt::Display for Jump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let by = Duration::from_secs(self.to.0.abs_diff(self.from.0) / 1_000_000_000);
        let way = if self.to > self.from { "on" } else { "back" };
        write!(
            f,
            "the clock was set {way} by {}, from {} to {}; records from before keep the time they \
             were given, and nothing is removed for its age by it",
            humantime::format_duration(by),
            shown(self.from),
            shown(self.to)
        )
    }
}

/// Warns of a clock that cannot be right, and of what follows from it.
fn warning(wall: WallNanos) -> Option<String> {
    (!wall.is_set()).then(|| {
        format!(
            "this machine's clock has not been set: it says {}. Records get that time until it is, \
             and certificates look as if they were not valid yet, so that TLS connections fail. \
             Data are taken in and kept all the same. Set it (timedatectl set-time), or let the \
             machine reach a time server",
            shown(wall)
        )
    })
}

fn shown(wall: WallNanos) -> String {
    let time: DateTime<Utc> = DateTime::from_timestamp_nanos(wall.0);
    time.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Tells of what is wrong with the clock, for as long as the node runs.
pub async fn watch(stop: CancellationToken) {
    let mut watch = Watch {
        wall: WallNanos::now(),
        at: Instant::now(),
    };
    if let Some(warning) = warning(watch.wall) {
        tracing::warn!("{warning}");
    }
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if let Some(jump) = watch.look(WallNanos::now(), Instant::now()) {
            tracing::warn!("{jump}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: WallNanos = WallNanos(1_795_762_800_000_000_000);

    #[test]
    fn a_clock_in_1970_is_told_with_what_follows() {
        let warning = warning(WallNanos(200_000_000_000)).expect("a warning");
        for told in [
            "1970-01-01T00:03:20Z",
            "TLS connections fail",
            "timedatectl",
        ] {
            assert!(warning.contains(told), "{warning}");
        }
        assert_eq!(super::warning(SET), None);
    }

    #[test]
    fn jumps_are_told_once_and_a_clock_that_goes_is_not_one() {
        let (start, mut watch) = (Instant::now(), WallNanos(0));
        let mut of = Watch {
            wall: watch,
            at: start,
        };
        for seconds in 1..100 {
            // A second and a half a second: set, little by little.
            watch.0 += 1_500_000_000;
            let jump = of.look(watch, start + Duration::from_secs(seconds));
            assert_eq!(jump, None);
        }
        let at = start + Duration::from_secs(110);
        let jump = of.look(SET, at).expect("a jump");
        let text = jump.to_string();
        for told in [
            "set on by 56years",
            "from 1970-01-01T00:02:",
            "to 2026-11-27T",
        ] {
            assert!(text.contains(told), "{text}");
        }
        assert_eq!(of.look(SET, at), None);
        let back = of.look(WallNanos(0), at).expect("a jump");
        assert!(back.to_string().contains("set back by 56years"), "{back}");
    }
}
