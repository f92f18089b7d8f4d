//! The demo's MQTT sensors: real clients over TCP, and the ledger that the audit believes.
//!
//! One connection per sensor, MQTT 3.1.1, QoS 1 and QoS 2 in turn. A sensor never gives up: what
//! was not acknowledged is sent again, with its packet id and the duplicate flag, on every new
//! connection, before anything newer.
//!
//! The packets are `rumqttc`'s, the session is not: rumqttc 0.25.1 sends again without the
//! duplicate flag, and forgets unacknowledged messages when a broker that restarted reports no
//! session, which is exactly when this demo must not forget.

use crate::plant::{Reading, Route};
use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{Connect, Packet, PubRel, Publish};
use rumqttc::mqttbytes::{Error as CodecError, QoS};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Readings a sensor holds while it cannot send; later ones are skipped and counted.
const QUEUE_READINGS: usize = 4096;
/// Unacknowledged messages of one sensor.
const IN_FLIGHT_MAX: usize = 20;
const PACKET_BYTES_MAX: usize = 64 * 1024;
/// A broker that says nothing for so long is given up, and connected to again.
const SILENCE_MAX: Duration = Duration::from_secs(5);
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);

/// What the sensors sent and what was acknowledged, as (topic, sequence); the sequence is inside
/// the payload too, so any copy of the data can be held against this.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Entries>);

/// A copy of the [`Ledger`].
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Entries {
    /// Put on the wire at least once.
    pub sent: BTreeSet<(String, u64)>,
    /// Acknowledged: PUBACK for QoS 1, PUBREC for QoS 2.
    pub acknowledged: BTreeSet<(String, u64)>,
    /// Topics published with QoS 2: none of their messages may arrive twice.
    pub exactly_once: BTreeSet<String>,
    /// Messages sent a second time or more.
    pub resent: u64,
    /// Readings never sent, because the queue of their sensor was full.
    pub skipped: u64,
}

