//! A client's half of a session: what outlives the connection, and nothing else. Pure.
//!
//! The standard's words for it (4.1, 4.3, 4.4, 4.6): messages sent and not yet acknowledged, ids
//! of QoS 2 messages received and not yet released. It holds the broker to its half, too:
//! acknowledgements in the order of the publishes, resends that say DUP and are the same message.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;

use super::packet::{Message, Qos, Received, Sent, Version};

/// Answers to a PUBREL whose exchange is complete on the other side (version 5, 3.7.2.1).
const ID_NOT_FOUND: u8 = 0x92;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Flow {
    id: u16,
    /// The caller's own number for the message.
    token: u64,
    message: Message,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Published,
    /// PUBREC came: from here on PUBREL is what is sent again.
    Received,
}

/// What a packet of the other side meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// PUBACK or PUBREC: the broker has it on disk.
    Acked(u64),
    /// The broker said why it does not take the message, and the exchange is over.
    Refused(u64, u8),
    /// PUBCOMP.
    Completed,
    Delivered(Message),
    /// A QoS 2 message that was delivered before.
    Repeated,
    /// Nothing but an answer was due.
    Answered,
}

#[derive(Debug)]
pub struct Session {
    pub version: Version,
    pub client_id: String,
    /// Publishes that may be unacknowledged at once; the broker may allow fewer.
    pub window: usize,
    last_id: u16,
    flows: VecDeque<Flow>,
    subscribing: BTreeSet<u16>,
    /// Digest of each QoS 2 message that was delivered and not yet released, by its id.
    unreleased: BTreeMap<u16, (String, Bytes)>,
    /// Ids of `unreleased` that were received before this connection.
    from_before: BTreeSet<u16>,
}

