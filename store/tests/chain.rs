//! The hash chain: whole in every honest log, and broken by whoever alters one.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod common;
#[path = "common/forge.rs"]
mod forge;

use common::*;
use forge::{forge, replace};
use skerry_store::inspect::{self, FaultKind};
use skerry_store::{Disk, Fault, Log, Operation, Record, WhenFull};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

/// Segments of some records each in stream one, and of changes in `_catalog`; one life each.
async fn filled(directory: &Path) {
    for life in 0..6 {
        let (log, _) = Log::open(options(directory)).unwrap();
        log.append(append("one", [1_000 + life])).await.unwrap();
        let value = format!("value {life}");
        log.append(change(put("key", value))).await.unwrap();
        log.close().await.unwrap();
    }
}

/// The kinds of the faults there are, and the file of the last.
fn faults(directory: &Path) -> (Vec<FaultKind>, Option<std::path::PathBuf>) {
    let report = inspect::verify(directory, None).unwrap();
    let kinds = report.faults.iter().map(|fault| fault.kind).collect();
    (kinds, report.faults.last().map(|fault| fault.file.clone()))
}

/// A link to nothing is a file that is listed, and is gone when it is opened.
#[tokio::test]
async fn a_segment_that_goes_after_it_was_listed_does_not_fail_a_verification() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).await;
    let gone = format!("{:020}-{:020}.seg", 1 << 40, 1_u64 << 40);
    for stream in ["_catalog", "one"] {
        let link = directory.path().join("streams").join(stream).join(&gone);
        std::os::unix::fs::symlink("nothing", link).unwrap();
    }
    assert_eq!(faults(directory.path()), (vec![], None));
}

#[tokio::test]
async fn an_altered_segment_breaks_the_chain_though_every_checksum_passes() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    filled(directory).await;
    assert_eq!(faults(directory), (vec![], None));
    for (stream, old, new) in [
        ("one", &b"1002"[..], &b"6666"[..]),
        ("_catalog", b"value 2", b"walue 2"),
    ] {
        let files = segments(directory, stream);
        let before = std::fs::read(&files[2]).unwrap();
        replace(&files[2], old, new);
        let found = (vec![FaultKind::Chain], Some(files[3].clone()));
        assert_eq!(faults(directory), found);
        std::fs::write(&files[2], before).unwrap();
    }
    assert_eq!(faults(directory), (vec![], None));
}

#[tokio::test]
async fn a_removed_segment_breaks_the_chain() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    filled(directory).await;
    let files = segments(directory, "_catalog");
    std::fs::remove_file(&files[2]).unwrap();
    let found = (vec![FaultKind::Chain], Some(files[3].clone()));
    assert_eq!(faults(directory), found, "changes have no offsets to miss");
    let files = segments(directory, "one");
    std::fs::remove_file(&files[2]).unwrap();
    let kinds = faults(directory).0;
    let missing_and_chain = [FaultKind::Missing, FaultKind::Chain];
    assert_eq!(
        kinds,
        [&[FaultKind::Chain][..], &missing_and_chain].concat()
    );
}

#[tokio::test]
async fn the_start_of_a_chain_is_nobodys_work() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    filled(directory).await;
    for stream in ["_catalog", "one"] {
        let files = segments(directory, stream);
        std::fs::remove_file(&files[0]).unwrap();
        std::fs::remove_file(&files[1]).unwrap();
    }
    assert_eq!(faults(directory), (vec![], None));
}

#[tokio::test]
async fn swapped_segments_break_the_chain() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    filled(directory).await;
    let files = segments(directory, "_catalog");
    let (first, second) = (&files[1], &files[2]);
    let bytes = [first, second].map(|file| std::fs::read(file).unwrap());
    // Each keeps the digest that its place in the chain asks for.
    let previous = bytes.clone().map(|bytes| bytes[64..96].to_vec());
    for (file, place, other) in [(first, 0, 1), (second, 1, 0)] {
        forge(file, |found| {
            found.clone_from(&bytes[other]);
            found[64..96].copy_from_slice(&previous[place]);
        });
    }
    let kinds = faults(directory).0;
    assert_eq!(kinds, [FaultKind::Chain, FaultKind::Chain]);
}

#[tokio::test]
async fn a_segment_under_another_ones_name_is_no_damage() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    filled(directory).await;
    let files = segments(directory, "_catalog");
    std::fs::copy(&files[1], &files[2]).unwrap();
    let report = inspect::verify(directory, None).unwrap();
    let first = &report.faults[0];
    assert_eq!((first.kind, &first.file), (FaultKind::Chain, &files[2]));
}

#[tokio::test]
async fn damage_is_told_from_tampering() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    filled(directory).await;
    // In a frame, in a header, and a frame cut short.
    for (file, at) in [(1, 256 + 70), (3, 20)] {
        let file = &segments(directory, "one")[file];
        let mut bytes = std::fs::read(file).unwrap();
        bytes[at] ^= 1;
        std::fs::write(file, bytes).unwrap();
    }
    let cut = &segments(directory, "_catalog")[2];
    let bytes = std::fs::read(cut).unwrap();
    std::fs::write(cut, &bytes[..bytes.len() - 1]).unwrap();
    let kinds = faults(directory).0;
    assert!(
        kinds.len() >= 3 && !kinds.contains(&FaultKind::Chain),
        "{kinds:?}"
    );
}