impl Ledger {
    #[must_use]
    pub fn entries(&self) -> Entries {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All sensors of the plant.
#[derive(Debug)]
pub struct Sensors {
    address: SocketAddr,
    ledger: Arc<Ledger>,
    stop: CancellationToken,
    sensors: BTreeMap<String, mpsc::Sender<Value>>,
    tasks: JoinSet<()>,
}

/// A reading on its way out.
#[derive(Debug)]
struct Value {
    value: f64,
    unit: &'static str,
    unix_time_ms: i64,
}

impl Sensors {
    /// Sensors that publish to the broker at `address`, whenever there is one.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            ledger: Arc::default(),
            stop: CancellationToken::new(),
            sensors: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    #[must_use]
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// Gives readings to their sensors; those that go out by OPC-UA are left alone. Never waits.
    /// Call from within a Tokio runtime: a topic's first reading starts its sensor.
    pub fn publish<'a>(
        &mut self,
        readings: impl IntoIterator<Item = &'a Reading>,
        unix_time_ms: i64,
    ) {
        let mqtt = readings
            .into_iter()
            .filter(|reading| reading.route == Route::Mqtt);
        for reading in mqtt {
            if !self.sensors.contains_key(&reading.tag) {
                self.start(&reading.tag);
            }
            let value = Value {
                value: reading.value,
                unit: reading.unit,
                unix_time_ms,
            };
            let taken = self
                .sensors
                .get(&reading.tag)
                .map(|sensor| sensor.try_send(value));
            if !matches!(taken, Some(Ok(()))) {
                self.ledger.lock().skipped += 1;
            }
        }
    }

    fn start(&mut self, topic: &str) {
        let exactly_once = self.sensors.len() % 2 == 1;
        let qos = if exactly_once {
            QoS::ExactlyOnce
        } else {
            QoS::AtLeastOnce
        };
        if exactly_once {
            self.ledger.lock().exactly_once.insert(topic.to_owned());
        }
        let (sender, values) = mpsc::channel(QUEUE_READINGS);
        let sensor = Sensor {
            address: self.address,
            topic: topic.to_owned(),
            qos,
            ledger: Arc::clone(&self.ledger),
            values,
            open: true,
            next_sequence: 0,
            last_id: 0,
            in_flight: VecDeque::new(),
        };
        self.sensors.insert(topic.to_owned(), sender);
        self.tasks.spawn(sensor.run(self.stop.clone()));
    }

    /// No more readings: waits until all that were given are acknowledged, at most for
    /// `patience`, and returns the final ledger.
    pub async fn finish(mut self, patience: Duration) -> Entries {
        self.sensors.clear();
        let all_done = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(patience, all_done).await.is_err() {
            self.stop.cancel();
            while self.tasks.join_next().await.is_some() {}
        }
        self.ledger.entries()
    }
}

struct Sensor {
    address: SocketAddr,
    topic: String,
    qos: QoS,
    ledger: Arc<Ledger>,
    values: mpsc::Receiver<Value>,
    /// More readings may come.
    open: bool,
    next_sequence: u64,
    last_id: u16,
    /// In the order of first sending.
    in_flight: VecDeque<InFlight>,
}

struct InFlight {
    id: u16,
    sequence: u64,
    /// `None` once PUBREC came: only PUBREL is left to say.
    publish: Option<Publish>,
}

impl Sensor {
    async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.work() => {}
        }
    }

    /// Until everything is acknowledged and nothing more will come.
    async fn work(&mut self) {
        let mut back_off = BACK_OFF_MIN;
        loop {
            match self.talk(&mut back_off).await {
                Ok(()) => return,
                Err(error) => tracing::debug!(topic = self.topic, %error, "sensor reconnects"),
            }
            tokio::time::sleep(back_off).await;
            back_off = (back_off * 2).min(BACK_OFF_MAX);
        }
    }

    /// One connection from CONNECT on.
    async fn talk(&mut self, back_off: &mut Duration) -> io::Result<()> {
        let mut wire = Wire::connect(self.address, &self.topic).await?;
        *back_off = BACK_OFF_MIN;
        self.resend(&mut wire).await?;
        while self.open || !self.in_flight.is_empty() {
            let may_send = self.open && self.in_flight.len() < IN_FLIGHT_MAX;
            tokio::select! {
                packet = timeout(SILENCE_MAX, wire.packet()) => match packet {
                    Ok(packet) => self.receive(packet?, &mut wire).await?,
                    Err(_) if self.in_flight.is_empty() => wire.send(&Packet::PingReq).await?,
                    Err(_) => return Err(io::ErrorKind::TimedOut.into()),
                },
                value = self.values.recv(), if may_send => match value {
                    Some(value) => self.send(&value, &mut wire).await?,
                    None => self.open = false,
                },
            }
        }
        wire.send(&Packet::Disconnect).await
    }

    async fn send(&mut self, value: &Value, wire: &mut Wire) -> io::Result<()> {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        let mut publish = Publish::new(&self.topic, self.qos, payload(value, sequence));
        publish.pkid = self.last_id;
        let packet = Packet::Publish(publish.clone());
        self.ledger
            .lock()
            .sent
            .insert((self.topic.clone(), sequence));
        // Registered before the first byte leaves: a failure while writing means "perhaps sent".
        let in_flight = InFlight {
            id: self.last_id,
            sequence,
            publish: Some(publish),
        };
        self.in_flight.push_back(in_flight);
        wire.send(&packet).await
    }

    async fn resend(&mut self, wire: &mut Wire) -> io::Result<()> {
        for held in &self.in_flight {
            let packet = match &held.publish {
                Some(publish) => Packet::Publish(Publish {
                    dup: true,
                    ..publish.clone()
                }),
                None => Packet::PubRel(PubRel::new(held.id)),
            };
            self.ledger.lock().resent += u64::from(held.publish.is_some());
            wire.send(&packet).await?;
        }
        Ok(())
    }

    async fn receive(&mut self, packet: Packet, wire: &mut Wire) -> io::Result<()> {
        match packet {
            Packet::PubAck(ack) => {
                self.acknowledged(ack.pkid);
                self.in_flight.retain(|held| held.id != ack.pkid);
            }
            Packet::PubRec(ack) => {
                self.acknowledged(ack.pkid);
                if let Some(held) = self.in_flight.iter_mut().find(|held| held.id == ack.pkid) {
                    held.publish = None;
                }
                wire.send(&Packet::PubRel(PubRel::new(ack.pkid))).await?;
            }
            Packet::PubComp(ack) => self.in_flight.retain(|held| held.id != ack.pkid),
            Packet::PingResp => {}
            other => return Err(io::Error::other(format!("unexpected packet: {other:?}"))),
        }
        Ok(())
    }

    fn acknowledged(&self, id: u16) {
        if let Some(held) = self.in_flight.iter().find(|held| held.id == id) {
            let entry = (self.topic.clone(), held.sequence);
            self.ledger.lock().acknowledged.insert(entry);
        }
    }
}

