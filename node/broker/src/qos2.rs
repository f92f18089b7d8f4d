//! Inbound QoS 2: which packet ids are between PUBLISH and PUBCOMP, here and in the catalog.
//!
//! The id goes into the bucket `qos2` in the same append as the record, so after any crash either
//! both are there or none. A client that sends the publish again gets PUBREC, and the log has one
//! record. The key is `client id, NUL, packet id`; a client id cannot contain NUL.
//!
//! The value is a digest of topic and payload. It protects the other promise: a client that lost
//! *its* state reuses ids for new messages, and a new message must not be taken for an old one's
//! copy. So across connections a publish counts as a copy only if it carries the same content,
//! and, where the client was told that there is no session, also says that it is one (DUP).
//! Within a session DUP is not asked for: rumqttc 0.25 resends without it.

use crate::codec::PacketId;
use bytes::{BufMut, Bytes, BytesMut};
use skerry_store::{Append, Change, Error, Log, StreamName};
use std::collections::HashMap;

/// The catalog bucket.
pub(crate) const BUCKET: &str = "qos2";

/// 64-bit FNV-1a over topic and payload: written to disk, hence not the standard library's
/// hasher, whose result may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest(u64);

impl Digest {
    pub(crate) fn of(topic: &str, payload: &[u8]) -> Self {
        let bytes = topic.bytes().chain([0]).chain(payload.iter().copied());
        Self(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        }))
    }

    pub(crate) fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0.to_be_bytes())
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(u64::from_be_bytes(bytes.try_into().ok()?)))
    }
}

/// All keys of a client start with this.
pub(crate) fn key_prefix(client_id: &str) -> Bytes {
    let mut key = BytesMut::with_capacity(client_id.len() + 3);
    key.put_slice(client_id.as_bytes());
    key.put_u8(0);
    key.freeze()
}

pub(crate) fn key(client_id: &str, id: PacketId) -> Bytes {
    let mut key = BytesMut::from(key_prefix(client_id));
    key.put_u16(id.get());
    key.freeze()
}

/// The append that makes the catalog forget these keys, together.
pub(crate) fn forget(keys: impl IntoIterator<Item = Bytes>) -> Append {
    let delete = |key| Change::Delete {
        bucket: BUCKET.to_owned(),
        key,
    };
    Append {
        stream: StreamName::catalog(),
        records: Vec::new(),
        changes: keys.into_iter().map(delete).collect(),
    }
}

/// What the catalog knows of a client. A clean start forgets it there first.
pub(crate) async fn load(log: &Log, client_id: &str, clean: bool) -> Result<Ids, Error> {
    let prefix = key_prefix(client_id);
    let reader = log.clone();
    let entries = tokio::task::spawn_blocking(move || reader.scan(BUCKET, &prefix)).await;
    let entries = entries.expect("reading the catalog does not panic")?;
    if clean && !entries.is_empty() {
        log.append(forget(entries.into_iter().map(|(key, _)| key)))
            .await?;
        return Ok(Ids::default());
    }
    Ok(Ids::load(
        entries.iter().map(|(key, value)| (&key[..], &value[..])),
    ))
}

/// The ids of one session.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    held: HashMap<PacketId, State>,
    since_connect: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Committed on an earlier connection.
    Earlier {
        digest: Digest,
        resumed: bool,
    },
    Uncommitted,
    Committed,
    Releasing,
}

/// How an id stands when a packet names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    New,
    Uncommitted,
    Committed,
}

