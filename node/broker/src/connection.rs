//! The task of one connection: owns its socket, its session and its place in the registry, and
//! is the only one to touch them.
//!
//! ```text
//!            ┌──────────── packets ──► Session ──► Uncommitted ──► log
//! socket ◄──►│ outbox ◄── acknowledgements ◄── settled, in order ◄──┤
//!            │        ◄── Backlog (resends, retained)               ▼
//!            └────────◄── Mailbox ◄── subscription tree ◄──────── fan-out
//! ```
//!
//! The loop never waits for one thing only, the router's room apart (microseconds): a full log
//! stops the reading, not the deliveries, and a reader that does not read stops its deliveries,
//! not its commits.

mod delivery;
mod establish;

use crate::access::Access;
use crate::backlog::Backlog;
use crate::codec::{
    Disconnect, Incoming, Outgoing, PacketId, Publish, Qos, RetainHandling, Subscribe, Unsubscribe,
    Version, reason,
};
use crate::config::{OUTBOX_BYTES_MAX, SUBSCRIPTIONS_MAX};
use crate::end::End;
use crate::handshake::Agreed;
use crate::ingest::{Ingest, Prepared, Refusal, is_untold};
use crate::link::{self, Inlet, Outlet};
use crate::peer::Peer;
use crate::qos2;
use crate::registry::Seat;
use crate::session::{Session, Step};
use crate::topic::{self, TopicFilter};
use crate::uncommitted::{Owed, Uncommitted};
use skerry_store::StreamName;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// How long last words may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// The alarm of a connection that has nothing to fear.
const IDLE: Duration = Duration::from_secs(3600);
/// SUBACK failure in 3.1.1.
const FAILURE_V311: u8 = 0x80;

/// Serves one client from its first byte to its last commit.
pub(crate) async fn serve(
    socket: TcpStream,
    peer: Peer,
    ingest: Arc<Ingest>,
    stop: CancellationToken,
) {
    let status = Arc::clone(&ingest.status);
    let (inlet, outlet) = link::split(socket, ingest.config.packet_bytes_max, &status);
    status.connections.up();
    status.connections_total.up();
    if let Some(mut connection) = establish::establish(inlet, outlet, peer, ingest, &stop).await {
        let end = connection.talk(&stop).await;
        connection.part(end).await;
    }
    status.connections.down();
}

/// `establish.rs` makes it, `delivery.rs` feeds its outbox.
struct Connection {
    ingest: Arc<Ingest>,
    access: Access,
    agreed: Agreed,
    seat: Seat,
    session: Session,
    inlet: Inlet,
    outlet: Outlet,
    uncommitted: Uncommitted,
    backlog: Backlog,
    /// When the client was last heard.
    heard: Instant,
    /// All whole packets that were read are dealt with.
    starved: bool,
    /// A 3.1.1 client that was refused: until when it is held, and how it ends then.
    hold: Option<(Instant, End)>,
    /// This connection's share of the gauge.
    unreleased: usize,
}

impl Connection {
    async fn talk(&mut self, stop: &CancellationToken) -> End {
        let alarm = sleep_until(Instant::now() + IDLE);
        tokio::pin!(alarm);
        loop {
            if let Err(end) = self.turn(stop, alarm.as_mut()).await {
                return end;
            }
        }
    }

