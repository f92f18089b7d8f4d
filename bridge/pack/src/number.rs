//! Texts that stand for whole numbers: decimals and points in time.
//!
//! Only what can be written again exactly is read: no `+`, no exponent, no leading zeros, no `-0`.

/// A decimal is at most this long, so that its digits fit into 63 bits.
const DIGITS_MAX: usize = 19;
/// Digits after the point of a decimal.
pub(crate) const DECIMALS_MAX: u8 = 18;
/// Digits after the point of a second.
pub(crate) const SECOND_DIGITS_MAX: u8 = 9;

/// `2026-11-26T14:42:44`.
const TIME_BYTES: usize = 19;
const SECONDS_A_DAY: i64 = 86_400;
/// Years that are written with four digits, in days since 1970.
const DAYS: std::ops::RangeInclusive<i64> = -719_528..=2_932_896;

/// A number at the start of a text, and how many bytes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number {
    pub(crate) value: i64,
    /// Digits after the point.
    pub(crate) decimals: u8,
    pub(crate) bytes: usize,
}

/// The longest decimal that `text` begins with, if it is one that can be written again.
pub(crate) fn decimal(text: &[u8]) -> Option<Number> {
    let negative = text.first() == Some(&b'-');
    let start = usize::from(negative);
    let (mut value, whole) = digits(&text[start..], 0)?;
    if whole == 0 || (whole > 1 && text[start] == b'0') {
        return None;
    }
    let mut bytes = start + whole;
    let mut decimals = 0;
    if text.get(bytes) == Some(&b'.') {
        let (with_decimals, count) = digits(&text[bytes + 1..], value)?;
        if count > 0 {
            value = with_decimals;
            decimals = count;
            bytes += 1 + count;
        }
    }
    if whole + decimals > DIGITS_MAX || (negative && value == 0) {
        return None;
    }
    let value = i64::try_from(value).ok()?;
    Some(Number {
        value: if negative { -value } else { value },
        decimals: decimals as u8,
        bytes,
    })
}

/// Goes on with a number by the digits that `text` begins with. `None` if they are too many.
#[inline]
fn digits(text: &[u8], mut value: u64) -> Option<(u64, usize)> {
    let mut count = 0;
    while let Some(digit) = text.get(count).map(|byte| byte.wrapping_sub(b'0'))
        && digit < 10
    {
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        count += 1;
    }
    (count <= DIGITS_MAX).then_some((value, count))
}

/// Adds the text that [`decimal`] reads as this.
pub(crate) fn put_decimal(out: &mut Vec<u8>, value: i64, decimals: u8) {
    let mut text = [b'0'; 24];
    let mut at = text.len();
    let mut rest = value.unsigned_abs();
    while rest >= 100 {
        let pair = &PAIRS[(rest % 100) as usize];
        rest /= 100;
        at -= 2;
        text[at..at + 2].copy_from_slice(pair);
    }
    if rest >= 10 {
        at -= 2;
        text[at..at + 2].copy_from_slice(&PAIRS[rest as usize]);
    } else {
        at -= 1;
        text[at] = b'0' + rest as u8;
    }
    if value < 0 {
        out.push(b'-');
    }
    if decimals == 0 {
        out.extend_from_slice(&text[at..]);
        return;
    }
    // At least one digit is before the point: what was not written to is zeros.
    let point = text.len() - usize::from(decimals);
    out.extend_from_slice(&text[at.min(point - 1)..point]);
    out.push(b'.');
    out.extend_from_slice(&text[point..]);
}

const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// A point in time at the start of a text: `2026-11-26T14:42:44`, and up to nine digits of a
/// second, as the number of such parts of a second since 1970.
pub(crate) fn time(text: &[u8]) -> Option<Number> {
    let head = text.first_chunk::<TIME_BYTES>()?;
    let separators = [head[4], head[7], head[10], head[13], head[16]];
    if separators != *b"--T::" {
        return None;
    }
    let two = |at: usize| {
        let (tens, ones) = (head[at].wrapping_sub(b'0'), head[at + 1].wrapping_sub(b'0'));
        (tens < 10 && ones < 10).then(|| i64::from(tens) * 10 + i64::from(ones))
    };
    let year = two(0)? * 100 + two(2)?;
    let (month, day) = (two(5)?, two(8)?);
    let (hour, minute, second) = (two(11)?, two(14)?, two(17)?);
    let days = days(year, month, day)?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut value = days * SECONDS_A_DAY + hour * 3_600 + minute * 60 + second;
    let mut bytes = TIME_BYTES;
    let mut decimals = 0;
    if text.get(bytes) == Some(&b'.') {
        let (fraction, count) = digits(&text[bytes + 1..], 0)?;
        if count == 0 || count > usize::from(SECOND_DIGITS_MAX) {
            return None;
        }
        decimals = count as u8;
        value = value
            .checked_mul(10_i64.pow(u32::from(decimals)))?
            .checked_add(fraction.cast_signed())?;
        bytes += 1 + count;
    }
    Some(Number {
        value,
        decimals,
        bytes,
    })
}

