use super::*;

#[test]
fn topics_are_created_only_on_request_and_old_records_dated_anew_by_default() {
    let kafka = parse("[node]\nname = \"n\"\n[kafka]\nbrokers = [\"k:9092\"]\n");
    let kafka = kafka.unwrap().uplink.unwrap();
    assert_eq!(kafka.create_topics, None);
    assert_eq!(kafka.route.late, Late::Restamp);
}

#[test]
fn what_says_nothing_to_kafka_is_a_problem_of_its_own_key() {
    let found = problems(
        r#"[node]
name = "n"
[[stream]]
name = "a"
kafka = { late = "lose", topics = "x" }
[kafka]
brokers = ["k:9092"]
topic = "{level}"
positions_topic = "at.{topic}"
replication = 3
"#,
    );
    let expected = [
        ("5", "stream[0].kafka.late", "`restamp`"),
        ("5", "stream[0].kafka.topics", "did you mean `topic`"),
        ("8", "kafka.topic", "{1} to {9}"),
        ("9", "kafka.positions_topic", "only placeholder"),
        ("10", "kafka.replication", "create_topics = true"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (line, (number, key, part)) in found.iter().zip(expected) {
        assert!(line.starts_with(&format!("{number}: {key}: ")), "{line}");
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn commands_by_mqtt_need_a_topic_that_is_logged_and_links_to_choose_from() {
    let with = |more: &str| {
        format!(
            "[node]\nname = \"n\"\n[kafka]\nbrokers = [\"k:9092\"]\nlink_topic = \"vessel/link\"\n{more}"
        )
    };
    let links = "[[kafka.link]]\nname = \"lte\"\n";
    let kafka = parse(&with(links)).unwrap().uplink.unwrap();
    let commands = kafka.link_topic.unwrap();
    assert_eq!(commands.topic, "vessel/link");
    assert_eq!(commands.stream.as_str(), "default");
    let quick = "[[stream]]\nname = \"quick\"\ntopics = [\"vessel/#\"]\n\
                 qos0 = \"memory\"\n";
    for (text, part) in [
        (with(""), "without [[kafka.link]]"),
        (
            with(&format!("{links}{quick}")),
            "whose QoS 0 is not logged",
        ),
        (
            with(links).replace("vessel/link", "vessel/#"),
            "without + or #",
        ),
    ] {
        let found = problems(&text);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with("5: kafka.link_topic: "), "{found:?}");
        assert!(found[0].contains(part), "{found:?}");
    }
}
