//! The task of one connection: owns its socket, its session and its place in the registry, and
//! is the only one to touch them.
//!
//! ```text
//!            ┌──────────── packets ──► Session ──► Batch ──► Uncommitted ──► log
//! socket ◄──►│ outbox ◄── acknowledgements ◄──────── settled, in order ◄─────┤
//!            │        ◄── Backlog (resends, retained)                        │
//!            │        ◄── Mailbox ◄── subscription tree ◄── dispatcher ◄─────┤
//!            └──────────────────▲────────────────────────── catch-up ◄───────┘
//! ```
//!
//! The loop never waits for one thing only: a full log stops the reading, not the deliveries, and
//! a reader that does not read stops its deliveries, not its commits.

mod catching_up;
mod delivery;
mod establish;
mod parting;
mod publishing;
mod saving;
mod subscribing;

use crate::accept::Arrival;
use crate::access::{Access, Admission, Pace};
use crate::backlog::{Backlog, Shelf};
use crate::codec::{Disconnect, Incoming, Outgoing, PacketId, SubscribeOptions, reason};
use crate::config::OUTBOX_BYTES_MAX;
use crate::end::End;
use crate::handshake::Agreed;
use crate::ingest::{Ingest, Refusal};
use crate::link::{Inlet, Outlet};
use crate::registry::Seat;
use crate::session::{Session, Step};
use crate::shared::Group;
use crate::uncommitted::{Batch, Owed, Uncommitted};
use catching_up::CatchingUp;
use saving::Saving;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long last words may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// The alarm of a connection that has nothing to fear.
const IDLE: Duration = Duration::from_secs(3600);

/// Serves one client from its first byte to its last commit.
pub(crate) async fn serve(
    arrival: Arrival,
    admission: Admission,
    ingest: Arc<Ingest>,
    stop: CancellationToken,
) {
    let status = Arc::clone(&ingest.status);
    status.connections.up();
    status.connections_total.up();
    status.connections_most.raise(status.connections.get());
    // Boxed: what beginning and end take is not held by a connection that idles in between.
    let establishing = establish::establish(arrival, admission.refused(), ingest, &stop);
    let established = Box::pin(establishing).await;
    if let Some(mut connection) = established {
        let end = connection.talk(&stop).await;
        Box::pin(connection.part(end)).await;
    }
    drop(admission);
    status.connections.down();
}

/// A group and what the session is subscribed to it with.
type Sharing = (Arc<Group>, SubscribeOptions, Option<u32>);

/// `establish.rs` makes it, `parting.rs` ends it.
struct Connection {
    ingest: Arc<Ingest>,
    access: Access,
    pace: Pace,
    agreed: Agreed,
    seat: Seat,
    /// The shared subscriptions of the session, in the order in which they are asked.
    shared: Vec<Sharing>,
    /// The client does not want its own messages back.
    no_local: bool,
    /// The catalog knows the session.
    saved: bool,
    session: Session,
    inlet: Inlet,
    outlet: Outlet,
    /// Publishes of what was read just now.
    batch: Option<Batch>,
    /// QoS 2 ids that were released just now.
    released: Vec<PacketId>,
    uncommitted: Uncommitted,
    shelf: Shelf,
    backlog: Backlog,
    saving: Saving,
    catching_up: CatchingUp,
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
        self.save_if_due();
        self.uncommitted.advance().await;
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
            () = self.access.revoked() => return Err(End::Revoked),
            settled = self.uncommitted.settled(), if !self.uncommitted.is_empty() => {
                self.settle(settled);
            }
            read = self.inlet.fill(), if reading => {
                if !read.map_err(|error| End::of_read(&error))? {
                    return Err(End::PeerClosed);
                }
                self.heard = Instant::now();
                self.starved = false;
            }
            written = self.outlet.flush_some(), if writing => {
                written.map_err(|_| End::PeerClosed)?;
            }
            () = self.backlog.fetched(), if self.backlog.is_fetching() => {}
            found = self.catching_up.found(), if self.catching_up.is_reading() => {
                self.caught_up(found);
            }
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
        let (save, read) = (self.saving.due(), self.catching_up.due());
        [silence, stall, hold, save, read, self.pace.rests_until()]
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
        self.pace.wake(now);
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