/// What [`Reading::payload`] says, and the sequence.
fn payload(value: &Value, sequence: u64) -> Vec<u8> {
    let Value {
        value,
        unit,
        unix_time_ms,
    } = value;
    let value = (value * 1e4).round() / 1e4;
    format!(r#"{{"value":{value},"unit":"{unit}","time":{unix_time_ms},"sequence":{sequence}}}"#)
        .into_bytes()
}

/// Packets over a socket.
struct Wire {
    socket: TcpStream,
    read: BytesMut,
}

impl Wire {
    async fn connect(address: SocketAddr, topic: &str) -> io::Result<Self> {
        let connecting = timeout(SILENCE_MAX, TcpStream::connect(address)).await;
        let socket = connecting.map_err(|_| io::ErrorKind::TimedOut)??;
        socket.set_nodelay(true)?;
        let mut wire = Self {
            socket,
            read: BytesMut::new(),
        };
        let mut connect = Connect::new(format!("sensor-{}", topic.replace('/', "-")));
        // Lasting: the broker keeps QoS 2 packet ids of such a client across its own crash.
        connect.clean_session = false;
        connect.keep_alive = 30;
        wire.send(&Packet::Connect(connect)).await?;
        match timeout(SILENCE_MAX, wire.packet()).await {
            Ok(Ok(Packet::ConnAck(answer))) => match answer.code {
                rumqttc::mqttbytes::v4::ConnectReturnCode::Success => Ok(wire),
                refused => Err(io::Error::other(format!("refused: {refused:?}"))),
            },
            Ok(Ok(other)) => Err(io::Error::other(format!("no CONNACK but {other:?}"))),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn send(&mut self, packet: &Packet) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        let written = packet.write(&mut bytes, PACKET_BYTES_MAX);
        written.map_err(|error| io::Error::other(format!("cannot encode: {error:?}")))?;
        self.socket.write_all(&bytes).await
    }

    /// The next packet. Safe to cancel: bytes stay in the buffer until a packet is whole.
    async fn packet(&mut self) -> io::Result<Packet> {
        loop {
            match Packet::read(&mut self.read, PACKET_BYTES_MAX) {
                Ok(packet) => return Ok(packet),
                Err(CodecError::InsufficientBytes(_)) => {}
                Err(error) => return Err(io::Error::other(format!("malformed: {error:?}"))),
            }
            if self.socket.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn readings() -> Vec<Reading> {
        let reading = |tag: &str, route| Reading {
            tag: tag.into(),
            route,
            unit: "C",
            value: 1.5,
        };
        vec![
            reading("plant/a", Route::Mqtt),
            reading("plant/b", Route::Mqtt),
            reading("plant/c", Route::Opcua),
        ]
    }

    /// A broker that acknowledges, or, while `deaf`, reads one PUBLISH and hangs up.
    async fn serve(mut wire: Wire, deaf: bool, seen: mpsc::UnboundedSender<Publish>) {
        while let Ok(packet) = wire.packet().await {
            let answer = match packet {
                Packet::Connect(_) => {
                    let code = rumqttc::mqttbytes::v4::ConnectReturnCode::Success;
                    Packet::ConnAck(rumqttc::mqttbytes::v4::ConnAck::new(code, false))
                }
                Packet::Publish(publish) => {
                    let (id, qos) = (publish.pkid, publish.qos);
                    seen.send(publish).expect("the test looks");
                    if deaf {
                        return;
                    }
                    match qos {
                        QoS::ExactlyOnce => Packet::PubRec(rumqttc::mqttbytes::v4::PubRec::new(id)),
                        _ => Packet::PubAck(rumqttc::mqttbytes::v4::PubAck::new(id)),
                    }
                }
                Packet::PubRel(release) => {
                    Packet::PubComp(rumqttc::mqttbytes::v4::PubComp::new(release.pkid))
                }
                _ => return,
            };
            if wire.send(&answer).await.is_err() {
                return;
            }
        }
    }

    #[tokio::test]
    async fn what_was_not_acknowledged_is_sent_again_with_its_id() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut sensors = Sensors::new(listener.local_addr().expect("bound"));
        let (seen, mut published) = mpsc::unbounded_channel();
        let broker = tokio::spawn(async move {
            for connection in 0.. {
                let (socket, _) = listener.accept().await.expect("a client");
                let wire = Wire {
                    socket,
                    read: BytesMut::new(),
                };
                tokio::spawn(serve(wire, connection < 2, seen.clone()));
            }
        });
        for round in 0..10 {
            sensors.publish(&readings(), round);
        }
        let entries = sensors.finish(Duration::from_secs(20)).await;
        broker.abort();
        assert_eq!(entries.sent.len(), 20);
        assert_eq!(entries.acknowledged, entries.sent);
        assert!(entries.resent >= 2);
        let mut first_ids = BTreeMap::new();
        while let Ok(publish) = published.try_recv() {
            let key = (publish.topic.clone(), publish.payload.clone());
            match first_ids.get(&key) {
                None => drop(first_ids.insert(key, publish.pkid)),
                Some(id) => assert!(publish.dup && publish.pkid == *id),
            }
        }
        assert_eq!(first_ids.len(), 20);
        let text = r#"{"value":1.5,"unit":"C","time":9,"sequence":9}"#;
        assert!(first_ids.contains_key(&("plant/b".to_owned(), text.into())));
    }
}
