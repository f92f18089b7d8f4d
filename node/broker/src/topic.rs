//! Topic names and topic filters (5.0, 4.7).

use std::fmt;

/// Longest topic in levels that a subscription may have: bounds the depth of the tree and the
/// work a single hostile filter can cause.
pub(crate) const LEVELS_MAX: usize = 128;

/// The prefix of a shared subscription's filter (5.0, 4.8.2).
const SHARED_PREFIX: &str = "$share/";

/// Whether `name` may be published to: not empty, no wildcard. NUL was refused with the text.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['+', '#'])
}

/// Whether a name may contain it: neither a control character nor one of Unicode's
/// non-characters.
pub(crate) fn is_name_character(character: char) -> bool {
    let code = u32::from(character);
    let is_non_character = matches!(code, 0xFDD0..=0xFDEF) || code & 0xFFFE == 0xFFFE;
    !character.is_control() && !is_non_character
}

/// Whether a text has the form of a topic filter. What has not is malformed; what has may still
/// be more than this node takes, see [`TopicFilter::new`].
pub(crate) fn is_filter(text: &str) -> bool {
    match text.strip_prefix(SHARED_PREFIX) {
        None => !text.is_empty() && wildcards_fill_levels(text),
        Some(_) => shared(text).is_some_and(|(_, filter)| is_filter(filter)),
    }
}

/// The group and the filter of a shared subscription, if `text` is one and its group has a name.
pub(crate) fn shared(text: &str) -> Option<(&str, &str)> {
    let (group, filter) = text.strip_prefix(SHARED_PREFIX)?.split_once('/')?;
    let is_named = !group.is_empty() && is_name(group);
    (is_named && !filter.is_empty()).then_some((group, filter))
}

/// A topic filter that is well formed: `+` and `#` fill whole levels, `#` only the last.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter(Box<str>);

/// The text is not a topic filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not a topic filter: `+` and `#` must fill a whole level, `#` only the last, \
     with at most {LEVELS_MAX} levels and no NUL"
)]
pub struct FilterError(String);

impl TopicFilter {
    /// # Errors
    /// When the text breaks one of the rules above.
    pub fn new(filter: &str) -> Result<Self, FilterError> {
        let fine = !filter.is_empty()
            && filter.len() <= usize::from(u16::MAX)
            && !filter.contains('\0')
            && filter.split('/').count() <= LEVELS_MAX
            && wildcards_fill_levels(filter);
        if fine {
            Ok(Self(filter.into()))
        } else {
            Err(FilterError(filter.to_owned()))
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a message on `topic` belongs to this filter. A filter that starts with a wildcard
    /// does not match a topic that starts with `$` (4.7.2).
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        if topic.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = topic.split('/');
        for filter in self.0.split('/') {
            match (filter, levels.next()) {
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (literal, Some(level)) if literal == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }

    /// The text before the first wildcard: every matching topic starts with it, except that
    /// `a/#` matches `a` too, hence without a trailing slash there.
    #[must_use]
    pub fn literal_prefix(&self) -> &str {
        match self.0.find(['+', '#']) {
            None => &self.0,
            Some(at) if self.0[at..].starts_with('#') => self.0[..at].trim_end_matches('/'),
            Some(at) => &self.0[..at],
        }
    }

    #[must_use]
    pub fn has_wildcard(&self) -> bool {
        self.0.contains(['+', '#'])
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn wildcards_fill_levels(filter: &str) -> bool {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let last = levels.peek().is_none();
        let fine = match level {
            "+" => true,
            "#" => last,
            other => !other.contains(['+', '#']),
        };
        if !fine {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        for good in ["a", "#", "+", "/", "a/+/c", "a/#", "+/+/#", "ü/#", "$SYS/#"] {
            assert!(TopicFilter::new(good).is_ok(), "{good}");
        }
        let deep = "a/".repeat(LEVELS_MAX);
        for bad in [
            "",
            "a+",
            "a/#/b",
            "#/a",
            "a#",
            "++",
            "a/b+/c",
            "a\0b",
            deep.as_str(),
        ] {
            assert!(TopicFilter::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shared_filters_have_a_group_and_a_filter() {
        assert_eq!(shared("$share/g/a/#"), Some(("g", "a/#")));
        assert_eq!(shared("$share/g//"), Some(("g", "/")));
        assert_eq!(shared("a/$share/g/b"), None);
        for good in ["$share/g/a/#", "$share/g/+/b", "$share/g//", "$shared"] {
            assert!(is_filter(good), "{good}");
        }
        for bad in [
            "$share/",
            "$share/g",
            "$share/g/",
            "$share//a",
            "$share/g+/a",
            "$share/#/a",
            "$share/g/a#",
        ] {
            assert!(!is_filter(bad), "{bad}");
        }
    }

    #[test]
    fn names_have_no_control_and_no_non_characters() {
        for good in ["", "a b/ü", "\u{a0}", "\u{fdcf}\u{fdf0}\u{fffd}\u{1f600}"] {
            assert!(good.chars().all(is_name_character), "{good:?}");
        }
        for bad in [
            '\u{1}',
            '\n',
            '\u{1f}',
            '\u{7f}',
            '\u{9f}',
            '\u{fdd0}',
            '\u{fdef}',
            '\u{fffe}',
            '\u{ffff}',
            '\u{1fffe}',
            '\u{10ffff}',
        ] {
            assert!(!is_name_character(bad), "{bad:?}");
        }
    }

    #[test]
    fn filters_match_as_the_standard_says() {
        for (filter, topic, expected) in [
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("a/#", "ab", false),
            ("a/+", "a/", true),
            ("a/+", "a", false),
            ("+", "/a", false),
            ("+/+", "/a", true),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("#", "ünten/x", true),
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
        ] {
            let parsed = TopicFilter::new(filter).expect("well formed");
            assert_eq!(parsed.matches(topic), expected, "{filter} on {topic}");
            if expected {
                assert!(
                    topic.starts_with(parsed.literal_prefix()),
                    "{filter} {topic}"
                );
            }
        }
    }
}
