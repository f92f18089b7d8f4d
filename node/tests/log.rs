//! `skerry log …` as an operator runs it: on a stopped node and beside a live one.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod common;

use common::{config, free_port, node_on};
use serde_json::Value;
use skerry_store::{Append, Kind, Log, Offset, Options, Record, StreamName, StreamOptions};
use skerry_store::{WallNanos, inspect};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The first hour of 2026, in UTC.
const NEW_YEAR: i64 = 1_767_225_600_000_000_000;
const MINUTE: i64 = 60_000_000_000;

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|why| panic!("{why}: {}", self.out))
    }

    fn lines(&self) -> Vec<Value> {
        let lines = self.out.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// Runs `skerry log ARGUMENTS --data-dir DIRECTORY`.
fn log(arguments: &str, directory: &Path) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skerry"));
    command.arg("log").args(arguments.split_whitespace());
    command
        .arg("--data-dir")
        .arg(directory)
        .env("SKERRY_LOG", "off");
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

fn options(directory: &Path) -> Options {
    let name = StreamName::new("telemetry").unwrap();
    let mut options = Options::new(directory);
    options.streams = vec![StreamOptions::new(name, 1 << 30)];
    options.segment_bytes = 2_000;
    options.allow_volatile = true;
    options
}

fn append(records: Vec<Record>) -> Append {
    Append {
        stream: StreamName::new("telemetry").unwrap(),
        records,
        changes: Vec::new(),
    }
}

fn record(number: u64) -> Record {
    let payload = format!("{{\"value\":{number}}}");
    let mut record = Record::new(Kind::Mqtt, format!("plant/{}", number % 3), payload);
    let minutes = i64::try_from(number).unwrap();
    record.source_time = Some(WallNanos(NEW_YEAR + minutes * MINUTE));
    record
}

async fn write(directory: &Path, appends: impl IntoIterator<Item = Append>) {
    let (log, _) = Log::open(options(directory)).unwrap();
    for append in appends {
        log.append(append).await.unwrap();
    }
    log.close().await.unwrap();
}

/// A data directory with 100 records, a minute apart, a frame each, in some segments.
async fn filled() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    write(
        directory.path(),
        (0..100).map(|number| append(vec![record(number)])),
    )
    .await;
    assert!(segments(directory.path()).len() > 3);
    directory
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory.join("streams/telemetry")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Damages the first frame of a segment; returns the offset of its record.
fn damage(segment: &Path) -> u64 {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(segment)
        .unwrap();
    let (mut base, mut byte) = ([0; 8], [0]);
    file.read_exact_at(&mut base, 256 + 16).unwrap();
    file.read_exact_at(&mut byte, 330).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 330).unwrap();
    u64::from_le_bytes(base)
}

/// Every file and what is in it.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}

#[tokio::test]
async fn csv_keeps_what_is_in_a_payload() {
    let directory = tempfile::tempdir().unwrap();
    let mut awkward = Record::new(Kind::Opcua, "hall, \"east\"", "a,\"b\"\r\nc;ü");
    awkward.source_time = Some(WallNanos(-1));
    awkward.server_time = Some(WallNanos(NEW_YEAR));
    awkward.status = 0x8000_0000;
    let binary = Record::new(Kind::Mqtt, "raw", vec![0xFF, 0, 0xFE]);
    write(directory.path(), [append(vec![awkward, binary])]).await;

    let ran = log("export telemetry --format csv", directory.path());
    assert_eq!(ran.code, 0, "{}", ran.err);
    let mut rows = csv::Reader::from_reader(ran.out.as_bytes());
    let header = "offset,kind,source,event_time,source_time,server_time,ingest_time,status,\
                  payload,payload_encoding";
    let columns: Vec<_> = rows.headers().unwrap().iter().map(str::to_owned).collect();
    assert_eq!(columns.join(","), header);
    let rows: Vec<Vec<String>> = rows.deserialize().map(Result::unwrap).collect();
    let before_1970 = "1969-12-31T23:59:59.999999999Z";
    let first = ["0", "opcua", "hall, \"east\"", before_1970, before_1970];
    assert_eq!(rows[0][..5], first);
    assert_eq!(rows[0][5], "2026-01-01T00:00:00.000000000Z");
    assert_eq!(rows[0][7..], ["2147483648", "a,\"b\"\r\nc;ü", "text"]);
    assert_eq!(rows[1][..3], ["1", "mqtt", "raw"]);
    assert_eq!(rows[1][4..6], ["", ""]);
    assert_eq!(rows[1][7..], ["0", "/wD+", "base64"]);
    assert_eq!(rows.len(), 2);
    let account = "offsets 0 to 1 (2) = 2 exported + 0 outside the times asked for + 0 no longer \
                   held + 0 damaged";
    assert!(ran.err.contains(account), "{}", ran.err);
}

