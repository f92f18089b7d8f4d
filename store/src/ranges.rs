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

    fn range((first, next): (u64, u64)) -> Range {
        (Offset(first), Offset(next))
    }

    #[test]
    fn what_is_left_is_in_the_whole_and_in_no_part() {
        let cases: [(&[(u64, u64)], &[(u64, u64)]); 6] = [
            (&[], &[(10, 20)]),
            (&[(0, 5), (20, 30)], &[(10, 20)]),
            (&[(0, 12), (15, 16)], &[(12, 15), (16, 20)]),
            (&[(18, 25), (12, 14), (11, 13)], &[(10, 11), (14, 18)]),
            (&[(0, 30)], &[]),
            (&[(10, 14), (14, 20)], &[]),
        ];
        for (parts, left) in cases {
            let parts: Vec<_> = parts.iter().copied().map(range).collect();
            let left: Vec<_> = left.iter().copied().map(range).collect();
            assert_eq!(without(range((10, 20)), &parts), left, "{parts:?}");
        }
    }
}
