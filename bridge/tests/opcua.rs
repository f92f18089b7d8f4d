//! The OPC-UA client against a server in the same process: restarts, cuts, refusals, a full log.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod plant;

use plant::{Client, Proxy, TICK, World, counts, gaps, peer, set, wait};
use skerry_bridge::opcua::{self, Deadband, NodeAddress, Reading, Security, State, Visit};
use skerry_simulation::opcua_server::OpcuaServer;
use skerry_store::{Kind, WallNanos};
use std::ops::ControlFlow;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const BAD_NO_COMMUNICATION: u32 = 0x8031_0000;
const BAD_NODE_ID_UNKNOWN: u32 = 0x8034_0000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_arrive_once_with_their_times_and_status() {
    let world = World::new();
    let plant = world.plant(0).await;
    let client = Client::start(&world, &plant.url(), &["count"]);
    client
        .until("connected", |s| s.state == State::Connected)
        .await;
    // A value set within a sampling interval of the initial one would be held back and redated.
    tokio::time::sleep(TICK).await;
    let mut times = Vec::new();
    for count in 1..=15 {
        times.push(set(&plant, count).await);
    }
    client
        .until("fifteen values", |s| s.values_total >= 16)
        .await;
    let status = client.stop().await;
    assert_eq!(status.gaps_total, 0);
    assert_eq!(
        (status.nodes_good, status.nodes_bad),
        (0, 0),
        "nothing is monitored any more"
    );

    let records = world.records();
    assert_eq!(counts(&records), (0..=15).collect::<Vec<_>>());
    for (record, time) in records.iter().skip(1).zip(times) {
        assert_eq!(
            (record.kind, record.source.as_str()),
            (Kind::Opcua, "plant/count")
        );
        assert_eq!(record.status, 0);
        assert_eq!(record.source_time, Some(time));
        assert!(record.server_time.is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_is_read_again_and_the_outage_is_in_the_data() {
    let world = World::new();
    let plant = world.plant(0).await;
    let (url, port) = (plant.url(), plant.port());
    let client = Client::start(&world, &url, &["count"]);
    client.until("a value", |s| s.values_total >= 1).await;
    plant.stop().await;
    client
        .until("trouble", |s| s.state == State::Retrying)
        .await;
    let down = WallNanos::now();
    tokio::time::sleep(Duration::from_secs(8)).await;
    let up = WallNanos::now();
    let plant = world.plant(port).await;
    client
        .until("the way back", |s| s.state == State::Connected)
        .await;
    for count in 1..=3 {
        set(&plant, count).await;
    }
    client.until("values again", |s| s.values_total >= 5).await;
    client.stop().await;

    let records = world.records();
    let silent: Vec<_> = records
        .iter()
        .filter(|r| r.status == BAD_NO_COMMUNICATION)
        .collect();
    assert_eq!(silent.len(), 1, "one record per node and outage");
    assert_eq!(silent[0].payload, r#"{"value":null}"#);
    let gaps = gaps(&records);
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(gaps[0].subject, "plant");
    assert!(
        gaps[0].from.unwrap() <= down && gaps[0].to.unwrap() >= up,
        "{:?}",
        gaps[0]
    );
    let last: Vec<_> = counts(&records).into_iter().rev().take(3).collect();
    assert_eq!(last, [3, 2, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_loses_nothing() {
    let world = World::new();
    let plant = world.plant(0).await;
    let proxy = Proxy::to(plant.port()).await;
    let client = Client::start(&world, &proxy.url(), &["count"]);
    client
        .until("connected", |s| s.state == State::Connected)
        .await;
    for count in 1..=30 {
        match count {
            10 => proxy.cut(),
            20 => proxy.open(),
            _ => {}
        }
        set(&plant, count).await;
    }
    client.until("all values", |s| s.values_total >= 31).await;
    let status = client.stop().await;
    assert!(status.reconnects_total >= 1);
    assert_eq!(counts(&world.records()), (0..=30).collect::<Vec<_>>());
    assert_eq!(status.gaps_total, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_crash_leaves_neither_hole_nor_double() {
    goes_on_after(|client| async move { client.crash().await }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_leaves_neither_hole_nor_double() {
    goes_on_after(|client| async move { drop(client.stop().await) }).await;
}

async fn goes_on_after<F: Future<Output = ()>>(end: impl FnOnce(Client) -> F) {
    let world = World::new();
    let plant = world.plant(0).await;
    let first = Client::start(&world, &plant.url(), &["count"]);
    first
        .until("connected", |s| s.state == State::Connected)
        .await;
    for count in 1..=12 {
        set(&plant, count).await;
    }
    end(first).await;
    for count in 13..=30 {
        set(&plant, count).await;
    }
    let second = Client::start(&world, &plant.url(), &["count"]);
    for count in 31..=36 {
        set(&plant, count).await;
    }
    let whole: Vec<_> = (0..=36).collect();
    world
        .until("every value", |records| counts(records).last() == Some(&36))
        .await;
    second.stop().await;
    let records = world.records();
    assert_eq!(counts(&records), whole);
    assert_eq!(gaps(&records), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_log_refuses_comes_later_and_in_order() {
    let world = World::with_limit(24 * 1024);
    let plant = world.plant(0).await;
    world.fill().await;
    let client = Client::start(&world, &plant.url(), &["count"]);
    client.until("a refusal", |s| s.log_refusal.is_some()).await;
    for count in 1..=20 {
        set(&plant, count).await;
    }
    let status = client.status.snapshot();
    assert_eq!(status.values_total, 0);
    assert!(status.log_refusal.unwrap().contains("full"), "says why");
    world.free().await;
    client.until("all values", |s| s.values_total >= 21).await;
    let status = client.stop().await;
    assert_eq!(status.log_refusal, None);
    assert_eq!(counts(&world.records()), (0..=20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_node_stops_no_other() {
    let world = World::new();
    let plant = world.plant(0).await;
    let mut config = world.config(&plant.url(), &["gone", "count", "astray"]);
    config.nodes[0].id = "ns=9;s=gone".parse().unwrap();
    config.nodes[2].id = "nsu=urn:elsewhere;s=astray".parse().unwrap();
    let client = Client::run(&world, config);
    client
        .until("the good node's value", |s| s.values_total >= 1)
        .await;
    for count in 1..=3 {
        set(&plant, count).await;
    }
    client
        .until("all of its values", |s| s.values_total >= 4)
        .await;
    let status = client.status.snapshot();
    assert_eq!((status.nodes_good, status.nodes_bad), (1, 2));
    let names: Vec<_> = status
        .bad_nodes
        .iter()
        .map(|node| node.name.as_str())
        .collect();
    assert_eq!(names, ["plant/gone", "plant/astray"]);
    assert!(
        status.bad_nodes[0].error.contains("BadNodeIdUnknown"),
        "{:?}",
        status.bad_nodes
    );
    client.stop().await;
    let records = world.records();
    assert_eq!(counts(&records), [0, 1, 2, 3]);
    let bad: Vec<_> = records
        .iter()
        .filter(|r| r.status == BAD_NODE_ID_UNKNOWN)
        .collect();
    assert_eq!(bad.len(), 2, "one record each says so in the data");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_keeps_is_told_and_small_changes_are_none() {
    let world = World::new();
    let plant = world.plant(0).await;
    let mut config = world.config(&plant.url(), &["count", "pump1/vibration"]);
    config.nodes[0].deadband = Some(Deadband::Absolute(2.0));
    config.nodes[1].queue = Some(3);
    config.outage_budget = Duration::from_secs(3_600);
    let client = Client::run(&world, config);
    client
        .until("both initial values", |s| s.values_total >= 2)
        .await;
    tokio::time::sleep(TICK).await;
    for count in [1, 2, 3, 4, 5, 10] {
        set(&plant, count).await;
    }
    let records = || counts(&world.records());
    wait("the last value", || records().ends_with(&[10])).await;
    // Neither a step of two nor one from there is more than two.
    assert_eq!(records(), [0, 3, 10]);
    let status = client.status.snapshot();
    let shortest = status.shortest_queue.unwrap();
    assert_eq!(
        (shortest.node.as_str(), shortest.covers_ms, shortest.short),
        ("plant/pump1/vibration", 300, true)
    );
    let lifetime = status.granted.unwrap().lifetime_ms;
    assert_eq!(lifetime, 3_600_000);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_answers_is_named_and_tried_again() {
    let world = World::new();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody_url = format!("opc.tcp://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let refused = Client::start(&world, &nobody_url, &["count"]);
    let web = peer(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        std::future::pending::<()>().await;
    });
    let web = Client::start(&world, &web.await, &["count"]);
    let silent = peer(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    });
    let silent = Client::start(&world, &silent.await, &["count"]);
    let hangs_up = Client::start(&world, &peer(|_| async {}).await, &["count"]);

    for (client, word) in [
        (refused, "cannot reach"),
        (web, "answers as a web server"),
        (silent, "stays silent"),
        (hangs_up, "does not speak OPC-UA"),
    ] {
        client
            .until(word, |s| s.error.as_ref().is_some_and(|e| e.contains(word)))
            .await;
        client
            .until("another try", |s| s.connect_failures_total >= 2)
            .await;
        assert_eq!(client.status.snapshot().state, State::Retrying);
        client.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_that_is_not_offered_is_refused_with_what_is() {
    let world = World::new();
    let plant = world.plant(0).await;
    let mut config = world.config(&plant.url(), &["count"]);
    config.security = Security::new("Basic256Sha256", "SignAndEncrypt").unwrap();
    let client = Client::run(&world, config);
    client.until("a refusal", |s| s.error.is_some()).await;
    let error = client.stop().await.error.unwrap();
    assert!(error.contains("Basic256Sha256/SignAndEncrypt"), "{error}");
    assert!(error.contains("it offers None"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_sees_what_there_is_and_what_becomes_of_it() {
    let world = World::new();
    let plant = world.plant(0).await;
    let visit = Visit::new(plant.url().parse().unwrap());
    let offers = opcua::discover(&visit).await.unwrap();
    let open = offers.iter().find(|offer| offer.security == "None");
    assert!(open.unwrap().logins.contains(&"anonymous"), "{offers:?}");

    set(&plant, 7).await;
    let nodes = [
        OpcuaServer::node_id("count"),
        "nsu=urn:elsewhere;s=x".to_owned(),
    ];
    let nodes = nodes.map(|node| node.parse::<NodeAddress>().unwrap());
    let readings = opcua::read(&visit, &nodes).await.unwrap();
    let of = |reading: &Reading| (reading.value.as_i64(), reading.status.clone());
    let of: Vec<_> = readings.iter().map(of).collect();
    let unknown = (None, "BadNodeIdUnknown".to_owned());
    assert_eq!(of, [(Some(7), "Good".to_owned()), unknown.clone()]);
    assert_eq!(readings[1].node, "nsu=urn:elsewhere;s=x");

    let mut seen = Vec::new();
    let mut each = |reading: Reading| {
        seen.push((reading.value.as_i64(), reading.status));
        match seen.len() {
            5.. => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    };
    let (interval, stop) = (Duration::from_millis(100), CancellationToken::new());
    let watching = opcua::watch(&visit, &nodes, interval, stop, &mut each);
    let changing = async {
        for count in 8..200 {
            tokio::time::sleep(TICK).await;
            set(&plant, count).await;
        }
    };
    tokio::select! {
        watched = watching => watched.unwrap(),
        () = changing => panic!("too few of its changes are seen"),
    }
    assert_eq!(seen.remove(0), unknown);
    let values: Vec<_> = seen.iter().map(|(value, _)| value.unwrap()).collect();
    let expected: Vec<_> = (values[0]..).take(4).collect();
    assert_eq!(values, expected);
    assert!(values[0] == 7 || values[0] == 8, "{values:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browsing_prints_configuration() {
    let world = World::new();
    let plant = world.plant(0).await;
    let look = opcua::Browse::new(Visit::new(plant.url().parse().unwrap()));
    let listing = opcua::browse(&look).await.unwrap();
    let paths: Vec<_> = listing.variables.iter().map(|v| v.path.as_str()).collect();
    assert_eq!(paths, ["count", "pump1/spectrum", "pump1/vibration"]);
    let vibration = &listing.variables[2];
    assert_eq!(vibration.stable_id, "nsu=urn:skerry:demo;s=pump1/vibration");
    assert_eq!(
        (vibration.data_type.as_str(), vibration.value.as_str()),
        ("Double", "1.5")
    );
    assert_eq!(listing.variables[1].value, "[1.0,2.5]");
    assert_eq!(listing.cut, None);
    let text = opcua::config_text(&look, "plant", &listing);
    assert!(
        text.contains(r#"id = "nsu=urn:skerry:demo;s=pump1/vibration""#),
        "{text}"
    );
}
