//! How a column of whole numbers is written: in which order, as differences of what, and coded how.
//!
//! What is chosen depends on the numbers alone. Choosing looks at the first [`SAMPLE`] of them.

use crate::coding::{Bits, bit_length, put_varint, rice_bits, varint_bytes, zigzag};
use crate::text::TextColumn;

const SAMPLE: usize = 256;

/// The low bits of a column's first byte: how what is left of the numbers is coded.
pub(crate) mod code {
    /// One number, which all are.
    pub(crate) const SAME: u8 = 0;
    /// In the column section, seven bits a byte.
    pub(crate) const VARINT: u8 = 1;
    /// In the bit section. A byte says with which parameter.
    pub(crate) const RICE: u8 = 2;
    pub(crate) const MASK: u8 = 3;
}
/// Bits 2 and 3: how many times differences were taken, at most [`DIFFERENCES_MAX`].
pub(crate) const DIFFERENCES_SHIFT: u32 = 2;
pub(crate) const DIFFERENCES_MASK: u8 = 3;
pub(crate) const DIFFERENCES_MAX: u8 = 2;
/// Bit 4: rows of one key after another, instead of in their own order.
pub(crate) const BY_KEY: u8 = 1 << 4;
/// Bit 5: the numbers are relative to their rows' timestamps.
pub(crate) const SINCE_TIMESTAMP: u8 = 1 << 5;

/// Numbers further from a timestamp, in its milliseconds, are not of the same kind.
const LATE_MAX: u64 = 24 * 3_600 * 1_000;

/// What is known of a column's rows before its numbers are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// Their order by key, if the keys are known.
    pub(crate) by_key: &'a [u32],
    /// Their timestamps, if those are known.
    pub(crate) timestamps: &'a [i64],
}

impl Rows<'_> {
    /// Before anything is known.
    pub(crate) const UNKNOWN: Self = Self {
        by_key: &[],
        timestamps: &[],
    };

    /// Whether it is worth a try to take numbers for times.
    fn may_be_times(&self, values: &[i64]) -> bool {
        let first = values.first().zip(self.timestamps.first());
        first.is_some_and(|(value, timestamp)| value.abs_diff(*timestamp) < LATE_MAX)
    }
}

/// How a column is laid out before it is coded.
#[derive(Debug, Clone, Copy)]
struct Way {
    by_key: bool,
    /// How many times differences are taken.
    differences: usize,
    cost: u64,
}

impl Way {
    fn cheapest(values: &[i64], by_key: &[u32]) -> Self {
        let ways = |by_key, costs: [u64; 3]| {
            let each = costs.into_iter().enumerate();
            each.map(move |(differences, cost)| Self {
                by_key,
                differences,
                cost,
            })
        };
        let in_rows = ways(false, costs(values.iter().copied()));
        // The same order once more is of no use.
        let in_keys = Some(by_key)
            .filter(|order| !order.is_sorted())
            .map(|order| {
                let ordered = order.iter().map(|row| values[*row as usize]);
                ways(true, costs(ordered))
            });
        let all = in_rows.chain(in_keys.into_iter().flatten());
        all.min_by_key(|way| way.cost).expect("three at least")
    }
}

/// The low bits of a decimal column's first byte; the others are the decimals.
pub(crate) mod point {
    /// All texts have the same number of decimals.
    pub(crate) const FIXED: u8 = 0;
    /// All have as few as they can, but no fewer than the next byte says.
    pub(crate) const TRIMMED: u8 = 1;
    /// A column of its own says how many.
    pub(crate) const EACH: u8 = 2;
    pub(crate) const MASK: u8 = 3;
    pub(crate) const DECIMALS_SHIFT: u32 = 2;
}

/// A block in the making: its two sections, and room to think.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) columns: Vec<u8>,
    pub(crate) bits: Bits,
    ordered: Vec<i64>,
    late: Vec<i64>,
    left: Vec<u64>,
    scaled: Vec<i64>,
    seen: Vec<u64>,
}

