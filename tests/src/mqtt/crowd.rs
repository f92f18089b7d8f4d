//! Many clients at once, each a task, that go on whatever happens to the broker.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Error, Result, anyhow, bail};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::client::{Client, Ended, Event};
use super::ledger::Ledger;
use super::packet::{Qos, Version};
use super::session::Session;
use crate::chance::Chance;
use crate::wait;

/// A publisher stops for the network once so much of its own waits.
const UNSENT_BYTES_MAX: usize = 64 * 1024;
/// A publisher that could not send for a while makes up for this much of it.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);
/// Once nothing is owed any more, a stray would come within this.
const STRAYS: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub struct Publisher {
    pub version: Version,
    pub qos: Qos,
    pub topics: Vec<String>,
    /// Unacknowledged messages at most.
    pub window: usize,
    /// Between two messages, on average.
    pub interval: Duration,
    /// Bytes of payload beyond its name.
    pub padding: usize,
}

#[derive(Debug, Clone)]
pub struct Subscriber {
    pub version: Version,
    pub filters: Vec<(String, Qos)>,
    /// Asked for so long after the start.
    pub later: Option<(Duration, Vec<(String, Qos)>)>,
}

/// Where it all takes place.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub port: u16,
    /// How long a connection lasts on average before its client drops it.
    pub connection_lasts: Option<Duration>,
}

pub struct Crowd {
    ledger: Arc<Ledger>,
    subscribers: usize,
    publishing: Vec<JoinHandle<()>>,
    listening: Vec<JoinHandle<()>>,
    faults: Arc<Mutex<Vec<Error>>>,
    signals: watch::Sender<Signal>,
    runtime: Runtime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Signal {
    GoOn,
    StopPublishing,
    Leave,
}

impl Crowd {
    /// Subscribers first: publishers begin when every subscription is acknowledged.
    pub fn start(
        place: Place,
        publishers: Vec<Publisher>,
        subscribers: Vec<Subscriber>,
        chance: &mut Chance,
    ) -> Result<Self> {
        let senders = publishers.iter().map(|p| (p.qos, p.topics.clone()));
        let ledger = Ledger::new(senders.collect(), subscribers.len());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let mut crowd = Self {
            ledger: Arc::new(ledger),
            subscribers: subscribers.len(),
            publishing: Vec::new(),
            listening: Vec::new(),
            faults: Arc::default(),
            signals: watch::Sender::new(Signal::GoOn),
            runtime,
        };
        let firsts: Vec<usize> = subscribers.iter().map(|s| s.filters.len()).collect();
        for (number, subscriber) in subscribers.into_iter().enumerate() {
            let task = Task::new(&crowd, place, number, chance.fork());
            let task = crowd.spawn(async move { task.listen(subscriber).await });
            crowd.listening.push(task);
        }
        wait::until_true("every subscription is acknowledged", wait::START, || {
            crowd.check()?;
            let granted = |(number, first): (usize, &usize)| crowd.ledger.filters(number) >= *first;
            Ok(firsts.iter().enumerate().all(granted))
        })?;
        for (number, publisher) in publishers.into_iter().enumerate() {
            let task = Task::new(&crowd, place, number, chance.fork());
            let task = crowd.spawn(async move { task.publish(publisher).await });
            crowd.publishing.push(task);
        }
        Ok(crowd)
    }

    fn spawn(&self, story: impl Future<Output = Result<()>> + Send + 'static) -> JoinHandle<()> {
        let faults = Arc::clone(&self.faults);
        self.runtime.spawn(async move {
            if let Err(error) = story.await {
                faults.lock().expect("nothing panics here").push(error);
            }
        })
    }

    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The first thing that went wrong, if anything did.
    pub fn check(&self) -> Result<()> {
        let mut faults = self.faults.lock().expect("nothing panics here");
        let more = faults.len().saturating_sub(1);
        let first = faults.drain(..).next();
        first.map_or(Ok(()), |first| match more {
            0 => Err(first),
            more => Err(first.context(format!("the first of {more} more"))),
        })
    }

    /// Waits until every publisher has its last answer.
    pub fn stop_publishing(&mut self) -> Result<()> {
        self.signals.send_replace(Signal::StopPublishing);
        self.ended("every publish is acknowledged", |crowd| &crowd.publishing)
    }

    /// Waits until every subscriber has what it is owed, and everybody has left.
    pub fn satisfied(&mut self, deadline: Duration) -> Result<()> {
        let satisfied = wait::until_true("everybody has what is owed", deadline, || {
            self.check()?;
            for subscriber in 0..self.subscribers {
                let (missing, first) = self.ledger.owed(subscriber);
                if missing > 0 {
                    let first = first.unwrap_or_default();
                    bail!("subscriber {subscriber} is owed {missing} messages, as {first}");
                }
            }
            Ok(true)
        });
        self.check()?;
        satisfied?;
        std::thread::sleep(STRAYS);
        self.signals.send_replace(Signal::Leave);
        self.ended("every subscriber has left", |crowd| &crowd.listening)
    }

