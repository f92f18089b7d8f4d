//! From a PUBLISH to a record, and what all connections share.

use crate::access::{Guard, is_reserved};
use crate::backlog::Shelf;

use crate::codec::{PacketId, Qos, reason};
use crate::config::Config;
use crate::error::Error;
use crate::gaps::Gaps;
use crate::message::Message;
use crate::outbound::Named;
use crate::qos2::{self, Digest};
use crate::record;
use crate::registry::Registry;
use crate::retained::Retained;
use crate::status::Status;
use crate::streams::Streams;
use skerry_store::{Append, Change, Class, Log, Record, StreamName, WallNanos};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Topics under this are the node's own: it publishes derived streams there.
pub(crate) const OWN_PREFIX: &str = "skerry/";
/// Changes of the catalog that go into one append.
const NOTE_BYTES: usize = 1024 * 1024;
/// Sessions that read the log at the same time: each holds a frame or two.
const READERS_MAX: usize = 4;

/// What connections, wills and the dispatchers share.
pub(crate) struct Ingest {
    pub log: Log,
    pub config: Config,
    pub status: Arc<Status>,
    pub retained: Arc<Retained>,
    pub registry: Arc<Registry>,
    pub streams: Arc<Streams>,
    pub gaps: Gaps,
    pub guard: Arc<Guard>,
    /// Permits to read the log for a session that is behind.
    pub readers: Arc<Semaphore>,
    /// Set when the log has failed for good.
    fatal: Mutex<Option<Error>>,
    stopped: CancellationToken,
}

/// Why a publish is not in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The stream's limit is reached.
    Full,
    /// The disk is full or failing.
    Storage,
    /// This record cannot be logged at all.
    Rejected,
    /// The log has failed for good.
    Fatal,
    /// Clients may not publish there.
    NotAllowed,
    /// The payload is not the text that it says it is.
    PayloadFormat,
}

impl Refusal {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Storage => "storage",
            Self::Rejected => "rejected",
            Self::Fatal => "fatal",
            Self::NotAllowed => "not_allowed",
            Self::PayloadFormat => "payload_format",
        }
    }

    /// The reason code of a version 5 PUBACK or PUBREC.
    pub(crate) const fn reason(self) -> u8 {
        match self {
            Self::Full => reason::QUOTA_EXCEEDED,
            Self::NotAllowed => reason::NOT_AUTHORIZED,
            Self::PayloadFormat => reason::PAYLOAD_FORMAT_INVALID,
            Self::Storage | Self::Rejected | Self::Fatal => reason::IMPLEMENTATION_SPECIFIC,
        }
    }
}

/// A PUBLISH made ready for the log.
pub(crate) struct Prepared {
    pub stream: StreamName,
    pub record: Record,
    pub changes: Vec<Change>,
    /// Its topic, where the message is retained.
    pub retained: Option<Box<str>>,
}

impl Ingest {
    pub(crate) fn new(
        log: Log,
        config: Config,
        retained: Retained,
        registry: Arc<Registry>,
        guard: Arc<Guard>,
        stopped: CancellationToken,
    ) -> Self {
        let status = Arc::clone(&guard.status);
        status.retained.set(retained.len());
        Self {
            log,
            config,
            status,
            retained: Arc::new(retained),
            streams: Arc::clone(&registry.streams),
            registry,
            gaps: Gaps::default(),
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            guard,
            fatal: Mutex::new(None),
            stopped,
        }
    }

    /// Whether a client may publish to `topic`.
    pub(crate) fn check(&self, topic: &str) -> Result<(), Refusal> {
        if is_reserved(topic) {
            Err(Refusal::NotAllowed)
        } else {
            Ok(())
        }
    }

    /// The record of a client's publish with the changes that go with it: the retained message
    /// and, where `qos2` names the client of a lasting session, the packet id. `None` if it is
    /// not to be logged, and was delivered.
    pub(crate) fn prepare(
        &self,
        mut message: Message,
        qos2: Option<(&str, PacketId)>,
    ) -> Option<Prepared> {
        let stream = self.config.stream_of(&message.topic).clone();
        let unlogged = message.qos == Qos::AtMostOnce && !message.retain;
        if unlogged && self.config.memory.contains(&stream) {
            self.registry.publish_now(&message, false);
            return None;
        }
        let mut changes = Vec::new();
        if let Some((client_id, id)) = qos2 {
            changes.push(Change::Put {
                bucket: qos2::BUCKET.to_owned(),
                key: qos2::key(client_id, id),
                value: Digest::of(&message.topic, &message.payload).to_bytes(),
            });
        }
        match self.retained.change(&message) {
            Ok(change) => changes.extend(change),
            Err(_) => {
                // Delivered and logged, only not retained: refusing the whole record would lose
                // more than the retain flag.
                message.retain = false;
                self.status.retained_refused.up();
            }
        }
        if self.config.immediate.contains(&stream) {
            self.registry.publish_now(&message, true);
        }
        Some(Prepared {
            retained: message.retain.then(|| message.topic.as_str().into()),
            stream,
            record: record::of(message),
            changes,
        })
    }

