//! `nodes.csv`: what differs between the boxes that one stick is for.
//!
//! Made with a spreadsheet more often than not: with `;` or tabs where the country writes numbers
//! with a comma, and with a mark at its beginning that says it is UTF-8.

use super::machine::plain;
use super::template::{OF_THE_CONFIG, is_name};
use crate::config::{Problem, Report};
use std::collections::BTreeSet;
use std::path::Path;

/// The column that says which box a line is for.
const WHICH: &str = "which";
/// Any box that has no line of its own.
const ANY: &str = "*";
/// What every box knows by itself.
pub const BUILT_IN: [&str; 4] = ["hostname", "mac", "machine", "serial"];

/// One box, as the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub line: usize,
    /// As [`plain`] has it.
    pub which: String,
    pub values: Vec<(String, String)>,
}

/// The line of the box that is known by `known_by`.
pub fn row_of(path: &Path, text: &str, known_by: &BTreeSet<String>) -> Result<Row, Report> {
    let rows = read(path, text)?;
    let of = |fits: &dyn Fn(&Row) -> bool| {
        let fitting = rows.iter().filter(|row| fits(row)).cloned();
        fitting.collect::<Vec<Row>>()
    };
    let mut found = of(&|row| known_by.contains(&row.which));
    if found.is_empty() {
        found = of(&|row| row.which == ANY);
    }
    let wrong = |line, message: String| Report {
        path: path.to_owned(),
        problems: vec![problem(line, message)],
    };
    match found.as_slice() {
        [row] => Ok(row.clone()),
        [] => Err(wrong(
            1,
            "no line is for this box; add one whose `which` is its MAC address or serial number"
                .to_owned(),
        )),
        [first, second, ..] => Err(wrong(
            second.line,
            format!(
                "is for the same box as line {}; keep one of them",
                first.line
            ),
        )),
    }
}

/// All lines, or every problem of the file.
fn read(path: &Path, text: &str) -> Result<Vec<Row>, Report> {
    let first = text.lines().next().unwrap_or_default();
    let delimiter = [b';', b'\t']
        .into_iter()
        .find(|delimiter| first.as_bytes().contains(delimiter))
        .unwrap_or(b',');
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .trim(csv::Trim::All)
        .flexible(true)
        .has_headers(false)
        .from_reader(text.as_bytes());
    let (mut columns, mut rows, mut problems) = (None, Vec::new(), Vec::new());
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let line = error.position().map_or(1, csv::Position::line);
                problems.push(problem(as_index(line), format!("cannot be read: {error}")));
                break;
            }
        };
        let line = record.position().map_or(1, csv::Position::line);
        let line = as_index(line);
        let Some(columns) = &columns else {
            columns = Some(read_columns(&record, line, &mut problems));
            continue;
        };
        // A spreadsheet leaves lines of nothing but separators behind.
        if record.iter().all(str::is_empty) {
            continue;
        }
        match read_row(columns, &record, line) {
            Ok(row) => rows.push(row),
            Err(message) => problems.push(problem(line, message)),
        }
    }
    if columns.is_none() {
        let message = "is empty; its first line names the columns: which,name".to_owned();
        problems.push(problem(1, message));
    }
    match problems.is_empty() {
        true => Ok(rows),
        false => Err(Report {
            path: path.to_owned(),
            problems,
        }),
    }
}

fn read_columns(
    record: &csv::StringRecord,
    line: usize,
    problems: &mut Vec<Problem>,
) -> Vec<String> {
    let columns: Vec<_> = record.iter().map(str::to_ascii_lowercase).collect();
    if !columns.iter().any(|column| column == WHICH) {
        let message = format!("has no column `{WHICH}`, which says what box a line is for");
        problems.push(problem(line, message));
    }
    for (index, column) in columns.iter().enumerate() {
        let taken = BUILT_IN.iter().chain(&OF_THE_CONFIG);
        let message = if columns[..index].contains(column) {
            format!("has two columns `{column}`")
        } else if taken.copied().any(|name| name == column) {
            format!("column `{column}` needs another name: {{{column}}} has a meaning already")
        } else if !is_name(column) {
            format!("column `{column}` needs a name of a-z, 0-9 and _")
        } else {
            continue;
        };
        problems.push(problem(line, message));
    }
    columns
}

