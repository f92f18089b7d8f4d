//! The whole node while a large backlog drains.

use std::path::Path;

use serde_json::json;
use skerry_tests::Result;

use super::backlog::Backlog;
use super::cluster::Cluster;
use super::site::{Site, Way};
use super::{Scale, print};
use crate::figures::Aim;

const AIM: Aim = Aim::AtMost(48e6);

/// The most that was resident since it started, its recovery included; with the settings that it
/// has by itself.
pub(super) fn run(folder: &Path, scale: Scale) -> Result<()> {
    let backlog = Backlog::of(scale.large)?;
    let cluster = Cluster::start(folder)?;
    let way = Way {
        brokers: cluster.kafka.address(),
        ..Way::default()
    };
    let figure = "resident memory of the node, at its highest, during a drain";
    let mut site = match Site::start(folder, Some(&backlog), &way)? {
        Ok(site) => site,
        Err(why) => {
            print(&json!({"figure": figure, "unit": "bytes", "aim": AIM.value(), "why": why}));
            return Ok(());
        }
    };
    site.begun()?;
    let before = site.node().memory()?.peak_kib * 1024;
    site.drained()?;
    let peak = site.node().memory()?.peak_kib * 1024;
    site.remove()?;
    print(&json!({
        "figure": figure, "unit": "bytes", "ours": peak, "aim": AIM.value(),
        "aim_met": AIM.is_met_by(peak as f64), "records": backlog.records,
        "when_it_began": before,
    }));
    Ok(())
}
