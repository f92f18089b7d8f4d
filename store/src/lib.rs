//! skerry's durable log: named streams of [`Record`]s in segment files, written by one thread
//! with one group commit, and a catalog of cursors and keys that is journalled in the same frames.
//!
//! # What it promises
//!
//! - **Acknowledged means on disk.** [`Log::append`] resolves after `fdatasync` of every file its
//!   commit touched, and after the directory's if a file is new. A stream can be told to do with
//!   less ([`Durability::Interval`]).
//! - **All or nothing.** The records and the [`Change`]s of one [`Append`] share one frame, so
//!   they are true together or not at all. Exactly-once within the box is built from this: a
//!   stage that reads and writes advances its cursor in the append that carries its results.
//! - **Offsets are contiguous** per stream from 0, and never name two different records. What
//!   does not read any more is reported as [`Batch::missing`] and journalled as a [`Gap`] record
//!   in the same stream.
//! - **Readers see durable records only**, and cost one frame of memory however far behind; at
//!   the head they cost none, and no disk.
//! - **It always opens**, whatever a crash or a bad disk did to its files ([`Recovery`] says what
//!   was found), unless they are from a newer format version.
//! - **A full stream is a policy** ([`WhenFull`]), a full disk is a state ([`Storage`]) that ends
//!   by itself and leaves streams with a reserve writable, a failed sync is the end: the log is
//!   poisoned, [`Log::poisoned`] resolves, and only a new process may look at what the disk really
//!   holds.
//!
//! # What it is not
//!
//! Not a database: no index by source, none by time but what [`Log::offset_at`] learns, and one
//! bucket scan reads all it finds into memory.
//! Not replicated. Encrypted only with keys ([`Options::keys`]), and then not all of it: see below.
//! Two limits no checksum lifts: an acknowledged frame that a lying disk loses from the very end
//! of the newest segment looks like a write that never finished, and is noted only where a
//! cursor, the clean-stop marker or the catalog remembers it; and damage in older segments is
//! noticed when it is read (be it by [`Log::scrub`] or [`inspect::verify`]), not at opening.
//!
//! # How it works
//!
//! ```text
//!  Log::append ─► queue ─► writer ──► streams/<stream>/<base>-<sequence>.seg   the truth
//!  (encodes)     bounded   thread ├─► streams/_catalog/…                       changes, snapshots
//!                                 ├─► catalog/                                 sled: a view of them
//!                                 ├─► newest frames, in memory ─┐
//!                                 └─► heads (watch) ─► Reader ◄─┴─ segment files
//! ```
//!
//! A commit takes what is queued. When nobody else is expected it starts at once; otherwise it
//! waits for as many appends as the last one carried, at most `commit_delay_max`; and where
//! `commit_interval_min` is set, commits start that far apart unless much is queued. It writes one
//! frame per stream touched, syncs each file, applies changes to the catalog, moves the heads,
//! and answers. An append without records is carried by `_catalog`.
//!
//! **Readers.** The newest frames of each stream stay in memory as the writer had them before it
//! packed them, [`Options::recent_bytes_max`] over all streams, of which a busy stream takes
//! nothing from one that holds less. Whoever reads there shares them; whoever is further behind,
//! and everybody after an opening, reads the files. What is in memory needs no checksum and is
//! served even where its copy on the disk was damaged meanwhile: that is noticed by who reads it
//! later, or by a scrub. It is given up by retention at the same instant as its files. A reader
//! may begin anywhere: in a segment that nobody has read, its frame is found by halving.
//!
//! **Intervals.** What a stream of [`Durability::Interval`] gets is acknowledged once it is written,
//! and synced with whichever commit comes when the interval is over, or when 4 MiB wait for it; if
//! none comes, the writer wakes for it. Until then readers do not see it: what they have handed on
//! is never taken back. A crash of the process leaves it to the kernel, and opening syncs it. A
//! power cut may take any of it; opening knows that the power was cut from the boot id in the
//! stream's newest segment, which is synced when the segment is begun, and writes a gap record
//! without a count. What damaged frames in between held is told of with its offsets besides. A
//! snapshot of the catalog, and the log's own gap records, are not written before what waits.
//!
//! **sled is never the only copy and never synced.** A database that is missing, does not open,
//! panics, belongs to another directory, is ahead of the log in any stream, or was last written
//! before a power cut, is wiped and made anew: the newest snapshot in `_catalog`, then all changes
//! after it in the order of their frames' sequence numbers. So a stream that loses its end loses
//! what its last appends changed as well, and their stages do them again. Snapshots are written
//! when enough log has passed, before a segment is deleted whose changes no snapshot has, and
//! after damage; then `_catalog` is trimmed.
//!
//! **Time.** Records are in the order they were appended, by offset. Each has an event time
//! ([`Record::event_time`]): the source's, else the server's, else that at which it was taken in.
//! [`Log::offset_at`] finds the first record held of a time or later. Sources are late and clocks
//! jump, so older records may come behind it, and nothing can be found by halving: the earliest
//! and latest time in each frame's header are looked at, in order. What is the latest in a segment
//! is remembered for as long as the log is open, and segments that end earlier are left out.
//!
//! **Damage** is found by whoever reads: a [`Reader`], the opening, or a [`Log::scrub`] of all
//! there is. The writer then copies the bytes to `quarantine/` and appends a gap record for those
//! offsets that none tells of yet; damaged frames of `_catalog` make it write a snapshot, which
//! stands for them. The damaged bytes stay where they are until their segment is retired, as the
//! hash chain is over them too.
//!
//! **Room.** Ahead of the frames of the newest segment there are up to 256 KiB of zeros, so that
//! small commits overwrite and do not grow the file: a sync then writes the data and nothing of the
//! file system's own. They are cut off when the segment is left for another, at an orderly stop
//! and at the next opening; on a disk without place for them files grow as they are written. They
//! do not count against `bytes_max`.
//!
//! **Retention.** A stream may hold `bytes_max` of segment files (exceeded by one commit at most).
//! When the next append does not fit, the oldest segments whose records all the stream's
//! `readers` have passed are deleted, once the new tail is in `_catalog`; if that is not enough,
//! the append fails with [`Error::Full`], or, by policy, the oldest segment is given up: its gap
//! record and the stream's new tail are journalled in one frame before the file goes. Gap records
//! that go with it unread are told again in that frame, those of one subject and reason as one.
//!
//! A stream may also have an `age_max`: older segments are deleted where they are confirmed, and
//! by policy given up where they are not; the writer wakes by itself for it. Age is counted on
//! the log's own clock, the time it has been open over all its lives: no wall clock that jumps
//! can wipe a log, and a node that is switched off ages nothing. The clock, and how far each
//! stream had come at which time, are journalled 16 times per `age_max`, hourly at least. So a
//! record stays for `age_max` at least, and as long again at most as its segment holds younger
//! ones: a segment is closed at a quarter of `age_max`.
//!
//! All streams together may hold `bytes_max_total`, in which each counts with what it holds or
//! with its `reserve_bytes`, whichever is more: so a stream within its reserve is never refused
//! for the others' sake. For any append that does not fit, confirmed segments are deleted, the
//! oldest of all streams first; then the `drop_oldest` stream that fills most of its own
//! `bytes_max` gives up its oldest segment, and so on; if no stream may, the append fails with
//! [`Error::QuotaFull`]. Nothing is taken from a reserve, and `_catalog` is never refused: moving
//! a cursor is what frees space. (`bytes_max_total` is exceeded by `_catalog` at most.)
//!
//! **A full disk.** The reserves, `journal_reserve_bytes` for `_catalog` and room for a snapshot
//! are also kept from other processes, as the allocated blocks of the file `reserve`. When a write finds no space,
//! confirmed segments are deleted; then `drop_oldest` streams give up by the quota's rule, their
//! gap records written with the blocks of the reserve; and the commit is tried again. Once
//! nothing is left that may go, the state is [`Storage::StorageFailed`]: what has a reserve is
//! written with its blocks, all else is refused, until the reserve can be made whole with some
//! space to spare, which is tried every second. Opening on a full disk takes the whole reserve
//! first; if even that is not enough for sled, the log opens without its catalog (no cursor is
//! known then, so nothing counts as confirmed) and rebuilds it when it can. In the same state, a
//! disk that refuses writes for another reason is tried every second with a change that changes
//! nothing; one that is found read-only while idle is reported without a write.
//!
//! Between a block given back and the write it is for, another process may be quicker; then more
//! is given back, until the write succeeds or the reserve is used up. What a commit leaves of its
//! share is taken back before anybody is told of it.
//!
//! # Encryption
//!
//! With [`Options::keys`] the payload of every frame is sealed with XChaCha20-Poly1305, records,
//! changes and snapshots alike, and so is what sled has of them. A stolen disk tells the names of
//! streams, and how many records of how many bytes, compressed, were written when; no topic, no
//! value, no attribute, no bucket, key or cursor. That holds as long as the key is not on the same
//! disk: hand it over as a systemd credential that the TPM has sealed, or on another medium.
//! Whoever can read the memory of the running node has the key.
//!
//! The first of the [`Keys`] seals what is written, all open what is read; each segment names the
//! one it needs. A log with segments of a key that is not there does not open ([`Error::Key`]),
//! and is not touched: nothing in it counts as damage. So a log that was sealed once is never
//! written in clear again. What was written in clear before reads on, and stays in clear until
//! retention takes it (copies in `quarantine/`, until somebody removes them), but for the catalog:
//! its journal is written anew with the key, and its database is removed and made anew, at the
//! first opening with another key than before. (What was removed from a flash disk may be found in
//! its spare blocks: to be sure, begin with an empty disk.) A key can leave the key file when no
//! segment names it any more.
//!
//! No nonce is used twice: sequence numbers are not, in one life of a log, and each life draws 48
//! random bits that are in its nonces too, for numbers that were given out before a crash, and for
//! copies of a disk. A frame that passes its checksums and does not open was altered: its records
//! are damage ([`inspect::FaultKind::Seal`]), its bytes stay where they are. The seal covers the
//! header of the frame and its place, so that no frame passes for another. It does not prove that
//! a frame was not removed, which the hash chain does, nor that the newest are all there, nor that
//! nobody put a segment in clear where a sealed one was.
//!
//! # Files of a data directory
//!
//! ```text
//! lock                    held by the one process that may write
//! epoch                   16 hex digits and a newline: random id, made at the first opening;
//!                         made anew from the segments' headers where they have another
//! clean-stop.json         {"last_sequence", "heads", "checksum"}: there only after an orderly
//!                         stop; the CRC32C is that of [last_sequence,heads] as compact JSON
//! streams/<stream>/<base offset, 20 digits>-<sequence, 20 digits>.seg
//! catalog/                sled; may be deleted while nothing runs
//! reserve                 blocks kept for a full disk; may be deleted while nothing runs
//! quarantine/             copies of damaged bytes, for people
//! ```
//!
//! Files sort by name in the order they were written. A process begins a new segment in each
//! stream it writes to, so that only the newest segment of a stream may have a torn end. What a
//! killed process left to the kernel, opening syncs before it builds on it: names of files and
//! directories as well as the ends of the newest segments.
//!
//! # Format version 1
//!
//! All integers are little-endian. A segment file is one header, then frames without anything
//! between them. Zeros after the last frame are unused room, not damage.
//!
//! ```text
//! segment header, 256 bytes
//!   0   4  "SKRY"
//!   4   2  format version, 1
//!   6   2  length of this header, 256
//!   8   8  epoch of the data directory
//!  16  16  boot id of the kernel that ran when the segment was begun
//!  32   8  base offset: that of the first record in it
//!  40   8  sequence: no frame in it has a lower one, all in earlier segments do
//!  48   8  created, ns since the Unix epoch (signed)
//!  56   4  flags: 1 its frames are encrypted, 2 appends were acknowledged before they were synced
//!  60   4  0
//!  64  32  BLAKE3 of the segment before; 0 in a stream's first
//!  96   1  length of the stream's name
//!  97  64  the name, padded with 0
//! 161   8  id of the key they are encrypted with, 0 if they are not
//! 169  83  0
//! 252   4  CRC32C of bytes 0..252
//!
//! frame header, 64 bytes, then the payload
//!   0   4  F5 53 4B 0A
//!   4   4  length of the payload
//!   8   4  length of the body, which is the payload decompressed
//!  12   4  number of records
//!  16   8  offset of the first record
//!  24   8  sequence number: unique and growing over all streams, with gaps
//!  32   8  earliest event time of its records, ns since the Unix epoch (signed); 0 without any
//!  40   8  latest event time
//!  48   1  codec: 0 none, 1 lz4 block, 2 zstd
//!  49   1  flags: 1 has changes, 2 part of a snapshot, 4 its first part, 8 its last,
//!            16 has gap records, 32 the payload is encrypted
//!  50   6  salt of an encrypted payload, 0 if it is not
//!  56   4  CRC32C of the payload
//!  60   4  CRC32C of bytes 0..60 of this header
//! ```
//!
//! Both checksums of a frame continue the CRC32C of 24 bytes that stand nowhere in front of it:
//! the segment's epoch, base offset and sequence. So a frame copied from elsewhere, or embedded
//! in a payload, does not pass. All three are also known from the file's name and `epoch`: a
//! segment whose header is damaged still reads.
//!
//! **Encrypted payloads.** Keys are 32 bytes. What is used is derived from them, with the key
//! derivation mode of BLAKE3, by these contexts:
//!
//! ```text
//! skerry log format 1: key id             its first 8 bytes name the key; shown as hex
//! skerry log format 1: frames             key of XChaCha20-Poly1305 for payloads
//! skerry log format 1: catalog entries    the same for what is in sled
//! skerry log format 1: catalog names      key of BLAKE3's keyed mode, for names in sled
//! ```
//!
//! The payload is the ciphertext of the compressed body, then the tag of 16 bytes; the header's
//! length of it includes the tag. Checksums and digests are of these bytes, and need no key.
//!
//! ```text
//! nonce, 24 bytes                         associated data, 80 bytes
//!   0   8  the segment's epoch              0  24  the segment's epoch, base offset, sequence
//!   8   6  salt                            24  56  bytes 0..56 of the frame's header
//!  14   2  0
//!  16   8  sequence number of the frame
//! ```
//!
//! **Hash chain.** The segment before is the newest one of the same stream, `_catalog` included,
//! that holds an intact frame. Its digest is that of the file from byte 0 to the end of its last
//! intact frame: its header and so the digest in that are part of it, and so is damage in between
//! that was in quarantine already when the next segment was begun; a torn end, which recovery cuts
//! off, and the zeros behind are not. Retention takes segments from the front only, so what the
//! first one links to need not be there. [`inspect::verify`] tells a break of the chain
//! ([`inspect::FaultKind::Chain`]: a segment altered, replaced or removed, with every checksum made
//! to pass) from damage: a segment that is reported as damaged is not compared with its digest.
//! The chain has no key: it proves nothing against somebody who writes all segments from there on
//! anew, and nothing about the newest one that holds a frame, which no header speaks of yet: that
//! of an empty segment is not asked, for what it names may have been torn and cut since.
//!
//! The body is the [postcard](https://postcard.jamesmunns.com/wire-format) form of
//! `(Vec<Record>, Vec<Change>)`, with unsigned integers as LEB128 varints, signed ones zigzagged
//! first, and strings and bytes led by their length:
//!
//! ```text
//! count of records, then each:
//!   kind         varint: 0 mqtt, 1 opcua, 2 score, 3 alert, 4 gap, 5 node
//!   source       string
//!   payload      bytes
//!   source time  0 | 1, signed ns since the Unix epoch
//!   server time  0 | 1, signed ns
//!   ingest time  signed ns
//!   status       varint
//!   attributes   count, then each: string, bytes
//! count of changes, then each:
//!   0 advance    cursor (string), stream (string), next (varint)
//!   1 put        bucket (string), key (bytes), value (bytes)
//!   2 delete     bucket (string), key (bytes)
//! ```
//!
//! Changes in bucket `_skerry` are the log's own: `tail/<stream>` (u64, records before it were
//! reclaimed or given up), `damage/<stream>/<offset>` (a gap record was written for it) and `ages`
//! (the log's clock, and marks of how far each stream had come when).
//!
//! A snapshot of the catalog is a run of frames in `_catalog`, alone in its segment's beginning:
//! all flagged 2, the first also 4, the last also 8. It is valid only whole, and then stands for
//! every change with a lower sequence number.

