//! MQTT in, Kafka out; and MQTT that is none.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use serde_json::Value;
use skerry_tests::audit::{self, Copies, Journal};
use skerry_tests::world::{Publishing, World};
use skerry_tests::{Context as _, Result, ensure, wait};

use crate::common::{acked_more, drained, log_agrees, logged_no_complaint};

/// Four publishers of both versions and both QoS, one of them on topics no stream asks for.
pub(crate) fn once(world: &World) -> Result<()> {
    let kafka = world.kafka()?;
    let mut settings = world.settings()?;
    settings.kafka = Some(kafka.address());
    let mut node = world.started(settings)?;
    let mut consumer = world.consumer(&kafka.address())?;

    let base = Publishing {
        count: 1500,
        ..Publishing::default()
    };
    let publishings = [
        Publishing {
            name: "old-1",
            qos: 1,
            protocol: 4,
            ..base
        },
        Publishing {
            name: "old-2",
            qos: 2,
            protocol: 4,
            ..base
        },
        Publishing {
            name: "new-1",
            qos: 1,
            protocol: 5,
            ..base
        },
        Publishing {
            name: "new-2",
            qos: 2,
            protocol: 5,
            topics: &["office/door", "a"],
            ..base
        },
    ];
    let mut running = Vec::new();
    for publishing in publishings {
        running.push((
            publishing.name,
            world.publisher(node.mqtt_port(), publishing)?,
        ));
    }
    let mut journals = Vec::new();
    for (name, publisher) in running {
        let journal = Journal::read(name, &publisher.join(wait::DRAIN)?)?;
        ensure!(
            journal.acked() == 1500,
            "{name}: {} acknowledged",
            journal.acked()
        );
        journals.push(journal);
    }

    let arrived = drained(&node, &mut consumer)?;
    for journal in &journals {
        audit::messages(journal, &arrived, Copies::One)?;
    }
    let mqtt = |topic: &str| {
        let of_topic = arrived.iter().filter(|record| record.topic == topic);
        of_topic.filter(|record| record.kind() == "mqtt").count()
    };
    ensure!(
        mqtt("skerry.telemetry") == 4500,
        "{} in telemetry",
        mqtt("skerry.telemetry")
    );
    ensure!(
        mqtt("skerry.default") == 1500,
        "{} in default",
        mqtt("skerry.default")
    );
    for record in arrived.iter().filter(|record| record.kind() == "mqtt") {
        ensure!(record.header("skerry-node")? == "vessel-7", "{record:?}");
        let epoch = u64::from_str_radix(record.header("skerry-epoch")?, 16);
        ensure!(epoch.is_ok(), "{record:?}");
        let ingested: i64 = record.header("skerry-ingest-time")?.parse()?;
        ensure!(record.timestamp_ms == ingested / 1_000_000, "{record:?}");
    }
    logged_no_complaint(&node)?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    log_agrees(&node, "telemetry", &arrived)?;
    log_agrees(&node, "default", &arrived)?;
    consumer.kill()
}

/// Bytes a device may send, and none of which is MQTT as it should be.
fn zoo() -> Vec<(&'static str, Vec<u8>)> {
    // MQTT 3.1.1, client id "z".
    let connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01z".to_vec();
    let after_connect = |bytes: &[u8]| [connect.as_slice(), bytes].concat();
    let publish = |topic: &[u8]| {
        let length = u8::try_from(topic.len()).expect("a short topic");
        let body = [&[0, length], topic, b"x"].concat();
        let size = u8::try_from(body.len()).expect("a short packet");
        after_connect(&[&[0x30, size], body.as_slice()].concat())
    };
    vec![
        ("HTTP", b"GET / HTTP/1.1\r\nHost: plant\r\n\r\n".to_vec()),
        (
            "random bytes",
            (0u8..=255).map(|n| n.wrapping_mul(167) ^ 0x5a).collect(),
        ),
        (
            "a length of five bytes",
            b"\x10\xff\xff\xff\xff\xff".to_vec(),
        ),
        ("PUBLISH before CONNECT", b"\x30\x04\x00\x01ax".to_vec()),
        (
            "another protocol's name",
            b"\x10\x0d\x00\x04AMQP\x04\x02\x00\x3c\x00\x01z".to_vec(),
        ),
        (
            "protocol level 9",
            b"\x10\x0d\x00\x04MQTT\x09\x02\x00\x3c\x00\x01z".to_vec(),
        ),
        ("a reserved packet type", after_connect(b"\x00\x00")),
        ("CONNECT twice", after_connect(&connect)),
        ("QoS 3", after_connect(b"\x36\x06\x00\x01a\x00\x01x")),
        ("packet id 0", after_connect(b"\x32\x06\x00\x01a\x00\x00x")),
        ("a wildcard in a topic", publish(b"plant/#")),
        ("an empty topic", publish(b"")),
        ("NUL in a topic", publish(b"a\0b")),
        ("a topic that is not UTF-8", publish(b"\xff\xfe")),
        ("half a topic's length", after_connect(b"\x30\x01\x00")),
        (
            "a topic longer than its packet",
            after_connect(b"\x30\x04\x00\x63ax"),
        ),
        ("CONNACK from a client", after_connect(b"\x20\x02\x00\x00")),
        ("an empty SUBSCRIBE", after_connect(b"\x82\x02\x00\x01")),
        ("a payload beyond packet_bytes_max", {
            let mut packet = vec![0x30, 0x80, 0x80, 0x40];
            packet.extend(b"\x00\x01a");
            packet.resize(1024 * 1024, b'x');
            after_connect(&packet)
        }),
    ]
}

/// Each of the zoo's animals loses its connection and nobody else notices.
pub(crate) fn malformed(world: &World) -> Result<()> {
    let mut node = world.started(world.settings()?)?;
    let port = node.mqtt_port();
    let steady = Publishing {
        interval_ms: 5,
        ..Publishing::default()
    };
    let mut publisher = world.publisher(port, steady)?;
    acked_more(&mut publisher, 10)?;
    for (what, bytes) in zoo() {
        disconnected(port, &bytes).with_context(|| format!("sent {what}"))?;
    }
    // A topic that starts beyond ASCII is fine, and once took a router down.
    let unusual = Publishing {
        name: "umlaut",
        topics: &["änderung/1"],
        count: 10,
        ..steady
    };
    world.publisher(port, unusual)?.join(wait::START)?;
    acked_more(&mut publisher, 10)?;

    let status = node.status()?;
    let counted: u64 = [
        "malformed_total",
        "connections_refused_total",
        "refused_total",
    ]
    .iter()
    .flat_map(|name| status["mqtt"][name].as_object())
    .flat_map(|reasons| reasons.values().filter_map(Value::as_u64))
    .sum();
    let sent = zoo().len() as u64;
    ensure!(
        counted >= sent,
        "{counted} of {sent} are counted: {}",
        status["mqtt"]
    );
    let journal = Journal::read("publisher", &publisher.finish(wait::START)?)?;
    ensure!(
        journal.connections() == 1,
        "the good publisher lost its connection"
    );
    ensure!(
        journal.acked() == journal.sent(),
        "the good publisher lost acknowledgements"
    );
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    Ok(())
}

/// Sends `bytes` and waits for the node to hang up.
fn disconnected(port: u16, bytes: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(wait::START))?;
    // It may hang up before it has read everything: then writing or reading fails, which is fine.
    if stream.write_all(bytes).is_err() {
        return Ok(());
    }
    let mut answer = [0; 256];
    loop {
        match stream.read(&mut answer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                skerry_tests::bail!("the connection is still open");
            }
            Err(_) => return Ok(()),
        }
    }
}
