//! Subscribers that do not read, filters of any depth, more retained topics than there may be.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use skerry_tests::chance::{Chance, number_from_environment};
use skerry_tests::mqtt::{Client, Ended, Event, Message, Qos, Session, Version};
use skerry_tests::node::{Node, Settings};
use skerry_tests::world::World;
use skerry_tests::{Context as _, Error, Result, bail, ensure, wait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::{crowd, is_well, stopped_clean, undisturbed};

/// Two subscribers that stop reading, at QoS 0 and in a session at QoS 1, while megabytes go to
/// others. Once it reads again, the session has everything.
pub(crate) fn never_reads(world: &World) -> Result<()> {
    const MESSAGES: usize = 20_000;
    const PAYLOAD_BYTES: usize = 4096;
    const GROWTH_KIB_MAX: u64 = 48 * 1024;
    const RECEIVE_BUFFER_BYTES: u32 = 8 * 1024;
    let mut node = world.started(world.settings()?)?;
    let port = node.mqtt_port();
    let crowd = crowd(&node, &mut Chance::from_environment()?)?;
    let runtime = Runtime::new()?;
    runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        let mut deaf = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await?;
        deaf.write_all(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x04deaf")
            .await?;
        deaf.write_all(b"\x82\x0b\x00\x01\x00\x06bulk/#\x00")
            .await?;
        // CONNACK and SUBACK are the last it reads.
        deaf.read_exact(&mut [0; 9]).await?;
        let mut session = Client::new(port, Session::new(Version::V5, "deaf-session", 1));
        session.connect().await?;
        session.subscribe(vec![("bulk/#".to_owned(), Qos::AtLeastOnce)]);
        let event = session.next().await?;
        ensure!(matches!(event, Event::Subscribed(_)), "{event:?}");

        let before_kib = node.memory()?.resident_kib;
        let mut publisher = Client::new(port, Session::new(Version::V311, "bulk", 200));
        publisher.connect().await?;
        publish_all(&mut publisher, MESSAGES, |number| {
            let payload = format!("{number}:{:PAYLOAD_BYTES$}", "");
            Message::new("bulk/a", payload, Qos::AtLeastOnce)
        })
        .await?;
        is_well(&mut node).await?;
        let peak_kib = node.memory()?.peak_kib;
        let growth_kib = peak_kib.saturating_sub(before_kib);
        println!("  memory {before_kib} KiB, at most {peak_kib} KiB");
        ensure!(
            growth_kib < GROWTH_KIB_MAX,
            "memory grew by {growth_kib} KiB"
        );

        let begin = Instant::now();
        let reading = read_everything(&mut session, MESSAGES);
        timeout(wait::DRAIN, reading)
            .await
            .context("the session hangs")??;
        println!("  the session had everything after {:.1?}", begin.elapsed());
        Ok::<_, Error>(())
    })?;
    undisturbed(crowd)?;
    stopped_clean(node)
}

async fn publish_all(
    client: &mut Client,
    count: usize,
    message: impl Fn(usize) -> Message,
) -> Result<()> {
    let mut acked = 0;
    let mut sent = 0;
    while acked < count {
        while sent < count && client.may_publish() {
            client.publish(message(sent), sent as u64);
            sent += 1;
        }
        match timeout(wait::START, client.next())
            .await
            .context("no PUBACK")??
        {
            Event::Acked(_) => acked += 1,
            other => bail!("{other:?}"),
        }
    }
    Ok(())
}

/// Message after message, in order; one that was unacknowledged when a connection ended may come
/// again.
async fn read_everything(client: &mut Client, count: usize) -> Result<()> {
    const HUNG: Duration = Duration::from_secs(30);
    let mut next = 0;
    while next < count {
        let event = timeout(HUNG, client.next()).await;
        let message = match event.with_context(|| format!("{next} of {count} came"))? {
            Ok(Event::Delivered(message)) => message,
            Ok(other) => bail!("{other:?}"),
            Err(Ended::Lost(_)) => {
                client.reconnect().await?;
                continue;
            }
            Err(Ended::Wrong(error)) => return Err(error),
        };
        let number = message.payload.split(|byte| *byte == b':').next();
        let number: usize = std::str::from_utf8(number.unwrap_or_default())?.parse()?;
        ensure!(number <= next, "{number} came, {next} was due");
        next = next.max(number + 1);
    }
    Ok(())
}

/// Filters and topics of a thousand levels and of all the bytes a length allows: granted or
/// refused, the node goes on; what was granted matches.
pub(crate) fn deep_filters(world: &World) -> Result<()> {
    const TEXT_BYTES_MAX: usize = 65_535;
    let mut node = world.started(world.settings()?)?;
    let port = node.mqtt_port();
    let mut chance = Chance::from_environment()?;
    let crowd = crowd(&node, &mut chance)?;
    let longest = [
        "/".repeat(TEXT_BYTES_MAX),
        "+/".repeat(TEXT_BYTES_MAX / 2) + "#",
        "x".repeat(TEXT_BYTES_MAX),
    ];
    Runtime::new()?.block_on(async {
        let mut matched = 0;
        for levels in [1_000, 100, 10] {
            let all = matches_at(port, levels, &mut chance).await;
            matched += usize::from(all.with_context(|| format!("{levels} levels"))?);
            is_well(&mut node).await?;
        }
        ensure!(matched > 0, "not even ten levels are granted");
        for filter in longest {
            let mut client = connected(port, "longest").await?;
            client.subscribe(vec![(filter.clone(), Qos::AtMostOnce)]);
            // Granted, refused or hung up on: all are answers.
            let answer = timeout(wait::START, client.next())
                .await
                .context("no answer")?;
            if matches!(answer, Ok(Event::Subscribed(_))) && !filter.contains(['+', '#']) {
                client.publish(Message::new(filter, "x", Qos::AtMostOnce), 0);
                let answer = timeout(wait::START, client.next())
                    .await
                    .context("no delivery")?;
                ensure!(
                    matches!(answer, Ok(Event::Delivered(_))),
                    "not delivered to itself"
                );
            }
            is_well(&mut node).await?;
        }
        is_well(&mut node).await
    })?;
    undisturbed(crowd)?;
    stopped_clean(node)
}