mod age;
mod append;
mod catalog;
mod cipher;
mod codec;
mod digest;
mod directory;
mod disk;
mod encoding;
mod entry;
mod error;
mod event_time;
mod frame;
mod full_disk;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod give_up;
mod housekeeping;
pub mod inspect;
mod keys;
mod log;
mod options;
mod packing;
mod plan;
mod queue;
mod ranges;
mod reader;
mod recent;
mod record;
mod records;
mod recovery;
mod removal;
mod replay;
mod reserve;
mod retention;
mod scrub;
mod seek;
mod segment;
mod stats;
mod stream;
mod track;
mod view;
mod writer;

pub use append::{APPEND_BYTES_MAX, Append, Change, Committed};
pub use codec::Codec;
#[doc(hidden)]
pub use disk::{Disk, Done, Fault, Operation};
pub use error::{Class, Error};
pub use keys::{KeyId, Keys};
pub use log::{Log, Pending};
pub use options::{Durability, Options, StreamName, StreamOptions, WhenFull};
pub use queue::Producer;
pub use reader::{Batch, Reader, Views};
pub use record::{Gap, Kind, Offset, Record, WallNanos};
pub use records::{Fresh, Records};
pub use recovery::Recovery;
pub use scrub::{Outcome, Place, Scrub};
pub use stats::{Stats, Storage, StreamStats};
pub use view::{Attributes, RecordView, RecordViews};
