//! The ACL file: which client may publish and receive what.
//!
//! ```text
//! topic read public/#               clients without a user name, until the first section
//! user ada                          … and from here on those who logged in as `ada`
//! topic readwrite plant/#
//! topic deny plant/+/password
//! client panel-7                    … and from here on the client with this id
//! topic read plant/7/#
//! pattern write dev/%c/out          everybody, wherever it stands: %c is the client id,
//! pattern read dev/%u/in            %u the user name
//! ```
//!
//! A rule is `topic` or `pattern`, then `read` (receive), `write` (publish), `readwrite` (also if
//! the word is missing) or `deny` (neither), then a topic filter. What no rule allows is not
//! allowed, and what one denies is not, whichever stands first. Mosquitto's files work as they are;
//! where a `pattern deny` meets a `topic` rule that allows, this node denies and mosquitto allows.

use super::file::{self, FileError};
use super::overlap::{covers, meet};
use crate::topic::TopicFilter;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

const CLIENT: &str = "%c";
const USER: &str = "%u";

/// The rules of an ACL file.
#[derive(Debug, Default)]
pub struct Acl {
    sections: HashMap<Whose, Arc<Rules>>,
    /// Patterns that name nobody.
    everybody: Arc<Rules>,
    patterns: Vec<(Grant, Box<str>)>,
    rules: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Whose {
    Anonymous,
    User(Box<str>),
    Client(Box<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grant {
    Read,
    Write,
    ReadWrite,
    Deny,
}

/// The filters of some rules.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    read: Vec<TopicFilter>,
    write: Vec<TopicFilter>,
    deny: Vec<TopicFilter>,
}

impl Rules {
    fn add(&mut self, grant: Grant, filter: TopicFilter) {
        match grant {
            Grant::Read => self.read.push(filter),
            Grant::Write => self.write.push(filter),
            Grant::Deny => self.deny.push(filter),
            Grant::ReadWrite => {
                self.read.push(filter.clone());
                self.write.push(filter);
            }
        }
    }
}

impl Acl {
    /// # Errors
    /// If the file cannot be read, or with all problems in it.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        let (text, _) = file::read(path)?;
        Self::parse(&text).map_err(|problems| FileError::Problems {
            path: path.to_owned(),
            problems,
        })
    }

    fn parse(text: &str) -> Result<Self, Vec<(usize, String)>> {
        let mut acl = Self::default();
        let mut sections: HashMap<Whose, Rules> = HashMap::new();
        let mut everybody = Rules::default();
        let (mut whose, mut problems) = (Whose::Anonymous, Vec::new());
        for (number, line) in file::lines(text) {
            match statement(line) {
                Ok(Statement::Section(next)) => {
                    // Known by name from here on, be it without rules.
                    sections.entry(next.clone()).or_default();
                    whose = next;
                    continue;
                }
                Ok(Statement::Topic(grant, filter)) => {
                    let rules = sections.entry(whose.clone()).or_default();
                    rules.add(grant, filter);
                }
                Ok(Statement::Pattern(grant, filter)) => {
                    if placeholders(filter.as_str()).next().is_some() {
                        acl.patterns.push((grant, filter.as_str().into()));
                    } else {
                        everybody.add(grant, filter);
                    }
                }
                Err(problem) => problems.push((number, problem)),
            }
            acl.rules += 1;
        }
        let sections = sections.into_iter();
        acl.sections = sections
            .map(|(whose, rules)| (whose, rules.into()))
            .collect();
        acl.everybody = everybody.into();
        if problems.is_empty() {
            Ok(acl)
        } else {
            Err(problems)
        }
    }

    /// How many rules there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.rules
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rules == 0
    }

    /// Who may publish to `topic`, in words, for a person. Rather one too many: who is named by a
    /// rule that allows it may be denied it by another one that names him otherwise.
    #[must_use]
    pub fn publishers(&self, topic: &str) -> Vec<String> {
        let matches = |filters: &[TopicFilter]| filters.iter().any(|it| it.matches(topic));
        if matches(&self.everybody.deny) {
            return Vec::new();
        }
        let sections = self.sections.iter();
        let allowed = sections.filter(|(_, rules)| matches(&rules.write) && !matches(&rules.deny));
        let mut names: Vec<String> = allowed
            .map(|(whose, _)| match whose {
                Whose::Anonymous => "clients without a user".to_owned(),
                Whose::User(user) => format!("user {user}"),
                Whose::Client(client) => format!("client {client}"),
            })
            .collect();
        names.sort();
        if matches(&self.everybody.write) {
            names.push("everybody".to_owned());
        }
        let grants = self.patterns.iter();
        let grants = grants.filter(|(grant, _)| matches!(grant, Grant::Write | Grant::ReadWrite));
        names.extend(grants.filter_map(|(_, pattern)| {
            let widest = pattern.replace(CLIENT, "+").replace(USER, "+");
            let filter = TopicFilter::new(&widest).ok()?;
            filter
                .matches(topic)
                .then(|| format!("whom `{pattern}` fits"))
        }));
        names
    }

