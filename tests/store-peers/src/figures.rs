//! Figures of writing and reading.

use crate::Scale;
use crate::ours::{self, PER_APPEND};
use crate::peers::{Open, PEERS};
use crate::telemetry::{BYTES, Telemetry};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use skerry_store::{Codec, Offset};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Prints a figure; what it does not say is null.
pub(crate) fn print(figure: &Value) {
    let mut line = json!({
        "bench": "store", "figure": null, "unit": null, "ours": null, "peer": null,
        "theirs": null, "ratio": null, "aim": null, "aim_met": null, "runs": 1,
        "commit": std::env::var("SKERRY_COMMIT").unwrap_or_else(|_| "unknown".to_owned()),
    });
    for (name, value) in figure.as_object().into_iter().flatten() {
        line[name.as_str()] = value.clone();
    }
    println!("{line}");
}

pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Records per second, acknowledged after the sync, against each peer in turns.
pub(crate) fn appends(folder: &Path, scale: Scale) -> Result<()> {
    for (name, open) in PEERS {
        // A peer that is far slower shows it with less.
        let share = if name == "raw_fdatasync" { 1 } else { 4 };
        let kinds: &[_] = match name {
            "raw_fdatasync" => &[
                (PER_APPEND, Codec::Lz4, 1.0),
                (PER_APPEND, Codec::None, 0.8),
                (1, Codec::Lz4, 1.0),
            ],
            _ => &[(PER_APPEND, Codec::Lz4, 2.0)],
        };
        for &(per_append, codec, aim) in kinds {
            let turns = turns(folder, scale, share, open, per_append, codec)?;
            let ratio = median(turns.iter().map(|(ours, theirs)| ours / theirs));
            print(&json!({
                "figure": format!("append_200B, {per_append} a call, {codec:?}"),
                "unit": "records/s",
                "ours": median(turns.iter().map(|turn| turn.0)), "peer": name,
                "theirs": median(turns.iter().map(|turn| turn.1)), "ratio": ratio,
                "aim": aim, "aim_met": ratio >= aim, "runs": turns.len(),
            }));
        }
    }
    Ok(())
}

fn turns(
    folder: &Path,
    scale: Scale,
    share: u64,
    open: Open,
    per_append: usize,
    codec: Codec,
) -> Result<Vec<(f64, f64)>> {
    let (our_folder, their_folder) = (folder.join("ours"), folder.join("theirs"));
    let runtime = ours::runtime()?;
    let log = ours::open_with(&our_folder, codec)?;
    let mut peer = open(&their_folder)?;
    let bytes = scale.bytes / share / u64::from(scale.turns);
    let (mut our_load, mut their_load) = (Telemetry::new(), Telemetry::new());
    let mut turns = Vec::new();
    for _ in 0..scale.turns {
        let before = log.stats();
        // Made before the clock starts: formatting numbers takes as long as writing them.
        let load: Vec<_> = our_load.of_bytes(bytes).collect();
        let started = Instant::now();
        runtime.block_on(ours::write(&log, load, per_append))?;
        let ours = started.elapsed();
        let after = log.stats();
        let records = after.records_appended_total - before.records_appended_total;
        let commits = (after.commits_total - before.commits_total).max(1);
        // The same sync rule: as many records to a sync as we had.
        let batch = usize::try_from(records / commits)?.max(1);
        let load: Vec<_> = their_load.of_bytes(bytes).collect();
        let started = Instant::now();
        for records in load.chunks(batch) {
            peer.append(records)?;
        }
        let theirs = started.elapsed();
        let rate = |elapsed: Duration| records as f64 / elapsed.as_secs_f64();
        turns.push((rate(ours), rate(theirs)));
    }
    drop((peer, log));
    fs::remove_dir_all(our_folder)?;
    fs::remove_dir_all(their_folder)?;
    Ok(turns)
}

