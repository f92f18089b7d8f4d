//! The newest records, which are in memory: readers get the same from there as from the disk, and
//! what is there is bounded.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod common;

use common::*;
use proptest::prelude::*;
use skerry_store::{
    Append, Disk, Durability, Fault, Keys, Kind, Log, Offset, Operation, Options, Reader, Record,
    WhenFull,
};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const STREAMS: [&str; 2] = ["one", "two"];
/// Longer than any test takes.
const FOR_EVER: Duration = Duration::from_secs(3_600);

fn open(options: Options) -> Log {
    Log::open(options).unwrap().0
}

fn recent_bytes(log: &Log) -> Vec<usize> {
    let stats = log.stats();
    STREAMS
        .iter()
        .map(|name| {
            let stream = stats.streams.iter().find(|stream| stream.name == *name);
            stream.unwrap().recent_bytes
        })
        .collect()
}

/// Makes all that is on the disk of a stream unreadable.
fn spoil(directory: &Path, stream: &str) {
    for file in segments(directory, stream) {
        let length = std::fs::metadata(&file).unwrap().len();
        std::fs::write(&file, vec![0xAA; usize::try_from(length).unwrap()]).unwrap();
    }
}

/// Reads on as views until there is nothing; offsets that were missing are none.
fn read_on(reader: &mut Reader, into: &mut Vec<(u64, Option<Record>)>) {
    loop {
        let views = reader.next_views().unwrap();
        if views.is_empty() {
            return;
        }
        let missing = views.missing.map_or(0..0, |(first, next)| first.0..next.0);
        into.extend(missing.map(|offset| (offset, None)));
        let records = views.records;
        into.extend(records.map(|(offset, view)| (offset.0, Some(view.to_record()))));
    }
}

/// The offsets that a new reader gets from `from` on, by each of the two ways to read.
fn offsets_from(log: &Log, stream: &str, from: u64) -> Vec<u64> {
    let mut all = Vec::new();
    let mut reader = log.reader(&name(stream), Offset(from)).unwrap();
    read_on(&mut reader, &mut all);
    let views = all.into_iter().filter(|(_, record)| record.is_some());
    let views: Vec<_> = views.map(|(offset, _)| offset).collect();
    let mut reader = log.reader(&name(stream), Offset(from)).unwrap();
    let mut owned = Vec::new();
    loop {
        let batch = reader.next(10).unwrap();
        if batch.is_empty() {
            break;
        }
        owned.extend(batch.records.iter().map(|(offset, _)| offset.0));
    }
    assert_eq!(views, owned);
    views
}

async fn fill(log: &Log, stream: &str, commits: u64) {
    for number in 0..commits {
        let numbers = [2 * number, 2 * number + 1];
        log.append(append(stream, numbers)).await.unwrap();
    }
}

#[tokio::test]
async fn readers_at_the_head_do_without_the_disk() {
    for keys in [None, Some(Keys::new([7; 32], []))] {
        for recent_bytes_max in [0, 1 << 20] {
            let directory = scratch();
            let mut options = options(directory.path());
            options.keys.clone_from(&keys);
            options.recent_bytes_max = recent_bytes_max;
            let log = open(options);
            fill(&log, "one", 100).await;
            spoil(directory.path(), "one");
            let expected: Vec<u64> = if recent_bytes_max == 0 {
                Vec::new()
            } else {
                (0..200).collect()
            };
            for from in [0, 1, 77, 199] {
                let found = offsets_from(&log, "one", from);
                let from = usize::try_from(from).unwrap().min(expected.len());
                assert_eq!(found, expected[from..]);
            }
        }
    }
}

#[tokio::test]
async fn a_reader_at_the_head_keeps_nothing_open() {
    let directory = scratch();
    let mut options = options(directory.path());
    options.recent_bytes_max = 0;
    let log = open(options);
    fill(&log, "one", 100).await;
    let mut reader = log.reader(&name("one"), Offset(3)).unwrap();
    let opened = || {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
        let files = descriptors.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        let ours = directory.path().join("streams/one");
        files.filter(|file| file.starts_with(&ours)).count()
    };
    let writers = opened();
    reader.next_views().unwrap();
    assert_eq!(opened(), writers + 1);
    read_on(&mut reader, &mut Vec::new());
    assert_eq!(opened(), writers);
    log.append(append("one", [200])).await.unwrap();
    let views = reader.next_views().unwrap();
    assert_eq!(views.records.map(|(at, _)| at.0).collect::<Vec<_>>(), [200]);
}

#[tokio::test]
async fn a_busy_stream_leaves_a_quiet_one_its_share() {
    let directory = scratch();
    let mut options = options(directory.path());
    options.recent_bytes_max = 10_000;
    let log = open(options);
    fill(&log, "two", 5).await;
    let [_, quiet] = recent_bytes(&log)[..] else {
        unreachable!("there are two streams");
    };
    for _ in 0..10 {
        fill(&log, "one", 60).await;
        let held = recent_bytes(&log);
        assert!(held[0] > 5_000 && held[0] + held[1] <= 10_000, "{held:?}");
        assert_eq!(held[1], quiet);
    }
    spoil(directory.path(), "two");
    assert_eq!(offsets_from(&log, "two", 0), (0..10).collect::<Vec<_>>());
    // Now both want more than half of it.
    fill(&log, "two", 200).await;
    let held = recent_bytes(&log);
    assert!(
        held.iter().all(|held| (4_000..6_000).contains(held)),
        "{held:?}"
    );
}

