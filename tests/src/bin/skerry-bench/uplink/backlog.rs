//! A log full of telemetry, made once and copied for each run.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use skerry_tests::load::{Fill, MACHINES, Machine};
use skerry_tests::node::{Node, Settings};
use skerry_tests::{Result, ensure, workspace};

const SEED: u64 = 5;
/// Reports that the peers send over and over: 40 MB, more than any compression looks back.
const REPORTS: usize = 200_000;
/// Changed together with what a report looks like: what was made before is not used then.
const EDITION: u32 = 1;

/// Stays below the target folder when the bench is over.
pub(super) struct Backlog {
    data: PathBuf,
    pub(super) records: u64,
    /// The same reports, a line each, the machines in turn.
    pub(super) reports: PathBuf,
}

impl Backlog {
    /// Filled over MQTT by a node that has no way north, unless that was done before.
    pub(super) fn of(records: u64) -> Result<Self> {
        let folder = workspace::target().join(format!("bench/uplink-backlog-{EDITION}"));
        fs::create_dir_all(&folder)?;
        let reports = folder.join("reports");
        if !reports.exists() {
            write_reports(&reports)?;
        }
        let folder = folder.join(records.to_string());
        let (data, whole) = (folder.join("data"), folder.join("whole"));
        if !whole.exists() {
            if folder.exists() {
                fs::remove_dir_all(&folder)?;
            }
            fs::create_dir_all(&folder)?;
            fill(&folder, records)?;
            File::create(whole)?;
        }
        Ok(Self {
            data,
            records,
            reports,
        })
    }

    pub(super) fn copy(&self, to: &Path) -> Result<()> {
        let mut command = Command::new("cp");
        command
            .args(["-a", "--reflink=auto"])
            .arg(&self.data)
            .arg(to);
        let status = command.status()?;
        ensure!(status.success(), "{command:?} ended with {status}");
        Ok(())
    }
}

/// Settings of a node that takes any backlog.
pub(super) fn settings(folder: &Path) -> Result<Settings> {
    let mut settings = Settings::new(folder)?;
    settings.telemetry_bytes_max = "64GiB".to_owned();
    Ok(settings)
}

fn fill(folder: &Path, records: u64) -> Result<()> {
    eprintln!("filling a log with {records} records");
    let mut node = Node::new(settings(folder)?, folder, folder)?;
    node.start()?;
    let fill = Fill {
        records,
        seed: SEED,
    };
    let filled = fill.run(node.mqtt_port())?;
    ensure!(filled == records, "{filled} of {records} records");
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    Ok(())
}

/// Into place as a whole.
fn write_reports(path: &Path) -> Result<()> {
    let part = path.with_extension("part");
    let mut file = BufWriter::new(File::create(&part)?);
    let mut machines = Machine::all(SEED);
    for number in 0..REPORTS {
        file.write_all(&machines[number % MACHINES].report())?;
        file.write_all(b"\n")?;
    }
    file.into_inner()?.sync_all()?;
    Ok(fs::rename(part, path)?)
}
