//! One segment file: its name, its header, and the walk over its frames.

use crate::cipher::Cipher;
use crate::digest::Digest;
use crate::event_time::Latest;
use crate::frame::{self, Flaw, Header, Seed};
use crate::keys::{self, KeyId};
use crate::retention::Held;
use crate::seek::Marks;
use crate::{Error, Offset, StreamName, WallNanos};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

pub(crate) const HEADER_BYTES: usize = 256;
pub(crate) const VERSION: u16 = 1;
/// Where in a header the digest of the segment before is.
pub(crate) const PREVIOUS_AT: u64 = 64;
const MAGIC: [u8; 4] = *b"SKRY";
/// Bits of the header's flags: the frames are encrypted; appends were acknowledged before they were
/// synced.
const SEALED: u8 = 1;
const INTERVAL: u8 = 2;
/// How much of a file a walk holds at a time, besides a frame that is larger. A fuzzer's files are
/// small, and are to lie across its edges.
pub(crate) const WINDOW_BYTES: usize = if cfg!(fuzzing) { 4 * 1024 } else { 128 * 1024 };
/// The same for a walk from header to header: where frames are large it leaves out most of the
/// file, and where they are small it reads one page after the other, which the kernel foresees.
const HEADERS_WINDOW_BYTES: usize = if cfg!(fuzzing) { 512 } else { 4 * 1024 };

/// What a segment's file name says: enough to put segments in order without opening them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    /// Offset of the first record.
    pub(crate) base: Offset,
    /// No frame in it has a lower sequence number; frames of earlier segments all do.
    pub(crate) sequence: u64,
}

impl Name {
    pub(crate) fn file(self) -> String {
        format!("{:020}-{:020}.seg", self.base.0, self.sequence)
    }

    pub(crate) fn parse(file: &str) -> Option<Self> {
        let (base, sequence) = file.strip_suffix(".seg")?.split_once('-')?;
        if base.len() != 20 || sequence.len() != 20 {
            return None;
        }
        Some(Self {
            base: Offset(base.parse().ok()?),
            sequence: sequence.parse().ok()?,
        })
    }

    /// The segment files of a stream's directory, oldest first.
    pub(crate) fn list(directory: &Path) -> io::Result<Vec<Self>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            names.extend(entry?.file_name().to_str().and_then(Self::parse));
        }
        names.sort_unstable();
        Ok(names)
    }
}

/// The first bytes of a segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Preface {
    pub(crate) epoch: u64,
    pub(crate) boot: u128,
    pub(crate) name: Name,
    pub(crate) created: WallNanos,
    /// Appends to it were acknowledged before they were synced.
    pub(crate) interval: bool,
    /// Of the segment before, which chains them.
    pub(crate) previous: Digest,
    pub(crate) stream: String,
    /// What its frames are encrypted with.
    pub(crate) key: Option<KeyId>,
}

impl Preface {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&(HEADER_BYTES as u16).to_le_bytes());
        bytes[8..16].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.boot.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.name.base.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.name.sequence.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.created.0.to_le_bytes());
        if self.interval {
            bytes[56] |= INTERVAL;
        }
        if let Some(key) = self.key {
            bytes[56] |= SEALED;
            bytes[161..169].copy_from_slice(&key.0);
        }
        bytes[64..96].copy_from_slice(&self.previous.0);
        let stream = self.stream.as_bytes();
        bytes[96] = stream.len() as u8;
        bytes[97..97 + stream.len()].copy_from_slice(stream);
        let checksum = crc32c::crc32c(&bytes[..252]);
        bytes[252..256].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `Ok(None)` if the bytes are no intact header; an error only for a version from the future.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES], path: &Path) -> Result<Option<Self>, Error> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u64_at = |at| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let checksum = u32::from_le_bytes(bytes[252..256].try_into().expect("four bytes"));
        if bytes[0..4] != MAGIC || crc32c::crc32c(&bytes[..252]) != checksum {
            return Ok(None);
        }
        if u16_at(4) > VERSION {
            return Err(Error::Version {
                path: path.to_owned(),
                found: u16_at(4),
                known: VERSION,
            });
        }
        let stream = bytes[97..97 + StreamName::BYTES_MAX]
            .get(..bytes[96].into())
            .and_then(|name| std::str::from_utf8(name).ok());
        Ok(stream.map(|stream| Self {
            epoch: u64_at(8),
            boot: u128::from_le_bytes(bytes[16..32].try_into().expect("sixteen bytes")),
            name: Name {
                base: Offset(u64_at(32)),
                sequence: u64_at(40),
            },
            created: WallNanos(u64_at(48).cast_signed()),
            interval: bytes[56] & INTERVAL != 0,
            previous: Digest(bytes[64..96].try_into().expect("32 bytes")),
            stream: stream.to_owned(),
            key: (bytes[56] & SEALED != 0)
                .then(|| KeyId(*bytes[161..].first_chunk().expect("eight bytes"))),
        }))
    }

    /// Reads the header of a segment file.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, Error> {
        let mut bytes = [0; HEADER_BYTES];
        let file = File::open(path).map_err(Error::storage("open", path))?;
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => Self::decode(&bytes, path),
            Err(short) if short.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(other) => Err(Error::storage("read", path)(other)),
        }
    }
}

