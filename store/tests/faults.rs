//! Disks that fill up, fail, lie or are not there.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod common;
#[path = "common/mounted.rs"]
mod mounted;

use common::*;
use mounted::{Mounted, skip};
use skerry_store::{Class, Disk, Error, Fault, Log, Offset, Operation, Storage};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Fails one kind of operation on segment files, while switched on.
#[derive(Default)]
struct Switch(AtomicU8);

const WRITES_FULL: u8 = 1;
const SYNCS_FAIL: u8 = 2;
const TRUNCATES_FAIL: u8 = 4;

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
    let Some(mounted) = Mounted::tmpfs("size=1m") else {
        return skip("a file system cannot be mounted here");
    };
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
    let Some(mounted) = Mounted::tmpfs("size=3m") else {
        return skip("a file system cannot be mounted here");
    };
    let mut options = options(&mounted.path.join("data"));
    options.segment_bytes = 100_000;
    let (log, _) = Log::open(options.clone()).unwrap();
    // A neighbour takes nearly all there is.
    let ballast = mounted.path.join("ballast");
    std::fs::write(&ballast, vec![0; 1_000_000]).unwrap();
    let mut append = append("one", [0]);
    append.records[0].payload = noise(10_000).into();
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
