//! A log with keys: it reads with them and tells nothing without, and whoever alters it is found
//! out, whatever checksums they make pass.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod common;

use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305};
use common::*;
use skerry_store::inspect::{self, FaultKind};
use skerry_store::{
    Append, Change, Class, Codec, Error, Kind, Log, Offset, Options, Record, Recovery, WhenFull,
};
use skerry_store::{KeyId, Keys};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const KEY: [u8; 32] = [7; 32];
const OTHER: [u8; 32] = [8; 32];
const SEGMENT_HEADER_BYTES: usize = 256;
const HEADER_BYTES: usize = 64;
const FIELDS_BYTES: usize = 56;
const SEALED: u8 = 32;

/// What must not be found in a data directory: topic, payload, attribute, bucket, key, value,
/// a value large enough to be kept in parts, cursor.
const HIDDEN: [&str; 8] = [
    "hidden-topic",
    "hidden-payload",
    "hidden-attribute",
    "hidden-bucket",
    "hidden-key",
    "hidden-value",
    "hidden-large",
    "hidden-cursor",
];

fn keyed(directory: &Path, first: [u8; 32], older: &[[u8; 32]]) -> Options {
    let mut options = options(directory);
    options.keys = Some(Keys::new(first, older.iter().copied()));
    options
}

fn open(directory: &Path) -> (Log, Recovery) {
    Log::open(keyed(directory, KEY, &[])).unwrap()
}

fn id(key: [u8; 32]) -> KeyId {
    Keys::new(key, []).ids()[0]
}

fn hidden_put(value: &str) -> Change {
    Change::Put {
        bucket: HIDDEN[3].into(),
        key: HIDDEN[4].into(),
        value: value.to_owned().into(),
    }
}

/// Everything that is not to be found, in a frame of its own each time.
async fn write_hidden(log: &Log) {
    let [topic, payload, attribute, .., value, large, cursor] = HIDDEN;
    let mut record = Record::new(Kind::Mqtt, topic, payload);
    record.attributes = vec![(attribute.into(), "1".into())];
    let large = large.repeat(1_000);
    for change in [
        hidden_put(&large),
        hidden_put(value),
        put("large", large),
        advance(cursor, "one", 1),
    ] {
        let append = Append {
            stream: name("one"),
            records: vec![record.clone()],
            changes: vec![change],
        };
        log.append(append).await.unwrap();
    }
    log.append(change(hidden_put(value))).await.unwrap();
}

fn check_hidden(log: &Log) {
    let [.., bucket, key, value, large, cursor] = HIDDEN;
    let found = log.get(bucket, key.as_bytes()).unwrap();
    assert_eq!(found.as_deref(), Some(value.as_bytes()));
    let found = log.get("test", b"large").unwrap().unwrap();
    assert_eq!(found, large.repeat(1_000));
    let found = log.cursor(cursor, &name("one")).unwrap();
    assert_eq!(found, Some(Offset(1)));
}

fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), std::fs::read(path).unwrap());
        }
    }
    found
}

/// Each file below `directory` that gives something away, and what.
fn leaks(directory: &Path) -> Vec<(PathBuf, &'static str)> {
    let mut leaks = Vec::new();
    for (path, bytes) in files(directory) {
        let name = path.display().to_string();
        for hidden in HIDDEN {
            let parts = bytes.windows(hidden.len());
            if name.contains(hidden) || parts.into_iter().any(|part| part == hidden.as_bytes()) {
                leaks.push((path.clone(), hidden));
            }
        }
    }
    leaks
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// Where the frames of a segment begin.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut at = SEGMENT_HEADER_BYTES;
    while bytes.get(at) == Some(&0xF5) {
        found.push(at);
        at += HEADER_BYTES + u32_at(bytes, at + 4);
    }
    found
}

/// What a frame is tied to: epoch, base offset and sequence of its segment.
fn place(segment: &[u8]) -> Vec<u8> {
    [&segment[8..16], &segment[32..48]].concat()
}

fn nonce(segment: &[u8], frame: usize) -> [u8; 24] {
    let mut nonce = [0; 24];
    nonce[..8].copy_from_slice(&segment[8..16]);
    nonce[8..14].copy_from_slice(&segment[frame + 50..frame + 56]);
    nonce[16..].copy_from_slice(&segment[frame + 24..frame + 32]);
    nonce
}