    /// Back-pressure: nothing more is taken while too much is uncommitted, unread, refused or fast.
    fn takes_packets(&self) -> bool {
        let outbox_has_room = self.outlet.waiting() < OUTBOX_BYTES_MAX;
        let rests = self.hold.is_some() || self.pace.rests();
        self.uncommitted.has_room(self.batch.as_ref()) && outbox_has_room && !rests
    }

    async fn take_packets(&mut self) -> Result<(), End> {
        let mut taken = Ok(());
        while !self.starved && self.takes_packets() {
            match self.inlet.packet() {
                Ok(Some(packet)) => {
                    if matches!(packet, Incoming::Subscribe(_)) {
                        self.ingest.streams.settled(&self.ingest.log).await;
                    }
                    taken = self.packet(packet);
                }
                Ok(None) => self.starved = true,
                Err(malformed) => taken = Err(End::Malformed(malformed)),
            }
            if taken.is_err() {
                break;
            }
        }
        // What came before the end counts.
        self.submit();
        self.uncommitted.advance().await;
        taken
    }

    fn packet(&mut self, packet: Incoming) -> Result<(), End> {
        let acknowledges = matches!(
            packet,
            Incoming::PubAck(_) | Incoming::PubRec(_) | Incoming::PubComp(_)
        );
        self.ingest.status.packets_in.up();
        let step = self.session.packet(packet).map_err(End::Malformed)?;
        if acknowledges && self.agreed.is_lasting() {
            self.saving.changed();
        }
        let suppressed = self.session.take_suppressed();
        self.ingest
            .status
            .duplicates_suppressed
            .add(usize::try_from(suppressed).unwrap_or(0));
        match step {
            Step::Nothing => {}
            Step::Send(Outgoing::PubRel(ack)) if self.agreed.is_lasting() && ack.reason == 0 => {
                self.release_once_saved(ack.id);
            }
            Step::Send(packet) => self.send(&packet),
            Step::Ingest(publish) => {
                let bytes = publish.topic.len() + publish.payload.len();
                if self.pace.spend(bytes, Instant::now) {
                    self.access.slowed();
                }
                self.publish(publish);
            }
            Step::Refuse(publish) => {
                let stream = self.ingest.config.stream_of(&publish.topic).clone();
                self.refuse(&stream, publish.qos, publish.id, Refusal::PayloadFormat);
            }
            Step::Forget(id) => self.forget(id),
            Step::Subscribe(subscribe) => self.subscribe(subscribe),
            Step::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe),
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

    /// What the log took or refused, in the order it was asked.
    fn settle(&mut self, settled: Vec<(Owed, Result<(), skerry_store::Error>)>) {
        for (owed, result) in settled {
            match owed {
                Owed::Publishes {
                    stream, publishes, ..
                } => self.settle_publishes(&stream, &publishes, result),
                Owed::Forget(ids) => self.settle_released(ids, result),
                Owed::Subscribed(suback) => self.settle_subscribed(suback, result),
                Owed::UnsubAck { id, codes } => self.settle_unsubscribed(id, codes, result),
                Owed::Saved(packets) => self.settle_saved(packets, result),
            }
        }
        self.count_unreleased(self.session.ids.len());
    }

    /// Stops reading, and ends after a while: no answer is the only honest one in 3.1.1, and the
    /// wait keeps the client from trying again in a tight circle.
    fn hold_then(&mut self, end: End) {
        let until = Instant::now() + self.ingest.config.refused_hold;
        self.hold.get_or_insert((until, end));
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
}