    /// Does what can be done, then waits for the next event and deals with it.
    async fn turn(
        &mut self,
        stop: &CancellationToken,
        mut alarm: std::pin::Pin<&mut Sleep>,
    ) -> Result<(), End> {
        self.take_packets().await?;
        self.pump();
        let next_alarm = self.next_alarm();
        if next_alarm < alarm.deadline() {
            alarm.as_mut().reset(next_alarm);
        }
        let reading = self.takes_packets() && self.starved;
        let writing = self.outlet.waiting() > 0;
        let room_to_write = self.outlet.waiting() < OUTBOX_BYTES_MAX;
        tokio::select! {
            () = stop.cancelled() => return Err(End::Stopping),
            () = self.seat.wanted() => return Err(End::TakenOver),
            settled = self.uncommitted.settled(), if !self.uncommitted.is_empty() => {
                self.settle(settled).await;
            }
            read = self.inlet.fill(), if reading => {
                if !matches!(read, Ok(true)) {
                    return Err(End::PeerClosed);
                }
                self.heard = Instant::now();
                self.starved = false;
            }
            written = self.outlet.flush_some(), if writing => {
                written.map_err(|_| End::PeerClosed)?;
            }
            () = self.backlog.fetched(), if self.backlog.is_fetching() => {}
            () = self.seat.mailbox.filled(), if room_to_write => {}
            () = alarm.as_mut() => {
                self.overdue(Instant::now(), reading)?;
                alarm.reset(self.next_alarm());
            }
        }
        Ok(())
    }

    fn next_alarm(&self) -> Instant {
        let silence = self.agreed.silence_max.map(|silence| self.heard + silence);
        let stall = self
            .outlet
            .stalled_since
            .map(|at| at + self.ingest.config.write_timeout);
        let hold = self.hold.map(|(until, _)| until);
        let idle = Instant::now() + IDLE;
        [silence, stall, hold]
            .into_iter()
            .flatten()
            .fold(idle, Instant::min)
    }

    fn overdue(&mut self, now: Instant, reading: bool) -> Result<(), End> {
        if let Some((until, end)) = self.hold
            && until <= now
        {
            return Err(end);
        }
        let stalled = self.outlet.stalled_since;
        if stalled.is_some_and(|at| at + self.ingest.config.write_timeout <= now) {
            return Err(End::WriteStalled);
        }
        if !reading {
            // What we do not read cannot be held against the client.
            self.heard = now;
        }
        match self.agreed.silence_max {
            Some(silence) if self.heard + silence <= now => Err(End::Silent),
            _ => Ok(()),
        }
    }

    /// Back-pressure: nothing more is taken while too much is uncommitted, unread or refused.
    fn takes_packets(&self) -> bool {
        let outbox_has_room = self.outlet.waiting() < OUTBOX_BYTES_MAX;
        self.uncommitted.has_room() && outbox_has_room && self.hold.is_none()
    }

    async fn take_packets(&mut self) -> Result<(), End> {
        while !self.starved && self.takes_packets() {
            match self.inlet.packet().map_err(End::Malformed)? {
                Some(packet) => self.packet(packet).await?,
                None => self.starved = true,
            }
        }
        Ok(())
    }

    async fn packet(&mut self, packet: Incoming) -> Result<(), End> {
        let step = self.session.packet(packet).map_err(End::Malformed)?;
        let suppressed = self.session.take_suppressed();
        self.ingest
            .status
            .duplicates_suppressed
            .add(usize::try_from(suppressed).unwrap_or(0));
        match step {
            Step::Nothing => {}
            Step::Send(packet) => self.send(&packet),
            Step::Ingest(publish) => {
                self.publish(publish);
                self.uncommitted.advance().await;
            }
            Step::Refuse(publish) => {
                let stream = self.ingest.config.stream_of(&publish.topic).clone();
                self.refuse(&stream, publish.qos, publish.id, Refusal::PayloadFormat);
            }
            Step::Forget(id) => {
                self.forget(id);
                self.uncommitted.advance().await;
            }
            Step::Subscribe(subscribe) => self.subscribe(subscribe),
            Step::Unsubscribe(unsubscribe) => self.unsubscribe(&unsubscribe),
            Step::Leave(disconnect) => return Err(self.leave(disconnect)),
        }
        self.count_unreleased(self.session.ids.len());
        Ok(())
    }

    fn send(&mut self, packet: &Outgoing) {
        self.outlet.send(packet, self.agreed.version);
    }

    fn count_unreleased(&mut self, now: usize) {
        self.ingest
            .status
            .qos2_unreleased
            .shift(self.unreleased, now);
        self.unreleased = now;
    }