/// One record at a time, against the sync of 4 KiB.
pub(crate) fn latency(folder: &Path, scale: Scale) -> Result<()> {
    let our_folder = folder.join("ours");
    let runtime = ours::runtime()?;
    let log = ours::open(&our_folder)?;
    let file = File::create(folder.join("raw"))?;
    let page = [7; 4096];
    let mut load = Telemetry::new();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for turn in 0..scale.latencies {
        let payload = load.by_ref().take(1).collect();
        let started = Instant::now();
        runtime.block_on(log.append(ours::append(&ours::stream(), payload)))?;
        ours.push(started.elapsed().as_secs_f64() * 1e6);
        let started = Instant::now();
        file.write_all_at(&page, turn as u64 * 4096)?;
        file.sync_data()?;
        theirs.push(started.elapsed().as_secs_f64() * 1e6);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    print(&json!({
        "figure": "ack p50, one record at a time", "unit": "us", "ours": ours,
        "peer": "write and fdatasync of 4 KiB", "theirs": theirs, "ratio": ours / theirs,
        "aim": 1.3, "aim_met": ours / theirs <= 1.3, "runs": scale.latencies,
    }));
    drop(log);
    Ok(fs::remove_dir_all(our_folder)?)
}

const BLOCK_RECORDS: usize = 1_310;

/// From head to tail, against reading the same files and unpacking as much lz4.
pub(crate) fn reading(folder: &Path, scale: Scale) -> Result<()> {
    let our_folder = folder.join("ours");
    let runtime = ours::runtime()?;
    let log = ours::open(&our_folder)?;
    let bytes = scale.bytes / 4 / BYTES as u64 * BYTES as u64;
    runtime.block_on(ours::write(
        &log,
        Telemetry::new().of_bytes(bytes),
        PER_APPEND,
    ))?;
    let head = *log.head(&ours::stream())?.borrow();
    // What a frame is made of: blocks of a quarter of a MiB, of the same records.
    let mut load = Telemetry::new();
    let mut load = load.of_bytes(bytes).peekable();
    let mut blocks = Vec::new();
    while load.peek().is_some() {
        let block: Vec<u8> = load.by_ref().take(BLOCK_RECORDS).flatten().collect();
        blocks.push(lz4_flex::block::compress(&block));
    }
    let mut unpacked = vec![0; BLOCK_RECORDS * BYTES];
    let mut turns = Vec::new();
    for _ in 0..scale.turns {
        let started = Instant::now();
        let mut reader = log.reader(&ours::stream(), Offset::ZERO)?;
        let mut seen = 0;
        loop {
            let views = reader.next_views()?;
            if views.is_empty() {
                break;
            }
            seen += views
                .records
                .map(|(_, view)| view.payload.len() as u64)
                .sum::<u64>();
        }
        ensure!(seen == bytes, "read {seen} of {bytes} bytes");
        let ours = started.elapsed();
        let started = Instant::now();
        let mut reader = log.reader(&ours::stream(), Offset::ZERO)?;
        let mut records = 0;
        loop {
            let batch = reader.next(256 * 1024)?;
            if batch.is_empty() {
                break;
            }
            records += batch.records.len() as u64;
        }
        ensure!(records == head.0, "read {records} of {head}");
        let owned = started.elapsed();
        let started = Instant::now();
        let read = read_raw(&our_folder.join("streams").join(ours::STREAM))?;
        ensure!(read > 0, "no files");
        let mut seen = 0;
        for block in &blocks {
            seen += lz4_flex::block::decompress_into(block, &mut unpacked)? as u64;
        }
        ensure!(seen == bytes, "unpacked {seen} of {bytes} bytes");
        let theirs = started.elapsed();
        turns.push([ours, owned, theirs].map(|spent| spent.as_secs_f64()));
    }
    let rate = |seconds: f64| bytes as f64 / seconds;
    for (which, what) in ["records borrowed", "records owned"].iter().enumerate() {
        let ratio = median(turns.iter().map(|turn| turn[2] / turn[which]));
        // Whoever needs records that last pays for their memory besides.
        let aim = (which == 0).then_some(0.7);
        print(&json!({
            "figure": format!("sequential read, {what}"), "unit": "bytes/s",
            "ours": rate(median(turns.iter().map(|turn| turn[which]))),
            "peer": "read of the files and lz4",
            "theirs": rate(median(turns.iter().map(|turn| turn[2]))),
            "ratio": ratio, "aim": aim, "aim_met": aim.map(|aim| ratio >= aim),
            "runs": turns.len(),
        }));
    }
    drop(log);
    Ok(fs::remove_dir_all(our_folder)?)
}

fn read_raw(folder: &Path) -> Result<u64> {
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let mut file = File::open(entry?.path())?;
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            total += count as u64;
        }
    }
    Ok(total)
}