#[tokio::test]
async fn lines_are_those_of_cat_and_an_empty_export_is_whole() {
    let directory = filled().await;
    let export = log("export telemetry --from 10 -n 5", directory.path());
    let cat = log("cat telemetry --from 10 -n 5 --json", directory.path());
    assert_eq!((export.code, cat.code), (0, 0));
    assert_eq!(export.out, cat.out);
    let offsets: Vec<_> = export
        .lines()
        .iter()
        .map(|line| line["offset"].as_u64())
        .collect();
    assert_eq!(offsets, [10, 11, 12, 13, 14].map(Some));
    let none = log(
        "export telemetry --from 1000 --format csv",
        directory.path(),
    );
    assert_eq!(
        (none.code, none.out.lines().count()),
        (0, 1),
        "{}",
        none.err
    );
}

#[tokio::test]
async fn times_limit_what_is_exported_and_printed() {
    let directory = filled().await;
    let range = "--since 2026-01-01T00:10:00Z --until 2026-01-01T01:20:00+01:00";
    for command in ["cat telemetry --json", "export telemetry"] {
        let ran = log(&format!("{command} {range}"), directory.path());
        assert_eq!(ran.code, 0, "{}", ran.err);
        let offsets: Vec<_> = ran
            .lines()
            .iter()
            .map(|line| line["offset"].as_u64())
            .collect();
        assert_eq!(offsets, Vec::from_iter((10..20).map(Some)), "{command}");
    }
    let ran = log(
        &format!("export telemetry --json {range}"),
        directory.path(),
    );
    let account: Value = serde_json::from_str(&ran.err).unwrap();
    let expected = r#"{"stream": "telemetry", "account":
        {"first": 10, "next": 100, "records": 10, "outside": 80, "retired": 0, "lost": 0}}"#;
    assert_eq!(account, serde_json::from_str::<Value>(expected).unwrap());
    // All of it lies in the past.
    let ran = log("cat telemetry --since 1s", directory.path());
    assert_eq!((ran.code, ran.out.as_str()), (0, ""));
    let ran = log("cat telemetry --since yesterday", directory.path());
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("2026-03-01T14:00:00Z"), "{}", ran.err);
}

#[tokio::test]
async fn a_file_is_whole_and_never_replaced_unasked() {
    let directory = filled().await;
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("out.jsonl");
    let export = format!("export telemetry --output {}", target.display());
    let ran = log(&export, directory.path());
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{}", ran.err);
    let text = std::fs::read_to_string(&target).unwrap();
    assert_eq!(text.lines().count(), 100);

    std::fs::write(&target, "precious").unwrap();
    let ran = log(&export, directory.path());
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("--force"), "{}", ran.err);
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
    let ran = log(&format!("{export} --force"), directory.path());
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(std::fs::read_to_string(&target).unwrap(), text);

    let elsewhere = outside.path().join("none").join("out");
    let ran = log(
        &format!("export telemetry -o {}", elsewhere.display()),
        directory.path(),
    );
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains(elsewhere.to_str().unwrap()), "{}", ran.err);
    // No draft is left behind, not even of a stream there is none of.
    let other = outside.path().join("other");
    let ran = log(
        &format!("export absent -o {}", other.display()),
        directory.path(),
    );
    assert_eq!(ran.code, 1);
    let left: Vec<_> = contents(outside.path()).into_keys().collect();
    assert_eq!(left, [target]);
}

#[tokio::test]
async fn an_export_names_the_damage_it_met_and_fails() {
    let directory = filled().await;
    let segment = &segments(directory.path())[1];
    let lost = damage(segment);
    let ran = log("export telemetry", directory.path());
    assert_eq!(ran.code, 1);
    assert_eq!(ran.lines().len(), 99);
    for part in [
        segment.to_str().unwrap(),
        "at byte 256",
        &format!("offset {lost} does not read"),
        "(100) = 99 exported + 0 outside the times asked for + 0 no longer held + 1 damaged",
    ] {
        assert!(ran.err.contains(part), "{part} is not in {}", ran.err);
    }
    // None of it was in what is asked for here.
    let from = lost + 1;
    assert_eq!(
        log(&format!("export telemetry --from {from}"), directory.path()).code,
        0
    );
}

