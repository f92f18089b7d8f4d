//! A small file system of its own, filled by the log and by a neighbour: who is refused, who is
//! not, what goes, and that the space goes back.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod common;
#[path = "common/mounted.rs"]
mod mounted;

use common::*;
use mounted::{Mounted, may_mount};
use skerry_store::{
    Append, Disk, Error, Fault, Gap, Kind, Log, Offset, Operation, Options, Storage, WhenFull,
};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const MIB: u64 = 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(60);

/// A file system with some 25 MiB for the log.
struct Small(Mounted);

impl Small {
    /// An ext4 where there is a loop device for it.
    fn new() -> Self {
        let made = Mounted::ext4(32 * MIB).or_else(|| Mounted::tmpfs("size=25m"));
        Self(made.unwrap())
    }

    fn options(&self) -> Options {
        let mut options = options(&self.0.path.join("data"));
        options.segment_bytes = 256 * 1024;
        options.journal_reserve_bytes = MIB;
        for stream in &mut options.streams {
            stream.readers = vec!["uplink".into()];
        }
        options
    }

    fn ballast(&self) -> PathBuf {
        self.0.path.join("ballast")
    }

    /// The neighbour takes what there is, to the last block.
    fn fill(&self) {
        let mut ballast = File::options()
            .create(true)
            .append(true)
            .open(self.ballast())
            .unwrap();
        for length in [64 * 1024, 4096, 1] {
            let chunk = vec![7; length];
            while ballast.write_all(&chunk).is_ok() {}
        }
        ballast.sync_all().unwrap();
    }