async fn connected(port: u16, name: &str) -> Result<Client> {
    let mut client = Client::new(port, Session::new(Version::V5, name, 1));
    client.clean = true;
    client.connect().await?;
    Ok(client)
}

/// Subscribes to two hundred filters of this depth, which branch at every level and all match the
/// same topic, and publishes to it. False where filters so deep are refused.
async fn matches_at(port: u16, levels: usize, chance: &mut Chance) -> Result<bool> {
    const FILTERS: usize = 200;
    let mut client = connected(port, "deep").await?;
    for _ in 0..FILTERS {
        let level = |_| if chance.below(2) == 0 { "a" } else { "+" };
        let filter: Vec<&str> = (0..levels).map(level).collect();
        client.subscribe(vec![(filter.join("/"), Qos::AtLeastOnce)]);
        match timeout(wait::START, client.next())
            .await
            .context("no SUBACK")??
        {
            Event::Subscribed(_) => {}
            Event::NotSubscribed(codes) => {
                println!("  filters of {levels} levels are refused with {codes:02x?}");
                return Ok(false);
            }
            other => bail!("{other:?}"),
        }
    }
    let topic = vec!["a"; levels].join("/");
    let begin = Instant::now();
    client.publish(Message::new(topic.clone(), "x", Qos::AtLeastOnce), 0);
    let mut came = 0;
    while came == 0 || client.session.in_flight() > 0 {
        match timeout(wait::START, client.next())
            .await
            .context("no delivery")??
        {
            Event::Delivered(message) => came += usize::from(message.topic == topic),
            Event::Acked(0) => {}
            other => bail!("{other:?}"),
        }
    }
    println!(
        "  {FILTERS} filters of {levels} levels: a publish took {:.1?}",
        begin.elapsed()
    );
    client.disconnect().await?;
    Ok(true)
}

/// More retained topics than the node may keep: it keeps as many as it may, counts the others,
/// and has the same ones after a restart. A million topics: `SKERRY_RETAINED=1000000`.
pub(crate) fn retained_flood(world: &World) -> Result<()> {
    let kept = number_from_environment("SKERRY_RETAINED", 10_000)?;
    let topics = kept * 2;
    let mut settings: Settings = world.settings()?;
    settings.mqtt_more = format!("retained_max = {kept}\n");
    settings.more = "\n[[stream]]\nname = \"default\"\nbytes_max = \"8GiB\"\n".to_owned();
    let mut node = world.started(settings)?;
    let port = node.mqtt_port();
    let before_kib = node.memory()?.resident_kib;
    let runtime = Runtime::new()?;
    runtime.block_on(async {
        let mut publisher = Client::new(port, Session::new(Version::V5, "flood", 500));
        publisher.connect().await?;
        publish_all(&mut publisher, usize::try_from(topics)?, |number| Message {
            retain: true,
            ..Message::new(format!("flood/{number}/state"), "on", Qos::AtLeastOnce)
        })
        .await?;
        is_well(&mut node).await
    })?;
    let peak_kib = node.memory()?.peak_kib;
    let bytes_each = peak_kib.saturating_sub(before_kib) * 1024 / kept;
    println!("  {topics} retained topics, {kept} kept: {bytes_each} bytes each");
    let count = |node: &Node, name: &str| -> Result<u64> {
        node.status()?["mqtt"][name]
            .as_u64()
            .with_context(|| format!("no {name}"))
    };
    for how in ["flooded", "restarted"] {
        // First, since the node is alive before it has read all of them.
        runtime.block_on(retained_come(port, kept)).context(how)?;
        let there = count(&node, "retained_topics")?;
        ensure!(
            there == kept,
            "{how}: {there} retained topics, {kept} allowed"
        );
        if how == "flooded" {
            let refused = count(&node, "retained_refused_total")?;
            ensure!(
                refused == topics - kept,
                "{refused} of {} are counted",
                topics - kept
            );
            ensure!(node.terminate()?.success(), "the node did not stop cleanly");
            node.start()?;
        }
    }
    stopped_clean(node)
}

/// A new subscriber gets every retained message, each once.
async fn retained_come(port: u16, count: u64) -> Result<()> {
    let mut client = Client::new(port, Session::new(Version::V311, "late", 1));
    client.clean = true;
    client.connect().await?;
    client.subscribe(vec![("flood/#".to_owned(), Qos::AtLeastOnce)]);
    let mut topics = BTreeSet::new();
    while (topics.len() as u64) < count {
        let event = timeout(wait::START, client.next()).await;
        match event.with_context(|| format!("{} came", topics.len()))?? {
            Event::Subscribed(_) => {}
            Event::Delivered(message) => {
                ensure!(message.retain, "not marked as retained: {message:?}");
                ensure!(topics.insert(message.topic.clone()), "twice: {message:?}");
            }
            other => bail!("{other:?}"),
        }
    }
    Ok(client.disconnect().await?)
}
