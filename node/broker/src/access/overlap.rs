//! What two topic filters have in common.

use crate::topic::TopicFilter;

/// The filter of the topics that match both, if there can be one: `a/#` and `+/b` meet in `a/b`.
pub(super) fn meet(one: &TopicFilter, other: &TopicFilter) -> Option<TopicFilter> {
    if starts_apart(one.as_str(), other.as_str()) || starts_apart(other.as_str(), one.as_str()) {
        return None;
    }
    let (mut left, mut right) = (one.as_str().split('/'), other.as_str().split('/'));
    let mut levels = Vec::new();
    loop {
        match (left.next(), right.next()) {
            (None, None) => break,
            // `a/#` matches `a` as well.
            (Some("#"), None) | (None, Some("#")) => break,
            (Some("#"), Some(level)) => {
                levels.push(level);
                levels.extend(right);
                break;
            }
            (Some(level), Some("#")) => {
                levels.push(level);
                levels.extend(left);
                break;
            }
            (Some("+"), Some(level)) | (Some(level), Some("+")) => levels.push(level),
            (Some(level), Some(same)) if level == same => levels.push(level),
            _ => return None,
        }
    }
    TopicFilter::new(&levels.join("/")).ok()
}

/// Whether every topic that matches `part` matches `whole`.
pub(super) fn covers(whole: &TopicFilter, part: &TopicFilter) -> bool {
    if starts_apart(whole.as_str(), part.as_str()) {
        return false;
    }
    let mut inner = part.as_str().split('/');
    for outer in whole.as_str().split('/') {
        match (outer, inner.next()) {
            ("#", _) => return true,
            (_, None | Some("#")) => return false,
            ("+", Some(_)) => {}
            (level, Some(same)) if level == same => {}
            _ => return false,
        }
    }
    inner.next().is_none()
}

/// A wildcard at the start stands for no level that starts with `$` (4.7.2).
fn starts_apart(wild: &str, named: &str) -> bool {
    wild.starts_with(['+', '#']) && named.starts_with('$')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::new(text).expect("a filter")
    }

    #[test]
    fn filters_meet_where_topics_match_both() {
        for (one, other, expected) in [
            ("a/#", "+/b", Some("a/b")),
            ("a/#", "+/b/#", Some("a/b/#")),
            ("a/#", "a", Some("a")),
            ("a/#", "+", Some("a")),
            ("#", "a/+", Some("a/+")),
            ("+/+", "a/+", Some("a/+")),
            ("a/b", "a/c", None),
            ("a", "a/b", None),
            ("a/+", "a", None),
            ("#", "$SYS/#", None),
            ("$SYS/#", "+/x", None),
            ("$SYS/#", "$SYS/+/x", Some("$SYS/+/x")),
        ] {
            let (one, other, expected) = (filter(one), filter(other), expected.map(filter));
            assert_eq!(meet(&one, &other), expected, "{one} {other}");
            assert_eq!(meet(&other, &one), expected, "{other} {one}");
        }
    }

    #[test]
    fn a_filter_covers_what_cannot_leave_it() {
        for (whole, part, expected) in [
            ("#", "a/+/b/#", true),
            ("a/#", "a", true),
            ("a/#", "a/b/#", true),
            ("a/+", "a/b", true),
            ("a/+", "a/#", false),
            ("a/b", "a/+", false),
            ("+/b", "a/b", true),
            ("a", "a/#", false),
            ("#", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
        ] {
            assert_eq!(
                covers(&filter(whole), &filter(part)),
                expected,
                "{whole} {part}"
            );
        }
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("a"), Just("b"), Just("+"), Just(""), Just("$s")]
    }

    fn any_filter() -> impl Strategy<Value = TopicFilter> {
        (proptest::collection::vec(level(), 1..4), any::<bool>())
            .prop_map(|(mut levels, open)| {
                if open {
                    levels.push("#");
                }
                levels.join("/")
            })
            .prop_filter_map("not a filter", |text| TopicFilter::new(&text).ok())
    }

    fn any_topic() -> impl Strategy<Value = String> {
        let level = prop_oneof![Just("a"), Just("b"), Just(""), Just("$s")];
        proptest::collection::vec(level, 1..5)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("not a topic", |topic| !topic.is_empty())
    }

    proptest! {
        #[test]
        fn they_agree_with_matching(one in any_filter(), other in any_filter(), topic in any_topic()) {
            let both = one.matches(&topic) && other.matches(&topic);
            let met = meet(&one, &other).is_some_and(|met| met.matches(&topic));
            prop_assert_eq!(both, met);
            if covers(&one, &other) && other.matches(&topic) {
                prop_assert!(one.matches(&topic));
            }
        }
    }
}
