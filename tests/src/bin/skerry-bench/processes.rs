//! What the kernel says a process costs.

use std::fs;

use skerry_tests::{Context as _, Result};

/// User and system time of a process so far, in the kernel's ticks of a hundredth of a second.
pub(crate) fn cpu_seconds(id: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let field = |n: usize| -> Result<f64> {
        let field = fields.split_whitespace().nth(n);
        Ok(field.context("a short stat")?.parse()?)
    };
    Ok((field(11)? + field(12)?) / 100.0)
}

/// A process and those that it has started.
pub(crate) fn with_children(id: u32) -> Result<Vec<u32>> {
    let mut found = vec![id];
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(other) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // It may have ended meanwhile.
        let Ok(stat) = fs::read_to_string(format!("/proc/{other}/stat")) else {
            continue;
        };
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields);
        let parent = fields.and_then(|fields| fields.split_whitespace().nth(1));
        if parent.is_some_and(|parent| parent.parse() == Ok(id)) {
            found.push(other);
        }
    }
    Ok(found)
}

/// Bytes of memory of a process's own, and its share of what it has in common with others: a
/// library that many programs use is not one broker's cost.
pub(crate) fn memory_bytes(id: u32) -> Result<u64> {
    let path = format!("/proc/{id}/smaps_rollup");
    let smaps = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let share = smaps.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = share.and_then(|text| text.trim().strip_suffix(" kB"));
    let kib: u64 = kib.context("no Pss in smaps_rollup")?.parse()?;
    Ok(kib * 1024)
}

/// Bytes that a process and its children have in memory. What they share with each other, as the
/// program's own text, counts for each.
pub(crate) fn resident_bytes(id: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|text| text.trim().strip_suffix(" kB"));
    let mut bytes = kib.context("no resident size")?.parse::<u64>()? * 1024;
    for task in fs::read_dir(format!("/proc/{id}/task"))? {
        // A thread may end meanwhile.
        let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            bytes += resident_bytes(child.parse()?)?;
        }
    }
    Ok(bytes)
}
