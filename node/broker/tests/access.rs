//! Who may connect and do what, on a running broker.

mod common;

use common::{Client, Hello, Node, PATIENCE, packet};
use rumqttc::{AsyncClient, ConnectionError, Event, MqttOptions, Packet, QoS};
use serde_json::Value;
use skerry_broker::{Anonymous, Config, UsersFile};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Files of users and rules, and a broker that reads them.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn set_user(&self, name: &str, password: &str) {
        let mut users = UsersFile::open(&self.path("users")).expect("a users file");
        users.set(name, password.as_bytes()).expect("a name");
        users.save().expect("saved");
    }

    fn remove_user(&self, name: &str) {
        let mut users = UsersFile::open(&self.path("users")).expect("a users file");
        assert!(users.remove(name));
        users.save().expect("saved");
    }

    fn set_acl(&self, text: &str) {
        std::fs::write(self.path("acl"), text).expect("written");
    }

    async fn node(&self, tweak: impl FnOnce(&mut Config)) -> Node {
        let file = |name| Some(self.path(name)).filter(|path: &PathBuf| path.exists());
        let (users_file, acl_file) = (file("users"), file("acl"));
        Node::start_with(|config| {
            config.access.users_file = users_file;
            config.access.acl_file = acl_file;
            config.audit = Some(common::stream("audit"));
            tweak(config);
        })
        .await
    }
}

fn login<'a>(hello: Hello<'a>, user: &'a str, password: &'a str) -> Hello<'a> {
    Hello {
        login: Some((user, password)),
        ..hello
    }
}

/// The CONNACK's code.
async fn answer(node: &Node, hello: Hello<'_>) -> u8 {
    Client::try_connect(node.address, &hello).await.1[3]
}

fn audit(node: &Node) -> Vec<Value> {
    let records = node.records("audit").into_iter();
    records
        .map(|record| serde_json::from_slice(&record.payload).expect("JSON"))
        .collect()
}