    /// What a client may do.
    pub(crate) fn rights(&self, client_id: &str, user: Option<&str>) -> Rights {
        let by_login = user.map_or(Whose::Anonymous, |user| Whose::User(user.into()));
        let named = [by_login, Whose::Client(client_id.into())];
        let mut rules: Vec<Arc<Rules>> = named
            .iter()
            .filter_map(|whose| self.sections.get(whose).cloned())
            .collect();
        rules.push(Arc::clone(&self.everybody));
        let mut own = Rules::default();
        for (grant, pattern) in &self.patterns {
            let names = Names { client_id, user };
            let filter = match grant {
                // Who has no user name has nothing that a pattern with one could speak of.
                _ if user.is_none() && pattern.contains(USER) => None,
                Grant::Deny => Some(names.widest(pattern)),
                _ => names.exactly(pattern),
            };
            if let Some(filter) = filter {
                own.add(*grant, filter);
            }
        }
        if !self.patterns.is_empty() {
            rules.push(Arc::new(own));
        }
        Rights::Listed(rules.into())
    }
}

/// Which topics one client may publish to and receive.
#[derive(Debug, Clone)]
pub(crate) enum Rights {
    All,
    Nothing,
    Listed(Arc<[Arc<Rules>]>),
}

impl Rights {
    pub(crate) fn may_publish(&self, topic: &str) -> bool {
        self.allows(topic, |rules| &rules.write)
    }

    pub(crate) fn may_receive(&self, topic: &str) -> bool {
        self.allows(topic, |rules| &rules.read)
    }

    fn allows(&self, topic: &str, granted: impl Fn(&Rules) -> &[TopicFilter]) -> bool {
        let matches = |filters: &[TopicFilter]| filters.iter().any(|f| f.matches(topic));
        match self {
            Self::All => true,
            Self::Nothing => false,
            Self::Listed(lists) => {
                let allowed = lists.iter().any(|rules| matches(granted(rules)));
                allowed && !lists.iter().any(|rules| matches(&rules.deny))
            }
        }
    }

    /// Whether anything that matches `filter` may be received.
    pub(crate) fn may_subscribe(&self, filter: &TopicFilter) -> bool {
        match self {
            Self::All => true,
            Self::Nothing => false,
            Self::Listed(lists) => {
                let read = lists.iter().flat_map(|rules| &rules.read);
                let mut common = read.filter_map(|allowed| meet(filter, allowed));
                common.any(|part| {
                    let mut deny = lists.iter().flat_map(|rules| &rules.deny);
                    !deny.any(|denied| covers(denied, &part))
                })
            }
        }
    }
}

/// What a pattern's placeholders stand for.
#[derive(Clone, Copy)]
struct Names<'n> {
    client_id: &'n str,
    user: Option<&'n str>,
}

impl Names<'_> {
    /// The pattern for this client, if its names can stand in it: they are taken literally, each as
    /// one level, and a name with `+`, `#` or `/` in it would stand for more than itself.
    fn exactly(self, pattern: &str) -> Option<TopicFilter> {
        let levels = pattern.split('/').map(|level| {
            let name = match level {
                CLIENT => self.client_id,
                USER => self.user?,
                literal => return Some(literal),
            };
            is_one_level(name).then_some(name)
        });
        let filter = levels.collect::<Option<Vec<_>>>()?.join("/");
        TopicFilter::new(&filter).ok()
    }

    /// The same for a pattern that denies. Where a name cannot stand in it, everything below its
    /// place is denied: a strange name must not gain by being strange.
    fn widest(self, pattern: &str) -> TopicFilter {
        if let Some(filter) = self.exactly(pattern) {
            return filter;
        }
        let before = pattern.split('/');
        let before = before.take_while(|level| ![CLIENT, USER].contains(level));
        let levels: Vec<&str> = before.chain(["#"]).collect();
        TopicFilter::new(&levels.join("/")).expect("the start of a filter, and `#` after it")
    }
}

fn is_one_level(name: &str) -> bool {
    !name.is_empty() && !name.contains(['+', '#', '/'])
}

enum Statement {
    Section(Whose),
    Topic(Grant, TopicFilter),
    Pattern(Grant, TopicFilter),
}

