//! The protocol of one connection after CONNECT, without I/O: a packet in, at most one thing to
//! do out. Time, sockets, the log and other sessions are the driver's (`connection.rs`).

use crate::codec::{
    Ack, Disconnect, Incoming, Malformed, Outgoing, PacketId, Publish, Qos, Subscribe, Unsubscribe,
    Version, reason,
};
use crate::config::{TOPIC_ALIAS_MAX, UNCOMMITTED_MAX};
use crate::outbound::{Outbound, Owed, Received};
use crate::qos2::{Digest, Held, Ids};
use std::collections::HashMap;

/// What the driver has to do about a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Nothing,
    Send(Outgoing),
    /// Append to the log; [`Session::committed`] or [`Session::refused`] follows for QoS 1 and 2.
    Ingest(Publish),
    /// Not to be logged: the payload is not the text that it says it is. [`Session::refused`]
    /// follows for QoS 1 and 2.
    Refuse(Publish),
    /// Forget a QoS 2 id in the catalog; [`Session::forgotten`] follows.
    Forget(PacketId),
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
    /// The client says good-bye.
    Leave(Disconnect),
}

#[derive(Debug)]
pub(crate) struct Session {
    version: Version,
    aliases: HashMap<u16, String>,
    /// QoS 1 publishes without their PUBACK; QoS 2 ones are counted by `ids`.
    unacknowledged: usize,
    /// Inbound QoS 2 ids between PUBLISH and PUBCOMP.
    pub ids: Ids,
    pub outbound: Outbound,
    suppressed: u64,
}

impl Session {
    pub(crate) fn new(version: Version, ids: Ids, outbound: Outbound) -> Self {
        Self {
            version,
            aliases: HashMap::new(),
            unacknowledged: 0,
            ids,
            outbound,
            suppressed: 0,
        }
    }

    /// QoS 2 publishes that were answered without being logged again, since the last call.
    pub(crate) fn take_suppressed(&mut self) -> u64 {
        std::mem::take(&mut self.suppressed)
    }

    pub(crate) fn packet(&mut self, packet: Incoming) -> Result<Step, Malformed> {
        Ok(match packet {
            Incoming::Publish(publish) => self.publish(publish)?,
            Incoming::PubAck(ack) => {
                self.check_turn(ack.id, &[Owed::Acknowledgement])?;
                self.outbound.acknowledged(ack.id);
                Step::Nothing
            }
            Incoming::PubRec(ack) => {
                self.check_turn(ack.id, &[Owed::Receipt, Owed::Completion])?;
                match self.outbound.received(ack.id, ack.reason) {
                    Received::Refused => Step::Nothing,
                    Received::Unknown if ack.reason >= 0x80 => Step::Nothing,
                    // Known or not, the client is to let go of it: see `release`.
                    Received::Release | Received::Unknown => {
                        Step::Send(Outgoing::PubRel(Ack::ok(ack.id)))
                    }
                }
            }
            Incoming::PubRel(ack) => self.release(ack.id),
            Incoming::PubComp(ack) => {
                self.check_turn(ack.id, &[Owed::Completion])?;
                self.outbound.completed(ack.id);
                Step::Nothing
            }
            Incoming::Subscribe(subscribe) => Step::Subscribe(subscribe),
            Incoming::Unsubscribe(unsubscribe) => Step::Unsubscribe(unsubscribe),
            Incoming::PingReq => Step::Send(Outgoing::PingResp),
            Incoming::Disconnect(disconnect) => Step::Leave(disconnect),
            Incoming::Connect(_) => return Err(Malformed::SecondConnect),
            Incoming::Auth => return Err(Malformed::Auth),
        })
    }

    /// An acknowledgement is for a delivery that awaits it, or for one that is over: that happens
    /// to a client that resumes. For another kind of delivery it is an error (4.3).
    fn check_turn(&self, id: PacketId, allowed: &[Owed]) -> Result<(), Malformed> {
        match self.outbound.owed(id) {
            Some(owed) if !allowed.contains(&owed) => Err(Malformed::Acknowledgement),
            _ => Ok(()),
        }
    }