impl Writer {
    pub(crate) fn clear(&mut self) {
        self.columns.clear();
        self.bits.clear();
    }

    pub(crate) fn varint(&mut self, value: usize) {
        put_varint(&mut self.columns, value as u64);
    }

    /// A column of numbers.
    pub(crate) fn integers(&mut self, values: &[i64], rows: Rows<'_>) {
        let plain = Way::cheapest(values, rows.by_key);
        if !rows.may_be_times(values) {
            return self.ordered(values, rows.by_key, plain, 0);
        }
        let mut late = std::mem::take(&mut self.late);
        late.clear();
        let pairs = values.iter().zip(rows.timestamps);
        late.extend(pairs.map(|(value, timestamp)| value.wrapping_sub(*timestamp)));
        let relative = Way::cheapest(&late, rows.by_key);
        if relative.cost < plain.cost {
            self.ordered(&late, rows.by_key, relative, SINCE_TIMESTAMP);
        } else {
            self.ordered(values, rows.by_key, plain, 0);
        }
        self.late = late;
    }

    fn ordered(&mut self, values: &[i64], by_key: &[u32], way: Way, since: u8) {
        if !way.by_key {
            return self.coded(values, way.differences, since);
        }
        let mut ordered = std::mem::take(&mut self.ordered);
        ordered.clear();
        ordered.extend(by_key.iter().map(|row| values[*row as usize]));
        self.coded(&ordered, way.differences, since | BY_KEY);
        self.ordered = ordered;
    }

    fn coded(&mut self, values: &[i64], differences: usize, flags: u8) {
        let mut left = std::mem::take(&mut self.left);
        left.clear();
        let differences = differences.min(values.len());
        let head = flags | (differences as u8) << DIFFERENCES_SHIFT;
        // Those that there is nothing before are told apart from what is left of the others.
        let mut first = [0; DIFFERENCES_MAX as usize];
        let rest = &values[differences..];
        match *values {
            [one, ..] if differences == 1 => {
                first[0] = one;
                left.extend(steps(rest, one).map(zigzag));
            }
            [one, two, ..] if differences == 2 => {
                let mut step = two.wrapping_sub(one);
                first = [one, step];
                left.extend(steps(rest, two).map(|next| {
                    let change = next.wrapping_sub(step);
                    step = next;
                    zigzag(change)
                }));
            }
            _ => left.extend(values.iter().map(|value| zigzag(*value))),
        }
        let coding = self.coding(&left);
        self.columns.push(head | coding.0);
        for value in &first[..differences] {
            put_varint(&mut self.columns, zigzag(*value));
        }
        match coding.0 {
            code::SAME => put_varint(&mut self.columns, left.first().copied().unwrap_or(0)),
            code::VARINT => left.iter().for_each(|v| put_varint(&mut self.columns, *v)),
            _ => {
                self.columns.push(coding.1 as u8);
                left.iter().for_each(|v| self.bits.put_rice(*v, coding.1));
            }
        }
        self.left = left;
    }

    /// Which code, and with which parameter.
    fn coding(&mut self, left: &[u64]) -> (u8, u32) {
        if left.windows(2).all(|pair| pair[0] == pair[1]) {
            return (code::SAME, 0);
        }
        let (parameter, rice) = rice(left);
        if self.varints(left) <= rice {
            (code::VARINT, 0)
        } else {
            (code::RICE, parameter)
        }
    }

    /// About how many bits the numbers take as varints, once they are compressed: what has come
    /// before after the same two numbers is likely to be part of a repetition.
    fn varints(&mut self, left: &[u64]) -> u64 {
        const SEEN: usize = 1 << 12;
        const REPEATED_BITS: u64 = 1;
        const BYTE_BITS: u64 = 7;
        self.seen.clear();
        self.seen
            .resize(SEEN.min(left.len().next_power_of_two() * 4), 0);
        let mask = self.seen.len() - 1;
        let mut bits = 0;
        let mut before = [0, 0];
        for &value in left {
            let context = value
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .wrapping_add(before[0] ^ u64::rotate_left(before[1], 21))
                | 1;
            before = [value.wrapping_mul(0xC2B2_AE3D_27D4_EB4F), before[0]];
            let slot = &mut self.seen[(context >> 40) as usize & mask];
            bits += if *slot == context {
                REPEATED_BITS
            } else {
                BYTE_BITS * u64::from(varint_bytes(value))
            };
            *slot = context;
        }
        bits
    }

