//! What of the link a restart must not forget: how many bytes of its budgets are used, which link
//! class was commanded, and how far commands were looked for. In the uplink's bucket of the catalog.

use super::commands::{LinkTopic, Looked};
use super::gate::{AUTO, Ledger, Links, Usages};
use super::hint::CURSOR;
use serde::{Deserialize, Serialize};
use skerry_store::{Append, Change, Class, Error, Log, Offset, StreamName};
use std::sync::Arc;
use tokio::time::{Duration, Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Beside the hints, whose keys are names of streams.
const USAGES: &str = "link/usages";
const COMMAND: &str = "link/command";
const LOOKED: &str = "link/looked";
/// As much as goes over the link in that time is not counted after a crash.
const SAVE_EVERY: Duration = Duration::from_secs(10);
/// Where nothing else is to be saved: as much of a stream is looked through again after a crash.
const SAVE_LOOKED_EVERY: Duration = Duration::from_secs(600);

/// What was used before.
pub(crate) fn usages(log: &Log) -> Result<Usages, Error> {
    let stored = log.get(CURSOR, USAGES.as_bytes())?;
    // What cannot be read was written by another version: it counts from now on.
    let stored = stored.and_then(|value| serde_json::from_slice(&value).ok());
    Ok(stored.unwrap_or_default())
}

/// Gives the last command again, as long as the class is still there.
pub(crate) fn recall(log: &Log, links: &Links) -> Result<(), Error> {
    let Some(stored) = log.get(CURSOR, COMMAND.as_bytes())? else {
        return Ok(());
    };
    let name = String::from_utf8_lossy(&stored).into_owned();
    if links.commanded().is_none()
        && let Err(unknown) = links.command(&name)
    {
        tracing::warn!(%unknown, "the link class that was commanded is not in the config any more");
    }
    Ok(())
}

/// How far a stream was looked through for commands.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    stream: String,
    next: u64,
}

/// Where to look for commands from: where it was left off, or at what comes from now on where
/// nothing was looked for before.
pub(crate) fn looked(
    log: &Log,
    from: Option<&LinkTopic>,
) -> Result<Option<(LinkTopic, Arc<Looked>)>, Error> {
    let Some(from) = from else { return Ok(None) };
    let head = *log.head(&from.stream)?.borrow();
    let stored = log.get(CURSOR, LOOKED.as_bytes())?;
    let stored = stored.and_then(|value| serde_json::from_slice::<Place>(&value).ok());
    let left_off = stored.filter(|place| place.stream == from.stream.as_str());
    let next = left_off.map_or(head, |place| head.min(Offset(place.next)));
    Ok(Some((from.clone(), Arc::new(Looked::until(next)))))
}

/// Writes all of it down while it changes, a command at once, and once more at `stop`.
pub(crate) async fn keep(
    log: &Log,
    links: &Links,
    ledger: &Ledger,
    looked: Option<(LinkTopic, Arc<Looked>)>,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let mut settings = links.settings();
    let mut kept = (usages(log)?, links.commanded());
    let (mut kept_looked, mut kept_at) = (None, Instant::now());
    loop {
        let stopping = tokio::select! {
            () = sleep(SAVE_EVERY) => false,
            _ = settings.changed() => false,
            () = stop.cancelled() => true,
        };
        // Before the command: what was looked at and not carried out is looked at again.
        let place = looked.as_ref().map(|(from, looked)| Place {
            stream: from.stream.as_str().to_owned(),
            next: looked.offset().0,
        });
        let now = (ledger.usages(), links.commanded());
        let looks_due = stopping || kept_at.elapsed() >= SAVE_LOOKED_EVERY;
        if now != kept || (looks_due && place != kept_looked) {
            match save(log, &now, place.as_ref()).await {
                Ok(()) => (kept, kept_looked, kept_at) = (now, place, Instant::now()),
                Err(error) if error.class() == Class::Fatal => return Err(error),
                Err(error) => tracing::warn!(%error, "what the link used is not saved"),
            }
        }
        if stopping {
            return Ok(());
        }
    }
}

async fn save(
    log: &Log,
    (usages, command): &(Usages, Option<String>),
    looked: Option<&Place>,
) -> Result<(), Error> {
    let usages = serde_json::to_vec(usages).expect("usages have string keys only");
    let command = command.as_deref().unwrap_or(AUTO).to_owned();
    let looked = looked.map(|place| serde_json::to_vec(place).expect("a place has two fields"));
    let put = |key: &str, value: Vec<u8>| Change::Put {
        bucket: CURSOR.to_owned(),
        key: key.to_owned().into(),
        value: value.into(),
    };
    let mut changes = vec![put(USAGES, usages), put(COMMAND, command.into_bytes())];
    changes.extend(looked.map(|looked| put(LOOKED, looked)));
    log.append(Append {
        stream: StreamName::catalog(),
        records: Vec::new(),
        changes,
    })
    .await?;
    Ok(())
}
