//! Topic names and topic filters (5.0, 4.7).

use std::fmt;

/// Longest topic in levels that a subscription may have: bounds the depth of the tree and the
/// work a single hostile filter can cause.
pub(crate) const LEVELS_MAX: usize = 128;

/// Whether `name` may be published to: not empty, no wildcard. NUL was refused with the text.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['+', '#'])
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
