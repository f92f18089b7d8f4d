//! Opening a data directory in whatever state it is.
//!
//! Only the newest segment of a stream may be torn: everything before it was synced before the
//! next was begun. So it alone is read in full; the others are found by name.

use crate::append::OWN_BUCKET;
use crate::catalog::Catalog;
use crate::cipher::Cipher;
use crate::digest::Digest;
use crate::disk::Disk;
use crate::frame::{Encoded, Flaw, flags};
use crate::ranges::{self, Range};
use crate::segment::{Check, HEADER_BYTES, Name, Preface, Segment, Step};
use crate::{Change, Durability, Error, Gap, Offset, WallNanos};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const POWER_CUT: &str = "the power failed; what was acknowledged within the stream's sync \
                         interval before that may be missing";

/// What opening found and mended.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Recovery {
    /// Bytes cut off the ends of segments: writes that no append was acknowledged for.
    pub torn_bytes: u64,
    /// Damaged places inside segments, copied to `quarantine/` and noted as gap records.
    pub quarantined_frames: u64,
    /// Records that were acknowledged once and are not there: noted as gap records.
    pub records_missing: u64,
    /// The catalog was made anew from the log.
    pub catalog_rebuilt: bool,
    /// The log was closed in order last time.
    pub clean_stop: bool,
}

/// A stream as found on disk.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) head: Offset,
    /// No frame and no file of the stream has a higher sequence number.
    pub(crate) last_sequence: u64,
    /// That of the newest frame that reads; 0 if none does.
    pub(crate) last_frame: u64,
    /// Digest of the newest segment with a frame, for the next one's header.
    pub(crate) digest: Digest,
    pub(crate) torn_bytes: u64,
    pub(crate) damage: Vec<Damage>,
    /// Header of the newest segment; `None` where it does not read, or there is none.
    pub(crate) newest: Option<Preface>,
    /// Latest event time in the newest frame with records, of the newest segment with frames.
    pub(crate) last_time: Option<WallNanos>,
}

impl Found {
    /// Whether a power cut may have taken records that were acknowledged without their sync: the
    /// kernel that had them is not the one that runs.
    pub(crate) fn may_lack(&self, boot: u128, durability: Durability) -> bool {
        match &self.newest {
            Some(preface) => preface.interval && preface.boot != boot,
            None => !self.segments.is_empty() && durability != Durability::Sync,
        }
    }
}

/// The gap record for what a power cut may have taken; how much it was nobody knows.
pub(crate) fn power_cut(stream: &str, last_time: Option<WallNanos>) -> Encoded {
    tracing::error!(
        stream,
        "the power failed: what was acknowledged in the stream's sync interval before may be lost"
    );
    let gap = Gap {
        subject: stream.to_owned(),
        offsets: None,
        from: last_time,
        to: Some(WallNanos::now()),
        count: None,
        reason: POWER_CUT.to_owned(),
    };
    Encoded::new(&[gap.into_record()], Vec::new())
}

/// A place in a segment that does not read.
#[derive(Debug, Clone)]
pub(crate) struct Damage {
    pub(crate) segment: Arc<Segment>,
    pub(crate) at: u64,
    pub(crate) until: u64,
    pub(crate) first: Offset,
    pub(crate) next: Offset,
    pub(crate) flaw: Flaw,
}

