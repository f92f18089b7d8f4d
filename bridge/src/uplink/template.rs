//! The names of topics: what an operator writes, and what a stream's records make of it.
//!
//! ```text
//! {stream}   the stream's name
//! {node}     the node's name
//! {1} … {9}  a level of the record's source, from 1; `_` where the source has fewer
//! {topic}    the whole source, with `.` for each `/`
//! ```
//!
//! Kafka allows letters, digits, `.`, `_` and `-`. Whatever else a source has becomes `_`, so that
//! sources may share a topic which differ only in such characters (`a b` and `a_b`; with
//! `{topic}` also `a/b` and `a.b`). Their records stay apart by their keys, and in order.

use super::config::{InvalidName, NodeName};

/// Kafka's own limit on a topic's name.
pub(crate) const TOPIC_BYTES_MAX: usize = 249;
/// What is cut off a longer name is told apart by its hash: `-` and sixteen hex digits.
const CUT_BYTES: usize = TOPIC_BYTES_MAX - 17;

/// A topic's name with places for what a record brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicTemplate {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Stream,
    Node,
    /// From 0.
    Level(usize),
    Source,
}

impl TopicTemplate {
    /// # Errors
    /// With a sentence that says what is wrong, when no record could give a valid topic name.
    pub fn new(template: &str) -> Result<Self, InvalidName> {
        let parts = parse(template)?;
        let parsed = Self {
            text: template.to_owned(),
            parts,
        };
        let shortest = parsed.fill_with("n", "s", "s");
        let fixed = parsed.parts.iter().map(|part| match part {
            Part::Text(text) => text.len(),
            _ => 1,
        });
        let length: usize = fixed.sum();
        if length == 0 || shortest == "." || shortest == ".." || length > TOPIC_BYTES_MAX {
            return Err(InvalidName::new(format!(
                "topic `{template}`: Kafka allows 1 to {TOPIC_BYTES_MAX} characters, not `.` or `..`"
            )));
        }
        Ok(parsed)
    }

    /// The template as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the source of each record has a say, so that a stream has many topics.
    #[must_use]
    pub fn goes_by_source(&self) -> bool {
        let by_source = |part: &Part| matches!(part, Part::Level(_) | Part::Source);
        self.parts.iter().any(by_source)
    }

    /// The topic of a stream, where the template does not [go by the source](Self::goes_by_source).
    pub(crate) fn fill(&self, node: &NodeName, stream: &str) -> String {
        self.fill_with(node.as_str(), stream, "")
    }

    /// The topic of a record.
    pub(crate) fn fill_for(&self, node: &NodeName, stream: &str, source: &str) -> String {
        self.fill_with(node.as_str(), stream, source)
    }

    /// Whether `name` is what this template gives for some node: positions of whichever node are
    /// no place for what a device may name.
    pub(crate) fn could_give(&self, name: &str) -> bool {
        let before = match self.parts.first() {
            Some(Part::Text(text)) => text.as_str(),
            _ => return name == self.text,
        };
        let after = match self.parts.last() {
            Some(Part::Text(text)) if self.parts.len() > 1 => text.as_str(),
            _ if self.parts.len() > 1 => "",
            _ => return name == before,
        };
        name.starts_with(before) && name.ends_with(after)
    }

    fn fill_with(&self, node: &str, stream: &str, source: &str) -> String {
        let mut name = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Stream => name.push_str(stream),
                Part::Node => name.push_str(node),
                Part::Level(index) => {
                    let level = source.split('/').nth(*index).filter(|l| !l.is_empty());
                    name.extend(level.unwrap_or("_").chars().map(allowed));
                }
                Part::Source => {
                    let dotted = |c| if c == '/' { '.' } else { allowed(c) };
                    name.extend(source.chars().map(dotted));
                }
            }
        }
        if self.goes_by_source() {
            usable(name)
        } else {
            name
        }
    }
}