/// Makes the checksums of the frame at `at` pass, as far as the file goes.
fn make_pass(segment: &mut [u8], at: usize) {
    let seed = crc32c::crc32c(&place(segment));
    let end = at + HEADER_BYTES + u32_at(segment, at + 4);
    if let Some(payload) = segment.get(at + HEADER_BYTES..end) {
        let checksum = crc32c::crc32c_append(seed, payload);
        segment[at + 56..at + 60].copy_from_slice(&checksum.to_le_bytes());
    }
    let checksum = crc32c::crc32c_append(seed, &segment[at..at + 60]);
    segment[at + 60..at + 64].copy_from_slice(&checksum.to_le_bytes());
}

fn payloads(directory: &Path, keys: &Keys) -> Vec<(u64, Vec<u8>)> {
    let records = inspect::records(directory, &name("one"), Offset::ZERO, Some(keys));
    let records = records.unwrap().map(Result::unwrap);
    let records = records.filter(|(_, record)| record.kind == Kind::Mqtt);
    records
        .map(|(offset, record)| (offset.0, record.payload.to_vec()))
        .collect()
}

/// The format as the crate documentation has it, with nothing of the crate's own.
#[tokio::test]
async fn a_frame_opens_by_the_book() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = keyed(directory.path(), KEY, &[]);
    options.streams[0].codec = Codec::None;
    let (log, _) = Log::open(options).unwrap();
    let mut written = append("one", [1, 2]);
    written.changes = vec![put("key", "value")];
    let expected = (written.records.clone(), written.changes.clone());
    log.append(written).await.unwrap();
    log.close().await.unwrap();

    let segment = std::fs::read(&segments(directory.path(), "one")[0]).unwrap();
    assert_eq!(segment[56], 1);
    let derived = blake3::derive_key("skerry log format 1: key id", &KEY);
    assert_eq!(segment[161..169], derived[..8]);
    assert_eq!(id(KEY).to_string(), hex(&derived[..8]));
    let at = frames(&segment)[0];
    let (header, sealed) = segment[at..].split_at(HEADER_BYTES);
    assert_eq!(header[49], SEALED | 1);
    let sealed = &sealed[..u32_at(header, 4)];
    let key = blake3::derive_key("skerry log format 1: frames", &KEY);
    let cipher = XChaCha20Poly1305::new(&key.into());
    let associated = [&place(&segment), &header[..FIELDS_BYTES]].concat();
    let mut body = sealed.to_vec();
    let nonce = nonce(&segment, at).into();
    cipher
        .decrypt_in_place(&nonce, &associated, &mut body)
        .unwrap();
    assert_eq!(body.len(), u32_at(header, 8));
    assert_eq!(body.len() + 16, sealed.len());
    let body: (Vec<Record>, Vec<Change>) = postcard::from_bytes(&body).unwrap();
    assert_eq!(body, expected);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn whatever_is_written_is_there_again_with_the_key() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = open(directory.path());
    write_hidden(&log).await;
    for key in ["b/2", "a/1", "a/3", "a/2"] {
        log.append(change(put(key, key))).await.unwrap();
    }
    let gone = Change::Delete {
        bucket: "test".into(),
        key: "a/2".into(),
    };
    log.append(change(gone)).await.unwrap();
    let check = |log: &Log| {
        check_hidden(log);
        assert_eq!(read_all(log, "one").0.len(), 4);
        let found = log.scan("test", b"a/").unwrap();
        let found: Vec<_> = found.iter().map(|(key, value)| [key, value]).collect();
        assert_eq!(found, [["a/1"; 2], ["a/3"; 2]]);
        assert_eq!(log.scan("test", b"").unwrap().len(), 4);
        assert_eq!(log.scan("tes", b"").unwrap(), []);
        assert_eq!(log.get("test", b"a/2").unwrap(), None);
    };
    check(&log);
    log.close().await.unwrap();
    let (log, recovery) = open(directory.path());
    assert!(!recovery.catalog_rebuilt && recovery.clean_stop);
    check(&log);
    // Killed, and the catalog is lost.
    let crashed = tempfile::tempdir().unwrap();
    copy(directory.path(), crashed.path());
    std::fs::remove_dir_all(crashed.path().join("catalog")).unwrap();
    let (log, recovery) = open(crashed.path());
    assert!(recovery.catalog_rebuilt && recovery.records_missing == 0);
    check(&log);
}