#[tokio::test]
async fn stats_tell_what_a_stream_is_made_of() {
    let directory = filled().await;
    let ran = log("stats telemetry --json", directory.path());
    assert_eq!(ran.code, 0, "{}", ran.err);
    let stats = ran.json();
    assert_eq!(stats["name"], "telemetry");
    assert_eq!((&stats["tail"], &stats["head"]), (&0.into(), &100.into()));
    assert_eq!(stats["records"], 100);
    assert_eq!(stats["records_per_frame"], 1.0);
    assert_eq!(stats["kinds"]["mqtt"], 100);
    assert_eq!(stats["first_time"], NEW_YEAR);
    assert_eq!(stats["last_time"], NEW_YEAR + 99 * MINUTE);
    assert_eq!(stats["top_sources"][0]["source"], "plant/0");
    assert_eq!(stats["top_sources"][0]["records"], 34);
    assert_eq!(stats["gaps"], Value::Array(vec![]));
    assert!(stats["compression_ratio"].as_f64().unwrap() > 0.5);

    damage(&segments(directory.path())[1]);
    assert_eq!(log("repair", directory.path()).code, 0);
    let stats = log("stats telemetry --json", directory.path()).json();
    assert_eq!(stats["records"], 100);
    assert_eq!(stats["kinds"]["gap"], 1);
    assert_eq!(stats["gaps"][0]["values"], 1);
    assert_eq!(stats["faults"][0]["told"], true);
    let ran = log("stats", directory.path());
    for part in [
        "telemetry",
        "_catalog",
        "99 mqtt",
        "plant/0",
        "1 values missing",
        "at byte 256",
    ] {
        assert!(ran.out.contains(part), "{part} is not in {}", ran.out);
    }
}

#[tokio::test]
async fn a_stopped_log_is_repaired_once() {
    let directory = filled().await;
    let files = segments(directory.path());
    let lost = [damage(&files[1]), damage(&files[2])];
    let before = contents(directory.path());
    let ran = log("repair --dry-run", directory.path());
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("2 places to see to"), "{}", ran.out);
    assert!(
        ran.out.contains("would be noted in a gap record"),
        "{}",
        ran.out
    );
    assert!(
        contents(directory.path()) == before,
        "a dry run wrote something"
    );

    let ran = log("repair", directory.path());
    assert_eq!(ran.code, 0, "{}", ran.err);
    for lost in lost {
        let place = format!("offset {lost} does not read: noted now in a gap record");
        assert!(ran.out.contains(&place), "{}", ran.out);
    }
    assert!(ran.out.contains("quarantine/telemetry-"), "{}", ran.out);
    let ran = log("repair", directory.path());
    assert_eq!(ran.code, 0);
    assert!(
        ran.out
            .contains("nothing to do: 2 damaged places, all noted before"),
        "{}",
        ran.out
    );
    let ran = log("repair --dry-run", directory.path());
    assert_eq!(ran.code, 0, "{}", ran.out);
    assert!(ran.out.contains("nothing to do"), "{}", ran.out);
    let summaries = log("ls --json", directory.path()).lines();
    let telemetry = summaries
        .iter()
        .find(|stream| stream["name"] == "telemetry");
    assert_eq!(telemetry.unwrap()["head"], 102);
}

/// The node's config may limit a stream to less than it holds; whoever has no config has no limit.
#[tokio::test]
async fn a_repair_without_the_config_drops_nothing_and_with_it_finds_the_directory() {
    let directory = filled().await;
    let before = inspect::streams(directory.path()).unwrap();
    let ran = log("repair --json", directory.path());
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(ran.json()["scrub"]["records"], 100);
    assert_eq!(ran.json()["recovery"]["clean_stop"], true);
    let after = inspect::streams(directory.path()).unwrap();
    let held = |streams: &[inspect::StreamSummary]| -> Vec<_> {
        let streams = streams.iter();
        streams.map(|s| (s.name.clone(), s.tail, s.head)).collect()
    };
    assert_eq!(held(&before), held(&after));

    let file = directory.path().join("skerry.toml");
    std::fs::write(&file, config(directory.path(), free_port())).unwrap();
    let repair = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skerry"));
        command.args(["log", "repair", "--config"]).arg(&file);
        command.output().unwrap()
    };
    let out = String::from_utf8(repair().stdout).unwrap();
    assert!(out.contains("read 100 records"), "{out}");
    std::fs::write(&file, "nonsense").unwrap();
    assert_eq!(repair().status.code(), Some(2));
}

