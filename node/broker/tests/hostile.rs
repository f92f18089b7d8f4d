//! Clients that are broken, slow or hostile hurt themselves only.

mod common;

use common::{Client, Hello, Node, packet};
use std::time::{Duration, Instant};

/// A bystander that notices if anything it should get is missing.
async fn bystander_is_well(node: &Node, subscriber: &mut Client, tag: &str) {
    let mut publisher = Client::connect(node, &Hello::v4("bystander-publisher")).await;
    publisher.publish("by/stander", tag, 1, 1).await;
    publisher.expect(0x40, 1).await;
    loop {
        let got = subscriber.got().await;
        if got.topic == "by/stander" {
            assert_eq!(got.payload, tag);
            break;
        }
    }
    publisher.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_packets_close_their_connection_only() {
    let node = Node::start().await;
    let mut subscriber = Client::connect(&node, &Hello::v4("bystander")).await;
    subscriber.subscribe("#", 0).await;
    let firsts: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x10\xff\xff\xff\xff\xff",
        b"\x10\x02\0\x04",
        b"\x30\x03\0\x01a",
        b"\x16\x03\x01\x02\0\x01\0",
    ];
    for bytes in firsts {
        let mut client = Client::raw(&node, 4).await;
        client.send(bytes).await;
        assert!(client.expect_closed().await.is_empty());
    }
    let after_connect: &[&[u8]] = &[
        b"\x20\x03\0\0\0",
        b"\xb0\x02\0\x01",
        b"\xf0\x02\0\0",
        b"\x00\x00",
        b"\x36\x05\0\x01a\0\x01",
        b"\x32\x05\0\x01a\0\0",
        b"\x30\x05\0\x03a/#",
        b"\x30\x05\0\x03a\0b",
        b"\x30\x04\0\x02\xff\xfe",
        b"\x30\x01\0",
        b"\x82\x02\0\x01",
        b"\x80\x06\0\x01\0\x01a\0",
        b"\x62\x01\0",
        b"\xc1\x00",
    ];
    for (index, bytes) in after_connect.iter().enumerate() {
        for hello in [Hello::v4("bad"), Hello::v5("bad")] {
            let mut client = Client::connect(&node, &hello).await;
            client.send(bytes).await;
            let last = client.expect_closed().await;
            match hello.level {
                5 => assert!(matches!(&last[..], [one] if one[0] == 0xe0 && one[2] >= 0x80)),
                _ => assert!(last.is_empty(), "3.1.1 has no word for it"),
            }
        }
        bystander_is_well(&node, &mut subscriber, &index.to_string()).await;
    }
    let mut twice = Client::connect(&node, &Hello::v5("twice")).await;
    twice.send(&Hello::v5("twice").bytes()).await;
    twice.expect_dismissed(0x82).await;
    let counted: u64 = node.status().malformed_total.values().sum();
    assert_eq!(counted, 5 + 28 + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_versions_are_told() {
    let node = Node::start().await;
    for (bytes, expected) in [
        (
            &b"\x10\x0e\0\x06MQIsdp\x02\x02\0\0\0\0"[..],
            &b"\x20\x02\0\x01"[..],
        ),
        (
            b"\x10\x0c\0\x04MQTT\x09\x02\0\0\0\0",
            b"\x20\x4d\0\x84\x4a\x1f\0\x47",
        ),
    ] {
        let mut client = Client::raw(&node, 4).await;
        client.send(bytes).await;
        let answers = client.expect_closed().await;
        assert!(
            matches!(&answers[..], [one] if one.starts_with(expected)),
            "{answers:x?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oversize_is_refused_by_its_length_alone() {
    let node = Node::start_with(|config| config.packet_bytes_max = 1000).await;
    let header_only = &packet(0x30, &[0; 1000])[..3];
    let (mut five, connack) = Client::try_connect(node.address, &Hello::v5("five")).await;
    assert!(
        connack.windows(5).any(|five| five == b"\x27\0\0\x03\xe8"),
        "announced"
    );
    five.send(header_only).await;
    five.expect_dismissed(0x95).await;
    let mut four = Client::connect(&node, &Hello::v4("four")).await;
    four.send(header_only).await;
    assert!(four.expect_closed().await.is_empty());
    assert_eq!(node.status().malformed_total["too_large"], 2);
}

/// Each of these stops rumqttd's router when it sees it itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_and_client_ids_that_stop_the_router_do_not() {
    let node = Node::start().await;
    let mut subscriber = Client::connect(&node, &Hello::v4("s")).await;
    subscriber.subscribe("#", 0).await;
    let mut hidden = Client::connect(&node, &Hello::v4("h")).await;
    hidden.subscribe("$own/#", 0).await;
    for round in 0..2 {
        let mut publisher = Client::connect(&node, &Hello::v4("a+b/#")).await;
        for topic in ["ünten/x", "日本", "$own/x", "a"] {
            publisher.publish(topic, &round.to_string(), 1, 1).await;
            publisher.expect(0x40, 1).await;
        }
        for topic in ["ünten/x", "日本", "a"] {
            let got = subscriber.got().await;
            assert_eq!(
                (got.topic.as_str(), got.payload),
                (topic, round.to_string())
            );
        }
        assert_eq!(hidden.got().await.topic, "$own/x", "and # did not see it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_connection_takes_the_client_id_over() {
    let node = Node::start().await;
    let mut first = Client::connect(&node, &Hello::v5("same")).await;
    first.subscribe("#", 0).await;
    let mut second = Client::connect(&node, &Hello::v5("same")).await;
    first.expect_dismissed(0x8e).await;
    second.subscribe("#", 0).await;
    bystander_is_well(&node, &mut second, "after").await;
    // A storm of them: the last one stands.
    let mut last = second;
    for _ in 0..50 {
        last = Client::connect(&node, &Hello::v5("same")).await;
    }
    last.subscribe("#", 0).await;
    bystander_is_well(&node, &mut last, "storm").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_never_reads_holds_nobody_up() {
    let node = Node::start_with(|config| {
        config.mailbox_messages_max = 100;
        config.write_timeout = Duration::from_secs(2);
    })
    .await;
    let mut stuck = Client::connect(&node, &Hello::v4("stuck")).await;
    stuck.subscribe("#", 0).await;
    let mut subscriber = Client::connect(&node, &Hello::v4("s")).await;
    subscriber.subscribe("by/stander", 0).await;
    let mut publisher = Client::connect(&node, &Hello::v4("p")).await;
    let payload = "x".repeat(50_000);
    for _ in 0..400 {
        publisher.publish("bulk", &payload, 1, 1).await;
        publisher.expect(0x40, 1).await;
    }
    let since = Instant::now();
    bystander_is_well(&node, &mut subscriber, "fast").await;
    assert!(since.elapsed() < Duration::from_secs(1));
    node.until("losses", |status| status.slow_reader_losses_total > 0)
        .await;
    node.until("the end of it", |status| {
        status
            .connections_closed_total
            .contains_key("write_timeout")
    })
    .await;
    assert_eq!(
        node.payloads("default").len(),
        401,
        "the log has what it missed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_bounded() {
    let node = Node::start_with(|config| config.connect_timeout = Duration::from_millis(300)).await;
    let mut idle = Client::raw(&node, 4).await;
    idle.send(b"\x10").await;
    assert!(
        idle.expect_closed().await.is_empty(),
        "half a CONNECT is none"
    );

    let hello = Hello {
        keep_alive: 1,
        ..Hello::v5("silent")
    };
    let mut silent = Client::connect(&node, &hello).await;
    let since = Instant::now();
    silent.expect_dismissed(0x8d).await;
    let waited = since.elapsed();
    assert!(
        waited > Duration::from_millis(1300) && waited < Duration::from_secs(4),
        "{waited:?}"
    );

    let hello = Hello {
        keep_alive: 1,
        ..Hello::v4("pings")
    };
    let mut pings = Client::connect(&node, &hello).await;
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        pings.send(b"\xc0\0").await;
        assert_eq!(pings.packet().await, Some(b"\xd0\0".to_vec()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_bounded_and_the_place_is_given_back() {
    let node = Node::start_with(|config| config.connections_max = 2).await;
    let first = Client::connect(&node, &Hello::v4("1")).await;
    let _second = Client::connect(&node, &Hello::v4("2")).await;
    let mut third = Client::raw(&node, 4).await;
    assert!(third.expect_closed().await.is_empty());
    first.leave().await;
    node.until("the place", |status| status.connections == 1)
        .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    Client::connect(&node, &Hello::v4("4")).await;
    assert_eq!(
        node.status().connections_refused_total["connections_max"],
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_connect_may_not_ask_is_refused_in_words() {
    let node = Node::start().await;
    let unnamed = Hello {
        clean: false,
        ..Hello::v4("")
    };
    let (_, connack) = Client::try_connect(node.address, &unnamed).await;
    assert_eq!(connack[3], 0x02, "identifier rejected");
    let (_, connack) = Client::try_connect(node.address, &Hello::v4("")).await;
    assert_eq!(connack[3], 0);
    let (_, connack) = Client::try_connect(node.address, &Hello::v5("")).await;
    let text = String::from_utf8_lossy(&connack).into_owned();
    assert!(text.contains("skerry-"), "an assigned id: {text}");
    let forged = Hello {
        will: Some(("skerry/alerts/x", "y")),
        ..Hello::v5("w")
    };
    let (_, connack) = Client::try_connect(node.address, &forged).await;
    assert_eq!(connack[3], 0x87);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_address_is_named() {
    let node = Node::start().await;
    let config = skerry_broker::Config::new(node.address, common::stream("default"));
    let error = skerry_broker::Broker::bind(config)
        .await
        .expect_err("taken")
        .to_string();
    assert!(error.contains(&node.address.to_string()), "{error}");
}

/// A client beyond what the system keeps waits at best; at worst it is left believing that it is
/// connected.
#[tokio::test]
async fn a_whole_site_may_come_at_once() {
    const CLIENTS: usize = 600;
    let address = ([127, 0, 0, 1], 0).into();
    let config = skerry_broker::Config::new(address, common::stream("default"));
    // Bound only: nobody is accepted, however quick the machine.
    let broker = skerry_broker::Broker::bind(config).await.unwrap();
    let address = broker.local_addr().expect("a plain listener");
    let limit = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let clients = CLIENTS.min(limit.trim().parse().unwrap());
    let mut waiting = Vec::with_capacity(clients);
    for number in 0..clients {
        let connecting = tokio::net::TcpStream::connect(address);
        let connected = tokio::time::timeout(Duration::from_secs(10), connecting).await;
        let connected = connected.unwrap_or_else(|_| panic!("client {number} is kept out"));
        waiting.push(connected.unwrap());
    }
}
