//! What the fuzz targets in `node/broker/fuzz` run: everything that a client's bytes go through
//! before they are a record. Here and not there, so that nothing has to be public for it.
//!
//! In a build of the product this module does not exist: it takes `--cfg fuzzing`, or the tests,
//! which run all committed seeds. A target panics where a promise is broken, and returns how many
//! bytes of memory it may have taken at most for the promises to hold.

use crate::codec::{
    Decoder, Incoming, Malformed, Outgoing, PacketId, Publish, PublishView, Qos, Terms, Version,
    encode, encode_publish,
};
use crate::config::UNCOMMITTED_MAX;
use crate::delivery::{Delivery, Source};
use crate::message::Message;
use crate::outbound::Outbound;
use crate::qos2::Ids;
use crate::session::{Session, Step};
use crate::topic;
use bytes::{BufMut, BytesMut};
use skerry_store::WallNanos;
use std::collections::{BTreeSet, VecDeque};

/// Its name, which is also that of its seeds' folder, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]) -> usize);

pub const TARGETS: [Target; 3] = [
    ("packets", packets),
    ("publish", publish),
    ("session", session),
];

const PACKET_BYTES_MAX: usize = 4096;

/// An empty user property has five bytes on the wire and two `String`s in memory; vectors grow by
/// doubling, and everything is decoded twice.
const fn decoded_bytes_max(input_bytes: usize) -> usize {
    256 * 1024 + 256 * input_bytes
}

/// A stream of packets decodes to the same, however the network cuts it.
///
/// ```text
/// version │ length of each piece │ the stream
/// ```
pub fn packets(input: &[u8]) -> usize {
    let [version, piece, stream @ ..] = input else {
        return decoded_bytes_max(0);
    };
    let decoder = || match version % 3 {
        0 => Decoder::new(PACKET_BYTES_MAX),
        1 => Decoder::of(Version::V311, PACKET_BYTES_MAX),
        _ => Decoder::of(Version::V5, PACKET_BYTES_MAX),
    };
    let whole = decoded(decoder(), [stream].into_iter());
    let pieces = stream.chunks(usize::from(*piece).max(1));
    assert_eq!(whole, decoded(decoder(), pieces));
    for packet in &whole.0 {
        is_valid(packet);
    }
    decoded_bytes_max(stream.len())
}

type Decoded = (Vec<Incoming>, Option<Malformed>);

fn decoded<'a>(mut decoder: Decoder, pieces: impl Iterator<Item = &'a [u8]>) -> Decoded {
    let (mut buffer, mut packets) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.next(&mut buffer) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(malformed) => return (packets, Some(malformed)),
            }
        }
    }
    (packets, None)
}

/// What nothing downstream checks again.
fn is_valid(packet: &Incoming) {
    match packet {
        Incoming::Connect(connect) => {
            let will = connect.will.as_ref();
            assert!(will.is_none_or(|will| topic::is_name(&will.topic) && will.id.is_none()));
            assert_ne!(connect.properties.receive_maximum, Some(0));
        }
        Incoming::Publish(publish) => {
            let has_alias = publish.properties.topic_alias.is_some();
            assert!(topic::is_name(&publish.topic) || publish.topic.is_empty() && has_alias);
            assert_eq!(publish.id.is_some(), publish.qos != Qos::AtMostOnce);
            let answer_to = publish.properties.response_topic.as_deref();
            assert!(answer_to.is_none_or(topic::is_name));
        }
        Incoming::Subscribe(subscribe) => {
            assert!(!subscribe.filters.is_empty() && subscribe.subscription_id != Some(0));
            for (filter, options) in &subscribe.filters {
                assert!(topic::is_filter(filter));
                assert!(!options.no_local || topic::shared(filter).is_none());
            }
        }
        Incoming::Unsubscribe(unsubscribe) => {
            assert!(
                unsubscribe
                    .filters
                    .iter()
                    .all(|filter| topic::is_filter(filter))
            );
        }
        _ => {}
    }
}