fn read_row(columns: &[String], record: &csv::StringRecord, line: usize) -> Result<Row, String> {
    if record.len() != columns.len() {
        return Err(format!(
            "has {} fields, and there are {} columns",
            record.len(),
            columns.len()
        ));
    }
    let fields = columns.iter().zip(record.iter());
    let (which, others): (Vec<_>, Vec<_>) = fields.partition(|(column, _)| *column == WHICH);
    let which = which.first().map_or("", |(_, which)| which);
    if which.is_empty() {
        return Err(format!(
            "`{WHICH}` says nothing of what box the line is for"
        ));
    }
    // 1.00E+15: the digits are gone for good.
    if which.contains("E+") && which.contains(['.', ',']) {
        return Err(format!(
            "`{which}` is what a spreadsheet made of a number: have it treat the column `{WHICH}` \
             as text, and enter it again"
        ));
    }
    let owned = |(column, value): (&String, &str)| (column.clone(), value.to_owned());
    Ok(Row {
        line,
        which: plain(which),
        values: others.into_iter().map(owned).collect(),
    })
}

fn problem(line: usize, message: String) -> Problem {
    Problem {
        line,
        key: String::new(),
        message,
    }
}

fn as_index(line: u64) -> usize {
    usize::try_from(line).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, known_by: &[&str]) -> Result<(usize, Vec<String>), String> {
        let known_by = known_by.iter().map(|known| plain(known)).collect();
        let row = row_of(Path::new("nodes.csv"), text, &known_by);
        row.map(|row| {
            let values = row.values.into_iter().map(|(_, value)| value);
            (row.line, values.collect())
        })
        .map_err(|report| report.to_string())
    }

    const FLEET: &str = "which,name,line\nb8:27:eb:01:02:03,press-1,\"hall 1, left\"\n\n\
                         ,,\n10000000ABCDEF01,press-2,hall-2\n*,spare,\n";

    #[test]
    fn a_box_finds_its_line_by_anything_it_is_known_by() {
        let press_1 = (2, vec!["press-1".to_owned(), "hall 1, left".to_owned()]);
        assert_eq!(of(FLEET, &["b8-27-EB-01-02-03", "x"]), Ok(press_1));
        let press_2 = (5, vec!["press-2".to_owned(), "hall-2".to_owned()]);
        assert_eq!(of(FLEET, &["10000000abcdef01"]), Ok(press_2));
        let spare = (6, vec!["spare".to_owned(), String::new()]);
        assert_eq!(of(FLEET, &["unheard-of"]), Ok(spare));
        let german = FLEET
            .replace(", left", "")
            .replace(',', ";")
            .replace('\n', "\r\n");
        let (_, values) = of(&german, &["b827eb010203"]).expect("a line");
        assert_eq!(values, ["press-1", "hall 1"]);
    }

    #[test]
    fn a_file_that_cannot_be_meant_so_is_told_line_by_line() {
        for (text, told) in [
            ("", "nodes.csv:1: is empty"),
            ("name\npress-1\n", "nodes.csv:1: has no column `which`"),
            ("which,node\nx,a\n", "{node} has a meaning already"),
            ("which,Name of it\nx,a\n", "`name of it` needs a name"),
            ("which,name,name\nx,a,b\n", "two columns `name`"),
            ("which,name\nx\n", "nodes.csv:2: has 1 fields"),
            ("which,name\n,a\n", "says nothing of what box"),
            ("which,name\n1.00E+15,a\n", "what a spreadsheet made"),
            ("which,name\nother,a\n", "no line is for this box"),
            (
                "which,name\nX,a\nb,c\nx,b\n",
                "nodes.csv:4: is for the same box as line 2",
            ),
        ] {
            let report = of(text, &["x"]).expect_err(text);
            assert!(report.contains(told), "{report}");
        }
    }
}
