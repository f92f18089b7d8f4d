//! The log against a plain model in memory, with segments that roll every few records.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod common;

use common::*;
use proptest::prelude::*;
use skerry_store::inspect::{self, FaultKind};
use skerry_store::{Append, Change, Log, Offset, Options};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const STREAMS: [&str; 2] = ["one", "two"];
const STREAMS_ON_DISK: [&str; 3] = ["one", "two", "_catalog"];

#[derive(Debug, Clone)]
enum Step {
    Append {
        stream: usize,
        records: u8,
        changes: Vec<Edit>,
    },
    Read {
        stream: usize,
        from: u16,
        bytes_max: u16,
    },
    Reopen,
    /// The process dies: the files stay as they are at this moment.
    Crash,
    /// The catalog's files are lost as well.
    CrashWithoutCatalog,
    /// The disk lies: the end of a file is not there after all.
    Truncate {
        pick: u16,
        bytes: u16,
    },
    /// A bit of a file flips.
    Flip {
        pick: u16,
        at: u32,
        bit: u8,
    },
}

/// A [`Change`], short to print. `next` wraps at the head of its stream.
#[derive(Debug, Clone)]
enum Edit {
    Advance {
        cursor: u8,
        stream: usize,
        next: u64,
    },
    Put {
        key: u8,
        size: usize,
    },
    Delete {
        key: u8,
    },
}

impl Edit {
    fn change(&self, heads: [usize; 2]) -> Change {
        match *self {
            Self::Advance {
                cursor,
                stream,
                next,
            } => {
                let next = next % (heads[stream] as u64 + 1);
                advance(&cursor.to_string(), STREAMS[stream], next)
            }
            Self::Put { key, size } => put(&key.to_string(), vec![key; size]),
            Self::Delete { key } => Change::Delete {
                bucket: "test".into(),
                key: key.to_string().into(),
            },
        }
    }
}

fn an_edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (0..3_u8, 0..2_usize, 0..50_u64).prop_map(|(cursor, stream, next)| Edit::Advance {
            cursor,
            stream,
            next,
        }),
        (0..6_u8, 0..9_000_usize).prop_map(|(key, size)| Edit::Put { key, size }),
        (0..6_u8).prop_map(|key| Edit::Delete { key }),
    ]
}

