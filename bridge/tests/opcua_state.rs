//! The desired state: nodes by path and by folder, followed while the server changes.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[expect(dead_code, reason = "the module serves more than one test binary")]
mod plant;

use plant::{Client, TICK, World, counts, gaps, set};
use skerry_bridge::opcua::{self, BrowsePath, Config, Folder, Node, NodeAddress, Visit};
use skerry_simulation::opcua_server::{OpcuaServer, Quirks, TagValue, endless_nodes};
use skerry_store::{Kind, Record};
use std::time::{Duration, SystemTime};

const BAD_NODE_ID_UNKNOWN: u32 = 0x8034_0000;
const BAD_NO_MATCH: u32 = 0x806F_0000;
const BAD_TOO_MANY_MATCHES: u32 = 0x806D_0000;
const SOON: Duration = Duration::from_millis(300);

fn path(text: &str) -> NodeAddress {
    text.parse::<BrowsePath>().unwrap().into()
}

/// Nothing but a folder, looked into again and again.
fn folder(world: &World, plant: &OpcuaServer, at: &str) -> Config {
    let mut config = world.config(&plant.url(), &[]);
    config.browse_interval = SOON;
    config.folders = vec![Folder::new("hall", path(at), Duration::from_millis(100))];
    config
}

async fn hall(world: &World, nodes: usize) -> OpcuaServer {
    let tags = (0..nodes).map(|number| (format!("Hall/tag{number}"), TagValue::Count(0)));
    let tags = tags.chain([("count".to_owned(), TagValue::Count(0))]);
    let start = OpcuaServer::start(0, world.directory.path(), tags.collect());
    start.await.unwrap()
}

fn put(plant: &OpcuaServer, name: &str, value: i64) {
    plant
        .set(name, TagValue::Count(value), SystemTime::now())
        .unwrap();
}

/// The values of a source, `None` where there is none.
fn values(records: &[Record], source: &str) -> Vec<Option<i64>> {
    let of = records
        .iter()
        .filter(|it| it.source == source && it.kind == Kind::Opcua);
    of.map(|record| {
        let payload: serde_json::Value = serde_json::from_slice(&record.payload).unwrap();
        payload["value"].as_i64()
    })
    .collect()
}

