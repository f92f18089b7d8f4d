//! What is said of an order: in the audit stream, and to its sender.

use super::config::{Action, Command};
use super::order::{Order, Reply};
use super::plain;
use crate::opcua::value::Value;
use crate::opcua::wire::status_name;
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value as Json;
use skerry_store::{Kind, Offset, Record, WallNanos};

/// Longest value that is repeated; of a longer one its length is told.
const VALUE_BYTES_MAX: usize = 16 * 1024;
const CONTENT_TYPE: &str = "mqtt-content-type";

/// What became of an order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// About to be sent.
    Sending,
    /// The server did it, with this StatusCode, which may be an uncertain one.
    Done { status: u32, outputs: Vec<Value> },
    /// Nothing was sent.
    Refused(String),
    /// The server did not do it.
    Failed { status: u32, detail: String },
    /// It may have been done or not.
    Unknown(String),
}

/// What was to be sent, as far as it came to that.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Deed {
    pub(crate) value: Option<Json>,
    /// What the node held before.
    pub(crate) before: Option<Json>,
}

#[derive(Serialize)]
struct Report<'r> {
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'static str>,
    outcome: &'static str,
    endpoint: &'r str,
    topic: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'r Json>,
    /// Where the command stands in its stream.
    stream: &'r str,
    offset: Offset,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'r str>,
    #[serde(flatten)]
    action: What,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outputs: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    time_ns: WallNanos,
}

#[derive(Serialize)]
#[serde(untagged)]
enum What {
    Write { node: String },
    Call { object: String, method: String },
    Acknowledge { acknowledge: bool },
    Confirm { confirm: bool },
}

/// Of whom a report is.
pub(crate) struct Subject<'s> {
    pub(crate) endpoint: &'s str,
    pub(crate) command: &'s Command,
    pub(crate) offset: Offset,
    pub(crate) id: Option<&'s Json>,
    /// None for an order that an earlier run left in doubt; its record is in the audit stream.
    pub(crate) order: Option<&'s Order>,
}

impl Subject<'_> {
    /// The audit record.
    pub(crate) fn record(&self, outcome: &Outcome, deed: &Deed) -> Record {
        let order = self.order;
        let report = Report {
            event: Some("opcua_command"),
            user: order.and_then(|order| order.user.as_deref()),
            client: order.and_then(|order| order.client.as_deref()),
            ..self.report(outcome, deed)
        };
        Record::new(Kind::Node, "opcua", json(&report))
    }

    /// The message to the sender: a record that the broker delivers like any other.
    pub(crate) fn message(&self, outcome: &Outcome, deed: &Deed, reply: &Reply) -> Record {
        let payload = json(&self.report(outcome, deed));
        let mut record = Record::new(Kind::Mqtt, reply.topic.clone(), payload);
        record.attributes = reply.attributes();
        let json_type = Bytes::from_static(b"application/json");
        record.attributes.push((CONTENT_TYPE.to_owned(), json_type));
        record
    }

    fn report(&self, outcome: &Outcome, deed: &Deed) -> Report<'_> {
        let outputs = match outcome {
            Outcome::Done { outputs, .. } if !outputs.is_empty() => {
                Some(short(serde_json::to_value(outputs).unwrap_or_default()))
            }
            _ => None,
        };
        let status = outcome.status();
        Report {
            event: None,
            outcome: outcome.word(),
            endpoint: self.endpoint,
            topic: &self.command.topic,
            id: self.id,
            stream: self.command.stream.as_str(),
            offset: self.offset,
            user: None,
            client: None,
            action: What::of(&self.command.action),
            value: deed.value.clone().map(short),
            before: deed.before.clone().map(short),
            outputs,
            status: status.map(status_name),
            status_code: status,
            reason: outcome.reason(),
            time_ns: WallNanos::now(),
        }
    }
}

impl What {
    fn of(action: &Action) -> Self {
        match action {
            Action::Write { node, .. } => Self::Write {
                node: node.to_string(),
            },
            Action::Call { object, method } => Self::Call {
                object: object.to_string(),
                method: method.to_string(),
            },
            Action::Acknowledge => Self::Acknowledge { acknowledge: true },
            Action::Confirm => Self::Confirm { confirm: true },
        }
    }
}

impl Outcome {
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Sending => "sending",
            Self::Done { .. } => "done",
            Self::Refused(_) => "refused",
            Self::Failed { .. } => "failed",
            Self::Unknown(_) => "unknown",
        }
    }

    const fn status(&self) -> Option<u32> {
        match self {
            Self::Done { status, .. } | Self::Failed { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// In words, where it is not simply done.
    pub(crate) fn reason(&self) -> Option<String> {
        match self {
            Self::Sending | Self::Done { .. } => None,
            Self::Refused(reason) | Self::Unknown(reason) => Some(reason.clone()),
            Self::Failed { status, detail } if detail.is_empty() => Some(plain::words(*status)),
            Self::Failed { status, detail } => Some(format!("{}: {detail}", plain::words(*status))),
        }
    }
}

fn json(report: &Report<'_>) -> Vec<u8> {
    serde_json::to_vec(report).expect("keys are strings and floats are finite")
}

fn short(value: Json) -> Json {
    let bytes = value.to_string().len();
    match bytes <= VALUE_BYTES_MAX {
        true => value,
        false => Json::String(format!("{bytes} bytes")),
    }
}
