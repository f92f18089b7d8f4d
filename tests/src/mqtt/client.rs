//! A session and the connection it has at the moment.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Error, anyhow};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::Instant;

use super::packet::{self, Connect, Message, Qos, Received, Sent, Version};
use super::session::{Session, Step};
use super::wire::{RECEIVE_MAXIMUM, SERVER_KEEP_ALIVE, TOPIC_ALIAS};

const READ_BYTES: usize = 16 * 1024;
/// How many topic aliases a version 5 client of ours offers to keep.
const TOPIC_ALIASES: u16 = 8;

/// Why there is no connection any more.
#[derive(Debug)]
pub enum Ended {
    /// As happens when a broker is killed, or closes on purpose: connect again.
    Lost(String),
    /// The broker did what the standard forbids, or what no test here may see.
    Wrong(Error),
}

impl From<std::io::Error> for Ended {
    fn from(error: std::io::Error) -> Self {
        Self::Lost(error.to_string())
    }
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Wrong(error)
    }
}

impl From<Ended> for Error {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Lost(why) => anyhow!("the connection was lost: {why}"),
            Ended::Wrong(error) => error,
        }
    }
}

/// What happened on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// PUBACK or PUBREC for the publish with this token.
    Acked(u64),
    Refused(u64, u8),
    /// A QoS 2 exchange is over, and its place in the window free.
    Completed,
    Delivered(Message),
    /// The broker has these filters.
    Subscribed(Vec<(String, Qos)>),
    /// It granted something else than was asked for: these are its return codes.
    NotSubscribed(Vec<u8>),
}

#[derive(Debug)]
struct Connection {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    incoming: BytesMut,
    outgoing: BytesMut,
    aliases: BTreeMap<u32, String>,
    receive_maximum: usize,
    ping_every: Option<Duration>,
    ping_at: Instant,
}

#[derive(Debug)]
pub struct Client {
    pub session: Session,
    pub port: u16,
    /// Whether the session ends with its connection.
    pub clean: bool,
    /// Deliveries at once, for a version 5 client to allow.
    pub receive_maximum: u16,
    connection: Option<Connection>,
    connected_before: bool,
    /// Filters that were asked for and not granted yet, as they were sent.
    subscribing: Vec<(u16, Vec<(String, Qos)>)>,
}

impl Client {
    #[must_use]
    pub fn new(port: u16, session: Session) -> Self {
        Self {
            session,
            port,
            clean: false,
            receive_maximum: 100,
            connection: None,
            connected_before: false,
            subscribing: Vec::new(),
        }
    }

    /// One attempt. What was under way is sent again; the tokens of the publishes among it.
    pub async fn connect(&mut self) -> Result<Vec<u64>, Ended> {
        self.connection = None;
        let connect = Connect {
            version: self.session.version,
            client_id: self.session.client_id.clone(),
            clean: self.clean,
            keep_alive_secs: 0,
            session_expiry_secs: if self.clean { 0 } else { 24 * 3600 },
            receive_maximum: self.receive_maximum,
            topic_alias_maximum: TOPIC_ALIASES,
        };
        let (connection, present) = Connection::open(self.port, &connect).await?;
        let expected = self.connected_before && !self.clean;
        if expected && !present {
            let client = &self.session.client_id;
            return Err(anyhow!("{client}: the broker no longer has its session").into());
        }
        self.connected_before = true;
        let connection = self.connection.insert(connection);
        let (packets, again) = self.session.resume();
        for packet in &packets {
            packet.write(self.session.version, &mut connection.outgoing);
        }
        for (_, filters) in std::mem::take(&mut self.subscribing) {
            self.subscribe(filters);
        }
        Ok(again)
    }

