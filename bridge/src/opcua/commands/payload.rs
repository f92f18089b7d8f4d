//! What a message says: a bare value, or one with an id of the sender's own.
//!
//! ```text
//! 42.5        [1, 2]        {"value": 42.5, "id": "order-17"}
//! ```

use serde_json::{Map, Value as Json};

/// Longest id that is repeated to the sender.
const ID_BYTES_MAX: usize = 256;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Payload {
    pub(crate) value: Json,
    /// A text or a number, as it came.
    pub(crate) id: Option<Json>,
}

/// Which alarm, and what to say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alarm {
    pub(crate) condition: String,
    /// As base64.
    pub(crate) event: String,
    pub(crate) comment: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("the payload is empty")]
    Empty,
    #[error("the payload is not JSON: {0}; a text stands in quotes")]
    Json(String),
    #[error("`{0}` is none of `value` and `id`, which a command consists of")]
    Key(String),
    #[error("`id` must be a text of at most {ID_BYTES_MAX} bytes, or a number")]
    Id,
    #[error("`{0}` is missing, or no text: the event that is acknowledged has it")]
    Alarm(&'static str),
}

impl Payload {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(Unreadable::Empty);
        }
        let json = serde_json::from_slice(bytes);
        match json.map_err(|why| Unreadable::Json(why.to_string()))? {
            Json::Object(mut fields) if fields.contains_key("value") => {
                let value = fields.remove("value").unwrap_or_default();
                let id = id(&mut fields)?;
                match fields.into_iter().next() {
                    Some((key, _)) => Err(Unreadable::Key(key)),
                    None => Ok(Self { value, id }),
                }
            }
            value => Ok(Self { value, id: None }),
        }
    }

    /// For an acknowledgement the message is one object. Others of its fields are left alone, so
    /// that the event's own payload, with a comment added, will do.
    pub(crate) fn parse_alarm(bytes: &[u8]) -> Result<(Alarm, Option<Json>), Unreadable> {
        let json = serde_json::from_slice(bytes);
        let Json::Object(mut fields) = json.map_err(|why| Unreadable::Json(why.to_string()))?
        else {
            return Err(Unreadable::Alarm("ConditionId"));
        };
        let id = id(&mut fields)?;
        let text = |key| match fields.get(key) {
            Some(Json::String(text)) => Some(text.clone()),
            // As the log has values whose JSON alone does not tell their type.
            Some(Json::Object(typed)) => typed.get("value")?.as_str().map(str::to_owned),
            _ => None,
        };
        let alarm = Alarm {
            condition: text("ConditionId").ok_or(Unreadable::Alarm("ConditionId"))?,
            event: text("EventId").ok_or(Unreadable::Alarm("EventId"))?,
            comment: text("Comment").unwrap_or_default(),
        };
        Ok((alarm, id))
    }
}

fn id(fields: &mut Map<String, Json>) -> Result<Option<Json>, Unreadable> {
    match fields.remove("id") {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) if text.len() > ID_BYTES_MAX => Err(Unreadable::Id),
        Some(id @ (Json::String(_) | Json::Number(_))) => Ok(Some(id)),
        Some(_) => Err(Unreadable::Id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_command_is_a_value_bare_or_with_an_id() {
        let of = |text: &str| Payload::parse(text.as_bytes());
        let bare = |value| Payload { value, id: None };
        assert_eq!(of(" 42.5\n"), Ok(bare(json!(42.5))));
        assert_eq!(of(r#"{"text": "a"}"#), Ok(bare(json!({"text": "a"}))));
        let named = Payload {
            value: json!(null),
            id: Some(json!("x")),
        };
        assert_eq!(of(r#"{"value": null, "id": "x"}"#), Ok(named));
        assert_eq!(of(" "), Err(Unreadable::Empty));
        assert!(matches!(of("on"), Err(Unreadable::Json(_))));
        let key = Unreadable::Key("vlaue2".to_owned());
        assert_eq!(of(r#"{"value": 1, "vlaue2": 2}"#), Err(key));
        assert_eq!(of(r#"{"value": 1, "id": [1]}"#), Err(Unreadable::Id));
    }

    #[test]
    fn an_event_with_a_comment_is_an_acknowledgement() {
        let text = r#"{"Severity": 500, "ConditionId": "ns=2;s=Hot", "EventId": {"value": "AQ==", "type": "ByteString"}, "Comment": "seen"}"#;
        let (alarm, id) = Payload::parse_alarm(text.as_bytes()).unwrap();
        assert_eq!(id, None);
        assert_eq!(
            (
                alarm.condition.as_str(),
                alarm.event.as_str(),
                alarm.comment.as_str()
            ),
            ("ns=2;s=Hot", "AQ==", "seen")
        );
        let without = Payload::parse_alarm(br#"{"EventId": "AQ=="}"#);
        assert_eq!(without, Err(Unreadable::Alarm("ConditionId")));
    }
}
