use super::*;
use crate::config::tests::{parse, problems};
use skerry_bridge::opcua::{
    Deadband, GroupId, History, PUBLISHING_INTERVAL, Policy, Security, User,
};
use std::path::Path;

#[test]
fn a_plc_is_asked_for_what_the_config_says() {
    let server = |more: &str, node: &str| {
        format!(
            "[node]\nname = \"n\"\n[[opcua]]\nname = \"a\"\nendpoint = \"opc.tcp://h:4840\"\n{more}\n\
             nodes = [{{ name = \"x\", id = \"i=1\"{node} }}]\n"
        )
    };
    let read = |more: &str, node: &str| parse(&server(more, node)).unwrap().opcua.remove(0);
    let plain = read("", "");
    assert_eq!(plain.outage_budget, Duration::from_secs(600));
    assert_eq!(
        (plain.nodes[0].queue, plain.nodes[0].deadband),
        (None, None)
    );
    assert_eq!(plain.history, History::Auto);
    assert_eq!(read("history = \"off\"", "").history, History::Off);
    let own = read("outage_budget = \"1h\"", ", queue = 100, deadband = 0.5");
    assert_eq!(own.outage_budget, Duration::from_secs(3_600));
    assert_eq!(own.nodes[0].queue, Some(100));
    assert_eq!(own.nodes[0].deadband, Some(Deadband::Absolute(0.5)));
    let share = read("", ", deadband = \"2 %\"");
    assert_eq!(share.nodes[0].deadband, Some(Deadband::Percent(2.0)));
    for (more, node, part) in [
        (
            "history = \"on\"",
            "",
            "6: opcua[0].history: `on` is not known",
        ),
        ("outage_budget = \"10s\"", "", "6: opcua[0].outage_budget: "),
        (
            "",
            ", deadband = -1",
            "nodes[0].deadband: is a number of at least 0",
        ),
        ("", ", deadband = \"101%\"", "such as \"2%\""),
        ("", ", deadband = \"2\"", "such as \"2%\""),
        ("", ", queue = 0", "nodes[0].queue: must be between 1 and"),
    ] {
        let found = problems(&server(more, node));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains(part), "{found:?}");
    }
}

#[test]
fn one_endpoint_is_named_or_several() {
    let server = |endpoints: &str, more: &str| {
        let nodes = "nodes = [{ name = \"x\", id = \"i=1\" }]";
        format!("[node]\nname = \"n\"\n[[opcua]]\nname = \"a\"\n{endpoints}\n{nodes}\n{more}")
    };
    let two = "endpoints = [\"opc.tcp://h:1\", \"opc.tcp://h:2\"]";
    let read = parse(&server(two, "")).unwrap().opcua.remove(0);
    let urls: Vec<_> = read.endpoints().map(|it| it.as_str()).collect();
    assert_eq!(urls, ["opc.tcp://h:1", "opc.tcp://h:2"]);
    assert_eq!(read.pin_names().collect::<Vec<_>>(), ["a", "a_2"]);
    let other = "[[opcua]]\nname = \"a_2\"\nendpoint = \"opc.tcp://h:3\"\n\
                 nodes = [{ name = \"y\", id = \"i=1\" }]\n";
    for (endpoints, more, part) in [
        ("", "", "endpoint: is missing"),
        ("endpoints = []", "", "endpoints: lists no endpoint"),
        (
            "endpoints = [\"opc.tcp://h:1\", \"opc.tcp://h:1\"]",
            "",
            "endpoints: lists one of them twice",
        ),
        (
            "endpoint = \"opc.tcp://h:1\"\nendpoints = [\"opc.tcp://h:1\"]",
            "",
            "endpoint: is in the way of endpoints",
        ),
        (two, other, "`a_2` is already the name of another"),
    ] {
        let found = problems(&server(endpoints, more));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains(part), "{found:?}");
    }
}

