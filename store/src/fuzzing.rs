//! What the fuzz targets in `store/fuzz` run: everything that turns bytes from a disk into values.
//!
//! Here and not there, so that nothing has to be public for it. In a build of the product this
//! module does not exist: it takes `--cfg fuzzing`, or the tests, which run all committed seeds.
//!
//! A target panics where a promise is broken, and returns how many bytes of memory it may have
//! taken at most for the promises to hold.

mod recipe;

use crate::codec::Codec;
use crate::frame::{self, Body, Builder, Encoded, Flaw, Header, Seed, flags};
use crate::recovery::{self, Marker};
use crate::segment::{Check, HEADER_BYTES, Preface, Segment, Step, WINDOW_BYTES, Walk};
use crate::{APPEND_BYTES_MAX, Change, Gap, Kind, Offset, Record, encoding, give_up};
use recipe::{FILE_BYTES_MAX, Input, Origin};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

/// Its name, which is also that of its seeds' folder, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]) -> usize);

pub const TARGETS: [Target; 6] = [
    ("record", record),
    ("frame", frame),
    ("segment", segment),
    ("preface", preface),
    ("clean_stop", clean_stop),
    ("gap", gap),
];

/// The body of a frame, for seeds.
#[must_use]
pub fn body(records: &[Record], changes: &[Change]) -> Vec<u8> {
    encoding::encode(&(records, changes))
}

/// What the values of a body may take. An empty attribute has 2 bytes in a body and 56 as a
/// value, up to three times that while its vector grows, and the same again for the copy that is
/// compared; postcard makes room for 1 MiB of items ahead, in every vector it is in.
const fn decoded_bytes_max(body_bytes: usize) -> usize {
    8 * 1024 * 1024 + 256 * body_bytes
}

/// The body of a frame, and nothing around it.
pub fn record(input: &[u8]) -> usize {
    let values = Body::decode(input, BASE).map(|body| values(&body));
    // Records are decoded by hand: postcard is to find the same.
    assert_eq!(values, encoding::decode(input));
    if let Some(values) = values {
        is_the_same_again(&values);
    }
    decoded_bytes_max(input.len())
}

type Values = (Vec<Record>, Vec<Change>);

const BASE: Offset = Offset(4);

fn values(body: &Body<'_>) -> Values {
    let records = body.records.map(|(_, record)| record.to_record());
    (records.collect(), body.changes.clone())
}

/// What decodes is what a frame of it decodes to, with every codec.
fn is_the_same_again(values: &Values) {
    let (records, changes) = values;
    let seed = Seed::new(1, Offset(2), 3);
    let append = Encoded::new(records, changes.clone());
    let mut builder = Builder::new(BASE);
    builder.push(&append);
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
        let (mut body, mut bytes) = (Vec::new(), Vec::new());
        let written = builder.finish(5, &seed, codec, &mut body, &mut bytes);
        let (head, payload) = bytes.split_first_chunk().expect("a header");
        let header = Header::decode(head, &seed).expect("a header as it was written");
        assert_eq!(header, written);
        let opened = header.open(payload, &seed, &mut body);
        assert_eq!(opened.map(|body| self::values(&body)).as_ref(), Ok(values));
        let times = records.iter().map(Record::event_time);
        assert_eq!(times.clone().min().unwrap_or_default(), header.first_time);
        assert_eq!(times.max().unwrap_or_default(), header.last_time);
    }
}

/// A frame, as it is in a file or as a recipe has it.
pub fn frame(input: &[u8]) -> usize {
    let mut input = Input(input);
    let seed = Origin::cook(&mut input).seed();
    let bytes = match input.byte() % 2 {
        0 => input.0.to_vec(),
        _ => recipe::frame(&mut input, &seed),
    };
    let least = 8 * FILE_BYTES_MAX + decoded_bytes_max(input.0.len());
    let Some((head, payload)) = bytes.split_first_chunk() else {
        return least;
    };
    let Ok(header) = Header::decode(head, &seed) else {
        return least;
    };
    assert!(header.base <= header.next());
    for claimed in [header.body_bytes, header.payload_bytes] {
        assert!(claimed as usize <= 2 * APPEND_BYTES_MAX);
    }
    if let Ok(body) = header.open(payload, &seed, &mut Vec::new()) {
        let values = values(&body);
        assert_eq!(values.0.len(), header.count as usize);
        is_the_same_again(&values);
    }
    least + decoded_bytes_max(header.body_bytes as usize)
}

/// A window and a copy of it, twice over, and the largest frame a file has room for.
const WALK_BYTES_MAX: usize = 4 * WINDOW_BYTES + FILE_BYTES_MAX;