fn statuses(records: &[Record], source: &str) -> Vec<u32> {
    let of = records.iter().filter(|record| record.source == source);
    of.map(|record| record.status)
        .filter(|status| *status != 0)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_found_by_its_path_and_a_bad_one_stops_no_other() {
    let world = World::new();
    let plant = world.plant(0).await;
    plant.add("pump1/speed", TagValue::Count(1));
    plant.add_twin("pump1/speed", TagValue::Count(2));
    let mut config = world.config(&plant.url(), &["count"]);
    config.browse_interval = SOON;
    config.nodes[0].id = path("count");
    let places = [
        (
            "by-uri",
            "nsu=urn:skerry:demo;pump1/nsu=urn:skerry:demo;vibration",
        ),
        ("by-index", "/pump1/0:vibration"),
        ("later", "pump1/later"),
        ("double", "pump1/speed"),
    ];
    for (name, place) in places {
        config
            .nodes
            .push(Node::new(name, path(place), Duration::from_millis(100)));
    }
    // The server's own builder puts browse names into namespace 0.
    config.nodes[1].id = path("nsu=http://opcfoundation.org/UA/;pump1/0:vibration");
    let client = Client::run(&world, config);
    client
        .until("three good nodes", |s| s.nodes_good == 3)
        .await;
    let bad = client.status.snapshot().bad_nodes;
    let bad: Vec<_> = bad
        .iter()
        .map(|it| (it.name.as_str(), it.id.as_str(), it.error.as_str()))
        .collect();
    assert_eq!(
        bad[0],
        ("later", "pump1/later", "BadNoMatch: no node has this path")
    );
    assert_eq!((bad[1].0, bad.len()), ("double", 2));
    assert!(bad[1].2.contains("name the namespace"), "{bad:?}");

    plant.add("pump1/later", TagValue::Count(7));
    client.until("the fourth", |s| s.nodes_good == 4).await;
    set(&plant, 1).await;
    world
        .until("its value", |records| {
            values(records, "later").contains(&Some(7))
        })
        .await;
    world
        .until("the counter's value", |records| {
            counts(records).last() == Some(&1)
        })
        .await;
    client.stop().await;
    let records = world.records();
    assert_eq!(counts(&records), [0, 1], "once each");
    assert_eq!(statuses(&records, "later"), [BAD_NO_MATCH]);
    assert_eq!(statuses(&records, "double"), [BAD_TOO_MANY_MATCHES]);
    assert_eq!(gaps(&records), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_removed_of_a_thousand_stops_no_other_and_new_ones_join() {
    let world = World::new();
    let plant = hall(&world, 1_000).await;
    let client = Client::run(&world, folder(&world, &plant, "Hall"));
    client
        .until("all nodes", |s| {
            s.nodes_good == 1_000 && s.values_total >= 1_000
        })
        .await;
    tokio::time::sleep(TICK).await;
    plant.remove("Hall/tag500");
    plant.add("Hall/deeper/new", TagValue::Count(5));
    for number in (0..1_000).filter(|number| *number != 500) {
        put(&plant, &format!("Hall/tag{number}"), 1);
    }
    world
        .until("the new one's value", |records| {
            !values(records, "hall/deeper/new").is_empty()
        })
        .await;
    client
        .until("the same number", |s| {
            (s.nodes_good, s.nodes_bad) == (1_000, 0)
        })
        .await;
    world
        .until("the removed one's end", |records| {
            !statuses(records, "hall/tag500").is_empty()
        })
        .await;
    let others = || (0..1_000).filter(|number| *number != 500);
    world
        .until("every other's change", |records| {
            others().all(|number| values(records, &format!("hall/tag{number}")).contains(&Some(1)))
        })
        .await;
    // Several looks later, nothing is said again.
    tokio::time::sleep(3 * SOON).await;
    client.stop().await;
    let records = world.records();
    assert_eq!(values(&records, "hall/tag500"), [Some(0), None]);
    assert_eq!(statuses(&records, "hall/tag500"), [BAD_NODE_ID_UNKNOWN]);
    for number in others() {
        let name = format!("hall/tag{number}");
        assert_eq!(values(&records, &name), [Some(0), Some(1)], "{name}");
    }
    assert_eq!(gaps(&records), [], "the subscription went on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_back_is_read_again_and_once() {
    let world = World::new();
    let plant = hall(&world, 3).await;
    let client = Client::run(&world, folder(&world, &plant, "Hall"));
    client.until("all nodes", |s| s.values_total >= 3).await;
    plant.remove("Hall/tag1");
    client.until("one fewer", |s| s.nodes_good == 2).await;
    plant.add("Hall/tag1", TagValue::Count(10));
    client.until("it back", |s| s.nodes_good == 3).await;
    world
        .until("its value", |records| {
            values(records, "hall/tag1").last() == Some(&Some(10))
        })
        .await;
    tokio::time::sleep(TICK).await;
    for value in 11..=13 {
        put(&plant, "Hall/tag1", value);
        tokio::time::sleep(TICK).await;
    }
    world
        .until("its changes", |records| {
            values(records, "hall/tag1").last() == Some(&Some(13))
        })
        .await;
    client.stop().await;
    let expected = [Some(0), None, Some(10), Some(11), Some(12), Some(13)];
    assert_eq!(values(&world.records(), "hall/tag1"), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patterns_depth_and_the_limit_say_what_is_taken() {
    let world = World::new();
    let plant = hall(&world, 0).await;
    for name in [
        "a/Speed",
        "b/Speed",
        "b/Current",
        "b/DebugInfo/Speed",
        "c/x/y/Speed",
    ] {
        plant.add(&format!("Hall/{name}"), TagValue::Count(1));
    }
    let mut config = folder(&world, &plant, "Hall");
    let hall = &mut config.folders[0];
    hall.include = vec!["**/Speed".parse().unwrap()];
    hall.exclude = vec!["*/Debug*".parse().unwrap()];
    hall.depth = 3;
    // A second one with the same name takes what the first leaves.
    let mut rest = hall.clone();
    rest.include = vec!["*/Current".parse().unwrap()];
    let mut few = Folder::new("few", path("Hall"), Duration::from_millis(100));
    few.nodes_max = 2;
    config.folders.extend([rest, few]);
    let client = Client::run(&world, config);
    client
        .until("five nodes", |s| s.nodes_good == 5 && s.values_total >= 5)
        .await;
    let bad = client.status.snapshot().bad_nodes;
    assert_eq!(bad.len(), 1, "{bad:?}");
    assert_eq!(bad[0].name, "few");
    assert!(bad[0].error.contains("only 2 of its variables"), "{bad:?}");
    client.stop().await;
    let records = world.records();
    let mut sources: Vec<_> = records.iter().map(|it| it.source.as_str()).collect();
    sources.sort_unstable();
    assert_eq!(
        sources,
        [
            "few/a/Speed",
            "few/b/Current",
            "hall/a/Speed",
            "hall/b/Current",
            "hall/b/Speed"
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_never_collide_and_circles_end() {
    let world = World::new();
    let plant = hall(&world, 2).await;
    plant.add("Hall/sub/own", TagValue::Count(1));
    plant.link("Hall/sub", "Hall");
    plant.add_twin("Hall/tag0", TagValue::Count(9));
    let mut config = folder(&world, &plant, "Hall");
    // Another node has a name that the folder would give; and one the folder's own, faster.
    let elsewhere = OpcuaServer::node_id("count").parse().unwrap();
    let own = OpcuaServer::node_id("Hall/sub/own").parse().unwrap();
    config.nodes = vec![
        Node::new("hall/tag1", elsewhere, Duration::from_millis(100)),
        Node::new("hall/sub/own", own, Duration::from_millis(50)),
    ];
    let client = Client::run(&world, config);
    client.until("values", |s| s.values_total >= 2).await;
    client.until("words", |s| s.nodes_bad == 2).await;
    let snapshot = client.status.snapshot();
    assert_eq!(snapshot.nodes_good, 2);
    let names: Vec<_> = snapshot
        .bad_nodes
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    assert_eq!(names, ["hall/tag0", "hall/tag1"]);
    for bad in &snapshot.bad_nodes {
        assert!(
            bad.error.starts_with("BadBrowseNameDuplicated: "),
            "{bad:?}"
        );
    }
    client.stop().await;
    assert!(
        values(&world.records(), "hall/tag0").is_empty(),
        "which of the two?"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_the_server_changes_leaves_neither_hole_nor_double() {
    let world = World::new();
    let plant = hall(&world, 50).await;
    let config = folder(&world, &plant, "Hall");
    let first = Client::run(&world, config.clone());
    first.until("all nodes", |s| s.values_total >= 50).await;
    plant.add("Hall/added", TagValue::Count(0));
    first.until("one more", |s| s.nodes_good == 51).await;
    world
        .until("its value", |records| {
            !values(records, "hall/added").is_empty()
        })
        .await;
    tokio::time::sleep(TICK).await;
    let tick = async |value: i64| {
        for name in ["Hall/tag7", "Hall/added"] {
            put(&plant, name, value);
        }
        tokio::time::sleep(TICK).await;
    };
    for value in 1..=8 {
        tick(value).await;
    }
    first.crash().await;
    plant.remove("Hall/tag3");
    plant.add("Hall/before", TagValue::Count(77));
    for value in 9..=20 {
        tick(value).await;
    }
    let second = Client::run(&world, config);
    for value in 21..=26 {
        tick(value).await;
    }
    second
        .until("what changed meanwhile", |s| s.nodes_good == 51)
        .await;
    world
        .until("the last value", |records| {
            values(records, "hall/added").last() == Some(&Some(26))
        })
        .await;
    world
        .until("the removed one's end", |records| {
            !statuses(records, "hall/tag3").is_empty()
        })
        .await;
    world
        .until("the new one", |records| {
            !values(records, "hall/before").is_empty()
        })
        .await;
    second.stop().await;
    let records = world.records();
    let whole: Vec<_> = (0..=26).map(Some).collect();
    for name in ["hall/tag7", "hall/added"] {
        assert_eq!(values(&records, name), whole, "{name}");
    }
    assert_eq!(values(&records, "hall/before"), [Some(77)]);
    assert_eq!(statuses(&records, "hall/tag3"), [BAD_NODE_ID_UNKNOWN]);
    assert_eq!(gaps(&records), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_not_there_yet_is_waited_for() {
    let world = World::new();
    let plant = hall(&world, 0).await;
    let mut config = folder(&world, &plant, "Hall/new");
    config.nodes = world.config(&plant.url(), &["count"]).nodes;
    let client = Client::run(&world, config);
    client
        .until("the other node", |s| s.values_total >= 1)
        .await;
    let bad = client.status.snapshot().bad_nodes;
    assert_eq!(
        (bad[0].name.as_str(), bad[0].id.as_str()),
        ("hall", "Hall/new")
    );
    assert_eq!(bad[0].error, "BadNoMatch: no node has this path");
    plant.add("Hall/new/tag", TagValue::Count(4));
    client
        .until("its node", |s| (s.nodes_good, s.nodes_bad) == (2, 0))
        .await;
    world
        .until("its value", |records| {
            values(records, "hall/tag") == [Some(4)]
        })
        .await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_may_have_other_nodes() {
    let world = World::new();
    let plant = hall(&world, 3).await;
    let port = plant.port();
    let client = Client::run(&world, folder(&world, &plant, "Hall"));
    client.until("all nodes", |s| s.values_total >= 3).await;
    plant.stop().await;
    client
        .until("trouble", |s| s.state == opcua::State::Retrying)
        .await;
    let tags =
        ["Hall/tag0", "Hall/tag2", "Hall/tag3"].map(|name| (name.to_owned(), TagValue::Count(6)));
    let start = OpcuaServer::start(port, world.directory.path(), tags.into());
    let plant = start.await.unwrap();
    client
        .until("three nodes again", |s| {
            s.nodes_good == 3 && s.values_total >= 6
        })
        .await;
    put(&plant, "Hall/tag3", 8);
    world
        .until("the new one's value", |records| {
            values(records, "hall/tag3").ends_with(&[Some(8)])
        })
        .await;
    client.stop().await;
    let records = world.records();
    let unknown = statuses(&records, "hall/tag1");
    let unknown = unknown
        .iter()
        .filter(|status| **status == BAD_NODE_ID_UNKNOWN);
    assert_eq!(
        unknown.count(),
        1,
        "it is told once that it did not come back"
    );
    let told = |name: &str| statuses(&records, name).contains(&BAD_NODE_ID_UNKNOWN);
    assert!(!told("hall/tag0") && !told("hall/tag2"), "they did");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_server_is_asked_in_small_portions() {
    let world = World::new();
    let tags = (0..40).map(|number| {
        (
            format!("Hall/{}/tag{number}", number % 7),
            TagValue::Count(0),
        )
    });
    let directory = world.directory.path();
    let quirks = Quirks {
        operations_max: Some(4),
        ..Quirks::default()
    };
    let start = OpcuaServer::start_odd(0, directory, tags.collect(), quirks);
    let plant = start.await.unwrap();
    let client = Client::run(&world, folder(&world, &plant, "Hall"));
    client
        .until("all nodes", |s| s.nodes_good == 40 && s.values_total >= 40)
        .await;
    client.stop().await;
    let visit = Visit::new(plant.url().parse().unwrap());
    let listing = opcua::browse(&opcua::Browse::new(visit.clone()))
        .await
        .unwrap();
    assert_eq!(listing.variables.len(), 40);
    let nodes: Vec<NodeAddress> = listing.variables.iter().map(|it| path(&it.path)).collect();
    let readings = opcua::read(&visit, &nodes).await.unwrap();
    assert!(
        readings.iter().all(|reading| reading.status == "Good"),
        "{readings:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_shown_as_a_tree() {
    let world = World::new();
    let plant = world.plant(0).await;
    plant.add_method("reset", |level| Ok(level + 1.0));
    let mut look = opcua::Browse::new(Visit::new(plant.url().parse().unwrap()));
    let tree = opcua::tree(&look).await.unwrap();
    let expected = "count = 0  Int64  [nsu=urn:skerry:demo;s=count]\n\
                    pump1/  [nsu=urn:skerry:demo;s=pump1]\n  \
                    spectrum = [1.0,2.5]  Double  [nsu=urn:skerry:demo;s=pump1/spectrum]\n  \
                    vibration = 1.5  Double  [nsu=urn:skerry:demo;s=pump1/vibration]\n\
                    reset()  [nsu=urn:skerry:demo;s=reset]\n";
    assert_eq!((tree.text.as_str(), tree.cut), (expected, None));

    look.from = Some(path("pump1"));
    let below = opcua::tree(&look).await.unwrap();
    assert!(below.text.starts_with("spectrum = "), "{}", below.text);
    look.from = Some(path("pump2"));
    let error = opcua::tree(&look).await.unwrap_err().to_string();
    assert!(
        error.contains("pump2") && error.contains("no node has this path"),
        "{error}"
    );
    look.from = None;
    look.variables_max = 2;
    let cut = opcua::tree(&look).await.unwrap();
    assert!(cut.cut.unwrap().contains("more than 2 nodes"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_variables_below_one_folder_are_a_folder() {
    let world = World::new();
    let plant = hall(&world, 60).await;
    let look = opcua::Browse::new(Visit::new(plant.url().parse().unwrap()));
    let listing = opcua::browse(&look).await.unwrap();
    let text = opcua::config_text(&look, "plant", &listing);
    let suggested = r#"# folders = [{ path = "Hall", name = "Hall" }]"#;
    assert!(
        text.contains(suggested) && text.contains("60 variables"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_space_without_end_is_left_with_words() {
    let world = World::new();
    let tags = (0..101_000).map(|number| {
        (
            format!("Hall/{}/{number}", number % 100),
            TagValue::Count(0),
        )
    });
    let tags = tags.chain([("count".to_owned(), TagValue::Count(0))]);
    let start = OpcuaServer::start(0, world.directory.path(), tags.collect());
    let plant = start.await.unwrap();
    let mut config = folder(&world, &plant, "Hall");
    config.browse_interval = Duration::from_secs(60);
    config.folders[0].include = vec!["nothing".parse().unwrap()];
    config.nodes = world.config(&plant.url(), &["count"]).nodes;
    let client = Client::run(&world, config);
    client
        .until("the other node", |s| s.values_total >= 1)
        .await;
    let bad = client.status.snapshot().bad_nodes;
    assert!(
        bad[0].error.contains("does not end within 100000 nodes"),
        "{bad:?}"
    );
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_that_never_end_are_left_with_words() {
    let world = World::new();
    let tags = vec![("count".to_owned(), TagValue::Count(0))];
    let quirks = Quirks {
        endless: true,
        ..Quirks::default()
    };
    let start = OpcuaServer::start_odd(0, world.directory.path(), tags, quirks);
    let plant = start.await.unwrap();
    let [new, empty] = endless_nodes().map(|node| node.parse::<NodeAddress>().unwrap());
    let mut config = world.config(&plant.url(), &["count"]);
    let folder = |name, at| Folder::new(name, at, Duration::from_millis(100));
    config.folders = vec![folder("new", new.clone()), folder("empty", empty)];
    let client = Client::run(&world, config);
    client
        .until("the other node", |s| s.values_total >= 1)
        .await;
    let bad = client.status.snapshot().bad_nodes;
    let words: Vec<_> = bad
        .iter()
        .map(|it| (it.name.as_str(), it.error.as_str()))
        .collect();
    assert_eq!((words[0].0, words[1].0), ("new", "empty"));
    let new_says = "does not end within 100000 nodes";
    let empty_says = "what stands below one node does not end";
    assert!(words[0].1.contains(new_says), "{words:?}");
    assert!(words[1].1.contains(empty_says), "{words:?}");
    client.stop().await;

    let mut look = opcua::Browse::new(Visit::new(plant.url().parse().unwrap()));
    look.from = Some(new);
    look.variables_max = 1_000;
    let tree = opcua::tree(&look).await.unwrap();
    assert_eq!(tree.text.lines().count(), 1_000);
    assert!(tree.cut.unwrap().contains("more than 1000 nodes"));
}
