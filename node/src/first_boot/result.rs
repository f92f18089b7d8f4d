//! `skerry-result.txt`: what came of it, on the stick, for whoever takes it back to a desk. A part
//! for each box, as one stick may have been in many.

use super::takeover;
use super::{Machine, Refusal};
use std::fs;
use std::path::Path;

pub const NAME: &str = "skerry-result.txt";

/// More than a thousand boxes; a file that is larger is none of ours, or nobody reads it.
const BYTES_MAX: usize = 1024 * 1024;
const MARK: &str = "=== ";

/// Tells `text` of this box, in the place of what was told of it before, if anything was: only
/// `news` takes the place of something.
pub fn tell(folder: &Path, machine: &Machine, text: &str, news: bool) -> Result<(), Refusal> {
    let path = folder.join(NAME);
    if fs::symlink_metadata(&path).is_ok_and(|there| !there.is_file()) {
        return Err(Refusal::Unusable {
            path,
            what: "is no plain file",
        });
    }
    let before = fs::read_to_string(&path).unwrap_or_default();
    let key = key(machine);
    let has_told = before
        .lines()
        .any(|line| line.strip_prefix(MARK) == Some(&key));
    let after = merged(&before, &key, text);
    // The stick may stay in for years, and it wears.
    match after == before || (has_told && !news) {
        true => Ok(()),
        false => takeover::replace(&path, after.as_bytes(), 0o600),
    }
}

/// By what a box is told from others here.
fn key(machine: &Machine) -> String {
    let known = [&machine.id, &machine.serial, &machine.mac()].map(Clone::clone);
    let first = known.into_iter().flatten().next();
    first.unwrap_or_else(|| "a box without an id".to_owned())
}

fn merged(before: &str, key: &str, text: &str) -> String {
    let mut kept = String::new();
    let mut is_ours = false;
    for line in before.lines() {
        if let Some(other) = line.strip_prefix(MARK) {
            is_ours = other == key;
        }
        if !is_ours {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    if kept.len() > BYTES_MAX {
        kept.clear();
    }
    format!("{MARK}{key}\n{}\n\n{}", text.trim_end(), kept.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_box_has_one_part_and_the_latest_is_the_first() {
        let first = merged("", "box 1", "NOT set up\nbecause\n");
        let second = merged(&first, "box 2", "set up\n");
        assert_eq!(
            second,
            "=== box 2\nset up\n\n=== box 1\nNOT set up\nbecause\n\n"
        );
        let third = merged(&second, "box 1", "set up as press-1");
        assert_eq!(
            third,
            "=== box 1\nset up as press-1\n\n=== box 2\nset up\n\n"
        );
        assert!(merged(&"x".repeat(BYTES_MAX + 1), "a", "b").len() < 20);
    }
}