#[tokio::test]
async fn torn_ends_quarantine_and_retention_leave_the_chain_whole() {
    let root = tempfile::tempdir().unwrap();
    let mut directory = root.path().join("0");
    for life in 0..8 {
        let mut options = options(&directory);
        options.streams[0].bytes_max = 6_000;
        options.streams[0].when_full = WhenFull::DropOldest;
        options.segment_bytes = 900;
        let (log, _) = Log::open(options).unwrap();
        for number in 0..20 {
            log.append(append("one", [number])).await.unwrap();
            log.append(append("two", [number])).await.unwrap();
        }
        // A crash that leaves a torn end in one stream and, now and then, damage in another.
        let next = root.path().join((life + 1).to_string());
        copy(&directory, &next);
        drop(log);
        directory = next;
        let newest = segments(&directory, "one").pop().unwrap();
        let mut bytes = std::fs::read(&newest).unwrap();
        bytes.truncate(written(&newest) as usize);
        bytes.extend_from_slice(&[0xF5, b'S', b'K', 0x0A, 1, 2, 3]);
        std::fs::write(&newest, bytes).unwrap();
        let newest = segments(&directory, "two").pop().unwrap();
        let mut bytes = std::fs::read(&newest).unwrap();
        if life % 3 == 0 {
            bytes[256 + 70] ^= 1;
            std::fs::write(&newest, bytes).unwrap();
        }
    }
    let (log, recovery) = Log::open(options(&directory)).unwrap();
    assert_eq!(recovery.torn_bytes, 7);
    drop(log);
    let kinds = faults(&directory).0;
    assert!(!kinds.contains(&FaultKind::Chain), "{kinds:?}");
    assert!(kinds.contains(&FaultKind::Damage), "it stays where it is");
}

/// Holds up one sync, so that what is queued meanwhile is one commit; then fails writes to "two".
struct HoldAndFail {
    hold: AtomicBool,
    fail: AtomicBool,
    barrier: Barrier,
}

impl Fault for HoldAndFail {
    fn before(&self, operation: Operation, path: &Path) -> io::Result<()> {
        let second = path.components().any(|part| part.as_os_str() == "two");
        match operation {
            Operation::Sync if self.hold.swap(false, Ordering::SeqCst) => {
                self.barrier.wait();
                self.barrier.wait();
            }
            Operation::Write if second && self.fail.load(Ordering::SeqCst) => {
                return Err(io::ErrorKind::StorageFull.into());
            }
            _ => {}
        }
        Ok(())
    }
}

#[tokio::test]
async fn what_is_rolled_back_is_no_part_of_the_chain() {
    let directory = tempfile::tempdir().unwrap();
    let fault = Arc::new(HoldAndFail {
        hold: AtomicBool::new(false),
        fail: AtomicBool::new(false),
        barrier: Barrier::new(2),
    });
    let disk = Disk::failing(fault.clone());
    let (log, _) = Log::open_on(options(directory.path()), disk).unwrap();
    log.append(append("one", [0])).await.unwrap();
    log.append(append("two", [0])).await.unwrap();

    fault.hold.store(true, Ordering::SeqCst);
    let first = log.submit(append("one", [1])).await.unwrap();
    fault.barrier.wait();
    // "one" comes first, and is in its file when "two" fails.
    let failing = [append("one", [2]), append("two", [2])];
    let mut pending = Vec::new();
    for append in failing {
        pending.push(log.submit(append).await.unwrap());
    }
    fault.fail.store(true, Ordering::SeqCst);
    fault.barrier.wait();
    first.committed().await.unwrap();
    for failed in pending {
        failed.committed().await.unwrap_err();
    }
    fault.fail.store(false, Ordering::SeqCst);
    // Both streams go on to segments that say what came before.
    let mut large = append("one", [3]);
    large.records[0] = Record::new(skerry_store::Kind::Mqtt, "s", noise(1, 2_000));
    log.append(large.clone()).await.unwrap();
    log.append(large).await.unwrap();
    log.close().await.unwrap();
    assert!(segments(directory.path(), "one").len() > 2);
    assert_eq!(faults(directory.path()), (vec![], None));
}

/// Notes which segment files are synced.
#[derive(Default)]
struct Syncs(std::sync::Mutex<Vec<std::path::PathBuf>>);

impl Fault for Syncs {
    fn before(&self, operation: Operation, path: &Path) -> io::Result<()> {
        if matches!(operation, Operation::Sync | Operation::SyncDirectory) {
            self.0.lock().unwrap().push(path.to_owned());
        }
        Ok(())
    }
}

/// What a killed process left in the page cache alone is read, answered for, and linked to by
/// the next segment: a power cut must not take it after that.
#[tokio::test]
async fn what_an_earlier_process_wrote_is_synced_before_it_is_relied_on() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).await;
    let syncs = Arc::new(Syncs::default());
    let disk = Disk::failing(syncs.clone());
    let (log, _) = Log::open_on(options(directory.path()), disk).unwrap();
    let synced = syncs.0.lock().unwrap().clone();
    for stream in ["one", "_catalog"] {
        let newest = segments(directory.path(), stream).pop().unwrap();
        assert!(synced.contains(&newest), "{synced:?}");
        assert!(synced.iter().any(|path| path == newest.parent().unwrap()));
    }
    drop(log);
}

/// Beside a node that goes on to new segments, cuts off room and retires old ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_live_log_verifies_at_any_moment() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path());
    options.streams[0].bytes_max = 20_000;
    options.streams[0].when_full = WhenFull::DropOldest;
    let (log, _) = Log::open(options).unwrap();
    let writer = tokio::spawn(async move {
        for number in 0..3_000 {
            log.append(append("one", [number])).await.unwrap();
        }
        let removed = log.stats().segments_removed_total;
        assert!(removed > 100, "{removed}");
    });
    let mut looks = 0;
    while !writer.is_finished() || looks < 20 {
        let found = faults(directory.path());
        assert_eq!(found, (vec![], None));
        looks += 1;
    }
    writer.await.unwrap();
}
