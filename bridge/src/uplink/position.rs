//! How far the cluster has a stream, and where to go on: the pure heart of "once".
//!
//! A position is a record in the node's positions topic, written in the same transaction as the
//! data it speaks of. It says "of the log with this epoch, everything before `next` is here", so
//! the last committed position record is the truth about the data, whatever this node believes.
//!
//! ```text
//! key    <node>/<stream>/<epoch>
//! value  {"epoch":"00f3…","next":1205,"last":"9ab1…"}
//! ```
//!
//! `last` is the fingerprint of the record at `next - 1`. It tells a disk that went on from an
//! older image, and now holds other records under the same offsets, from the disk that wrote
//! the position.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use skerry_store::{Offset, Record, WallNanos};

/// What a transaction says about one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// The log the offsets belong to.
    #[serde(with = "hex")]
    pub(crate) epoch: u64,
    /// Everything before it is in the cluster, as itself or as a gap.
    pub(crate) next: Offset,
    /// Of the record at `next - 1`; none where that offset stands for a gap.
    #[serde(default, with = "hex::option", skip_serializing_if = "Option::is_none")]
    pub(crate) last: Option<Fingerprint>,
}

/// FNV-1a over what makes a record itself. Not a defence against forgery: it only has to tell
/// two records apart that a restored disk gave the same offset.
pub(crate) type Fingerprint = u64;

impl Position {
    /// The key under which compaction keeps the newest position of a stream. With the epoch in
    /// it, a disk that was replaced and comes back finds its own.
    pub(crate) fn key(node: &str, stream: &str, epoch: u64) -> String {
        format!("{node}/{stream}/{epoch:016x}")
    }

    pub(crate) fn to_json(self) -> Vec<u8> {
        serde_json::to_vec(&self).expect("a position has string keys only")
    }

    pub(crate) fn from_json(value: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(value)
    }
}

/// What this node's disk knows of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Local {
    pub(crate) epoch: u64,
    pub(crate) head: Offset,
    /// The uplink's own cursor, or where the log's lineage begins. It trails the cluster by the last few transactions, so it is
    /// believed only where the cluster knows nothing.
    pub(crate) cursor: Option<Offset>,
    /// The fingerprint of the record at the found position's `next - 1`, if it is still held.
    pub(crate) last: Option<Fingerprint>,
}

/// Where a session begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// The cluster said so.
    Resume(Offset),
    /// The cluster knows nothing of this log.
    First(Offset),
    /// The cluster has records of this log that this disk does not: sending would repeat some
    /// offsets with other content, skipping would lose what is new. Neither is ours to choose.
    Diverged { confirmed: Offset, head: Offset },
}

/// Decides where to go on. Call it only after a new producer of the stream's transactional id
/// was initialised and the positions were read to the end that was seen after that: only then
/// no older transaction can still become true.
pub(crate) fn resolve(found: Option<Position>, local: Local) -> Start {
    match found {
        Some(position) if position.epoch == local.epoch => {
            let differs = matches!((position.last, local.last), (Some(a), Some(b)) if a != b);
            if position.next > local.head || differs {
                Start::Diverged {
                    confirmed: position.next,
                    head: local.head,
                }
            } else {
                Start::Resume(position.next)
            }
        }
        // No position, or one of the disk this node had before. From the very first offset, also
        // where the tail is beyond it: what was given up before the first contact is a gap too.
        _ => Start::First(local.cursor.unwrap_or(Offset::ZERO)),
    }
}

/// What of a record makes it itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) ingest: WallNanos,
    pub(crate) source: Bytes,
    pub(crate) payload: Bytes,
}

impl Mark {
    pub(crate) fn of(record: &Record) -> Self {
        Self {
            ingest: record.ingest_time,
            source: Bytes::copy_from_slice(record.source.as_bytes()),
            payload: record.payload.clone(),
        }
    }
}

/// What tells this record from another one at the same offset.
pub(crate) fn fingerprint(mark: &Mark) -> Fingerprint {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    [
        &mark.ingest.0.to_le_bytes()[..],
        &mark.source,
        &mark.payload,
    ]
    .into_iter()
    .flatten()
    .fold(BASIS, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(PRIME)
    })
}