/// What writer and readers share about one segment file.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) name: Name,
    pub(crate) seed: Seed,
    durable_bytes: AtomicU64,
    next: AtomicU64,
    /// Sequence number of its newest frame with changes.
    newest_change: AtomicU64,
    pub(crate) marks: Marks,
    /// Event times, as far as somebody asked for them.
    pub(crate) latest: Mutex<Latest>,
    /// Damage in it was reported to the writer.
    reported: AtomicBool,
}

impl Segment {
    pub(crate) fn new(directory: &Path, epoch: u64, name: Name, bytes: u64, next: Offset) -> Self {
        Self {
            path: directory.join(name.file()),
            name,
            seed: Seed::new(epoch, name.base, name.sequence),
            durable_bytes: AtomicU64::new(bytes),
            next: AtomicU64::new(next.0),
            // Any of the frames that are there may have some.
            newest_change: AtomicU64::new(u64::MAX),
            marks: Marks::default(),
            latest: Mutex::default(),
            reported: AtomicBool::new(false),
        }
    }

    /// The same, with what seals and opens its frames.
    pub(crate) fn with_cipher(mut self, cipher: Option<&Arc<Cipher>>) -> Self {
        self.seed.cipher = cipher.cloned();
        self
    }

    /// The same, and just begun: it has no frame yet.
    pub(crate) fn without_changes(self) -> Self {
        self.newest_change.store(0, Ordering::Release);
        self
    }

    pub(crate) fn changes_in(&self, sequence: u64) {
        self.newest_change.store(sequence, Ordering::Release);
    }

    /// Whether it may hold changes of frames after that one.
    pub(crate) fn has_changes_after(&self, sequence: u64) -> bool {
        self.newest_change.load(Ordering::Acquire) > sequence
    }

    /// How much of the file is on the device.
    pub(crate) fn bytes(&self) -> u64 {
        self.durable_bytes.load(Ordering::Acquire)
    }

    /// One past the last durable record.
    pub(crate) fn next(&self) -> Offset {
        Offset(self.next.load(Ordering::Acquire))
    }

    pub(crate) fn held(&self) -> Held {
        Held {
            bytes: self.bytes(),
            next: self.next(),
            sequence: self.name.sequence,
        }
    }

    pub(crate) fn extend(&self, bytes: u64, next: Offset) {
        self.next.store(next.0, Ordering::Release);
        self.durable_bytes.store(bytes, Ordering::Release);
    }

    /// True for the first who comes upon damage in it.
    pub(crate) fn report(&self) -> bool {
        !self.reported.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn walk(&self, from: u64) -> Result<Walk, Error> {
        Walk::open(&self.path, self.seed.clone(), from, self.bytes())
    }
}

/// How much of each frame a walk checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    Header,
    Payload,
}

/// What a walk met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Frame {
        at: u64,
        header: Header,
    },
    /// Bytes that are no frame, up to the next that is one.
    Damage {
        at: u64,
        until: u64,
        flaw: Flaw,
    },
    /// Bytes that are no frame, and none after them; from `until` on there are zeros.
    Torn {
        at: u64,
        until: u64,
        flaw: Flaw,
    },
    /// The end; what is left of the file, if anything, is zeros.
    End {
        at: u64,
    },
}

/// Goes over the frames of a segment file from front to back, in bounded memory.
#[derive(Debug)]
pub(crate) struct Walk {
    path: PathBuf,
    file: File,
    seed: Seed,
    at: u64,
    end: u64,
    window: Vec<u8>,
    window_at: u64,
    /// How much is read at a time, at least.
    window_bytes: usize,
    /// The file may lose the room behind its frames meanwhile.
    beside_writer: bool,
}