#[tokio::test]
async fn of_a_large_commit_the_end_stays() {
    let directory = scratch();
    let mut options = options(directory.path());
    options.segment_bytes = 64 << 20;
    options.recent_bytes_max = 1 << 20;
    let log = open(options);
    let of = |bytes: usize| Append {
        stream: name("one"),
        records: vec![Record::new(Kind::Mqtt, "s", vec![b'x'; bytes])],
        changes: Vec::new(),
    };
    let mut pending = Vec::new();
    for _ in 0..60 {
        pending.push(log.submit(of(100_000)).await.unwrap());
    }
    for pending in pending {
        pending.committed().await.unwrap();
    }
    let held = recent_bytes(&log)[0];
    assert!((600_000..=1 << 20).contains(&held), "{held}");
    // One that is larger than all there may be takes the place of nothing.
    log.append(of(2 << 20)).await.unwrap();
    assert_eq!(recent_bytes(&log)[0], held);
    assert_eq!(offsets_from(&log, "one", 0).len(), 61);
    log.append(of(10)).await.unwrap();
    assert!(recent_bytes(&log)[0] > held);
    spoil(directory.path(), "one");
    assert_eq!(offsets_from(&log, "one", 61), [61]);
}

#[tokio::test]
async fn what_retention_gave_up_is_gone_from_memory_too() {
    let mut found = Vec::new();
    for recent_bytes_max in [0, 1 << 20] {
        let directory = scratch();
        let mut options = options(directory.path());
        options.recent_bytes_max = recent_bytes_max;
        options.streams[0].bytes_max = 8_000;
        options.streams[0].when_full = WhenFull::DropOldest;
        let log = open(options);
        fill(&log, "one", 500).await;
        let held = recent_bytes(&log)[0];
        assert!(
            held < 40_000 && (held > 0) == (recent_bytes_max > 0),
            "{held}"
        );
        let tail = log.tail(&name("one")).unwrap();
        let mut reader = log.reader(&name("one"), Offset::ZERO).unwrap();
        let views = reader.next_views().unwrap();
        assert_eq!(views.missing, Some((Offset::ZERO, tail)));
        assert_eq!(views.records.map(|(at, _)| at).next(), Some(tail));
        assert!(tail > Offset(100));
        found.push((tail, offsets_from(&log, "one", 0)));
    }
    assert_eq!(found[0], found[1]);
}

/// Holds the writer at its syncs, and fails writes to stream `two`, while told so.
#[derive(Default)]
struct Gate {
    holding: AtomicBool,
    failing: AtomicBool,
}