    /// Numbers that are written with a point.
    pub(crate) fn decimals(&mut self, values: &[i64], decimals: &[u8], rows: Rows<'_>) {
        let most = decimals.iter().copied().max().unwrap_or(0);
        let least = decimals.iter().copied().min().unwrap_or(0);
        let first = most << point::DECIMALS_SHIFT;
        if most == least {
            self.columns.push(first | point::FIXED);
            return self.integers(values, rows);
        }
        let mut scaled = std::mem::take(&mut self.scaled);
        scaled.clear();
        let each = values.iter().zip(decimals);
        let trimmed = each.map(|(value, decimals)| {
            let could_be_shorter = *decimals > least && value % 10 == 0;
            let scaled = value.checked_mul(10_i64.pow(u32::from(most - decimals)));
            scaled.filter(|_| !could_be_shorter)
        });
        // One that is not ends it.
        scaled.extend(trimmed.map_while(|value| value));
        if scaled.len() == values.len() {
            self.columns.extend([first | point::TRIMMED, least]);
            self.integers(&scaled, rows);
        } else {
            self.columns.push(first | point::EACH);
            scaled.clear();
            scaled.extend(decimals.iter().map(|decimals| i64::from(*decimals)));
            self.integers(&scaled, rows);
            self.integers(values, rows);
        }
        self.scaled = scaled;
    }

    /// The texts, each once, and of every row the number of its text.
    pub(crate) fn texts(&mut self, texts: &TextColumn, rows: Rows<'_>) {
        self.varint(texts.count());
        for length in texts.lengths() {
            self.varint(length);
        }
        self.columns.extend_from_slice(&texts.bytes);
        if texts.count() > 1 {
            self.integers(&texts.ids, rows);
        }
    }
}

fn steps(values: &[i64], mut before: i64) -> impl Iterator<Item = i64> {
    values.iter().map(move |value| {
        let step = value.wrapping_sub(before);
        before = *value;
        step
    })
}

/// About how many bits numbers have, their differences, and the differences of those.
fn costs(values: impl Iterator<Item = i64>) -> [u64; 3] {
    let mut costs = [0; 3];
    let (mut before, mut before_step) = (0, 0);
    for (row, value) in values.take(SAMPLE).enumerate() {
        let step = i64::wrapping_sub(value, before);
        let change = i64::wrapping_sub(step, before_step);
        for (cost, number) in costs.iter_mut().zip([value, step, change]) {
            *cost += u64::from(bit_length(zigzag(number)));
        }
        // What there is nothing before is told apart, and is no larger than it is here.
        (before, before_step) = (value, if row == 0 { 0 } else { step });
    }
    costs
}

/// The best parameter, and how many bits the numbers take with it.
fn rice(left: &[u64]) -> (u32, u64) {
    let mut lengths = [0_usize; 65];
    for value in left {
        lengths[bit_length(*value) as usize] += 1;
    }
    // Half of the numbers are longer than the median: the best is close below it.
    let mut below = 0;
    let median = lengths.iter().position(|count| {
        below += count;
        below * 2 >= left.len()
    });
    let median = median.unwrap_or(0) as u32;
    let bits = |parameter: u32| {
        let sum: u64 = left
            .iter()
            .map(|v| u64::from(rice_bits(*v, parameter)))
            .sum();
        // The parameter itself takes a byte.
        (sum + 8, parameter)
    };
    let candidates = median.saturating_sub(2)..=median.min(63);
    let (bits, parameter) = candidates.map(bits).min().expect("one at least");
    (parameter, bits)
}