impl Session {
    #[must_use]
    pub fn new(version: Version, client_id: &str, window: usize) -> Self {
        Self {
            version,
            client_id: client_id.to_owned(),
            window,
            last_id: 0,
            flows: VecDeque::new(),
            subscribing: BTreeSet::new(),
            unreleased: BTreeMap::new(),
            from_before: BTreeSet::new(),
        }
    }

    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.flows.len()
    }

    /// Neither side owes the other anything.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.flows.is_empty() && self.unreleased.is_empty()
    }

    /// Begins an exchange, or just a packet at QoS 0.
    pub fn publish(&mut self, message: Message, token: u64) -> Sent {
        if message.qos == Qos::AtMostOnce {
            return Sent::Publish {
                id: 0,
                dup: false,
                message,
            };
        }
        let id = self.next_id();
        self.flows.push_back(Flow {
            id,
            token,
            message: message.clone(),
            stage: Stage::Published,
        });
        Sent::Publish {
            id,
            dup: false,
            message,
        }
    }

    pub fn subscribe(&mut self, filters: Vec<(String, Qos)>) -> Sent {
        let id = self.next_id();
        self.subscribing.insert(id);
        Sent::Subscribe { id, filters }
    }

    fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let id = self.last_id;
            let used = self.flows.iter().any(|flow| flow.id == id);
            if !used && !self.subscribing.contains(&id) {
                return id;
            }
        }
    }

    /// The session goes on over a new connection: what has to be sent again, in order, and the
    /// tokens of the publishes among it.
    pub fn resume(&mut self) -> (Vec<Sent>, Vec<u64>) {
        self.subscribing.clear();
        self.from_before = self.unreleased.keys().copied().collect();
        let published = |flow: &&Flow| flow.stage == Stage::Published;
        let again = self.flows.iter().filter(published).map(|flow| flow.token);
        let packets = self.flows.iter().map(|flow| match flow.stage {
            Stage::Published => Sent::Publish {
                id: flow.id,
                dup: true,
                message: flow.message.clone(),
            },
            Stage::Received => Sent::PubRel(flow.id),
        });
        (packets.collect(), again.collect())
    }

    /// What `packet` means, and what is to be answered. Only for packets of exchanges.
    pub fn received(&mut self, packet: Received) -> Result<(Step, Option<Sent>)> {
        match packet {
            Received::PubAck { id, code } => Ok((self.acked(id, code, Qos::AtLeastOnce)?, None)),
            Received::PubRec { id, code } => {
                let step = self.acked(id, code, Qos::ExactlyOnce)?;
                let refused = matches!(step, Step::Refused(..));
                Ok((step, (!refused).then_some(Sent::PubRel(id))))
            }
            Received::PubComp { id, code } => {
                ensure!(
                    code == 0 || code == ID_NOT_FOUND,
                    "PUBCOMP with {code:#04x}"
                );
                let at = self.flows.iter().position(|flow| flow.id == id);
                let at = at.with_context(|| format!("PUBCOMP {id} for nothing"))?;
                let flow = self.flows.remove(at).expect("just found");
                ensure!(flow.stage == Stage::Received, "PUBCOMP {id} without PUBREC");
                Ok((Step::Completed, None))
            }
            Received::PubRel { id, code } => {
                ensure!(code == 0 || code == ID_NOT_FOUND, "PUBREL with {code:#04x}");
                self.unreleased.remove(&id);
                self.from_before.remove(&id);
                Ok((Step::Answered, Some(Sent::PubComp(id))))
            }
            Received::Publish {
                id, dup, message, ..
            } => match (message.qos, id) {
                (Qos::AtLeastOnce, Some(id)) => {
                    Ok((Step::Delivered(message), Some(Sent::PubAck(id))))
                }
                (Qos::ExactlyOnce, Some(id)) => {
                    let step = self.delivered_once(id, dup, message)?;
                    Ok((step, Some(Sent::PubRec(id))))
                }
                _ => Ok((Step::Delivered(message), None)),
            },
            Received::SubAck { id, .. } => {
                let known = self.subscribing.remove(&id);
                ensure!(known, "SUBACK {id} for nothing");
                Ok((Step::Answered, None))
            }
            other => anyhow::bail!("{other:?} belongs to no exchange"),
        }
    }

    /// PUBACK or PUBREC: they come in the order of the publishes (4.6).
    fn acked(&mut self, id: u16, code: u8, qos: Qos) -> Result<Step> {
        let waiting = |flow: &Flow| flow.message.qos == qos && flow.stage == Stage::Published;
        let at = self.flows.iter().position(waiting);
        let at = at.with_context(|| format!("{qos:?}: {id} acknowledged, none waits for it"))?;
        let flow = &mut self.flows[at];
        let due = flow.id;
        ensure!(due == id, "{qos:?}: {id} acknowledged before {due}");
        let token = flow.token;
        if qos == Qos::ExactlyOnce && code < 0x80 {
            flow.stage = Stage::Received;
            return Ok(Step::Acked(token));
        }
        self.flows.remove(at);
        match code {
            0..0x80 => Ok(Step::Acked(token)),
            code => Ok(Step::Refused(token, code)),
        }
    }

    /// The only thing that tells a resend from a new message is its id (4.3.3).
    fn delivered_once(&mut self, id: u16, dup: bool, message: Message) -> Result<Step> {
        let fingerprint = (message.topic.clone(), message.payload.clone());
        let Some(before) = self.unreleased.get(&id) else {
            self.unreleased.insert(id, fingerprint);
            return Ok(Step::Delivered(message));
        };
        ensure!(
            *before == fingerprint,
            "QoS 2 id {id} was used for another message before its PUBREL: {before:?}, {message:?}"
        );
        ensure!(dup, "{message:?} was sent again without DUP");
        let once = self.from_before.remove(&id);
        ensure!(once, "{message:?} was sent again on the same connection");
        Ok(Step::Repeated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &'static str, qos: Qos) -> Message {
        Message::new("t", payload, qos)
    }

    fn arriving(id: u16, dup: bool, payload: &'static str) -> Received {
        Received::Publish {
            id: Some(id),
            dup,
            message: message(payload, Qos::ExactlyOnce),
            properties: Default::default(),
        }
    }

    fn session() -> Session {
        Session::new(Version::V311, "c", 10)
    }

    #[test]
    fn what_is_unacknowledged_is_sent_again_from_where_it_stood() {
        let mut session = session();
        for (token, qos) in [Qos::AtLeastOnce, Qos::ExactlyOnce, Qos::ExactlyOnce]
            .into_iter()
            .enumerate()
        {
            session.publish(message("m", qos), token as u64);
        }
        let (step, answer) = session
            .received(Received::PubRec { id: 2, code: 0 })
            .unwrap();
        assert_eq!((step, answer), (Step::Acked(1), Some(Sent::PubRel(2))));
        let (packets, tokens) = session.resume();
        let again = |id, qos| Sent::Publish {
            id,
            dup: true,
            message: message("m", qos),
        };
        let expected = [
            again(1, Qos::AtLeastOnce),
            Sent::PubRel(2),
            again(3, Qos::ExactlyOnce),
        ];
        assert_eq!(packets, expected);
        assert_eq!(tokens, [0, 2]);
        session
            .received(Received::PubComp { id: 2, code: 0 })
            .unwrap();
        session
            .received(Received::PubAck { id: 1, code: 0 })
            .unwrap();
        assert_eq!(session.in_flight(), 1);
    }

    #[test]
    fn qos_2_is_delivered_once_until_it_is_released() {
        let mut session = session();
        let delivered = Step::Delivered(message("x", Qos::ExactlyOnce));
        assert_eq!(
            session.received(arriving(5, false, "x")).unwrap().0,
            delivered
        );
        session.resume();
        assert_eq!(
            session.received(arriving(5, true, "x")).unwrap().0,
            Step::Repeated
        );
        session
            .received(Received::PubRel { id: 5, code: 0 })
            .unwrap();
        assert_eq!(
            session.received(arriving(5, false, "x")).unwrap().0,
            delivered
        );
    }

    #[test]
    fn a_broker_that_breaks_the_rules_is_found_out() {
        let complaint =
            |session: &mut Session, packet| session.received(packet).unwrap_err().to_string();
        let mut two = session();
        two.publish(message("a", Qos::AtLeastOnce), 0);
        two.publish(message("b", Qos::AtLeastOnce), 1);
        let early = complaint(&mut two, Received::PubAck { id: 2, code: 0 });
        assert!(early.contains("2 acknowledged before 1"), "{early}");
        let nothing = complaint(&mut session(), Received::PubComp { id: 9, code: 0 });
        assert!(nothing.contains("for nothing"), "{nothing}");

        let mut reused = session();
        reused.received(arriving(5, false, "x")).unwrap();
        let other = complaint(&mut reused, arriving(5, false, "y"));
        assert!(other.contains("used for another message"), "{other}");
        let same = complaint(&mut reused, arriving(5, true, "x"));
        assert!(same.contains("on the same connection"), "{same}");
        reused.resume();
        let silent = complaint(&mut reused, arriving(5, false, "x"));
        assert!(silent.contains("without DUP"), "{silent}");
    }
}
