//! Northbound: every record of the log into Apache Kafka, once and in order per source.
//!
//! Each stream has a lane of its own that follows the log and writes transactions. A transaction
//! holds a slice of the stream and one record more, the *position*: "everything of this log
//! before offset n is here". Both become readable together or not at all, so the cluster itself
//! says how far it is, and that word is read back before anything is sent.
//!
//! What is promised:
//! - **Once.** Whatever stops this process, the link or a broker, and wherever it does: after an
//!   unknown outcome the lane makes a new producer of the same transactional id, which ends
//!   what the older one began, and then reads the position. For readers with
//!   `isolation.level=read_committed`; others also see what was aborted.
//! - **In order per source**: one transaction of a stream at a time, the record's source as its
//!   key, Kafka's default partitioner (as long as nobody changes the topic's partition count).
//! - **In = out + gaps.** Offsets the log no longer has, and records the cluster refuses, are
//!   delivered as gap records that name them. Of a refused record a copy is in [`QUARANTINE`]
//!   before.
//! - **The log is the queue.** At most one slice per stream is in flight; nothing is dropped on
//!   this side, however long the cluster is away.
//!
//! What is not: one transaction over several streams, and order between sources. To a cluster
//! without transactions ([`Delivery::AtLeastOnce`]) what was under way at a stop may go twice.
//!
//! Positions live in a compacted topic of the node rather than in consumer-group offsets, because
//! those expire a week after the last commit, and a ship is away for longer.

mod advice;
mod commands;
mod config;
pub mod doctor;
mod fault;
pub mod gate;
mod hint;
mod lane;
mod late;
mod lineage;
mod link;
mod mapping;
mod memory;
mod pace;
mod packing;
mod position;
mod preflight;
pub mod quarantine;
mod source;
mod status;
mod template;
mod topic;
pub mod unpack;
mod wire;

pub use commands::LinkTopic;
pub use config::{
    Config, Delivery, Identity, InvalidName, Key, Late, Limits, Mechanism, NewTopics, NodeName,
    Route, Sasl, Timestamp, Tls,
};
pub use hint::CURSOR;
pub use lineage::release;
pub use status::{LaneState, Link, LinkState, Snapshot, Status, StreamSnapshot};
pub use template::TopicTemplate;

use crate::Boxed;
use gate::Ledger;
use lane::Lane;
use quarantine::QUARANTINE;
use skerry_store::{Log, StreamName};
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The uplink ends early only where going on is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the uplink cannot go on: {0}")]
    Log(#[from] skerry_store::Error),
    #[error("the uplink's gate cannot be opened on loopback: {0}")]
    Gate(#[from] std::io::Error),
    #[error("the lane of a stream panicked; this is a bug")]
    Panicked,
}

/// Delivers until `stop` is cancelled. The cluster may be away at the start and at any time.
///
/// # Errors
/// When the log is poisoned or closed, or names a stream that it does not have.
pub fn run(
    config: Config,
    log: Log,
    status: Arc<Status>,
    stop: CancellationToken,
) -> Boxed<'static, Result<(), Error>> {
    Box::pin(deliver(config, log, status, stop))
}

async fn deliver(
    config: Config,
    log: Log,
    status: Arc<Status>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let config = Arc::new(config);
    let links = Arc::clone(&config.links);
    let streams = streams(&config, &log);
    memory::recall(&log, &links)?;
    let ledger = Arc::new(Ledger::new(memory::usages(&log)?));
    status.counted_by(Arc::clone(&ledger));
    let link = Arc::new(link::Link::open(
        Arc::clone(&config),
        Arc::clone(&status),
        Arc::clone(&links),
        Arc::clone(&ledger),
        streams.iter().map(|stream| lane::rank(&config, stream)),
    )?);
    // One lane's end is the end of all.
    let stop = stop.child_token();
    let _stop_on_return = stop.clone().drop_guard();
    let mut tasks = JoinSet::new();
    for stream in streams {
        let topic = config.shown_topic(&stream);
        let head = log.head(&stream)?;
        let position = log.cursor(CURSOR, &stream)?.unwrap_or_default();
        let status = status.stream(&stream, &topic, head, position);
        let lane = Lane::new(
            Arc::clone(&config),
            log.clone(),
            stream,
            Arc::clone(&link),
            status,
        );
        tasks.spawn(lane.run(stop.clone()));
    }
    let looked = memory::looked(&log, config.link_topic.as_ref())?;
    if let Some((from, looked)) = looked.clone() {
        let (log, links) = (log.clone(), Arc::clone(&links));
        tasks.spawn(commands::follow(log, links, from, looked, stop.clone()));
    }
    tasks.spawn({
        let (links, log, stop) = (Arc::clone(&links), log.clone(), stop.clone());
        async move { memory::keep(&log, &links, &ledger, looked, &stop).await }
    });
    let following = links.follow(&config.brokers);
    let ended = async {
        let mut outcome = Ok(());
        while let Some(ended) = tasks.join_next().await {
            stop.cancel();
            let ended = ended
                .map_err(|_| Error::Panicked)
                .and_then(|ended| Ok(ended?));
            outcome = outcome.and(ended);
        }
        outcome
    };
    tokio::select! {
        outcome = ended => outcome,
        () = following => Ok(()),
        () = link.watch() => Ok(()),
    }
}

fn streams(config: &Config, log: &Log) -> Vec<StreamName> {
    let all = || {
        log.streams()
            .into_iter()
            .filter(|stream| !stream.as_str().starts_with('_') && stream.as_str() != QUARANTINE)
    };
    config.streams.clone().unwrap_or_else(|| all().collect())
}