impl Walk {
    /// A walk from byte `from` that takes the file to end at `end`.
    pub(crate) fn open(path: &Path, seed: Seed, from: u64, end: u64) -> Result<Self, Error> {
        Ok(Self {
            path: path.to_owned(),
            file: File::open(path).map_err(Error::storage("open", path))?,
            seed,
            at: from,
            end,
            window: Vec::new(),
            window_at: 0,
            window_bytes: WINDOW_BYTES,
            beside_writer: false,
        })
    }

    /// Takes the file to end earlier, should the node that writes it cut off its unused room.
    pub(crate) const fn beside_writer(mut self) -> Self {
        self.beside_writer = true;
        self
    }

    /// Leaves out payloads that nobody asks for.
    pub(crate) const fn headers_only(mut self) -> Self {
        self.window_bytes = HEADERS_WINDOW_BYTES;
        self
    }

    /// The file has grown. What was read ahead beyond the old end does not exist.
    pub(crate) fn extend(&mut self, end: u64) {
        self.end = self.end.max(end);
    }

    pub(crate) fn step(&mut self, check: Check) -> Result<Step, Error> {
        let at = self.at;
        if at >= self.end {
            return Ok(Step::End { at });
        }
        let flaw = match self.frame(at, check)? {
            Ok(header) => {
                self.at += header.frame_bytes();
                return Ok(Step::Frame { at, header });
            }
            Err(flaw) => flaw,
        };
        if let Some(until) = self.find_frame(at + 1)? {
            if self.beside_writer {
                // Written since its bytes were read ahead, and so was what follows.
                self.window.clear();
                if let Ok(header) = self.frame(at, check)? {
                    self.at += header.frame_bytes();
                    return Ok(Step::Frame { at, header });
                }
            }
            self.at = until;
            return Ok(Step::Damage { at, until, flaw });
        }
        self.at = self.end;
        Ok(match self.last_written(at)? {
            None => Step::End { at },
            Some(last) => Step::Torn {
                at,
                until: last + 1,
                flaw,
            },
        })
    }

    /// The next intact frame at or after `from`. The walk itself goes on where it was.
    pub(crate) fn frame_after(&mut self, from: u64) -> Result<Option<(u64, Header)>, Error> {
        let Some(at) = self.find_frame(from)? else {
            return Ok(None);
        };
        Ok(self.frame(at, Check::Header)?.ok().map(|found| (at, found)))
    }

    /// Has the walk go on with the frame at `at`.
    pub(crate) const fn go_on_at(&mut self, at: u64) {
        self.at = at;
    }

    /// The payload of the frame that was met at `at`.
    pub(crate) fn payload(&mut self, at: u64, header: &Header) -> Result<&[u8], Error> {
        let from = at + frame::HEADER_BYTES as u64;
        self.bytes(from, header.payload_bytes as usize)
            .map(|bytes| bytes.unwrap_or_default())
    }

    pub(crate) fn seed(&self) -> Seed {
        self.seed.clone()
    }

    /// What to say of a frame whose flaw is [`Flaw::Locked`].
    pub(crate) fn locked(&self) -> Error {
        let preface = Preface::read(&self.path).ok().flatten();
        let needed = preface.and_then(|preface| preface.key);
        keys::missing(&self.path, needed, self.seed.cipher.as_deref())
    }

    fn frame(&mut self, at: u64, check: Check) -> Result<Result<Header, Flaw>, Error> {
        let seed = self.seed.clone();
        let end = self.end;
        let Some(bytes) = self.bytes(at, frame::HEADER_BYTES)? else {
            return Ok(Err(Flaw::Short));
        };
        let header = match Header::decode(bytes.first_chunk().expect("a header's bytes"), &seed) {
            Ok(header) if at + header.frame_bytes() <= end => header,
            Ok(_) => return Ok(Err(Flaw::Short)),
            Err(flaw) => return Ok(Err(flaw)),
        };
        if check == Check::Header {
            return Ok(Ok(header));
        }
        let payload = self.payload(at, &header)?;
        Ok(header.verify(payload, &seed).map(|()| header))
    }

