//! From what a message wants to what is sent to the server, and what the server makes of it.

use super::config::{Action, Command, Limits};
use super::payload::{Alarm, Payload, Unreadable};
use super::report::{Deed, Outcome};
use crate::opcua::address::NodeAddress;
use crate::opcua::error::{Error, status};
use crate::opcua::find::locate;
use crate::opcua::value::Value;
use crate::opcua::wire::{Argument, Encoded, Misfit, Session, Shape, status_name};
use serde_json::{Value as Json, json};
use std::time::Duration;

/// For an answer. Shorter than the node's own stop, so that an order under way is not cut off.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// `AcknowledgeableConditionType_Acknowledge` (Part 9, 5.7.3): called on the condition itself.
const ACKNOWLEDGE: &str = "ns=0;i=9111";
/// `AcknowledgeableConditionType_Confirm` (Part 9, 5.7.4), called in the same way.
const CONFIRM: &str = "ns=0;i=9113";

/// What a message wants, as far as it can be told without the server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wish {
    Write(Json),
    Call(Vec<Json>),
    Acknowledge(Alarm),
}

/// Nothing is left to be found out.
pub(crate) struct Ready {
    request: Request,
    pub(crate) deed: Deed,
}

enum Request {
    Write {
        node: String,
        value: Encoded,
    },
    Call {
        object: String,
        method: String,
        arguments: Vec<Encoded>,
    },
}

/// Why an order does not come to be sent.
pub(crate) enum Hindrance {
    /// And never will.
    Settled(Outcome, Deed),
    /// The connection broke; nothing was sent, so another one may do.
    Connection(Error),
}

impl Hindrance {
    fn refused(why: impl ToString, deed: Deed) -> Self {
        Self::Settled(Outcome::Refused(why.to_string()), deed)
    }

    fn failed(status: u32, detail: &str) -> Self {
        let detail = detail.to_owned();
        Self::Settled(Outcome::Failed { status, detail }, Deed::default())
    }
}

impl From<Error> for Hindrance {
    fn from(error: Error) -> Self {
        match error.status() {
            Some(status) if !error.is_broken_connection() => {
                Self::failed(status, &error.to_string())
            }
            _ => Self::Connection(error),
        }
    }
}

impl Wish {
    /// With the id that the sender gave it.
    pub(crate) fn parse(
        action: &Action,
        payload: &[u8],
    ) -> Result<(Self, Option<Json>), Unreadable> {
        match action {
            Action::Write { .. } => {
                let Payload { value, id } = Payload::parse(payload)?;
                Ok((Self::Write(value), id))
            }
            Action::Call { .. } => match Payload::parse(payload) {
                Ok(Payload { value, id }) => Ok((Self::Call(list(value)), id)),
                // A button that says nothing but that it was pressed.
                Err(Unreadable::Empty) => Ok((Self::Call(Vec::new()), None)),
                Err(why) => Err(why),
            },
            Action::Acknowledge | Action::Confirm => {
                let (alarm, id) = Payload::parse_alarm(payload)?;
                Ok((Self::Acknowledge(alarm), id))
            }
        }
    }

    /// Asks the server what it takes, and makes that of the wish.
    pub(crate) async fn prepare(
        &self,
        session: &Session,
        command: &Command,
    ) -> Result<Ready, Hindrance> {
        match (self, &command.action) {
            (Self::Write(value), Action::Write { node, limits }) => {
                let [node] = located(session, [node]).await?;
                prepare_write(session, node, value, *limits).await
            }
            (Self::Call(values), Action::Call { object, method }) => {
                let [object, method] = located(session, [object, method]).await?;
                prepare_call(session, object, method, values).await
            }
            (Self::Acknowledge(alarm), action) => {
                let condition = alarm.condition.parse::<NodeAddress>();
                let deed = || alarm.deed();
                let condition = condition.map_err(|why| Hindrance::refused(why, deed()))?;
                let event = bytes(&alarm.event);
                let event = event.map_err(|why| Hindrance::refused(why, deed()))?;
                let [object] = located(session, [&condition]).await?;
                let method = match action {
                    Action::Confirm => CONFIRM,
                    _ => ACKNOWLEDGE,
                };
                Ok(Ready {
                    request: Request::Call {
                        object,
                        method: method.to_owned(),
                        arguments: vec![event, Encoded::text(&alarm.comment)],
                    },
                    deed: deed(),
                })
            }
            _ => unreachable!("a wish is parsed by its command's own action"),
        }
    }
}

impl Alarm {
    fn deed(&self) -> Deed {
        let Self {
            condition,
            event,
            comment,
        } = self;
        Deed {
            value: Some(json!({"ConditionId": condition, "EventId": event, "Comment": comment})),
            before: None,
        }
    }
}

/// A method with one argument may get it bare.
fn list(value: Json) -> Vec<Json> {
    match value {
        Json::Array(values) => values,
        Json::Null => Vec::new(),
        single => vec![single],
    }
}

