//! Ranges of offsets: first, one past last.

use crate::Offset;

pub(crate) type Range = (Offset, Offset);

/// `None` where nothing is between the two.
pub(crate) fn between(first: Offset, next: Offset) -> Option<Range> {
    (first < next).then_some((first, next))
}

pub(crate) const fn count((first, next): Range) -> u64 {
    next.0.saturating_sub(first.0)
}

/// What of `whole` is in none of the `parts`, which may overlap and be in any order.
pub(crate) fn without(whole: Range, parts: &[Range]) -> Vec<Range> {
    let mut parts = parts.to_vec();
    parts.sort_unstable();
    let (mut at, end) = whole;
    let mut left = Vec::new();
    for (first, next) in parts {
        left.extend(between(at, first.min(end)));
        at = at.max(next);
    }
    left.extend(between(at, end));
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs<'a> = &'a [(u64, u64)];

    fn ranges(pairs: Pairs<'_>) -> Vec<Range> {
        let ranges = pairs.iter();
        ranges
            .map(|&(first, next)| (Offset(first), Offset(next)))
            .collect()
    }

    #[test]
    fn what_is_left_is_in_the_whole_and_in_no_part() {
        let cases: [(Pairs<'_>, Pairs<'_>); 6] = [
            (&[], &[(10, 20)]),
            (&[(0, 5), (20, 30)], &[(10, 20)]),
            (&[(0, 12), (15, 16)], &[(12, 15), (16, 20)]),
            (&[(18, 25), (12, 14), (11, 13)], &[(10, 11), (14, 18)]),
            (&[(0, 30)], &[]),
            (&[(10, 14), (14, 20)], &[]),
        ];
        let whole = (Offset(10), Offset(20));
        for (parts, left) in cases {
            assert_eq!(without(whole, &ranges(parts)), ranges(left), "{parts:?}");
        }
    }
}
