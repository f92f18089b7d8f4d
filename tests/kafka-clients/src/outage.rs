//! What the clients do when the broker is killed (-9) or stalls (SIGSTOP) under a stream of
//! transactions: what is lost, repeated or out of order, how soon the stream goes on, and whether
//! the caller had to make a new producer.
//!
//! Numbered records go in transactions, one at a time, each with the position after it in a topic
//! of its own, as the uplink does. The policy is one for both clients: after any error the
//! transaction is aborted; where that is refused, the producer is dropped and another one made
//! (which fences the old one); then the position is read back from the cluster and decides what
//! is sent next. Both get the uplink's timeouts; what else they do while waiting is their default.

mod krafka;
mod rdkafka;

use crate::broker::Broker;
use crate::{Failure, KEYS, PAIRS, PER_TRANSACTION, print_figure};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(40);
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// The stream runs so long before the outage and after the first commit behind it.
const UNDISTURBED: Duration = Duration::from_secs(5);
/// Later runs are hit so much later, at another point of a transaction.
const SHIFT: Duration = Duration::from_millis(137);
const _: () = assert!(FROZEN_FOR.as_secs() < DELIVERY_TIMEOUT.as_secs());
const _: () = assert!(DELIVERY_TIMEOUT.as_secs() < FROZEN_LONG_FOR.as_secs());
const DEAD_FOR: Duration = Duration::from_secs(5);
const FROZEN_FOR: Duration = Duration::from_secs(20);
const FROZEN_LONG_FOR: Duration = Duration::from_secs(60);
const RECOVERY_MAX: Duration = Duration::from_secs(180);

const POSITIONS_PARTITION: i32 = 0;

/// A producer with a transactional id, and what belongs to it.
trait Client: Sized {
    const NAME: &'static str;

    /// Alone may write from now on; what an older one left undecided is decided.
    fn open(brokers: &str, names: &Names) -> Result<Self, Failure>;

    /// The number of the first record that is not committed.
    fn position(&self) -> Result<u64, Failure>;

    /// Commits the records and the position after them.
    fn transact(&self, numbers: Range<u64>) -> Result<(), Failure>;

    fn abort(&self) -> Result<(), Failure>;

    /// Does not wait for a broker that is away.
    fn close(self);
}

/// What one stream is called in the cluster.
#[derive(Clone)]
struct Names {
    id: String,
    topic: String,
    positions: String,
}

#[derive(Clone, Copy)]
enum Outage {
    Killed,
    /// Shorter than the delivery timeout.
    Frozen,
    /// Longer: the clients have to give up.
    FrozenLong,
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Killed => "kill -9, restarted after 5 s",
            Self::Frozen => "SIGSTOP for 20 s",
            Self::FrozenLong => "SIGSTOP for 60 s",
        })
    }
}

pub(crate) fn compare(jars: &Path, folder: &Path) -> Result<(), Failure> {
    for outage in [Outage::Killed, Outage::Frozen, Outage::FrozenLong] {
        let mut pairs = Vec::new();
        for run in 0..PAIRS {
            let ours = suffer::<krafka::Krafka>(outage, run, jars, folder)?;
            pairs.push((ours, suffer::<rdkafka::Rdkafka>(outage, run, jars, folder)?));
        }
        let mode = outage.to_string();
        print_figure(&mode, "first commit after the broker is back", "s", &pairs);
    }
    Ok(())
}

/// One run on a broker of its own; returns the seconds from the broker's return to the first
/// commit.
fn suffer<C: Client>(
    outage: Outage,
    run: usize,
    jars: &Path,
    folder: &Path,
) -> Result<f64, Failure> {
    let folder = folder.join("broker");
    let mut broker = Broker::start(jars, &folder)?;
    let names = Names {
        id: "outage".into(),
        topic: "outage".into(),
        positions: "outage-positions".into(),
    };
    let address = broker.address().to_owned();
    krafka::create_topics(&address, &[&names.topic, &names.positions])?;

    let stop = AtomicBool::new(false);
    let (committed, commits) = mpsc::channel();
    let (tally, recovery) = thread::scope(|scope| {
        let stream = scope.spawn(|| produce::<C>(&address, &names, committed, &stop));
        let recovery = disturb(outage, run, &mut broker, &commits);
        stop.store(true, Ordering::Relaxed);
        let tally = stream.join().expect("the stream does not panic");
        recovery.map(|recovery| (tally, recovery))
    })?;
    let audit = Audit::of(&address, &names)?;
    println!(
        "{{\"client\":\"{}\",\"outage\":\"{outage}\",\"run\":{run},{audit},{tally},\
         \"first_commit_s\":{:.2},\"silence_s\":{:.2}}}",
        C::NAME,
        recovery.first_commit.as_secs_f64(),
        recovery.silence.as_secs_f64(),
    );
    drop(broker);
    std::fs::remove_dir_all(&folder)?;
    Ok(recovery.first_commit.as_secs_f64())
}

struct Recovery {
    /// From the moment the broker is back.
    first_commit: Duration,
    /// From the last commit before to the first one after.
    silence: Duration,
}

