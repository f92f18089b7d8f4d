//! From the first byte to CONNACK.

use super::catching_up::CatchingUp;
use super::saving::Saving;
use super::{Connection, FAREWELL};
use crate::access::Access;
use crate::backlog::{Backlog, OwedRetained};
use crate::codec::{Incoming, Malformed};
use crate::handshake::{self, Agreed, Refused};
use crate::ingest::Ingest;
use crate::link::{Inlet, Outlet};
use crate::outbound::Outbound;
use crate::peer::Peer;
use crate::qos2;
use crate::registry::Seat;
use crate::session::Session;
use crate::uncommitted::Uncommitted;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Reads CONNECT and answers it; `None` if it did not come to a session.
pub(super) async fn establish(
    mut inlet: Inlet,
    mut outlet: Outlet,
    _peer: Peer,
    ingest: Arc<Ingest>,
    stop: &CancellationToken,
) -> Option<Connection> {
    let status = &ingest.status;
    let patience = ingest.config.connect_timeout;
    let first = tokio::select! {
        () = stop.cancelled() => return None,
        first = timeout(patience, first_packet(&mut inlet)) => first,
    };
    let connect = match first {
        Ok(Ok(Some(Incoming::Connect(connect)))) => *connect,
        Ok(Ok(_)) => return None,
        Ok(Err(malformed)) => {
            status.malformed.up(malformed.word());
            if let Some((answer, version)) = handshake::answer_to_malformed(malformed) {
                outlet.send(&answer, version);
                outlet.finish(FAREWELL).await;
            }
            return None;
        }
        Err(_) => {
            status.connections_refused.up("connect_timeout");
            return None;
        }
    };
    let version = connect.version;
    let registry = Arc::clone(&ingest.registry);
    let fresh_id = || format!("skerry-{:016x}-{}", ingest.log.epoch(), registry.number());
    let access = Access;
    let may_publish = |topic: &str| access.may_publish(topic) && ingest.check(topic).is_ok();
    let joined = match handshake::agree(connect, &ingest.config, may_publish, fresh_id) {
        Err(refused) => Err(refused),
        Ok(agreed) => join(&ingest, agreed, patience).await,
    };
    match joined {
        Ok(Joined {
            agreed,
            seat,
            session,
            session_present,
            owed,
        }) => {
            outlet.send(&agreed.connack(session_present, &ingest.config), version);
            seat.enter(agreed.is_lasting());
            let backlog = Backlog::new(session.outbound.resend(), owed);
            let mut connection = Connection {
                shelf: ingest.shelf(),
                ingest,
                access,
                seat,
                shared: Vec::new(),
                no_local: false,
                saved: agreed.is_lasting(),
                agreed,
                session,
                inlet,
                outlet,
                batch: None,
                released: Vec::new(),
                uncommitted: Uncommitted::default(),
                backlog,
                saving: Saving::default(),
                catching_up: CatchingUp::default(),
                heard: Instant::now(),
                // A client may send more in one go with its CONNECT (3.1.1, 3.1.4).
                starved: false,
                hold: None,
                unreleased: 0,
            };
            connection.subscriptions_changed();
            if connection.saved {
                connection.save();
            }
            Some(connection)
        }
        Err(refused) => {
            status.connections_refused.up(refused.word());
            outlet.send(&refused.connack(version), version);
            outlet.finish(FAREWELL).await;
            None
        }
    }
}

async fn first_packet(inlet: &mut Inlet) -> Result<Option<Incoming>, Malformed> {
    loop {
        if let Some(packet) = inlet.packet()? {
            return Ok(Some(packet));
        }
        if !inlet.fill().await.unwrap_or(false) {
            return Ok(None);
        }
    }
}

/// A client in its seat.
struct Joined {
    agreed: Agreed,
    seat: Seat,
    session: Session,
    session_present: bool,
    owed: Vec<OwedRetained>,
}

/// Takes the client's seat and what is known of its session. A clean start ends what was kept,
/// on disk as well, before the client is told so.
async fn join(ingest: &Ingest, agreed: Agreed, patience: Duration) -> Result<Joined, Refused> {
    let joining = ingest.registry.join(&agreed.client_id);
    let (mut seat, kept, will) = timeout(patience, joining)
        .await
        .map_err(|_| Refused::Unavailable)?;
    let unavailable = |error: skerry_store::Error| {
        ingest.refusal(&error);
        tracing::warn!(%error, "a client was turned away: its session cannot be had");
        Refused::Unavailable
    };
    let mut ids = qos2::load(&ingest.log, &agreed.client_id, agreed.clean)
        .await
        .map_err(unavailable)?;
    let session_present = kept.is_some() && !agreed.clean;
    let mut owed = Vec::new();
    let mut outbound = Outbound::default();
    match kept {
        Some(kept) if agreed.clean => {
            let (changes, unread) = seat.end(kept);
            ingest.hand_back(unread).await;
            if let Some(will) = will {
                // Its session is over, and with it the delay (5.0, 3.1.3.2.2).
                ingest.will(will.message).await;
            }
            ingest.note(changes).await.map_err(unavailable)?;
        }
        Some(kept) => {
            ids.resume();
            (outbound, owed) = seat.resume(kept);
        }
        None => {}
    }
    outbound.set_window(agreed.in_flight_max);
    let session = Session::new(agreed.version, ids, outbound);
    Ok(Joined {
        agreed,
        seat,
        session,
        session_present,
        owed,
    })
}
