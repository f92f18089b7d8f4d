//! An MQTT 3.1.1 load for figures: connections that keep a window of publishes open.
//!
//! Deliberately poor: fixed packets, no parsing beyond the packet type, one thread a connection.
//! It costs the same whichever broker it is pointed at.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::wait;

const PAYLOAD_BYTES: usize = 256;
/// PUBACK, PUBREC, PUBREL and PUBCOMP of MQTT 3.1.1.
const ACK_BYTES: usize = 4;
const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;

#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub connections: u16,
    /// Unacknowledged messages per connection.
    pub window: u16,
    pub qos: u8,
    pub warm_up: Duration,
    pub measured: Duration,
}

#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    pub messages: u64,
    pub elapsed: Duration,
}

impl Outcome {
    #[must_use]
    pub fn per_second(&self) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a figure of five digits at most"
        )]
        let messages = self.messages as f64;
        messages / self.elapsed.as_secs_f64()
    }
}

/// Counts messages acknowledged to the end between two calls of `mark`, which sees the broker at
/// the beginning and at the end of the measured time.
pub fn run(port: u16, load: Load, mut mark: impl FnMut() -> Result<()>) -> Result<Outcome> {
    let acknowledged = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut workers = Vec::new();
        for number in 0..load.connections {
            let (acknowledged, stop) = (&acknowledged, &stop);
            workers.push(scope.spawn(move || publish(port, number, load, acknowledged, stop)));
        }
        std::thread::sleep(load.warm_up);
        let measured = (|| {
            mark()?;
            let (before, start) = (acknowledged.load(Ordering::Relaxed), Instant::now());
            std::thread::sleep(load.measured);
            let messages = acknowledged.load(Ordering::Relaxed) - before;
            let elapsed = start.elapsed();
            mark()?;
            Ok(Outcome { messages, elapsed })
        })();
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().expect("a worker returns its error")?;
        }
        measured
    })
}

fn publish(
    port: u16,
    number: u16,
    load: Load,
    acknowledged: &AtomicU64,
    stop: &AtomicBool,
) -> Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(wait::START))?;
    stream.write_all(&connect(&format!("bench-{number:05}")))?;
    let mut connack = [0; 4];
    stream.read_exact(&mut connack)?;
    ensure!(connack == [0x20, 2, 0, 0], "refused: {connack:?}");

    let mut free: Vec<u16> = (1..=load.window).rev().collect();
    let mut outgoing = Vec::new();
    let mut incoming = vec![0; 64 * 1024];
    let mut held = 0;
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        while let Some(id) = (!stopping).then(|| free.pop()).flatten() {
            append_publish(&mut outgoing, number, id, load.qos);
        }
        stream.write_all(&outgoing)?;
        outgoing.clear();
        if stopping && free.len() == usize::from(load.window) {
            return Ok(());
        }
        let count = stream
            .read(&mut incoming[held..])
            .context("no acknowledgement")?;
        ensure!(count > 0, "the broker hung up");
        held += count;
        let whole = held - held % ACK_BYTES;
        for ack in incoming[..whole].chunks_exact(ACK_BYTES) {
            let id = u16::from_be_bytes([ack[2], ack[3]]);
            match ack[0] {
                PUBACK | PUBCOMP => {
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                    free.push(id);
                }
                PUBREC => outgoing.extend_from_slice(&[PUBREL, 2, ack[2], ack[3]]),
                other => anyhow::bail!("an unexpected packet of type {other:#x}"),
            }
        }
        incoming.copy_within(whole..held, 0);
        held -= whole;
    }
}

fn connect(client: &str) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x04\x02\x00\x3c".to_vec();
    append_text(&mut body, client);
    let length = u8::try_from(body.len()).expect("a short client id");
    [&[0x10, length], body.as_slice()].concat()
}

fn append_text(buffer: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("a short text");
    buffer.extend_from_slice(&length.to_be_bytes());
    buffer.extend_from_slice(text.as_bytes());
}

fn append_publish(buffer: &mut Vec<u8>, connection: u16, id: u16, qos: u8) {
    let mut body = Vec::with_capacity(PAYLOAD_BYTES + 32);
    append_text(&mut body, &format!("plant/bench/{connection:05}"));
    body.extend_from_slice(&id.to_be_bytes());
    body.resize(body.len() + PAYLOAD_BYTES, b'x');
    let length = body.len();
    assert!(
        (128..16_384).contains(&length),
        "a remaining length of two bytes"
    );
    let low = u8::try_from(length % 128).expect("below 128") | 0x80;
    let high = u8::try_from(length / 128).expect("below 128");
    buffer.extend_from_slice(&[0x30 | (qos << 1), low, high]);
    buffer.extend_from_slice(&body);
}
