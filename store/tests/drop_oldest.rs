//! `in = out + gaps` for a reader that comes and goes while its stream is full and grows old: whatever it did
//! not get to read, the gap records that it did get to read account for, each offset once.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod common;

use common::*;
use proptest::prelude::*;
use skerry_store::{
    Append, Disk, Fault, Gap, Kind, Log, Offset, Operation, Options, Record, WhenFull,
};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const FOREIGN: &str = "the sensor was silent";

#[derive(Debug, Clone)]
enum Step {
    /// This many records, each in an append of its own.
    Append(u8),
    /// A gap record that another part of the node wrote, and how much it stands for.
    ForeignGap(u8),
    /// The reader reads on, this many bytes, and says so.
    Read(u16),
    Reopen,
    /// This many appends come while the disk takes nothing.
    DiskFull(u8),
    /// This many records for another stream, that the quota over both has to hold as well.
    Other(u8),
    /// This many minutes pass; records stay for an hour.
    Pass(u8),
}

#[derive(Default)]
struct World {
    disk_is_full: AtomicBool,
    minutes: AtomicU32,
}

impl Fault for World {
    fn before(&self, operation: Operation, _: &Path) -> io::Result<()> {
        let grows = matches!(operation, Operation::Create | Operation::Write);
        if grows && self.disk_is_full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn skipped(&self) -> Duration {
        MINUTE * self.minutes.load(Ordering::SeqCst)
    }
}

fn a_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..60_u8).prop_map(Step::Append),
        1 => (1..9_u8).prop_map(Step::ForeignGap),
        3 => (1..400_u16).prop_map(Step::Read),
        1 => Just(Step::Reopen),
        1 => (1..3_u8).prop_map(Step::DiskFull),
        2 => (1..90_u8).prop_map(Step::Pass),
        2 => (1..60_u8).prop_map(Step::Other),
    ]
}

struct Bench {
    runtime: tokio::runtime::Runtime,
    options: Options,
    world: Arc<World>,
    log: Option<Log>,
    written: u64,
    foreign_written: u64,
    position: Offset,
    delivered: u64,
    told: u64,
    foreign_told: u64,
}

impl Bench {
    fn new(options: Options) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let mut bench = Self {
            runtime: runtime.unwrap(),
            log: None,
            world: Arc::default(),
            options,
            written: 0,
            foreign_written: 0,
            position: Offset::ZERO,
            delivered: 0,
            told: 0,
            foreign_told: 0,
        };
        bench.open();
        bench
    }

    fn open(&mut self) {
        self.log = None;
        self.world.minutes.store(0, Ordering::SeqCst);
        let disk = Disk::failing(self.world.clone());
        self.log = Some(Log::open_on(self.options.clone(), disk).unwrap().0);
    }

    fn log(&self) -> &Log {
        self.log.as_ref().unwrap()
    }

    fn append(&self, append: Append) {
        self.runtime.block_on(self.log().append(append)).unwrap();
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Append(records) => {
                for _ in 0..records {
                    self.append(append("one", [self.written]));
                    self.written += 1;
                }
            }
            Step::ForeignGap(count) => {
                let gap = Gap {
                    subject: "plc/pressure".to_owned(),
                    offsets: None,
                    from: None,
                    to: None,
                    count: Some(count.into()),
                    reason: FOREIGN.to_owned(),
                };
                self.append(Append {
                    records: vec![gap.into_record()],
                    ..append("one", [])
                });
                self.foreign_written += u64::from(count);
            }
            Step::Read(bytes) => {
                self.read(bytes.into());
            }
            Step::Reopen => self.open(),
            Step::Other(records) => {
                for number in 0..records {
                    self.append(append("two", [number.into()]));
                }
            }
            Step::Pass(minutes) => {
                self.world
                    .minutes
                    .fetch_add(minutes.into(), Ordering::SeqCst);
                // What is too old goes with this commit, not between a read and its confirmation.
                self.append(append("two", [0]));
            }
            Step::DiskFull(appends) => {
                self.world.disk_is_full.store(true, Ordering::SeqCst);
                for _ in 0..appends {
                    let refused = self.log().append(append("one", [self.written]));
                    assert!(self.runtime.block_on(refused).is_err());
                }
                self.world.disk_is_full.store(false, Ordering::SeqCst);
            }
        }
    }

    /// True if there was something to read.
    fn read(&mut self, bytes_max: usize) -> bool {
        let mut reader = self.log().reader(&name("one"), self.position).unwrap();
        let batch = reader.next(bytes_max).unwrap();
        for (_, record) in &batch.records {
            self.delivered += 1;
            self.count(record);
        }
        self.position = reader.position();
        self.append(change(advance("uplink", "one", self.position.0)));
        !batch.is_empty()
    }

    fn count(&mut self, record: &Record) {
        if record.kind != Kind::Gap {
            return;
        }
        let gap: Gap = serde_json::from_slice(&record.payload).unwrap();
        let count = gap.count.unwrap();
        if gap.reason == FOREIGN {
            self.foreign_told += count;
            return;
        }
        let (first, next) = gap.offsets.unwrap();
        assert!(count <= next.0 - first.0 && gap.subject == "one");
        self.told += count;
    }

    fn settle(&mut self) {
        while self.read(10_000) {}
        let head = self.log().head(&name("one")).unwrap().borrow().0;
        assert_eq!(self.delivered + self.told, head, "in = out + gaps");
        assert_eq!(self.foreign_told, self.foreign_written);
    }
}

fn full_stream() -> (tempfile::TempDir, Bench) {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path());
    options.segment_bytes = 900;
    options.streams[0].bytes_max = 4_000;
    options.streams[0].when_full = WhenFull::DropOldest;
    options.streams[0].readers = vec!["uplink".into()];
    options.streams[0].age_max = Some(60 * MINUTE);
    options.streams[1].bytes_max = 8_000;
    options.streams[1].when_full = WhenFull::DropOldest;
    options.journal_reserve_bytes = 16_000;
    options.bytes_max_total = Some(16_000 + 7_000);
    (directory, Bench::new(options))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 40, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn what_is_not_read_is_told(steps in prop::collection::vec(a_step(), 1..40)) {
        let (_directory, mut bench) = full_stream();
        for step in &steps {
            bench.run(step);
        }
        bench.settle();
    }
}

/// The first run's gap record is given up while the second, separate one's still stands.
#[test]
fn two_separate_losses_are_both_told() {
    let (_directory, mut bench) = full_stream();
    for step in [
        Step::Append(55),
        Step::ForeignGap(7),
        Step::Read(60),
        Step::Append(55),
        Step::Read(60),
        Step::Append(200),
    ] {
        bench.run(&step);
    }
    bench.settle();
    assert!(bench.told > 100, "{} were given up", bench.told);
}
