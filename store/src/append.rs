//! What goes in: records and catalog changes, as one atomic unit.

use crate::frame::Encoded;
use crate::{Error, Offset, Record, Records, StreamName};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// One atomic unit: all of it survives a crash, or none of it.
#[derive(Debug, Clone)]
pub struct Append {
    pub stream: StreamName,
    /// May be empty where only `changes` matter; such an append is journalled in `_catalog`,
    /// whatever `stream` it names.
    pub records: Vec<Record>,
    /// Catalog changes that become true in the same instant as the records.
    pub changes: Vec<Change>,
}

/// A change of the catalog, journalled in the log itself; sled only mirrors it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The reader `cursor` has done with everything in `stream` before `next`.
    Advance {
        cursor: String,
        stream: String,
        next: Offset,
    },
    Put {
        bucket: String,
        key: Bytes,
        value: Bytes,
    },
    Delete {
        bucket: String,
        key: Bytes,
    },
}

/// Offsets given to an append: `first .. next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    pub first: Offset,
    pub next: Offset,
}

/// The most one append may encode to. A frame holds at least one append, and a reader holds one
/// frame, so this also bounds a reader's memory.
pub const APPEND_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Longest bucket and cursor name: their length is one byte in the catalog's keys.
const NAME_BYTES_MAX: usize = 128;
/// An MQTT topic is at most 65,535 bytes, and is a key.
const KEY_BYTES_MAX: usize = 66 * 1024;

/// The bucket in which the log keeps its own notes.
pub(crate) const OWN_BUCKET: &str = "_skerry";

impl Append {
    /// Checks the append and turns it into the bytes its frame will hold.
    pub(crate) fn encode(&self) -> Result<Encoded, Error> {
        check(&self.stream, self.records.is_empty(), &self.changes)?;
        bounded(Encoded::new(&self.records, self.changes.clone()))
    }
}

/// The same of records that are encoded already.
pub(crate) fn encode(
    stream: &StreamName,
    records: &Records,
    changes: &[Change],
) -> Result<Encoded, Error> {
    check(stream, records.is_empty(), changes)?;
    bounded(Encoded::of(records, changes.to_vec()))
}

fn check(stream: &StreamName, without_records: bool, changes: &[Change]) -> Result<(), Error> {
    if without_records && changes.is_empty() {
        return Err(Error::invalid("an append needs a record or a change"));
    }
    if !without_records && *stream == StreamName::catalog() {
        return Err(Error::invalid(
            "stream _catalog takes changes only: give records a stream of their own",
        ));
    }
    changes.iter().try_for_each(check_change)
}

fn bounded(encoded: Encoded) -> Result<Encoded, Error> {
    if encoded.bytes() > APPEND_BYTES_MAX {
        return Err(Error::TooLarge {
            bytes: encoded.bytes(),
            bytes_max: APPEND_BYTES_MAX,
        });
    }
    Ok(encoded)
}

/// A change that changes nothing: a commit that carries it shows whether the disk takes one, and
/// what came before it is done once it is.
pub(crate) fn nothing() -> Encoded {
    let nothing = Change::Delete {
        bucket: OWN_BUCKET.to_owned(),
        key: b"probe"[..].into(),
    };
    Encoded::new(&[], vec![nothing])
}

fn check_change(change: &Change) -> Result<(), Error> {
    let name = |what: &str, name: &str| {
        if (1..=NAME_BYTES_MAX).contains(&name.len()) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{what} {name:?} must have 1 to {NAME_BYTES_MAX} bytes"
        )))
    };
    match change {
        Change::Advance { cursor, stream, .. } => {
            name("cursor", cursor)?;
            StreamName::new(stream).map(|_| ())
        }
        Change::Put { bucket, key, .. } | Change::Delete { bucket, key } => {
            name("bucket", bucket)?;
            if bucket == OWN_BUCKET {
                return Err(Error::invalid(format!(
                    "bucket {OWN_BUCKET} belongs to the log itself"
                )));
            }
            if key.len() > KEY_BYTES_MAX {
                return Err(Error::TooLarge {
                    bytes: key.len(),
                    bytes_max: KEY_BYTES_MAX,
                });
            }
            Ok(())
        }
    }
}
