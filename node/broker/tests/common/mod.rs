//! A broker over a real log in a temporary directory, and a client made of bytes.

#![expect(clippy::unwrap_used, reason = "a test's set-up fails loudly")]
#![expect(dead_code, unreachable_pub, reason = "each test file uses its share")]

use bytes::{BufMut, BytesMut};
use skerry_broker::{Address, Broker, Config, Error, Snapshot, Status};
use skerry_store::{
    Disk, Fault, Kind, Log, Offset, Operation, Options, Record, StreamName, StreamOptions,
};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough for an answer to arrive that must not come.
pub const QUIET: Duration = Duration::from_millis(300);

pub fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

/// A disk whose syncs can be held, counted and failed.
#[derive(Default)]
pub struct Gate {
    held: Mutex<bool>,
    changed: Condvar,
    pub syncs: AtomicU64,
    pub full: AtomicBool,
}

impl Gate {
    pub fn hold(&self, held: bool) {
        *self.held.lock().unwrap() = held;
        self.changed.notify_all();
    }
}

struct Shared(Arc<Gate>);

impl Fault for Shared {
    fn before(&self, operation: Operation, _path: &Path) -> io::Result<()> {
        if operation == Operation::Write && self.0.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if operation == Operation::Sync {
            self.0.syncs.fetch_add(1, Ordering::SeqCst);
            let mut held = self.0.held.lock().unwrap();
            while *held {
                held = self.0.changed.wait(held).unwrap();
            }
        }
        Ok(())
    }
}

pub struct Node {
    directory: Arc<TempDir>,
    pub gate: Arc<Gate>,
    pub log: Log,
    /// Its first plain TCP listener.
    pub address: SocketAddr,
    /// All of its listeners.
    pub addresses: Vec<Address>,
    status: Arc<Status>,
    stop: CancellationToken,
    running: JoinHandle<Result<(), Error>>,
}

impl Node {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(tweak: impl FnOnce(&mut Config)) -> Self {
        Self::open(Arc::new(TempDir::new().unwrap()), u64::MAX, tweak).await
    }

    pub async fn start_small(bytes_max: u64, tweak: impl FnOnce(&mut Config)) -> Self {
        Self::open(Arc::new(TempDir::new().unwrap()), bytes_max, tweak).await
    }

