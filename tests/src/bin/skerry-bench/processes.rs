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