#[test]
fn a_server_may_be_the_one_that_connects() {
    let server = |more: &str| {
        format!(
            "[node]\nname = \"n\"\n[[opcua]]\nname = \"a\"\nnodes = [{{ name = \"x\", id = \"i=1\" }}]\n{more}\n"
        )
    };
    let endpoint = "endpoint = \"opc.tcp://h:4840\"";
    let calls = format!("{endpoint}\nlisten = \"0.0.0.0:4841\"\nserver_uri = \"urn:plc\"");
    let config = parse(&server(&calls)).unwrap();
    let reverse = config.opcua[0].reverse.as_ref().unwrap();
    assert_eq!(reverse.listen.to_string(), "0.0.0.0:4841");
    assert_eq!(reverse.server_uri.as_deref(), Some("urn:plc"));
    let told = config.summary(Path::new("skerry.toml"));
    assert!(told.contains("which connects to 0.0.0.0:4841"), "{told}");
    for (more, part) in [
        (
            format!("{endpoint}\nserver_uri = \"urn:plc\""),
            "7: opcua[0].server_uri: goes together with listen",
        ),
        (
            format!("{endpoint}\nlisten = \"0.0.0.0:0\""),
            "7: opcua[0].listen: needs a port",
        ),
        (
            "endpoints = [\"opc.tcp://h:1\"]\nlisten = \"0.0.0.0:4841\"".to_owned(),
            "7: opcua[0].listen: waits for one server",
        ),
    ] {
        let found = problems(&server(&more));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains(part), "{found:?}");
    }
}

#[test]
fn events_are_read_with_their_severity_and_fields() {
    let server = |events: &str| {
        format!(
            "[node]\nname = \"n\"\n[[opcua]]\nname = \"a\"\nendpoint = \"opc.tcp://h:4840\"\nevents = [{events}]\n"
        )
    };
    let text = server(
        "{ name = \"all\" }, { name = \"press\", id = \"ns=2;s=P\", min_severity = 500, fields = [\"2:Batch\"] }",
    );
    let read = parse(&text).unwrap().opcua.remove(0);
    assert!(read.nodes.is_empty(), "events alone are something to read");
    let [all, press] = &read.events[..] else {
        panic!("{:?}", read.events);
    };
    assert_eq!(all.id.to_string(), "ns=0;i=2253");
    assert_eq!((all.severity_min, all.fields.len()), (1, 0));
    assert_eq!(press.severity_min, 500);
    assert_eq!(press.fields, ["2:Batch"]);

    for (events, start) in [
        ("{ }", "6: opcua[0].events[0].name: "),
        (
            "{ name = \"x\" }, { name = \"x\" }",
            "6: opcua[0].events[1].name: `x` is already",
        ),
        (
            "{ name = \"x\", min_severity = 2000 }",
            "6: opcua[0].events[0].min_severity: ",
        ),
        (
            "{ name = \"x\", fields = [\"Severity\"] }",
            "6: opcua[0].events[0].fields: ",
        ),
    ] {
        let problems = problems(&server(events));
        assert!(
            problems.iter().any(|problem| problem.starts_with(start)),
            "{start} is not in {problems:?}"
        );
    }
}

#[test]
fn a_user_has_a_password_or_a_certificate() {
    let server = |more: &str| {
        format!(
            "[node]\nname = \"n\"\n[[opcua]]\nname = \"a\"\nendpoint = \"opc.tcp://h:4840\"\n{more}\n\
             nodes = [{{ name = \"x\", id = \"i=1\" }}]\n"
        )
    };
    let read = |more: &str| parse(&server(more)).unwrap().opcua.remove(0).user;
    assert_eq!(read(""), None);
    let password = User::Password {
        name: "u".to_owned(),
        password_file: "/f".into(),
    };
    assert_eq!(read("user = \"u\"\npassword_file = \"/f\""), Some(password));
    let certificate = User::Certificate {
        certificate: "/c".into(),
        key: "/k".into(),
    };
    let both = "user_certificate = \"/c\"\nuser_key = \"/k\"";
    assert_eq!(read(both), Some(certificate));
    for (more, part) in [
        (
            "user = \"u\"",
            "6: opcua[0].user: goes together with password_file",
        ),
        (
            "password_file = \"/f\"",
            "6: opcua[0].password_file: goes together with user",
        ),
        (
            "user_certificate = \"/c\"",
            "6: opcua[0].user_certificate: goes together with user_key",
        ),
        (
            "user_key = \"/k\"",
            "6: opcua[0].user_key: goes together with user_certificate",
        ),
        (
            "user = \"u\"\npassword_file = \"/f\"\nuser_certificate = \"/c\"\nuser_key = \"/k\"",
            "8: opcua[0].user_certificate: is another way to log in than user",
        ),
    ] {
        let found = problems(&server(more));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains(part), "{found:?}");
    }
}