impl Fault for Gate {
    fn before(&self, operation: Operation, path: &Path) -> io::Result<()> {
        let stream = path.parent().and_then(Path::file_name);
        match operation {
            Operation::Sync => {
                while self.holding.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            Operation::Write
                if stream.is_some_and(|stream| stream == "two")
                    && self.failing.load(Ordering::SeqCst) =>
            {
                return Err(io::Error::from_raw_os_error(5));
            }
            _ => {}
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_seen_before_its_sync_nor_after_it_was_taken_back() {
    let directory = scratch();
    let fault = Arc::new(Gate::default());
    let disk = Disk::failing(fault.clone());
    let (log, _) = Log::open_on(options(directory.path()), disk).unwrap();
    fill(&log, "one", 1).await;
    fill(&log, "two", 1).await;
    let before = recent_bytes(&log);
    let mut reader = log.reader(&name("one"), Offset::ZERO).unwrap();
    assert_eq!(reader.next_views().unwrap().records.count(), 2);

    fault.holding.store(true, Ordering::SeqCst);
    let written = log.submit(append("one", [2])).await.unwrap();
    while recent_bytes(&log) == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(reader.next_views().unwrap().is_empty());
    // Both wait for the writer, so one commit takes them: and fails.
    let first = log.submit(append("one", 100..105)).await.unwrap();
    let second = log.submit(append("two", [100])).await.unwrap();
    fault.failing.store(true, Ordering::SeqCst);
    fault.holding.store(false, Ordering::SeqCst);
    written.committed().await.unwrap();
    first.committed().await.unwrap_err();
    second.committed().await.unwrap_err();
    let held = recent_bytes(&log);
    assert_eq!(reader.next_views().unwrap().records.count(), 1);
    assert!(reader.next_views().unwrap().is_empty());

    fault.failing.store(false, Ordering::SeqCst);
    assert!(held[0] < 2 * before[0] && held[1] == before[1], "{held:?}");
    log.append(append("one", [3])).await.unwrap();
    let mut seen = Vec::new();
    read_on(&mut reader, &mut seen);
    let payload = |(offset, record): &(u64, Option<Record>)| {
        (
            *offset,
            record.as_ref().map(|record| record.payload.clone()),
        )
    };
    let seen: Vec<_> = seen.iter().map(payload).collect();
    assert_eq!(seen, [(3, Some("3".into()))]);
}

#[tokio::test]
async fn what_waits_for_its_sync_is_not_seen() {
    let directory = scratch();
    let mut options = options(directory.path());
    options.streams[0].durability = Durability::Interval(FOR_EVER);
    let log = open(options);
    fill(&log, "one", 10).await;
    assert!(recent_bytes(&log)[0] > 0);
    assert!(offsets_from(&log, "one", 0).is_empty());
    // A change is not to be there before the records are, so this syncs them.
    let snapshots = change(put("key", vec![0; 200_000]));
    log.append(snapshots).await.unwrap();
    while log.stats().snapshots_total == 0 {
        log.append(change(put("key", "value"))).await.unwrap();
    }
    assert_eq!(offsets_from(&log, "one", 0).len(), 20);
}

#[derive(Debug, Clone)]
enum Step {
    /// Appends that are under way together: their stream, records, and bytes of each.
    Append(Vec<(usize, u64, usize)>),
    /// A follower reads what there is.
    Read(usize),
    /// A new follower, somewhere before the head.
    Begin(usize, u16),
}

fn a_step() -> impl Strategy<Value = Step> {
    let one = (0..2_usize, 1..6_u64, 0..300_usize);
    prop_oneof![
        6 => prop::collection::vec(one, 1..6).prop_map(Step::Append),
        4 => any::<usize>().prop_map(Step::Read),
        2 => (0..2_usize, any::<u16>()).prop_map(|(stream, from)| Step::Begin(stream, from)),
    ]
}

struct Follower {
    stream: usize,
    from: u64,
    reader: Reader,
    seen: Vec<(u64, Option<Record>)>,
}

impl Follower {
    fn new(log: &Log, stream: usize, from: u64) -> Self {
        Self {
            stream,
            from,
            reader: log.reader(&name(STREAMS[stream]), Offset(from)).unwrap(),
            seen: Vec::new(),
        }
    }
}

async fn check(steps: Vec<Step>, recent_bytes_max: usize, interval: bool, drops: bool) {
    let directory = scratch();
    let mut options = options(directory.path());
    options.recent_bytes_max = recent_bytes_max;
    if interval {
        options.streams[1].durability = Durability::Interval(Duration::from_millis(2));
    }
    if drops {
        options.streams[0].bytes_max = 10_000;
        options.streams[0].when_full = WhenFull::DropOldest;
    }
    let log = open(options.clone());
    let mut followers: Vec<_> = (0..2)
        .map(|stream| Follower::new(&log, stream, 0))
        .collect();
    let mut number = 0;
    for step in steps {
        match step {
            Step::Append(appends) => {
                let mut pending = Vec::new();
                for (stream, records, bytes) in appends {
                    let records = (0..records).map(|_| {
                        number += 1;
                        Record::new(Kind::Mqtt, number.to_string(), noise(number, bytes))
                    });
                    let append = Append {
                        stream: name(STREAMS[stream]),
                        records: records.collect(),
                        changes: Vec::new(),
                    };
                    pending.push(log.submit(append).await.unwrap());
                }
                for pending in pending {
                    pending.committed().await.unwrap();
                }
            }
            Step::Read(which) => {
                let which = which % followers.len();
                let follower = &mut followers[which];
                read_on(&mut follower.reader, &mut follower.seen);
            }
            Step::Begin(stream, from) => {
                let head = log.head(&name(STREAMS[stream])).unwrap().borrow().0;
                followers.push(Follower::new(&log, stream, u64::from(from) % (head + 1)));
            }
        }
        let held = recent_bytes(&log).iter().sum::<usize>();
        assert!(held <= recent_bytes_max, "{held}");
    }
    for follower in &mut followers {
        read_on(&mut follower.reader, &mut follower.seen);
    }
    log.close().await.unwrap();
    options.recent_bytes_max = 0;
    let log = open(options);
    let on_disk = [0, 1].map(|stream| {
        let mut follower = Follower::new(&log, stream, 0);
        read_on(&mut follower.reader, &mut follower.seen);
        follower.seen
    });
    for follower in followers {
        let truth = &on_disk[follower.stream];
        for (at, (offset, seen)) in follower.seen.iter().enumerate() {
            assert_eq!(*offset, follower.from + at as u64);
            let kept = &truth[usize::try_from(*offset).unwrap()].1;
            // It may have been given up since, or before this one got there.
            let same = seen == kept || kept.is_none() || seen.is_none() && drops;
            assert!(same, "{offset}: {seen:?}, {kept:?}");
        }
        // What an interval had not synced yet is all that nobody has seen.
        let end = follower.from + follower.seen.len() as u64;
        assert!(end == truth.len() as u64 || interval && follower.stream == 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn followers_see_what_is_on_the_disk(
        steps in prop::collection::vec(a_step(), 1..40),
        recent_bytes_max in prop::sample::select(vec![0, 900, 4_000, 1 << 20]),
        interval: bool,
        drops: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(check(steps, recent_bytes_max, interval, drops));
    }
}
