//! When the link may be used: minutes chosen by five cron fields in a time zone. Pure.

use super::calendar::{Local, UnixSeconds, Zone};

/// Days to look ahead: every date of the calendar comes within 8 years, of a leap day too.
const LOOK_AHEAD_DAYS: i64 = 8 * 366;

/// Open while any rule matches the minute; without a rule always.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    zone: Zone,
    rules: Vec<Rule>,
}

/// Says which field of which rule is wrong and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{rule}` {why}; write `minute hour day-of-month month day-of-week`, such as \"* 2-5 * * *\" for 02:00 to 05:59"
)]
pub struct InvalidWindow {
    rule: String,
    why: String,
}

impl Windows {
    #[must_use]
    pub fn always() -> Self {
        Self {
            zone: Zone::UTC,
            rules: Vec::new(),
        }
    }

    /// # Errors
    /// With a sentence that names the first rule that is not one, or never matches.
    pub fn new<'r>(
        zone: Zone,
        rules: impl IntoIterator<Item = &'r str>,
    ) -> Result<Self, InvalidWindow> {
        let rules = rules.into_iter().map(|text| {
            let refused = |why| InvalidWindow {
                rule: text.to_owned(),
                why,
            };
            let rule = Rule::parse(text).map_err(refused)?;
            match rule.comes() {
                true => Ok(rule),
                false => Err(refused("names a day that no month has".to_owned())),
            }
        });
        let rules = rules.collect::<Result<_, _>>()?;
        Ok(Self { zone, rules })
    }

    /// The same minutes of another place.
    #[must_use]
    pub fn in_zone(self, zone: Zone) -> Self {
        Self { zone, ..self }
    }

    #[must_use]
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    #[must_use]
    pub fn is_open(&self, now: UnixSeconds) -> bool {
        let local = self.zone.local(now);
        self.rules.is_empty() || self.rules.iter().any(|rule| rule.matches(&local))
    }

    /// When they are open next, looking from `now`, which is the answer if they are.
    #[must_use]
    pub fn next_opening(&self, now: UnixSeconds) -> Option<UnixSeconds> {
        let mut at = now;
        while at < now.plus_days(LOOK_AHEAD_DAYS) {
            if self.is_open(at) {
                return Some(at);
            }
            let local = self.zone.local(at);
            at = match self.rules.iter().any(|rule| rule.matches_day(&local)) {
                true => at.next_minute(),
                false => self.zone.next_midnight(at),
            };
        }
        None
    }
}

/// Sets of numbers, bit n for n.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// As in cron: where both kinds of day are chosen, either will do.
    either_day: bool,
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Rule {
    fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(format!("has {} fields, not 5", fields.len()));
        };
        let weekday_set = set("day of the week", weekdays, 0, 7, (0, &WEEKDAYS))?;
        Ok(Self {
            minutes: set("minute", minutes, 0, 59, (0, &[]))?,
            hours: set("hour", hours, 0, 23, (0, &[]))?,
            days: set("day of the month", days, 1, 31, (0, &[]))?,
            months: set("month", months, 1, 12, (1, &MONTHS))?,
            // Sunday is 0 and 7.
            weekdays: weekday_set & 0x7f | weekday_set >> 7,
            either_day: !days.starts_with('*') && !weekdays.starts_with('*'),
        })
    }

    fn matches(&self, local: &Local) -> bool {
        has(self.minutes, local.minute) && has(self.hours, local.hour) && self.matches_day(local)
    }

    fn matches_day(&self, local: &Local) -> bool {
        let (day, weekday) = (has(self.days, local.day), has(self.weekdays, local.weekday));
        let chosen = match self.either_day {
            true => day || weekday,
            false => day && weekday,
        };
        has(self.months, local.month) && chosen
    }

    /// Whether any year has such a day.
    fn comes(&self) -> bool {
        const LENGTHS: [u8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let first = self.days.trailing_zeros();
        let mut months = (1..).zip(LENGTHS);
        self.either_day
            || months.any(|(month, days)| has(self.months, month) && first <= u32::from(days))
    }
}

fn has(set: u64, number: u8) -> bool {
    set >> number & 1 == 1
}

