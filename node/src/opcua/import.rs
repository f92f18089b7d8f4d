//! `skerry opcua import FILE`: what another collector reads, as `[[opcua]]` sections to paste.
//!
//! Two formats: the published nodes of OPC Publisher (JSON), and the `opcua_listener` and `opcua`
//! inputs of Telegraf (TOML). What has no counterpart here is told, never dropped in silence;
//! passwords are not carried over, because a config is no place for them.

use serde_json::{Map, Value};
use skerry_bridge::opcua::NodeAddress;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

/// What was made of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Ready to paste.
    pub text: String,
    pub nodes: usize,
    /// What is to be looked at by somebody.
    pub remarks: BTreeSet<String>,
    servers: BTreeSet<String>,
    names: BTreeSet<String>,
}

/// One server.
#[derive(Debug, Default)]
struct Server {
    name: String,
    endpoint: String,
    /// Policy and mode.
    security: Option<(String, String)>,
    user: Option<String>,
    publishing: Option<Duration>,
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    name: String,
    id: String,
    sampling: Option<Duration>,
    queue: Option<u64>,
    /// As the configuration has it.
    deadband: Option<String>,
}

/// # Errors
/// With a sentence that says what is wrong with the file.
pub fn import(text: &str) -> Result<Imported, String> {
    let mut imported = Imported::default();
    let begins = |what: &str| {
        let bare: String = text.split_whitespace().take(2).collect();
        bare.starts_with(what)
    };
    if begins("{") || begins("[{") || begins("[]") {
        let file: Value = serde_json::from_str(text).map_err(|why| format!("no JSON: {why}"))?;
        let endpoints = file.as_array().ok_or("a list of endpoints is expected")?;
        for (index, endpoint) in endpoints.iter().enumerate() {
            imported.of_publisher(endpoint, index)?;
        }
    } else {
        let file: Value = toml::from_str(text).map_err(|why| format!("no TOML: {why}"))?;
        for plugin in ["opcua_listener", "opcua"] {
            let inputs = file["inputs"][plugin].as_array();
            for (index, input) in inputs.into_iter().flatten().enumerate() {
                let place = format!("inputs.{plugin}[{index}]");
                imported.of_telegraf(input, &place)?;
            }
        }
    }
    if imported.nodes == 0 {
        return Err(
            "no node in it: neither OPC Publisher's `OpcNodes` nor Telegraf's \
             [[inputs.opcua_listener]] with `nodes`"
                .to_owned(),
        );
    }
    Ok(imported)
}

impl Imported {
    /// An entry of OPC Publisher's list, of this format or of the one before 2.5.
    fn of_publisher(&mut self, entry: &Value, index: usize) -> Result<(), String> {
        let place = format!("entry {}", index + 1);
        let entry = Keys::of(entry, &place)?;
        let endpoint = entry.text("EndpointUrl");
        let endpoint = endpoint.ok_or_else(|| format!("{place} has no EndpointUrl"))?;
        let mut server = Server {
            name: format!("server-{}", index + 1),
            publishing: entry.time("DataSetPublishingInterval")?,
            user: entry.text("OpcAuthenticationUsername"),
            endpoint,
            ..Server::default()
        };
        let policy = entry.text("EndpointSecurityPolicy");
        let policy = policy.map(|uri| uri.rsplit('#').next().unwrap_or_default().to_owned());
        let mode = entry.text("EndpointSecurityMode");
        let wants = entry.0.get("UseSecurity").and_then(Value::as_bool) == Some(true);
        server.security = self.security(&server.endpoint, policy, mode, wants);
        let legacy = entry.find("NodeId").map(|_| entry.0);
        let listed = entry.find("OpcNodes").and_then(Value::as_array);
        let listed = listed.into_iter().flatten();
        for (number, node) in listed.enumerate() {
            let node = Keys::of(node, &format!("{place}, node {}", number + 1))?;
            server
                .nodes
                .push(self.of_published_node(&node, &mut server.publishing)?);
        }
        if let Some(legacy) = legacy {
            let legacy = Keys(legacy, place.clone());
            server
                .nodes
                .push(self.of_published_node(&legacy, &mut server.publishing)?);
        }
        self.tell_rest(&entry, ENTRY_KEYS);
        self.add(server)
    }

