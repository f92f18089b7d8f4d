//! What a card is written: a disk of its own for each node, and the kernel's count of it.

use std::fs;
use std::path::Path;

use serde_json::json;
use skerry_tests::disk::{self, Disk};
use skerry_tests::load::Paced;
use skerry_tests::node::{Node, Settings, shipped};
use skerry_tests::{Result, bail};

use super::{Scale, print};

const DISK_MEBIBYTES: u64 = 512;
const TAGS: u32 = 100;
/// Its first commits make files.
const WARM_UP_SHARE: u32 = 6;
const DAY_S: f64 = 24.0 * 3600.0;

/// The default and the shipped profile side by side. The day is extrapolated from what is
/// measured, journal and inodes of an ext4 with its own defaults included.
pub(super) fn run(folder: &Path, scale: Scale) -> Result<()> {
    if !disk::can_be_had() {
        let why = "needs a file system of its own (root, a loop device)";
        print(&json!({"figure": "wear", "unit": "bytes/day", "why": why}));
        return Ok(());
    }
    let default = measured(&folder.join("default"), scale, None);
    let profile = measured(&folder.join("sd-card"), scale, Some("sd-card.toml"));
    let [default, profile] = [default?, profile?];
    for (name, bytes) in [("default", default), ("configs/sd-card.toml", profile)] {
        print(&json!({
            "figure": format!("device bytes a day, {TAGS} tags at 1 Hz, 200 B, {name}"),
            "unit": "bytes/day", "ours": bytes, "extrapolated_from_s": scale.part_of_a_day.as_secs(),
            "share_of_default": bytes / default,
        }));
    }
    Ok(())
}

fn measured(folder: &Path, scale: Scale, profile: Option<&str>) -> Result<f64> {
    fs::create_dir_all(folder)?;
    let disk = Disk::new(folder, DISK_MEBIBYTES)?;
    let mut settings = Settings::new(folder)?;
    settings.data = disk.path().join("data");
    let port = settings.mqtt_port;
    let config = profile.map(|name| shipped(name, &settings)).transpose()?;
    let mut node = Node::new(settings, folder, folder)?;
    if let Some(config) = config {
        fs::write(node.config(), config)?;
    }
    node.start()?;
    let load = Paced {
        connections: TAGS as usize,
        per_second: TAGS,
        subscribed: false,
        measured: scale.part_of_a_day / WARM_UP_SHARE,
    };
    load.run(port)?;
    let before = disk.written_bytes()?;
    let load = Paced {
        measured: scale.part_of_a_day,
        ..load
    };
    let seconds = load.run(port)?.as_secs_f64();
    let bytes = disk.written_bytes()? - before;
    if !node.terminate()?.success() {
        bail!("the node did not stop cleanly: {}", node.output()?);
    }
    Ok(bytes as f64 / seconds * DAY_S)
}