/// One field: `*`, `n`, `a-b`, each with `/step`, joined by commas; names count from `names.0`.
fn set(field: &str, text: &str, least: u8, most: u8, names: (u8, &[&str])) -> Result<u64, String> {
    let wrong = |part: &str| format!("has `{part}` as {field}, which is {least} to {most}");
    let number = |part: &str| {
        let named = names.1.iter().zip(names.0..);
        let named = named.filter(|(name, _)| name.eq_ignore_ascii_case(part));
        let number = named.map(|(_, number)| number).next();
        let number = number.or_else(|| part.parse().ok());
        let number = number.filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| wrong(part))
    };
    let mut set = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                let step = step.parse().ok().filter(|step| *step > 0);
                (range, Some(step.ok_or_else(|| wrong(part))?))
            }
            None => (part, None),
        };
        let (first, last) = match (range.split_once('-'), step) {
            _ if range == "*" => (least, most),
            (Some((first, last)), _) => (number(first)?, number(last)?),
            // `5/15` is "from 5 on, every 15".
            (None, Some(_)) => (number(range)?, most),
            (None, None) => (number(range)?, number(range)?),
        };
        if first > last {
            return Err(wrong(part));
        }
        for number in (first..=last).step_by(step.unwrap_or(1)) {
            set |= 1 << number;
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::super::calendar::moment;
    use super::*;

    fn windows(zone: &str, rules: &[&str]) -> Windows {
        Windows::new(Zone::new(zone).unwrap(), rules.iter().copied()).unwrap()
    }

    #[test]
    fn a_window_is_open_in_the_minutes_of_its_place() {
        let night = windows("Europe/Oslo", &["* 2-5 * * *"]);
        for (at, open) in [
            ("2026-01-10T00:59:59Z", false),
            ("2026-01-10T01:00:00Z", true),
            ("2026-01-10T04:59:59Z", true),
            ("2026-01-10T05:00:00Z", false),
            // Summer time.
            ("2026-07-10T00:00:00Z", true),
            ("2026-07-10T04:00:00Z", false),
        ] {
            assert_eq!(night.is_open(moment(at)), open, "{at}");
        }
        let opening = |at| night.next_opening(moment(at)).unwrap();
        assert_eq!(
            opening("2026-01-10T05:00:00Z"),
            moment("2026-01-11T01:00:00Z")
        );
        assert_eq!(
            opening("2026-01-10T03:21:07Z"),
            moment("2026-01-10T03:21:07Z")
        );
        assert!(Windows::always().is_open(moment("2026-01-10T05:00:00Z")));
    }

    /// 2 to 3 does not exist in Oslo on 29 March, and comes twice on 25 October.
    #[test]
    fn windows_over_a_change_of_the_clock() {
        let two = windows("Europe/Oslo", &["* 2 * * *"]);
        let opening = |at| two.next_opening(moment(at)).unwrap();
        assert_eq!(
            opening("2026-03-28T12:00:00Z"),
            moment("2026-03-30T00:00:00Z")
        );
        let minutes = |from: &str| {
            let from = moment(from).0;
            (0..24 * 60)
                .filter(|m| two.is_open(UnixSeconds(from + m * 60)))
                .count()
        };
        assert_eq!(minutes("2026-10-24T22:00:00Z"), 120);
        assert_eq!(minutes("2026-10-26T23:00:00Z"), 60);
    }

    #[test]
    fn days_are_chosen_as_cron_does() {
        let harbour = windows("UTC", &["0-29 8 * * mon-fri", "*/20 22 1 JAN *"]);
        let open = |at| harbour.is_open(moment(at));
        // 5 January 2026 is a Monday.
        assert!(open("2026-01-05T08:29:59Z") && !open("2026-01-05T08:30:00Z"));
        assert!(!open("2026-01-04T08:00:00Z"));
        assert!(open("2026-01-01T22:40:00Z") && !open("2026-01-01T22:41:00Z"));
        let either = windows("UTC", &["* * 13 * 5"]);
        let open = |at| either.is_open(moment(at));
        assert!(open("2026-01-13T00:00:00Z") && open("2026-01-16T00:00:00Z"));
        assert!(!open("2026-01-14T00:00:00Z"));
        let sundays = windows("UTC", &["* * * * 7"]);
        assert_eq!(sundays.rules, windows("UTC", &["* * * * 0"]).rules);
    }

    #[test]
    fn a_leap_day_is_waited_for() {
        let rare = windows("UTC", &["5/30 12 29 2 *"]);
        let next = rare.next_opening(moment("2096-03-01T00:00:00Z")).unwrap();
        assert_eq!(next, moment("2104-02-29T12:05:00Z"));
    }

    #[test]
    fn what_is_wrong_with_a_rule_is_told() {
        for (rule, part) in [
            ("* 2-5 * *", "4 fields"),
            ("60 * * * *", "minute, which is 0 to 59"),
            ("* 5-2 * * *", "`5-2` as hour"),
            ("* * 0 * *", "day of the month, which is 1 to 31"),
            ("* * * foo *", "`foo` as month"),
            ("*/0 * * * *", "`*/0`"),
            ("* * * * 8", "day of the week, which is 0 to 7"),
            ("* * 30 2 *", "no month has"),
        ] {
            let why = Windows::new(Zone::UTC, [rule]).unwrap_err().to_string();
            assert!(why.contains(part) && why.contains("2-5"), "{why}");
        }
    }
}
