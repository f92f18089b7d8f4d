//! Disks that fill up, fail, lie or are not there.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod common;
#[path = "common/mounted.rs"]
mod mounted;

use common::*;
use mounted::{Mounted, may_mount, skip};
use skerry_store::{Class, Disk, Error, Fault, Log, Offset, Operation, Producer, Storage};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// Fails one kind of operation on segment files, while switched on.
#[derive(Default)]
struct Switch(AtomicU8);

const WRITES_FULL: u8 = 1;
const SYNCS_FAIL: u8 = 2;
const TRUNCATES_FAIL: u8 = 4;
const WRITES_READ_ONLY: u8 = 8;
const WRITES_BROKEN: u8 = 16;

impl Switch {
    fn set(&self, failing: u8) {
        self.0.store(failing, Ordering::SeqCst);
    }
}

impl Fault for Switch {
    fn before(&self, operation: Operation, path: &Path) -> io::Result<()> {
        let failing = self.0.load(Ordering::SeqCst);
        let on = |bit| failing & bit != 0;
        if !path.components().any(|part| part.as_os_str() == "streams") {
            return Ok(());
        }
        match operation {
            Operation::Write | Operation::Create if on(WRITES_FULL) => {
                Err(io::ErrorKind::StorageFull.into())
            }
            Operation::Write | Operation::Create if on(WRITES_READ_ONLY) => {
                Err(io::ErrorKind::ReadOnlyFilesystem.into())
            }
            Operation::Write | Operation::Create if on(WRITES_BROKEN) => {
                Err(io::Error::from_raw_os_error(5))
            }
            Operation::Sync if on(SYNCS_FAIL) => Err(io::Error::other("injected")),
            Operation::Truncate if on(TRUNCATES_FAIL) => Err(io::Error::other("injected")),
            _ => Ok(()),
        }
    }
}

#[tokio::test]
async fn a_full_disk_fails_appends_until_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let switch = Arc::new(Switch::default());
    let disk = Disk::failing(switch.clone());
    let (log, _) = Log::open_on(options(directory.path()), disk).unwrap();
    log.append(append("one", [0])).await.unwrap();
    for failing in [WRITES_FULL, WRITES_FULL | TRUNCATES_FAIL] {
        switch.set(failing);
        for number in 0..3 {
            let error = log.append(append("one", [number])).await.unwrap_err();
            assert!(matches!(error, Error::Storage { .. }), "{error}");
            assert_eq!(error.class(), Class::Retry);
        }
        assert!(matches!(log.stats().storage, Storage::StorageFailed { .. }));
        assert_eq!(read_all(&log, "one").0.len(), 1);
    }
    switch.set(0);
    assert_eq!(
        log.append(append("one", [1])).await.unwrap().first,
        Offset(1)
    );
    assert_eq!(
        log.append(append("two", [1])).await.unwrap().first,
        Offset(0)
    );
    assert_eq!(log.stats().storage, Storage::Ok);
    drop(log);
    let (log, recovery) = Log::open(options(directory.path())).unwrap();
    assert_eq!(recovery.torn_bytes, 0);
    let records = vec![(0, "0".to_owned()), (1, "1".to_owned())];
    assert_eq!(read_all(&log, "one"), (records, vec![]));
}