fn parse(template: &str) -> Result<Vec<Part>, InvalidName> {
    let mut parts = Vec::new();
    let mut rest = template;
    while !rest.is_empty() {
        let (text, place) = rest.split_once('{').unwrap_or((rest, ""));
        let wrong = text.chars().find(|c| allowed(*c) != *c);
        if let Some(other) = wrong {
            return Err(not_allowed(template, &format!("`{other}`")));
        }
        if !text.is_empty() {
            parts.push(Part::Text(text.to_owned()));
        }
        if text.len() == rest.len() {
            break;
        }
        let Some((name, after)) = place.split_once('}') else {
            return Err(not_allowed(template, "`{` without `}`"));
        };
        parts.push(match name {
            "stream" => Part::Stream,
            "node" => Part::Node,
            "topic" => Part::Source,
            level => match level.parse::<usize>() {
                Ok(level @ 1..=9) => Part::Level(level - 1),
                _ => return Err(not_allowed(template, &format!("`{{{name}}}`"))),
            },
        });
        rest = after;
    }
    Ok(parts)
}

fn not_allowed(template: &str, what: &str) -> InvalidName {
    InvalidName::new(format!(
        "topic `{template}`: {what} is not allowed; use letters, digits, `.`, `_`, `-` and the \
         placeholders {{stream}}, {{node}}, {{topic}} and {{1}} to {{9}}"
    ))
}

fn allowed(c: char) -> char {
    match u8::try_from(c) {
        Ok(byte) if allowed_in_topic(byte) => c,
        _ => '_',
    }
}

/// What Kafka takes, from what a device may have named: never empty, never too long, and never
/// one of Kafka's own topics, which begin with two underscores.
fn usable(mut name: String) -> String {
    if name.is_empty() || name == "." || name == ".." || name.starts_with("__") {
        name.insert_str(0, "s-");
    }
    if name.len() > TOPIC_BYTES_MAX {
        let hash = hash(name.as_bytes());
        name.truncate(CUT_BYTES);
        name.push_str(&format!("-{hash:016x}"));
    }
    name
}

/// FNV-1a: the same on every node, for ever.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Letters, digits, `.`, `_` and `-`: what a Kafka topic's name may contain.
pub(crate) fn allowed_in_topic(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str, source: &str) -> String {
        let node = NodeName::new("vessel-7").unwrap();
        let template = TopicTemplate::new(template).unwrap();
        template.fill_for(&node, "telemetry", source)
    }

    #[test]
    fn templates_are_filled_and_refused() {
        let cases = [
            ("fleet.{node}.{stream}", "a/b", "fleet.vessel-7.telemetry"),
            ("{1}.{3}", "plant/hall 1/pümp", "plant.p_mp"),
            ("x-{2}", "a//c", "x-_"),
            ("x-{9}", "a/b", "x-_"),
            ("{topic}", "plant/a.b/c", "plant.a.b.c"),
            ("{topic}", "__consumer_offsets", "s-__consumer_offsets"),
            ("{topic}", "", "s-"),
            ("{1}", "..", "s-.."),
        ];
        for (template, source, expected) in cases {
            assert_eq!(filled(template, source), expected, "{template} of {source}");
        }
        for bad in [
            "",
            ".",
            "a b",
            "plant/{stream}",
            "{0}",
            "{10}",
            "{source}",
            "é",
            "{1",
            "a}",
        ] {
            assert!(TopicTemplate::new(bad).is_err(), "{bad}");
        }
        assert!(TopicTemplate::new(&"x".repeat(250)).is_err());
    }

    #[test]
    fn long_sources_get_short_topics_of_their_own() {
        let (one, two) = (
            format!("{}1", "x".repeat(300)),
            format!("{}2", "x".repeat(300)),
        );
        let (one, two) = (filled("{topic}", &one), filled("{topic}", &two));
        assert_eq!((one.len(), two.len()), (TOPIC_BYTES_MAX, TOPIC_BYTES_MAX));
        assert_ne!(one, two);
        assert_eq!(filled("{topic}", &"x".repeat(249)), "x".repeat(249));
    }

    #[test]
    fn positions_of_any_node_are_recognised() {
        let positions = TopicTemplate::new("skerry.positions.{node}").unwrap();
        assert!(positions.could_give("skerry.positions.vessel-8"));
        assert!(!positions.could_give("skerry.telemetry"));
        let fixed = TopicTemplate::new("positions").unwrap();
        assert!(fixed.could_give("positions") && !fixed.could_give("positions.a"));
    }
}