    /// The next intact frame at or after `from`.
    fn find_frame(&mut self, from: u64) -> Result<Option<u64>, Error> {
        let mut from = from;
        while from + (frame::HEADER_BYTES as u64) <= self.end {
            let length = WINDOW_BYTES.min((self.end - from) as usize);
            let chunk = self.bytes(from, length)?.unwrap_or_default().to_vec();
            let marker = frame::MARKER;
            for (at, _) in chunk
                .windows(marker.len())
                .enumerate()
                .filter(|(_, w)| *w == marker)
            {
                let at = from + at as u64;
                if self.frame(at, Check::Payload)?.is_ok() {
                    return Ok(Some(at));
                }
            }
            from += (length - (marker.len() - 1)) as u64;
        }
        Ok(None)
    }

    /// Where the last byte is that is not zero, at or after `from`.
    fn last_written(&mut self, from: u64) -> Result<Option<u64>, Error> {
        let (mut from, mut last) = (from, None);
        while from < self.end {
            let length = WINDOW_BYTES.min((self.end - from) as usize);
            let bytes = self.bytes(from, length)?.unwrap_or_default();
            let found = bytes.iter().rposition(|byte| *byte != 0);
            last = found.map(|at| from + at as u64).or(last);
            from += length as u64;
        }
        Ok(last)
    }

    /// Bytes of the file, `None` where it ends before they do.
    fn bytes(&mut self, at: u64, length: usize) -> Result<Option<&[u8]>, Error> {
        if at + length as u64 > self.end {
            return Ok(None);
        }
        let held = self.window_at..self.window_at + self.window.len() as u64;
        if at < held.start || at + length as u64 > held.end {
            let wanted = length.max(self.window_bytes.min((self.end - at) as usize));
            self.window.resize(wanted, 0);
            self.window_at = at;
            if let Err(error) = self.file.read_exact_at(&mut self.window, at) {
                self.window.clear();
                let shrunk = self.file.metadata().map_or(self.end, |found| found.len());
                if self.beside_writer && shrunk < self.end {
                    self.end = shrunk;
                    return self.bytes(at, length);
                }
                return Err(Error::storage("read", &self.path)(error));
            }
            if wanted <= WINDOW_BYTES {
                self.window.shrink_to(WINDOW_BYTES);
            }
        }
        let start = (at - self.window_at) as usize;
        Ok(Some(&self.window[start..start + length]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_lose_its_room_beside_a_walk() {
        let directory = tempfile::tempdir().expect("a directory");
        let name = Name {
            base: Offset(0),
            sequence: 1,
        };
        let whole = 3 * WINDOW_BYTES as u64;
        let segment = Segment::new(directory.path(), 1, name, whole, name.base);
        let file = File::create(&segment.path).expect("created");
        let header = HEADER_BYTES as u64;
        for length in [header + 100, header, 10] {
            file.set_len(whole).expect("room");
            let walk = || segment.walk(header).expect("a walk");
            let (mut tolerant, mut strict) = (walk().beside_writer(), walk());
            file.set_len(length).expect("cut");
            assert_eq!(
                tolerant.step(Check::Payload).ok(),
                Some(Step::End { at: header })
            );
            assert!(strict.step(Check::Payload).is_err());
        }
    }

    #[test]
    fn frames_that_are_written_beside_a_walk_are_no_damage() {
        let directory = tempfile::tempdir().expect("a directory");
        let name = Name {
            base: Offset(0),
            sequence: 1,
        };
        let room = 4 * WINDOW_BYTES as u64;
        let segment = Segment::new(directory.path(), 1, name, room, name.base);
        let file = File::create(&segment.path).expect("created");
        file.set_len(room).expect("room");
        let mut end = HEADER_BYTES as u64;
        let mut write = |records: u64| {
            let record = crate::Record::new(crate::Kind::Mqtt, "a", "b");
            let append = frame::Encoded::new(&[record], Vec::new());
            for number in 0..records {
                let mut builder = frame::Builder::new(Offset(number));
                builder.push(&append);
                let (mut body, mut bytes) = (Vec::new(), Vec::new());
                let codec = crate::Codec::None;
                builder.finish(number, &segment.seed, codec, &mut body, &mut bytes);
                file.write_all_at(&bytes, end).expect("written");
                end += bytes.len() as u64;
            }
        };
        write(1);
        let mut walk = segment.walk(HEADER_BYTES as u64).expect("a walk");
        walk.beside_writer = true;
        let mut frames = 0;
        while let Step::Frame { .. } = walk.step(Check::Payload).expect("it reads") {
            frames += 1;
            if frames == 1 {
                write(3);
            }
        }
        assert_eq!(frames, 4);
    }
}