    fn of_published_node(
        &mut self,
        node: &Keys<'_>,
        publishing: &mut Option<Duration>,
    ) -> Result<Node, String> {
        let nested = node.find("NodeId").and_then(|id| id["Identifier"].as_str());
        let id = node.text("ExpandedNodeId").or_else(|| node.text("Id"));
        let id = id.or_else(|| nested.map(str::to_owned));
        let id = id.ok_or_else(|| format!("{} has no Id", node.1))?;
        if let Some(wanted) = node.time("OpcPublishingInterval")? {
            // One subscription publishes as often as its quickest node wants.
            *publishing = Some(publishing.map_or(wanted, |known| known.min(wanted)));
        }
        let deadband = node.find("DeadbandValue").and_then(Value::as_f64);
        let deadband = deadband.and_then(|value| {
            let kind = node.text("DeadbandType").unwrap_or_default();
            deadband_of(&kind, value)
        });
        self.tell_rest(node, NODE_KEYS);
        Ok(Node {
            name: node
                .text("DisplayName")
                .or_else(|| node.text("DataSetFieldId"))
                .unwrap_or_else(|| identifier(&id)),
            sampling: node.time("OpcSamplingInterval")?,
            queue: node.find("QueueSize").and_then(Value::as_u64),
            deadband,
            id,
        })
    }

    /// One `[[inputs.opcua_listener]]`.
    fn of_telegraf(&mut self, input: &Value, place: &str) -> Result<(), String> {
        let input = Keys::of(input, place)?;
        let endpoint = input.text("endpoint");
        let endpoint = endpoint.unwrap_or_else(|| "opc.tcp://localhost:4840".to_owned());
        let mut server = Server {
            name: input.text("name").unwrap_or_else(|| "telegraf".to_owned()),
            publishing: input.time("subscription_interval")?,
            user: input.text("username").filter(|name| !name.is_empty()),
            endpoint,
            ..Server::default()
        };
        let (policy, mode) = (input.text("security_policy"), input.text("security_mode"));
        let auto = |word: &Option<String>| word.as_deref().is_none_or(|word| word == "auto");
        let automatic = auto(&policy) || auto(&mode);
        let word = |word: Option<String>| word.filter(|word| word != "auto");
        server.security = self.security(&server.endpoint, word(policy), word(mode), automatic);
        let group = Map::new();
        self.of_telegraf_nodes(&input, &Keys(&group, place.to_owned()), &mut server)?;
        let groups = input.find("group").and_then(Value::as_array);
        for (number, group) in groups.into_iter().flatten().enumerate() {
            let group = Keys::of(group, &format!("{place}.group[{number}]"))?;
            self.of_telegraf_nodes(&group, &group, &mut server)?;
        }
        self.tell_rest(&input, INPUT_KEYS);
        self.add(server)
    }

    /// The nodes of `of`; what they leave out is as `group` says.
    fn of_telegraf_nodes(
        &mut self,
        of: &Keys<'_>,
        group: &Keys<'_>,
        server: &mut Server,
    ) -> Result<(), String> {
        let nodes = of.find("nodes").and_then(Value::as_array);
        for (number, node) in nodes.into_iter().flatten().enumerate() {
            let node = Keys::of(node, &format!("{}.nodes[{number}]", of.1))?;
            let own = |key| {
                let own = node.text(key).filter(|text| !text.is_empty());
                own.or_else(|| group.text(key))
            };
            let id = match own("id") {
                Some(id) => id,
                None => {
                    let missing = |what| format!("{} has no {what}", node.1);
                    let kind = own("identifier_type").ok_or_else(|| missing("identifier_type"))?;
                    let identifier = own("identifier").ok_or_else(|| missing("identifier"))?;
                    let namespace = match own("namespace_uri") {
                        Some(uri) => format!("nsu={uri}"),
                        None => {
                            let index = own("namespace").ok_or_else(|| missing("namespace"))?;
                            format!("ns={index}")
                        }
                    };
                    format!("{namespace};{kind}={identifier}")
                }
            };
            let empty = Value::Object(Map::new());
            let asked = node.find("monitoring_params").unwrap_or(&empty);
            let asked = Keys::of(asked, &node.1)?;
            let filter = &asked.find("data_change_filter").unwrap_or(&empty);
            let deadband = filter["deadband_value"].as_f64().and_then(|value| {
                let kind = filter["deadband_type"].as_str().unwrap_or_default();
                deadband_of(kind, value)
            });
            let sampling = asked.time("sampling_interval")?;
            server.nodes.push(Node {
                name: node.text("name").unwrap_or_else(|| identifier(&id)),
                sampling: match sampling {
                    None => group.time("sampling_interval")?,
                    sampling => sampling,
                },
                queue: asked.find("queue_size").and_then(Value::as_u64),
                deadband,
                id,
            });
            self.tell_rest(&node, INPUT_NODE_KEYS);
        }
        Ok(())
    }

