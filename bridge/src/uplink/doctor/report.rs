//! What was looked at, what came of it and what to do: a line per check.

use serde::{Serialize, Serializer, ser::SerializeMap};
use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Ok,
    /// Works, and somebody should know.
    Warning,
    /// Does not work, or will lose something.
    Problem,
    /// The cluster does not tell, most often because this node may not ask.
    Unknown,
}

/// One check of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: `tls`, `retention` …
    pub check: &'static str,
    /// What it is about: a broker, a topic, a file; empty where there is only one.
    pub about: String,
    pub verdict: Verdict,
    /// What was found, a clause in plain words.
    pub text: String,
    /// What to do, by the keys of `[kafka]` or the cluster's own tools.
    pub fix: Option<String>,
}

/// Everything that was found, in the order in which it was looked at.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    pub findings: Vec<Finding>,
}

impl Finding {
    pub(crate) fn new(
        check: &'static str,
        about: impl Into<String>,
        verdict: Verdict,
        text: impl Into<String>,
    ) -> Self {
        Self {
            check,
            about: about.into(),
            verdict,
            text: text.into(),
            fix: None,
        }
    }

    pub(crate) fn ok(
        check: &'static str,
        about: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        Self::new(check, about, Verdict::Ok, text)
    }

    pub(crate) fn warning(
        check: &'static str,
        about: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        Self::new(check, about, Verdict::Warning, text)
    }

    pub(crate) fn problem(
        check: &'static str,
        about: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        Self::new(check, about, Verdict::Problem, text)
    }

    pub(crate) fn unknown(
        check: &'static str,
        about: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        Self::new(check, about, Verdict::Unknown, text)
    }

    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.check)?;
        if !self.about.is_empty() {
            write!(f, " {}", self.about)?;
        }
        write!(f, ": {}", self.text)?;
        match &self.fix {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}

/// As `/status` has it: `name` tells findings apart, `state` becomes a label in `/metrics`.
impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(6))?;
        let name = format!("{} {}", self.check, self.about);
        map.serialize_entry("name", name.trim_end())?;
        map.serialize_entry("check", self.check)?;
        map.serialize_entry("about", &self.about)?;
        map.serialize_entry("state", &self.verdict)?;
        map.serialize_entry("text", &self.text)?;
        map.serialize_entry("fix", &self.fix)?;
        map.end()
    }
}

impl Report {
    pub(crate) fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// How many findings have this verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        let like = |finding: &&Finding| finding.verdict == verdict;
        self.findings.iter().filter(like).count()
    }

    /// The last line: what it comes to.
    #[must_use]
    pub fn summary(&self) -> String {
        let count = |verdict, one: &str, many: &str| match self.count(verdict) {
            0 => None,
            1 => Some(format!("1 {one}")),
            n => Some(format!("{n} {many}")),
        };
        let told: Vec<String> = [
            count(Verdict::Problem, "problem", "problems"),
            count(Verdict::Warning, "warning", "warnings"),
            count(
                Verdict::Unknown,
                "check could not be made",
                "checks could not be made",
            ),
        ]
        .into_iter()
        .flatten()
        .collect();
        match told.as_slice() {
            [] => "all well".to_owned(),
            told => told.join(", "),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_it_comes_to() {
        let mut report = Report::default();
        report.add(Finding::ok("topic", "t", "has 4 partitions"));
        assert_eq!(report.summary(), "all well");
        report.add(Finding::problem("rights", "t", "may not write").fix("grant Write"));
        report.add(Finding::unknown("clock", "", "not told"));
        assert_eq!(report.summary(), "1 problem, 1 check could not be made");
        assert_eq!(
            report.findings[1].to_string(),
            "rights t: may not write; grant Write"
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["findings"][2]["name"], "clock");
        assert_eq!(json["findings"][1]["state"], "problem");
    }
}