/// A segment file, whose every byte a walk is to account for.
pub fn segment(input: &[u8]) -> usize {
    let mut input = Input(input);
    let origin = Origin::cook(&mut input);
    let bytes = recipe::file(&mut input, &origin);
    let mut file = rustix::fs::memfd_create("segment", rustix::fs::MemfdFlags::CLOEXEC)
        .map(File::from)
        .expect("a file in memory");
    file.write_all(&bytes).expect("memory");
    let directory = Path::new("/proc/self/fd");
    let length = bytes.len() as u64;
    let mut found = Segment::new(directory, origin.epoch, origin.name, length, Offset::ZERO);
    found.path = directory.join(file.as_raw_fd().to_string());

    let [headers, payloads] = [Check::Header, Check::Payload].map(|check| {
        let steps = Steps::expected(&bytes, &origin.seed(), check);
        steps.account_for(&bytes);
        assert_eq!(walked(&found, length, check), steps.0);
        steps
    });
    // As a reader does, that has come to the durable end when more becomes durable.
    if let Some(end) = headers.0.iter().filter_map(frame_end).nth(1) {
        assert_eq!(walked(&found, end, Check::Header), headers.0);
    }
    recovers(&Arc::new(found), &payloads, &bytes);
    let bodies = payloads.0.iter().map(|step| match step {
        Step::Frame { header, .. } => decoded_bytes_max(header.body_bytes as usize),
        _ => 0,
    });
    // Recovery looks inside one frame at a time.
    WALK_BYTES_MAX + 16 * FILE_BYTES_MAX + bodies.max().unwrap_or(0)
}

/// What a walk meets that takes the file to end at `end`, and is told better when it gets there.
fn walked(segment: &Segment, end: u64, check: Check) -> Vec<Step> {
    let from = HEADER_BYTES as u64;
    let mut walk =
        Walk::open(&segment.path, segment.seed.clone(), from, end).expect("the file is there");
    let mut is_grown = end == segment.bytes();
    let mut steps = Vec::new();
    loop {
        let step = walk.step(check).expect("the file reads");
        if step == (Step::End { at: end }) && !is_grown {
            walk.extend(segment.bytes());
            is_grown = true;
            continue;
        }
        steps.push(step);
        if matches!(step, Step::End { .. } | Step::Torn { .. }) {
            return steps;
        }
    }
}

const fn frame_end(step: &Step) -> Option<u64> {
    match step {
        Step::Frame { at, header } => Some(*at + header.frame_bytes()),
        _ => None,
    }
}

/// Recovery quarantines what is between frames, and what is torn, and no frame that opens.
fn recovers(segment: &Arc<Segment>, walked: &Steps, bytes: &[u8]) {
    let is_sealed =
        |step: &Step| matches!(step, Step::Frame { header, .. } if header.has(flags::SEALED));
    let found = match recovery::survey(segment, Offset::ZERO) {
        Ok(found) => found,
        Err(error) => {
            assert!(walked.0.iter().any(is_sealed), "{error}");
            return;
        }
    };
    for step in &walked.0 {
        match *step {
            Step::Damage { at, until, .. } | Step::Torn { at, until, .. } => {
                let covers = |damage: &recovery::Damage| damage.at <= at && until <= damage.until;
                assert!(
                    found.iter().any(covers),
                    "damage that recovery does not see"
                );
            }
            Step::Frame { at, header } => {
                let payload =
                    &bytes[at as usize + frame::HEADER_BYTES..][..header.payload_bytes as usize];
                let opens = header.open(payload, &segment.seed, &mut Vec::new()).is_ok();
                let quarantined = |damage: &recovery::Damage| damage.at <= at && at < damage.until;
                assert_eq!(!found.iter().any(quarantined), opens);
            }
            Step::End { .. } => {}
        }
    }
}

/// A walk as it is to be, over a file that is in memory as a whole.
struct Steps(Vec<Step>);

impl Steps {
    fn expected(bytes: &[u8], seed: &Seed, check: Check) -> Self {
        let mut steps = Vec::new();
        let mut at = HEADER_BYTES;
        while at < bytes.len() {
            let flaw = match frame_at(bytes, at, seed, check) {
                Ok(header) => {
                    let from = at as u64;
                    steps.push(Step::Frame { at: from, header });
                    at += header.frame_bytes() as usize;
                    continue;
                }
                Err(flaw) => flaw,
            };
            let from = at as u64;
            let is_frame = |&at: &usize| frame_at(bytes, at, seed, Check::Payload).is_ok();
            if let Some(next) = (at + 1..bytes.len()).find(is_frame) {
                let until = next as u64;
                steps.push(Step::Damage {
                    at: from,
                    until,
                    flaw,
                });
                at = next;
                continue;
            }
            let written = bytes[at..].iter().rposition(|byte| *byte != 0);
            steps.push(match written {
                None => Step::End { at: from },
                Some(last) => Step::Torn {
                    at: from,
                    until: from + last as u64 + 1,
                    flaw,
                },
            });
            return Self(steps);
        }
        steps.push(Step::End { at: at as u64 });
        Self(steps)
    }

