//! How many bytes a link may carry in a day and in a month, and how many it has. Pure.

use super::calendar::Day;
use super::queue::Priority;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Bytes on the wire, in both directions together: that is what a contract counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    pub bytes_per_day: Option<u64>,
    pub bytes_per_month: Option<u64>,
    /// This much of each is kept for the lanes of `reserve_priority` and before.
    pub reserve_percent: u8,
    pub reserve_priority: Priority,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            bytes_per_day: None,
            bytes_per_month: None,
            reserve_percent: 10,
            reserve_priority: Priority::FIRST,
        }
    }
}

/// What a link has carried. Whoever keeps it over a restart stores it as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// The day that is counted.
    pub day: Day,
    pub day_bytes: u64,
    pub month_bytes: u64,
    pub sent_bytes_total: u64,
    pub received_bytes_total: u64,
}

/// Each link class's own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Usages(pub BTreeMap<String, Usage>);

impl Usage {
    /// It is `today`. An earlier day than the one counted is a clock that was wrong then or is
    /// now, mostly one that started without a battery: bytes go on counting for the later day,
    /// so that a reboot does not refill the budget, until `believed`.
    pub fn turn(&mut self, today: Day, believed: bool) {
        if today == self.day || today < self.day && !believed {
            return;
        }
        if today.month() != self.day.month() {
            self.month_bytes = 0;
        }
        (self.day, self.day_bytes) = (today, 0);
    }

    pub fn spend(&mut self, sent: u64, received: u64) {
        let bytes = sent.saturating_add(received);
        self.day_bytes = self.day_bytes.saturating_add(bytes);
        self.month_bytes = self.month_bytes.saturating_add(bytes);
        self.sent_bytes_total = self.sent_bytes_total.saturating_add(sent);
        self.received_bytes_total = self.received_bytes_total.saturating_add(received);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    Day,
    Month,
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Day => "day",
            Self::Month => "month",
        })
    }
}

/// What a [`Budget`] allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    All,
    /// Only what the reserve is kept for.
    Reserve(Period),
    Nothing(Period),
}

impl Budget {
    #[must_use]
    pub fn verdict(&self, usage: &Usage) -> Verdict {
        let periods = self.periods(usage);
        let reached = |limit: fn(u64, u64) -> u64| {
            let mut reached = periods.iter().filter(|(_, used, most)| {
                most.is_some_and(|most| *used >= limit(most, self.reserve(most)))
            });
            reached.next_back().map(|(period, ..)| *period)
        };
        if let Some(period) = reached(|most, _| most) {
            return Verdict::Nothing(period);
        }
        reached(|most, reserve| most - reserve).map_or(Verdict::All, Verdict::Reserve)
    }

    /// What all lanes together may still use, the reserve included: today and this month.
    #[must_use]
    pub fn left(&self, usage: &Usage) -> [Option<u64>; 2] {
        self.periods(usage)
            .map(|(_, used, most)| most.map(|most| most.saturating_sub(used)))
    }

    fn periods(&self, usage: &Usage) -> [(Period, u64, Option<u64>); 2] {
        [
            (Period::Day, usage.day_bytes, self.bytes_per_day),
            (Period::Month, usage.month_bytes, self.bytes_per_month),
        ]
    }

    fn reserve(&self, most: u64) -> u64 {
        let reserve = u128::from(most) * u128::from(self.reserve_percent.min(100)) / 100;
        u64::try_from(reserve).unwrap_or(most)
    }
}

#[cfg(test)]
mod tests {
    use super::super::calendar::{Zone, moment};
    use super::*;

    fn budget(day: u64, month: u64) -> Budget {
        Budget {
            bytes_per_day: Some(day),
            bytes_per_month: Some(month),
            ..Budget::default()
        }
    }

    #[test]
    fn bulk_stops_before_the_reserve_and_all_at_the_end() {
        let (budget, mut usage) = (budget(1_000, 10_000), Usage::default());
        usage.turn(Day(20_261_126), false);
        usage.spend(400, 499);
        assert_eq!(budget.verdict(&usage), Verdict::All);
        usage.spend(1, 0);
        assert_eq!(budget.verdict(&usage), Verdict::Reserve(Period::Day));
        assert_eq!(budget.left(&usage), [Some(100), Some(9_100)]);
        usage.spend(50, 50);
        assert_eq!(budget.verdict(&usage), Verdict::Nothing(Period::Day));
        assert_eq!(Budget::default().verdict(&usage), Verdict::All);
    }

    #[test]
    fn midnight_and_the_end_of_the_month_bring_new_bytes() {
        let (budget, mut usage) = (budget(1_000, 1_500), Usage::default());
        let oslo = Zone::new("Europe/Oslo").unwrap();
        let turn = |usage: &mut Usage, at| usage.turn(oslo.day(moment(at)), false);
        turn(&mut usage, "2026-11-29T22:30:00Z");
        usage.spend(1_000, 0);
        turn(&mut usage, "2026-11-29T22:59:59Z");
        assert_eq!(budget.verdict(&usage), Verdict::Nothing(Period::Day));
        turn(&mut usage, "2026-11-29T23:00:00Z");
        assert_eq!(budget.verdict(&usage), Verdict::All);
        usage.spend(500, 0);
        // The month is told where both are used up: it lasts longer.
        usage.spend(500, 0);
        assert_eq!(budget.verdict(&usage), Verdict::Nothing(Period::Month));
        turn(&mut usage, "2026-11-30T23:00:00Z");
        assert_eq!(budget.verdict(&usage), Verdict::All);
        assert_eq!((usage.day, usage.month_bytes), (Day(20_261_201), 0));
        assert_eq!(usage.sent_bytes_total, 2_000);
    }

    /// On the day the clocks go back, 24 hours are not enough to get a second budget.
    #[test]
    fn the_day_of_the_longer_night_has_one_budget() {
        let oslo = Zone::new("Europe/Oslo").unwrap();
        let (mut usage, begin) = (Usage::default(), moment("2026-10-24T22:00:00Z").0);
        let mut budgets = 0;
        for hour in 0..26 {
            let at = super::super::calendar::UnixSeconds(begin + hour * 3_600);
            usage.turn(oslo.day(at), false);
            budgets += u32::from(usage.day_bytes == 0);
            usage.spend(1, 0);
        }
        assert_eq!(budgets, 2);
        assert_eq!(usage.day_bytes, 1, "only the 26th hour is of the next day");
    }

    #[test]
    fn a_clock_that_starts_in_1970_does_not_refill_the_budget() {
        let (mut usage, today) = (Usage::default(), Day(20_261_126));
        usage.turn(today, false);
        usage.spend(900, 0);
        usage.turn(Day(19_700_101), false);
        usage.spend(50, 0);
        usage.turn(today, false);
        assert_eq!(
            (usage.day, usage.day_bytes, usage.month_bytes),
            (today, 950, 950)
        );
        usage.turn(Day(20_251_126), true);
        assert_eq!((usage.day, usage.day_bytes), (Day(20_251_126), 0));
    }

    #[test]
    fn usage_is_kept_as_readable_numbers() {
        let mut usages = Usages::default();
        usages
            .0
            .entry("satellite".to_owned())
            .or_default()
            .turn(Day(20_261_126), false);
        let text = serde_json::to_string(&usages).unwrap();
        assert!(
            text.starts_with(r#"{"satellite":{"day":20261126,"day_bytes":0,"#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Usages>(&text).unwrap(), usages);
        assert!(serde_json::from_str::<Usages>(r#"{"lte":{"day":20261126}}"#).is_ok());
    }
}
