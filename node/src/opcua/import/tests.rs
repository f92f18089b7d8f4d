use super::*;
use crate::config::Config;
use std::path::Path;

/// That the node takes what is printed.
fn accepted(text: &str) -> Config {
    let text = format!("[node]\nname = \"n\"\n{text}");
    let parsed = Config::parse(Path::new("skerry.toml"), &text);
    parsed.map_err(|why| why.to_string()).unwrap()
}

#[test]
fn published_nodes_of_both_ages_become_sections() {
    let file = r#"[
          { "EndpointUrl": "opc.tcp://plc:4840", "UseSecurity": false,
            "OpcAuthenticationMode": "usernamePassword", "OpcAuthenticationUsername": "op",
            "OpcAuthenticationPassword": "secret",
            "OpcNodes": [
              { "Id": "nsu=http://opcfoundation.org/UA/;i=2258", "DisplayName": "Time",
                "OpcSamplingInterval": 2000, "OpcPublishingInterval": 5000, "QueueSize": 7,
                "HeartbeatInterval": 3600, "SkipFirst": false },
              { "ExpandedNodeId": "ns=2;s=Pump1.Flow", "OpcPublishingIntervalTimespan": "00:00:01.5000000",
                "DeadbandType": "Percent", "DeadbandValue": 2 },
              { "id": "ns=2;s=Pump1.Flow" } ] },
          { "EndpointUrl": "opc.tcp://old:4840", "NodeId": { "Identifier": "ns=0;i=2258" },
            "UseSecurity": true } ]"#;
    let imported = import(file).unwrap();
    assert_eq!(imported.nodes, 4);
    let lines: Vec<&str> = imported.text.lines().collect();
    assert_eq!(
        lines[..10],
        [
            "[[opcua]]",
            "name = \"server-1\"",
            "endpoint = \"opc.tcp://plc:4840\"",
            "user = \"op\"",
            "password_file = \"server-1.password\"",
            "publishing_interval = \"1s 500ms\"",
            "nodes = [",
            "  { name = \"Time\", id = \"nsu=http://opcfoundation.org/UA/;i=2258\", sampling = \"2s\", queue = 7 },",
            "  { name = \"Pump1.Flow\", id = \"ns=2;s=Pump1.Flow\", deadband = \"2%\" },",
            "  { name = \"Pump1.Flow-2\", id = \"ns=2;s=Pump1.Flow\" },",
        ]
    );
    assert!(!imported.text.contains("secret"));
    let said: Vec<&str> = imported.remarks.iter().map(String::as_str).collect();
    assert_eq!(said.len(), 3, "{said:?}");
    for part in [
        "`HeartbeatInterval`",
        "the password of `op`",
        "opcua discover opc.tcp://old",
    ] {
        assert!(
            said.iter().any(|said| said.contains(part)),
            "{part}: {said:?}"
        );
    }
    let config = accepted(&imported.text);
    assert_eq!(
        (config.opcua[0].nodes.len(), config.opcua[1].nodes.len()),
        (3, 1)
    );
}

#[test]
fn telegrafs_inputs_become_sections() {
    let file = r#"
[agent]
interval = "10s"
[[inputs.opcua_listener]]
name = "hall"
endpoint = "opc.tcp://plc:4840"
subscription_interval = "100ms"
security_policy = "Basic256Sha256"
security_mode = "Sign"
nodes = [
  { name = "flow", namespace = "2", identifier_type = "s", identifier = "Pump1.Flow",
    monitoring_params = { sampling_interval = "250ms", queue_size = 10,
      data_change_filter = { trigger = "StatusValue", deadband_type = "Absolute", deadband_value = 0.5 } } },
]
[[inputs.opcua_listener.group]]
namespace = "3"
identifier_type = "i"
sampling_interval = "1s"
default_tags = { line = "1" }
[[inputs.opcua_listener.group.nodes]]
name = "level"
identifier = "1007"
"#;
    let imported = import(file).unwrap();
    for line in [
        "name = \"hall\"",
        "security_mode = \"Sign\"",
        "publishing_interval = \"100ms\"",
        "  { name = \"flow\", id = \"ns=2;s=Pump1.Flow\", sampling = \"250ms\", queue = 10, deadband = 0.5 },",
        "  { name = \"level\", id = \"ns=3;i=1007\", sampling = \"1s\" },",
    ] {
        assert!(
            imported.text.lines().any(|found| found == line),
            "{line}: {}",
            imported.text
        );
    }
    assert_eq!(accepted(&imported.text).opcua[0].nodes.len(), 2);
}

#[test]
fn what_cannot_be_read_is_told_with_its_place() {
    for (file, part) in [
        (
            "[{\"EndpointUrl\": \"opc.tcp://h\", \"OpcNodes\": [{}]}]",
            "entry 1, node 1 has no Id",
        ),
        ("[{\"OpcNodes\": []}]", "entry 1 has no EndpointUrl"),
        (
            "[{\"EndpointUrl\": \"opc.tcp://h\", // note\n}]",
            "no JSON: ",
        ),
        ("[{\"EndpointUrl\": \"opc.tcp://h\"}]", "no node in it"),
        (
            "[[inputs.opcua]]\nnodes = [{ name = \"x\" }]",
            "inputs.opcua[0].nodes[0] has no identifier_type",
        ),
        (
            "[[inputs.opcua]]\nnodes = [{ id = \"x\" }]",
            "`x` is not a node id",
        ),
        ("= 1", "no TOML: "),
        ("", "no node in it"),
    ] {
        let why = import(file).unwrap_err();
        assert!(why.contains(part), "{file}: {why}");
    }
}
