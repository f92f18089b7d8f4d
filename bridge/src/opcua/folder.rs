//! A folder of the server whose variables are all subscribed to: those that are there, and those
//! that appear later.

use super::address::NodeAddress;
use super::config::{Deadband, Node};
use super::groups::GroupId;
use std::str::FromStr;
use std::time::Duration;

/// [`Folder::nodes_max`] where nobody says otherwise.
pub const FOLDER_NODES: usize = 5_000;
/// [`Folder::depth`] where nobody says otherwise.
pub const FOLDER_DEPTH: usize = 10;
/// How often folders are browsed anew, and browse paths followed, where nobody says otherwise.
pub const BROWSE_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub struct Folder {
    /// Its variables are named by this and, after a slash, the way to them from here.
    pub name: String,
    /// Where it is: an object, a folder, or a variable that has others below it.
    pub at: NodeAddress,
    /// Paths below the folder that are taken; all where there is none.
    pub include: Vec<Pattern>,
    /// Paths below the folder that are left out, with everything below them.
    pub exclude: Vec<Pattern>,
    /// Levels below the folder.
    pub depth: usize,
    /// Variables taken, at most.
    pub nodes_max: usize,
    pub sampling: Duration,
    /// Values that the server is asked to keep; none leaves it to the outage budget.
    pub queue: Option<u32>,
    pub deadband: Option<Deadband>,
    /// Whose pace its variables are reported at, if not the endpoint's.
    pub group: Option<GroupId>,
}

impl Folder {
    /// Every variable in it, sampled at one pace.
    #[must_use]
    pub fn new(name: impl Into<String>, at: NodeAddress, sampling: Duration) -> Self {
        Self {
            name: name.into(),
            at,
            include: Vec::new(),
            exclude: Vec::new(),
            depth: FOLDER_DEPTH,
            nodes_max: FOLDER_NODES,
            sampling,
            queue: None,
            deadband: None,
            group: None,
        }
    }

    /// Whether a node with this name may come from here.
    #[must_use]
    pub fn may_name(&self, name: &str) -> bool {
        let below = name.strip_prefix(&self.name);
        below.is_some_and(|below| below.starts_with('/'))
    }

    /// Whether the variable at this path below the folder is taken.
    pub(super) fn takes(&self, path: &str) -> bool {
        self.include.is_empty() || self.include.iter().any(|pattern| pattern.matches(path))
    }

    /// Whether what is at this path below the folder is left out.
    pub(super) fn leaves_out(&self, path: &str) -> bool {
        self.exclude.iter().any(|pattern| pattern.matches(path))
    }

    pub(super) fn node(&self, name: String, id: NodeAddress) -> Node {
        let mut node = Node::new(name, id, self.sampling);
        node.queue = self.queue;
        node.deadband = self.deadband;
        node.group = self.group;
        node
    }
}

/// A path below a folder with gaps: `*` stands for any characters of one name, `?` for one of
/// them, `**` for any number of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Token>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Character(char),
    /// `?`
    One,
    /// `*`
    Within,
    /// `**/`: nothing, or names with a slash behind them.
    Levels,
    /// `**` at the end.
    Anything,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a pattern: write a path below the folder, such as \"*/Speed\", \"Pump*/Current\" or \
     \"**/Speed\"; ** stands for whole names"
)]
pub struct PatternError(String);

impl Pattern {
    /// Takes time by the product of both lengths, whatever is in the pattern.
    pub(super) fn matches(&self, path: &str) -> bool {
        let path: Vec<char> = path.chars().collect();
        // Where in the path the tokens so far may have ended.
        let mut ends = vec![false; path.len() + 1];
        ends[0] = true;
        for token in &self.0 {
            let mut next = vec![false; path.len() + 1];
            let mut open = false;
            for at in 0..=path.len() {
                let before = at.checked_sub(1).map(|index| path[index]);
                let stepped = at > 0 && ends[at - 1];
                next[at] = match token {
                    Token::Character(wanted) => stepped && before == Some(*wanted),
                    Token::One => stepped && before != Some('/'),
                    Token::Within => {
                        open = ends[at] || (open && before != Some('/'));
                        open
                    }
                    Token::Levels => {
                        let reached = ends[at] || (open && before == Some('/'));
                        open |= ends[at];
                        reached
                    }
                    Token::Anything => {
                        open |= ends[at];
                        open
                    }
                };
            }
            ends = next;
        }
        ends[path.len()]
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let wrong = || PatternError(text.to_owned());
        let mut tokens = Vec::new();
        let mut rest = text;
        let mut starts_name = true;
        while let Some(character) = rest.chars().next() {
            let (token, length) = match character {
                '*' if rest.starts_with("**/") => (Token::Levels, 3),
                '*' if rest == "**" => (Token::Anything, 2),
                '*' if rest.starts_with("**") => return Err(wrong()),
                '*' => (Token::Within, 1),
                '?' => (Token::One, 1),
                '/' if starts_name => return Err(wrong()),
                plain => (Token::Character(plain), plain.len_utf8()),
            };
            let whole_names = matches!(token, Token::Levels | Token::Anything);
            if whole_names && !starts_name {
                return Err(wrong());
            }
            starts_name = matches!(token, Token::Levels | Token::Character('/'));
            tokens.push(token);
            rest = &rest[length..];
        }
        match starts_name {
            // Nothing, or a slash or `**/` that leads nowhere.
            true => Err(wrong()),
            false => Ok(Self(tokens)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_have_gaps_within_names_and_between_them() {
        for (pattern, yes, no) in [
            ("Speed", vec!["Speed"], vec!["Pump/Speed", "Speed2", ""]),
            ("*/Speed", vec!["Pump1/Speed"], vec!["Speed", "a/b/Speed"]),
            (
                "Pump*/Current",
                vec!["Pump/Current", "Pump12/Current"],
                vec!["XPump/Current"],
            ),
            (
                "*/Debug*",
                vec!["a/Debug", "a/DebugInfo"],
                vec!["Debug", "a/Debug/x"],
            ),
            (
                "**/Speed",
                vec!["Speed", "a/Speed", "a/b/Speed"],
                vec!["a/XSpeed"],
            ),
            ("a/**/b", vec!["a/b", "a/x/y/b"], vec!["a/xb", "ab"]),
            ("a/**", vec!["a/b", "a/b/c"], vec!["a", "ab"]),
            ("**", vec!["a", "a/b"], vec![]),
            ("M?tor", vec!["Motor", "Mötor"], vec!["M/tor", "Mtor"]),
        ] {
            let pattern: Pattern = pattern.parse().unwrap();
            for path in yes {
                assert!(pattern.matches(path), "{pattern:?} {path}");
            }
            for path in no {
                assert!(!pattern.matches(path), "{pattern:?} {path}");
            }
        }
    }

    #[test]
    fn a_pattern_that_can_match_nothing_is_refused() {
        for wrong in ["", "/a", "a/", "a//b", "a**", "**a", "a/**b", "**/"] {
            assert!(wrong.parse::<Pattern>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn many_gaps_take_no_longer() {
        // By trying every way to fill them, this would not end.
        let pattern: Pattern = "*a".repeat(40).parse().unwrap();
        assert!(pattern.matches(&"a".repeat(2_000)));
        assert!(!pattern.matches(&format!("{}b", "a".repeat(2_000))));
    }
}