/// Reads what a stream's directory holds, and mends the end of its newest segment.
pub(crate) fn recover(
    disk: &Disk,
    directory: &Path,
    epoch: u64,
    cipher: Option<&Arc<Cipher>>,
) -> Result<Found, Error> {
    // What is seen now has to be there after a power cut, too.
    disk.sync_directory(directory)
        .map_err(Error::storage("sync", directory))?;
    let names = Name::list(directory).map_err(Error::storage("list", directory))?;
    let mut found = Found::default();
    for (index, &name) in names.iter().enumerate() {
        let path = directory.join(name.file());
        let bytes = std::fs::metadata(&path)
            .map_err(Error::storage("look at", &path))?
            .len();
        // Corrected below where there is no next segment to tell.
        let next = names.get(index + 1).map_or(name.base, |next| next.base);
        let segment = Segment::new(directory, epoch, name, bytes, next);
        let segment = segment.with_cipher(cipher);
        found.segments.push(Arc::new(segment));
    }
    if let Some(newest) = found.segments.last() {
        found.head = newest.name.base;
        // Of a segment that holds no frame, the name is taken all the same: by a new segment of
        // that name, two would share one file, and the removal of one take both.
        found.last_sequence = newest.name.sequence;
        found.newest = Preface::read(&newest.path)?;
    }
    // Segments without a frame say nothing about the ends of those before them.
    for segment in found.segments.clone().into_iter().rev() {
        if mend(disk, &segment, &mut found)? {
            break;
        }
    }
    disk.sync_directory(directory)
        .map_err(Error::storage("sync", directory))?;
    Ok(found)
}

/// Cuts off what is torn at the end of one segment. False if it holds no frame.
fn mend(disk: &Disk, segment: &Arc<Segment>, found: &mut Found) -> Result<bool, Error> {
    Preface::read(&segment.path)?;
    let survey = Survey::of(segment, Look::AtChecksums)?;
    let path = &segment.path;
    let file = File::options()
        .write(true)
        .open(path)
        .map_err(Error::storage("open", path))?;
    if segment.bytes() > survey.end {
        disk.truncate(&file, path, survey.end)
            .map_err(Error::storage("truncate", path))?;
    }
    // A process that was killed may have left frames that only the kernel has so far. From here
    // on they are read, and built upon.
    disk.sync(&file, path)
        .map_err(Error::storage("sync", path))?;
    if let Some((flaw, until)) = survey.torn {
        let torn_bytes = until - survey.end;
        let path = segment.path.display();
        tracing::info!(%path, at = survey.end, torn_bytes, %flaw, "cut off a torn end");
        found.torn_bytes += torn_bytes;
    }
    found.last_sequence = found.last_sequence.max(survey.last_sequence);
    found.last_frame = found.last_frame.max(survey.last_sequence);
    found.head = found.head.max(survey.next);
    found.last_time = found.last_time.or(survey.last_time);
    segment.extend(survey.end, survey.next.max(segment.next()));
    found.damage.extend(survey.damage);
    if survey.frames == 0 {
        return Ok(false);
    }
    found.digest = Digest::of_file(&segment.path, survey.end)?;
    Ok(true)
}

/// How closely a survey looks at frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// A header that was altered may say anything.
    AtChecksums,
    /// Also at what the payload holds. For what is already known to be damaged: a frame that
    /// passes its checksum and does not open was never torn, and is nothing to cut off.
    Inside,
}

/// One segment, read in full.
pub(crate) struct Survey {
    pub(crate) damage: Vec<Damage>,
    pub(crate) frames: u64,
    pub(crate) records: u64,
    last_sequence: u64,
    /// Where the last intact frame ends, and one past its last record.
    end: u64,
    next: Offset,
    last_time: Option<WallNanos>,
    /// What is wrong with the bytes after that, if any are there, and where those end.
    torn: Option<(Flaw, u64)>,
}

