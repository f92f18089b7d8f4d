//! How far the commands of each topic were carried out, in the catalog.
//!
//! ```text
//!  order ─► "sending" recorded, next = order + 1, in doubt ─► sent ─► outcome recorded, no doubt
//!                    one append                        crash?            one append
//! ```
//!
//! An order is passed before it is sent, so that no crash has it sent twice: to do a "start" again
//! is worse than not to do it. One that is still in doubt when a run begins may or may not have
//! been carried out, and that is what is said of it.

use super::config::Command;
use super::order::{Before, Reply};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use skerry_store::{Change, Error, Log, Offset};

const BUCKET: &str = "opcua-commands";
/// A stream that went on without a command by so much is noted as looked through: enough that the
/// next start has little to look through again, and rarely enough for a flash disk.
const CHECKPOINT_RECORDS: u64 = 10_000;
/// Changes with every start of the computer (proc(5)); nothing where there is no such file.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// One topic's entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// What its messages did, and in which stream they were: a topic that means something else
    /// today begins anew.
    action: String,
    stream: String,
    boot: String,
    /// Messages before it are done with.
    pub(crate) next: Offset,
    /// Being sent.
    pub(crate) doubt: Option<Doubt>,
}

/// Enough to answer for an order whose outcome nobody knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Doubt {
    pub(crate) offset: Offset,
    pub(crate) id: Option<Json>,
    pub(crate) topic: String,
    correlation: Option<Vec<u8>>,
}

/// What a run begins with.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) entries: Vec<Entry>,
    /// What is known of orders that an earlier run left.
    pub(crate) left_behind: Before,
}

/// Reads the entries of `commands`; topics without one begin at the head. Blocks.
pub(crate) fn load(log: &Log, endpoint: &str, commands: &[Command]) -> Result<Start, Error> {
    let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
    let boot = boot.trim().to_owned();
    let mut left_behind = Before::SameBoot;
    let mut entries = Vec::with_capacity(commands.len());
    for command in commands {
        let stored = log.get(BUCKET, &key(endpoint, command))?;
        let stored: Option<Entry> = stored.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let (action, stream) = (command.action.to_string(), command.stream.as_str());
        let (next, doubt) = match stored {
            Some(entry) if entry.action == action && entry.stream == stream => {
                if entry.boot != boot || boot.is_empty() {
                    left_behind = Before::EarlierBoot;
                }
                (entry.next, entry.doubt)
            }
            other => {
                let head = *log.head(&command.stream)?.borrow();
                (head, other.and_then(|entry| entry.doubt))
            }
        };
        entries.push(Entry {
            action,
            stream: stream.to_owned(),
            boot: boot.clone(),
            next,
            doubt,
        });
    }
    Ok(Start {
        entries,
        left_behind,
    })
}

impl Entry {
    /// There was no command before `until`; whether that is worth noting.
    pub(crate) fn pass(&mut self, until: Offset) -> bool {
        let far = until >= self.next.plus(CHECKPOINT_RECORDS);
        if far {
            self.next = until;
        }
        far
    }

    pub(crate) fn change(&self, endpoint: &str, command: &Command) -> Change {
        Change::Put {
            bucket: BUCKET.to_owned(),
            key: key(endpoint, command).into(),
            value: serde_json::to_vec(self)
                .expect("plain numbers and strings")
                .into(),
        }
    }
}

impl Doubt {
    pub(crate) fn of(offset: Offset, id: Option<Json>, reply: &Reply) -> Self {
        Self {
            offset,
            id,
            topic: reply.topic.clone(),
            correlation: reply.correlation.as_ref().map(|data| data.to_vec()),
        }
    }

    pub(crate) fn reply(&self) -> Reply {
        Reply {
            topic: self.topic.clone(),
            correlation: self.correlation.clone().map(Bytes::from),
        }
    }
}

/// Neither names nor topics have a NUL in them.
fn key(endpoint: &str, command: &Command) -> Vec<u8> {
    [endpoint.as_bytes(), b"\0", command.topic.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::super::config::{Action, Limits};
    use super::*;
    use skerry_store::{Append, Kind, Options, Record, StreamName, StreamOptions};
    use std::time::Duration;

    fn command(node: &str) -> Command {
        let stream = StreamName::new("commands").unwrap();
        Command {
            topic: "cmd/a".to_owned(),
            stream: stream.clone(),
            results: stream,
            action: Action::Write {
                node: node.parse().unwrap(),
                limits: Limits::default(),
            },
            max_age: Duration::from_secs(30),
        }
    }

    async fn append(log: &Log, records: Vec<Record>, changes: Vec<Change>) {
        let append = Append {
            stream: StreamName::new("commands").unwrap(),
            records,
            changes,
        };
        log.append(append).await.unwrap();
    }

    #[tokio::test]
    async fn a_run_goes_on_where_the_last_one_was_if_all_is_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options::new(folder.path());
        options.allow_volatile = true;
        options.streams = vec![StreamOptions::new(
            StreamName::new("commands").unwrap(),
            1 << 20,
        )];
        let (log, _) = Log::open(options).unwrap();
        let message = Record::new(Kind::Mqtt, "cmd/a", "1");
        append(&log, vec![message.clone(), message], Vec::new()).await;
        let listed = [command("i=1")];
        let begin = |listed: &[Command]| load(&log, "plant", listed).unwrap();

        let mut first = begin(&listed).entries.remove(0);
        assert_eq!((first.next, &first.doubt), (Offset(2), &None));
        first.next = Offset(1);
        let reply = Reply {
            topic: "cmd/a/result".to_owned(),
            correlation: Some(Bytes::from_static(b"7")),
        };
        first.doubt = Some(Doubt::of(Offset::ZERO, None, &reply));
        append(&log, Vec::new(), vec![first.change("plant", &listed[0])]).await;
        let again = begin(&listed);
        assert_eq!(again.entries[0], first);
        assert_eq!(again.left_behind, Before::SameBoot);
        assert_eq!(first.doubt.as_ref().unwrap().reply(), reply);

        // Another node: what was for the first one is not for it, but is still answered for.
        let other = begin(&[command("i=2")]).entries.remove(0);
        assert_eq!((other.next, &other.doubt), (Offset(2), &first.doubt));
        assert_eq!(begin(&[]).left_behind, Before::SameBoot);

        "the one before".clone_into(&mut first.boot);
        append(&log, Vec::new(), vec![first.change("plant", &listed[0])]).await;
        let booted = begin(&listed);
        assert_eq!(booted.left_behind, Before::EarlierBoot);
        assert_ne!(booted.entries[0].boot, first.boot);
    }

    #[test]
    fn only_a_long_way_without_commands_is_noted() {
        let mut entry = Entry {
            action: String::new(),
            stream: String::new(),
            boot: String::new(),
            next: Offset(5),
            doubt: None,
        };
        assert!(!entry.pass(Offset(10_004)));
        assert_eq!(entry.next, Offset(5));
        assert!(entry.pass(Offset(10_005)));
        assert_eq!(entry.next, Offset(10_005));
        assert!(!entry.pass(Offset(3)));
    }
}