#[test]
fn a_deprecated_policy_is_told_and_an_unknown_one_refused() {
    let server = |policy: &str| {
        format!(
            "[node]\nname = \"n\"\n[[opcua]]\nname = \"a\"\nendpoint = \"opc.tcp://h:4840\"\n\
             security_policy = \"{policy}\"\nsecurity_mode = \"Sign\"\n\
             nodes = [{{ name = \"x\", id = \"i=1\" }}]\n"
        )
    };
    let good = parse(&server("Basic256Sha256")).unwrap();
    assert!(good.remarks.is_empty(), "{:?}", good.remarks);
    let old = parse(&server("Basic128Rsa15")).unwrap();
    assert_eq!(old.opcua[0].security, Security::Sign(Policy::Basic128Rsa15));
    let [remark] = &old.remarks[..] else {
        panic!("{:?}", old.remarks);
    };
    let remark = remark.to_string();
    let told = "6: opcua[0].security_policy: Basic128Rsa15 is deprecated";
    assert!(
        remark.starts_with("warning: ") && remark.contains(told),
        "{remark}"
    );
    let found = problems(&server("Basic512"));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].contains("security_policy `Basic512` is not known"),
        "{found:?}"
    );
}

#[test]
fn nodes_by_path_and_folders_are_read() {
    let config = |more: &str| {
        format!(
            "[node]\nname = \"n\"\n[[opcua]]\nname = \"a\"\nendpoint = \"opc.tcp://h:4840\"\n{more}\n"
        )
    };
    let read = |more: &str| parse(&config(more)).unwrap().opcua.remove(0);
    let by_path = read("nodes = [{ name = \"x\", path = \"Plant/2:Pump1/Speed\" }]");
    let path = by_path.nodes[0].id.path();
    assert_eq!(path.unwrap().to_string(), "Plant/2:Pump1/Speed");
    let folder = read(
        "browse_interval = \"5m\"\nfolders = [{ path = \"Plant\", name = \"hall-1\", include = [\"*/Speed\"], \
         exclude = [\"*/Debug*\"], depth = 3, sampling = \"100ms\", queue = 7, deadband = 0.5, nodes_max = 10 }]",
    );
    assert_eq!(folder.browse_interval, Duration::from_secs(300));
    let folder = &folder.folders[0];
    assert_eq!(
        (folder.name.as_str(), folder.depth, folder.nodes_max),
        ("hall-1", 3, 10)
    );
    assert_eq!(
        (folder.include.len(), folder.exclude.len(), folder.queue),
        (1, 1, Some(7))
    );
    assert_eq!(folder.sampling, Duration::from_millis(100));
    let table = read("[[opcua.folder]]\nid = \"ns=2;s=Plant\"\nname = \"hall-1\"");
    assert_eq!(
        (table.folders.len(), table.folders[0].nodes_max),
        (1, 5_000)
    );
    for (more, part) in [
        ("", "nodes: lists no node, and there is no folder"),
        (
            "nodes = [{ name = \"x\", id = \"i=1\", group = \"fast\" }]",
            "nodes[0].group: `fast` is no group here: add [[opcua.group]] with this name",
        ),
        (
            "nodes = [{ name = \"x\", path = \"a//b\" }]",
            "nodes[0].path: `a//b` is not a browse path",
        ),
        (
            "nodes = [{ name = \"x\", id = \"i=1\", path = \"a\" }]",
            "goes in place of id",
        ),
        ("nodes = [{ name = \"x\" }]", "nodes[0].id: is missing"),
        (
            "folders = [{ name = \"x\", path = \"a\", include = [\"a**\"] }]",
            "folders[0].include: [0] `a**` is not a pattern",
        ),
        (
            "folders = [{ name = \"x\", path = \"a\", nodes_max = 20000 }]",
            "folders[0].nodes_max: must be between 1 and",
        ),
    ] {
        let found = problems(&config(more));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains(part), "{found:?}");
    }
}

#[test]
fn a_folder_keeps_its_names_from_other_endpoints() {
    let two = |other: &str| {
        format!(
            "[node]\nname = \"n\"\n[[opcua]]\nname = \"a\"\nendpoint = \"opc.tcp://a\"\n\
             folders = [{{ name = \"hall\", path = \"Plant\" }}]\n\
             [[opcua]]\nname = \"b\"\nendpoint = \"opc.tcp://b\"\n{other}\n"
        )
    };
    for fine in [
        "nodes = [{ name = \"hallway/x\", id = \"i=1\" }]",
        "folders = [{ name = \"hall-2\", path = \"Plant\" }]",
    ] {
        assert!(parse(&two(fine)).is_ok(), "{fine}");
    }
    for taken in [
        "nodes = [{ name = \"hall/x\", id = \"i=1\" }]",
        "folders = [{ name = \"hall/x\", path = \"Plant\" }]",
    ] {
        let found = problems(&two(taken));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(
            found[0].contains(
                "6: opcua[0].folders: `hall` may name its nodes as [[opcua]] `b` does with `hall/x`"
            ),
            "{found:?}"
        );
    }
}

