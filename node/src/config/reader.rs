//! Reading TOML into types that cannot be wrong, with every problem reported at once.
//!
//! serde stops at its first error. An engineer on a ship wants the whole list before walking
//! back to the rack, so a [`Table`] is asked for its keys one by one and notes each problem
//! with the line it stands on; what nobody asked for is an unknown key.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// One thing that is wrong with a config file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Line in the file, from 1.
    pub line: usize,
    /// The key's full path, `mqtt.listen` or `stream[2].name`; empty for a syntax error.
    pub key: String,
    /// What is wrong and what to do, one sentence.
    pub message: String,
}

/// Something that a config file leads to, right as it is itself: told by `skerry check`, and no
/// reason not to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    pub severity: Severity,
    path: PathBuf,
    problem: Problem,
}

/// Whether a check that finds it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Wrong,
    Warning,
}

/// The file's name and the problems found in it so far.
#[derive(Debug)]
pub struct Source<'t> {
    path: PathBuf,
    text: &'t str,
    problems: RefCell<Vec<Problem>>,
    remarks: RefCell<Vec<Remark>>,
}

impl<'t> Source<'t> {
    pub fn new(path: &Path, text: &'t str) -> Self {
        Self {
            path: path.to_owned(),
            text,
            problems: RefCell::default(),
            remarks: RefCell::default(),
        }
    }

    /// Parses the text and hands its root table to `read`; whatever the syntax errors left
    /// readable is read too, so that both kinds of problem are reported together.
    pub fn read<T>(&self, read: impl FnOnce(&Table<'_>) -> T) -> T {
        let (root, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let at = error.span().unwrap_or(0..0);
            self.note(&at, "", error.message());
        }
        let table = Table {
            source: self,
            path: String::new(),
            span: root.span(),
            entries: root.get_ref(),
            asked: RefCell::default(),
        };
        let value = read(&table);
        table.finish();
        value
    }

    pub fn note(&self, at: &Range<usize>, key: &str, message: impl Into<String>) {
        let problem = self.problem(at, key, message.into());
        self.problems.borrow_mut().push(problem);
    }

    /// The remarks so far, which are taken.
    pub fn take_remarks(&self) -> Vec<Remark> {
        self.remarks.take()
    }

    fn problem(&self, at: &Range<usize>, key: &str, message: String) -> Problem {
        let end = at.start.min(self.text.len());
        let line = self.text.as_bytes()[..end]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        Problem {
            line,
            key: key.to_owned(),
            message,
        }
    }

    /// The problems in the order of their lines, each as `file:line: key: message`.
    pub fn into_report(self) -> Option<Report> {
        let mut problems = self.problems.into_inner();
        problems.sort();
        problems.dedup();
        (!problems.is_empty()).then_some(Report {
            path: self.path,
            problems,
        })
    }
}

/// Everything wrong with one config file.
#[derive(Debug, thiserror::Error)]
pub struct Report {
    pub path: PathBuf,
    pub problems: Vec<Problem>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "{}:{problem}", self.path.display())?;
        }
        let count = self.problems.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        write!(f, "{count} {noun} in {}", self.path.display())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.severity {
            Severity::Wrong => "",
            Severity::Warning => "warning: ",
        };
        write!(f, "{kind}{}:{}", self.path.display(), self.problem)
    }
}

/// A table of the file, asked key by key.
#[derive(Debug)]
pub struct Table<'s> {
    source: &'s Source<'s>,
    path: String,
    span: Range<usize>,
    entries: &'s DeTable<'s>,
    asked: RefCell<BTreeSet<String>>,
}

