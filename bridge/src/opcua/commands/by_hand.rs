//! The same by hand: an engineer writes and calls, and sees what becomes of it. Without a node,
//! hence without its lists and its audit.

use super::plain;
use super::wish::{ANSWER_TIMEOUT, encode_arguments, wrong};
use crate::Boxed;
use crate::opcua::address::NodeAddress;
use crate::opcua::error::{Error, status};
use crate::opcua::find::locate;
use crate::opcua::value::Value;
use crate::opcua::visit::Visit;
use crate::opcua::wire::{Argument, Encoded, Session, Shape};
use serde::Serialize;
use serde_json::Value as Json;

/// What a node held before a write and holds after it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Written {
    pub node: String,
    pub before: Json,
    pub after: Json,
}

/// What a method answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Called {
    pub outputs: Vec<Json>,
}

/// Writes `text` to `node`: JSON, or for texts, times and the like also without its quotes. With
/// `data_type` that built-in type is sent, in place of the one that the server names.
///
/// # Errors
/// When the server cannot be reached, or does not do it, in words; nothing is sent that the node's
/// type does not hold exactly.
pub fn write<'a>(
    visit: &'a Visit,
    node: &'a NodeAddress,
    text: &'a str,
    data_type: Option<&'a str>,
) -> Boxed<'a, Result<Written, Error>> {
    Box::pin(async move {
        let session = visit.session().await?;
        let written = write_on(&session, node, text, data_type).await;
        session.leave(false).await;
        written
    })
}

/// Calls `method` of `object`; the arguments are JSON as in [`write`].
///
/// # Errors
/// As [`write`].
pub fn call<'a>(
    visit: &'a Visit,
    object: &'a NodeAddress,
    method: &'a NodeAddress,
    arguments: &'a [String],
) -> Boxed<'a, Result<Called, Error>> {
    Box::pin(async move {
        let session = visit.session().await?;
        let called = call_on(&session, object, method, arguments).await;
        session.leave(false).await;
        called
    })
}

async fn write_on(
    session: &Session,
    node: &NodeAddress,
    text: &str,
    data_type: Option<&str>,
) -> Result<Written, Error> {
    let id = resolve(session, node).await?;
    let target = session.target(&id).await?;
    let target = target.map_err(|code| Error::command(code, &node.to_string()))?;
    let shape = match data_type {
        None => target.shape,
        Some(word) => Shape::named(word).ok_or_else(|| {
            Error::Unsendable(format!("`{word}` is none of OPC-UA's built-in types"))
        })?,
    };
    let value = encode(shape, text)?;
    let code = session.write(&id, &value, ANSWER_TIMEOUT).await;
    let code = code.map_err(|error| unanswered(error, node))?;
    if status::is_bad(code) {
        return Err(Error::command(code, &node.to_string()));
    }
    let after = session.target(&id).await?;
    Ok(Written {
        node: node.to_string(),
        before: json(&target.holds),
        after: after.map_or(Json::Null, |after| json(&after.holds)),
    })
}

async fn call_on(
    session: &Session,
    object: &NodeAddress,
    method: &NodeAddress,
    texts: &[String],
) -> Result<Called, Error> {
    let (on, id) = (
        resolve(session, object).await?,
        resolve(session, method).await?,
    );
    let wanted = session.arguments(&id).await?;
    let wanted = wanted.map_err(|code| Error::command(code, &method.to_string()))?;
    let values: Vec<Json> = texts
        .iter()
        .enumerate()
        .map(|(place, text)| argument(wanted.get(place), text))
        .collect();
    let arguments = encode_arguments(&wanted, &values).map_err(Error::Unsendable)?;
    let called = session.call_method(&on, &id, &arguments, ANSWER_TIMEOUT);
    let called = called.await.map_err(|error| unanswered(error, method))?;
    if status::is_bad(called.status) {
        let about = match wrong(&called.wrong) {
            wrong if wrong.is_empty() => method.to_string(),
            wrong => format!("{method}, {wrong}"),
        };
        return Err(Error::command(called.status, &about));
    }
    Ok(Called {
        outputs: called.outputs.iter().map(json).collect(),
    })
}

async fn resolve(session: &Session, address: &NodeAddress) -> Result<String, Error> {
    let located = locate(session, &[address]).await?.pop();
    let located = located.unwrap_or(Err(status::BAD_NODE_ID_UNKNOWN));
    located.map_err(|code| Error::command(code, &address.to_string()))
}

/// Whoever waits at a machine must not take silence for "no".
fn unanswered(error: Error, about: &NodeAddress) -> Error {
    match error.leaves_open() {
        true => Error::Unanswered {
            about: about.to_string(),
            source: Box::new(error),
        },
        false => error,
    }
}

impl Error {
    fn command(status: u32, about: &str) -> Self {
        Self::Command {
            about: about.to_owned(),
            status,
            detail: plain::words(status),
        }
    }
}

/// As JSON, else as a text that a shell has taken the quotes from.
fn encode(shape: Shape, text: &str) -> Result<Encoded, Error> {
    let bare = Json::String(text.to_owned());
    let as_text = || shape.encode(&bare);
    let encoded = match serde_json::from_str(text) {
        Ok(json) => shape
            .encode(&json)
            .or_else(|misfit| as_text().map_err(|_| misfit)),
        Err(_) => as_text(),
    };
    encoded.map_err(|misfit| Error::Unsendable(misfit.to_string()))
}

fn argument(wanted: Option<&Argument>, text: &str) -> Json {
    let json = serde_json::from_str(text).ok();
    let json = json.filter(|json| wanted.is_none_or(|it| it.shape.encode(json).is_ok()));
    json.unwrap_or_else(|| Json::String(text.to_owned()))
}

fn json(value: &Value) -> Json {
    serde_json::to_value(value).unwrap_or_default()
}