    /// Tries again until it is connected or something is wrong.
    pub async fn reconnect(&mut self) -> Result<Vec<u64>, Error> {
        const PAUSE: Duration = Duration::from_millis(20);
        loop {
            match self.connect().await {
                Ok(again) => return Ok(again),
                Err(Ended::Wrong(error)) => return Err(error),
                Err(Ended::Lost(_)) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Bytes that the connection has not taken yet: the broker reads too slowly, or not at all.
    #[must_use]
    pub fn unsent_bytes(&self) -> usize {
        let connection = self.connection.as_ref();
        connection.map_or(0, |connection| connection.outgoing.len())
    }

    /// Both sides allow one more publish.
    #[must_use]
    pub fn may_publish(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| {
            self.session.in_flight() < self.session.window.min(connection.receive_maximum)
        })
    }

    /// The bytes leave with the next call of [`Self::next`] or [`Self::flush`].
    pub fn publish(&mut self, message: Message, token: u64) {
        let packet = self.session.publish(message, token);
        self.queue(&packet);
    }

    pub fn subscribe(&mut self, filters: Vec<(String, Qos)>) {
        let packet = self.session.subscribe(filters.clone());
        if let Sent::Subscribe { id, .. } = packet {
            self.subscribing.push((id, filters));
        }
        self.queue(&packet);
    }

    fn queue(&mut self, packet: &Sent) {
        if let Some(connection) = &mut self.connection {
            packet.write(self.session.version, &mut connection.outgoing);
        }
    }

    /// Sends what waits and takes what comes, until something has happened. May be dropped and
    /// called again at any time.
    pub async fn next(&mut self) -> Result<Event, Ended> {
        loop {
            let version = self.session.version;
            let connection = self.connection.as_mut();
            let connection = connection.ok_or_else(|| Ended::Lost("not connected".into()))?;
            let packet = match connection.next(version).await {
                Ok(packet) => packet,
                Err(ended) => {
                    self.connection = None;
                    return Err(ended);
                }
            };
            if let Some(event) = self.handle(packet)? {
                return Ok(event);
            }
        }
    }

    fn handle(&mut self, mut packet: Received) -> Result<Option<Event>, Ended> {
        match &mut packet {
            Received::Pong => return Ok(None),
            Received::Disconnect { code } => {
                let why = format!("DISCONNECT {code:#04x}");
                self.connection = None;
                return Err(Ended::Lost(why));
            }
            Received::Publish {
                message,
                properties,
                ..
            } => {
                let connection = self.connection.as_mut().expect("it brought the packet");
                connection.resolve(message, properties.number(TOPIC_ALIAS))?;
            }
            Received::SubAck { id, codes } => {
                let event = self.granted(*id, codes)?;
                self.session.received(packet)?;
                return Ok(Some(event));
            }
            _ => {}
        }
        let client = self.session.client_id.clone();
        let met = self.session.received(packet);
        let (step, answer) = met.map_err(|error| error.context(client))?;
        if let Some(answer) = answer {
            self.queue(&answer);
        }
        Ok(match step {
            Step::Acked(token) => Some(Event::Acked(token)),
            Step::Refused(token, code) => Some(Event::Refused(token, code)),
            Step::Completed => Some(Event::Completed),
            Step::Delivered(message) => Some(Event::Delivered(message)),
            Step::Repeated | Step::Answered => None,
        })
    }

    fn granted(&mut self, id: u16, codes: &[u8]) -> Result<Event, Ended> {
        let at = self.subscribing.iter().position(|(asked, _)| *asked == id);
        let at = at.ok_or_else(|| anyhow!("SUBACK {id} for nothing"))?;
        let (_, filters) = self.subscribing.remove(at);
        let asked: Vec<u8> = filters.iter().map(|(_, qos)| *qos as u8).collect();
        Ok(match asked == codes {
            true => Event::Subscribed(filters),
            false => Event::NotSubscribed(codes.to_vec()),
        })
    }

    /// Waits until the connection has taken everything.
    pub async fn flush(&mut self) -> Result<(), Ended> {
        if let Some(connection) = &mut self.connection {
            connection.writer.write_all(&connection.outgoing).await?;
            connection.outgoing.clear();
        }
        Ok(())
    }

    /// Leaves as one should.
    pub async fn disconnect(&mut self) -> Result<(), Ended> {
        self.queue(&Sent::Disconnect);
        self.flush().await?;
        self.connection = None;
        Ok(())
    }

    /// Leaves as if the cable were pulled.
    pub fn drop_connection(&mut self) {
        self.connection = None;
    }
}

impl Connection {
    async fn open(port: u16, connect: &Connect) -> Result<(Self, bool), Ended> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        let mut connection = Self {
            reader,
            writer,
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            aliases: BTreeMap::new(),
            receive_maximum: usize::from(u16::MAX),
            ping_every: None,
            ping_at: Instant::now(),
        };
        connect.write(&mut connection.outgoing);
        let answer = connection.next(connect.version).await?;
        let Received::ConnAck {
            present,
            code,
            properties,
        } = answer
        else {
            return Err(anyhow!("{answer:?} instead of CONNACK").into());
        };
        if code != 0 {
            return Err(Ended::Lost(format!("refused with {code:#04x}")));
        }
        if connect.clean && present {
            return Err(anyhow!("a session is present after a clean start").into());
        }
        if let Some(maximum) = properties.number(RECEIVE_MAXIMUM) {
            connection.receive_maximum = usize::try_from(maximum).expect("a u16");
        }
        if let Some(seconds) = properties.number(SERVER_KEEP_ALIVE) {
            connection.ping_every = Some(Duration::from_secs(seconds.into()) / 2);
        }
        Ok((connection, present))
    }

    async fn next(&mut self, version: Version) -> Result<Received, Ended> {
        loop {
            if let Some(packet) = packet::read(version, &mut self.incoming)? {
                return Ok(packet);
            }
            self.incoming.reserve(READ_BYTES);
            let ping_at = self.ping_at;
            tokio::select! {
                read = self.reader.read_buf(&mut self.incoming) => {
                    if read? == 0 {
                        return Err(Ended::Lost("the broker hung up".into()));
                    }
                }
                written = self.writer.write_buf(&mut self.outgoing), if !self.outgoing.is_empty() => {
                    written?;
                }
                () = tokio::time::sleep_until(ping_at), if self.ping_every.is_some() => {
                    Sent::Ping.write(version, &mut self.outgoing);
                    self.ping_at = Instant::now() + self.ping_every.expect("checked");
                }
            }
        }
    }

    /// The topic an alias stands for (version 5, 3.3.2.3.4).
    fn resolve(&mut self, message: &mut Message, alias: Option<u32>) -> Result<(), Error> {
        match alias {
            None if message.topic.is_empty() => Err(anyhow!("a PUBLISH without a topic")),
            None => Ok(()),
            Some(alias) if alias == 0 || alias > TOPIC_ALIASES.into() => {
                Err(anyhow!("topic alias {alias} of {TOPIC_ALIASES}"))
            }
            Some(alias) if message.topic.is_empty() => {
                let topic = self.aliases.get(&alias);
                let topic = topic.ok_or_else(|| anyhow!("topic alias {alias} was never set"))?;
                message.topic.clone_from(topic);
                Ok(())
            }
            Some(alias) => {
                self.aliases.insert(alias, message.topic.clone());
                Ok(())
            }
        }
    }
}
