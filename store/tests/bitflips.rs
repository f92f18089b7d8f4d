//! One bit flips somewhere in a data directory: the log starts, and says what it lost by it, no
//! less and no more.
//!
//! `SKERRY_BIT_FLIPS` is how many of each kind of file and of stop; `SKERRY_BIT_FLIP_SEED` is the
//! seed to start with, to see a failure again.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod common;

use common::rng::Rng;
use common::*;
use skerry_store::{Append, Gap, Log, Recovery};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const STREAMS: [&str; 2] = ["one", "two"];
const FLIPS_DEFAULT: usize = 25;

/// How the log came to its end before the bit flips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Orderly,
    /// The marker of an orderly stop is lost.
    Unmarked,
    /// Killed: sled has written little of what it knows.
    Killed,
}

/// What is in a directory: of each append its stream, its offsets and its key.
struct Written {
    directory: tempfile::TempDir,
    stop: Stop,
    appends: Vec<(usize, std::ops::Range<u64>)>,
    heads: [u64; 2],
}

fn key(number: usize) -> String {
    format!("append/{number}")
}

impl Written {
    fn new(stop: Stop) -> Self {
        let directory = scratch();
        let live = directory.path().join("live");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let mut written = Self {
            directory,
            stop,
            appends: Vec::new(),
            heads: [0; 2],
        };
        runtime.block_on(async {
            let (log, _) = Log::open(options(&live)).unwrap();
            written.fill(&log, 60).await;
            log.close().await.unwrap();
            let (log, _) = Log::open(options(&live)).unwrap();
            written.fill(&log, 40).await;
            if stop != Stop::Killed {
                log.close().await.unwrap();
            }
            copy(&live, &written.base());
        });
        if stop == Stop::Unmarked {
            std::fs::remove_file(written.base().join("clean-stop.json")).unwrap();
        }
        written
    }

    fn base(&self) -> PathBuf {
        self.directory.path().join("base")
    }

    async fn fill(&mut self, log: &Log, appends: usize) {
        let mut rng = Rng::new(appends as u64);
        for _ in 0..appends {
            let number = self.appends.len();
            let stream = rng.below(2);
            let first = self.heads[stream];
            let next = first + rng.below(4) as u64;
            let mut changes = vec![put(&key(number), vec![b'v'; rng.below(200)])];
            if rng.one_in(10) {
                let cursor = rng.below(self.heads[0] as usize + 1) as u64;
                changes.push(advance("reader", "one", cursor));
            }
            let append = Append {
                changes,
                ..append(STREAMS[stream], first..next)
            };
            log.append(append).await.unwrap();
            self.heads[stream] = next;
            self.appends.push((stream, first..next));
        }
    }

    fn check(&self, log: &Log, recovery: &Recovery, heads: [u64; 2]) -> Result<(), String> {
        let mut lost_total = 0;
        let mut lost = [BTreeSet::new(), BTreeSet::new()];
        for (stream, lost) in lost.iter_mut().enumerate() {
            *lost = self.check_stream(log, stream, heads[stream])?;
            lost_total += lost.len() as u64;
        }
        if recovery.records_missing > lost_total {
            return Err(format!(
                "{lost_total} are missing, not {}",
                recovery.records_missing
            ));
        }
        let told = recovery.quarantined_frames + recovery.torn_bytes > 0;
        for (number, (stream, offsets)) in self.appends.iter().enumerate() {
            let lost = offsets
                .clone()
                .any(|at| lost[*stream].contains(&at) || at >= heads[*stream]);
            let found = log.get("test", key(number).as_bytes());
            match found.map_err(|error| error.to_string())? {
                // Killed, sled may lack what the journal's damaged frame alone had.
                None if self.stop == Stop::Killed && offsets.is_empty() && told => {}
                None if !lost => return Err(format!("the change of append {number} is lost")),
                _ => {}
            }
        }
        Ok(())
    }

    /// The offsets below `head` that do not read; all of them, and no others, are told.
    fn check_stream(&self, log: &Log, stream: usize, head: u64) -> Result<BTreeSet<u64>, String> {
        let (records, _) = read_all(log, STREAMS[stream]);
        let mut lost: BTreeSet<u64> = (0..head.min(self.heads[stream])).collect();
        let mut told: BTreeMap<u64, u32> = BTreeMap::new();
        for (offset, payload) in records {
            if let Ok(gap) = serde_json::from_str::<Gap>(&payload) {
                let (first, next) = gap.offsets.unwrap();
                (first.0..next.0).for_each(|at| *told.entry(at).or_default() += 1);
            } else if offset >= head {
                // Written after the damage.
            } else if payload != offset.to_string() {
                return Err(format!("{} has {payload} at {offset}", STREAMS[stream]));
            } else {
                lost.remove(&offset);
            }
        }
        if told.keys().ne(lost.iter()) || told.values().any(|times| *times != 1) {
            return Err(format!(
                "{}: {lost:?} are lost, {told:?} are told",
                STREAMS[stream]
            ));
        }
        Ok(lost)
    }
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
    found.sort();
}