impl Ids {
    /// From the entries of the catalog under [`key_prefix`]. What does not parse is left alone.
    pub(crate) fn load<'a>(entries: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut ids = Self::default();
        for (key, value) in entries {
            let number = key.last_chunk().map(|bytes| u16::from_be_bytes(*bytes));
            let id = number.and_then(PacketId::new);
            if let (Some(id), Some(digest)) = (id, Digest::from_bytes(value)) {
                ids.held.insert(
                    id,
                    State::Earlier {
                        digest,
                        resumed: false,
                    },
                );
            }
        }
        ids
    }

    /// The client is told that its session goes on: it knows these ids too.
    pub(crate) fn resume(&mut self) {
        for state in self.held.values_mut() {
            if let State::Earlier { resumed, .. } = state {
                *resumed = true;
            }
        }
    }

    /// A PUBLISH with this id arrived. `New` registers it.
    pub(crate) fn begin(&mut self, id: PacketId, digest: Digest, dup: bool) -> Held {
        match self.held.get(&id) {
            Some(State::Earlier {
                digest: earlier,
                resumed,
            }) if *earlier == digest && (dup || *resumed) => {
                return Held::Committed;
            }
            Some(State::Committed | State::Releasing) => return Held::Committed,
            Some(State::Uncommitted) => return Held::Uncommitted,
            Some(State::Earlier { .. }) | None => {}
        }
        self.held.insert(id, State::Uncommitted);
        self.since_connect += 1;
        Held::New
    }

    pub(crate) fn committed(&mut self, id: PacketId) {
        if let Some(state) = self.held.get_mut(&id) {
            *state = State::Committed;
        }
    }

    /// A PUBREL with this id arrived. `Committed` asks for the catalog to forget it.
    pub(crate) fn release(&mut self, id: PacketId) -> Held {
        match self.held.get_mut(&id) {
            None => Held::New,
            Some(State::Uncommitted | State::Releasing) => Held::Uncommitted,
            Some(state @ (State::Earlier { .. } | State::Committed)) => {
                if matches!(state, State::Earlier { .. }) {
                    self.since_connect += 1;
                }
                *state = State::Releasing;
                Held::Committed
            }
        }
    }

    pub(crate) fn forgotten(&mut self, id: PacketId) {
        if self.held.remove(&id).is_some() {
            self.since_connect -= 1;
        }
    }

    /// Ids that count against the receive maximum of this connection.
    pub(crate) const fn since_connect(&self) -> usize {
        self.since_connect
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: PacketId = PacketId::MIN;

    fn loaded() -> Ids {
        let digest = Digest::of("t", b"1").to_bytes();
        let key = key("client", ID);
        Ids::load([(&key[..], &digest[..])].into_iter())
    }

    #[test]
    fn after_a_restart_a_copy_is_recognised() {
        let mut ids = loaded();
        assert_eq!(ids.begin(ID, Digest::of("t", b"1"), true), Held::Committed);
        assert_eq!(ids.release(ID), Held::Committed);
        ids.forgotten(ID);
        assert_eq!((ids.len(), ids.since_connect()), (0, 0));
    }

    #[test]
    fn after_a_restart_a_new_message_with_an_old_id_is_not_swallowed() {
        assert_eq!(
            loaded().begin(ID, Digest::of("t", b"1"), false),
            Held::New,
            "not marked DUP"
        );
        assert_eq!(
            loaded().begin(ID, Digest::of("t", b"2"), true),
            Held::New,
            "other content"
        );
    }

    #[test]
    fn in_a_resumed_session_a_copy_need_not_say_so() {
        let mut ids = loaded();
        ids.resume();
        let again = ids.begin(ID, Digest::of("t", b"1"), false);
        assert_eq!(again, Held::Committed);
        let mut ids = loaded();
        ids.resume();
        assert_eq!(ids.begin(ID, Digest::of("t", b"2"), true), Held::New);
    }

    #[test]
    fn keys_of_one_client_are_not_another_s() {
        assert!(key("a", ID).starts_with(&key_prefix("a")));
        assert!(!key("ab", ID).starts_with(&key_prefix("a")));
    }

    #[test]
    fn the_digest_never_changes() {
        assert_eq!(Digest::of("t", b"1").0, 0x566e_0519_43ee_a1d8);
    }
}