    /// What a failed append means. A fatal one stops the broker: nothing could be acknowledged.
    pub(crate) fn refusal(&self, error: &skerry_store::Error) -> Refusal {
        match error.class() {
            Class::Full => Refusal::Full,
            Class::Retry => Refusal::Storage,
            Class::Reject => Refusal::Rejected,
            Class::Fatal => {
                self.fail(Error::Log(error.clone()));
                Refusal::Fatal
            }
        }
    }

    /// Counts a refusal. Where nobody is told (QoS 0, wills) a gap record will tell.
    pub(crate) fn refused(&self, stream: &StreamName, refusal: Refusal, untold: bool) {
        if self.status.refused.up(refusal.word()) == 0 {
            tracing::warn!(%refusal, stream = stream.as_str(), "a publish was refused");
        }
        if untold && refusal != Refusal::NotAllowed {
            self.gaps.note(stream, refusal.word(), WallNanos::now());
        }
    }

    /// Logs a will. Nobody waits for an answer.
    pub(crate) async fn will(&self, will: Message) {
        self.status.published(will.qos);
        let stream = self.config.stream_of(&will.topic).clone();
        let refusal = match self.check(&will.topic) {
            Err(refusal) => refusal,
            Ok(()) => {
                let Some(prepared) = self.prepare(will, None) else {
                    return;
                };
                let append = Append {
                    stream: prepared.stream,
                    records: vec![prepared.record],
                    changes: prepared.changes,
                };
                match self.log.append(append).await {
                    Ok(_) => return,
                    Err(error) => {
                        let topic = prepared.retained.as_deref();
                        topic.inspect(|topic| self.retained.refused(topic));
                        self.refusal(&error)
                    }
                }
            }
        };
        self.refused(&stream, refusal, true);
    }

    pub(crate) fn shelf(&self) -> Shelf {
        Shelf {
            log: self.log.clone(),
            streams: Arc::clone(&self.streams),
            retained: Arc::clone(&self.retained),
        }
    }

    /// Messages that a session had from shared subscriptions, and that are for others now.
    pub(crate) async fn hand_back(&self, unread: Vec<Named>) {
        if unread.is_empty() {
            return;
        }
        let shelf = self.shelf();
        let read = move || {
            for named in unread {
                match shelf.read(&named) {
                    Ok(Some(delivery)) => {
                        let group = delivery.group.clone();
                        group
                            .iter()
                            .for_each(|group| group.give_back(delivery.clone()));
                    }
                    Ok(None) => {}
                    Err(error) => {
                        tracing::error!(%error, "cannot read a message of a shared subscription");
                    }
                }
            }
        };
        let read = tokio::task::spawn_blocking(read).await;
        read.expect("reading the log does not panic");
    }

    /// Changes of the catalog, in order. More than one append holds are not one unit.
    pub(crate) async fn note(&self, changes: Vec<Change>) -> Result<(), skerry_store::Error> {
        let mut changes = VecDeque::from(changes);
        while !changes.is_empty() {
            let mut bytes = 0;
            let fits = |change: &&Change| {
                bytes += size(change);
                bytes <= NOTE_BYTES
            };
            let count = changes.iter().take_while(fits).count().max(1);
            let part = changes.drain(..count).collect();
            self.log.append(note(part)).await.inspect_err(|error| {
                self.refusal(error);
                tracing::warn!(%error, "the state of a session could not be saved");
            })?;
        }
        Ok(())
    }

    /// The same without waiting for the disk: in its turn, before whatever is queued later.
    pub(crate) async fn queue(&self, changes: Vec<Change>) {
        if let Err(error) = self.log.submit(note(changes)).await {
            self.refusal(&error);
        }
    }

    /// Ends the broker with `error`; the first one counts.
    pub(crate) fn fail(&self, error: Error) {
        let mut fatal = self.fatal.lock().unwrap_or_else(PoisonError::into_inner);
        fatal.get_or_insert(error);
        self.stopped.cancel();
    }

    pub(crate) fn take_fatal(&self) -> Option<Error> {
        self.fatal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

fn size(change: &Change) -> usize {
    match change {
        Change::Advance { .. } => 256,
        Change::Put { key, value, .. } => 128 + key.len() + value.len(),
        Change::Delete { key, .. } => 128 + key.len(),
    }
}

fn note(changes: Vec<Change>) -> Append {
    Append {
        stream: StreamName::catalog(),
        records: Vec::new(),
        changes,
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// Lowest QoS at which a refusal reaches somebody.
pub(crate) const fn is_untold(qos: Qos) -> bool {
    matches!(qos, Qos::AtMostOnce)
}
