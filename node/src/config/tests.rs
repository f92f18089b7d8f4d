mod uplink;

use super::*;
use skerry_bridge::uplink::{Key, Late};
use skerry_store::{Codec, Durability, WhenFull};

pub(super) fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("site/skerry.toml"), text).map_err(|error| error.to_string())
}

/// The problems of a file, without its name.
pub(super) fn problems(text: &str) -> Vec<String> {
    let report = parse(text).expect_err("the config has problems");
    let lines: Vec<&str> = report.lines().collect();
    let (last, problems) = lines.split_last().expect("a report has lines");
    assert!(last.contains("in site/skerry.toml"), "{last}");
    let problems = problems.iter();
    problems
        .map(|line| line.trim_start_matches("site/skerry.toml:").to_owned())
        .collect()
}

#[test]
fn the_smallest_config_has_every_default() {
    let config = parse("[node]\nname = \"n\"\n").unwrap();
    assert_eq!(config.store.directory, Path::new(DATA_DIR_DEFAULT));
    assert_eq!(config.http_listen.to_string(), HTTP_LISTEN_DEFAULT);
    assert!(config.mqtt.is_none() && config.uplink.is_none());
    let names: Vec<&str> = config
        .store
        .streams
        .iter()
        .map(|s| s.name.as_str())
        .collect();
    assert_eq!(names, ["audit", "default", "node"]);
}