/// A packet with its length made to pass.
fn framed(first: u8, body: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_u8(first);
    let mut rest = body.len();
    loop {
        let low = (rest & 0x7F) as u8;
        rest >>= 7;
        bytes.put_u8(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            break;
        }
    }
    bytes.put_slice(body);
    bytes
}

/// A version 5 PUBLISH that decodes is what it is written and decoded to again, and the same from
/// the bytes that go to disk. The first byte of the input holds the flags.
pub fn publish(input: &[u8]) -> usize {
    let Some((flags, body)) = input.split_first() else {
        return decoded_bytes_max(0);
    };
    let decode = |mut bytes| match Decoder::of(Version::V5, usize::MAX).next(&mut bytes) {
        Ok(Some(Incoming::Publish(publish))) => Some(publish),
        _ => None,
    };
    let Some(mut publish) = decode(framed(0x30 | flags & 0x0F, body)) else {
        return decoded_bytes_max(input.len());
    };
    publish.properties.topic_alias = None;
    if publish.topic.is_empty() {
        return decoded_bytes_max(input.len());
    }
    let mut bytes = BytesMut::new();
    let view = PublishView {
        dup: publish.dup,
        qos: publish.qos,
        retain: publish.retain,
        topic: &publish.topic,
        alias: None,
        id: publish.id,
        payload: &publish.payload,
        properties: &publish.properties,
        expiry_secs: publish.properties.message_expiry_secs,
        subscriptions: &[],
    };
    encode_publish(&view, Version::V5, &mut bytes);
    assert_eq!(decode(bytes).as_ref(), Some(&publish));
    let message = Message::new(publish, WallNanos(7), None);
    assert_eq!(Message::from_bytes(message.to_bytes()), Some(message));
    decoded_bytes_max(input.len())
}

/// A session under any packets, commits, refusals and deliveries, against a model of what it owes.
///
/// ```text
/// version │ events: 0 to 3, a packet: first byte, length, body │ 4 commit │ 5 refuse │ 6 deliver
/// ```
pub fn session(input: &[u8]) -> usize {
    let Some((version, mut events)) = input.split_first() else {
        return decoded_bytes_max(0);
    };
    let version = if version % 2 == 0 {
        Version::V311
    } else {
        Version::V5
    };
    let mut driver = Driver::new(version);
    while let Some((event, rest)) = events.split_first() {
        events = rest;
        match event % 7 {
            4 => driver.commit(),
            5 => driver.refuse(),
            6 => driver.deliver(event / 7),
            _ => {
                let [first, length, rest @ ..] = events else {
                    break;
                };
                let (body, rest) = rest.split_at(rest.len().min(usize::from(*length)));
                events = rest;
                if !driver.packet(&mut framed(*first, body)) {
                    break;
                }
            }
        }
    }
    // A delivery, with its place in the window, takes a few hundred bytes.
    decoded_bytes_max(8 * input.len())
}

/// What `connection.rs` does with a session, without the log, and what it may expect of it.
struct Driver {
    version: Version,
    decoder: Decoder,
    session: Session,
    /// Appended and not settled, in order.
    uncommitted: VecDeque<(Qos, Option<PacketId>)>,
    /// QoS 2 ids that were logged and not released: none of them may be logged again.
    logged: BTreeSet<PacketId>,
}

impl Driver {
    fn new(version: Version) -> Self {
        let mut outbound = Outbound::default();
        outbound.set_window(3);
        Self {
            version,
            decoder: Decoder::of(version, PACKET_BYTES_MAX),
            session: Session::new(version, Ids::default(), outbound),
            uncommitted: VecDeque::new(),
            logged: BTreeSet::new(),
        }
    }