impl<'s> Table<'s> {
    /// The value of `key` if it is there and `parse` takes it; a refusal is noted.
    pub fn optional<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&Value<'_>) -> Result<T, String>,
    ) -> Option<T> {
        let (span, value) = self.ask(key)?;
        match parse(&Value(value)) {
            Ok(value) => Some(value),
            Err(message) => {
                self.source.note(&span, &self.key(key), message);
                None
            }
        }
    }

    /// Like [`Table::optional`], but an absent key is a problem of the table's own line.
    pub fn required<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&Value<'_>) -> Result<T, String>,
    ) -> Option<T> {
        if self.ask(key).is_none() {
            self.problem(key, "is missing; it has no default");
            return None;
        }
        self.optional(key, parse)
    }

    /// The sub-table `key`, if it is there.
    pub fn table(&self, key: &str) -> Option<Table<'s>> {
        let (span, value) = self.ask(key)?;
        self.as_table(self.key(key), &span, value)
    }

    /// The tables of the array `key`; none if it is absent.
    pub fn tables(&self, key: &str) -> Vec<Table<'s>> {
        let Some((span, value)) = self.ask(key) else {
            return Vec::new();
        };
        let path = self.key(key);
        let DeValue::Array(items) = value else {
            let message = format!("must be a list of tables; write [[{path}]] above each");
            self.source.note(&span, &path, message);
            return Vec::new();
        };
        let numbered = items.iter().enumerate();
        numbered
            .filter_map(|(index, item)| {
                self.as_table(format!("{path}[{index}]"), &item.span(), item.get_ref())
            })
            .collect()
    }

    /// Whether `key` is there, be its value right or wrong.
    pub fn has(&self, key: &str) -> bool {
        self.ask(key).is_some()
    }

    /// Notes a problem of `key`, on its line if it is there, else on the table's.
    pub fn problem(&self, key: &str, message: impl Into<String>) {
        let at = self.ask(key).map_or(self.span.clone(), |(span, _)| span);
        self.source.note(&at, &self.key(key), message);
    }

    /// Like [`Table::problem`], for what the file itself is not to blame for.
    pub fn remark(&self, key: &str, severity: Severity, message: impl Into<String>) {
        let at = self.ask(key).map_or(self.span.clone(), |(span, _)| span);
        self.source.remarks.borrow_mut().push(Remark {
            severity,
            path: self.source.path.clone(),
            problem: self.source.problem(&at, &self.key(key), message.into()),
        });
    }

    /// Notes every key that nobody asked for. Called once all have been.
    pub fn finish(&self) {
        let asked = self.asked.borrow();
        for (key, _) in self.entries {
            let name = key.get_ref().as_ref();
            if asked.contains(name) {
                continue;
            }
            let nearest = asked
                .iter()
                .map(|known| (strsim::damerau_levenshtein(known, name), known))
                .min();
            let message = match nearest {
                Some((distance, known)) if distance <= 3 => {
                    format!("is not a key skerry knows; did you mean `{known}`?")
                }
                _ => {
                    let known: Vec<&str> = asked.iter().map(String::as_str).collect();
                    format!(
                        "is not a key skerry knows; here it knows {}",
                        known.join(", ")
                    )
                }
            };
            self.source.note(&key.span(), &self.key(name), message);
        }
    }

    fn ask(&self, key: &str) -> Option<(Range<usize>, &'s DeValue<'s>)> {
        self.asked.borrow_mut().insert(key.to_owned());
        let value = self.entries.get(key)?;
        Some((value.span(), value.get_ref()))
    }

    fn key(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }

    fn as_table(
        &self,
        path: String,
        span: &Range<usize>,
        value: &'s DeValue<'s>,
    ) -> Option<Table<'s>> {
        let DeValue::Table(entries) = value else {
            self.source.note(span, &path, "must be a table");
            return None;
        };
        Some(Table {
            source: self.source,
            path,
            span: span.clone(),
            entries,
            asked: RefCell::default(),
        })
    }
}

/// A value as the parsers of [`super::units`] see it.
#[derive(Debug, Clone, Copy)]
pub struct Value<'v>(pub(super) &'v DeValue<'v>);

impl<'v> Value<'v> {
    pub fn string(&self) -> Result<&'v str, String> {
        match self.0 {
            DeValue::String(text) => Ok(text.as_ref()),
            other => Err(format!("must be a text in quotes, not {}", kind(other))),
        }
    }

    pub fn integer(&self) -> Result<i64, String> {
        match self.0 {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_err(|_| format!("{number} does not fit 64 bits")),
            other => Err(format!("must be a whole number, not {}", kind(other))),
        }
    }

    pub fn boolean(&self) -> Result<bool, String> {
        match self.0 {
            DeValue::Boolean(value) => Ok(*value),
            other => Err(format!("must be true or false, not {}", kind(other))),
        }
    }

    /// Every element through `parse`; the first refusal names its position.
    pub fn list<T>(
        &self,
        parse: impl Fn(&Value<'_>) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let DeValue::Array(items) = self.0 else {
            return Err(format!("must be a list in [ ], not {}", kind(self.0)));
        };
        let numbered = items.iter().enumerate();
        numbered
            .map(|(index, item)| {
                parse(&Value(item.get_ref())).map_err(|message| format!("[{index}] {message}"))
            })
            .collect()
    }
}

/// What a value is, in words.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
