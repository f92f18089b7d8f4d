//! The way to the cluster: the gate that every byte passes, and behind it a connection for each
//! rank of lanes, so that what is urgent never waits in a queue behind what is not.

use super::config::Config;
use super::fault::Fault;
use super::gate::{Gate, Ledger, LinkSettings, Links, Pack, Priority, Ticket, UnixSeconds};
use super::status::Status;
use super::wire::Wire;
use skerry_store::StreamName;
use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use tokio::sync::{Mutex, watch};
use tokio::time::{Duration, sleep};

/// How late a link that is down may be told to be up.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How late a lane may notice that the link is open to it.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Lanes of one rank share their connections, and what the link gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) priority: Priority,
    pub(crate) weight: NonZeroU32,
}

pub(crate) struct Link {
    config: Arc<Config>,
    status: Arc<Status>,
    links: Arc<Links>,
    ledger: Arc<Ledger>,
    settings: watch::Receiver<Arc<LinkSettings>>,
    ways: BTreeMap<Rank, Way>,
    _gate: Gate,
}

struct Way {
    ticket: Ticket,
    wire: Mutex<Option<Arc<Wire>>>,
}

impl Link {
    /// For lanes of these ranks.
    ///
    /// # Errors
    /// When the gate cannot be opened.
    pub(crate) fn open(
        config: Arc<Config>,
        status: Arc<Status>,
        links: Arc<Links>,
        ledger: Arc<Ledger>,
        ranks: impl IntoIterator<Item = Rank>,
    ) -> io::Result<Self> {
        let gate = Gate::open(links.settings(), Arc::clone(&ledger))?;
        let mut ways = BTreeMap::new();
        for rank in ranks {
            let ticket = gate.ticket(rank.priority, rank.weight)?;
            let wire = Mutex::new(None);
            ways.insert(rank, Way { ticket, wire });
        }
        Ok(Self {
            settings: links.settings(),
            config,
            status,
            links,
            ledger,
            ways,
            _gate: gate,
        })
    }

    fn way(&self, rank: Rank) -> &Way {
        self.ways.get(&rank).expect("every lane's rank has a way")
    }

    /// The connection of the rank, made if there is none. While one lane makes it the others of
    /// the rank wait.
    pub(crate) async fn wire(&self, rank: Rank) -> Result<Arc<Wire>, Fault> {
        let way = self.way(rank);
        let mut wire = way.wire.lock().await;
        if let Some(wire) = &*wire {
            return Ok(Arc::clone(wire));
        }
        let made = Wire::connect(&self.config, Some(&way.ticket)).await;
        let made = made.map_err(|fault| self.in_words(fault));
        let made = made.inspect_err(|fault| {
            self.links.look_again();
            self.down(fault);
        })?;
        self.up();
        Ok(Arc::clone(wire.insert(Arc::new(made))))
    }

    /// The client only knows that the gate did not get through; the gate knows why.
    fn in_words(&self, fault: Fault) -> Fault {
        let dialled = self.ledger.snapshot(UnixSeconds::now()).last_error;
        match (fault, dialled) {
            (Fault::Unreachable(_), Some(why)) => Fault::Unreachable(format!(
                "connecting to {}: {why}",
                self.config.brokers.join(", ")
            )),
            (fault, _) => fault,
        }
    }

    /// Keeps the state true between sessions' ends: the client tries on by itself for a while
    /// inside of one, and the gate knows at once that nobody is reached.
    pub(crate) async fn watch(&self) {
        loop {
            sleep(LOOK_EVERY).await;
            if let Some(why) = self.ledger.snapshot(UnixSeconds::now()).last_error {
                self.down(&Fault::Unreachable(why));
            }
        }
    }

    /// A lane had `fault` on `broken`: others go on with it as long as it works for them, but a
    /// new session gets a new connection.
    pub(crate) async fn broke(&self, rank: Rank, broken: &Arc<Wire>, fault: &Fault) {
        self.down(fault);
        let mut wire = self.way(rank).wire.lock().await;
        wire.take_if(|wire| Arc::ptr_eq(wire, broken));
    }

    /// The TLS files are others now: a new session gets a connection made with them.
    pub(crate) async fn leave(&self, rank: Rank, outdated: &Arc<Wire>) {
        let mut wire = self.way(rank).wire.lock().await;
        if wire.take_if(|wire| Arc::ptr_eq(wire, outdated)).is_some() {
            tracing::info!("the TLS files were replaced; connecting anew with them");
        }
    }

    /// Why this lane may not use the link now, in words; none when it may.
    pub(crate) fn barred(&self, rank: Rank, stream: &StreamName) -> Option<String> {
        let settings = self.settings.borrow();
        let link = &settings.class;
        let elsewhere = |streams: &Vec<StreamName>| !streams.contains(stream);
        if link.streams.as_ref().is_some_and(elsewhere) {
            return Some(format!("link class `{}` is for other streams", link.name));
        }
        let admission = self.ledger.admission();
        let admission = admission.borrow();
        match admission.allows(rank.priority) {
            true => None,
            false => admission.because(&link.name, UnixSeconds::now()),
        }
    }

    /// Until who may use the link may have changed; ask [`barred`](Self::barred) again then.
    pub(crate) async fn changed(&self) {
        let (mut settings, mut admission) = (self.links.settings(), self.ledger.admission());
        tokio::select! {
            _ = settings.changed() => {}
            _ = admission.changed() => {}
            // What changed between the question and this wait.
            () = sleep(ASK_AGAIN) => {}
        }
    }

    /// Whether records are packed on this link, where the stream leaves that open.
    pub(crate) fn pack(&self) -> Option<Pack> {
        self.settings.borrow().class.pack
    }

    /// Whether what is sent goes piece by piece, the most urgent first.
    pub(crate) fn is_paced(&self) -> bool {
        self.settings.borrow().class.bandwidth.is_some()
    }

    /// The cluster just answered.
    pub(crate) fn up(&self) {
        if self.status.link_up() {
            tracing::info!(brokers = %self.config.brokers.join(","), "link up");
        }
    }

    fn down(&self, fault: &Fault) {
        if self.status.link_down(&fault.to_string()) {
            tracing::warn!(because = %fault, "link down; the log keeps the records");
        }
    }
}