impl Survey {
    fn of(segment: &Arc<Segment>, look: Look) -> Result<Self, Error> {
        let mut walk = segment.walk(HEADER_BYTES as u64)?;
        let mut survey = Self {
            damage: Vec::new(),
            frames: 0,
            records: 0,
            last_sequence: 0,
            end: segment.bytes().min(HEADER_BYTES as u64),
            next: segment.name.base,
            last_time: None,
            torn: None,
        };
        let (mut broken, mut body) = (None, Vec::new());
        loop {
            match walk.step(Check::Payload)? {
                Step::Frame { at, header } => {
                    let seed = walk.seed();
                    if header.has(flags::SEALED) && seed.cipher.is_none() {
                        return Err(walk.locked());
                    }
                    if look == Look::Inside
                        && let Err(flaw) = header.open(walk.payload(at, &header)?, &seed, &mut body)
                    {
                        broken = Some(flaw);
                        continue;
                    }
                    if let Some(flaw) = broken.take() {
                        survey.damaged(segment, at, header.base, flaw);
                    } else if look == Look::Inside && header.base > survey.next {
                        survey.damaged(segment, at, header.base, Flaw::Absent);
                    }
                    segment.mark(header.base, at);
                    survey.frames += 1;
                    survey.records += u64::from(header.count);
                    survey.last_sequence = header.sequence;
                    survey.end = at + header.frame_bytes();
                    survey.next = header.next();
                    if header.count > 0 {
                        survey.last_time = Some(header.last_time);
                    }
                }
                Step::Damage { flaw, .. } => broken = Some(flaw),
                Step::Torn { flaw, until, .. } => {
                    survey.torn = Some((flaw, until));
                    return Ok(survey);
                }
                Step::End { at } => {
                    survey.torn = broken.map(|flaw| (flaw, at));
                    return Ok(survey);
                }
            }
        }
    }

    /// The same for a segment whose records are known to end at `end`: so what is torn there was
    /// written once, and what is not there was too.
    pub(crate) fn up_to(segment: &Arc<Segment>, end: Offset) -> Result<Self, Error> {
        let mut survey = Self::of(segment, Look::Inside)?;
        if let Some((flaw, _)) = survey.torn {
            survey.damaged(segment, segment.bytes(), end, flaw);
        } else if survey.next < end {
            survey.damaged(segment, survey.end, end, Flaw::Absent);
        }
        Ok(survey)
    }

    /// From the last intact frame to `until`, where the record `next` is, nothing reads.
    fn damaged(&mut self, segment: &Arc<Segment>, until: u64, next: Offset, flaw: Flaw) {
        self.damage.push(Damage {
            segment: Arc::clone(segment),
            at: self.end,
            until,
            first: self.next,
            next,
            flaw,
        });
    }
}

/// The damage in a segment that a reader came upon, and that is known to end at `end`.
pub(crate) fn survey(segment: &Arc<Segment>, end: Offset) -> Result<Vec<Damage>, Error> {
    Survey::up_to(segment, end).map(|survey| survey.damage)
}

impl Damage {
    /// Makes the damage known: the bytes to quarantine, and gap records to be appended for the
    /// records that went with them, if there were any. `None` if all of it was known before.
    pub(crate) fn note(
        &self,
        catalog: &Catalog,
        data_directory: &Path,
        stream: &str,
    ) -> Option<Encoded> {
        let path = self.segment.path.display();
        let note = if self.records() > 0 {
            let reason = format!("damaged in {path}: {}", self.flaw);
            loss(catalog, stream, (self.first, self.next), reason)?
        } else {
            Encoded::new(&[], Vec::new())
        };
        tracing::error!(
            stream, %path, at = self.at, first = %self.first, next = %self.next,
            flaw = %self.flaw, "a damaged place was put into quarantine"
        );
        if let Err(error) = self.quarantine(data_directory, stream) {
            tracing::warn!(%error, "cannot copy damaged bytes to quarantine");
        }
        Some(note)
    }

    pub(crate) const fn records(&self) -> u64 {
        ranges::count((self.first, self.next))
    }

    /// Where the damaged bytes are copied to.
    pub(crate) fn quarantine_path(&self, data_directory: &Path, stream: &str) -> PathBuf {
        let file = format!("{stream}-{}-{}.bin", self.segment.name.file(), self.at);
        data_directory.join("quarantine").join(file)
    }

    /// Copies the damaged bytes to where a person can look at them. Where the file ends too early
    /// there are none.
    fn quarantine(&self, data_directory: &Path, stream: &str) -> Result<(), Error> {
        let target = self.quarantine_path(data_directory, stream);
        let length = self.until.saturating_sub(self.at);
        if length == 0 {
            return Ok(());
        }
        let directory = target.parent().expect("a file in a directory");
        std::fs::create_dir_all(directory).map_err(Error::storage("create", directory))?;
        let source =
            File::open(&self.segment.path).map_err(Error::storage("open", &self.segment.path))?;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        source
            .read_exact_at(&mut bytes, self.at)
            .map_err(Error::storage("read", &self.segment.path))?;
        std::fs::write(&target, bytes).map_err(Error::storage("write", &target))
    }
}

