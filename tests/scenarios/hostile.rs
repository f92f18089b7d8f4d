//! Clients that mean harm, or act as if they did. The node goes on, in bounded memory, and the
//! others notice nothing.

pub(crate) mod subscribers;

use std::future::Future;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepidle, set_tcp_keepintvl};
use rustix::process::{Resource, getrlimit, setrlimit};
use skerry_tests::chance::Chance;
use skerry_tests::mqtt::crowd::{Crowd, Place, Publisher, Subscriber};
use skerry_tests::mqtt::{Client, Ended, Event, Message, Qos, Session, Version};
use skerry_tests::node::Node;
use skerry_tests::world::World;
use skerry_tests::{Context as _, Error, Result, bail, ensure, wait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// MQTT 3.1.1, a client id of a hundred bytes: at a byte every fifth of a second, half a minute.
const CONNECT_HEAD: &[u8] = b"\x10\x70\x00\x04MQTT\x04\x02\x00\x00\x00\x64";
const CONNECT_ID_BYTES: usize = 100;

/// A client that behaves: connects, subscribes, publishes and gets its own message.
async fn round_trip(port: u16, name: &str) -> Result<()> {
    let topic = format!("plant/round-trip/{name}");
    let mut client = Client::new(port, Session::new(Version::V5, name, 1));
    client.clean = true;
    client.connect().await?;
    client.subscribe(vec![(topic.clone(), Qos::AtLeastOnce)]);
    let event = client.next().await?;
    ensure!(matches!(event, Event::Subscribed(_)), "{event:?}");
    let message = Message::new(topic, "here", Qos::AtLeastOnce);
    client.publish(message.clone(), 0);
    let (mut acked, mut came) = (false, false);
    while !(acked && came) {
        match client.next().await? {
            Event::Acked(0) => acked = true,
            Event::Delivered(delivered) if delivered == message => came = true,
            other => bail!("{other:?}"),
        }
    }
    Ok(client.disconnect().await?)
}

/// The node answers, a good client gets its message, and nothing panicked.
async fn is_well(node: &mut Node) -> Result<()> {
    ensure!(node.is_running()?, "the node ended: {}", node.output()?);
    ensure!(
        node.get("/healthz")?.status == 200,
        "the node is not healthy"
    );
    let good = timeout(wait::START, round_trip(node.mqtt_port(), "good")).await;
    good.context("a good client hangs")?
        .context("a good client")?;
    ensure!(
        !node.output()?.contains("panicked"),
        "something panicked: {}",
        node.output()?
    );
    Ok(())
}

/// Waits for the other side to close, whatever it says before.
async fn closed(mut stream: TcpStream) -> Result<()> {
    let mut answer = [0; 1024];
    let reading = async { while stream.read(&mut answer).await.is_ok_and(|count| count > 0) {} };
    timeout(wait::START, reading)
        .await
        .context("the connection is still open")
}

async fn all(
    stories: impl IntoIterator<Item = impl Future<Output = Result<()>> + Send + 'static>,
) -> Result<()> {
    let mut under_way: JoinSet<Result<()>> = JoinSet::new();
    for story in stories {
        under_way.spawn(story);
    }
    while let Some(ended) = under_way.join_next().await {
        ended??;
    }
    Ok(())
}

const PUBLISHERS: usize = 4;
const SUBSCRIBERS: usize = 2;

fn crowd(node: &Node, chance: &mut Chance) -> Result<Crowd> {
    let place = Place {
        port: node.mqtt_port(),
        connection_lasts: None,
    };
    let qos = |number: usize| [Qos::AtLeastOnce, Qos::ExactlyOnce][number % 2];
    let publisher = |number| Publisher {
        version: Version::V5,
        qos: qos(number),
        topics: vec![format!("plant/good/{number}")],
        window: 10,
        interval: Duration::from_millis(10),
        padding: 20,
    };
    let subscriber = |number| Subscriber {
        version: Version::V311,
        filters: vec![("plant/good/#".to_owned(), qos(number))],
        later: None,
    };
    let crowd = Crowd::start(
        place,
        (0..PUBLISHERS).map(publisher).collect(),
        (0..SUBSCRIBERS).map(subscriber).collect(),
        chance,
    )?;
    wait::until("the crowd is connected", wait::START, || {
        let there = connections(node)?;
        let all = there >= (PUBLISHERS + SUBSCRIBERS) as u64;
        ensure!(all, "{there} are connected");
        Ok(Some(()))
    })?;
    Ok(crowd)
}

/// The crowd leaves, satisfied, without having been interrupted once.
fn undisturbed(mut crowd: Crowd) -> Result<()> {
    crowd.stop_publishing()?;
    crowd.satisfied(wait::DRAIN)?;
    let totals = crowd.ledger().totals();
    let disturbed = totals.resent + totals.repeated;
    ensure!(
        totals.sent > 0 && disturbed == 0,
        "the others were disturbed: {totals:?}"
    );
    Ok(())
}

fn stopped_clean(mut node: Node) -> Result<()> {
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    Ok(())
}

fn connections(node: &Node) -> Result<u64> {
    node.status()?["mqtt"]["connections"]
        .as_u64()
        .context("no connections in /status")
}

/// Five hundred connections that never get to the end of their CONNECT: byte by byte, half of it,
/// or nothing at all. Each is closed in the end, and the others do not wait for them.
pub(crate) fn slowloris(world: &World) -> Result<()> {
    const CONNECTIONS: usize = 500;
    const BETWEEN_BYTES: Duration = Duration::from_millis(200);
    let mut node = world.started(world.settings()?)?;
    let port = node.mqtt_port();
    let crowd = crowd(&node, &mut Chance::from_environment()?)?;
    Runtime::new()?.block_on(async {
        let slow = move |number: usize| async move {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
            // It asks now and then whether the other side still knows it: a reset can get lost.
            set_socket_keepalive(&stream, true)?;
            set_tcp_keepidle(&stream, Duration::from_secs(10))?;
            set_tcp_keepintvl(&stream, Duration::from_secs(5))?;
            let (mut reader, mut writer) = stream.into_split();
            let writing = async {
                let count = [usize::MAX, CONNECT_HEAD.len() / 2, 0][number % 3];
                let id = [b'x'; CONNECT_ID_BYTES];
                for byte in CONNECT_HEAD.iter().chain(&id).take(count) {
                    if writer.write_all(&[*byte]).await.is_err() {
                        return;
                    }
                    sleep(BETWEEN_BYTES).await;
                }
                std::future::pending().await
            };
            let mut answer = [0; 16];
            let reading = async {
                let answer = reader.read(&mut answer).await;
                ensure!(
                    matches!(answer, Ok(0) | Err(_)),
                    "it was answered: {answer:?}"
                );
                Ok(())
            };
            let closed = async {
                tokio::select! { read = reading => read, () = writing => Ok(()) }
            };
            timeout(wait::START, closed)
                .await
                .context("a slow connection is still open")?
        };
        let hostile = tokio::spawn(all((0..CONNECTIONS).map(slow)));
        while !hostile.is_finished() {
            is_well(&mut node).await?;
            sleep(Duration::from_secs(1)).await;
        }
        hostile.await??;
        is_well(&mut node).await
    })?;
    undisturbed(crowd)?;
    stopped_clean(node)
}

/// As many connections as are allowed here, none of which says anything after its CONNECT.
pub(crate) fn idle(world: &World) -> Result<()> {
    /// For everything else this process and the node have open.
    const FILES_ASIDE: u64 = 500;
    const CONNECTIONS: u64 = 10_000;
    const CONNECTIONS_LEAST: u64 = 2_000;
    const AT_ONCE: u64 = 500;
    const BYTES_EACH_MAX: u64 = 12 * 1024;
    // The node inherits the limit.
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised)?;
    let files = limit.maximum.unwrap_or(u64::MAX);
    let count = files.saturating_sub(FILES_ASIDE).min(CONNECTIONS);
    ensure!(
        count >= CONNECTIONS_LEAST,
        "only {files} files may be open here (ulimit -Hn)"
    );

    let mut settings = world.settings()?;
    settings.mqtt_more = format!("connections_max = {}\n", CONNECTIONS + FILES_ASIDE);
    let mut node = world.started(settings)?;
    let port = node.mqtt_port();
    let before_kib = node.memory()?.resident_kib;
    Runtime::new()?.block_on(async {
        let mut idle = Vec::new();
        while (idle.len() as u64) < count {
            let mut connecting = JoinSet::new();
            for number in 0..AT_ONCE.min(count - idle.len() as u64) {
                let name = format!("idle-{}", idle.len() as u64 + number);
                let version = [Version::V311, Version::V5][idle.len() / 500 % 2];
                connecting.spawn(async move {
                    let mut client = Client::new(port, Session::new(version, &name, 1));
                    client.clean = true;
                    client.connect().await?;
                    Ok::<_, Error>(client)
                });
            }
            while let Some(client) = connecting.join_next().await {
                idle.push(client??);
            }
        }
        let bytes_each = (node.memory()?.resident_kib - before_kib) * 1024 / count;
        println!("  {count} idle connections, {bytes_each} bytes each");
        ensure!(
            bytes_each <= BYTES_EACH_MAX,
            "{bytes_each} bytes for an idle connection"
        );
        is_well(&mut node).await?;
        let open = connections(&node)?;
        ensure!(open >= count, "{open} of {count} connections are open");
        // Any of them still works.
        for number in [0, idle.len() / 2, idle.len() - 1] {
            let client = &mut idle[number];
            client.subscribe(vec![("plant/idle".to_owned(), Qos::AtLeastOnce)]);
            let event = timeout(wait::START, client.next())
                .await
                .context("it is dead")??;
            ensure!(matches!(event, Event::Subscribed(_)), "{event:?}");
        }
        Ok::<_, Error>(())
    })?;
    wait::until_true("all are gone", wait::START, || Ok(connections(&node)? == 0))?;
    stopped_clean(node)
}

