//! What of the link a restart must not forget: how many bytes of its budgets are used, and which
//! link class was commanded. In the uplink's bucket of the catalog.

use super::gate::{AUTO, Ledger, Links, Usages};
use super::hint::CURSOR;
use skerry_store::{Append, Change, Class, Error, Log, StreamName};
use tokio::time::{Duration, sleep};
use tokio_util::sync::CancellationToken;

/// Beside the hints, whose keys are names of streams.
const USAGES: &str = "link/usages";
const COMMAND: &str = "link/command";
/// As much as goes over the link in that time is not counted after a crash.
const SAVE_EVERY: Duration = Duration::from_secs(10);

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

/// Writes both down while they change, and once more at `stop`.
pub(crate) async fn keep(
    log: &Log,
    links: &Links,
    ledger: &Ledger,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let mut kept = (usages(log)?, links.commanded());
    loop {
        let stopping = tokio::select! {
            () = sleep(SAVE_EVERY) => false,
            () = stop.cancelled() => true,
        };
        let now = (ledger.usages(), links.commanded());
        if now != kept {
            match save(log, &now).await {
                Ok(()) => kept = now,
                Err(error) if error.class() == Class::Fatal => return Err(error),
                Err(error) => tracing::warn!(%error, "what the link used is not saved"),
            }
        }
        if stopping {
            return Ok(());
        }
    }
}

async fn save(log: &Log, (usages, command): &(Usages, Option<String>)) -> Result<(), Error> {
    let usages = serde_json::to_vec(usages).expect("usages have string keys only");
    let command = command.as_deref().unwrap_or(AUTO).to_owned();
    let put = |key: &str, value: Vec<u8>| Change::Put {
        bucket: CURSOR.to_owned(),
        key: key.to_owned().into(),
        value: value.into(),
    };
    log.append(Append {
        stream: StreamName::catalog(),
        records: Vec::new(),
        changes: vec![put(USAGES, usages), put(COMMAND, command.into_bytes())],
    })
    .await?;
    Ok(())
}