    fn ended(&self, what: &str, tasks: impl Fn(&Self) -> &Vec<JoinHandle<()>>) -> Result<()> {
        let ended = wait::until_true(what, wait::DRAIN, || {
            let under_way = tasks(self)
                .iter()
                .filter(|task| !task.is_finished())
                .count();
            anyhow::ensure!(under_way == 0, "{under_way} have not");
            Ok(true)
        });
        self.check()?;
        ended
    }
}

/// What each client's task knows.
struct Task {
    number: usize,
    place: Place,
    ledger: Arc<Ledger>,
    signals: watch::Receiver<Signal>,
    chance: Chance,
}

impl Task {
    fn new(crowd: &Crowd, place: Place, number: usize, chance: Chance) -> Self {
        Self {
            number,
            place,
            ledger: Arc::clone(&crowd.ledger),
            signals: crowd.signals.subscribe(),
            chance,
        }
    }

    fn told(&self, signal: Signal) -> bool {
        *self.signals.borrow() >= signal
    }

    /// When this client will drop its connection.
    fn connection_ends(&mut self) -> Instant {
        const NEVER: Duration = Duration::from_secs(24 * 3600);
        let lasts = self.place.connection_lasts.map(|lasts| self.around(lasts));
        Instant::now() + lasts.unwrap_or(NEVER)
    }

    /// Anything up to twice the average.
    fn around(&mut self, average: Duration) -> Duration {
        let most = u64::try_from(2 * average.as_micros()).expect("no test lasts that long");
        Duration::from_micros(self.chance.below(most.max(1)))
    }

    async fn publish(mut self, publisher: Publisher) -> Result<()> {
        let name = format!("publisher-{}", self.number);
        let session = Session::new(publisher.version, &name, publisher.window);
        let mut client = Client::new(self.place.port, session);
        loop {
            let again = client.reconnect().await.context(name.clone())?;
            self.ledger.sent_again(self.number, &again);
            match self.publish_on(&mut client, &publisher).await {
                Ok(()) => return Ok(client.disconnect().await?),
                Err(Ended::Lost(_)) => {}
                Err(Ended::Wrong(error)) => return Err(error.context(name)),
            }
        }
    }

    /// Until it is told to stop and all is answered, or the connection ends.
    async fn publish_on(
        &mut self,
        client: &mut Client,
        publisher: &Publisher,
    ) -> Result<(), Ended> {
        let ends_at = self.connection_ends();
        let mut next_at = Instant::now() + self.around(publisher.interval);
        loop {
            let stopping = self.told(Signal::StopPublishing);
            if stopping && client.session.is_settled() {
                return Ok(());
            }
            let free = client.may_publish() && client.unsent_bytes() < UNSENT_BYTES_MAX;
            let may_publish = free && !stopping;
            if may_publish && Instant::now() >= next_at {
                let (message, token) = self.ledger.next_message(self.number, publisher.padding);
                client.publish(message, token);
                let late = Instant::now().checked_sub(CATCH_UP_MAX);
                let next = next_at + self.around(publisher.interval);
                next_at = late.map_or(next, |late| next.max(late));
                continue;
            }
            tokio::select! {
                event = client.next() => match event? {
                    Event::Acked(token) => self.ledger.acked(self.number, token)?,
                    Event::Completed => {}
                    other => return Err(anyhow!("a publisher got {other:?}").into()),
                },
                () = sleep_until(next_at), if may_publish => {}
                () = sleep_until(ends_at) => return Err(drop_connection(client)),
                changed = self.signals.changed() => {
                    changed.map_err(|_| anyhow!("the crowd is gone"))?;
                }
            }
        }
    }

    async fn listen(mut self, subscriber: Subscriber) -> Result<()> {
        let name = format!("subscriber-{}", self.number);
        let session = Session::new(subscriber.version, &name, 1);
        let mut client = Client::new(self.place.port, session);
        client.subscribe(subscriber.filters);
        let mut later = subscriber
            .later
            .map(|(delay, filters)| (Instant::now() + delay, filters));
        loop {
            client.reconnect().await.context(name.clone())?;
            match self.listen_on(&mut client, &mut later).await {
                Ok(()) => return Ok(client.disconnect().await?),
                Err(Ended::Lost(_)) => {}
                Err(Ended::Wrong(error)) => return Err(error.context(name)),
            }
        }
    }

    async fn listen_on(
        &mut self,
        client: &mut Client,
        later: &mut Option<(Instant, Vec<(String, Qos)>)>,
    ) -> Result<(), Ended> {
        let ends_at = self.connection_ends();
        loop {
            if self.told(Signal::Leave) && client.session.is_settled() {
                return Ok(());
            }
            let more_at = later.as_ref().map_or(ends_at, |(at, _)| *at);
            tokio::select! {
                event = client.next() => match event? {
                    Event::Delivered(message) => self.ledger.delivered(self.number, &message)?,
                    Event::Subscribed(filters) => self.ledger.subscribed(self.number, filters),
                    other => return Err(anyhow!("a subscriber got {other:?}").into()),
                },
                () = sleep_until(more_at), if later.is_some() => {
                    let (_, filters) = later.take().expect("just seen");
                    client.subscribe(filters);
                }
                () = sleep_until(ends_at) => return Err(drop_connection(client)),
                changed = self.signals.changed() => {
                    changed.map_err(|_| anyhow!("the crowd is gone"))?;
                }
            }
        }
    }
}

fn drop_connection(client: &mut Client) -> Ended {
    client.drop_connection();
    Ended::Lost("dropped on purpose".to_owned())
}
