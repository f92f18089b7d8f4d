//! What skerry takes before it has anything to do.

use std::fs;

use serde_json::json;
use skerry_tests::node::{Node, Settings};
use skerry_tests::{Context as _, Result, workspace};

use crate::figures::{folder, print};

/// Size of the binary, and memory of a node that has just started and has nothing to do.
pub(crate) fn run() -> Result<()> {
    let binary = fs::metadata(workspace::skerry())?.len();
    print(
        "footprint",
        &json!({"figure": "binary", "unit": "bytes", "ours": binary}),
    );
    let folder = folder("footprint")?;
    let mut node = Node::new(Settings::new(&folder)?, &folder, &folder)?;
    node.start()?;
    let status = fs::read_to_string(format!("/proc/{}/status", node.running()?.id()))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = resident
        .and_then(|text| text.trim().split(' ').next())
        .context("no resident size")?
        .parse()?;
    let bytes = kib * 1024;
    print(
        "footprint",
        &json!({"figure": "idle memory", "unit": "bytes", "ours": bytes}),
    );
    node.terminate()?;
    Ok(())
}
