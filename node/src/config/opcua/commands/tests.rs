use super::*;
use crate::config::tests::{parse, problems};
use std::path::Path;

#[test]
fn a_command_topic_does_one_thing_that_is_said() {
    let config = |mqtt: &str, commands: &str| {
        format!(
            "[node]\nname = \"n\"\n{mqtt}\n[[opcua]]\nname = \"a\"\nendpoint = \"opc.tcp://h:4840\"\n\
             nodes = [{{ name = \"x\", id = \"i=1\" }}]\n{commands}"
        )
    };
    let mqtt = "[mqtt]\nlisten = \"127.0.0.1:0\"";
    let one = |keys: &str| format!("[[opcua.command]]\n{keys}\n");
    let good = [
        one("topic = \"cmd/a\"\nwrite = \"i=2\"\nmin = 0\nmax = 10.5\nmax_age = \"5s\""),
        one("topic = \"cmd/b\"\nobject = \"i=3\"\nmethod = \"i=4\""),
        one("topic = \"cmd/c\"\nacknowledge = true"),
        one("topic = \"cmd/d\"\nconfirm = true"),
        one("topic = \"cmd/e\"\nwrite_path = \"Plant/2:Pump1/Speed\""),
        one("topic = \"cmd/f\"\nobject_path = \"Plant\"\nmethod_path = \"Plant/Start\""),
    ];
    let read = parse(&config(mqtt, &good.concat())).unwrap();
    let commands = read.opcua[0].commands.as_ref().unwrap();
    let told: Vec<_> = commands
        .list
        .iter()
        .map(|it| it.action.to_string())
        .collect();
    assert_eq!(
        told,
        [
            "writes ns=0;i=2, 0 to 10.5",
            "calls ns=0;i=4 of ns=0;i=3",
            "acknowledges alarms",
            "confirms alarms",
            "writes Plant/2:Pump1/Speed",
            "calls Plant/Start of Plant",
        ]
    );
    assert_eq!(commands.list[0].max_age, Duration::from_secs(5));
    assert_eq!(commands.list[1].max_age, Duration::from_secs(30));
    assert_eq!(commands.audit.as_str(), "audit");
    assert_eq!(
        read.mqtt.as_ref().unwrap().signed,
        ["cmd/a", "cmd/b", "cmd/c", "cmd/d", "cmd/e", "cmd/f"]
    );
    let summary = read.summary(Path::new("f"));
    let line = "cmd/a writes ns=0;i=2, 0 to 10.5, up to 5s old, for anybody who may connect";
    assert!(summary.contains(line), "{summary}");
    assert!(
        read.warnings()
            .iter()
            .any(|it| it.contains("set mqtt.acl_file"))
    );
    assert_eq!(parse(&config(mqtt, "")).unwrap().opcua[0].commands, None);

    let immediate = "[[stream]]\nname = \"now\"\ntopics = [\"cmd/#\"]\ndeliver = \"immediate\"\n";
    let memory = "[[stream]]\nname = \"ram\"\ntopics = [\"cmd/#\"]\nqos0 = \"memory\"\n";
    let a = "topic = \"cmd/a\"\nwrite = \"i=2\"";
    for (mqtt, commands, part) in [
        ("", one(a), "command: comes by MQTT"),
        (
            mqtt,
            one("topic = \"cmd/a\"\nwrite = \"i=2\"\nwrite_path = \"Plant/Speed\""),
            "write_path: goes in place of write",
        ),
        (
            mqtt,
            one("topic = \"cmd/+\"\nwrite = \"i=2\""),
            "without + or #",
        ),
        (
            mqtt,
            one("topic = \"skerry/x\"\nwrite = \"i=2\""),
            "without + or #",
        ),
        (mqtt, one("topic = \"cmd/a\""), "says what its topic does"),
        (
            mqtt,
            one(&format!("{a}\nacknowledge = true")),
            "says what its topic does",
        ),
        (
            mqtt,
            one("topic = \"cmd/a\"\nmethod = \"i=2\""),
            "goes together with object",
        ),
        (
            mqtt,
            one("topic = \"cmd/a\"\nacknowledge = true\nmax = 1"),
            "for what is written",
        ),
        (mqtt, one(&format!("{a}\nmin = 2\nmax = 1")), "is above max"),
        (mqtt, one(&format!("{a}\nmax_age = \"2h\"")), "max_age"),
        (mqtt, [one(a), one(a)].concat(), "are the same"),
        (
            mqtt,
            [one(a), one("topic = \"cmd/a/result/x\"\nwrite = \"i=2\"")].concat(),
            "results of the other",
        ),
        (
            mqtt,
            [one(a).as_str(), immediate].concat(),
            "before it is logged",
        ),
        (
            mqtt,
            [one(a).as_str(), memory].concat(),
            "QoS 0 is not logged",
        ),
    ] {
        let found = problems(&config(mqtt, &commands));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains(part), "{part}: {found:?}");
    }
}
