//! From the first byte to CONNACK.

use super::{Connection, FAREWELL};
use crate::access::Access;
use crate::backlog::Backlog;
use crate::codec::{Incoming, Malformed};
use crate::handshake::{self, Agreed, Refused};
use crate::ingest::Ingest;
use crate::link::{Inlet, Outlet};
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
            if let Some((answer, version)) =
                handshake::answer_to_malformed(malformed, inlet.version())
            {
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
        Ok((agreed, seat, session, session_present)) => {
            outlet.agree(agreed.terms(), agreed.topic_alias_maximum);
            if !outlet.send(&agreed.connack(session_present, &ingest.config), version) {
                // It takes not even this answer.
                status.connections_refused.up("packet_size");
                return None;
            }
            let backlog = Backlog::resend(session.outbound.resend());
            Some(Connection {
                ingest,
                access,
                agreed,
                seat,
                session,
                inlet,
                outlet,
                uncommitted: Uncommitted::default(),
                backlog,
                heard: Instant::now(),
                // A client may send more in one go with its CONNECT (3.1.1, 3.1.4).
                starved: false,
                hold: None,
                unreleased: 0,
            })
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

/// Takes the client's seat and what is known of its session.
async fn join(
    ingest: &Ingest,
    agreed: Agreed,
    patience: Duration,
) -> Result<(Agreed, Seat, Session, bool), Refused> {
    let joining = ingest.registry.join(&agreed.client_id, agreed.clean);
    let (seat, kept) = timeout(patience, joining)
        .await
        .map_err(|_| Refused::Unavailable)?;
    let mut ids = match qos2::load(&ingest.log, &agreed.client_id, agreed.clean).await {
        Ok(ids) => ids,
        Err(error) => {
            ingest.refusal(&error);
            tracing::warn!(%error, "a client was turned away: its QoS 2 state cannot be read");
            return Err(Refused::Unavailable);
        }
    };
    let session_present = kept.is_some();
    if session_present {
        ids.resume();
    }
    let mut outbound = kept.map(|kept| kept.outbound).unwrap_or_default();
    outbound.set_window(agreed.in_flight_max);
    let session = Session::new(agreed.version, ids, outbound);
    Ok((agreed, seat, session, session_present))
}