fn statement(line: &str) -> Result<Statement, String> {
    let (word, rest) = split(line);
    let named = || match rest {
        "" => Err(format!("`{word}` must be followed by a name")),
        name => Ok(name.into()),
    };
    match word {
        "user" => Ok(Statement::Section(Whose::User(named()?))),
        "client" => Ok(Statement::Section(Whose::Client(named()?))),
        "topic" => {
            let (grant, filter) = rule(word, rest)?;
            if let Some(level) = placeholders(filter.as_str()).next() {
                return Err(format!(
                    "`{level}` means something only in a `pattern` line"
                ));
            }
            Ok(Statement::Topic(grant, filter))
        }
        "pattern" => {
            let (grant, filter) = rule(word, rest)?;
            let alone = |level: &&str| [CLIENT, USER].contains(level);
            if let Some(level) = placeholders(filter.as_str()).find(|level| !alone(level)) {
                return Err(format!(
                    "`{level}`: {CLIENT} and {USER} must fill a whole level, as in dev/{CLIENT}/out"
                ));
            }
            Ok(Statement::Pattern(grant, filter))
        }
        _ => Err(format!(
            "`{word}` is none of `user`, `client`, `topic` and `pattern`, with which a line starts"
        )),
    }
}

fn rule(word: &str, rest: &str) -> Result<(Grant, TopicFilter), String> {
    let grant_of = |word| match word {
        "read" => Some(Grant::Read),
        "write" => Some(Grant::Write),
        "readwrite" => Some(Grant::ReadWrite),
        "deny" => Some(Grant::Deny),
        _ => None,
    };
    let (first, after) = split(rest);
    let (grant, filter) = match (grant_of(first), first, after) {
        (None, "", _) => return Err(format!("`{word}` must be followed by a topic filter")),
        (None, filter, "") => (Grant::ReadWrite, filter),
        (Some(_), _, "") => {
            return Err(format!(
                "`{word} {first}` names no topic filter; a topic that is called `{first}` is \
                 written as `{word} readwrite {first}`"
            ));
        }
        (Some(grant), _, filter) => (grant, filter),
        (None, ..) => {
            return Err(format!(
                "`{first}` is none of `read`, `write`, `readwrite` and `deny`; a filter with a space \
                 in it needs one of them before it"
            ));
        }
    };
    let filter = TopicFilter::new(filter).map_err(|why| why.to_string())?;
    Ok((grant, filter))
}

fn split(text: &str) -> (&str, &str) {
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (first, rest.trim_start())
}

