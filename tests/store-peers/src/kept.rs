//! Figures of a backlog: space that comes back, memory, and the first acknowledgement after a
//! crash. The log runs in a child there, which can be killed and whose memory is its own.

use crate::Scale;
use crate::figures::{median, print};
use crate::ours::{self, PER_APPEND, READERS};
use crate::telemetry::Telemetry;
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use skerry_store::Offset;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Disk used after the oldest half was deleted, of what was used before.
pub(crate) fn space(folder: &Path, scale: Scale) -> Result<()> {
    let our_folder = folder.join("ours");
    let runtime = ours::runtime()?;
    let bytes = scale.bytes / 4;
    let mut options = ours::options(&our_folder, std::time::Duration::from_millis(5));
    let (log, _) = skerry_store::Log::open(options.clone())?;
    let mut load = Telemetry::new();
    runtime.block_on(ours::write(&log, load.of_bytes(bytes), PER_APPEND))?;
    runtime.block_on(log.append(ours::advance(READERS[0], &log)?))?;
    drop(log);
    let before = used(&our_folder)?;
    // A bound of half of it lets the confirmed half go at the next append.
    options.streams[0].bytes_max = before / 2;
    let (log, _) = skerry_store::Log::open(options)?;
    runtime.block_on(ours::write(&log, load.of_bytes(20_000), 1))?;
    drop(log);
    let after = used(&our_folder)?;
    let ratio = after as f64 / before as f64;
    print(&json!({
        "figure": "disk used after deleting the oldest half", "unit": "ratio", "ours": ratio,
        "ratio": ratio, "aim": 0.6, "aim_met": ratio <= 0.6,
    }));
    Ok(fs::remove_dir_all(our_folder)?)
}

/// Blocks that the files below a folder take.
fn used(folder: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        total += if entry.file_type()?.is_dir() {
            used(&entry.path())?
        } else {
            entry.metadata()?.blocks() * 512
        };
    }
    Ok(total)
}

/// Memory with a backlog and eight readers in it, and the time from start to the first
/// acknowledgement after kill -9.
pub(crate) fn backlog(folder: &Path, scale: Scale) -> Result<()> {
    let our_folder = folder.join("ours");
    let mut writer = start("write", &our_folder, scale.backlog_bytes)?;
    expect(&mut writer, "ready")?;
    let resident = resident_bytes(&writer)?;
    let aim = 24 << 20;
    print(&json!({
        "figure": format!("resident memory, {} of payload, 8 readers", gib(scale.backlog_bytes)),
        "unit": "bytes", "ours": resident, "aim": aim, "aim_met": resident <= aim,
    }));
    kill(writer)?;
    let mut starts = Vec::new();
    for _ in 0..3 {
        let started = Instant::now();
        let mut reopened = start("ack", &our_folder, 0)?;
        expect(&mut reopened, "ready")?;
        starts.push(started.elapsed().as_secs_f64());
        kill(reopened)?;
    }
    let seconds = median(starts);
    print(&json!({
        "figure": format!("first ack after kill -9, {}", gib(scale.backlog_bytes)), "unit": "s",
        "ours": seconds, "aim": 1.0, "aim_met": seconds <= 1.0, "runs": 3,
    }));
    Ok(fs::remove_dir_all(our_folder)?)
}

fn gib(bytes: u64) -> String {
    format!("{} GiB", bytes >> 30)
}

fn start(role: &str, folder: &Path, bytes: u64) -> Result<Child> {
    let folder = folder.to_str().context("a path in UTF-8")?;
    Ok(Command::new(std::env::current_exe()?)
        .args(["child", role, folder, &bytes.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?)
}

fn expect(child: &mut Child, word: &str) -> Result<()> {
    let output = child.stdout.as_mut().context("no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    ensure!(line.trim() == word, "a child said {line:?}, not {word}");
    Ok(())
}

/// kill -9.
fn kill(mut child: Child) -> Result<()> {
    child.kill()?;
    child.wait()?;
    Ok(())
}

fn resident_bytes(child: &Child) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context("no resident size")?.parse::<u64>()? * 1024)
}

/// The other side: does its part, says `ready`, and waits to be killed.
pub(crate) fn child(role: &str, folder: &Path, bytes: &str) -> Result<()> {
    let runtime = ours::runtime()?;
    let log = ours::open(folder)?;
    let mut readers = Vec::new();
    match role {
        "write" => {
            let bytes = bytes.parse()?;
            runtime.block_on(ours::write(
                &log,
                Telemetry::new().of_bytes(bytes),
                PER_APPEND,
            ))?;
            let head = log.head(&ours::stream())?.borrow().0;
            for (index, name) in READERS.iter().enumerate() {
                let from = Offset(head / READERS.len() as u64 * index as u64);
                let mut reader = log.reader(&ours::stream(), from)?;
                ensure!(!reader.next(64 * 1024)?.is_empty(), "nothing to read");
                runtime.block_on(log.append(ours::advance(name, &log)?))?;
                readers.push(reader);
            }
        }
        "ack" => {
            let payload = Telemetry::new().take(1).collect();
            runtime.block_on(log.append(ours::append(&ours::stream(), payload)))?;
        }
        _ => bail!("no such role: {role}"),
    }
    println!("ready");
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}