/// Rate in records per second (none: as fast as it goes), milliseconds between commits, the aim.
const WEAR: [(Option<u64>, u64, f64); 5] = [
    (None, 0, 0.5),
    (Some(20_000), 5, 0.7),
    (Some(1_000), 5, 2.6),
    (Some(1_000), 100, 0.6),
    (Some(1_000), 1_000, 0.6),
];

/// Bytes that reach the device for a byte of payload. Counts what anybody writes to the device
/// meanwhile: a quiet machine is needed.
pub(crate) fn device_bytes(folder: &Path, scale: Scale) -> Result<()> {
    let Some(counter) = Counter::of(folder)? else {
        eprintln!(
            "no block device under {}: no device bytes",
            folder.display()
        );
        return Ok(());
    };
    let our_folder = folder.join("ours");
    for (rate, interval_ms, aim) in WEAR {
        let runtime = ours::runtime()?;
        let mut options = ours::options(&our_folder, Duration::from_millis(5));
        options.commit_interval_min = Duration::from_millis(interval_ms);
        let (log, _) = skerry_store::Log::open(options)?;
        let idle = counter.settled()?;
        let logical = match rate {
            None => {
                let bytes = scale.bytes / 4;
                runtime.block_on(ours::write(
                    &log,
                    Telemetry::new().of_bytes(bytes),
                    PER_APPEND,
                ))?;
                bytes
            }
            Some(rate) => runtime.block_on(paced(&log, rate, scale))?,
        };
        drop(log);
        let written = counter.settled()? - idle;
        let pace = rate.map_or("full rate".to_owned(), |rate| format!("{rate} records/s"));
        let ratio = written as f64 / logical as f64;
        print(&json!({
            "figure": format!("device bytes per byte, {pace}, commit_interval_min {interval_ms} ms"),
            "unit": "ratio",
            "ours": ratio, "ratio": ratio, "aim": aim, "aim_met": ratio <= aim,
        }));
        fs::remove_dir_all(&our_folder)?;
    }
    Ok(())
}

/// Writes at an even pace, one record to an append.
async fn paced(log: &skerry_store::Log, rate: u64, scale: Scale) -> Result<u64> {
    let seconds = if scale.bytes > (1 << 30) { 60 } else { 10 };
    let mut load = Telemetry::new();
    let mut pending = Vec::new();
    let started = Instant::now();
    let total = rate * seconds;
    for number in 0..total {
        let due = Duration::from_secs_f64(number as f64 / rate as f64);
        let early = due.saturating_sub(started.elapsed());
        if early > Duration::from_millis(1) {
            tokio::time::sleep(early).await;
        }
        let payload = load.by_ref().take(1).collect();
        pending.push(log.submit(ours::append(&ours::stream(), payload)).await?);
    }
    for last in pending {
        last.committed().await?;
    }
    Ok(total * BYTES as u64)
}

/// Sectors written to the device that holds a folder.
struct Counter {
    stat: PathBuf,
}

impl Counter {
    fn of(folder: &Path) -> Result<Option<Self>> {
        let device = fs::metadata(folder)?.dev();
        let (major, minor) = (
            (device >> 8) & 0xFFF,
            (device & 0xFF) | ((device >> 12) & !0xFF),
        );
        let stat = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"));
        Ok(stat.exists().then_some(Self { stat }))
    }

    /// Once everything that is dirty is written.
    fn settled(&self) -> Result<u64> {
        let synced = std::process::Command::new("sync").status()?;
        ensure!(synced.success(), "sync failed");
        let stat = fs::read_to_string(&self.stat)?;
        let sectors = stat.split_whitespace().nth(6).context("a short stat")?;
        Ok(sectors.parse::<u64>()? * 512)
    }
}
