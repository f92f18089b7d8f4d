//! Clients that were away while the node restarted.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};

use skerry_tests::mqtt::{Client, Event, Message, Qos, Session, Version};
use skerry_tests::world::World;
use skerry_tests::{Context as _, Result, bail, ensure, wait};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::timeout;

const SESSIONS: usize = 1_000;
/// Messages for each session on a topic of its own, and on the topic of all.
const OWN: usize = 90;
const SHARED: usize = 10;
const PUBLISHERS: usize = 10;
const WINDOW: usize = 200;
/// Clients that are connected at the same time.
const AT_ONCE: usize = 200;
const NEWS: &str = "all/news";

struct Member {
    client: Client,
    number: usize,
    /// The next number to come on each topic.
    next: BTreeMap<String, usize>,
}

/// A thousand sessions are away, a hundred messages come for each, the node restarts, cleanly
/// once and once by kill -9: all come back and miss nothing, each topic in order.
pub(crate) fn restarted(world: &World) -> Result<()> {
    let mut node = world.started(world.settings()?)?;
    let port = node.mqtt_port();
    let runtime = Runtime::new()?;
    let members = (0..SESSIONS).map(|number| Member::new(port, number));
    let mut members = runtime.block_on(each(members.collect(), Member::join))?;
    for (pass, how) in ["stopped", "killed"].into_iter().enumerate() {
        let begin = Instant::now();
        runtime.block_on(publish(port, pass))?;
        let published = begin.elapsed();
        if how == "stopped" {
            ensure!(node.terminate()?.success(), "the node did not stop cleanly");
        } else {
            node.kill()?;
        }
        let begin = Instant::now();
        node.start()?;
        let up = begin.elapsed();
        let back = runtime.block_on(each(members, Member::catch_up));
        members = back.with_context(|| format!("after the node was {how}"))?;
        let caught_up = begin.elapsed();
        println!(
            "  {how}: published in {published:.1?}, up in {up:.1?}, all caught up in {caught_up:.1?}"
        );
    }
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    Ok(())
}

/// Has every member live through `story`, some at a time.
async fn each<F>(members: Vec<Member>, story: impl Fn(Member) -> F) -> Result<Vec<Member>>
where
    F: Future<Output = Result<Member>> + Send + 'static,
{
    let mut waiting = members.into_iter();
    let mut under_way = JoinSet::new();
    let mut done = Vec::new();
    loop {
        while under_way.len() < AT_ONCE
            && let Some(member) = waiting.next()
        {
            under_way.spawn(timeout(wait::DRAIN, story(member)));
        }
        match under_way.join_next().await {
            Some(member) => done.push(member?.context("it hung")??),
            None => return Ok(done),
        }
    }
}

impl Member {
    fn new(port: u16, number: usize) -> Self {
        let version = [Version::V311, Version::V5][number % 2];
        let session = Session::new(version, &format!("member-{number}"), 1);
        Self {
            client: Client::new(port, session),
            number,
            next: BTreeMap::new(),
        }
    }

    async fn join(mut self) -> Result<Self> {
        self.client.connect().await?;
        let own = (format!("own/{}/#", self.number), Qos::AtLeastOnce);
        self.client
            .subscribe(vec![own, (NEWS.to_owned(), Qos::AtLeastOnce)]);
        let event = self.client.next().await?;
        ensure!(matches!(event, Event::Subscribed(_)), "{event:?}");
        self.client.disconnect().await?;
        Ok(self)
    }

    /// Nothing was under way when it left, so nothing may come twice either.
    async fn catch_up(mut self) -> Result<Self> {
        self.client.connect().await?;
        for count in 0..OWN + SHARED {
            let event = timeout(wait::START, self.client.next()).await;
            let event = event.with_context(|| format!("member {}: {count} came", self.number))?;
            let message = match event? {
                Event::Delivered(message) => message,
                other => bail!("{other:?}"),
            };
            let number: usize = std::str::from_utf8(&message.payload)?.parse()?;
            let next = self.next.entry(message.topic.clone()).or_default();
            ensure!(
                number == *next,
                "member {}, {}: {number} came instead of {next}",
                self.number,
                message.topic
            );
            *next += 1;
        }
        self.client.disconnect().await?;
        Ok(self)
    }
}

async fn publish(port: u16, pass: usize) -> Result<()> {
    let mut publishers = JoinSet::new();
    for number in 0..PUBLISHERS {
        publishers.spawn(publish_share(port, pass, number));
    }
    while let Some(ended) = publishers.join_next().await {
        ended??;
    }
    Ok(())
}

/// One publisher's share: every tenth session's own messages, and the first one all the news.
async fn publish_share(port: u16, pass: usize, publisher: usize) -> Result<()> {
    let session = Session::new(Version::V5, &format!("publisher-{publisher}"), WINDOW);
    let mut client = Client::new(port, session);
    client.connect().await?;
    let own = (0..OWN).flat_map(|count| {
        let members = (publisher..SESSIONS).step_by(PUBLISHERS);
        members.map(move |member| (format!("own/{member}/state"), pass * OWN + count))
    });
    let news = (0..SHARED).map(|count| (NEWS.to_owned(), pass * SHARED + count));
    let news = news.take(if publisher == 0 { SHARED } else { 0 });
    for (topic, number) in own.chain(news) {
        while !client.may_publish() {
            acknowledged(&mut client).await?;
        }
        let message = Message::new(topic, number.to_string(), Qos::AtLeastOnce);
        client.publish(message, 0);
    }
    while client.session.in_flight() > 0 {
        acknowledged(&mut client).await?;
    }
    Ok(client.disconnect().await?)
}

async fn acknowledged(client: &mut Client) -> Result<()> {
    const HUNG: Duration = wait::START;
    let event = timeout(HUNG, client.next()).await.context("no PUBACK")??;
    ensure!(matches!(event, Event::Acked(_)), "{event:?}");
    Ok(())
}