/// Every kind of file a data directory has, by where it is.
const KINDS: [&str; 6] = [
    "streams/one",
    "streams/_catalog",
    "catalog",
    "epoch",
    "clean-stop.json",
    "lock",
];

/// Flips a bit of some file of a kind; false if there is no such file.
fn flip(directory: &Path, kind: &str, rng: &mut Rng) -> bool {
    let place = directory.join(kind);
    let mut found = Vec::new();
    if place.is_dir() {
        files(&place, &mut found);
    } else if place.exists() {
        found.push(place);
    }
    // sled's file is large and nearly empty.
    found.retain(|file| kind == "lock" || std::fs::metadata(file).unwrap().len() > 0);
    if found.is_empty() {
        return false;
    }
    let file = &found[rng.below(found.len())];
    let mut bytes = std::fs::read(file).unwrap();
    if bytes.is_empty() {
        bytes.push(0);
    }
    let used = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(1, |last| last + 1);
    bytes[rng.below(used)] ^= 1 << rng.below(8);
    std::fs::write(file, bytes).unwrap();
    true
}

#[test]
fn the_loss_that_is_told_is_the_loss_there_is() {
    let number = |variable| std::env::var(variable).ok()?.parse().ok();
    let flips = number("SKERRY_BIT_FLIPS").unwrap_or(FLIPS_DEFAULT);
    let first: usize = number("SKERRY_BIT_FLIP_SEED").unwrap_or(1);
    let mut failed = Vec::new();
    for stop in [Stop::Orderly, Stop::Unmarked, Stop::Killed] {
        let written = Written::new(stop);
        for kind in KINDS {
            for seed in first..first + flips {
                if let Err(why) = flip_and_open(&written, kind, seed) {
                    failed.push(format!(
                        "SKERRY_BIT_FLIP_SEED={seed} SKERRY_BIT_FLIPS=1, {kind}, {stop:?}: {why}"
                    ));
                }
            }
        }
    }
    assert!(
        failed.is_empty(),
        "{} failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

fn flip_and_open(written: &Written, kind: &str, seed: usize) -> Result<(), String> {
    let mut rng = Rng::new(seed as u64);
    let directory = scratch();
    copy(&written.base(), directory.path());
    if !flip(directory.path(), kind, &mut rng) {
        return Ok(());
    }
    let opened = Log::open(options(directory.path()));
    let (log, recovery) = opened.map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut heads = written.heads;
    if written.stop == Stop::Killed {
        // A damaged end that nothing remembers looks like a write that was never acknowledged.
        let gaps = recovery.quarantined_frames;
        heads = STREAMS.map(|stream| log.head(&name(stream)).unwrap().borrow().0);
        heads = [0, 1].map(|stream: usize| heads[stream].min(written.heads[stream]));
        if heads != written.heads && (gaps > 0 || recovery.torn_bytes == 0) {
            return Err(format!("the heads are {heads:?}, not {:?}", written.heads));
        }
    }
    // Damage in older segments is noted once it is read, with the next commit.
    for stream in STREAMS {
        read_all(&log, stream);
    }
    let append = log.append(change(put("probe", "")));
    runtime
        .block_on(append)
        .map_err(|error| error.to_string())?;
    written.check(&log, &recovery, heads)?;
    // And it is told once, whatever comes.
    drop(log);
    let (log, _) = Log::open(options(directory.path())).map_err(|error| error.to_string())?;
    written.check(&log, &recovery, heads)
}

#[tokio::test]
async fn a_damaged_epoch_file_is_made_anew_and_costs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(directory.path())).unwrap();
    log.append(append("one", 0..5)).await.unwrap();
    let epoch = log.epoch();
    log.close().await.unwrap();
    let file = directory.path().join("epoch");
    let intact = std::fs::read_to_string(&file).unwrap();
    for damaged in [
        format!("{:016x}\n", epoch ^ 1),
        "x".to_owned(),
        String::new(),
    ] {
        std::fs::write(&file, damaged).unwrap();
        let (log, recovery) = Log::open(options(directory.path())).unwrap();
        assert_eq!(log.epoch(), epoch);
        assert_eq!(recovery.torn_bytes + recovery.records_missing, 0);
        assert_eq!(read_all(&log, "one").0.len(), 5);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), intact);
    }
}

#[tokio::test]
async fn a_damaged_marker_of_an_orderly_stop_invents_no_loss() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(directory.path())).unwrap();
    log.append(append("one", 0..5)).await.unwrap();
    log.close().await.unwrap();
    let file = directory.path().join("clean-stop.json");
    let marker = std::fs::read_to_string(&file).unwrap();
    assert!(marker.contains("\"one\":5"), "{marker}");
    std::fs::write(&file, marker.replace("\"one\":5", "\"one\":7")).unwrap();
    let (log, recovery) = Log::open(options(directory.path())).unwrap();
    assert_eq!((recovery.clean_stop, recovery.records_missing), (false, 0));
    assert_eq!(read_all(&log, "one").0.len(), 5);
}