    /// Exactly one policy and mode, for there is no "best of what is offered" here.
    fn security(
        &mut self,
        endpoint: &str,
        policy: Option<String>,
        mode: Option<String>,
        automatic: bool,
    ) -> Option<(String, String)> {
        let given = |word: Option<String>| word.filter(|word| word != "Best");
        match (given(policy), given(mode)) {
            (Some(policy), Some(mode)) => Some((policy, mode)),
            (None, None) if !automatic => None,
            (policy, mode) => {
                self.remarks.insert(format!(
                    "{endpoint}: the security was to be chosen by itself; `skerry opcua discover \
                     {endpoint}` lists what there is to set"
                ));
                let policy = policy.unwrap_or_else(|| "Basic256Sha256".to_owned());
                Some((policy, mode.unwrap_or_else(|| "SignAndEncrypt".to_owned())))
            }
        }
    }

    /// Names what is not understood, once.
    fn tell_rest(&mut self, of: &Keys<'_>, known: &[&str]) {
        for (key, value) in of.0 {
            let idle = value.is_null() || *value == false || *value == 0;
            if !idle && !known.iter().any(|known| known.eq_ignore_ascii_case(key)) {
                self.remarks
                    .insert(format!("`{key}` has no counterpart here and is left out"));
            }
        }
    }

    fn add(&mut self, server: Server) -> Result<(), String> {
        let Server {
            endpoint, nodes, ..
        } = &server;
        if nodes.is_empty() {
            self.remarks
                .insert(format!("{endpoint}: no nodes, left out"));
            return Ok(());
        }
        self.nodes += nodes.len();
        let name = unused(&mut self.servers, &server.name);
        let text = &mut self.text;
        let mut line =
            |line: String| writeln!(text, "{line}").expect("a text takes what is written");
        line("[[opcua]]".to_owned());
        line(format!("name = {}", quoted(&name)));
        line(format!("endpoint = {}", quoted(endpoint)));
        if let Some((policy, mode)) = &server.security {
            line(format!("security_policy = {}", quoted(policy)));
            line(format!("security_mode = {}", quoted(mode)));
        }
        if let Some(user) = &server.user {
            line(format!("user = {}", quoted(user)));
            let file = format!("{name}.password");
            line(format!("password_file = {}", quoted(&file)));
            self.remarks.insert(format!(
                "{endpoint}: put the password of `{user}` into the file {file} beside the config"
            ));
        }
        if let Some(publishing) = server.publishing.filter(|time| !time.is_zero()) {
            line(format!("publishing_interval = {}", time_text(publishing)));
        }
        line("nodes = [".to_owned());
        for node in nodes {
            let address: NodeAddress = node
                .id
                .parse()
                .map_err(|why| format!("{endpoint}: {why}"))?;
            let name = unused(&mut self.names, &node.name);
            let mut fields = format!(
                "name = {}, id = {}",
                quoted(&name),
                quoted(&address.to_string())
            );
            if let Some(sampling) = node.sampling {
                fields += &format!(", sampling = {}", time_text(sampling));
            }
            if let Some(queue) = node.queue.filter(|values| *values > 0) {
                fields += &format!(", queue = {queue}");
            }
            if let Some(deadband) = &node.deadband {
                fields += &format!(", deadband = {deadband}");
            }
            line(format!("  {{ {fields} }},"));
        }
        line("]\n".to_owned());
        Ok(())
    }
}

