//! From the first byte to CONNACK.

use super::catching_up::CatchingUp;
use super::saving::Saving;
use super::{Connection, FAREWELL};
use crate::accept::Arrival;
use crate::access::{Access, Pace};
use crate::backlog::{Backlog, OwedRetained};
use crate::codec::{Connect, Incoming, Malformed};
use crate::end::End;
use crate::handshake::{self, Agreed, Refused};
use crate::ingest::Ingest;
use crate::link::{self, Inlet};
use crate::outbound::Outbound;
use crate::peer::Peer;
use crate::qos2;
use crate::registry::Seat;
use crate::session::Session;
use crate::uncommitted::Uncommitted;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// Takes the connection through its transport's handshakes, reads CONNECT and answers it; `None`
/// if it did not come to a session.
pub(super) async fn establish(
    arrival: Arrival,
    refused: Option<Refused>,
    ingest: Arc<Ingest>,
    stop: &CancellationToken,
) -> Option<Connection> {
    let status = &ingest.status;
    let patience = match refused {
        None => ingest.config.connect_timeout,
        Some(_) => FAREWELL.min(ingest.config.connect_timeout),
    };
    // For all of it: each step on its own could be drawn out.
    let deadline = Instant::now() + patience;
    let (address, entrance) = (arrival.address, Arc::clone(&arrival.entrance));
    let opening = timeout_at(deadline, arrival.open(ingest.config.packet_bytes_max));
    let opened = tokio::select! {
        () = stop.cancelled() => return None,
        opened = opening => opened,
    };
    let (socket, peer) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(unopened)) => {
            status.connections_refused.up(unopened.reason);
            entrance.turned_away(address, unopened.reason, &unopened.detail);
            return None;
        }
        Err(_) => {
            status.connections_refused.up("handshake_timeout");
            let detail = "its TLS or WebSocket handshake took too long";
            entrance.turned_away(address, "handshake_timeout", &detail);
            return None;
        }
    };
    let (mut inlet, mut outlet) = link::split(socket, ingest.config.packet_bytes_max, status);
    let first = tokio::select! {
        () = stop.cancelled() => return None,
        first = timeout_at(deadline, first_packet(&mut inlet)) => first,
    };
    let connect = match first {
        Ok(Ok(Incoming::Connect(connect))) => *connect,
        // The decoder lets nothing else be the first.
        Ok(Ok(_) | Err(NoPacket::Closed)) => return None,
        Ok(Err(NoPacket::Transport(error))) => {
            let end = End::Transport.word();
            status.closed.up(end);
            entrance.turned_away(address, end, &error);
            outlet.finish(FAREWELL).await;
            return None;
        }
        Ok(Err(NoPacket::Malformed(malformed))) => {
            status.malformed.up(malformed.word());
            entrance.turned_away(address, malformed.word(), &malformed);
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
            entrance.turned_away(address, "connect_timeout", &"it sent no CONNECT in time");
            return None;
        }
    };
    let version = connect.version;
    let entered = match refused {
        Some(refused) => Err(refused),
        None => tokio::select! {
            () = stop.cancelled() => return None,
            entered = enter(&ingest, &peer, connect, patience) => entered,
        },
    };
    match entered {
        Ok((access, joined)) => {
            let Joined {
                agreed,
                seat,
                session,
                session_present,
                owed,
            } = joined;
            outlet.agree(agreed.terms(), agreed.topic_alias_maximum);
            if !outlet.send(&agreed.connack(session_present, &ingest.config), version) {
                // It takes not even this answer.
                status.connections_refused.up("packet_size");
                return None;
            }
            seat.enter(agreed.is_lasting());
            let backlog = Backlog::new(session.outbound.resend(), owed);
            let mut connection = Connection {
                shelf: ingest.shelf(),
                pace: Pace::new(&ingest.config.limits),
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

/// Why there is no first packet.
enum NoPacket {
    Closed,
    Malformed(Malformed),
    /// What carries MQTT was misused.
    Transport(io::Error),
}

async fn first_packet(inlet: &mut Inlet) -> Result<Incoming, NoPacket> {
    loop {
        if let Some(packet) = inlet.packet().map_err(NoPacket::Malformed)? {
            return Ok(packet);
        }
        match inlet.fill().await {
            Ok(true) => {}
            Err(error) if End::of_read(&error) == End::Transport => {
                return Err(NoPacket::Transport(error));
            }
            Ok(false) | Err(_) => return Err(NoPacket::Closed),
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

/// Finds out who the client is and what it may, then gives it its seat.
async fn enter(
    ingest: &Ingest,
    peer: &Peer,
    mut connect: Connect,
    patience: Duration,
) -> Result<(Access, Joined), Refused> {
    let credentials = std::mem::take(&mut connect.credentials);
    let (epoch, registry, guard) = (ingest.log.epoch(), &ingest.registry, &ingest.guard);
    let fresh_id = || format!("skerry-{epoch:016x}-{}", registry.number());
    let agreed = handshake::agree(connect, &ingest.config, fresh_id)?;
    let logging_in = guard.log_in(peer, &agreed.client_id, credentials, patience);
    let access = guard.grant(peer, &agreed.client_id, logging_in.await?)?;
    agreed.check_will(|topic| access.may_publish(topic))?;
    Ok((access, join(ingest, agreed, patience).await?))
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