    async fn open(
        directory: Arc<TempDir>,
        bytes_max: u64,
        tweak: impl FnOnce(&mut Config),
    ) -> Self {
        let gate = Arc::new(Gate::default());
        let log = loop {
            let mut options = Options::new(directory.path().join("data"));
            options.allow_volatile = true;
            options.commit_delay_max = Duration::from_millis(1);
            options.segment_bytes = 64 * 1024;
            let streams = ["default", "telemetry", "scores", "audit"];
            let stream_options = |name| StreamOptions::new(stream(name), bytes_max);
            options.streams = streams.map(stream_options).to_vec();
            let disk = Disk::failing(Arc::new(Shared(Arc::clone(&gate))));
            match Log::open_on(options, disk) {
                Ok((log, _)) => break log,
                // The last task of a crashed node is still letting go.
                Err(skerry_store::Error::InUse { .. }) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        let mut config = Config::new(([127, 0, 0, 1], 0).into(), stream("default"));
        tweak(&mut config);
        let broker = Broker::bind(config).await.unwrap();
        let address = broker.local_addr().expect("a plain listener");
        let addresses = broker.addresses().cloned().collect();
        let (status, stop) = (Arc::<Status>::default(), CancellationToken::new());
        let running = tokio::spawn(broker.run(log.clone(), Arc::clone(&status), stop.clone()));
        Self {
            directory,
            gate,
            log,
            address,
            addresses,
            status,
            stop,
            running,
        }
    }

    /// Ends it as SIGTERM does.
    pub async fn stop(self) -> Arc<TempDir> {
        self.stop.cancel();
        timeout(PATIENCE, self.running)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        self.log.close().await.unwrap();
        self.directory
    }

    /// Ends it in the middle of whatever it does, and starts it again on the same directory.
    pub async fn crash_and_restart(self) -> Self {
        self.running.abort();
        let _ = self.running.await;
        drop(self.log);
        Self::open(self.directory, u64::MAX, |_| {}).await
    }

    pub async fn restart(self) -> Self {
        let directory = self.stop().await;
        Self::open(directory, u64::MAX, |_| {}).await
    }

    /// A node on what another one left behind.
    pub async fn reopen(directory: Arc<TempDir>) -> Self {
        Self::open(directory, u64::MAX, |_| {}).await
    }

    pub fn status(&self) -> Snapshot {
        self.status.snapshot()
    }

    /// The TCP address of its `index`th listener.
    pub fn tcp(&self, index: usize) -> SocketAddr {
        match &self.addresses[index] {
            Address::Tcp(address) => *address,
            Address::Unix(socket) => panic!("{socket:?}"),
        }
    }

    /// Waits until its `index`th listener has turned so many away for this reason.
    pub async fn until_turned_away(&self, index: usize, reason: &str, count: u64) {
        self.until(reason, |status| {
            status.listeners[index].refused_total.get(reason) == Some(&count)
        })
        .await;
    }

    /// Every record of a stream.
    pub fn records(&self, name: &str) -> Vec<Record> {
        let mut reader = self.log.reader(&stream(name), Offset::ZERO).unwrap();
        let mut records = Vec::new();
        loop {
            let batch = reader.next(1 << 20).unwrap();
            if batch.records.is_empty() && batch.missing.is_none() {
                return records;
            }
            records.extend(batch.records.into_iter().map(|(_, record)| record));
        }
    }

    pub fn payloads(&self, name: &str) -> Vec<String> {
        let records = self.records(name).into_iter();
        let mqtt = records.filter(|record| record.kind == Kind::Mqtt);
        mqtt.map(|record| String::from_utf8(record.payload.to_vec()).unwrap())
            .collect()
    }

    /// Waits until the status says so.
    pub async fn until(&self, what: &str, done: impl Fn(&Snapshot) -> bool) {
        let poll = async {
            while !done(&self.status()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = timeout(PATIENCE, poll).await;
        assert!(waited.is_ok(), "{what} never came: {:?}", self.status());
    }
}

/// A packet of any kind: first byte and body.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut rest = body.len();
    loop {
        let low = (rest & 0x7f) as u8;
        rest >>= 7;
        bytes.push(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

fn put(out: &mut BytesMut, text: &str) {
    out.put_u16(text.len() as u16);
    out.put_slice(text.as_bytes());
}

/// What a CONNECT says.
pub struct Hello<'a> {
    pub level: u8,
    pub id: &'a str,
    pub clean: bool,
    pub keep_alive: u16,
    pub will: Option<(&'a str, &'a str)>,
    /// User name and password.
    pub login: Option<(&'a str, &'a str)>,
    /// Version 5 properties, as bytes.
    pub properties: &'a [u8],
    pub will_properties: &'a [u8],
}

impl<'a> Hello<'a> {
    pub fn v4(id: &'a str) -> Self {
        Self {
            level: 4,
            id,
            clean: true,
            keep_alive: 0,
            will: None,
            login: None,
            properties: &[],
            will_properties: &[],
        }
    }

    pub fn v5(id: &'a str) -> Self {
        Self {
            level: 5,
            ..Self::v4(id)
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut body = BytesMut::new();
        put(&mut body, "MQTT");
        body.put_u8(self.level);
        let will = if self.will.is_some() { 0x04 } else { 0 };
        let login = if self.login.is_some() { 0xC0 } else { 0 };
        body.put_u8(login | will | if self.clean { 0x02 } else { 0 });
        body.put_u16(self.keep_alive);
        if self.level == 5 {
            body.put_u8(self.properties.len() as u8);
            body.put_slice(self.properties);
        }
        put(&mut body, self.id);
        if let Some((topic, payload)) = self.will {
            if self.level == 5 {
                body.put_u8(self.will_properties.len() as u8);
                body.put_slice(self.will_properties);
            }
            put(&mut body, topic);
            put(&mut body, payload);
        }
        if let Some((user, password)) = self.login {
            put(&mut body, user);
            put(&mut body, password);
        }
        packet(0x10, &body)
    }
}

/// Any transport, once its handshakes are done.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// A client that sends what it is told and hides nothing of what it gets.
pub struct Client {
    socket: Box<dyn Duplex>,
    level: u8,
    /// Deliveries that came while something else was awaited.
    early: VecDeque<Vec<u8>>,
}

/// A PUBLISH as it came.
#[derive(Debug, PartialEq, Eq)]
pub struct Got {
    pub topic: String,
    pub payload: String,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub id: u16,
    pub properties: Vec<u8>,
}

impl Client {
    pub async fn connect(node: &Node, hello: &Hello<'_>) -> Self {
        let (client, connack) = Self::try_connect(node.address, hello).await;
        assert_eq!(connack[3], 0, "refused: {connack:x?}");
        client
    }

    /// The client and its CONNACK.
    pub async fn try_connect(address: SocketAddr, hello: &Hello<'_>) -> (Self, Vec<u8>) {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let mut client = Self::over(socket, hello.level);
        client.send(&hello.bytes()).await;
        let connack = client.packet().await.expect("CONNACK");
        assert_eq!(connack[0], 0x20, "{connack:x?}");
        (client, connack)
    }

    pub async fn raw(node: &Node, level: u8) -> Self {
        Self::over(TcpStream::connect(node.address).await.unwrap(), level)
    }

    pub fn over(socket: impl Duplex + 'static, level: u8) -> Self {
        let socket = Box::new(socket);
        Self {
            socket,
            level,
            early: VecDeque::new(),
        }
    }

    /// CONNECT over a transport of any kind.
    pub async fn greet(socket: impl Duplex + 'static, hello: &Hello<'_>) -> Self {
        let mut client = Self::over(socket, hello.level);
        client.send(&hello.bytes()).await;
        let connack = client.packet().await.expect("CONNACK");
        assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:x?}");
        client
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        // A peer that closed meanwhile shows when reading.
        let _ = self.socket.write_all(bytes).await;
        let _ = self.socket.flush().await;
    }

    pub fn publish_bytes(
        &self,
        topic: &str,
        payload: &str,
        qos: u8,
        id: u16,
        flags: u8,
        properties: &[u8],
    ) -> Vec<u8> {
        let mut body = BytesMut::new();
        put(&mut body, topic);
        if qos > 0 {
            body.put_u16(id);
        }
        if self.level == 5 {
            body.put_u8(properties.len() as u8);
            body.put_slice(properties);
        }
        body.put_slice(payload.as_bytes());
        packet(0x30 | qos << 1 | flags, &body)
    }

    pub async fn publish(&mut self, topic: &str, payload: &str, qos: u8, id: u16) {
        let bytes = self.publish_bytes(topic, payload, qos, id, 0, &[]);
        self.send(&bytes).await;
    }

    pub async fn publish_retained(&mut self, topic: &str, payload: &str, id: u16) {
        let bytes = self.publish_bytes(topic, payload, 1, id, 1, &[]);
        self.send(&bytes).await;
        self.expect(0x40, id).await;
    }

    /// Subscribes and returns the SUBACK's code.
    pub async fn subscribe(&mut self, filter: &str, options: u8) -> u8 {
        let mut body = BytesMut::new();
        body.put_u16(1);
        if self.level == 5 {
            body.put_u8(0);
        }
        put(&mut body, filter);
        body.put_u8(options);
        self.send(&packet(0x82, &body)).await;
        let suback = self.packet().await.expect("SUBACK");
        assert_eq!(suback[0], 0x90, "{suback:x?}");
        *suback.last().unwrap()
    }

    /// Sends PUBACK, PUBREC, PUBREL or PUBCOMP.
    pub async fn ack(&mut self, first: u8, id: u16) {
        self.send(&packet(first, &id.to_be_bytes())).await;
    }

    /// The next packet with its header, `None` at the end of the stream.
    pub async fn packet(&mut self) -> Option<Vec<u8>> {
        timeout(PATIENCE, self.read_packet())
            .await
            .expect("a packet in time")
    }

    async fn read_packet(&mut self) -> Option<Vec<u8>> {
        match self.early.pop_front() {
            Some(packet) => Some(packet),
            None => self.read_fresh().await,
        }
    }

    async fn read_fresh(&mut self) -> Option<Vec<u8>> {
        let mut bytes = vec![self.socket.read_u8().await.ok()?];
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.socket.read_u8().await.ok()?;
            bytes.push(byte);
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let header = bytes.len();
        bytes.resize(header + length, 0);
        self.socket.read_exact(&mut bytes[header..]).await.ok()?;
        Some(bytes)
    }

    /// Reads an acknowledgement and returns its reason code.
    ///
    /// A delivery to the same client may come before it: both follow the commit.
    pub async fn expect(&mut self, first: u8, id: u16) -> u8 {
        let acknowledgement = async {
            loop {
                let packet = self.read_fresh().await.expect("an acknowledgement");
                if packet[0] >> 4 != 3 {
                    return packet;
                }
                self.early.push_back(packet);
            }
        };
        let packet = timeout(PATIENCE, acknowledgement).await;
        let packet = packet.expect("an acknowledgement in time");
        assert_eq!(
            (packet[0], &packet[2..4]),
            (first, &id.to_be_bytes()[..]),
            "{packet:x?}"
        );
        packet.get(4).copied().unwrap_or(0)
    }

    pub async fn got(&mut self) -> Got {
        let packet = self.packet().await.expect("a PUBLISH");
        self.parse(&packet)
    }

    /// A PUBLISH that comes within a while.
    pub async fn got_soon(&mut self) -> Option<Got> {
        let packet = timeout(QUIET, self.read_packet()).await.ok()?;
        Some(self.parse(&packet.expect("a PUBLISH")))
    }

    fn parse(&self, packet: &[u8]) -> Got {
        assert_eq!(packet[0] >> 4, 3, "{packet:x?}");
        let header = 1
            + packet[1..]
                .iter()
                .position(|byte| byte & 0x80 == 0)
                .unwrap()
            + 1;
        let mut body = &packet[header..];
        let mut take = |count: usize| {
            let (taken, rest) = body.split_at(count);
            body = rest;
            taken.to_vec()
        };
        let number = |bytes: Vec<u8>| u16::from_be_bytes(bytes.try_into().unwrap());
        let length = number(take(2));
        let topic = take(length.into());
        let qos = (packet[0] >> 1) & 3;
        let id = if qos > 0 { number(take(2)) } else { 0 };
        let properties = if self.level == 5 {
            let length = take(1)[0];
            take(length.into())
        } else {
            Vec::new()
        };
        Got {
            topic: String::from_utf8(topic).unwrap(),
            payload: String::from_utf8(body.to_vec()).unwrap(),
            qos,
            retain: packet[0] & 1 != 0,
            dup: packet[0] & 8 != 0,
            id,
            properties,
        }
    }

    /// Nothing arrives for a while.
    pub async fn expect_quiet(&mut self) {
        if let Ok(packet) = timeout(QUIET, self.read_packet()).await {
            panic!("expected silence, got {packet:x?}");
        }
    }

    /// The node closes; returns the last packets' first bytes and reason codes.
    pub async fn expect_closed(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        while let Some(packet) = self.packet().await {
            packets.push(packet);
        }
        packets
    }

    /// The node closes with nothing but a DISCONNECT of this reason.
    pub async fn expect_dismissed(&mut self, reason: u8) {
        let last = self.expect_closed().await;
        let dismissed = matches!(&last[..], [one] if one[0] == 0xe0 && one[2] == reason);
        assert!(dismissed, "expected reason {reason:x}: {last:x?}");
    }

    /// DISCONNECT, and wait for the node to close.
    pub async fn leave(mut self) {
        self.send(b"\xe0\x00").await;
        let _ = self.socket.shutdown().await;
        self.expect_closed().await;
    }
}