#[tokio::test]
async fn nothing_in_the_directory_gives_the_site_away() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (log, _) = open(directory);
    write_hidden(&log).await;
    assert_eq!(leaks(directory), [], "while it runs");
    log.close().await.unwrap();
    assert_eq!(leaks(directory), [], "after it");
    // Damage is copied to quarantine, and the catalog is made anew.
    let damaged = &segments(directory, "one")[0];
    let mut bytes = std::fs::read(damaged).unwrap();
    let last = *frames(&bytes).last().unwrap();
    bytes[SEGMENT_HEADER_BYTES + HEADER_BYTES + 20] ^= 1;
    assert!(last > SEGMENT_HEADER_BYTES);
    std::fs::write(damaged, bytes).unwrap();
    std::fs::remove_dir_all(directory.join("catalog")).unwrap();
    let (log, _) = open(directory);
    assert_eq!(read_all(&log, "one").1.len(), 1);
    write_hidden(&log).await;
    log.close().await.unwrap();
    assert!(!files(&directory.join("quarantine")).is_empty());
    assert_eq!(leaks(directory), []);
}

#[tokio::test]
async fn a_log_that_was_clear_goes_on_encrypted_and_its_catalog_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (log, _) = Log::open(options(directory)).unwrap();
    write_hidden(&log).await;
    log.append(append("one", 0..10)).await.unwrap();
    log.close().await.unwrap();
    assert!(!leaks(&directory.join("catalog")).is_empty());
    assert!(!leaks(&directory.join("streams/_catalog")).is_empty());
    let before = segments(directory, "one");

    let (log, recovery) = open(directory);
    assert!(recovery.catalog_rebuilt && recovery.clean_stop);
    check_hidden(&log);
    assert_eq!(leaks(&directory.join("catalog")), []);
    assert_eq!(leaks(&directory.join("streams/_catalog")), []);
    log.append(append("one", 10..20)).await.unwrap();
    let (records, missing) = read_all(&log, "one");
    assert_eq!((records.len(), missing), (4 + 20, vec![]));
    log.close().await.unwrap();
    // What was clear stays so until retention takes it; all that came after is not.
    for file in segments(directory, "one") {
        let sealed = std::fs::read(&file).unwrap()[56] == 1;
        assert_eq!(sealed, !before.contains(&file), "{file:?}");
    }
    assert!(inspect::verify(directory, None).unwrap().is_sound());
    let report = inspect::verify(directory, Some(&Keys::new(KEY, []))).unwrap();
    assert!(report.is_sound() && report.locked_frames == 0, "{report:?}");
    // Not made anew again, and not to be had in clear any more.
    let (log, recovery) = open(directory);
    assert!(!recovery.catalog_rebuilt);
    check_hidden(&log);
    log.close().await.unwrap();
    assert!(Log::open(options(directory)).is_err());
}

fn refused(options: Options, needed: [u8; 32]) -> String {
    let directory = options.directory.clone();
    let before = files(&directory);
    let Err(error) = Log::open(options) else {
        panic!("it opens");
    };
    assert_eq!(error.class(), Class::Fatal);
    assert!(files(&directory) == before, "a refusal changes nothing");
    let text = error.to_string();
    assert!(matches!(error, Error::Key { .. }), "{text}");
    assert!(text.contains(&id(needed).to_string()), "{text}");
    text
}

#[tokio::test]
async fn without_its_key_a_log_does_not_open_and_nothing_in_it_counts_as_damage() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (log, _) = open(directory);
    write_hidden(&log).await;
    log.close().await.unwrap();

    let told = refused(options(directory), KEY);
    assert!(told.contains("no key was given"), "{told}");
    let told = refused(keyed(directory, OTHER, &[]), KEY);
    assert!(told.contains(&id(OTHER).to_string()), "{told}");
    let (log, recovery) = open(directory);
    assert!(recovery.clean_stop && recovery.quarantined_frames == 0);
    check_hidden(&log);
    drop(log);

    // From outside: what needs no key is there without one.
    assert_eq!(inspect::streams(directory).unwrap().len(), 3);
    for keys in [None, Some(Keys::new(OTHER, []))] {
        let report = inspect::verify(directory, keys.as_ref()).unwrap();
        assert!(report.is_sound(), "{report:?}");
        assert_eq!((report.records, report.locked_frames), (4, report.frames));
        let records = inspect::records(directory, &name("one"), Offset::ZERO, keys.as_ref());
        assert!(matches!(records, Err(Error::Key { .. })));
    }
    assert_eq!(payloads(directory, &Keys::new(KEY, [])).len(), 4);

    // Where no header says that there is a key, the frames do.
    for (file, mut bytes) in files(&directory.join("streams")) {
        bytes[20] ^= 1;
        std::fs::write(file, bytes).unwrap();
    }
    let Err(Error::Key { needed: None, .. }) = Log::open(options(directory)) else {
        panic!("it opens");
    };
    let (log, recovery) = open(directory);
    assert_eq!(recovery.records_missing, 0);
    check_hidden(&log);
    assert_eq!(read_all(&log, "one").0.len(), 4);
}