    fn publish(&mut self, publish: Publish) {
        let (qos, id) = (publish.qos, publish.id);
        self.ingest.status.published(qos);
        let checked = if self.access.may_publish(&publish.topic) {
            self.ingest.check(&publish.topic)
        } else {
            Err(Refusal::NotAllowed)
        };
        if let Err(refusal) = checked {
            let stream = self.ingest.config.stream_of(&publish.topic).clone();
            return self.refuse(&stream, qos, id, refusal);
        }
        let lasting_id = id.filter(|_| qos == Qos::ExactlyOnce && self.agreed.is_lasting());
        let qos2 = lasting_id.map(|id| (self.agreed.client_id.as_str(), id));
        let number = self.seat.mailbox.number;
        let Prepared { append, message } = self.ingest.prepare(publish, number, qos2);
        let stream = append.stream.clone();
        let owed = Owed::Publish {
            message: Box::new(message),
            qos,
            id,
            stream,
        };
        self.uncommitted.submit(&self.ingest.log, append, owed);
    }

    /// PUBREL: only a lasting session has its ids in the catalog.
    fn forget(&mut self, id: PacketId) {
        if !self.agreed.is_lasting() {
            let packet = self.session.forgotten(id);
            return self.send(&packet);
        }
        let append = qos2::forget([qos2::key(&self.agreed.client_id, id)]);
        self.uncommitted
            .submit(&self.ingest.log, append, Owed::Forget(id));
    }

    /// Fan-out, then acknowledgement, in the order of the publishes.
    async fn settle(&mut self, settled: Vec<(Owed, Result<(), skerry_store::Error>)>) {
        for (owed, result) in settled {
            match (owed, result) {
                (
                    Owed::Publish {
                        message, qos, id, ..
                    },
                    Ok(()),
                ) => {
                    self.ingest.committed(&message).await;
                    if let Some(packet) = self.session.committed(qos, id) {
                        self.send(&packet);
                        self.ingest.status.acknowledged.up();
                    }
                }
                (
                    Owed::Publish {
                        qos, id, stream, ..
                    },
                    Err(error),
                ) => {
                    let refusal = self.ingest.refusal(&error);
                    tracing::debug!(%error, "a publish was refused");
                    self.refuse(&stream, qos, id, refusal);
                }
                (Owed::Forget(id), Ok(())) => {
                    let packet = self.session.forgotten(id);
                    self.send(&packet);
                }
                (Owed::Forget(_), Err(error)) => {
                    // No version has a refusal for PUBREL; the client sends it again later.
                    let refusal = self.ingest.refusal(&error);
                    self.ingest.status.refused.up(refusal.word());
                    self.hold_then(End::LogRefuses);
                }
            }
        }
        self.count_unreleased(self.session.ids.len());
    }

    fn refuse(&mut self, stream: &StreamName, qos: Qos, id: Option<PacketId>, refusal: Refusal) {
        self.ingest.refused(stream, refusal, is_untold(qos));
        match self.session.refused(qos, id, refusal.reason()) {
            Some(packet) => self.send(&packet),
            None if is_untold(qos) => {}
            None if refusal == Refusal::NotAllowed => self.hold_then(End::NotAllowed),
            None => self.hold_then(End::LogRefuses),
        }
    }

    /// Stops reading, and ends after a while: no answer is the only honest one in 3.1.1, and the
    /// wait keeps the client from trying again in a tight circle.
    fn hold_then(&mut self, end: End) {
        let until = Instant::now() + self.ingest.config.refused_hold;
        self.hold.get_or_insert((until, end));
    }