    /// Frames, damage, a torn end and zeros make up the file, one behind the other.
    fn account_for(&self, bytes: &[u8]) {
        let mut next = HEADER_BYTES as u64;
        for step in &self.0 {
            let (at, until) = match *step {
                Step::Frame { at, header } => (at, at + header.frame_bytes()),
                Step::Damage { at, until, .. } | Step::Torn { at, until, .. } => (at, until),
                Step::End { at } => (at, at),
            };
            assert_eq!(at, next);
            next = until;
        }
        let rest = bytes.get(next as usize..).unwrap_or_default();
        assert!(rest.iter().all(|byte| *byte == 0));
    }
}

fn frame_at(bytes: &[u8], at: usize, seed: &Seed, check: Check) -> Result<Header, Flaw> {
    let (head, rest) = bytes[at..].split_first_chunk().ok_or(Flaw::Short)?;
    let header = Header::decode(head, seed)?;
    let payload = rest.get(..header.payload_bytes as usize);
    let payload = payload.ok_or(Flaw::Short)?;
    if check == Check::Payload {
        header.verify(payload, seed)?;
    }
    Ok(header)
}

/// A segment's header, as it is or with its checksum made to pass.
pub fn preface(input: &[u8]) -> usize {
    let mut input = Input(input);
    let sealed = input.byte() % 2 == 1;
    let mut bytes: [u8; HEADER_BYTES] = input.array();
    if sealed {
        let checksum = crc32c::crc32c(&bytes[..252]);
        bytes[252..].copy_from_slice(&checksum.to_le_bytes());
    }
    let decode = |bytes| Preface::decode(bytes, Path::new("fuzzed"));
    if let Ok(Some(header)) = decode(&bytes) {
        assert_eq!(decode(&header.encode()).ok().flatten(), Some(header));
    }
    frame::HEADER_BYTES * 1024
}

/// The clean-stop marker, as it is or with its checksum made to pass.
pub fn clean_stop(input: &[u8]) -> usize {
    let written = Marker::parse(input);
    let forged: Option<Marker> = serde_json::from_slice(input).ok();
    for marker in written.into_iter().chain(forged) {
        let sealed = Marker::new(marker.last_sequence, marker.heads);
        assert_eq!(Marker::parse(&sealed.to_json()), Some(sealed));
    }
    64 * 1024 + 1024 * input.len()
}

/// The payloads of gap records, a line each, that are told again as one when they go unread.
pub fn gap(input: &[u8]) -> usize {
    let lines = input.split(|byte| *byte == b'\n');
    let told = lines.map(|line| Record::new(Kind::Gap, "fuzzed", line.to_vec()));
    let gaps: Vec<Gap> = told.filter_map(give_up::read_gap).collect();
    for gap in &gaps {
        let again = give_up::read_gap(gap.clone().into_record());
        assert_eq!(again.as_ref(), Some(gap));
    }
    let count = |gaps: &[Gap]| {
        let counts = gaps.iter().map(|gap| gap.count);
        counts
            .map(|count| count.map(u128::from))
            .sum::<Option<u128>>()
    };
    let before = count(&gaps);
    let folded = give_up::fold("stream", gaps);
    // A count that is not known leaves the sum unknown; one beyond u64 is as much as that can be.
    match (before, count(&folded)) {
        (Some(before), Some(after)) if before <= u64::MAX.into() => assert_eq!(before, after),
        (Some(before), Some(after)) => assert!(after <= before && after >= u64::MAX.into()),
        (Some(_), None) => panic!("a count is lost"),
        (None, _) => {}
    }
    let records: Vec<_> = folded.iter().cloned().map(Gap::into_record).collect();
    let encoded = encoding::encode(&records);
    assert_eq!(encoding::decode(&encoded), Some(records));
    64 * 1024 + 1024 * input.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// What once broke a promise, and all else that was worth keeping, in `fuzz/corpus`.
    #[test]
    fn every_seed_keeps_the_promises() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (target, run) in TARGETS {
            let seeds = std::fs::read_dir(corpus.join(target)).expect("a folder of seeds");
            let mut count = 0;
            for seed in seeds {
                let path = seed.expect("a seed").path();
                println!("{}", path.display());
                run(&std::fs::read(path).expect("readable"));
                count += 1;
            }
            assert!(count > 0, "no seeds for {target}");
        }
        let folders = std::fs::read_dir(corpus).expect("a folder");
        let folders: BTreeSet<_> = folders
            .map(|folder| folder.expect("a folder").file_name())
            .collect();
        let targets = TARGETS.map(|(target, _)| target.into());
        assert_eq!(folders, BTreeSet::from(targets), "seeds without a target");
    }
}