#[tokio::test]
async fn a_key_is_replaced_and_leaves_once_nothing_needs_it() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let limited = |first, older: &[[u8; 32]]| {
        let mut options = keyed(directory, first, older);
        options.streams[0].bytes_max = 40_000;
        options.streams[0].when_full = WhenFull::DropOldest;
        options
    };
    let (log, _) = Log::open(limited(KEY, &[])).unwrap();
    write_hidden(&log).await;
    log.close().await.unwrap();
    let (log, recovery) = Log::open(limited(OTHER, &[KEY])).unwrap();
    assert!(recovery.catalog_rebuilt);
    check_hidden(&log);
    assert_eq!(read_all(&log, "one").0.len(), 4);
    log.append(append("one", 0..5)).await.unwrap();
    log.close().await.unwrap();
    // The journal needs the new one alone.
    for file in segments(directory, "_catalog") {
        assert_eq!(std::fs::read(file).unwrap()[161..169], key_id(OTHER));
    }
    refused(limited(KEY, &[]), OTHER);
    refused(limited(OTHER, &[]), KEY);
    // Neither is the other one's to write with: the order says which.
    let (log, _) = Log::open(limited(OTHER, &[KEY])).unwrap();
    for number in 0..400 {
        let mut record = record(number);
        record.payload = noise(number, 100).into();
        let mut append = append("one", []);
        append.records = vec![record];
        log.append(append).await.unwrap();
    }
    log.close().await.unwrap();
    let (log, recovery) = Log::open(limited(OTHER, &[])).unwrap();
    assert!(!recovery.catalog_rebuilt);
    check_hidden(&log);
}

fn key_id(key: [u8; 32]) -> [u8; 8] {
    let derived = blake3::derive_key("skerry log format 1: key id", &key);
    *derived.first_chunk().unwrap()
}

#[tokio::test]
async fn copies_of_a_disk_never_use_one_nonce_twice() {
    let [one, two] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (log, _) = open(one.path());
    log.append(append("one", [0])).await.unwrap();
    copy(one.path(), two.path());
    drop(log);
    for copy in [one.path(), two.path(), one.path()] {
        let (log, _) = open(copy);
        for number in 0..20 {
            let stream = ["one", "two"][number as usize % 2];
            log.append(append(stream, [number])).await.unwrap();
            log.append(change(put("key", "value"))).await.unwrap();
        }
        log.close().await.unwrap();
    }
    let mut sequences = BTreeMap::<_, usize>::new();
    let mut nonces = BTreeMap::<_, Vec<u8>>::new();
    for (_, segment) in files(&one.path().join("streams"))
        .into_iter()
        .chain(files(&two.path().join("streams")))
    {
        for at in frames(&segment) {
            assert_eq!(segment[at + 49] & SEALED, SEALED);
            let frame = &segment[at..at + HEADER_BYTES + u32_at(&segment, at + 4)];
            *sequences.entry(frame[24..32].to_vec()).or_default() += 1;
            let twice = nonces.insert(nonce(&segment, at), frame.to_vec());
            // What was copied is in both.
            assert!(twice.is_none_or(|other| other == frame));
        }
    }
    let twice = sequences.values().filter(|count| **count > 1).count();
    assert!(
        twice > 20,
        "the copies do number their frames alike: {twice}"
    );
}

