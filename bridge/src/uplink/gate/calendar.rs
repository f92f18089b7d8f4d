//! Days, months and minutes as people at the link's other end count them. The only file that
//! names `jiff`.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

const MINUTE: i64 = 60;
const DAY: i64 = 24 * 60 * MINUTE;

/// Seconds since 1970, by the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixSeconds(pub i64);

impl UnixSeconds {
    #[must_use]
    pub fn now() -> Self {
        Self(Timestamp::now().as_second())
    }

    /// The beginning of the minute after this one.
    #[must_use]
    pub(super) fn next_minute(self) -> Self {
        Self((self.0.div_euclid(MINUTE) + 1) * MINUTE)
    }

    #[must_use]
    pub(super) fn plus_days(self, days: i64) -> Self {
        Self(self.0.saturating_add(days * DAY))
    }
}

/// A calendar day such as `20261126`: readable, and later days are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Day(pub u32);

impl Day {
    /// Such as `202611`.
    #[must_use]
    pub fn month(self) -> u32 {
        self.0 / 100
    }
}

/// A time zone with its summer times, from the system's tables or, where it has none, from those
/// built in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// What a clock on the wall there shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Local {
    pub(super) minute: u8,
    pub(super) hour: u8,
    pub(super) day: u8,
    pub(super) month: u8,
    /// 0 is Sunday.
    pub(super) weekday: u8,
}

/// Names what is not a time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a time zone; give a name of the IANA database such as \"Europe/Oslo\", or \"UTC\""
)]
pub struct UnknownZone(String);

impl Zone {
    pub const UTC: Self = Self(TimeZone::UTC);

    /// # Errors
    /// When no time zone has this name.
    pub fn new(name: &str) -> Result<Self, UnknownZone> {
        let found = TimeZone::get(name);
        found.map(Self).map_err(|_| UnknownZone(name.to_owned()))
    }

    #[must_use]
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    #[must_use]
    pub fn day(&self, at: UnixSeconds) -> Day {
        let local = self.datetime(at);
        let year = u32::try_from(local.year()).unwrap_or(0);
        let (month, day) = (local.month().unsigned_abs(), local.day().unsigned_abs());
        Day(year * 10_000 + u32::from(month) * 100 + u32::from(day))
    }

    pub(super) fn local(&self, at: UnixSeconds) -> Local {
        let local = self.datetime(at);
        Local {
            minute: local.minute().unsigned_abs(),
            hour: local.hour().unsigned_abs(),
            day: local.day().unsigned_abs(),
            month: local.month().unsigned_abs(),
            weekday: local.weekday().to_sunday_zero_offset().unsigned_abs(),
        }
    }

    /// The beginning of the day after the one that `at` is in.
    pub(super) fn next_midnight(&self, at: UnixSeconds) -> UnixSeconds {
        let tomorrow = self.datetime(at).date().tomorrow();
        let midnight = tomorrow.and_then(|date| self.0.to_timestamp(date.at(0, 0, 0, 0)));
        midnight.map_or(at.plus_days(1), |at| UnixSeconds(at.as_second()))
    }

    fn datetime(&self, at: UnixSeconds) -> DateTime {
        let at = Timestamp::from_second(at.0).unwrap_or(Timestamp::UNIX_EPOCH);
        self.0.to_datetime(at)
    }
}

/// The moment that `text` names, for tests.
#[cfg(test)]
pub(super) fn moment(text: &str) -> UnixSeconds {
    UnixSeconds(text.parse::<Timestamp>().unwrap().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_begin_at_midnight_of_the_place() {
        let oslo = Zone::new("Europe/Oslo").unwrap();
        assert_eq!(oslo.day(moment("2026-11-30T22:59:59Z")), Day(20_261_130));
        assert_eq!(oslo.day(moment("2026-11-30T23:00:00Z")), Day(20_261_201));
        assert_eq!(Day(20_261_201).month(), 202_612);
        assert_eq!(
            Zone::UTC.day(moment("2026-11-30T23:00:00Z")),
            Day(20_261_130)
        );
        let midnight = oslo.next_midnight(moment("2026-07-01T12:00:00Z"));
        assert_eq!(midnight, moment("2026-07-01T22:00:00Z"));
    }

    #[test]
    fn days_of_summer_time_are_as_long_as_they_are() {
        let oslo = Zone::new("Europe/Oslo").unwrap();
        for (noon, hours) in [("2026-03-29T12:00:00Z", 23), ("2026-10-25T12:00:00Z", 25)] {
            let end = oslo.next_midnight(moment(noon));
            let begin = oslo.next_midnight(UnixSeconds(moment(noon).0 - DAY));
            assert_eq!((end.0 - begin.0) / 3_600, hours, "{noon}");
        }
    }

    #[test]
    fn a_zone_nobody_knows_is_named() {
        let why = Zone::new("Mars/Olympus").unwrap_err().to_string();
        assert!(
            why.contains("`Mars/Olympus`") && why.contains("Europe/Oslo"),
            "{why}"
        );
        assert_eq!(Zone::new("Europe/Oslo").unwrap().name(), "Europe/Oslo");
    }
}
