use super::*;
use skerry_bridge::opcua::{Deadband, History, Policy, Security, User};

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