    fn empty(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn used(&self) -> u64 {
        let output = Command::new("stat")
            .args(["-f", "-c", "%S %b %f"])
            .arg(&self.0.path)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let numbers: Vec<u64> = text
            .split_whitespace()
            .map(|n| n.parse().unwrap())
            .collect();
        numbers[0] * (numbers[1] - numbers[2])
    }
}

/// A record of 10,000 bytes that do not compress.
fn bulk(stream: &str, number: u64) -> Append {
    let mut append = append(stream, [number]);
    append.records[0].payload = noise(number, 10_000).into();
    append
}

/// Appends until the log refuses, or `most` are in. Returns the head and the refusal.
async fn write(log: &Log, stream: &str, most: u64) -> (u64, Option<Error>) {
    let mut head = 0;
    for number in 0..most {
        match log.append(bulk(stream, number)).await {
            Ok(committed) => head = committed.next.0,
            Err(error) => return (head, Some(error)),
        }
    }
    (head, None)
}

fn is_no_space(refusal: Option<Error>) -> bool {
    refusal.is_some_and(|error| error.to_string().contains("No space left"))
}

/// Offsets that read, and offsets that gap records account for.
fn accounts(log: &Log, stream: &str) -> (u64, u64) {
    let mut reader = log.reader(&name(stream), Offset::ZERO).unwrap();
    let (mut delivered, mut told) = (0, 0);
    loop {
        let batch = reader.next(100_000).unwrap();
        if batch.is_empty() {
            return (delivered, told);
        }
        for (_, record) in batch.records {
            delivered += 1;
            if record.kind == Kind::Gap {
                let gap: Gap = serde_json::from_slice(&record.payload).unwrap();
                told += gap.count.unwrap();
            }
        }
    }
}

async fn wait_until(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn confirm(log: &Log, stream: &str, next: u64) -> Result<(), Error> {
    let advance = change(advance("uplink", stream, next));
    log.append(advance).await.map(|_| ())
}

#[tokio::test]
async fn a_neighbour_that_fills_the_disk_cannot_take_what_is_reserved() {
    if !may_mount("a_neighbour_that_fills_the_disk_cannot_take_what_is_reserved") {
        return;
    }
    let small = Small::new();
    let mut options = small.options();
    options.streams[1].reserve_bytes = 2 * MIB;
    let (log, _) = Log::open(options.clone()).unwrap();
    let (before, _) = write(&log, "one", 100).await;
    small.fill();
    let (more, refusal) = write(&log, "one", 1_000).await;
    assert!(is_no_space(refusal));
    assert!(matches!(log.stats().storage, Storage::StorageFailed { .. }));
    let one = before.max(more);

    // The small stream, and cursors, go on; the others stay refused although space was given back.
    for number in 0..180 {
        let committed = log.append(bulk("two", number)).await.unwrap();
        assert_eq!(committed.first, Offset(number));
        if number % 10 == 0 {
            small.fill();
            confirm(&log, "one", number / 10).await.unwrap();
            assert!(is_no_space(log.append(bulk("one", 0)).await.err()));
        }
    }
    assert_eq!(accounts(&log, "one"), (one, 0));
    assert!(matches!(log.stats().storage, Storage::StorageFailed { .. }));

    small.empty();
    wait_until("the log notices the space", || {
        log.stats().storage == Storage::Ok
    })
    .await;
    let committed = log.append(bulk("one", 0)).await.unwrap();
    assert_eq!(committed.first, Offset(one));
    let stats = log.stats();
    assert!(stats.reserve_bytes_held >= stats.reserve_bytes);
    drop(log);
    let (log, recovery) = Log::open(options).unwrap();
    assert_eq!(recovery.torn_bytes + recovery.records_missing, 0);
    assert_eq!(accounts(&log, "one"), (one + 1, 0));
    assert_eq!(accounts(&log, "two"), (180, 0));
}

#[tokio::test]
async fn confirmed_data_makes_room_on_a_disk_that_the_log_itself_filled() {
    if !may_mount("confirmed_data_makes_room_on_a_disk_that_the_log_itself_filled") {
        return;
    }
    let small = Small::new();
    let (log, _) = Log::open(small.options()).unwrap();
    let (one, refusal) = write(&log, "one", 10_000).await;
    assert!(is_no_space(refusal));
    let used = small.used();
    confirm(&log, "one", one / 2).await.unwrap();
    wait_until("the log reclaims", || log.stats().storage == Storage::Ok).await;
    assert!(log.tail(&name("one")).unwrap() > Offset::ZERO);
    assert!(small.used() < used);
    let (head, _) = write(&log, "one", 50).await;
    assert_eq!(head, one + 50);
    assert_eq!(log.stats().gap_records_total, 0);
}

/// Before segments go, whose changes no snapshot has, one is to be written: three times as large
/// as what the journal has for itself.
#[tokio::test]
async fn a_large_catalog_does_not_keep_what_is_confirmed_on_a_full_disk() {
    if !may_mount("a_large_catalog_does_not_keep_what_is_confirmed_on_a_full_disk") {
        return;
    }
    let small = Small::new();
    let (log, _) = Log::open(small.options()).unwrap();
    put_large_catalog(&log).await;
    let (one, refusal) = write(&log, "one", 10_000).await;
    assert!(is_no_space(refusal));
    reclaims_with_a_large_catalog(&log, one / 2).await;
}

async fn put_large_catalog(log: &Log) {
    for key in 0..300 {
        let put = put(&key.to_string(), noise(key, 10_000));
        log.append(change(put)).await.unwrap();
    }
}

async fn reclaims_with_a_large_catalog(log: &Log, mut confirmed: u64) {
    // It may be out of order, and be made anew for want of space, but it never lacks a value.
    let last = || log.get("test", b"299").ok();
    // As the uplink does, which is refused at first if the snapshot was not to be had at once, and
    // confirms more later: a full disk is looked at anew with whatever is written.
    let started = Instant::now();
    while log.tail(&name("one")).unwrap() == Offset::ZERO {
        assert!(started.elapsed() < PATIENCE, "the log does not reclaim");
        assert_ne!(last(), Some(None));
        if confirm(log, "one", confirmed).await.is_ok() {
            confirmed += 1;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    wait_until("the log works", || log.stats().storage == Storage::Ok).await;
    wait_until("the catalog is there", || {
        last().inspect(|value| assert!(value.is_some())).is_some()
    })
    .await;
    assert_eq!(last().flatten().unwrap(), noise(299, 10_000));
}

/// A disk on which, once it is said so, no file of the journal takes more than a few frames: never
/// a large snapshot, always a cursor.
#[derive(Default)]
struct NoLargeSnapshot {
    refuses: AtomicBool,
    writes: AtomicU64,
}

impl Fault for NoLargeSnapshot {
    fn before(&self, operation: Operation, path: &Path) -> io::Result<()> {
        if path
            .parent()
            .is_none_or(|parent| !parent.ends_with("_catalog"))
        {
            return Ok(());
        }
        let before = match operation {
            Operation::Write => self.writes.fetch_add(1, Ordering::SeqCst),
            // The next one, or this one taken back.
            Operation::Create | Operation::Truncate => self.writes.swap(0, Ordering::SeqCst),
            _ => 0,
        };
        match operation == Operation::Write && self.refuses.load(Ordering::SeqCst) && before > 10 {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

/// The log stood still for good once a snapshot had not fitted: the reserve stayed as small as it
/// was at that moment, and what was confirmed waited for the next one, though it had no changes.
#[tokio::test]
async fn a_snapshot_that_does_not_fit_keeps_neither_the_reserve_nor_what_has_no_changes() {
    if !may_mount("a_snapshot_that_does_not_fit_keeps_neither_the_reserve_nor_what_has_no_changes")
    {
        return;
    }
    let small = Small::new();
    let fault = Arc::new(NoLargeSnapshot::default());
    let (log, _) = Log::open_on(small.options(), Disk::failing(fault.clone())).unwrap();
    put_large_catalog(&log).await;
    let (held, snapshots) = (log.stats().reserve_bytes_held, log.stats().snapshots_total);
    assert!(held >= 3 * MIB, "{held}");
    fault.refuses.store(true, Ordering::SeqCst);
    let (one, refusal) = write(&log, "one", 10_000).await;
    assert!(is_no_space(refusal));
    // All but what sled put into its own file while the reserve was given back: two of its segments
    // at most.
    wait_until("the reserve is back", || {
        log.stats().reserve_bytes_held >= held - MIB
    })
    .await;
    reclaims_with_a_large_catalog(&log, one / 2).await;
    assert_eq!(log.stats().snapshots_total, snapshots);
}

/// With less than what makes a snapshot due, which is the only thing that the confirmed waits for.
#[tokio::test]
async fn what_is_confirmed_on_a_full_disk_goes_though_no_snapshot_is_due() {
    if !may_mount("what_is_confirmed_on_a_full_disk_goes_though_no_snapshot_is_due") {
        return;
    }
    let small = Small::new();
    let (log, _) = Log::open(small.options()).unwrap();
    let mut one = 0;
    for number in 0..80 {
        let mut append = bulk("one", number);
        append.changes = vec![put("last", number.to_string())];
        one = log.append(append).await.unwrap().next.0;
    }
    small.fill();
    assert!(is_no_space(write(&log, "one", 1_000).await.1));
    confirm(&log, "one", one).await.unwrap();
    wait_until("the log reclaims", || log.stats().storage == Storage::Ok).await;
    assert!(log.tail(&name("one")).unwrap() > Offset::ZERO);
    log.append(bulk("one", 0)).await.unwrap();
    assert_eq!(log.get("test", b"last").unwrap().unwrap(), "79");
}

#[tokio::test]
async fn drop_oldest_goes_on_on_a_full_disk_and_tells_what_it_gave_up() {
    if !may_mount("drop_oldest_goes_on_on_a_full_disk_and_tells_what_it_gave_up") {
        return;
    }
    let small = Small::new();
    let mut options = small.options();
    options.streams[0].when_full = WhenFull::DropOldest;
    let (log, _) = Log::open(options.clone()).unwrap();
    write(&log, "one", 500).await;
    small.fill();
    let (head, refusal) = write(&log, "one", 1_000).await;
    assert!(refusal.is_none(), "{refusal:?}");
    assert!(head >= 1_500);
    assert_eq!(log.stats().storage, Storage::Ok);
    let head = log.head(&name("one")).unwrap().borrow().0;
    let (delivered, told) = accounts(&log, "one");
    assert!(told >= 900, "{told}");
    assert_eq!(delivered + told, head, "in = out + gaps");
    drop(log);
    let (log, recovery) = Log::open(options).unwrap();
    assert_eq!(recovery.records_missing, 0);
    assert_eq!(accounts(&log, "one"), (delivered, told));
}

#[tokio::test]
async fn a_log_opens_on_a_full_disk_serves_and_recovers() {
    if !may_mount("a_log_opens_on_a_full_disk_serves_and_recovers") {
        return;
    }
    for (without_catalog, without_reserve) in [(false, false), (true, false), (true, true)] {
        let small = Small::new();
        let options = small.options();
        let (log, _) = Log::open(options.clone()).unwrap();
        let (one, _) = write(&log, "one", 100).await;
        log.append(change(put("key", "value"))).await.unwrap();
        confirm(&log, "one", 7).await.unwrap();
        drop(log);
        if without_catalog {
            std::fs::remove_dir_all(options.directory.join("catalog")).unwrap();
        }
        if without_reserve {
            std::fs::remove_file(options.directory.join("reserve")).unwrap();
        }
        small.fill();
        let (log, _) = Log::open(options.clone()).unwrap();
        assert!(matches!(log.stats().storage, Storage::StorageFailed { .. }));
        assert_eq!(accounts(&log, "one"), (one, 0));
        assert_eq!(log.stats().catalog_in_order, !without_reserve);
        // The neighbour takes what opening had left.
        small.fill();
        assert!(is_no_space(write(&log, "one", 1_000).await.1));

        small.empty();
        wait_until("the log notices the space", || {
            log.stats().storage == Storage::Ok
        })
        .await;
        log.append(bulk("one", 0)).await.unwrap();
        wait_until("the catalog is back", || log.stats().catalog_in_order).await;
        assert_eq!(log.get("test", b"key").unwrap().unwrap(), "value");
        assert_eq!(log.cursor("uplink", &name("one")).unwrap(), Some(Offset(7)));
        drop(log);
        let (log, recovery) = Log::open(options).unwrap();
        assert_eq!(recovery.records_missing, 0);
        let (delivered, told) = accounts(&log, "one");
        assert!(delivered > one && told == 0);
    }
}

fn has_failed(log: &Log) -> bool {
    matches!(log.stats().storage, Storage::StorageFailed { .. })
}

#[tokio::test]
async fn a_disk_that_becomes_read_only_is_noticed_while_nobody_writes() {
    if !may_mount("a_disk_that_becomes_read_only_is_noticed_while_nobody_writes") {
        return;
    }
    let small = Small::new();
    let (log, _) = Log::open(small.options()).unwrap();
    write(&log, "one", 5).await;
    assert_eq!(log.stats().storage, Storage::Ok);

    let read_only = small.0.read_only();
    wait_until("the log notices", || has_failed(&log)).await;
    // What is written next begins a file, as the writer's own attempts did.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(has_failed(&log));
    let refusal = log.append(bulk("two", 0)).await.unwrap_err();
    assert!(refusal.to_string().contains("Read-only"), "{refusal}");
    assert_eq!(accounts(&log, "one"), (5, 0));

    drop(read_only);
    wait_until("the log goes on", || !has_failed(&log)).await;
    log.append(bulk("two", 0)).await.unwrap();

    // Where there is a loop device: what the kernel does when it finds a file system damaged,
    // which ends what is open as well. Elsewhere only faults.rs shows that, by injection.
    if small.0.is_ext4() {
        small.0.remount("abort");
        wait_until("the log notices", || has_failed(&log)).await;
        let refusal = log.append(bulk("one", 5)).await.unwrap_err();
        assert!(refusal.to_string().contains("Read-only"), "{refusal}");
        assert_eq!(accounts(&log, "one"), (5, 0));
    }
}

/// A disk that keeps the files it is told to remove.
struct KeepsFiles;

impl Fault for KeepsFiles {
    fn before(&self, operation: Operation, _: &Path) -> io::Result<()> {
        match operation {
            Operation::Remove => Err(io::Error::other("injected")),
            _ => Ok(()),
        }
    }
}

/// Opened without its catalog, the log does not know what was given up and is still there.
#[tokio::test]
async fn what_was_given_up_goes_once_the_catalog_is_back_to_tell() {
    if !may_mount("what_was_given_up_goes_once_the_catalog_is_back_to_tell") {
        return;
    }
    let small = Small::new();
    let mut options = small.options();
    options.streams[0].bytes_max = 2 * MIB;
    options.streams[0].when_full = WhenFull::DropOldest;
    let disk = Disk::failing(Arc::new(KeepsFiles));
    let (log, _) = Log::open_on(options.clone(), disk).unwrap();
    let (head, _) = write(&log, "one", 300).await;
    let tail = log.tail(&name("one")).unwrap();
    assert!(tail > Offset(50), "{tail}");
    drop(log);
    let files = segments(&options.directory, "one").len();
    std::fs::remove_dir_all(options.directory.join("catalog")).unwrap();
    std::fs::remove_file(options.directory.join("reserve")).unwrap();
    small.fill();

    let (log, _) = Log::open(options.clone()).unwrap();
    assert!(!log.stats().catalog_in_order);
    assert_eq!(log.tail(&name("one")).unwrap(), Offset::ZERO);
    assert_eq!(segments(&options.directory, "one").len(), files);

    small.empty();
    wait_until("the catalog is back", || log.stats().catalog_in_order).await;
    wait_until("what was given up goes", || {
        segments(&options.directory, "one").len() < files
    })
    .await;
    assert_eq!(log.tail(&name("one")).unwrap(), tail);
    let (delivered, told) = accounts(&log, "one");
    assert_eq!((delivered + told, told), (head, tail.0));
}

/// Time passes as the test says.
#[derive(Default)]
struct Time(AtomicU64);

impl Fault for Time {
    fn before(&self, _: Operation, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn skipped(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

#[tokio::test]
async fn what_is_removed_is_space_that_others_can_use() {
    if !may_mount("what_is_removed_is_space_that_others_can_use") {
        return;
    }
    let small = Small::new();
    let empty = small.used();
    let mut options = small.options();
    options.streams[0].age_max = Some(Duration::from_secs(3_600));
    let time = Arc::new(Time::default());
    let (log, _) = Log::open_on(options, Disk::failing(time.clone())).unwrap();
    let (head, refusal) = write(&log, "one", 1_600).await;
    assert!(refusal.is_none());
    let before = small.used() - empty;
    assert!(before > 15 * MIB, "{before}");
    confirm(&log, "one", head / 2).await.unwrap();
    for _ in 0..20 {
        time.0.fetch_add(300, Ordering::SeqCst);
        confirm(&log, "two", 0).await.unwrap();
    }
    let bytes = |log: &Log| {
        log.stats()
            .streams
            .iter()
            .map(|stream| stream.bytes)
            .sum::<u64>()
    };
    wait_until("half of it is gone", || bytes(&log) < 9 * MIB).await;
    let after = small.used() - empty;
    println!("disk used: {before} bytes before, {after} after the oldest half was removed");
    assert!(after * 10 <= before * 6, "{before} before, {after} after");
}
