//! The demo's config: an ordinary one, written to a file that the reader is invited to open.

use super::place::{Place, Ports};
use skerry_simulation::opcua_server::OpcuaServer;
use skerry_simulation::plant;
use std::fmt::Write;

/// The text of the node's config file.
pub fn text(
    place: &Place,
    ports: &Ports,
    kafka: &str,
    model: &str,
    opcua_url: &str,
    tags: &[String],
) -> String {
    let data_dir = place.data_dir.display();
    let Ports { mqtt, http } = ports;
    let mut nodes = String::new();
    for tag in tags {
        writeln!(
            nodes,
            "  {{ name = \"{tag}\", id = \"{}\", sampling = \"250ms\" }},",
            OpcuaServer::node_id(tag)
        )
        .expect("writing to a String cannot fail");
    }
    let pumps: Vec<String> = plant::PUMPS
        .iter()
        .map(|pump| format!("\"{pump}\""))
        .collect();
    let pumps = pumps.join(", ");
    format!(
        r#"# The config of `skerry demo`. Every key is explained in configs/skerry.toml.
[node]
name = "demo"
data_dir = "{data_dir}"
allow_volatile = true            # a demo may run where a node must not

[http]
listen = "127.0.0.1:{http}"

[mqtt]
listen = "127.0.0.1:{mqtt}"

[[stream]]
name = "telemetry"
topics = ["plant/#"]
bytes_max = "256MiB"

[[stream]]
name = "machines"
bytes_max = "256MiB"

[[opcua]]
name = "plant"
endpoint = "{opcua_url}"
stream = "machines"
publishing_interval = "250ms"
nodes = [
{nodes}]

[[model]]
name = "bearing"
file = "{model}"
assets = [{pumps}]
window = 32
step = 8
inputs = [
  {{ opcua = "{{asset}}/vibration" }},
  {{ mqtt = "plant/{{asset}}/temperature", pointer = "/value" }},
  {{ opcua = "{{asset}}/current" }},
  {{ opcua = "{{asset}}/speed" }},
]
threshold = 0.8
clear = 0.6
hold = 2
severity = "critical"

[kafka]
brokers = ["{kafka}"]
create_topics = true
"#
    )
}