    fn subscribe(&mut self, subscribe: Subscribe) {
        let Subscribe {
            id,
            subscription_id,
            filters,
        } = subscribe;
        let mut codes = Vec::with_capacity(filters.len());
        for (text, options) in filters {
            let checked = if topic::shared(&text).is_some() {
                Err(reason::SHARED_UNSUPPORTED)
            } else if self.seat.subscriptions() >= SUBSCRIPTIONS_MAX {
                Err(reason::QUOTA_EXCEEDED)
            } else {
                match TopicFilter::new(&text) {
                    Ok(filter) if self.access.may_subscribe(&filter) => Ok(filter),
                    Ok(_) => Err(reason::NOT_AUTHORIZED),
                    Err(_) => Err(reason::FILTER_INVALID),
                }
            };
            codes.push(match checked {
                Ok(filter) => {
                    let new = self.seat.subscribe(&filter, options, subscription_id);
                    let wants_retained = match options.retain_handling {
                        RetainHandling::Always => true,
                        RetainHandling::IfNew => new,
                        RetainHandling::Never => false,
                    };
                    if wants_retained {
                        let topics = self.ingest.retained.matching(&filter);
                        self.backlog.owe(topics, options, subscription_id);
                    }
                    options.qos as u8
                }
                Err(code) => match self.agreed.version {
                    Version::V311 => FAILURE_V311,
                    Version::V5 => code,
                },
            });
        }
        self.send(&Outgoing::SubAck { id, codes });
    }

    fn unsubscribe(&mut self, unsubscribe: &Unsubscribe) {
        let filters = unsubscribe.filters.iter();
        let codes = filters.map(|text| match TopicFilter::new(text) {
            Ok(filter) if self.seat.unsubscribe(&filter) => 0,
            Ok(_) => reason::NO_SUBSCRIPTION_EXISTED,
            Err(_) => reason::FILTER_INVALID,
        });
        let codes = codes.collect();
        self.send(&Outgoing::UnsubAck {
            id: unsubscribe.id,
            codes,
        });
    }

    fn leave(&mut self, disconnect: Disconnect) -> End {
        if let Some(seconds) = disconnect.session_expiry_secs {
            let longest = self.ingest.config.session_expiry_max;
            if let Err(malformed) = self.agreed.change_expiry(seconds, longest) {
                return End::Malformed(malformed);
            }
        }
        End::Bye {
            with_will: disconnect.reason == reason::WITH_WILL,
        }
    }

    /// Settles everything that was taken, then lets go: fan-out, will and seat do not depend on
    /// whether the client is still there.
    async fn part(mut self, end: End) {
        let status = Arc::clone(&self.ingest.status);
        status.closed.up(end.word());
        let client = self.agreed.client_id.as_str();
        if let End::Malformed(malformed) = end {
            status.malformed.up(malformed.word());
            tracing::info!(client, reason = %malformed, "a connection was closed");
        } else {
            tracing::debug!(client, reason = end.word(), "a connection ended");
        }
        while !self.uncommitted.is_empty() {
            let settled = self.uncommitted.settled().await;
            self.settle(settled).await;
        }
        if let (true, Some(will)) = (end.publishes_will(), self.agreed.will.take()) {
            self.ingest.will(will, self.seat.mailbox.number).await;
        }
        self.count_unreleased(0);
        self.give_up_seat().await;
        let Self {
            agreed,
            mut inlet,
            mut outlet,
            ..
        } = self;
        if !end.peer_listens() {
            return;
        }
        if let Some(reason) = end.reason() {
            let why = end.why();
            outlet.send(&Outgoing::Disconnect { reason, why }, agreed.version);
        }
        outlet.finish(FAREWELL).await;
        // Closing with unread bytes would reset the connection under our last words.
        let _ = timeout(FAREWELL, inlet.discard()).await;
    }

    /// Lets the next connection of this client in, before the last words to this one: those may
    /// take their time.
    async fn give_up_seat(&mut self) {
        let outbound = std::mem::take(&mut self.session.outbound);
        let stays = self.agreed.is_lasting();
        if stays && self.seat.keep(outbound, self.agreed.session_expiry) {
            return;
        }
        if self.session.ids.len() > 0 {
            // The session is over and its ids with it; a failure leaves them for a clean start.
            let _ = qos2::load(&self.ingest.log, &self.agreed.client_id, true).await;
        }
        self.seat.give_up();
    }
}