/// Nobody may dare to append while the node says that it is not ready.
#[tokio::test]
async fn a_disk_that_failed_is_found_to_work_again_though_nobody_appends() {
    let directory = tempfile::tempdir().unwrap();
    let switch = Arc::new(Switch::default());
    let disk = Disk::failing(switch.clone());
    let (log, _) = Log::open_on(options(directory.path()), disk).unwrap();
    log.append(append("one", [0])).await.unwrap();
    for (failing, word) in [
        (WRITES_READ_ONLY, "read-only"),
        (WRITES_BROKEN, "Input/output"),
        (WRITES_FULL, "storage space"),
    ] {
        switch.set(failing);
        let error = log.append(append("one", [1])).await.unwrap_err();
        assert_eq!(error.class(), Class::Retry, "{error}");
        let Storage::StorageFailed { reason } = log.stats().storage else {
            panic!("{:?}", log.stats().storage);
        };
        assert!(reason.contains(word), "{reason}");
        switch.set(0);
        let patience = Instant::now() + Duration::from_secs(60);
        while log.stats().storage != Storage::Ok {
            assert!(Instant::now() < patience, "{:?}", log.stats().storage);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(read_all(&log, "one").0.len(), 1);
}

#[tokio::test]
async fn what_was_submitted_behind_a_failure_does_not_overtake_it() {
    let directory = tempfile::tempdir().unwrap();
    let switch = Arc::new(Switch::default());
    let disk = Disk::failing(switch.clone());
    let (log, _) = Log::open_on(options(directory.path()), disk).unwrap();
    let producer = Producer::default();
    switch.set(WRITES_FULL);
    let refused = log
        .submit_from(&producer, append("one", [0]))
        .await
        .unwrap();
    while log.stats().failed_storage_total == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // There is room again before the producer has looked at its first append's fate.
    switch.set(0);
    let behind = log
        .submit_from(&producer, append("one", [1]))
        .await
        .unwrap();
    assert!(behind.committed().await.is_err());
    let elsewhere = log
        .submit_from(&producer, append("two", [2]))
        .await
        .unwrap();
    assert!(elsewhere.committed().await.is_ok(), "another stream");
    assert!(refused.committed().await.is_err());
    for number in [0, 1] {
        log.append(append("one", [number])).await.unwrap();
    }
    let records = vec![(0, "0".to_owned()), (1, "1".to_owned())];
    assert_eq!(read_all(&log, "one").0, records);
}

/// Room is made on a full disk from what readers confirmed. A snapshot is nobody's to confirm.
#[tokio::test]
async fn a_full_disk_does_not_cost_the_catalogs_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let switch = Arc::new(Switch::default());
    let open = || {
        let disk = Disk::failing(switch.clone());
        Log::open_on(options(directory.path()), disk).unwrap().0
    };
    let log = open();
    let mut keys = 0;
    while log.stats().snapshots_total == 0 {
        keys += 1;
        let filled = change(put(&keys.to_string(), vec![0; 50]));
        log.append(filled).await.unwrap();
    }
    log.close().await.unwrap();
    // Begins the journal's next segment, right behind the snapshot.
    let log = open();
    log.append(change(put("later", "value"))).await.unwrap();
    switch.set(WRITES_FULL);
    log.append(append("one", [0])).await.unwrap_err();
    switch.set(0);
    log.close().await.unwrap();
    std::fs::remove_dir_all(directory.path().join("catalog")).unwrap();
    let log = open();
    assert_eq!(log.scan("test", b"").unwrap().len(), keys + 1);
}

/// Fails the write of a segment's header, once, and the removal of what it leaves.
#[derive(Default)]
struct FailsToBegin(AtomicU8);

impl Fault for FailsToBegin {
    fn before(&self, operation: Operation, path: &Path) -> io::Result<()> {
        let begun = std::fs::metadata(path).is_ok_and(|file| file.len() == 0);
        let failing = self.0.load(Ordering::SeqCst) != 0;
        match operation {
            Operation::Write if failing && begun => Err(io::ErrorKind::StorageFull.into()),
            Operation::Remove if failing => Err(io::Error::other("injected")),
            _ => Ok(()),
        }
    }
}

/// Such a file may be there after a power cut, though it was removed. Its name says that all that
/// was written later is not in the segment before it.
#[tokio::test]
async fn a_segment_that_was_begun_in_vain_hides_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let fails = Arc::new(FailsToBegin::default());
    let disk = Disk::failing(fails.clone());
    let mut options = options(directory.path());
    options.segment_bytes = 1_000;
    let (log, _) = Log::open_on(options.clone(), disk).unwrap();
    log.append(append("one", [0])).await.unwrap();
    fails.0.store(1, Ordering::SeqCst);
    let large = append("one", 1..99);
    assert!(log.append(large.clone()).await.is_err());
    fails.0.store(0, Ordering::SeqCst);
    assert_eq!(segments(directory.path(), "one").len(), 2);
    log.append(append("one", [1])).await.unwrap();
    log.append(append("one", 2..99)).await.unwrap();
    drop(log);
    let (log, recovery) = Log::open(options).unwrap();
    let (records, missing) = read_all(&log, "one");
    assert_eq!((records.len(), missing), (99, vec![]));
    assert_eq!(recovery.records_missing, 0);
}

