//! Reason codes in words, for whoever reads a client's log: what happened, and what to do.

use super::{Outgoing, reason};

/// What to add to a packet that tells a failure; `None` where its code says it all.
pub(super) fn explain(packet: &Outgoing) -> Option<&str> {
    match packet {
        Outgoing::ConnAck {
            code, properties, ..
        } => properties
            .reason_string
            .as_deref()
            .or_else(|| connack(*code)),
        Outgoing::PubAck(ack) | Outgoing::PubRec(ack) => publish(ack.reason),
        Outgoing::SubAck { codes, .. } => codes.iter().copied().find_map(subscribe),
        Outgoing::UnsubAck { codes, .. } => codes.iter().copied().find_map(unsubscribe),
        Outgoing::Disconnect { reason, why } => why.as_deref().or_else(|| disconnect(*reason)),
        Outgoing::PubRel(_) | Outgoing::PubComp(_) | Outgoing::PingResp => None,
    }
}

const fn connack(code: u8) -> Option<&'static str> {
    Some(match code {
        reason::UNSUPPORTED_VERSION => {
            "this node speaks MQTT 3.1, 3.1.1 and 5.0: set the client to one of them"
        }
        reason::CLIENT_ID_INVALID => {
            "the client id cannot be used: choose another, or none to be given one"
        }
        reason::NOT_AUTHORIZED => {
            "not allowed by this node's access rules: check the login, and the will's topic"
        }
        reason::SERVER_BUSY => "this node is busy: connect again in a while",
        reason::BAD_AUTH_METHOD => {
            "this node has no enhanced authentication: log in with user and password"
        }
        _ => return None,
    })
}

const fn publish(code: u8) -> Option<&'static str> {
    Some(match code {
        reason::IMPLEMENTATION_SPECIFIC => {
            "the log could not store it: see the node's status, and publish it again later"
        }
        reason::NOT_AUTHORIZED => {
            "this client may not publish to this topic: see the node's access rules"
        }
        reason::QUOTA_EXCEEDED => {
            "the log is full until the cluster has taken older data: publish it again later"
        }
        reason::PAYLOAD_FORMAT_INVALID => {
            "the payload is not UTF-8 as its format indicator says: mend one of the two"
        }
        _ => return None,
    })
}

const fn subscribe(code: u8) -> Option<&'static str> {
    Some(match code {
        reason::UNSPECIFIED => {
            "this client may not subscribe to a filter: see the node's access rules"
        }
        reason::FILTER_INVALID => "a filter has more levels than this node takes: shorten it",
        reason::QUOTA_EXCEEDED => {
            "this session has as many subscriptions as it may: use a wildcard for several"
        }
        _ => return None,
    })
}

const fn unsubscribe(code: u8) -> Option<&'static str> {
    Some(match code {
        reason::NO_SUBSCRIPTION_EXISTED => "this session has no subscription with such a filter",
        _ => return None,
    })
}

const fn disconnect(code: u8) -> Option<&'static str> {
    Some(match code {
        reason::NOT_AUTHORIZED => "not allowed by this node's access rules",
        reason::SHUTTING_DOWN => "this node is stopping: connect again in a while",
        reason::KEEP_ALIVE_TIMEOUT => {
            "nothing was heard for one and a half times the keep-alive: send PINGREQ in time"
        }
        reason::TAKEN_OVER => {
            "another connection came with this client id: give each client one of its own"
        }
        reason::QUOTA_EXCEEDED => "the log is full until the cluster has taken older data",
        _ => return None,
    })
}