/// Adds the text that [`time`] reads as this, if there is one.
#[must_use]
pub(crate) fn put_time(out: &mut Vec<u8>, value: i64, decimals: u8) -> bool {
    let parts = 10_i64.pow(u32::from(decimals));
    let seconds = value.div_euclid(parts);
    let (day, second) = (
        seconds.div_euclid(SECONDS_A_DAY),
        seconds.rem_euclid(SECONDS_A_DAY),
    );
    if !DAYS.contains(&day) {
        return false;
    }
    let (year, month, day) = date(day);
    let mut text = *b"0000-00-00T00:00:00";
    for (at, number) in [
        (0, year / 100),
        (2, year % 100),
        (5, month),
        (8, day),
        (11, second / 3_600),
        (14, second / 60 % 60),
        (17, second % 60),
    ] {
        text[at..at + 2].copy_from_slice(&PAIRS[number as usize]);
    }
    out.extend_from_slice(&text);
    if decimals > 0 {
        out.push(b'.');
        let mut rest = value.rem_euclid(parts);
        let mut fraction = [b'0'; SECOND_DIGITS_MAX as usize];
        let fraction = &mut fraction[..usize::from(decimals)];
        for digit in fraction.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        out.extend_from_slice(fraction);
    }
    true
}

/// Days since 1970 of a date, if there is one. Years begin in March here, as the leap day is
/// then their last.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let shifted = year - i64::from(month < 3);
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    // 30 February would be another day in March.
    (date(days) == (year, month, day)).then_some(days)
}

/// Year, month and day of a number of days since 1970.
const fn date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = (month + 2) % 12 + 1;
    let year = era * 400 + year_of_era + (month < 3) as i64;
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> Option<(i64, u8, usize)> {
        decimal(text.as_bytes()).map(|n| (n.value, n.decimals, n.bytes))
    }

    #[test]
    fn decimals_are_read_as_far_as_they_go() {
        assert_eq!(of("12.50,"), Some((1250, 2, 5)));
        assert_eq!(of("-0.5"), Some((-5, 1, 4)));
        assert_eq!(of("0"), Some((0, 0, 1)));
        assert_eq!(of("7."), Some((7, 0, 1)));
        assert_eq!(of("9223372036854775807"), Some((i64::MAX, 0, 19)));
        assert_eq!(of("1e5"), Some((1, 0, 1)), "the caller sees the e");
        for not in [
            "",
            "-",
            "-0",
            "-0.00",
            "007",
            ".5",
            "+1",
            "9223372036854775808",
            "18446744073709551617",
            "0.1234567890123456789",
            "10000000000000000000000000000000000000000",
        ] {
            assert_eq!(of(not), None, "{not}");
        }
    }

    #[test]
    fn times_are_read_if_there_is_such_a_time() {
        let of = |text: &str| time(text.as_bytes()).map(|n| (n.value, n.decimals));
        assert_eq!(of("1970-01-01T00:00:00Z"), Some((0, 0)));
        assert_eq!(of("2024-02-29T23:59:59.999"), Some((1_709_251_199_999, 3)));
        assert_eq!(of("1969-12-31T23:59:59.5"), Some((-5, 1)));
        assert_eq!(of("0000-01-01T00:00:00"), Some((-62_167_219_200, 0)));
        assert_eq!(of("9999-12-31T23:59:59"), Some((253_402_300_799, 0)));
        for not in [
            "2023-02-29T00:00:00",
            "2026-13-01T00:00:00",
            "2026-00-01T00:00:00",
            "2026-01-00T00:00:00",
            "2026-01-01T24:00:00",
            "2026-01-01 00:00:00",
            "2026-01-01T00:00:60",
            "2026-01-01T00:00:00.",
            "2026-01-01T00:00:00.1234567890",
            "9999-12-31T23:59:59.123456789",
        ] {
            assert_eq!(of(not), None, "{not}");
        }
        assert!(!put_time(&mut Vec::new(), i64::MAX, 0));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(value: i64, shift in 0_u32..63, decimals in 0..=DECIMALS_MAX) {
            let value = value >> shift;
            let mut text = Vec::new();
            put_decimal(&mut text, value, decimals);
            // The smallest number has no opposite.
            if value != i64::MIN {
                let read = decimal(&text).map(|n| (n.value, n.decimals, n.bytes));
                prop_assert_eq!(read, Some((value, decimals, text.len())));
            }
            text.clear();
            let decimals = decimals / 2;
            if put_time(&mut text, value, decimals) {
                let read = time(&text).map(|n| (n.value, n.decimals, n.bytes));
                prop_assert_eq!(read, Some((value, decimals, text.len())));
            }
        }

        #[test]
        fn what_is_read_is_written_again(text in "-?[0-9]{1,10}(\\.[0-9]{1,10})?") {
            if let Some(number) = decimal(text.as_bytes()) {
                let mut again = Vec::new();
                put_decimal(&mut again, number.value, number.decimals);
                prop_assert_eq!(again, text.as_bytes());
            }
        }
    }
}