async fn until_audited(node: &Node, records: u64) -> Vec<Value> {
    node.until("audit records", |status| {
        status.audit_records_total >= records
    })
    .await;
    audit(node)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_opens_and_each_refusal_is_audited_without_it() {
    let place = Place::new();
    place.set_user("ada", "secret-1");
    let node = place
        .node(|config| config.access.anonymous = Anonymous::Never)
        .await;
    for (hello, old, new) in [
        (None, 0x05, 0x87),
        (Some(("ada", "guess-1")), 0x04, 0x86),
        (Some(("eve", "guess-2")), 0x04, 0x86),
        (Some(("ada", "secret-1")), 0, 0),
    ] {
        for (level, expected) in [(Hello::v4("a"), old), (Hello::v5("a"), new)] {
            let hello = Hello {
                login: hello,
                ..level
            };
            assert_eq!(answer(&node, hello).await, expected);
        }
    }
    let status = node.status();
    assert_eq!((status.users, status.logins_total), (1, 2));
    assert_eq!(status.logins_remembered_total, 1);
    assert_eq!(status.connections_refused_total["bad_login"], 4);

    let directory = node.stop().await;
    let node = Node::reopen(directory).await;
    let mut told: Vec<(String, String, u64)> = Vec::new();
    for record in audit(&node) {
        assert_eq!(record["event"], "login_refused");
        assert_eq!(record["client"].as_str(), Some("a"));
        assert_eq!(record["address"].as_str(), Some("127.0.0.1"));
        assert!(record["from_ns"].as_i64() <= record["to_ns"].as_i64());
        let text = record.to_string();
        assert!(
            !text.contains("guess") && !text.contains("secret"),
            "{text}"
        );
        let word = |field: &str| record[field].as_str().unwrap_or("-").to_owned();
        let (count, found) = (
            record["count"].as_u64().expect("a count"),
            (word("user"), word("reason")),
        );
        match told
            .iter_mut()
            .find(|(user, reason, _)| (user, reason) == (&found.0, &found.1))
        {
            Some(entry) => entry.2 += count,
            None => told.push((found.0, found.1, count)),
        }
    }
    // Each is written when it is folded; which is first does not matter.
    told.sort();
    let expected = [
        ("-", "anonymous", 2),
        ("ada", "wrong_password", 2),
        ("eve", "unknown_user", 2),
    ];
    assert_eq!(
        told,
        expected.map(|(user, reason, count)| (user.to_owned(), reason.to_owned(), count))
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_not_ours_logs_in_too() {
    let place = Place::new();
    place.set_user("ada", "secret-1");
    let node = place.node(|_| {}).await;
    for (password, welcome) in [("secret-1", true), ("guess", false)] {
        let mut options = MqttOptions::new("r", node.address.ip().to_string(), node.address.port());
        options.set_credentials("ada", password);
        let (client, mut events) = AsyncClient::new(options, 10);
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => assert!(welcome),
            Err(ConnectionError::ConnectionRefused(code)) => {
                assert!(!welcome, "{code:?}");
                continue;
            }
            other => panic!("{other:?}"),
        }
        client
            .publish("a", QoS::AtLeastOnce, false, "x")
            .await
            .expect("queued");
        while !matches!(events.poll().await, Ok(Event::Incoming(Packet::PubAck(_)))) {}
    }
    assert_eq!(node.payloads("default"), ["x"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_acl_forbids_is_refused_dropped_and_audited() {
    let place = Place::new();
    place.set_acl("topic read open/#\ntopic deny open/secret\npattern readwrite dev/%c/#\n");
    let node = place.node(|_| {}).await;
    let mut five = Client::connect(&node, &Hello::v5("five")).await;
    five.publish("dev/five/x", "mine", 1, 1).await;
    assert_eq!(five.expect(0x40, 1).await, 0);
    five.publish("dev/four/x", "not mine", 1, 2).await;
    assert_eq!(five.expect(0x40, 2).await, 0x87);
    five.publish("open/x", "read only", 2, 3).await;
    assert_eq!(five.expect(0x50, 3).await, 0x87);
    five.publish("skerry/x", "the node's own", 1, 4).await;
    assert_eq!(five.expect(0x40, 4).await, 0x87);
    for (filter, code) in [
        ("dev/four/#", 0x80),
        ("#", 0),
        ("open/secret", 0x80),
        ("open/+", 0),
    ] {
        assert_eq!(five.subscribe(filter, 0).await, code, "{filter}");
    }
    // 3.1.1 has no word for it: acknowledged and dropped, and the connection goes on.
    let mut four = Client::connect(&node, &Hello::v4("four")).await;
    four.publish("dev/five/x", "not mine", 1, 1).await;
    four.expect(0x40, 1).await;
    four.publish("dev/five/y", "not mine", 2, 2).await;
    four.expect(0x50, 2).await;
    four.ack(0x62, 2).await;
    four.expect(0x70, 2).await;
    four.publish("dev/four/x", "mine too", 1, 3).await;
    four.expect(0x40, 3).await;
    assert_eq!(four.subscribe("dev/five/#", 0).await, 0x80);
    let willing = Hello {
        will: Some(("dev/else/x", "gone")),
        ..Hello::v5("will")
    };
    assert_eq!(answer(&node, willing).await, 0x87);
    assert_eq!(node.payloads("default"), ["mine", "mine too"]);
    five.expect_quiet().await;

    let records = until_audited(&node, 9).await;
    let said: Vec<String> = records
        .iter()
        .map(|record| {
            let word = |field: &str| record[field].as_str().unwrap_or("-");
            format!(
                "{} {} {} {}",
                word("client"),
                word("event"),
                word("topic"),
                word("filter")
            )
        })
        .collect();
    for expected in [
        "five publish_refused dev/four/x -",
        "five publish_refused open/x -",
        "five publish_refused skerry/x -",
        "five subscribe_refused - dev/four/#",
        "five subscribe_refused - open/secret",
        "four publish_refused dev/five/x -",
        "four publish_refused dev/five/y -",
        "four subscribe_refused - dev/five/#",
        "will publish_refused dev/else/x -",
    ] {
        assert!(
            said.iter().any(|line| line == expected),
            "{expected}: {said:#?}"
        );
    }
    assert!(records.iter().any(|record| record["reason"] == "reserved"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wide_subscription_brings_what_may_be_received() {
    let place = Place::new();
    place.set_user("writer", "w");
    place.set_acl("topic read open/#\ntopic deny open/secret/#\nuser writer\ntopic write #\n");
    let node = place.node(|_| {}).await;
    let hello = login(Hello::v5("w"), "writer", "w");
    let mut writer = Client::connect(&node, &hello).await;
    writer.publish_retained("open/kept", "kept", 1).await;
    writer
        .publish_retained("open/secret/kept", "secret", 2)
        .await;
    writer.publish_retained("other/kept", "other", 3).await;
    let mut reader = Client::connect(&node, &Hello::v4("r")).await;
    assert_eq!(reader.subscribe("#", 1).await, 1);
    let got = reader.got().await;
    assert_eq!((got.topic.as_str(), got.retain), ("open/kept", true));
    reader.ack(0x40, got.id).await;
    for (id, topic) in [(4, "open/secret/x"), (5, "other/x"), (6, "open/x")] {
        writer.publish(topic, "live", 1, id).await;
        assert_eq!(writer.expect(0x40, id).await, 0);
    }
    assert_eq!(reader.got().await.topic, "open/x");
    reader.expect_quiet().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_rules_hold_for_open_connections_and_broken_ones_change_nothing() {
    let place = Place::new();
    place.set_acl("topic write a\n");
    let node = place.node(|_| {}).await;
    let mut client = Client::connect(&node, &Hello::v5("c")).await;
    async fn codes(client: &mut Client) -> [u8; 2] {
        client.publish("a", "x", 1, 1).await;
        let first = client.expect(0x40, 1).await;
        client.publish("b", "x", 1, 2).await;
        [first, client.expect(0x40, 2).await]
    }
    assert_eq!(codes(&mut client).await, [0, 0x87]);

    place.set_acl("topic write b\n");
    node.until("the new rules", |status| status.access_reloads_total == 1)
        .await;
    assert_eq!(codes(&mut client).await, [0x87, 0]);

    place.set_acl("topic write a\ntopic wirte b\n");
    node.until("the problem", |status| status.access_problem.is_some())
        .await;
    let problem = node.status().access_problem.expect("just seen");
    let at = format!("{}:2: ", place.path("acl").display());
    assert!(problem.starts_with(&at), "{problem}");
    assert_eq!(codes(&mut client).await, [0x87, 0], "the rules from before");

    std::fs::remove_file(place.path("acl")).expect("removed");
    node.until("the problem", |status| {
        status
            .access_problem
            .as_ref()
            .is_some_and(|why| why.contains("cannot read"))
    })
    .await;
    assert_eq!(
        codes(&mut client).await,
        [0x87, 0],
        "no file is not no rules"
    );

    place.set_acl("topic write #\n");
    node.until("the new rules", |status| status.access_reloads_total == 2)
        .await;
    assert_eq!(node.status().access_problem, None);
    assert_eq!(codes(&mut client).await, [0, 0]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_no_user_any_more_is_disconnected() {
    let place = Place::new();
    for user in ["gone", "changed", "stays"] {
        place.set_user(user, "p");
    }
    let node = place.node(|_| {}).await;
    let will = Some(("last/words", "x"));
    let mut clients = Vec::new();
    for user in ["gone", "changed", "stays"] {
        let hello = Hello {
            will,
            ..login(Hello::v5(user), user, "p")
        };
        clients.push(Client::connect(&node, &hello).await);
    }
    let mut anonymous = Client::connect(&node, &Hello::v4("anonymous")).await;
    place.remove_user("gone");
    place.set_user("changed", "q");
    for client in &mut clients[..2] {
        let last = client.expect_closed().await;
        assert_eq!(
            last.last().map(|packet| (packet[0], packet[2])),
            Some((0xE0, 0x98))
        );
    }
    for (client, id) in [(&mut clients[2], 1), (&mut anonymous, 2)] {
        client.publish("a", "still there", 1, id).await;
        client.expect(0x40, id).await;
    }
    for (user, password, code) in [
        ("gone", "p", 0x04),
        ("changed", "p", 0x04),
        ("changed", "q", 0),
    ] {
        assert_eq!(
            answer(&node, login(Hello::v4(user), user, password)).await,
            code,
            "{user}"
        );
    }
    assert_eq!(
        node.payloads("default"),
        ["still there"; 2],
        "and without a will"
    );
    assert_eq!(node.status().connections_closed_total["revoked"], 2);
    // Two that were revoked, and two logins that were refused.
    let records = until_audited(&node, 4).await;
    assert!(
        records
            .iter()
            .any(|r| r["event"] == "revoked" && r["user"] == "gone")
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_is_throttled_even_if_the_guess_is_right() {
    let place = Place::new();
    place.set_user("ada", "secret-1");
    let node = place
        .node(|config| config.limits.login_failures = Some(2))
        .await;
    let guess = |password| login(Hello::v5("g"), "ada", password);
    assert_eq!(answer(&node, guess("1")).await, 0x86);
    assert_eq!(answer(&node, guess("2")).await, 0x86);
    let since = Instant::now();
    assert_eq!(answer(&node, guess("secret-1")).await, 0x8A);
    assert_eq!(answer(&node, login(Hello::v4("g"), "ada", "3")).await, 0x05);
    let mut code = 0x8A;
    while code == 0x8A {
        tokio::time::sleep(Duration::from_millis(50)).await;
        code = answer(&node, guess("secret-1")).await;
    }
    assert_eq!(code, 0);
    assert!(
        since.elapsed() > Duration::from_millis(500),
        "{:?}",
        since.elapsed()
    );
    let records = until_audited(&node, 2).await;
    let throttled = records.iter().find(|r| r["event"] == "login_throttled");
    assert_eq!(throttled.expect("audited")["user"], "ada");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_so_many_connections_and_opens_them_so_fast() {
    let place = Place::new();
    let node = place
        .node(|config| config.limits.connections_per_address = Some(2))
        .await;
    let one = Client::connect(&node, &Hello::v5("one")).await;
    let _two = Client::connect(&node, &Hello::v5("two")).await;
    assert_eq!(answer(&node, Hello::v5("three")).await, 0x97);
    assert_eq!(answer(&node, Hello::v4("three")).await, 0x03);
    one.leave().await;
    node.until("the free place", |status| status.connections == 1)
        .await;
    let _three = Client::connect(&node, &Hello::v5("three")).await;
    let records = until_audited(&node, 1).await;
    assert_eq!(records[0]["event"], "connection_refused");
    assert_eq!(records[0]["reason"], "connections_per_address");
    node.stop().await;

    let node = place
        .node(|config| config.limits.connects_per_second = Some(2))
        .await;
    let mut codes = Vec::new();
    for _ in 0..8 {
        codes.push(answer(&node, Hello::v5("fast")).await);
    }
    assert_eq!(codes[..2], [0, 0]);
    assert!(codes.contains(&0x9F), "{codes:x?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(answer(&node, Hello::v5("slow")).await, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fast_publisher_is_slowed_down_and_loses_nothing() {
    let place = Place::new();
    let node = place
        .node(|config| config.limits.publish_messages_per_second = Some(20))
        .await;
    let mut fast = Client::connect(&node, &Hello::v4("fast")).await;
    let mut other = Client::connect(&node, &Hello::v4("other")).await;
    let start = Instant::now();
    for id in 1..=50 {
        fast.publish("a", &id.to_string(), 1, id).await;
    }
    other.publish("b", "other", 1, 1).await;
    other.expect(0x40, 1).await;
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "others are not slowed"
    );
    for id in 1..=50 {
        fast.expect(0x40, id).await;
    }
    // Twenty at once, and a twentieth of a second for each of the rest.
    let took = start.elapsed();
    assert!(
        (Duration::from_millis(1400)..PATIENCE).contains(&took),
        "{took:?}"
    );
    assert_eq!(node.payloads("default").len(), 51);
    assert!(node.status().publishes_slowed_total > 0);
    let records = until_audited(&node, 1).await;
    assert_eq!(records[0]["event"], "publish_slowed");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_tries_in_a_circle_fills_no_disk() {
    let place = Place::new();
    place.set_acl("topic read a\n");
    let node = place.node(|_| {}).await;
    let mut client = Client::connect(&node, &Hello::v4("circle")).await;
    for _ in 0..20 {
        let mut bytes = Vec::new();
        for id in 1..=100 {
            bytes.extend(client.publish_bytes("no", "x", 1, id, 0, &[]));
        }
        client.send(&bytes).await;
        for id in 1..=100 {
            client.expect(0x40, id).await;
        }
    }
    assert_eq!(node.status().refused_total["not_allowed"], 2000);
    let directory = node.stop().await;
    let node = Node::reopen(directory).await;
    let records = audit(&node);
    let counted: u64 = records
        .iter()
        .filter_map(|record| record["count"].as_u64())
        .sum();
    assert_eq!(counted, 2000, "{records:?}");
    assert!(records.len() <= 4, "{records:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_waits_for_the_disk_and_connections_do_not() {
    let place = Place::new();
    place.set_acl("topic read a\n");
    let node = place.node(|_| {}).await;
    node.gate.hold(true);
    let mut client = Client::connect(&node, &Hello::v5("c")).await;
    for topic in 0..5000 {
        client.publish(&format!("no/{topic}"), "x", 1, 1).await;
        assert_eq!(client.expect(0x40, 1).await, 0x87);
    }
    client.send(&packet(0xC0, &[])).await;
    assert_eq!(client.packet().await.expect("PINGRESP")[0], 0xD0);
    node.gate.hold(false);
    let directory = node.stop().await;
    let node = Node::reopen(directory).await;
    let counted: u64 = audit(&node)
        .iter()
        .filter_map(|record| record["count"].as_u64())
        .sum();
    assert_eq!(
        counted, 5000,
        "in records, or in the number of what was left out"
    );
    assert!(
        audit(&node)
            .iter()
            .any(|record| record["event"] == "audit_left_out")
    );
    node.stop().await;
}

#[tokio::test]
async fn a_broker_without_its_rules_lets_nobody_in() {
    let place = Place::new();
    place.set_acl("tropic\n");
    let node = Node::start().await;
    let mut config = Config::new(([127, 0, 0, 1], 0).into(), common::stream("default"));
    config.access.acl_file = Some(place.path("acl"));
    let stop = tokio_util::sync::CancellationToken::new();
    let started = skerry_broker::run(config, node.log.clone(), std::sync::Arc::default(), stop);
    let error = started.await.expect_err("no rules").to_string();
    let at = format!("{}:1: ", place.path("acl").display());
    assert!(error.starts_with(&at), "{error}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_published_is_logged_where_it_is_wanted() {
    let place = Place::new();
    place.set_user("ada", "secret-1");
    let signed = |config: &mut Config| config.signed = vec!["cmd/a".to_owned()];
    let node = place.node(signed).await;
    let panel = login(Hello::v5("panel"), "ada", "secret-1");
    let mut client = Client::connect(&node, &panel).await;
    for (id, topic) in [(1, "cmd/a"), (2, "cmd/b")] {
        client.publish(topic, "1", 1, id).await;
        assert_eq!(client.expect(0x40, id).await, 0);
    }
    let records = node.records("default");
    let attributes: Vec<Vec<_>> = records.into_iter().map(|it| it.attributes).collect();
    let text = |name: &str, value: &'static str| (name.to_owned(), value.into());
    let who = vec![text("mqtt-client", "panel"), text("mqtt-user", "ada")];
    assert_eq!(attributes, [who, Vec::new()]);
}
