//! What the log costs, against the bare file system and against other engines.
//!
//! Ours and a peer take turns in one run, so that a noisy machine cancels out of the ratio. Each
//! figure is a line of JSON. Everything is written below the folder that is given, on the disk
//! that is there; a folder in memory measures nothing and is refused.

mod figures;
mod kept;
mod ours;
mod peers;
mod telemetry;

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How much is written: enough to leave the caches in a full run.
#[derive(Clone, Copy)]
struct Scale {
    /// Logical bytes of one figure, and in how many turns.
    bytes: u64,
    turns: u32,
    /// The backlog behind memory and restart.
    backlog_bytes: u64,
    latencies: usize,
}

const FULL: Scale = Scale {
    bytes: 2 << 30,
    turns: 8,
    backlog_bytes: 10 << 30,
    latencies: 2_000,
};
const QUICK: Scale = Scale {
    bytes: 192 << 20,
    turns: 3,
    backlog_bytes: 1 << 30,
    latencies: 300,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        [folder] => run(folder.into(), FULL, &FIGURES),
        [folder, "--quick"] => run(folder.into(), QUICK, &FIGURES),
        ["child", role, folder, bytes] => kept::child(role, Path::new(folder), bytes),
        [folder, ref rest @ .., name] if matches!(rest, [] | ["--quick"]) => {
            let scale = if rest.is_empty() { FULL } else { QUICK };
            match FIGURES.iter().find(|figure| figure.0 == name) {
                Some(figure) => run(folder.into(), scale, std::slice::from_ref(figure)),
                None => return usage(),
            }
        }
        _ => return usage(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("store-peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    let names = FIGURES.map(|figure| figure.0).join("|");
    eprintln!("usage: store-peers FOLDER [--quick] [{names}]");
    ExitCode::from(2)
}

type Figure = (&'static str, fn(&Path, Scale) -> Result<()>);

const FIGURES: [Figure; 6] = [
    ("appends", figures::appends),
    ("latency", figures::latency),
    ("reading", figures::reading),
    ("device", figures::device_bytes),
    ("space", kept::space),
    ("backlog", kept::backlog),
];

fn run(folder: PathBuf, scale: Scale, wanted: &[Figure]) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    if let Err(skerry_store::Error::Volatile { path }) = ours::open(&folder.join("probe")) {
        bail!("{} is in memory: nothing to measure", path.display());
    }
    for (_, measure) in wanted {
        measure(&folder, scale)?;
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
