//! `{name}` in a config that is for many boxes: what it stands for on this one.
//!
//! The text is filled in before it is read as TOML, line by line, so that every problem found
//! later is on the same line as on the stick. So that no value can become anything but a part of
//! the text it stands in, values have no quotes, backslashes or control characters.

use crate::config::{Problem, Report};
use std::collections::BTreeMap;
use std::path::Path;

/// What the config itself fills in, later and for each record or asset; left as they are.
pub const OF_THE_CONFIG: [&str; 4] = ["asset", "node", "stream", "topic"];

/// What each name stands for, or why it stands for nothing.
pub type Variables = BTreeMap<String, Result<String, String>>;

/// Whether a placeholder can be called so.
pub fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(fits)
}

/// The text with every placeholder filled in.
pub fn fill_in(path: &Path, text: &str, variables: &Variables) -> Result<String, Report> {
    let mut filled = String::with_capacity(text.len());
    let mut problems = Vec::new();
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let comment = comment_of(line);
        let mut rest = line;
        while let Some((before, name, after)) = next(rest) {
            filled.push_str(before);
            // A comment may speak of anything.
            let told = line.len() - rest.len() + before.len() < comment;
            match value_of(name, variables) {
                Ok(Some(value)) => filled.push_str(value),
                outcome => {
                    // The config's own, or none at all.
                    problems.extend(outcome.err().filter(|_| told).map(|why| Problem {
                        line: index + 1,
                        key: format!("{{{name}}}"),
                        message: why,
                    }));
                    filled.extend(["{", name, "}"]);
                }
            }
            rest = after;
        }
        filled.push_str(rest);
    }
    match problems.is_empty() {
        true => Ok(filled),
        false => Err(Report {
            path: path.to_owned(),
            problems,
        }),
    }
}

/// What a placeholder stands for; `None` if it is the config's own.
fn value_of<'v>(name: &str, variables: &'v Variables) -> Result<Option<&'v str>, String> {
    match variables.get(name) {
        Some(Ok(value)) => usable(value).map(|()| Some(value.as_str())),
        Some(Err(why)) => Err(why.clone()),
        None if OF_THE_CONFIG.contains(&name) => Ok(None),
        None => Err(unknown(variables)),
    }
}

fn unknown(variables: &Variables) -> String {
    let known: Vec<_> = variables.keys().map(|name| format!("{{{name}}}")).collect();
    format!(
        "stands for nothing: it is no column of nodes.csv; there is {}",
        known.join(", ")
    )
}

fn usable(value: &str) -> Result<(), String> {
    let breaks = |c: char| c.is_control() || matches!(c, '"' | '\'' | '\\');
    match value.chars().find(|c| breaks(*c)) {
        Some(wrong) => Err(format!(
            "would be `{}`, and {wrong:?} cannot be filled in",
            value.escape_debug()
        )),
        None => Ok(()),
    }
}

/// The credentials that a config names, each with its line.
pub fn credentials(config: &str) -> impl Iterator<Item = (usize, &str)> {
    let named = |line| {
        let line: &str = line;
        let code = &line[..comment_of(line)];
        code.split("credential:").skip(1).filter_map(|after| {
            let (name, _) = after.split_once(['"', '\''])?;
            Some(name)
        })
    };
    let lines = config.lines().enumerate();
    lines.flat_map(move |(index, line)| named(line).map(move |name| (index + 1, name)))
}

/// The first placeholder of `text`, with what is before and after it.
fn next(text: &str) -> Option<(&str, &str, &str)> {
    let braces = text.match_indices('{');
    braces.map(|(at, _)| at).find_map(|at| {
        let (name, after) = text[at + 1..].split_once('}')?;
        is_name(name).then_some((&text[..at], name, after))
    })
}

/// Where the comment of a line begins, at its end if it has none. A line within a text of many is
/// taken for one by itself; then a mistyped placeholder behind a `#` is left as it is.
fn comment_of(line: &str) -> usize {
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some('"'), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '#') => return at,
            _ => {}
        }
    }
    line.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, String> {
        let known = |name: &str, value: Result<&str, &str>| {
            let value = value.map(str::to_owned).map_err(str::to_owned);
            (name.to_owned(), value)
        };
        let variables = Variables::from([
            known("machine", Ok("9e57fd0dda1342d7")),
            known("line", Ok("hall 1")),
            known("evil", Ok("x\"\n[kafka]")),
            known("serial", Err("this board tells no serial number")),
        ]);
        fill_in(Path::new("skerry.toml"), text, &variables).map_err(|report| report.to_string())
    }

    #[test]
    fn placeholders_are_filled_in_and_the_configs_own_are_left() {
        let text = "name = \"press-{machine}\" # {machine}, {nobody}, {serial}\n\
                    topic = \"{line}.{stream}.{1}\"\ninline = { ca_file = \"#{line}\" }\n";
        let wanted = "name = \"press-9e57fd0dda1342d7\" # 9e57fd0dda1342d7, {nobody}, {serial}\n\
                      topic = \"hall 1.{stream}.{1}\"\ninline = { ca_file = \"#hall 1\" }\n";
        assert_eq!(filled(text).as_deref(), Ok(wanted));
        assert_eq!(filled("{{machine}}").as_deref(), Ok("{9e57fd0dda1342d7}"));
        assert_eq!(filled("a = \"{\"").as_deref(), Ok("a = \"{\""));
    }

    #[test]
    fn what_stands_for_nothing_is_told_with_its_line() {
        let text = "a = 1\nb = \"#{machin}\"\n# {machin}\nc = '{serial}'\nd = \"{evil}\"\n";
        let report = filled(text).expect_err("three problems");
        let lines: Vec<&str> = report.lines().collect();
        assert_eq!(lines.len(), 4, "{report}");
        for (line, told) in lines.iter().zip([
            "skerry.toml:2: {machin}: stands for nothing",
            "skerry.toml:4: {serial}: this board tells no serial number",
            "skerry.toml:5: {evil}: would be `x\\\"\\n[kafka]`",
        ]) {
            assert!(line.starts_with(told), "{line}");
        }
        assert!(report.contains("{evil}, {line}, {machine}, {serial}"));
    }
}