/// Lets the stream run, takes the broker away, brings it back, and watches for a commit.
fn disturb(
    outage: Outage,
    run: usize,
    broker: &mut Broker,
    commits: &Receiver<Instant>,
) -> Result<Recovery, Failure> {
    let mut last = commits.recv_timeout(RECOVERY_MAX)?;
    thread::sleep(UNDISTURBED + SHIFT * u32::try_from(run)?);
    match outage {
        Outage::Killed => {
            broker.kill()?;
            thread::sleep(DEAD_FOR);
            last = commits.try_iter().last().unwrap_or(last);
            broker.restart()?;
        }
        Outage::Frozen | Outage::FrozenLong => {
            broker.freeze()?;
            thread::sleep(match outage {
                Outage::FrozenLong => FROZEN_LONG_FOR,
                _ => FROZEN_FOR,
            });
            last = commits.try_iter().last().unwrap_or(last);
            broker.thaw()?;
        }
    }
    let back = Instant::now();
    let first = commits.recv_timeout(RECOVERY_MAX)?;
    thread::sleep(UNDISTURBED);
    Ok(Recovery {
        // The broker may serve a moment before it says so.
        first_commit: first.saturating_duration_since(back),
        silence: first - last,
    })
}

/// What the caller saw of the client.
#[derive(Default)]
struct Tally {
    transactions: u64,
    producers: u32,
    aborts: u32,
    errors: BTreeMap<String, u32>,
}

impl Tally {
    fn note(&mut self, error: &Failure) {
        *self.errors.entry(error.to_string()).or_default() += 1;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"transactions\":{},\"producers_made\":{},\"aborts\":{},\"errors\":{:?}",
            self.transactions, self.producers, self.aborts, self.errors
        )
    }
}

fn produce<C: Client>(
    brokers: &str,
    names: &Names,
    committed: Sender<Instant>,
    stop: &AtomicBool,
) -> Tally {
    let mut tally = Tally::default();
    let mut client: Option<C> = None;
    while !stop.load(Ordering::Relaxed) {
        let ended = session(&mut client, brokers, names, &mut tally, &committed, stop);
        let Err(error) = ended else { break };
        tally.note(&error);
        if let Some(open) = client.take() {
            match open.abort() {
                Ok(()) => {
                    tally.aborts += 1;
                    client = Some(open);
                }
                Err(error) => {
                    tally.note(&error);
                    open.close();
                }
            }
        }
        thread::sleep(RETRY_AFTER);
    }
    if let Some(client) = client {
        client.close();
    }
    tally
}

/// Transaction after transaction from the cluster's position on, until told to stop.
fn session<C: Client>(
    client: &mut Option<C>,
    brokers: &str,
    names: &Names,
    tally: &mut Tally,
    committed: &Sender<Instant>,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    let client = match client {
        Some(client) => client,
        None => {
            let opened = C::open(brokers, names)?;
            tally.producers += 1;
            client.insert(opened)
        }
    };
    let mut next = client.position()?;
    while !stop.load(Ordering::Relaxed) {
        client.transact(next..next + PER_TRANSACTION)?;
        next += PER_TRANSACTION;
        tally.transactions += 1;
        committed.send(Instant::now())?;
    }
    Ok(())
}

/// What a `read_committed` reader finds, held against the position.
struct Audit {
    committed: u64,
    lost: u64,
    duplicated: u64,
    beyond: u64,
    out_of_order: u64,
}

impl Audit {
    /// Reads with rdkafka, whichever client wrote.
    fn of(brokers: &str, names: &Names) -> Result<Self, Failure> {
        // A new producer first, so that nothing is undecided any more.
        let position = rdkafka::Rdkafka::open(brokers, names)?.position()?;
        let mut seen = vec![0_u32; usize::try_from(position)?];
        let mut newest: BTreeMap<u64, u64> = BTreeMap::new();
        let (mut beyond, mut out_of_order) = (0, 0);
        rdkafka::read_all(brokers, &names.topic, |value| {
            let number = number(value)?;
            match seen.get_mut(usize::try_from(number)?) {
                Some(count) => *count += 1,
                None => beyond += 1,
            }
            let before = newest.insert(number % KEYS, number);
            out_of_order += u64::from(before.is_some_and(|before| before > number));
            Ok(())
        })?;
        Ok(Self {
            committed: position,
            lost: seen.iter().filter(|count| **count == 0).count() as u64,
            duplicated: seen
                .iter()
                .map(|count| u64::from(count.saturating_sub(1)))
                .sum(),
            beyond,
            out_of_order,
        })
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"committed\":{},\"lost\":{},\"duplicated\":{},\"beyond_position\":{},\
             \"out_of_order\":{}",
            self.committed, self.lost, self.duplicated, self.beyond, self.out_of_order
        )
    }
}

/// The number in a record that [`value`](crate::value) made.
fn number(value: &[u8]) -> Result<u64, Failure> {
    let text = std::str::from_utf8(value)?;
    let digits = text.strip_prefix("{\"n\":").ok_or("not our record")?;
    let end = digits.find(',').ok_or("not our record")?;
    Ok(digits[..end].parse()?)
}
