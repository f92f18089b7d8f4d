//! `canary` of a `[[model]]`: how an activated version is held against the one before.

use crate::config::reader::{Table, Value};
use crate::config::{number, units};
use skerry_inference::{CANARY_WINDOWS_MAX, Canary, Difference};
use std::ops::RangeInclusive;
use std::time::Duration;

const TIME_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=units::YEAR;

pub(super) fn read(table: &Table<'_>) -> Option<Canary> {
    let table = table.table("canary")?;
    let windows = table.optional("windows", units::count(1..=CANARY_WINDOWS_MAX as usize));
    let difference_max = table.optional("difference_max", difference);
    let differing_max = table.optional("differing_max", number::percent);
    let time_max = table.optional("time_max", units::duration(TIME_RANGE));
    table.finish();
    let default = Canary::default();
    let windows = windows.and_then(|windows| u32::try_from(windows).ok());
    Some(Canary {
        windows: windows.unwrap_or(default.windows),
        difference_max,
        differing_percent_max: differing_max.unwrap_or(default.differing_percent_max),
        time_max: time_max.unwrap_or(default.time_max),
    })
}

/// A number, or a share of the score in quotes.
fn difference(value: &Value<'_>) -> Result<Difference, String> {
    match number::finite(value) {
        Ok(number) if number >= 0.0 => Ok(Difference::Absolute(number)),
        Ok(number) => Err(format!("must be at least 0, not {number}")),
        Err(_) => {
            let share = number::percent(value).map(Difference::Percent);
            share.map_err(|why| format!("{why}, or a number without"))
        }
    }
}