fn bytes(base64: &str) -> Result<Encoded, Misfit> {
    let shape = Shape::named("ByteString").expect("one of the built-in types");
    shape.encode(&Json::String(base64.to_owned()))
}

/// Where `addresses` are today, each of them one node: a path that leads to several, or nowhere,
/// leads to none.
async fn located<const N: usize>(
    session: &Session,
    addresses: [&NodeAddress; N],
) -> Result<[String; N], Hindrance> {
    let mut nodes = [const { String::new() }; N];
    let located = locate(session, &addresses).await?;
    for ((node, address), located) in nodes.iter_mut().zip(addresses).zip(located) {
        *node = located.map_err(|code| Hindrance::failed(code, &address.to_string()))?;
    }
    Ok(nodes)
}

async fn prepare_write(
    session: &Session,
    node: String,
    value: &Json,
    limits: Limits,
) -> Result<Ready, Hindrance> {
    let target = session.target(&node).await?;
    let target = target.map_err(|status| Hindrance::failed(status, &node))?;
    let mut deed = Deed {
        value: Some(value.clone()),
        before: serde_json::to_value(&target.holds).ok(),
    };
    let encoded = target.shape.encode(value);
    let encoded = encoded.map_err(|misfit| Hindrance::refused(misfit, deed.clone()))?;
    if limits.are_set() {
        let within = |numbers: Vec<f64>| numbers.iter().all(|number| limits.take(*number));
        if !encoded.numbers().is_some_and(within) {
            let why = format!("it is not within what is allowed here, {limits}");
            return Err(Hindrance::refused(why, deed));
        }
    }
    // As it is sent: of a decimal fraction, what the node's type makes of it.
    deed.value = serde_json::to_value(encoded.value()).ok();
    Ok(Ready {
        request: Request::Write {
            node,
            value: encoded,
        },
        deed,
    })
}

async fn prepare_call(
    session: &Session,
    object: String,
    method: String,
    values: &[Json],
) -> Result<Ready, Hindrance> {
    let deed = Deed {
        value: Some(json!(values)),
        before: None,
    };
    let wanted = session.arguments(&method).await?;
    let wanted = wanted.map_err(|status| Hindrance::failed(status, &method))?;
    let arguments = encode_arguments(&wanted, values);
    Ok(Ready {
        request: Request::Call {
            object,
            method,
            arguments: arguments.map_err(|why| Hindrance::refused(why, deed.clone()))?,
        },
        deed,
    })
}

/// Each argument in its own type, or which one is wrong.
pub(crate) fn encode_arguments(
    wanted: &[Argument],
    values: &[Json],
) -> Result<Vec<Encoded>, String> {
    if wanted.len() != values.len() {
        let names: Vec<&str> = wanted.iter().map(|it| it.name.as_str()).collect();
        return Err(format!(
            "the method takes {} arguments ({}), and these are {}",
            wanted.len(),
            names.join(", "),
            values.len()
        ));
    }
    let pairs = wanted.iter().zip(values);
    pairs
        .map(|(argument, value)| {
            let encoded = argument.shape.encode(value);
            encoded.map_err(|misfit| format!("argument {}: {misfit}", argument.name))
        })
        .collect()
}

impl Ready {
    /// Sends it, once.
    pub(crate) async fn send(&self, session: &Session) -> Outcome {
        match &self.request {
            Request::Write { node, value } => {
                match session.write(node, value, ANSWER_TIMEOUT).await {
                    Ok(status) => answered(status, Vec::new(), String::new()),
                    Err(error) => unanswered(&error),
                }
            }
            Request::Call {
                object,
                method,
                arguments,
            } => {
                let called = session.call_method(object, method, arguments, ANSWER_TIMEOUT);
                match called.await {
                    Ok(called) => answered(called.status, called.outputs, wrong(&called.wrong)),
                    Err(error) => unanswered(&error),
                }
            }
        }
    }
}

/// Which arguments the server does not take, and why.
pub(crate) fn wrong(arguments: &[(usize, u32)]) -> String {
    let words =
        |(place, code): &(usize, u32)| format!("argument {}: {}", place + 1, status_name(*code));
    arguments.iter().map(words).collect::<Vec<_>>().join(", ")
}

fn answered(status: u32, outputs: Vec<Value>, detail: String) -> Outcome {
    match status::is_bad(status) {
        true => Outcome::Failed { status, detail },
        false => Outcome::Done { status, outputs },
    }
}

/// A fault of the whole service is the server's word that it did nothing, unless it leaves that open.
fn unanswered(error: &Error) -> Outcome {
    match error.status() {
        Some(status) if !error.leaves_open() => {
            let detail = String::new();
            Outcome::Failed { status, detail }
        }
        _ => Outcome::Unknown(format!("the server did not answer: {error}")),
    }
}
