use super::*;
use crate::opcua::folder::Folder;
use skerry_store::StreamName;
use std::path::PathBuf;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// One node by path, and a folder.
fn roster() -> (Roster, Vec<Node>) {
    let endpoint = "opc.tcp://plc".parse().unwrap();
    let stream = StreamName::new("machines").unwrap();
    let mut written = Config::new("plc", endpoint, stream, PathBuf::new());
    let path = |text: &str| NodeAddress::id_or_path(text).unwrap();
    written.nodes = vec![Node::new("speed", path("Pump/Speed"), SECOND)];
    written.folders = vec![Folder::new("hall", path("Hall"), SECOND)];
    let nodes = written.nodes.clone();
    let roster = Roster {
        written: Arc::new(written),
        found: Vec::new(),
        gone: BTreeSet::new(),
        items: BTreeMap::new(),
        astray: BTreeMap::new(),
        closed: BTreeSet::new(),
        lost: BTreeSet::new(),
        fresh: false,
    };
    (roster, nodes)
}

fn id(number: u32) -> NodeAddress {
    format!("ns=2;i={number}").parse().unwrap()
}

/// Pump/Speed at `speed`, and these in the folder.
fn look(speed: u32, folder: &[(&str, u32)]) -> Look {
    let named = |(name, number): &(&str, u32)| (format!("hall/{name}"), id(*number));
    Look {
        located: vec![(0, Ok(id(speed)))],
        folders: vec![FolderSeen {
            nodes: folder.iter().map(named).collect(),
            ..FolderSeen::default()
        }],
    }
}

fn settled(roster: &mut Roster, nodes: &[Node], look: &Look) -> Vec<Node> {
    let changes = roster.compare(nodes, look, false);
    roster.settle(&changes, look);
    changes.nodes
}

#[test]
fn a_node_at_another_place_is_monitored_there_under_its_handle() {
    let (mut roster, nodes) = roster();
    let nodes = settled(&mut roster, &nodes, &look(1, &[("a", 10), ("b", 11)]));
    // What a server does that numbers its nodes as they come.
    let swapped = look(2, &[("a", 11), ("b", 10)]);
    let changes = roster.compare(&nodes, &swapped, false);
    assert_eq!(changes.create, [0, 1, 2]);
    assert_eq!(changes.release, changes.create);
    assert_eq!(changes.nodes[1].id, id(11));
    let nodes = settled(&mut roster, &nodes, &swapped);
    assert!(roster.compare(&nodes, &swapped, false).is_none());
}

#[test]
fn what_is_out_of_sight_is_kept_by_a_subscription_and_not_asked_for_by_a_new_one() {
    let (mut roster, nodes) = roster();
    let nodes = settled(&mut roster, &nodes, &look(1, &[("a", 10), ("b", 11)]));
    let mut dim = look(1, &[("a", 10)]);
    dim.folders[0].incomplete = Some("the server does not tell".to_owned());
    assert!(roster.compare(&nodes, &dim, false).is_none());
    assert_eq!(roster.compare(&nodes, &dim, true).vanished, [2]);
    dim.folders[0].nodes.clear();
    dim.folders[0].refused = Some(0x801F_0000);
    assert!(
        roster.compare(&nodes, &dim, false).is_none(),
        "access may come back"
    );
    dim.folders[0].refused = Some(status::BAD_NO_MATCH);
    assert_eq!(roster.compare(&nodes, &dim, false).vanished, [1, 2]);
}

#[test]
fn handles_stay_until_a_new_subscription_numbers_anew() {
    let (mut roster, nodes) = roster();
    let nodes = settled(&mut roster, &nodes, &look(1, &[("a", 10), ("b", 11)]));
    let later = look(1, &[("b", 11), ("c", 12)]);
    let mut nodes = settled(&mut roster, &nodes, &later);
    let names = |nodes: &[Node]| {
        nodes
            .iter()
            .map(|node| node.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&nodes), ["speed", "hall/a", "hall/b", "hall/c"]);
    assert!(roster.is_gone(1) && !roster.is_gone(3));
    roster.renumber(&mut nodes);
    assert_eq!(names(&nodes), ["speed", "hall/b", "hall/c"]);
    assert!(roster.compare(&nodes, &later, false).is_none());
}

#[test]
fn a_list_from_another_configuration_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = skerry_store::Options::new(directory.path().to_owned());
    options.allow_volatile = true;
    let stream = StreamName::new("machines").unwrap();
    options.streams = vec![skerry_store::StreamOptions::new(stream.clone(), 1 << 20)];
    let (log, _) = Log::open(options).unwrap();
    let (mut roster, nodes) = roster();
    let nodes = settled(&mut roster, &nodes, &look(1, &[("a", 10)]));
    roster.kept(1, 77);
    let append = skerry_store::Append {
        stream,
        records: Vec::new(),
        changes: roster.change(&nodes).into_iter().collect(),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(log.append(append)).unwrap();

    let written = Arc::clone(&roster.written);
    let (mut again, config) = Roster::load(&log, Arc::clone(&written)).unwrap();
    let known: Vec<_> = config
        .nodes
        .iter()
        .map(|it| (it.name.as_str(), it.id.clone()))
        .collect();
    assert_eq!(known, [("speed", id(1)), ("hall/a", id(10))]);
    assert_eq!(again.take_items(&[0, 1]), [77]);
    let mut renamed = (*written).clone();
    renamed.folders[0].name = "hall-2".to_owned();
    let (_, config) = Roster::load(&log, Arc::new(renamed)).unwrap();
    assert_eq!(config.nodes.len(), 1);
}