/// The levels that mention a name to be filled in.
fn placeholders(filter: &str) -> impl Iterator<Item = &str> {
    let levels = filter.split('/');
    levels.filter(|level| level.contains(CLIENT) || level.contains(USER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(text: &str) -> Acl {
        Acl::parse(text).expect("an ACL without problems")
    }

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::new(text).expect("a filter")
    }

    const PLANT: &str = "\
        # who may do what\n\
        topic read public/#\n\
        user ada\n\
        topic plant/#\n\
        topic deny plant/+/password\n\
        topic read with space/#\n\
        client panel-7\n\
        topic read plant/7/#\n\
        pattern write dev/%c/out\n\
        pattern read dev/%u/in/#\n\
        user bob\n\
        topic write bob/#\n\
        pattern read news\n";

    #[test]
    fn rules_belong_to_their_section_and_patterns_to_everybody() {
        let acl = acl(PLANT);
        assert_eq!(acl.len(), 9);
        let anonymous = acl.rights("x", None);
        let ada = acl.rights("x", Some("ada"));
        let panel = acl.rights("panel-7", Some("bob"));
        // Whether each of the three may publish (p) or receive (r).
        for (topic, [by_anonymous, by_ada, by_panel]) in [
            ("public", ["r", "", ""]),
            ("public/a", ["r", "", ""]),
            ("plant", ["", "pr", ""]),
            ("plant/1/t", ["", "pr", ""]),
            ("plant/7/t", ["", "pr", "r"]),
            ("plant/1/password", ["", "", ""]),
            ("with space/a", ["", "r", ""]),
            ("bob/x", ["", "", "p"]),
            ("dev/x/out", ["p", "p", ""]),
            ("dev/panel-7/out", ["", "", "p"]),
            ("dev/ada/in", ["", "r", ""]),
            ("dev/bob/in/1", ["", "", "r"]),
            ("dev/%c/out", ["", "", ""]),
            ("news", ["r", "r", "r"]),
            ("other", ["", "", ""]),
            ("$SYS/x", ["", "", ""]),
        ] {
            for (rights, may) in [
                (&anonymous, by_anonymous),
                (&ada, by_ada),
                (&panel, by_panel),
            ] {
                assert_eq!(
                    rights.may_publish(topic),
                    may.contains('p'),
                    "{topic} {may}"
                );
                assert_eq!(
                    rights.may_receive(topic),
                    may.contains('r'),
                    "{topic} {may}"
                );
            }
        }
    }

    #[test]
    fn deny_wins_wherever_it_stands() {
        for text in [
            "topic deny a/b\ntopic a/#",
            "topic a/#\ntopic deny a/b",
            "pattern deny a/b\ntopic a/#",
            "topic a/#\nclient x\ntopic deny a/b",
            "topic a/#\nclient x\ntopic a/b\npattern deny a/b",
        ] {
            let rights = acl(text).rights("x", None);
            assert!(
                !rights.may_publish("a/b") && !rights.may_receive("a/b"),
                "{text}"
            );
            assert!(
                rights.may_publish("a/c") && rights.may_receive("a/c"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_subscription_needs_some_topic_that_may_be_received() {
        let acl = acl(
            "topic read a/+/c\ntopic write w/#\ntopic read d/#\ntopic deny d/#\n\
                       topic read e/#\ntopic deny e/x",
        );
        let rights = acl.rights("x", None);
        for (wanted, expected) in [
            ("#", true),
            ("a/#", true),
            ("+/+/c", true),
            ("a/b/c", true),
            ("a/b/d", false),
            ("a/b", false),
            ("w/#", false),
            ("d/#", false),
            ("d/x", false),
            ("e/x", false),
            ("e/+", true),
            ("$SYS/#", false),
            ("other", false),
        ] {
            assert_eq!(rights.may_subscribe(&filter(wanted)), expected, "{wanted}");
        }
        let nothing = Acl::default().rights("x", None);
        assert!(!nothing.may_subscribe(&filter("#")) && !nothing.may_publish("a"));
    }

    #[test]
    fn a_strange_name_gains_nothing() {
        let acl = acl("pattern dev/%c/#\npattern read of/%u/x\npattern open/#\n\
                       pattern deny open/%c/x\npattern deny open/%u/y");
        for name in ["+", "#", "a/b", "a+", "/", ""] {
            let rights = acl.rights(name, Some("a/b"));
            for topic in ["dev/a/b", "dev/a", "dev/+/x", "dev", "of/a/b/x", "dev//x"] {
                assert!(
                    !rights.may_publish(topic) && !rights.may_receive(topic),
                    "{name} {topic}"
                );
            }
            assert!(!rights.may_subscribe(&filter("dev/#")), "{name}");
            // Denied as widely as the name could be meant.
            assert!(
                !rights.may_publish("open/a/b/x") && !rights.may_publish("open/q"),
                "{name}"
            );
        }
        let plain = acl.rights("c", None);
        assert!(plain.may_publish("dev/c/1") && plain.may_publish("open/q"));
        assert!(!plain.may_publish("open/c/x") && plain.may_publish("open/c/y"));
        assert!(
            !plain.may_receive("of/c/x"),
            "nobody without a user name is %u"
        );
        let literal = acl.rights("%u", Some("u"));
        assert!(literal.may_publish("dev/%u/1") && !literal.may_publish("dev/u/1"));
    }

    #[test]
    fn every_problem_has_its_line() {
        let text = "topic\nuser\nclient  \ntopik a\n\n# fine\ntopic read\ntopic a b\n\
                    topic read a/#/b\ntopic write dev/%c\npattern read a%c/b\npattern deny\nuser ada\n";
        let problems = Acl::parse(text).expect_err("ten of them");
        let expected = [
            (1, "followed by a topic filter"),
            (2, "`user` must be followed by a name"),
            (3, "`client` must be"),
            (4, "`topik` is none of"),
            (7, "`topic readwrite read`"),
            (8, "`a` is none of `read`"),
            (9, "not a topic filter"),
            (10, "`%c` means something only"),
            (11, "must fill a whole level"),
            (12, "`pattern deny` names no topic filter"),
        ];
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for ((line, problem), (number, part)) in problems.iter().zip(expected) {
            assert_eq!(*line, number, "{problem}");
            assert!(problem.contains(part), "{problem}");
        }
    }

    #[test]
    fn who_may_publish_is_told_by_name() {
        let text = "user ada\ntopic write cmd/#\nuser bo\ntopic read cmd/#\nclient p\ntopic write \
                    cmd/a\ntopic deny cmd/b\npattern write cmd/%c\n";
        let acl = Acl::parse(text).expect("rules");
        let of = |topic| acl.publishers(topic);
        assert_eq!(of("cmd/a"), ["client p", "user ada", "whom `cmd/%c` fits"]);
        assert_eq!(of("cmd/b/c"), ["user ada"]);
        assert!(of("other").is_empty());
        let all = Acl::parse("pattern write cmd/#\n").expect("rules");
        assert_eq!(all.publishers("cmd/a"), ["everybody"]);
        let none = Acl::parse("pattern write cmd/#\npattern deny cmd/a\n").expect("rules");
        assert!(none.publishers("cmd/a").is_empty());
    }
}