#[tokio::test]
async fn a_failed_sync_poisons_the_log_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let switch = Arc::new(Switch::default());
    let disk = Disk::failing(switch.clone());
    let (log, _) = Log::open_on(options(directory.path()), disk).unwrap();
    log.append(append("one", [0])).await.unwrap();
    let watching = log.clone();
    let watcher = tokio::spawn(async move { watching.poisoned().await });
    let mut reader = log.reader(&name("one"), Offset(1)).unwrap();
    let follower = tokio::spawn(async move { reader.follow(1).await });

    switch.set(SYNCS_FAIL);
    let error = log.append(append("one", [1])).await.unwrap_err();
    assert!(matches!(error, Error::Poisoned { .. }) && error.class() == Class::Fatal);
    switch.set(0);
    let error = log.append(append("one", [2])).await.unwrap_err();
    assert!(
        matches!(error, Error::Poisoned { .. }),
        "it is never tried again"
    );
    assert!(matches!(watcher.await.unwrap(), Error::Poisoned { .. }));
    assert!(matches!(
        follower.await.unwrap(),
        Err(Error::Poisoned { .. })
    ));
    assert!(matches!(log.stats().storage, Storage::Poisoned { .. }));
    assert!(log.close().await.is_err());

    // The next process recovers what is there; what was acknowledged is.
    let (log, recovery) = Log::open(options(directory.path())).unwrap();
    assert!(!recovery.clean_stop);
    assert_eq!(read_all(&log, "one").0[0], (0, "0".to_owned()));
}

#[tokio::test]
async fn a_directory_has_one_owner() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(directory.path())).unwrap();
    let refused = Log::open(options(directory.path())).err().unwrap();
    assert!(matches!(refused, Error::InUse { .. }), "{refused}");
    assert!(log.append(append("one", [1])).await.is_ok());
    log.close().await.unwrap();
    Log::open(options(directory.path())).unwrap();
}

#[test]
fn memory_is_no_place_for_a_log() {
    let Ok(directory) = tempfile::tempdir_in("/dev/shm") else {
        return skip("there is no /dev/shm to write to");
    };
    let mut options = options(directory.path());
    options.allow_volatile = false;
    let refused = Log::open(options.clone()).err().unwrap();
    assert!(matches!(refused, Error::Volatile { .. }), "{refused}");
    options.allow_volatile = true;
    Log::open(options).unwrap();
}

#[test]
fn a_read_only_directory_is_refused_with_advice() {
    if !may_mount("a_read_only_directory_is_refused_with_advice") {
        return;
    }
    let mounted = Mounted::tmpfs("size=1m").unwrap();
    mounted.remount("ro");
    let refused = Log::open(options(&mounted.path.join("data")))
        .err()
        .unwrap();
    assert!(matches!(refused, Error::Unwritable { .. }), "{refused}");
    assert!(
        refused.to_string().contains("Read-only file system"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_real_full_file_system_recovers_by_itself() {
    if !may_mount("a_real_full_file_system_recovers_by_itself") {
        return;
    }
    let mounted = Mounted::tmpfs("size=3m").unwrap();
    let mut options = options(&mounted.path.join("data"));
    options.segment_bytes = 100_000;
    let (log, _) = Log::open(options.clone()).unwrap();
    // A neighbour takes nearly all there is.
    let ballast = mounted.path.join("ballast");
    std::fs::write(&ballast, vec![0; 1_000_000]).unwrap();
    let mut append = append("one", [0]);
    append.records[0].payload = noise(1, 10_000).into();
    let mut acknowledged = 0;
    let error = loop {
        match log.append(append.clone()).await {
            Ok(committed) => acknowledged = committed.next.0,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Storage { .. }), "{error}");
    assert!(error.to_string().contains("No space left"), "{error}");
    assert_eq!(read_all_count(&log, "one"), acknowledged);
    log.append(append.clone()).await.unwrap_err();

    std::fs::remove_file(&ballast).unwrap();
    let committed = log.append(append).await.unwrap();
    assert_eq!(committed.first, Offset(acknowledged));
    drop(log);
    let (log, _) = Log::open(options).unwrap();
    assert_eq!(read_all_count(&log, "one"), acknowledged + 1);
}

fn read_all_count(log: &Log, stream: &str) -> u64 {
    let mut reader = log.reader(&name(stream), Offset::ZERO).unwrap();
    let mut count = 0;
    loop {
        let batch = reader.next(1).unwrap();
        assert_eq!(batch.missing, None);
        if batch.is_empty() {
            return count;
        }
        count += batch.records.len() as u64;
    }
}