fn a_step() -> impl Strategy<Value = Step> {
    let append = (0..2_usize, 0..6_u8, prop::collection::vec(an_edit(), 0..3)).prop_map(
        |(stream, records, changes)| Step::Append {
            stream,
            records,
            changes,
        },
    );
    prop_oneof![
        12 => append,
        4 => (0..2_usize, any::<u16>(), any::<u16>()).prop_map(|(stream, from, bytes_max)| {
            Step::Read { stream, from, bytes_max }
        }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
        1 => Just(Step::CrashWithoutCatalog),
        1 => (any::<u16>(), any::<u16>()).prop_map(|(pick, bytes)| Step::Truncate { pick, bytes }),
        1 => (any::<u16>(), any::<u32>(), 0..8_u8)
            .prop_map(|(pick, at, bit)| Step::Flip { pick, at, bit }),
    ]
}

/// What the log has to hold. `None` is an offset that is known to be lost.
#[derive(Debug, Default)]
struct Model {
    streams: [Vec<Option<String>>; 2],
    cursors: BTreeMap<(String, String), u64>,
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    written: u64,
}

impl Model {
    fn apply(&mut self, change: &Change) {
        match change.clone() {
            Change::Advance {
                cursor,
                stream,
                next,
            } => {
                self.cursors.insert((cursor, stream), next.0);
            }
            Change::Put { key, value, .. } => {
                self.entries.insert(key.to_vec(), value.to_vec());
            }
            Change::Delete { key, .. } => {
                self.entries.remove(&key[..]);
            }
        }
    }

    fn check(&self, log: &Log) {
        for (stream, expected) in STREAMS.iter().zip(&self.streams) {
            assert_eq!(&contents(log, stream), expected, "stream {stream}");
        }
        self.check_catalog(log);
    }

    fn check_catalog(&self, log: &Log) {
        for cursor in ["0", "1", "2"] {
            for stream in STREAMS {
                let expected = self.cursors.get(&(cursor.into(), stream.into()));
                let found = log.cursor(cursor, &name(stream)).unwrap();
                assert_eq!(found.map(|next| next.0).as_ref(), expected);
            }
        }
        let found: BTreeMap<_, _> = entries(log);
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            self.entries.keys().collect::<Vec<_>>()
        );
        assert!(found == self.entries, "values differ");
    }

    /// After the disk lost or changed something: nothing may read wrongly, every offset before the
    /// head reads or is known to be lost, and gap records say so. The model goes on from there.
    fn adopt(&mut self, log: &Log) {
        for (stream, before) in STREAMS.iter().zip(&mut self.streams) {
            let found = contents(log, stream);
            // The very end of the newest segment cannot be told from a torn write: it may be
            // gone without a word, where no cursor and no marker remembers it.
            before.truncate(found.len());
            for (offset, (found, before)) in found.iter().zip(before.iter()).enumerate() {
                let is_gap = found
                    .as_ref()
                    .is_some_and(|found| found.contains("offsets"));
                assert!(
                    found.is_none() || found == before || is_gap,
                    "stream {stream} at {offset}: {found:?}, not {before:?}"
                );
            }
            for added in &found[before.len()..] {
                // Nothing but the log's own gap records may be there beyond what was written.
                let record = added.as_deref().unwrap_or("nothing");
                assert!(record.contains("offsets"), "stream {stream} has {record}");
            }
            *before = found;
        }
        self.entries = entries(log);
        self.cursors.clear();
        for cursor in ["0", "1", "2"] {
            for stream in STREAMS {
                if let Some(next) = log.cursor(cursor, &name(stream)).unwrap() {
                    self.cursors.insert((cursor.into(), stream.into()), next.0);
                }
            }
        }
    }
}

fn entries(log: &Log) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let entries = log.scan("test", b"").unwrap().into_iter();
    entries
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .collect()
}

fn contents(log: &Log, stream: &str) -> Vec<Option<String>> {
    let (records, missing) = read_all(log, stream);
    let head = log.head(&name(stream)).unwrap().borrow().0;
    let mut contents = vec![None; head as usize];
    for (first, next) in missing {
        assert!(first < next && next <= head);
    }
    for (offset, record) in records {
        contents[offset as usize] = Some(record);
    }
    contents
}

/// Copies a directory in which segments may still be removed: that happens after the answer.
fn copy_at_rest(from: &Path, to: &Path) {
    let listing = || STREAMS_ON_DISK.map(|stream| segments(from, stream));
    loop {
        let before = listing();
        std::thread::sleep(std::time::Duration::from_millis(20));
        if listing() == before {
            let copied = std::panic::catch_unwind(|| copy(from, to));
            if copied.is_ok() && listing() == before {
                return;
            }
            std::fs::remove_dir_all(to).unwrap();
        }
    }
}