#[test]
fn what_is_too_much_for_a_plc_is_a_remark_at_its_key() {
    let config = |profile: &str| {
        format!(
            "[node]\nname = \"n\"\n[[opcua]]\nname = \"a\"\nendpoint = \"opc.tcp://h:4840\"\n\
             profile = \"{profile}\"\npublishing_interval = \"50ms\"\nnodes = [\n\
             {{ name = \"x\", id = \"i=1\", sampling = \"20ms\" }},\n{{ name = \"y\", id = \"i=2\" }},\n]\n\
             folders = [{{ name = \"hall\", path = \"Plant\" }}]\n"
        )
    };
    let remarks = |profile| {
        let remarks = parse(&config(profile)).unwrap().remarks;
        remarks.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(remarks("generic").is_empty());
    let small = remarks("s7-1200");
    assert_eq!(small.len(), 3, "{small:#?}");
    for (remark, part) in small.iter().zip([
        "warning: site/skerry.toml:7: opcua[0].publishing_interval: an s7-1200 has 200 ms at the shortest",
        "warning: site/skerry.toml:9: opcua[0].nodes[0].sampling: an s7-1200 has 100 ms at the shortest",
        "warning: site/skerry.toml:12: opcua[0].folders: up to 5002 nodes with those in folders",
    ]) {
        assert!(remark.starts_with(part), "{remark}");
    }
    let found = problems(&config("s7-300"));
    assert!(
        found[0].contains("6: opcua[0].profile: profile `s7-300` is not known"),
        "{found:?}"
    );
}

#[test]
fn groups_have_a_pace_that_nodes_folders_and_events_can_name() {
    let with_groups = |more: &str| {
        format!(
            "[node]\nname = \"n\"\n[[opcua]]\nname = \"plc\"\nendpoint = \"opc.tcp://plc\"\n{more}\n\
             [[opcua.group]]\nname = \"fast\"\npublishing_interval = \"100 ms\"\npriority = 200\n\
             [[opcua.group]]\nname = \"slow\"\npublishing_interval = \"2 s\"\n"
        )
    };
    let parsed = parse(&with_groups(
        "nodes = [{ name = \"a\", id = \"i=1\", group = \"slow\" }, { name = \"b\", id = \"i=2\" }]\n\
         folders = [{ name = \"hall\", path = \"Hall\", group = \"fast\", sampling = \"50 ms\" }]\n\
         events = [{ name = \"alarms\", group = \"slow\" }]",
    ));
    let server = &parsed.unwrap().opcua[0];
    let (fast, slow) = (GroupId::new(0), GroupId::new(1));
    assert_eq!((server.nodes[0].group, server.nodes[1].group), (slow, None));
    assert_eq!(server.nodes[0].sampling, Duration::from_secs(2), "its pace");
    assert_eq!(server.nodes[1].sampling, PUBLISHING_INTERVAL);
    assert_eq!(server.folders[0].group, fast);
    assert_eq!(server.folders[0].sampling, Duration::from_millis(50));
    assert_eq!(server.events[0].group, slow);
    let paces: Vec<_> = server.groups.iter().map(|it| it.priority).collect();
    assert_eq!(paces, [200, 0]);
    assert_eq!(server.groups_in_use().len(), 3);

    let wrong = problems(&with_groups(
        "nodes = [{ name = \"a\", id = \"i=1\", group = \"fsat\" }]",
    ));
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    let told = "nodes[0].group: `fsat` is no group here; there is: fast, slow";
    assert!(wrong[0].contains(told), "{wrong:?}");
    let twice = problems(&with_groups(
        "groups = [{ name = \"fast\", publishing_interval = \"1s\" }]\n\
         nodes = [{ name = \"a\", id = \"i=1\" }]",
    ));
    assert!(
        twice[0].contains("`fast` is already the name of another group"),
        "{twice:?}"
    );
}