/// Fifty clients fight over one id; in the end one has it, and the session is whole.
pub(crate) fn take_overs(world: &World) -> Result<()> {
    const CLIENTS: usize = 50;
    const STORM: Duration = Duration::from_secs(10);
    let mut node = world.started(world.settings()?)?;
    let port = node.mqtt_port();
    let crowd = crowd(&node, &mut Chance::from_environment()?)?;
    let others = connections(&node)?;
    let runtime = Runtime::new()?;
    let survivors = runtime.block_on(async {
        let ends_at = Instant::now() + STORM;
        let fight = move |number: usize| async move {
            let version = [Version::V311, Version::V5][number % 2];
            let mut client = Client::new(port, Session::new(version, "the-one", 1));
            let mut connected = 0_u64;
            while Instant::now() < ends_at {
                if !client.is_connected() {
                    client.reconnect().await?;
                    connected += 1;
                }
                let left = ends_at.saturating_duration_since(Instant::now());
                if let Ok(Err(Ended::Wrong(error))) = timeout(left, client.next()).await {
                    return Err(error);
                }
            }
            Ok((client, connected))
        };
        let mut fighters = JoinSet::new();
        for number in 0..CLIENTS {
            fighters.spawn(fight(number));
        }
        is_well(&mut node).await?;
        let (mut survivors, mut take_overs) = (Vec::new(), 0);
        while let Some(ended) = fighters.join_next().await {
            let (client, connected) = ended??;
            survivors.push(client);
            take_overs += connected;
        }
        println!("  {take_overs} connections in {STORM:?}");
        is_well(&mut node).await?;
        Ok::<_, Error>(survivors)
    })?;
    wait::until("one of them is left", wait::START, || {
        let left = connections(&node)? - others;
        ensure!(left == 1, "{left} are connected");
        Ok(Some(()))
    })?;
    drop(survivors);
    undisturbed(crowd)?;
    stopped_clean(node)
}

/// Bytes of chance, alone or after a good CONNECT, from many connections at once.
pub(crate) fn noise(world: &World) -> Result<()> {
    const CONNECTIONS: usize = 400;
    let mut node = world.started(world.settings()?)?;
    let port = node.mqtt_port();
    let mut chance = Chance::from_environment()?;
    let crowd = crowd(&node, &mut chance)?;
    Runtime::new()?.block_on(async {
        let mut make = |number: usize| {
            let count = 1 + usize::try_from(chance.below(4096)).expect("below 4096");
            let mut bytes = chance.bytes(count);
            if number.is_multiple_of(2) {
                let mut greeted = CONNECT_HEAD.to_vec();
                greeted.extend(format!("{number:0CONNECT_ID_BYTES$}").bytes());
                greeted.append(&mut bytes);
                bytes = greeted;
            }
            async move {
                let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
                // It may hang up before it has read everything.
                let _written = stream.write_all(&bytes).await;
                stream.shutdown().await.ok();
                closed(stream).await
            }
        };
        let noise: Vec<_> = (0..CONNECTIONS).map(&mut make).collect();
        all(noise).await?;
        is_well(&mut node).await
    })?;
    undisturbed(crowd)?;
    stopped_clean(node)
}