struct Bench {
    runtime: tokio::runtime::Runtime,
    root: tempfile::TempDir,
    generation: u32,
    log: Option<Log>,
    model: Model,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let mut bench = Self {
            runtime,
            root: tempfile::tempdir().unwrap(),
            generation: 0,
            log: None,
            model: Model::default(),
        };
        bench.open();
        bench
    }

    fn directory(&self) -> PathBuf {
        self.root.path().join(self.generation.to_string())
    }

    fn options(&self) -> Options {
        let mut options = options(&self.directory());
        options.segment_bytes = 900;
        options
    }

    fn open(&mut self) {
        let (log, _) = Log::open(self.options()).unwrap();
        self.log = Some(log);
    }

    fn log(&self) -> &Log {
        self.log.as_ref().unwrap()
    }

    /// Goes on with a copy of the files, changed by `damage`, that a crash would have left.
    fn crash(&mut self, damage: impl FnOnce(&Path)) {
        let from = self.directory();
        self.generation += 1;
        copy_at_rest(&from, &self.directory());
        self.log = None;
        std::fs::remove_dir_all(from).unwrap();
        damage(&self.directory());
        self.open();
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Append {
                stream,
                records,
                changes,
            } => self.append(stream, records, &changes),
            Step::Read {
                stream,
                from,
                bytes_max,
            } => self.read(stream, from, bytes_max),
            Step::Reopen => {
                self.log = None;
                self.open();
                self.model.check(self.log());
            }
            Step::Crash => {
                self.crash(|_| {});
                self.model.check(self.log());
            }
            Step::CrashWithoutCatalog => {
                self.crash(|directory| {
                    std::fs::remove_dir_all(directory.join("catalog")).unwrap();
                });
                self.model.check(self.log());
            }
            Step::Truncate { pick, bytes } => {
                self.crash(|directory| {
                    let newest = STREAMS.map(|stream| segments(directory, stream).pop());
                    let Some(Some(file)) = newest.get(usize::from(pick) % 2) else {
                        return;
                    };
                    // Behind that there may be room.
                    let length = written(file);
                    let file = std::fs::File::options().write(true).open(file).unwrap();
                    file.set_len(length.saturating_sub(u64::from(bytes) % 500))
                        .unwrap();
                });
                self.adopt();
            }
            Step::Flip { pick, at, bit } => {
                self.crash(|directory| {
                    let files: Vec<_> = STREAMS
                        .iter()
                        .flat_map(|stream| segments(directory, stream))
                        .filter(|file| std::fs::metadata(file).unwrap().len() > 0)
                        .collect();
                    if files.is_empty() {
                        return;
                    }
                    let file = &files[usize::from(pick) % files.len()];
                    let mut bytes = std::fs::read(file).unwrap();
                    let at = at as usize % bytes.len();
                    bytes[at] ^= 1 << bit;
                    std::fs::write(file, bytes).unwrap();
                });
                self.adopt();
            }
        }
    }

    fn append(&mut self, stream: usize, records: u8, edits: &[Edit]) {
        if records == 0 && edits.is_empty() {
            return;
        }
        let heads = [0, 1].map(|stream: usize| self.model.streams[stream].len());
        let changes: Vec<_> = edits.iter().map(|edit| edit.change(heads)).collect();
        let first = self.model.written;
        self.model.written += u64::from(records);
        let append = Append {
            changes: changes.clone(),
            ..append(STREAMS[stream], first..self.model.written)
        };
        let committed = self.runtime.block_on(self.log().append(append)).unwrap();
        let contents = &mut self.model.streams[stream];
        assert_eq!(committed.first, Offset(contents.len() as u64));
        contents.extend((first..self.model.written).map(|record| Some(record.to_string())));
        assert_eq!(committed.next, Offset(contents.len() as u64));
        changes.iter().for_each(|change| self.model.apply(change));
        self.model.check_catalog(self.log());
    }

    /// Reading comes upon the damage, the next commit notes it.
    fn adopt(&mut self) {
        self.model.adopt(self.log.as_ref().unwrap());
        let nothing = change(Edit::Delete { key: 200 }.change([0, 0]));
        self.runtime.block_on(self.log().append(nothing)).unwrap();
        self.model.adopt(self.log.as_ref().unwrap());
    }

    fn read(&self, stream: usize, from: u16, bytes_max: u16) {
        let expected = &self.model.streams[stream];
        let from = usize::from(from) % (expected.len() + 2);
        let stream = name(STREAMS[stream]);
        let mut reader = self.log().reader(&stream, Offset(from as u64)).unwrap();
        let batch = reader.next(usize::from(bytes_max)).unwrap();
        assert_eq!(batch.is_empty(), from >= expected.len());
        let mut at = from;
        if let Some((first, next)) = batch.missing {
            assert_eq!(first.0 as usize, from);
            assert!(expected[from..next.0 as usize].iter().all(Option::is_none));
            at = next.0 as usize;
        }
        for (offset, record) in batch.records {
            assert_eq!(offset.0 as usize, at);
            assert_eq!(
                expected[at].as_ref().unwrap().as_bytes(),
                &record.payload[..]
            );
            at += 1;
        }
        assert_eq!(reader.position().0 as usize, at.max(from));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 30, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_what_the_model_says(steps in prop::collection::vec(a_step(), 1..60)) {
        let mut bench = Bench::new();
        for step in steps {
            bench.run(step);
        }
        bench.model.check(bench.log());
        bench.log = None;
        // Damage there may be; none of it is mistaken for somebody's work.
        let report = inspect::verify(&bench.directory(), None).unwrap();
        let broken = report.faults.iter().find(|fault| fault.kind == FaultKind::Chain);
        assert_eq!(broken, None);
    }
}