    /// False once the connection would be closed.
    fn packet(&mut self, bytes: &mut BytesMut) -> bool {
        let Ok(Some(packet)) = self.decoder.next(bytes) else {
            return false;
        };
        match self.session.packet(packet) {
            Err(_) | Ok(Step::Leave(_)) => return false,
            Ok(Step::Ingest(publish)) => self.ingest(&publish),
            Ok(Step::Refuse(publish)) => {
                let reason = crate::codec::reason::PAYLOAD_FORMAT_INVALID;
                let said = self.session.refused(publish.qos, publish.id, reason);
                self.say(said);
            }
            Ok(Step::Forget(id)) => {
                assert!(self.logged.remove(&id), "released without being logged");
                let said = self.session.forgotten(id);
                self.say(Some(said));
            }
            Ok(Step::Send(said)) => self.say(Some(said)),
            Ok(Step::Nothing | Step::Subscribe(_) | Step::Unsubscribe(_)) => {}
        }
        true
    }

    fn ingest(&mut self, publish: &Publish) {
        assert!(topic::is_name(&publish.topic), "aliases are resolved");
        assert_eq!(publish.properties.topic_alias, None);
        if let (Qos::ExactlyOnce, Some(id)) = (publish.qos, publish.id) {
            assert!(self.logged.insert(id), "logged twice");
        }
        self.uncommitted.push_back((publish.qos, publish.id));
        let acknowledged = self.uncommitted.iter().filter(|(_, id)| id.is_some());
        let within = acknowledged.count() <= usize::from(UNCOMMITTED_MAX);
        assert!(within || self.version == Version::V311);
    }

    fn commit(&mut self) {
        if let Some((qos, id)) = self.uncommitted.pop_front() {
            let said = self.session.committed(qos, id);
            assert_eq!(said.is_some(), id.is_some());
            self.say(said);
        }
    }

    fn refuse(&mut self) {
        if let Some((qos, id)) = self.uncommitted.pop_front() {
            if let (Qos::ExactlyOnce, Some(id)) = (qos, id) {
                self.logged.remove(&id);
            }
            let reason = crate::codec::reason::QUOTA_EXCEEDED;
            let said = self.session.refused(qos, id, reason);
            self.say(said);
        }
    }

    fn deliver(&mut self, bits: u8) {
        let qos = Qos::from_bits(bits % 3).expect("below three");
        if qos != Qos::AtMostOnce && self.session.outbound.has_room(qos) {
            let delivery = Delivery::empty(qos, Source::Memory);
            self.session.outbound.send(&delivery);
        }
    }

    /// Everything that is said can be written.
    fn say(&self, said: Option<Outgoing>) {
        if let Some(packet) = said {
            assert!(encode(
                &packet,
                self.version,
                Terms::default(),
                &mut BytesMut::new()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::{Path, PathBuf};

    fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let seeds = std::fs::read_dir(corpus.join(target)).expect("a folder of seeds");
        let mut paths: Vec<_> = seeds.map(|seed| seed.expect("a seed").path()).collect();
        paths.sort();
        let read = |path: PathBuf| (path.clone(), std::fs::read(path).expect("readable"));
        paths.into_iter().map(read).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// A fuzzer's work in small, where there is no fuzzer.
        #[test]
        fn damaged_seeds_keep_the_promises(
            pick: prop::sample::Index,
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            insert in prop::collection::vec(any::<u8>(), 0..6),
        ) {
            for (target, run) in TARGETS {
                let seeds = seeds(target);
                let (_, mut input) = pick.get(&seeds).clone();
                let at = damage[0].0.index(input.len());
                input.splice(at..at, insert.iter().copied());
                for (place, byte) in &damage {
                    let place = place.index(input.len());
                    input[place] = *byte;
                }
                run(&input);
            }
        }
    }

    /// What once broke a promise, and all else that was worth keeping, in `fuzz/corpus`.
    #[test]
    fn every_seed_keeps_the_promises() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (target, run) in TARGETS {
            let seeds = seeds(target);
            assert!(!seeds.is_empty(), "no seeds for {target}");
            for (path, seed) in seeds {
                println!("{}", path.display());
                run(&seed);
            }
        }
        let folders = std::fs::read_dir(corpus).expect("a folder");
        let folders: BTreeSet<_> = folders
            .map(|folder| folder.expect("a folder").file_name())
            .collect();
        let targets = TARGETS.map(|(target, _)| target.into());
        assert_eq!(folders, BTreeSet::from(targets), "seeds without a target");
    }
}