/// Every byte of a frame, each with the frame's checksums made to pass.
#[tokio::test]
async fn an_altered_frame_is_found_out_whatever_checksums_pass() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    for life in 0..3 {
        let (log, _) = open(directory);
        for frame in 0..3 {
            let number = 10 * life + frame;
            log.append(append("one", [number, number])).await.unwrap();
        }
        log.close().await.unwrap();
    }
    let keys = Keys::new(KEY, []);
    let sound = payloads(directory, &keys);
    assert_eq!(sound.len(), 18);
    let file = &segments(directory, "one")[1];
    let honest = std::fs::read(file).unwrap();
    let (at, end) = (frames(&honest)[1], frames(&honest)[2]);
    let checksums = at + FIELDS_BYTES..at + HEADER_BYTES;
    let mut kinds = BTreeSet::new();
    for byte in (at..end).filter(|byte| !checksums.contains(byte)) {
        for bit in [0, 5] {
            let mut altered = honest.clone();
            altered[byte] ^= 1 << bit;
            make_pass(&mut altered, at);
            std::fs::write(file, altered).unwrap();
            let report = inspect::verify(directory, Some(&keys)).unwrap();
            let mut faults = report.faults.iter().filter(|fault| fault.file == *file);
            let fault = faults.next().map(|fault| fault.kind);
            kinds.insert(format!("{fault:?}"));
            assert!(fault.is_some(), "bit {bit} of byte {}", byte - at);
            let read = payloads(directory, &keys);
            // A frame that claims to be longer takes a byte of the next one.
            let rest = sound.iter().filter(|(at, _)| !(8..12).contains(at));
            let other = read.iter().filter(|(at, _)| !(10..12).contains(at));
            assert!(other.eq(rest), "bit {bit} of byte {}", byte - at);
            assert!(read.iter().all(|record| sound.contains(record)));
        }
    }
    assert!(kinds.contains("Some(Seal)"), "{kinds:?}");
    std::fs::write(file, honest).unwrap();
    assert!(inspect::verify(directory, Some(&keys)).unwrap().is_sound());
}

#[tokio::test]
async fn a_frame_from_elsewhere_is_found_out() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (log, _) = open(directory);
    // Of one length, at one offset, in two streams.
    log.append(append("one", [1])).await.unwrap();
    log.append(append("two", [1])).await.unwrap();
    log.close().await.unwrap();
    let [one, two] = ["one", "two"].map(|stream| segments(directory, stream).remove(0));
    let from = std::fs::read(one).unwrap();
    let mut to = std::fs::read(&two).unwrap();
    assert_eq!(from.len(), to.len());
    to[SEGMENT_HEADER_BYTES..].copy_from_slice(&from[SEGMENT_HEADER_BYTES..]);
    make_pass(&mut to, SEGMENT_HEADER_BYTES);
    std::fs::write(&two, to).unwrap();
    let report = inspect::verify(directory, Some(&Keys::new(KEY, []))).unwrap();
    let [fault] = &report.faults[..] else {
        panic!("{report:?}");
    };
    assert_eq!((fault.kind, &fault.file), (FaultKind::Seal, &two));
    assert_eq!(fault.missing, Some((Offset(0), Offset(1))));
}

#[tokio::test]
async fn what_was_altered_is_told_once_in_a_gap_record_and_never_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (log, _) = open(directory);
    for number in 0..6 {
        log.append(append("one", [number])).await.unwrap();
    }
    log.close().await.unwrap();
    // One with another base offset, so that it passes for one that was read already; and the last.
    let file = &segments(directory, "one")[0];
    let mut bytes = std::fs::read(file).unwrap();
    let frames = frames(&bytes);
    bytes[frames[2] + 16] = 0;
    bytes[frames[5] + HEADER_BYTES] ^= 1;
    make_pass(&mut bytes, frames[2]);
    make_pass(&mut bytes, frames[5]);
    std::fs::write(file, &bytes).unwrap();
    let (log, recovery) = open(directory);
    assert_eq!((recovery.torn_bytes, recovery.records_missing), (0, 0));
    let (records, missing) = read_all(&log, "one");
    let there: Vec<_> = records.iter().map(|(offset, _)| *offset).collect();
    assert_eq!((there, missing), (vec![0, 1, 3, 4], vec![(2, 3), (5, 6)]));
    // Noted by the next commit.
    log.append(append("one", [6])).await.unwrap();
    log.close().await.unwrap();
    let (log, _) = open(directory);
    let mut reader = log.reader(&name("one"), Offset(6)).unwrap();
    let records = reader.next(1 << 20).unwrap().records;
    let gaps = records
        .iter()
        .filter(|(_, record)| record.kind == Kind::Gap);
    let gaps: Vec<_> = gaps.map(|(_, gap)| text(gap)).collect();
    assert_eq!(gaps.len(), 2, "{gaps:?}");
    for (gap, offsets) in gaps.iter().zip(["[2,3]", "[5,6]"]) {
        assert!(gap.contains("not what was encrypted"), "{gap}");
        assert!(gap.contains(offsets), "{gap}");
    }
    assert_eq!(&std::fs::read(file).unwrap(), &bytes);
    assert_eq!(files(&directory.join("quarantine")).len(), 2);
}

fn text(record: &Record) -> String {
    String::from_utf8(record.payload.to_vec()).unwrap()
}