#[test]
fn every_problem_is_reported_at_once_with_line_and_key() {
    let found = problems(
        r#"[node]
nam = "n"
[store]
segment = "16 bananas"
commit_delay_max = "1h"
commit_interval_min = "11s"
[[stream]]
name = "_mine"
[[stream]]
name = "a"
topics = ["x/#/y"]
bytes_max = "10B"
age_max = "5s"
durability = "never"
sync_interval = "2min"
when_full = "explode"
codec = "zip"
[mqtt]
listen = "everywhere"
connections_max = 0
keep_alive_max = "1day"
republish = ["nowhere"]
[kafka]
brokers = ["nohost"]
delivery = "twice"
[typo]
"#,
    );
    let expected = [
        ("1", "node.name", "is missing"),
        ("2", "node.nam", "did you mean `name`?"),
        ("4", "store.segment", "16 bananas"),
        ("5", "store.commit_delay_max", "must be between"),
        ("6", "store.commit_interval_min", "between 0s and 10s"),
        ("8", "stream[0].name", "leading `_`"),
        ("11", "stream[1].topics", "not a topic filter"),
        ("12", "stream[1].bytes_max", "must be between"),
        ("13", "stream[1].age_max", "1m and 100years,"),
        ("14", "stream[1].durability", "`sync`, `interval`"),
        ("15", "stream[1].sync_interval", "between 10ms and 1m"),
        ("16", "stream[1].when_full", "`block`, `drop_oldest`"),
        ("17", "stream[1].codec", "`lz4`, `zstd`, `none`"),
        ("19", "mqtt.listen", "0.0.0.0:1883"),
        ("20", "mqtt.connections_max", "must be between 1"),
        ("21", "mqtt.keep_alive_max", "must be between 1s"),
        ("22", "mqtt.republish", "no stream `nowhere`"),
        ("24", "kafka.brokers", "not host:port"),
        ("25", "kafka.delivery", "`exactly_once`"),
        ("26", "typo", "not a key"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (line, (number, key, part)) in found.iter().zip(expected) {
        assert!(line.starts_with(&format!("{number}: {key}: ")), "{line}");
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn a_section_for_what_is_left_out_is_refused_at_its_line() {
    let text = "\n[[model]]\nname = \"m\"\n\n[[opcua]]\nname = \"a\"\n[[opcua.nodes]]\n\
                name = \"x\"\n[[opcua]]\nname = \"b\"\n";
    let refused = |features: &[&str]| {
        let built = component::ALL.map(|component| Component {
            is_in: features.contains(&component.feature),
            ..component
        });
        let source = Source::new(Path::new("skerry.toml"), text);
        source.read(|root| {
            refuse_left_out(root, &built);
            // As what is in would.
            let _ = (root.has("opcua"), root.has("model"));
        });
        source.into_report().map(|report| report.to_string())
    };
    assert_eq!(
        refused(&[]).unwrap(),
        "skerry.toml:2: model: this binary was built without models; install a skerry that has \
         `inference` (`skerry version` tells), or take the section out\n\
         skerry.toml:5: opcua: this binary was built without the OPC-UA client; install a skerry \
         that has `opcua` (`skerry version` tells), or take the section out\n\
         2 problems in skerry.toml"
    );
    let without_models = refused(&["opcua"]).unwrap();
    assert!(without_models.contains("2: model: "), "{without_models}");
    assert!(without_models.contains("1 problem "), "{without_models}");
    assert_eq!(refused(&["opcua", "inference"]), None);
}

#[test]
#[cfg_attr(not(feature = "opcua"), ignore = "the shipped config has an [[opcua]]")]
fn what_the_broker_remembers_has_limits_of_its_own() {
    let defaults = parse("[node]\nname = \"n\"\n[mqtt]\n").unwrap().mqtt;
    let shipped = parse(include_str!("../../../configs/skerry.toml")).unwrap();
    let limits = |mqtt: skerry_broker::Config| {
        (
            mqtt.sessions_max,
            mqtt.session_expiry_max,
            mqtt.retained_max,
        )
    };
    let defaults = limits(defaults.unwrap());
    assert_eq!(limits(shipped.mqtt.unwrap()), defaults);
    let text = "[node]\nname = \"n\"\n[mqtt]\nsessions_max = 5\nsession_expiry_max = \"7days\"\nretained_max = 0\n";
    let set = limits(parse(text).unwrap().mqtt.unwrap());
    assert_eq!(set, (5, Duration::from_secs(7 * 24 * 3600), 0));
    let found = problems(&text.replace("= 5", "= 0").replace("7days", "200years"));
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with("4: mqtt.sessions_max: must be between 1"));
    assert!(found[1].starts_with("5: mqtt.session_expiry_max: must be between 0s"));
}

#[test]
fn a_stream_says_how_long_it_may_wait_for_the_disk() {
    let durability = |lines: &str| {
        let config = parse(&format!(
            "[node]\nname = \"n\"\n[[stream]]\nname = \"a\"\n{lines}"
        ));
        config.unwrap().store.streams[0].durability
    };
    let seconds = |seconds| Durability::Interval(Duration::from_secs(seconds));
    assert_eq!(durability(""), Durability::Sync);
    assert_eq!(durability("durability = \"sync\""), Durability::Sync);
    assert_eq!(durability("durability = \"interval\""), seconds(1));
    let long = "durability = \"interval\"\nsync_interval = \"5s\"";
    assert_eq!(durability(long), seconds(5));
    let alone = "[node]\nname = \"n\"\n[[stream]]\nname = \"a\"\nsync_interval = \"5s\"";
    let found = problems(alone);
    assert!(
        found.len() == 1 && found[0].contains("together with durability"),
        "{found:?}"
    );
}

#[test]
fn syntax_errors_name_their_line_and_hide_no_other_problem() {
    let found = problems("[node]\nname = \"n\nmame = 1\n");
    assert!(
        found.iter().any(|line| line.starts_with("2: ")),
        "{found:#?}"
    );
}

#[test]
fn routes_keep_the_order_of_the_file_and_limits_apply_to_streams_that_always_exist() {
    let config = parse(
        r#"[node]
name = "n"
[[stream]]
name = "b"
topics = ["plant/+/temperature"]
[[stream]]
name = "a"
topics = ["plant/#"]
[[stream]]
name = "default"
bytes_max = "2MiB"
when_full = "block"
codec = "zstd"
[mqtt]
"#,
    )
    .unwrap();
    let mqtt = config.mqtt.unwrap();
    for (topic, stream) in [
        ("plant/pump1/temperature", "b"),
        ("plant/pump1/speed", "a"),
        ("other", "default"),
    ] {
        assert_eq!(mqtt.stream_of(topic).as_str(), stream);
    }
    let default = config
        .store
        .streams
        .iter()
        .find(|s| s.name.as_str() == "default")
        .unwrap();
    assert_eq!(
        (default.bytes_max, default.when_full, default.codec),
        (2 * MIB, WhenFull::Block, Codec::Zstd)
    );
    let other = config
        .store
        .streams
        .iter()
        .find(|s| s.name.as_str() == "a")
        .unwrap();
    assert_eq!(
        other.when_full,
        WhenFull::DropOldest,
        "nothing is ever confirmed without kafka"
    );
}

#[test]
fn a_problem_with_the_way_into_kafka_stands_at_its_own_key() {
    let found = problems(
        r#"[node]
name = "n"
[kafka]
brokers = ["b:9093"]
tls = { ca_file = "/does/not/exist/ca.pem" }
user = "n"
password_file = "/does/not/exist/password"
"#,
    );
    let expected = [
        ("5", "kafka.tls", "/does/not/exist/ca.pem"),
        ("7", "kafka.password_file", "/does/not/exist/password"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (line, (number, key, part)) in found.iter().zip(expected) {
        assert!(line.starts_with(&format!("{number}: {key}: ")), "{line}");
        assert!(line.contains(part), "{line}");
    }
    let found =
        problems("[node]\nname = \"n\"\n[kafka]\nbrokers = [\"b:9092\"]\nmechanism = \"PLAIN\"\n");
    assert!(found[0].starts_with("5: kafka.mechanism: "), "{found:#?}");
}

#[test]
fn a_stream_goes_to_kafka_as_all_do_but_for_what_it_says_itself() {
    let text = r#"[node]
name = "n"
[[stream]]
name = "a"
kafka = { topic = "plant.{1}", late = "hold" }
[kafka]
brokers = ["k:9092"]
topic = "all.{stream}"
key = "node"
late = "backfill_topic"
backfill_topic = "old.{stream}"
create_topics = true
partitions = 6
"#;
    let kafka = parse(text).unwrap().uplink.unwrap();
    let name = |name: &str| StreamName::new(name).unwrap();
    let (own, other) = (kafka.route_of(&name("a")), kafka.route_of(&name("default")));
    assert_eq!(own.topic.as_str(), "plant.{1}");
    assert_eq!(other.topic.as_str(), "all.{stream}");
    assert_eq!((own.late, other.late), (Late::Hold, Late::BackfillTopic));
    assert_eq!((own.key, other.key), (Key::Node, Key::Node));
    assert_eq!(own.backfill_topic.as_str(), "old.{stream}");
    let created = kafka.create_topics.unwrap();
    assert_eq!((created.partitions, created.replication), (Some(6), None));
}

#[test]
fn an_age_that_could_never_remove_anything_is_a_problem() {
    let stream = "[node]\nname = \"n\"\n[[stream]]\nname = \"a\"\nage_max = \"30days\"\n";
    let age = |text: &str| {
        let streams = parse(text).expect("a config").store.streams;
        let mut streams = streams.into_iter();
        streams
            .find(|s| s.name.as_str() == "a")
            .and_then(|a| a.age_max)
    };
    assert_eq!(age(stream), Some(Duration::from_secs(30 * 86_400)));
    let blocking = format!("{stream}when_full = \"block\"\n");
    let found = problems(&blocking);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].starts_with("5: stream[0].age_max: nothing confirms"),
        "{found:#?}"
    );
    let delivered = format!("{blocking}[kafka]\nbrokers = [\"k:9092\"]\n");
    assert_eq!(age(&delivered), Some(Duration::from_secs(30 * 86_400)));
}

#[test]
fn reserves_and_sizes_have_to_fit_the_quota() {
    let config = |quota: &str, reserve: &str, size: &str| {
        format!(
            "[node]\nname = \"n\"\n[store]\nbytes_max_total = \"{quota}\"\n[[stream]]\nname = \
             \"a\"\nreserve_bytes = \"{reserve}\"\nbytes_max = \"{size}\"\n"
        )
    };
    let store = parse(&config("64MiB", "30MiB", "64MiB"))
        .expect("a config")
        .store;
    assert_eq!(store.bytes_max_total, Some(64 * MIB));
    let found = problems(&config("64MiB", "60MiB", "65MiB"));
    let expected = [
        "4: store.bytes_max_total: the streams' reserve_bytes, with 1.0 MiB for",
        "8: stream[0].bytes_max: is over store.bytes_max_total, 64.0 MiB",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (line, start) in found.iter().zip(expected) {
        assert!(line.starts_with(start), "{line}");
    }
    let found = problems(&config("64MiB", "20MiB", "10MiB"));
    assert_eq!(
        found,
        ["7: stream[0].reserve_bytes: must be at most bytes_max, 10.0 MiB"]
    );
}

#[test]
fn the_keys_to_the_log_come_from_one_place_and_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let id = skerry_store::Keys::create(&directory.path().join("log.key")).unwrap();
    let with = |store: &str| {
        let path = directory.path().join("skerry.toml");
        let text = format!("[node]\nname = \"n\"\n[store]\n{store}\n");
        Config::parse(&path, &text).map_err(|error| error.to_string())
    };
    let config = with("encryption_key_file = \"log.key\"").unwrap();
    assert_eq!(config.store.keys.as_ref().unwrap().ids(), [id]);
    let summary = config.summary(Path::new("skerry.toml"));
    assert!(summary.contains(&id.to_string()), "{summary}");
    assert!(with("").unwrap().store.keys.is_none());
    let problem = with("encryption_key_file = \"none.key\"").unwrap_err();
    let told = ":4: store.encryption_key_file: cannot open key file";
    assert!(problem.contains(told), "{problem}");
    let both = "encryption_key_file = \"log.key\"\nencryption_key_credential = \"log.key\"";
    let problem = with(both).unwrap_err();
    assert!(problem.contains("two places for one thing"), "{problem}");
    assert!(
        problem.contains("CREDENTIALS_DIRECTORY is not set"),
        "{problem}"
    );
}

#[test]
fn who_may_connect_and_how_fast_is_read_with_its_problems() {
    let mqtt = |lines: &str| format!("[node]\nname = \"n\"\n[mqtt]\n{lines}");
    let config = parse(&mqtt("")).unwrap().mqtt.unwrap();
    assert_eq!(config.access.anonymous, skerry_broker::Anonymous::Loopback);
    assert_eq!(config.limits.login_failures, Some(5));
    assert_eq!(config.audit.unwrap().as_str(), "audit");
    let text = mqtt(
        "anonymous = \"never\"\nidentity = \"san\"\n[mqtt.limits]\nconnections_per_address = 20\n\
         connects_per_second = 5\nlogin_failures = 0\npublish_messages_per_second = 100\n\
         publish_bytes_per_second = \"1MiB\"\n",
    );
    let config = parse(&text).unwrap().mqtt.unwrap();
    assert_eq!(config.access.anonymous, skerry_broker::Anonymous::Never);
    let san = skerry_broker::CertificateIdentity::AlternativeName;
    assert_eq!(config.access.identity, san);
    let expected = skerry_broker::Limits {
        connections_per_address: Some(20),
        connects_per_second: Some(5),
        login_failures: None,
        publish_messages_per_second: Some(100),
        publish_bytes_per_second: Some(1024 * 1024),
    };
    assert_eq!(config.limits, expected);
    let found = problems(&mqtt(
        "users_file = \"/does/not/exist\"\nacl_file = \"/does/not/exist/acl\"\nanonymous = \"yes\"\n\
         identity = \"ip\"\n[mqtt.limits]\nconnects_per_second = 0\npublish_bytes = 1\n",
    ));
    let expected = [
        ("4", "mqtt.users_file", "skerry user add"),
        ("5", "mqtt.acl_file", "/does/not/exist/acl"),
        ("6", "mqtt.anonymous", "`always`, `loopback`, `never`"),
        ("7", "mqtt.identity", "`none`, `cn`, `san`"),
        ("9", "mqtt.limits.connects_per_second", "between 1"),
        ("10", "mqtt.limits.publish_bytes", "not a key"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (line, (number, key, part)) in found.iter().zip(expected) {
        assert!(line.starts_with(&format!("{number}: {key}: ")), "{line}");
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn what_the_cluster_refuses_has_a_stream_that_stays_on_the_site() {
    let base = "[node]\nname = \"n\"\n[kafka]\nbrokers = [\"k:9092\"]\n";
    let readers = |text: &str| {
        let streams = parse(text).unwrap().store.streams;
        let mut streams = streams.into_iter();
        let quarantine =
            streams.find(|stream| stream.name.as_str() == kafka::quarantine::QUARANTINE);
        quarantine.map(|stream| (stream.when_full, stream.readers))
    };
    let operator = kafka::quarantine::SETTLED.to_owned();
    let expected = (WhenFull::DropOldest, vec![operator.clone()]);
    assert_eq!(readers(base), Some(expected));
    let sent = format!("{base}streams = [\"default\", \"quarantine\"]\n");
    let cluster = kafka::CURSOR.to_owned();
    let expected = (WhenFull::DropOldest, vec![cluster, operator]);
    assert_eq!(readers(&sent), Some(expected));
    let routed = format!("{base}[[stream]]\nname = \"quarantine\"\ntopics = [\"a/#\"]\n");
    let found = problems(&routed);
    assert!(found[0].starts_with("7: stream[0].topics: "), "{found:#?}");
}

#[test]
fn a_token_comes_from_a_file_or_is_asked_for() {
    let base = "[node]\nname = \"n\"\n[kafka]\nbrokers = [\"k:9093\"]\ntls = {}\n";
    let with = |keys: &str| parse(&format!("{base}mechanism = \"OAUTHBEARER\"\n{keys}"));
    // Problems are noted at once, so what is left out here is only what is not readable.
    for (keys, key, told) in [
        ("", "mechanism", "needs token_file, or token_endpoint"),
        ("token_file = \"t\"\n", "token_file", "cannot read"),
        ("token_file = \"t\"\nscope = \"s\"\n", "scope", "two ways"),
        (
            "token_endpoint = \"https://idp/t\"\n",
            "client_id",
            "is missing",
        ),
        (
            "token_endpoint = \"http://idp/t\"\n",
            "token_endpoint",
            "https://",
        ),
        ("token_file = \"t\"\nuser = \"u\"\n", "user", "of no use"),
        (
            "token_file = \"credential:t\"\n",
            "token_file",
            "LoadCredential=t:FILE",
        ),
    ] {
        let found = with(keys).expect_err(keys);
        let line = found
            .lines()
            .find(|line| line.contains(&format!("kafka.{key}: ")));
        assert!(
            line.is_some_and(|line| line.contains(told)),
            "{keys}: {found}"
        );
    }
    let stray = parse(&format!("{base}token_file = \"t\"\n")).expect_err("no mechanism");
    assert!(
        stray.contains("without mechanism = \"OAUTHBEARER\""),
        "{stray}"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "a.b.c").expect("written");
    let config = with(&format!("token_file = {file:?}\n")).expect("all is right");
    let sasl = config.uplink.and_then(|uplink| uplink.sasl);
    assert!(matches!(sasl, Some(kafka::Sasl::TokenFile(found)) if found == file));
    let asked = format!(
        "token_endpoint = \"https://idp/t\"\nclient_id = \"n\"\nclient_secret_file = {file:?}\n"
    );
    let config = with(&asked).expect("all is right");
    let sasl = config.uplink.and_then(|uplink| uplink.sasl);
    assert!(matches!(
        sasl,
        Some(kafka::Sasl::TokenEndpoint { scope: None, .. })
    ));
}
