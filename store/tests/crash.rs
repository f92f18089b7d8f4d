//! kill -9 in the middle of appending: whatever was acknowledged is there, and whole.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod common;

use common::rng::Rng;
use common::*;
use skerry_store::{Append, Log, Offset};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const DIRECTORY: &str = "SKERRY_CRASH_TEST_DIRECTORY";
/// Lives of one log, and how many logs: all of a log is read after each of its lives.
const LIVES: usize = 10;
const LOGS: usize = 11;
const WRITERS_PER_STREAM: u64 = 3;
const STREAMS: [&str; 2] = ["one", "two"];

/// The child: appends for ever, several at a time, and says which offsets were acknowledged.
#[test]
#[ignore = "started by the test below, in a process of its own, to be killed"]
fn child() {
    let directory = std::env::var(DIRECTORY).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (log, _) = Log::open(options(Path::new(&directory))).unwrap();
    runtime.block_on(async {
        for stream in STREAMS {
            for writer in 0..WRITERS_PER_STREAM {
                let writer = u64::from(std::process::id()) * WRITERS_PER_STREAM + writer;
                tokio::spawn(append_for_ever(log.clone(), stream, writer));
            }
        }
        std::future::pending::<()>().await;
    });
}

/// Each append has two records, who wrote it and as which, and puts the latter under a key.
async fn append_for_ever(log: Log, stream: &'static str, writer: u64) {
    for round in 0.. {
        let append = Append {
            changes: vec![put(&key(stream, writer, round), round.to_string())],
            ..append(stream, [writer, round])
        };
        let committed = log.append(append).await.unwrap();
        let line = format!("ack {stream} {} {writer} {round}\n", committed.first);
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }
}

fn key(stream: &str, writer: u64, round: u64) -> String {
    format!("{stream}/{writer}/{round}")
}

#[derive(Debug)]
struct Ack {
    stream: String,
    first: u64,
    writer: u64,
    round: u64,
}

impl Ack {
    /// A line may be cut short by the kill, but then it is the last, and has no end.
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<_> = line.strip_suffix('\n')?.split(' ').collect();
        let ["ack", stream, numbers @ ..] = &words[..] else {
            return None;
        };
        let numbers: Option<Vec<u64>> = numbers.iter().map(|word| word.parse().ok()).collect();
        let [first, writer, round] = numbers?[..] else {
            return None;
        };
        Some(Self {
            stream: (*stream).to_owned(),
            first,
            writer,
            round,
        })
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let mut rng = Rng::new(std::process::id().into());
    let mut acknowledged_total = 0;
    for _ in 0..LOGS {
        let directory = tempfile::tempdir().unwrap();
        let mut acknowledged = Vec::new();
        for _ in 0..LIVES {
            acknowledged.extend(acks_of_one_life(directory.path(), &mut rng));
            let (log, recovery) = Log::open(options(directory.path())).unwrap();
            assert!(!recovery.clean_stop);
            assert_eq!(recovery.quarantined_frames + recovery.records_missing, 0);
            for stream in STREAMS {
                check(&log, stream, &acknowledged);
            }
            drop(log);
            // The next life begins as after a crash, not as after this look at it.
            std::fs::remove_file(directory.path().join("clean-stop.json")).unwrap();
        }
        acknowledged_total += acknowledged.len();
    }
    let kills = LIVES * LOGS;
    println!("{kills} kills, {acknowledged_total} acknowledged appends");
    assert!(acknowledged_total > kills, "the children hardly wrote");
}

/// Runs a child, kills it at some moment, and returns all it said.
fn acks_of_one_life(directory: &Path, rng: &mut Rng) -> Vec<Ack> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let (first, wrote) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        let mut acks = Vec::new();
        let mut line = String::new();
        while lines.read_line(&mut line).unwrap() > 0 {
            acks.extend(Ack::parse(&line));
            if acks.len() == 1 {
                let _ = first.send(());
            }
            line.clear();
        }
        acks
    });
    // One in four may die before it wrote anything, while it recovers from the death before.
    if !rng.one_in(4) {
        wrote.recv().unwrap();
    }
    std::thread::sleep(Duration::from_micros(rng.next() % 30_000));
    kill(&mut child);
    reading.join().unwrap()
}

fn kill(child: &mut Child) {
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(
        status.signal(),
        Some(9),
        "the child ended by itself: {status}"
    );
}

fn check(log: &Log, stream: &str, acknowledged: &[Ack]) {
    let (records, missing) = read_all(log, stream);
    assert!(missing.is_empty());
    let offsets = records.iter().map(|(offset, _)| *offset);
    assert!(
        offsets.eq(0..records.len() as u64),
        "offsets are contiguous"
    );
    // An append is there as a whole or not at all, and those of one writer are in its order.
    let mut rounds: BTreeMap<u64, u64> = BTreeMap::new();
    assert_eq!(records.len() % 2, 0);
    let numbers = records.iter().map(|(_, payload)| payload.parse().unwrap());
    let numbers: Vec<u64> = numbers.collect();
    for pair in numbers.chunks(2) {
        let (writer, round) = (pair[0], pair[1]);
        let next = rounds.entry(writer).or_default();
        assert_eq!(round, *next, "writer {writer} in {stream}");
        *next += 1;
        let value = log.get("test", key(stream, writer, round).as_bytes());
        assert_eq!(value.unwrap().unwrap(), round.to_string());
    }
    for ack in acknowledged.iter().filter(|ack| ack.stream == stream) {
        let first = ack.first as usize;
        let found = numbers.get(first..first + 2);
        assert_eq!(found, Some(&[ack.writer, ack.round][..]), "{ack:?}");
    }
    let keys = log.scan("test", format!("{stream}/").as_bytes()).unwrap();
    assert_eq!(
        keys.len(),
        records.len() / 2,
        "no change without its records"
    );
    assert_eq!(
        *log.head(&name(stream)).unwrap().borrow(),
        Offset(records.len() as u64)
    );
}