const ENTRY_KEYS: &[&str] = &[
    "EndpointUrl",
    "UseSecurity",
    "EndpointSecurityMode",
    "EndpointSecurityPolicy",
    "OpcAuthenticationMode",
    "OpcAuthenticationUsername",
    "OpcAuthenticationPassword",
    "DataSetPublishingInterval",
    "DataSetPublishingIntervalTimespan",
    "DataSetWriterGroup",
    "DataSetWriterId",
    "DataSetName",
    "Tag",
    "Version",
    "OpcNodes",
    "NodeId",
    "OpcSamplingInterval",
    "OpcPublishingInterval",
];
const NODE_KEYS: &[&str] = &[
    "Id",
    "ExpandedNodeId",
    "NodeId",
    "DisplayName",
    "DataSetFieldId",
    "QueueSize",
    "OpcSamplingInterval",
    "OpcSamplingIntervalTimespan",
    "OpcPublishingInterval",
    "OpcPublishingIntervalTimespan",
    "DeadbandType",
    "DeadbandValue",
    "EndpointUrl",
    "UseSecurity",
];
const INPUT_KEYS: &[&str] = &[
    "name",
    "endpoint",
    "connect_timeout",
    "request_timeout",
    "session_timeout",
    "subscription_interval",
    "security_policy",
    "security_mode",
    "auth_method",
    "username",
    "password",
    "timestamp",
    "timestamp_format",
    "nodes",
    "group",
    "certificate",
    "private_key",
    "interval",
];
const INPUT_NODE_KEYS: &[&str] = &[
    "name",
    "id",
    "namespace",
    "namespace_uri",
    "identifier_type",
    "identifier",
    "monitoring_params",
];

/// A table and where it stands. Keys are found however they are capitalised.
struct Keys<'a>(&'a Map<String, Value>, String);

impl<'a> Keys<'a> {
    fn of(value: &'a Value, place: &str) -> Result<Self, String> {
        let table = value.as_object();
        let table = table.ok_or_else(|| format!("{place} is no table"))?;
        Ok(Self(table, place.to_owned()))
    }

    fn find(&self, key: &str) -> Option<&'a Value> {
        let found = self
            .0
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(key));
        found.map(|(_, value)| value)
    }

    /// A text, or a number as one.
    fn text(&self, key: &str) -> Option<String> {
        match self.find(key)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// Milliseconds, a text such as `100ms`, or beside it a .NET time span such as `00:00:01.5`.
    fn time(&self, key: &str) -> Result<Option<Duration>, String> {
        let span = self.find(&format!("{key}Timespan"));
        let found = match (span, self.find(key)) {
            (Some(Value::String(span)), _) => time_span(span),
            (_, None | Some(Value::Null)) => return Ok(None),
            (_, Some(Value::String(text))) => humantime::parse_duration(text).ok(),
            (_, Some(number)) => number.as_u64().map(Duration::from_millis),
        };
        let wrong = || format!("{}: `{key}` is no time", self.1);
        found.map(Some).ok_or_else(wrong)
    }
}

/// `[d.]hh:mm:ss[.fraction]`.
fn time_span(text: &str) -> Option<Duration> {
    let mut parts = text.rsplit(':');
    let seconds: f64 = parts.next()?.parse().ok()?;
    let minutes: u64 = parts.next()?.parse().ok()?;
    let hours = parts.next()?;
    let (days, hours) = hours.split_once('.').unwrap_or(("0", hours));
    let (days, hours): (u64, u64) = (days.parse().ok()?, hours.parse().ok()?);
    let whole = Duration::from_secs(((days * 24 + hours) * 60 + minutes) * 60);
    whole.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}

fn deadband_of(kind: &str, value: f64) -> Option<String> {
    match kind {
        "Absolute" if value > 0.0 => Some(value.to_string()),
        "Percent" if value > 0.0 => Some(format!("\"{value}%\"")),
        _ => None,
    }
}

/// What is behind the last `s=`, `i=`, `g=` or `b=`.
fn identifier(id: &str) -> String {
    let last = id.rsplit(';').next().unwrap_or(id);
    last.split_once('=')
        .map_or(last, |(_, name)| name)
        .to_owned()
}

/// `wanted`, with a number where it is taken.
fn unused(taken: &mut BTreeSet<String>, wanted: &str) -> String {
    let numbered = (2..).map(|number| format!("{wanted}-{number}"));
    let mut names = std::iter::once(wanted.to_owned()).chain(numbered);
    let free = names.find(|name| taken.insert(name.clone()));
    free.expect("numbers do not end")
}

/// A TOML basic string escapes as JSON does.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn time_text(time: Duration) -> String {
    quoted(&humantime::format_duration(time).to_string())
}

#[cfg(test)]
mod tests;