    fn publish(&mut self, mut publish: Publish) -> Result<Step, Malformed> {
        self.resolve_alias(&mut publish)?;
        let Some(id) = publish.id else {
            return Ok(step_for(publish));
        };
        if publish.qos == Qos::ExactlyOnce {
            match self.ids.begin(
                id,
                Digest::of(&publish.topic, &publish.payload),
                publish.dup,
            ) {
                Held::New => {}
                Held::Uncommitted => {
                    // The first copy is on its way to the disk and its commit answers this one.
                    self.suppressed += 1;
                    return Ok(Step::Nothing);
                }
                Held::Committed => {
                    self.suppressed += 1;
                    return Ok(Step::Send(Outgoing::PubRec(Ack::ok(id))));
                }
            }
        } else {
            self.unacknowledged += 1;
        }
        let outstanding = self.unacknowledged + self.ids.since_connect();
        if self.version == Version::V5 && outstanding > usize::from(UNCOMMITTED_MAX) {
            return Err(Malformed::ReceiveMaximum);
        }
        Ok(step_for(publish))
    }

    fn resolve_alias(&mut self, publish: &mut Publish) -> Result<(), Malformed> {
        let Some(alias) = publish.properties.topic_alias.take() else {
            return Ok(());
        };
        if alias == 0 || alias > TOPIC_ALIAS_MAX {
            return Err(Malformed::TopicAlias);
        }
        if publish.topic.is_empty() {
            let topic = self.aliases.get(&alias).ok_or(Malformed::NoTopic)?;
            publish.topic.clone_from(topic);
        } else {
            self.aliases.insert(alias, publish.topic.clone());
        }
        Ok(())
    }

    fn release(&mut self, id: PacketId) -> Step {
        match self.ids.release(id) {
            Held::Committed => Step::Forget(id),
            // PUBREL before PUBREC: out of turn. The publish stays what it is.
            Held::Uncommitted => Step::Nothing,
            // The answer to an earlier one was lost with its connection. Version 5 has the word
            // "packet identifier not found" for it, but client libraries report that as a failed
            // publish, and an application that publishes once more has its message twice.
            Held::New => Step::Send(Outgoing::PubComp(Ack::ok(id))),
        }
    }

    /// The record is on disk: now, and not before, the client may be told.
    pub(crate) fn committed(&mut self, qos: Qos, id: Option<PacketId>) -> Option<Outgoing> {
        let id = id?;
        if qos == Qos::ExactlyOnce {
            self.ids.committed(id);
            return Some(Outgoing::PubRec(Ack::ok(id)));
        }
        self.unacknowledged -= 1;
        Some(Outgoing::PubAck(Ack::ok(id)))
    }

    /// The record is not in the log. `None` where the protocol has no way to say so.
    ///
    /// A 3.1.1 client that may not publish there gets its acknowledgement all the same (3.3.5, as
    /// in mosquitto): the alternative is to close on it, and it would send the same again at once,
    /// before all that it may publish. The refusal is in the audit stream.
    pub(crate) fn refused(
        &mut self,
        qos: Qos,
        id: Option<PacketId>,
        reason: u8,
    ) -> Option<Outgoing> {
        let id = id?;
        if qos == Qos::ExactlyOnce {
            self.ids.forgotten(id);
        } else {
            self.unacknowledged -= 1;
        }
        let ack = match self.version {
            Version::V311 if reason == reason::NOT_AUTHORIZED => Ack::ok(id),
            Version::V311 => return None,
            Version::V5 => Ack { id, reason },
        };
        Some(match qos {
            Qos::ExactlyOnce => Outgoing::PubRec(ack),
            _ => Outgoing::PubAck(ack),
        })
    }

    /// The catalog has forgotten a QoS 2 id.
    pub(crate) fn forgotten(&mut self, id: PacketId) -> Outgoing {
        self.ids.forgotten(id);
        Outgoing::PubComp(Ack::ok(id))
    }
}