/// Gap records for those of the offsets that no gap record told of before, with notes in the
/// catalog that they were written. `None` if all were told of.
pub(crate) fn loss(
    catalog: &Catalog,
    stream: &str,
    lost: Range,
    reason: String,
) -> Option<Encoded> {
    let (mut gaps, mut notes) = (Vec::new(), Vec::new());
    for (first, next) in unnoted(catalog, stream, lost) {
        let gap = Gap {
            subject: stream.to_owned(),
            offsets: Some((first, next)),
            from: None,
            to: None,
            count: Some(next.0 - first.0),
            reason: reason.clone(),
        };
        gaps.push(gap.into_record());
        notes.push(Change::Put {
            bucket: OWN_BUCKET.to_owned(),
            key: format!("damage/{stream}/{first}").into_bytes().into(),
            value: next.0.to_le_bytes().to_vec().into(),
        });
    }
    (!gaps.is_empty()).then(|| Encoded::new(&gaps, notes))
}

/// Those of the offsets that no gap record tells of, as far as the catalog knows: damage may grow
/// beside what was noted already. A catalog that does not read knows of none, since a loss that is
/// told twice is better than one that is never told.
pub(crate) fn unnoted(catalog: &Catalog, stream: &str, lost: Range) -> Vec<Range> {
    let prefix = format!("damage/{stream}/");
    let noted = catalog.scan(OWN_BUCKET, prefix.as_bytes());
    let noted = noted.unwrap_or_default().into_iter();
    let noted: Vec<Range> = noted
        .filter_map(|(key, value)| {
            let first = std::str::from_utf8(key.get(prefix.len()..)?).ok()?;
            let next = u64::from_le_bytes(value[..].try_into().ok()?);
            Some((Offset(first.parse().ok()?), Offset(next)))
        })
        .collect();
    ranges::without(lost, &noted)
}

/// The clean-stop marker: there from an orderly stop to the next opening, and never else.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    pub(crate) last_sequence: u64,
    pub(crate) heads: BTreeMap<String, Offset>,
    /// CRC32C of the JSON array of the two: a wrong head would tell of a loss there was not.
    checksum: u32,
}

impl Marker {
    const FILE: &str = "clean-stop.json";

    pub(crate) fn new(last_sequence: u64, heads: BTreeMap<String, Offset>) -> Self {
        let mut marker = Self {
            last_sequence,
            heads,
            checksum: 0,
        };
        marker.checksum = marker.sum();
        marker
    }

    fn sum(&self) -> u32 {
        let summed = serde_json::to_vec(&(self.last_sequence, &self.heads));
        crc32c::crc32c(&summed.expect("string keys only"))
    }

    pub(crate) fn write(&self, disk: &Disk, directory: &Path) -> Result<(), Error> {
        let path = directory.join(Self::FILE);
        let file = disk
            .create(&path)
            .map_err(Error::storage("create", &path))?;
        disk.write(&file, &path, &self.to_json(), 0)
            .and_then(|()| disk.sync(&file, &path))
            .and_then(|()| disk.sync_directory(directory))
            .map_err(Error::storage("write", &path))
    }

    /// Reads the marker and removes it, durably.
    pub(crate) fn take(disk: &Disk, directory: &Path) -> Result<Option<Self>, Error> {
        let path = directory.join(Self::FILE);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = std::fs::read(&path).map_err(Error::storage("read", &path))?;
        disk.remove(&path)
            .and_then(|()| disk.sync_directory(directory))
            .map_err(Error::storage("remove", &path))?;
        Ok(Self::parse(&bytes))
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("string keys only")
    }

    /// The marker that was written; `None` if it is another by now.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let marker: Option<Self> = serde_json::from_slice(bytes).ok();
        marker.filter(|marker| marker.checksum == marker.sum())
    }
}