/// Sixty-four bits as sixteen hex digits: JSON numbers lose the lower ones in many readers.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{value:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }

    pub(super) mod option {
        use serde::{Deserializer, Serializer};

        pub(in super::super) fn serialize<S: Serializer>(
            value: &Option<u64>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            match value {
                Some(value) => super::serialize(value, to),
                None => to.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<u64>, D::Error> {
            super::deserialize(from).map(Some)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_store::Kind;

    const EPOCH: u64 = 0x00f3_0000_0000_0001;

    fn local(head: u64, cursor: Option<u64>) -> Local {
        Local {
            epoch: EPOCH,
            head: Offset(head),
            cursor: cursor.map(Offset),
            last: None,
        }
    }

    fn at(next: u64) -> Option<Position> {
        Some(Position {
            epoch: EPOCH,
            next: Offset(next),
            last: None,
        })
    }

    #[test]
    fn the_cluster_is_believed_over_the_cursor_in_both_directions() {
        // Killed between the commit and the cursor's advance.
        assert_eq!(
            resolve(at(70), local(100, Some(60))),
            Start::Resume(Offset(70))
        );
        // The cluster itself went back (unclean election): it lacks 50..60, so they go again.
        assert_eq!(
            resolve(at(50), local(100, Some(60))),
            Start::Resume(Offset(50))
        );
    }

    #[test]
    fn a_position_before_the_tail_is_kept_so_that_the_reader_reports_the_gap() {
        assert_eq!(
            resolve(at(10), local(100, Some(60))),
            Start::Resume(Offset(10))
        );
    }

    #[test]
    fn an_unknown_log_starts_at_the_cursor_or_else_at_its_first_offset() {
        assert_eq!(resolve(None, local(100, None)), Start::First(Offset(0)));
        assert_eq!(
            resolve(None, local(100, Some(60))),
            Start::First(Offset(60))
        );
        let other = Position {
            epoch: EPOCH + 1,
            next: Offset(9_000),
            last: None,
        };
        assert_eq!(
            resolve(Some(other), local(100, None)),
            Start::First(Offset(0))
        );
    }

    #[test]
    fn a_disk_behind_the_cluster_is_noticed() {
        let diverged = Start::Diverged {
            confirmed: Offset(101),
            head: Offset(100),
        };
        assert_eq!(resolve(at(101), local(100, Some(60))), diverged);
        assert_eq!(
            resolve(at(100), local(100, Some(60))),
            Start::Resume(Offset(100))
        );
    }

    #[test]
    fn a_disk_that_went_on_from_an_image_is_noticed_by_the_fingerprint() {
        let found = Some(Position {
            epoch: EPOCH,
            next: Offset(50),
            last: Some(1),
        });
        let mut disk = local(100, Some(50));
        disk.last = Some(2);
        assert_eq!(
            resolve(found, disk),
            Start::Diverged {
                confirmed: Offset(50),
                head: Offset(100)
            }
        );
        disk.last = Some(1);
        assert_eq!(resolve(found, disk), Start::Resume(Offset(50)));
        disk.last = None; // already reclaimed: nothing to compare
        assert_eq!(resolve(found, disk), Start::Resume(Offset(50)));
    }

    #[test]
    fn a_position_survives_its_json() {
        for last in [None, Some(u64::MAX)] {
            let position = Position {
                epoch: EPOCH,
                next: Offset(7),
                last,
            };
            assert_eq!(Position::from_json(&position.to_json()).unwrap(), position);
        }
        let text = String::from_utf8(at(7).unwrap().to_json()).unwrap();
        assert_eq!(text, r#"{"epoch":"00f3000000000001","next":7}"#);
        assert!(Position::from_json(b"{}").is_err());
    }

    #[test]
    fn fingerprints_tell_records_apart() {
        let one = Record::new(Kind::Mqtt, "a", "1");
        let mut two = one.clone();
        let of = |record: &Record| fingerprint(&Mark::of(record));
        assert_eq!(of(&one), of(&two));
        two.ingest_time.0 += 1;
        assert_ne!(of(&one), of(&two));
    }
}