/// The check of a payload that says it is text is the receiver's to make or not (3.3.2.3.2). Made,
/// the promise holds for whoever reads the log.
fn step_for(publish: Publish) -> Step {
    let says_text = publish.properties.payload_is_text == Some(true);
    if says_text && std::str::from_utf8(&publish.payload).is_err() {
        Step::Refuse(publish)
    } else {
        Step::Ingest(publish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{PublishProperties, reason};
    use crate::delivery::{Delivery, Source};
    use bytes::Bytes;

    fn id(number: u16) -> PacketId {
        PacketId::new(number).expect("not zero")
    }

    fn new_session(version: Version) -> Session {
        Session::new(version, Ids::default(), Outbound::default())
    }

    fn publish(qos: Qos, number: u16) -> Incoming {
        Incoming::Publish(Publish {
            qos,
            topic: "t".into(),
            id: PacketId::new(number),
            payload: Bytes::from_static(b"1"),
            ..Publish::default()
        })
    }

    fn is_ingest(step: &Step) -> bool {
        matches!(step, Step::Ingest(_))
    }

    #[test]
    fn nothing_is_acknowledged_before_the_commit() {
        let mut session = new_session(Version::V311);
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            let number = qos as u16;
            assert!(is_ingest(
                &session.packet(publish(qos, number)).expect("fine")
            ));
        }
        assert_eq!(session.committed(Qos::AtMostOnce, None), None);
        let ack = session.committed(Qos::AtLeastOnce, Some(id(1)));
        assert_eq!(ack, Some(Outgoing::PubAck(Ack::ok(id(1)))));
        let ack = session.committed(Qos::ExactlyOnce, Some(id(2)));
        assert_eq!(ack, Some(Outgoing::PubRec(Ack::ok(id(2)))));
    }

    #[test]
    fn qos_2_is_ingested_once_per_id() {
        let mut session = new_session(Version::V5);
        let again = |session: &mut Session| session.packet(publish(Qos::ExactlyOnce, 5));
        assert!(is_ingest(&again(&mut session).expect("fine")));
        assert_eq!(again(&mut session), Ok(Step::Nothing), "still uncommitted");
        session.committed(Qos::ExactlyOnce, Some(id(5)));
        let received = Ok(Step::Send(Outgoing::PubRec(Ack::ok(id(5)))));
        assert_eq!(again(&mut session), received);
        assert_eq!(session.take_suppressed(), 2);

        let release = Incoming::PubRel(Ack::ok(id(5)));
        assert_eq!(session.packet(release.clone()), Ok(Step::Forget(id(5))));
        assert_eq!(session.forgotten(id(5)), Outgoing::PubComp(Ack::ok(id(5))));
        let again_complete = Step::Send(Outgoing::PubComp(Ack::ok(id(5))));
        assert_eq!(session.packet(release), Ok(again_complete));
        assert!(
            is_ingest(&again(&mut session).expect("fine")),
            "the id is free again"
        );
    }

    #[test]
    fn a_refusal_is_said_in_version_5_and_frees_the_id() {
        let mut session = new_session(Version::V5);
        for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
            session.packet(publish(qos, 3)).expect("fine");
            let said = session.refused(qos, Some(id(3)), reason::QUOTA_EXCEEDED);
            assert!(said.is_some());
            assert!(is_ingest(&session.packet(publish(qos, 3)).expect("fine")));
            session.refused(qos, Some(id(3)), reason::QUOTA_EXCEEDED);
        }
        let mut old = new_session(Version::V311);
        old.packet(publish(Qos::AtLeastOnce, 3)).expect("fine");
        assert_eq!(
            old.refused(Qos::AtLeastOnce, Some(id(3)), reason::QUOTA_EXCEEDED),
            None
        );
        for (qos, acknowledged) in [
            (Qos::AtLeastOnce, Outgoing::PubAck(Ack::ok(id(4)))),
            (Qos::ExactlyOnce, Outgoing::PubRec(Ack::ok(id(4)))),
        ] {
            old.packet(publish(qos, 4)).expect("fine");
            let said = old.refused(qos, Some(id(4)), reason::NOT_AUTHORIZED);
            assert_eq!(said, Some(acknowledged), "dropped as 3.3.5 allows");
        }
    }

    #[test]
    fn version_5_may_not_exceed_the_receive_maximum() {
        let mut session = new_session(Version::V5);
        for number in 1..=UNCOMMITTED_MAX {
            session
                .packet(publish(Qos::AtLeastOnce, number))
                .expect("within the maximum");
        }
        let over = session.packet(publish(Qos::AtLeastOnce, UNCOMMITTED_MAX + 1));
        assert_eq!(over, Err(Malformed::ReceiveMaximum));
    }

    #[test]
    fn topic_aliases_are_set_used_and_bounded() {
        let mut session = new_session(Version::V5);
        let mut with_alias = |topic: &str, alias| {
            session.packet(Incoming::Publish(Publish {
                topic: topic.into(),
                properties: PublishProperties {
                    topic_alias: Some(alias),
                    ..PublishProperties::default()
                },
                ..Publish::default()
            }))
        };
        assert_eq!(with_alias("", 1), Err(Malformed::NoTopic), "never set");
        assert!(with_alias("a", 1).is_ok());
        match with_alias("", 1) {
            Ok(Step::Ingest(publish)) => assert_eq!(publish.topic, "a"),
            other => panic!("{other:?}"),
        }
        assert_eq!(with_alias("a", 0), Err(Malformed::TopicAlias));
        assert_eq!(
            with_alias("a", TOPIC_ALIAS_MAX + 1),
            Err(Malformed::TopicAlias)
        );
    }

    fn deliver(session: &mut Session, qos: Qos) -> PacketId {
        session.outbound.set_window(10);
        session.outbound.send(&Delivery::empty(qos, Source::Memory))
    }

    #[test]
    fn acknowledgements_of_the_wrong_kind_end_the_connection() {
        type Kind = fn(Ack) -> Incoming;
        let (ack, rec, comp): (Kind, Kind, Kind) =
            (Incoming::PubAck, Incoming::PubRec, Incoming::PubComp);
        for (qos, before, wrong) in [
            (Qos::AtLeastOnce, None, rec),
            (Qos::AtLeastOnce, None, comp),
            (Qos::ExactlyOnce, None, ack),
            (Qos::ExactlyOnce, None, comp),
            (Qos::ExactlyOnce, Some(rec), ack),
        ] {
            let mut session = new_session(Version::V5);
            let id = deliver(&mut session, qos);
            if let Some(before) = before {
                session.packet(before(Ack::ok(id))).expect("in turn");
            }
            let answer = session.packet(wrong(Ack::ok(id)));
            assert_eq!(answer, Err(Malformed::Acknowledgement));
        }
        // What is over, or was never known, is no error.
        let mut session = new_session(Version::V5);
        let id = id(9);
        assert_eq!(session.packet(ack(Ack::ok(id))), Ok(Step::Nothing));
        assert_eq!(session.packet(comp(Ack::ok(id))), Ok(Step::Nothing));
        let release = Ok(Step::Send(Outgoing::PubRel(Ack::ok(id))));
        assert_eq!(session.packet(rec(Ack::ok(id))), release);
        let refused = Ack { id, reason: 0x80 };
        assert_eq!(session.packet(rec(refused)), Ok(Step::Nothing));
    }

    #[test]
    fn a_payload_that_is_not_the_text_it_says_it_is_is_refused() {
        let mut session = new_session(Version::V5);
        for (payload_is_text, payload, is_refused) in [
            (Some(true), &b"\xff"[..], true),
            (Some(true), "ü".as_bytes(), false),
            (Some(false), b"\xff", false),
            (None, b"\xff", false),
        ] {
            for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
                let publish = Publish {
                    qos,
                    topic: "t".into(),
                    id: PacketId::new(qos as u16),
                    payload: Bytes::copy_from_slice(payload),
                    properties: PublishProperties {
                        payload_is_text,
                        ..PublishProperties::default()
                    },
                    ..Publish::default()
                };
                let id = publish.id;
                let step = session.packet(Incoming::Publish(publish)).expect("fine");
                assert_eq!(matches!(step, Step::Refuse(_)), is_refused);
                session.refused(qos, id, reason::PAYLOAD_FORMAT_INVALID);
            }
        }
    }
}