#[tokio::test]
async fn a_running_node_repairs_its_log_itself() {
    let directory = filled().await;
    let node = node_on(directory.path());
    let files = segments(directory.path());
    let lost = damage(&files[1]);
    let repair = format!("repair --node {}", node.address);
    let ran = log(&repair, directory.path());
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(
        ran.out.contains(&format!("the node at {}", node.address)),
        "{}",
        ran.out
    );
    let place = format!("offset {lost} does not read: noted now in a gap record");
    assert!(ran.out.contains(&place), "{}", ran.out);
    let ran = log(&format!("{repair} --json"), directory.path());
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(ran.json()["scrub"]["places"][0]["outcome"], "known_before");
    assert_eq!(ran.json()["recovery"], Value::Null);
    assert_eq!(log("repair --dry-run", directory.path()).code, 0);
    // The tools that only read do so beside the node.
    let stats = log("stats telemetry --json", directory.path()).json();
    assert_eq!(stats["gaps"][0]["values"], 1);
    let tail = log("tail telemetry -n 1 --json", directory.path());
    assert_eq!(tail.json()["kind"], "gap");

    // Another node's help is refused, and nobody's is told from it.
    let other = filled().await;
    let other_node = node_on(other.path());
    let ran = log(
        &format!("repair --node {}", other_node.address),
        directory.path(),
    );
    assert_eq!(ran.code, 1);
    assert!(
        ran.err.contains("has another data directory"),
        "{}",
        ran.err
    );
    let silent = format!("127.0.0.1:{}", free_port());
    let ran = log(&format!("repair --node {silent}"), directory.path());
    assert_eq!(ran.code, 1);
    for part in ["in use by a running node", &silent, "--node"] {
        assert!(ran.err.contains(part), "{part} is not in {}", ran.err);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tools_work_beside_a_log_that_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path());
    options.streams[0].bytes_max = 100_000;
    options.streams[0].readers = vec!["reader".to_owned()];
    let (writer, _) = Log::open(options).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let writing = tokio::spawn(async move {
        let mut number = 0;
        while !stopped.load(Ordering::Relaxed) {
            let mut append = append((number..number + 10).map(record).collect());
            append.changes.push(skerry_store::Change::Advance {
                cursor: "reader".to_owned(),
                stream: "telemetry".to_owned(),
                next: Offset(number),
            });
            writer.append(append).await.unwrap();
            number += 10;
        }
    });
    let telemetry = |directory: &Path| {
        let streams = inspect::streams(directory).unwrap();
        streams
            .into_iter()
            .find(|stream| stream.name == "telemetry")
            .unwrap()
    };
    // Until segments have been retired while we looked.
    let deadline = Instant::now() + Duration::from_secs(60);
    while telemetry(directory.path()).tail < Offset(5_000) {
        assert!(Instant::now() < deadline, "nothing is retired");
        for command in [
            "ls",
            "tail telemetry",
            "cat telemetry --since 1h -n 10",
            "export telemetry --format csv",
            "stats",
            "verify",
            "repair --dry-run",
        ] {
            let ran = log(command, directory.path());
            assert_eq!((ran.code, command), (0, command), "{}{}", ran.out, ran.err);
        }
        // In use, and not by a node that could be asked.
        let silent = free_port();
        let ran = log(
            &format!("repair --node 127.0.0.1:{silent}"),
            directory.path(),
        );
        assert_eq!(ran.code, 1);
        assert!(ran.err.contains("in use"), "{}", ran.err);
    }
    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
}

#[tokio::test]
async fn a_wrong_stream_and_a_wrong_directory_are_told() {
    let directory = filled().await;
    for command in ["cat", "export", "stats"] {
        let ran = log(&format!("{command} absent"), directory.path());
        assert_eq!(ran.code, 1, "{command}");
        assert!(
            ran.err.contains("`absent`; `skerry log ls` lists them"),
            "{}",
            ran.err
        );
    }
    let ran = log("cat absent --since 1h", directory.path());
    assert!(ran.err.contains("`absent`"), "{}", ran.err);
    let empty = tempfile::tempdir().unwrap();
    for command in [
        "ls", "tail s", "cat s", "export s", "stats", "verify", "repair",
    ] {
        let ran = log(command, empty.path());
        assert_eq!(ran.code, 1, "{command}");
        assert!(ran.err.contains("holds no log"), "{command}: {}", ran.err);
    }
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
    // Something of that name, and no log.
    std::fs::create_dir(empty.path().join("streams")).unwrap();
    let ran = log("repair", empty.path());
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("not a data directory"), "{}", ran.err);
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 1);
}

/// What root makes, the node could not open.
#[tokio::test]
async fn another_users_log_is_left_alone() {
    let directory = filled().await;
    if std::os::unix::fs::chown(directory.path(), Some(4_711), None).is_err() {
        // Only root can give a directory away.
        return;
    }
    let before = contents(directory.path());
    let ran = log("repair", directory.path());
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("sudo -u '#4711'"), "{}", ran.err);
    assert!(contents(directory.path()) == before, "it was written to");
    assert_eq!(log("repair --dry-run", directory.path()).code, 0);
}