/// Found by the test above. The first crash has the catalog replay the two advances; then the
/// disk loses their frame to before its header, so that no torn byte is left to tell of it.
#[test]
fn a_replayed_catalog_knows_when_the_log_lost_what_it_replayed() {
    let fill = |stream, records, changes| Step::Append {
        stream,
        records,
        changes,
    };
    let advance = |stream, next| Edit::Advance {
        cursor: 1,
        stream,
        next,
    };
    let put = |key, size| vec![Edit::Put { key, size }];
    let mut bench = Bench::new();
    for step in [
        fill(0, 2, vec![]),
        fill(0, 0, put(2, 5_016)),
        fill(1, 1, put(3, 4_658)),
        Step::Reopen,
        fill(0, 5, vec![advance(1, 4), advance(0, 34)]),
        fill(1, 1, vec![]),
        Step::Crash,
        // Has the catalog write down what it replayed.
        fill(0, 0, vec![Edit::Delete { key: 5 }]),
        Step::Truncate {
            pick: 0,
            bytes: 350,
        },
    ] {
        bench.run(step);
    }
    assert!(bench.model.streams[0][2..7].iter().all(Option::is_none));
    assert!(bench.model.cursors.is_empty());
    bench.run(Step::CrashWithoutCatalog);
}

/// Found by the test above. The disk loses the only frame of the newest segment, then a bit of the
/// last frame before it: that one is taken for torn and cut off, and the empty segment's header
/// still names what was there.
#[test]
fn a_segment_without_a_frame_is_no_link_of_the_chain() {
    let fill = |records| Step::Append {
        stream: 0,
        records,
        changes: vec![],
    };
    let mut bench = Bench::new();
    // As many as two segments and a part of the next.
    for _ in 0..8 {
        bench.run(fill(5));
    }
    bench.run(Step::Reopen);
    let files = || segments(&bench.directory(), "one");
    let (last, before) = {
        let mut files = files();
        (files.pop().unwrap(), files.pop().unwrap())
    };
    let offset = |file: &Path| file.strip_prefix(bench.directory()).unwrap().to_owned();
    let (last, before) = (offset(&last), offset(&before));
    let empty = |directory: &Path| {
        let file = std::fs::File::options()
            .write(true)
            .open(directory.join(&last));
        // Its header.
        file.unwrap().set_len(256).unwrap();
        let mut bytes = std::fs::read(directory.join(&before)).unwrap();
        let at = written(&directory.join(&before)) as usize - 5;
        bytes[at] ^= 1;
        std::fs::write(directory.join(&before), bytes).unwrap();
    };
    bench.crash(empty);
    bench.adopt();
    bench.run(fill(1));
    bench.log = None;
    let report = inspect::verify(&bench.directory(), None).unwrap();
    let broken = report
        .faults
        .iter()
        .find(|fault| fault.kind == FaultKind::Chain);
    assert_eq!(broken, None);
}
