//! kill -9 in the middle of appending: whatever was acknowledged is there, and whole.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod common;

use common::*;
use skerry_store::{Append, Log, Offset};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

const DIRECTORY: &str = "SKERRY_CRASH_TEST_DIRECTORY";
const ROUNDS: usize = 12;

/// The child: appends for ever, several at a time, and says which offsets were acknowledged.
#[test]
#[ignore = "started by the test below, in a process of its own, to be killed"]
fn child() {
    let directory = std::env::var(DIRECTORY).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (log, _) = Log::open(options(Path::new(&directory))).unwrap();
    runtime.block_on(async {
        for stream in ["one", "two"] {
            for _ in 0..3 {
                let log = log.clone();
                tokio::spawn(append_for_ever(log, stream));
            }
        }
        std::future::pending::<()>().await;
    });
}

/// Each append puts under its first record's payload what that payload is.
async fn append_for_ever(log: Log, stream: &'static str) {
    for round in 0.. {
        let number = std::process::id().into();
        let append = Append {
            changes: vec![put(&format!("{stream}-{round}"), round.to_string())],
            ..append(stream, [number, round])
        };
        let committed = log.append(append).await.unwrap();
        let line = format!("ack {stream} {} {}\n", committed.first, round);
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<(String, u64, u64)> = Vec::new();
    for round in 0..ROUNDS {
        let enough = 20 + round * 37;
        acknowledged.extend(acks_of_one_life(directory.path(), enough));
        let (log, recovery) = Log::open(options(directory.path())).unwrap();
        assert!(!recovery.clean_stop);
        assert_eq!(recovery.quarantined_frames + recovery.records_missing, 0);
        for stream in ["one", "two"] {
            check(&log, stream, &acknowledged);
        }
    }
}

/// Runs a child until it has acknowledged that much, kills it, and returns all it said.
fn acks_of_one_life(directory: &Path, enough: usize) -> Vec<(String, u64, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut acks = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        // A line may be cut short by the kill, but then it is the last.
        if let ["ack", stream, first, round] = words[..]
            && let (Ok(first), Ok(round)) = (first.parse(), round.parse())
        {
            acks.push((stream.to_owned(), first, round));
        }
        if acks.len() == enough {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(acks.len() >= enough, "the child ended by itself");
    acks
}

fn check(log: &Log, stream: &str, acknowledged: &[(String, u64, u64)]) {
    let (records, missing) = read_all(log, stream);
    assert!(missing.is_empty());
    let offsets = records.iter().map(|(offset, _)| *offset);
    assert!(
        offsets.eq(0..records.len() as u64),
        "offsets are contiguous"
    );
    // An append is there as a whole or not at all.
    assert_eq!(records.len() % 2, 0);
    let newest = acknowledged.iter().filter(|(name, ..)| name == stream);
    for (_, first, round) in newest {
        let found = records.get(*first as usize + 1);
        assert_eq!(
            found.map(|(_, payload)| payload.clone()),
            Some(round.to_string())
        );
    }
    // Records and changes came together: each pair's second record names a key that is there.
    for pair in records.chunks(2) {
        let key = format!("{stream}-{}", pair[1].1);
        let value = log.get("test", key.as_bytes()).unwrap();
        assert_eq!(value.as_deref(), Some(pair[1].1.as_bytes()));
    }
    let keys = log.scan("test", format!("{stream}-").as_bytes()).unwrap();
    let rounds: std::collections::BTreeSet<_> = records.chunks(2).map(|pair| &pair[1].1).collect();
    assert_eq!(keys.len(), rounds.len(), "no change without its records");
    assert_eq!(
        *log.head(&name(stream)).unwrap().borrow(),
        Offset(records.len() as u64)
    );
}
