//! Kafka's timestamps mostly are some header's nanoseconds in whole milliseconds, and need not be
//! said again.

use crate::shape::{Column, Shapes};

/// The byte before the timestamps: they are a column.
pub(crate) const OWN: u8 = 0;
/// They follow from headers; of each shape of headers, from which is said.
pub(crate) const FROM_HEADERS: u8 = 1;

const NANOS_A_MILLI: i64 = 1_000_000;

pub(crate) const fn of_nanos(nanos: i64) -> i64 {
    nanos.div_euclid(NANOS_A_MILLI)
}

/// Of each shape of headers in the block the header that all timestamps follow from, if there is
/// one in each.
pub(crate) fn sources(timestamps: &[i64], headers: &Shapes) -> Option<Vec<usize>> {
    headers
        .used()
        .map(|shape| {
            let follow = |column: &Column| match column {
                Column::Decimal { values, decimals } => {
                    let mut rows = shape.rows.iter().zip(values);
                    rows.all(|(row, nanos)| timestamps[*row as usize] == of_nanos(*nanos))
                        && decimals.iter().all(|decimals| *decimals == 0)
                }
                _ => false,
            };
            shape.columns.iter().position(follow)
        })
        .collect()
}
